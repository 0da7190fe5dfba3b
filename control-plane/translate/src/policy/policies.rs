//! Every policy, and which of them counts on what.
//!
//! Invariant: of several of one kind on one target the older counts, and of equally old ones the first by namespace and
//! name; it counts whether it is valid or not, so that a policy that is broken never lets its rival open the door.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use control_plane_model::{BackendKey, ListenerKey, ObjectName, Policy, PolicyKey, PolicyKind, PolicySpec, RouteKey};

use k8s_openapi::api::core::v1::ConfigMap;

use super::{PolicyObject, Target};

type ConfigMaps = BTreeMap<ObjectName, Arc<ConfigMap>>;

/// The policies of one moment.
#[derive(Default)]
pub(crate) struct Policies {
    entries: BTreeMap<PolicyKey, PolicyEntry>,
    on: BTreeMap<Target, BTreeMap<PolicyKind, BTreeSet<Rank>>>,
    /// Who reads a ConfigMap, which may not be there.
    readers: BTreeMap<ObjectName, BTreeSet<PolicyKey>>,
}

/// One policy.
pub(crate) struct PolicyEntry {
    pub(crate) object: PolicyObject,
    /// What each targetRef names, or why it cannot be.
    pub(crate) targets: Vec<Result<Target, String>>,
    /// What it says, or why that cannot be honoured.
    pub(crate) spec: Result<PolicySpec, String>,
}

impl PolicyEntry {
    fn new(key: &PolicyKey, object: PolicyObject, config_maps: &ConfigMaps) -> Self {
        let targets = object.target_refs().iter();
        let targets = targets.map(|reference| Target::new(key.kind, &key.name.namespace, reference)).collect();
        let spec = object.translate(&key.name.namespace, config_maps);
        Self { object, targets, spec }
    }

    fn rank(&self, key: &PolicyKey) -> Rank {
        let created = self.object.metadata().creation_timestamp.as_ref().map_or(0, |time| time.0.as_second());
        Rank { created, name: key.name.clone() }
    }

    /// Its targets that a policy of its kind can have.
    pub(crate) fn attached(&self) -> impl Iterator<Item = &Target> {
        self.targets.iter().filter_map(|target| target.as_ref().ok())
    }
}

/// What the statuses of others depend on: which policy counts, and what it does to those below.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Face {
    winner: PolicyKey,
    /// Whether it is switched off, and what it overrides; `None` for an invalid one.
    spec: Option<(bool, BTreeSet<String>)>,
}

impl Face {
    /// The policy that counts.
    pub(crate) fn winner(&self) -> &PolicyKey {
        &self.winner
    }
}

/// The older first, then by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    created: i64,
    name: ObjectName,
}

impl Policies {
    /// Stores a policy; whether that changes anything that translation looks at.
    pub(crate) fn upsert(&mut self, name: ObjectName, object: PolicyObject, config_maps: &ConfigMaps) -> bool {
        let key = PolicyKey { kind: object.kind(), name };
        let same = |entry: &PolicyEntry| {
            let (old, new) = (entry.object.metadata(), object.metadata());
            entry.object.has_same_spec(&object)
                && old.generation == new.generation
                && old.creation_timestamp == new.creation_timestamp
        };
        if self.entries.get(&key).is_some_and(same) {
            return false;
        }
        self.remove(&key);
        for config_map in object.config_maps(&key.name.namespace) {
            self.readers.entry(config_map).or_default().insert(key.clone());
        }
        let entry = PolicyEntry::new(&key, object, config_maps);
        let rank = entry.rank(&key);
        for target in entry.attached() {
            self.on.entry(target.clone()).or_default().entry(key.kind).or_default().insert(rank.clone());
        }
        self.entries.insert(key, entry);
        true
    }

    /// Drops a policy; whether there was one.
    pub(crate) fn remove(&mut self, key: &PolicyKey) -> bool {
        let Some(entry) = self.entries.remove(key) else { return false };
        for config_map in entry.object.config_maps(&key.name.namespace) {
            if let Some(readers) = self.readers.get_mut(&config_map) {
                readers.remove(key);
                if readers.is_empty() {
                    self.readers.remove(&config_map);
                }
            }
        }
        let rank = entry.rank(key);
        for target in entry.attached() {
            let Some(kinds) = self.on.get_mut(target) else { continue };
            if let Some(ranks) = kinds.get_mut(&key.kind) {
                ranks.remove(&rank);
                if ranks.is_empty() {
                    kinds.remove(&key.kind);
                }
            }
            if kinds.is_empty() {
                self.on.remove(target);
            }
        }
        true
    }

    /// The policies that read a ConfigMap.
    pub(crate) fn readers(&self, config_map: &ObjectName) -> Vec<PolicyKey> {
        self.readers.get(config_map).into_iter().flatten().cloned().collect()
    }

    /// Translates a policy again; whether it says something else now.
    pub(crate) fn read_again(&mut self, key: &PolicyKey, config_maps: &ConfigMaps) -> bool {
        let Some(entry) = self.entries.get_mut(key) else { return false };
        let spec = entry.object.translate(&key.name.namespace, config_maps);
        let is_different = spec != entry.spec;
        entry.spec = spec;
        is_different
    }

    /// One policy.
    pub(crate) fn get(&self, key: &PolicyKey) -> Option<&PolicyEntry> {
        self.entries.get(key)
    }

    /// One policy as proxies get it.
    pub(crate) fn model(&self, key: &PolicyKey) -> Option<Policy> {
        let spec = self.entries.get(key)?.spec.clone().unwrap_or(PolicySpec::Invalid);
        Some(Policy { key: key.clone(), spec })
    }

