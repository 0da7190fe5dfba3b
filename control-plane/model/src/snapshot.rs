//! All configuration objects of one moment, and the difference between two such moments.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    Backend, BackendKey, Certificate, CertificateKey, Endpoints, Gateway, GatewayKey, Listener, ListenerKey, Policy,
    PolicyKey, ResourceKey, Route, RouteKey,
};

/// One configuration object. Cheap to clone.
#[derive(Clone, Debug, PartialEq)]
pub enum Resource {
    /// Settings of one Gateway's proxies.
    Gateway(Arc<Gateway>),
    /// A certificate with its key.
    Certificate(Arc<Certificate>),
    /// A policy.
    Policy(Arc<Policy>),
    /// A listener.
    Listener(Arc<Listener>),
    /// A backend.
    Backend(Arc<Backend>),
    /// A backend's endpoints.
    Endpoints(Arc<Endpoints>),
    /// A route.
    Route(Arc<Route>),
}

impl Resource {
    /// The object's key.
    pub fn key(&self) -> ResourceKey {
        match self {
            Self::Gateway(object) => ResourceKey::Gateway(object.key.clone()),
            Self::Certificate(object) => ResourceKey::Certificate(object.key.clone()),
            Self::Policy(object) => ResourceKey::Policy(object.key.clone()),
            Self::Listener(object) => ResourceKey::Listener(object.key.clone()),
            Self::Backend(object) => ResourceKey::Backend(object.key.clone()),
            Self::Endpoints(object) => ResourceKey::Endpoints(object.key.clone()),
            Self::Route(object) => ResourceKey::Route(object.key.clone()),
        }
    }
}

/// What is to change, as one transaction: either side may be empty, no key is in both.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Delta {
    /// New and changed objects.
    pub upserted: Vec<Resource>,
    /// Objects that are gone.
    pub removed: Vec<ResourceKey>,
}

impl Delta {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.upserted.is_empty() && self.removed.is_empty()
    }
}

/// How new the user's object is that a configuration object was made from. Two of one key are comparable, whichever replica
/// of the control plane they come from. No part of an object's content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl Revision {
    /// Of what comes from several objects, or from files.
    pub const UNKNOWN: Self = Self(0);
}

/// All objects of one moment, by key.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// Settings of each Gateway's proxies.
    pub gateways: BTreeMap<GatewayKey, Arc<Gateway>>,
    /// Certificates.
    pub certificates: BTreeMap<CertificateKey, Arc<Certificate>>,
    /// Policies.
    pub policies: BTreeMap<PolicyKey, Arc<Policy>>,
    /// Listeners.
    pub listeners: BTreeMap<ListenerKey, Arc<Listener>>,
    /// Backends.
    pub backends: BTreeMap<BackendKey, Arc<Backend>>,
    /// Endpoints by backend.
    pub endpoints: BTreeMap<BackendKey, Arc<Endpoints>>,
    /// Routes.
    pub routes: BTreeMap<RouteKey, Arc<Route>>,
}

impl Snapshot {
    /// Adds or replaces one object.
    pub fn insert(&mut self, resource: Resource) {
        match resource {
            Resource::Gateway(object) => drop(self.gateways.insert(object.key.clone(), object)),
            Resource::Certificate(object) => drop(self.certificates.insert(object.key.clone(), object)),
            Resource::Policy(object) => drop(self.policies.insert(object.key.clone(), object)),
            Resource::Listener(object) => drop(self.listeners.insert(object.key.clone(), object)),
            Resource::Backend(object) => drop(self.backends.insert(object.key.clone(), object)),
            Resource::Endpoints(object) => drop(self.endpoints.insert(object.key.clone(), object)),
            Resource::Route(object) => drop(self.routes.insert(object.key.clone(), object)),
        }
    }