    /// The policy of `kind` that counts on `target`.
    pub(crate) fn winner(&self, target: &Target, kind: PolicyKind) -> Option<PolicyKey> {
        let first = self.on.get(target)?.get(&kind)?.first()?;
        Some(PolicyKey { kind, name: first.name.clone() })
    }

    /// The policies that count on `target`, one of each kind, sorted.
    pub(crate) fn keys(&self, target: &Target) -> Vec<PolicyKey> {
        let kinds = self.on.get(target).into_iter().flat_map(BTreeMap::keys);
        kinds.filter_map(|kind| self.winner(target, *kind)).collect()
    }

    /// The policies that count on a listener. One that names the listener counts before one that names its ListenerSet.
    pub(crate) fn keys_of_listener(&self, listener: &ListenerKey) -> Vec<PolicyKey> {
        let Some(set) = &listener.listener_set else {
            return self.keys(&Target::GatewayListener(listener.gateway.clone(), listener.name.clone()));
        };
        let mut keys = self.keys(&Target::SetListener(set.clone(), listener.name.clone()));
        for key in self.keys(&Target::ListenerSet(set.clone())) {
            if !keys.iter().any(|other| other.kind == key.kind) {
                keys.push(key);
            }
        }
        keys.sort();
        keys
    }

    /// The policies that count on a port of a Service. One that names the port, by name or number, counts before one that names
    /// the Service; of two that name the port in different ways the older.
    pub(crate) fn keys_of_backend(&self, backend: &BackendKey, port_name: Option<&str>) -> Vec<PolicyKey> {
        let number = backend.port.to_string();
        let named = |port: &str| self.on.get(&Target::ServicePort(backend.service.clone(), port.into()));
        let on_port: Vec<_> = port_name.into_iter().chain([number.as_str()]).filter_map(named).collect();
        let on_service = self.on.get(&Target::Service(backend.service.clone()));
        let first = |kind: PolicyKind| {
            let of_port = on_port.iter().filter_map(|kinds| kinds.get(&kind)?.first()).min();
            of_port.or_else(|| on_service?.get(&kind)?.first())
        };
        let key = |kind| first(kind).map(|rank| PolicyKey { kind, name: rank.name.clone() });
        PolicyKind::ALL.iter().copied().filter_map(key).collect()
    }

    /// The policies on the way of a request that comes by `listener` to `rule` of `route`, the least specific first.
    pub(crate) fn chain(&self, listener: &ListenerKey, route: Option<&RouteKey>, rule: Option<&str>) -> Vec<PolicyKey> {
        let mut chain = self.keys(&Target::Gateway(listener.gateway.clone()));
        chain.extend(self.keys_of_listener(listener));
        if let Some(route) = route {
            chain.extend(self.keys(&Target::Route(route.clone())));
            chain.extend(rule.into_iter().flat_map(|rule| self.keys(&Target::Rule(route.clone(), rule.into()))));
        }
        chain
    }

    /// What others can tell of the policy `key` on each of its targets.
    pub(crate) fn faces(&self, key: &PolicyKey) -> BTreeMap<Target, Option<Face>> {
        let targets = self.entries.get(key).into_iter().flat_map(PolicyEntry::attached);
        let face = |target: &Target| {
            let winner = self.winner(target, key.kind)?;
            let spec = &self.entries.get(&winner)?.spec;
            let spec = spec.as_ref().ok().map(|spec| (spec.is_disabled(), spec.overridden_fields()));
            Some(Face { winner, spec })
        };
        targets.map(|target| (target.clone(), face(target))).collect()
    }

    /// Every policy on `target`, those that do not count too.
    pub(crate) fn all_on(&self, target: &Target) -> impl Iterator<Item = PolicyKey> + '_ {
        let kinds = self.on.get(target).into_iter().flatten();
        kinds.flat_map(|(kind, ranks)| ranks.iter().map(|rank| PolicyKey { kind: *kind, name: rank.name.clone() }))
    }

    /// Every policy on a route and on its rules.
    pub(crate) fn all_on_route(&self, route: &RouteKey) -> impl Iterator<Item = PolicyKey> + '_ {
        let first = Target::Rule(route.clone(), Arc::from(""));
        let rules = self.on.range(first..).map(|(target, _)| target);
        let of = route.clone();
        let rules = rules.take_while(move |target| matches!(target, Target::Rule(route, _) if *route == of));
        let on_route: Vec<PolicyKey> = self.all_on(&Target::Route(route.clone())).collect();
        on_route.into_iter().chain(rules.flat_map(|target| self.all_on(target)))
    }

    /// Every policy on a Service and on its ports.
    pub(crate) fn all_on_service(&self, service: &ObjectName) -> impl Iterator<Item = PolicyKey> + '_ {
        let first = Target::ServicePort(service.clone(), Arc::from(""));
        let of = service.clone();
        let ports = self.on.range(first..).map(|(target, _)| target);
        let ports = ports.take_while(move |target| matches!(target, Target::ServicePort(service, _) if *service == of));
        let on_service: Vec<PolicyKey> = self.all_on(&Target::Service(service.clone())).collect();
        on_service.into_iter().chain(ports.flat_map(|target| self.all_on(target)))
    }

    /// Every policy on a target of which `is_meant` is true. Looks at every target that has one.
    pub(crate) fn all_where(&self, is_meant: impl Fn(&Target) -> bool) -> BTreeSet<PolicyKey> {
        self.on.keys().filter(|target| is_meant(target)).flat_map(|target| self.all_on(target)).collect()
    }
}