    /// Removes one object; does nothing where there is none.
    pub fn remove(&mut self, key: &ResourceKey) {
        match key {
            ResourceKey::Gateway(key) => drop(self.gateways.remove(key)),
            ResourceKey::Certificate(key) => drop(self.certificates.remove(key)),
            ResourceKey::Policy(key) => drop(self.policies.remove(key)),
            ResourceKey::Listener(key) => drop(self.listeners.remove(key)),
            ResourceKey::Backend(key) => drop(self.backends.remove(key)),
            ResourceKey::Endpoints(key) => drop(self.endpoints.remove(key)),
            ResourceKey::Route(key) => drop(self.routes.remove(key)),
        }
    }

    /// Brings the snapshot to the moment after `delta`.
    pub fn apply(&mut self, delta: &Delta) {
        for key in &delta.removed {
            self.remove(key);
        }
        for resource in &delta.upserted {
            self.insert(resource.clone());
        }
    }

    /// Every object, in the order in which a proxy can take them without a reference dangling.
    pub fn resources(&self) -> impl Iterator<Item = Resource> + '_ {
        let gateways = self.gateways.values().cloned().map(Resource::Gateway);
        let certificates = self.certificates.values().cloned().map(Resource::Certificate);
        let policies = self.policies.values().cloned().map(Resource::Policy);
        let listeners = self.listeners.values().cloned().map(Resource::Listener);
        let backends = self.backends.values().cloned().map(Resource::Backend);
        let endpoints = self.endpoints.values().cloned().map(Resource::Endpoints);
        let routes = self.routes.values().cloned().map(Resource::Route);
        gateways.chain(certificates).chain(policies).chain(listeners).chain(backends).chain(endpoints).chain(routes)
    }

    /// What brings `previous` to this moment.
    pub fn delta_from(&self, previous: &Self) -> Delta {
        fn compare<K: Ord + Clone, V: PartialEq>(
            new: &BTreeMap<K, Arc<V>>,
            old: &BTreeMap<K, Arc<V>>,
            delta: &mut Delta,
            resource: fn(Arc<V>) -> Resource,
            key: fn(K) -> ResourceKey,
        ) {
            for (name, object) in new {
                if !old.get(name).is_some_and(|before| Arc::ptr_eq(before, object) || before == object) {
                    delta.upserted.push(resource(object.clone()));
                }
            }
            delta.removed.extend(old.keys().filter(|name| !new.contains_key(*name)).cloned().map(key));
        }
        let mut delta = Delta::default();
        compare(&self.gateways, &previous.gateways, &mut delta, Resource::Gateway, ResourceKey::Gateway);
        compare(
            &self.certificates,
            &previous.certificates,
            &mut delta,
            Resource::Certificate,
            ResourceKey::Certificate,
        );
        compare(&self.policies, &previous.policies, &mut delta, Resource::Policy, ResourceKey::Policy);
        compare(&self.listeners, &previous.listeners, &mut delta, Resource::Listener, ResourceKey::Listener);
        compare(&self.backends, &previous.backends, &mut delta, Resource::Backend, ResourceKey::Backend);
        compare(&self.endpoints, &previous.endpoints, &mut delta, Resource::Endpoints, ResourceKey::Endpoints);
        compare(&self.routes, &previous.routes, &mut delta, Resource::Route, ResourceKey::Route);
        delta
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BackendProtocol, ObjectName};

    fn backend(name: &str, protocol: BackendProtocol) -> Resource {
        let key = BackendKey { service: ObjectName::new("shop", name), port: 80.try_into().unwrap() };
        Resource::Backend(Arc::new(Backend { key, protocol, policies: Vec::new() }))
    }

    #[test]
    fn a_delta_brings_the_old_snapshot_to_the_new_one() {
        let (mut old, mut new) = (Snapshot::default(), Snapshot::default());
        old.insert(backend("stays", BackendProtocol::Http1));
        old.insert(backend("changes", BackendProtocol::Http1));
        old.insert(backend("goes", BackendProtocol::Http1));
        new.insert(backend("stays", BackendProtocol::Http1));
        new.insert(backend("changes", BackendProtocol::H2c));
        new.insert(backend("comes", BackendProtocol::Http1));
        let delta = new.delta_from(&old);
        assert_eq!((delta.upserted.len(), delta.removed.len()), (2, 1));
        old.apply(&delta);
        assert_eq!(old, new);
    }
}
