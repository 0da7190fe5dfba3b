//! Computes again what is stale, in the order of dependence: Gateways, routes, backends, statuses.
//! Invariant: each key of the snapshot is set at most once in a pass, so that the delta is the difference.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use control_plane_model::{
    AccessLog, Backend, BackendKey, Delta, Gateway, GatewayKey, Listener, ListenerKey, ObjectName, PolicyKey, Resource,
    ResourceKey, RouteKey, RouteKind, SamplingRatio, Snapshot, Tracing,
};
use crds::gateway_config::{self, GatewayConfigSpec};
use serde_json::Value;

use super::{Output, Stale, Translator, Work, policy_object};
use crate::{
    Kind, StatusUpdate,
    endpoints::endpoints,
    gateway::{ListenerState, Topology, check_config, parent_gateway},
    index::Touched,
    policy::Target,
    route::{self, Context, Parent, backend},
    status::{self, GatewayFacts},
};

/// What a pass has found so far.
#[derive(Default)]
struct Pass {
    delta: Delta,
    work: Work,
    touched: Touched,
}

impl Pass {
    /// Sets or removes one object of the snapshot.
    fn set(&mut self, snapshot: &mut Snapshot, key: ResourceKey, new: Option<Resource>) {
        match new {
            Some(resource) if get(snapshot, &key).as_ref() != Some(&resource) => {
                snapshot.insert(resource.clone());
                self.delta.upserted.push(resource);
            }
            None if get(snapshot, &key).is_some() => {
                snapshot.remove(&key);
                self.delta.removed.push(key);
            }
            _ => {}
        }
    }
}

pub(super) fn get(snapshot: &Snapshot, key: &ResourceKey) -> Option<Resource> {
    match key {
        ResourceKey::Gateway(key) => snapshot.gateways.get(key).cloned().map(Resource::Gateway),
        ResourceKey::Certificate(key) => snapshot.certificates.get(key).cloned().map(Resource::Certificate),
        ResourceKey::Policy(key) => snapshot.policies.get(key).cloned().map(Resource::Policy),
        ResourceKey::Listener(key) => snapshot.listeners.get(key).cloned().map(Resource::Listener),
        ResourceKey::Backend(key) => snapshot.backends.get(key).cloned().map(Resource::Backend),
        ResourceKey::Endpoints(key) => snapshot.endpoints.get(key).cloned().map(Resource::Endpoints),
        ResourceKey::Route(key) => snapshot.routes.get(key).cloned().map(Resource::Route),
    }
}

/// The object behind a route's key.
pub(super) fn route_object(key: &RouteKey) -> (Kind, ObjectName) {
    (route_kind(key.kind), key.name.clone())
}

/// The kind of a route's object.
pub(crate) fn route_kind(kind: RouteKind) -> Kind {
    match kind {
        RouteKind::Http => Kind::HttpRoute,
        RouteKind::Grpc => Kind::GrpcRoute,
    }
}

impl Translator {
    pub(super) fn refresh(&mut self, mut stale: Stale) -> Output {
        let mut pass = Pass::default();
        for key in &stale.policies {
            let policy = self.inputs.policies.model(key).map(Arc::new).map(Resource::Policy);
            pass.set(&mut self.snapshot, ResourceKey::Policy(key.clone()), policy);
        }
        let deployments_changed = stale.topology && self.refresh_topology(&mut stale, &mut pass);
        if stale.listener_policies && !stale.topology {
            self.set_gateways(&mut pass);
            self.set_listeners(&mut pass);
        }
        for service in &stale.services {
            stale.routes.extend(self.index.users_of_service(service).cloned());
        }
        // Routes go last into the delta, after the backends that they name; both are known only once routes are translated.
        let routes = self.refresh_routes(&stale.routes, &mut pass);
        self.refresh_backends(&stale, &mut pass);
        for (key, route) in routes {
            pass.set(&mut self.snapshot, ResourceKey::Route(key), route.map(Resource::Route));
        }
        let statuses = self.refresh_statuses(&stale, &mut pass);
        let revisions = self.revisions(&stale.seen, &pass.delta);
        Output { delta: pass.delta, revisions, statuses, deployments_changed, work: pass.work }
    }

    /// Whether deployments changed.
    fn refresh_topology(&mut self, stale: &mut Stale, pass: &mut Pass) -> bool {
        pass.work.topologies += 1;
        let new = Topology::new(&self.inputs, &self.options, &mut self.certificates);
        self.certificates.retain(|name| new.secrets.contains(name));
        self.mark_changed(&new, stale);
        self.topology = new;
        self.set_gateways(pass);
        self.set_certificates(pass);
        self.set_listeners(pass);
        let deployments = self.topology.deployments(&self.inputs);
        let changed = deployments != self.deployments;
        self.deployments = deployments;
        changed
    }

    /// Marks statuses, and routes whose parents are different.
    fn mark_changed(&self, new: &Topology, stale: &mut Stale) {
        let old = &self.topology;
        for name in differing(&old.classes, &new.classes) {
            stale.statuses.insert((Kind::GatewayClass, name.clone()));
        }
        for key in differing(&old.gateways, &new.gateways) {
            stale.statuses.insert((Kind::Gateway, key.0.clone()));
            let same = match (old.gateways.get(key), new.gateways.get(key)) {
                (Some(old), Some(new)) => attach_alike(&old.listeners, &new.listeners),
                _ => false,
            };
            if !same {
                stale.routes.extend(self.index.children(&Parent::Gateway(key.clone())).cloned());
            }
        }
        for name in differing(&old.listener_sets, &new.listener_sets) {
            stale.routes.extend(self.index.children(&Parent::ListenerSet(name.clone())).cloned());
        }
        // Whether a policy of a Gateway or listener has its target depends on them all.
        let on_listeners = self.inputs.policies.all_where(Target::is_of_gateway);
        stale.statuses.extend(on_listeners.iter().map(policy_object));
        // What a ListenerSet's status says depends on its Gateway too.
        let sets = old.listener_sets.keys().chain(new.listener_sets.keys());
        stale.statuses.extend(sets.map(|name| (Kind::ListenerSet, name.clone())));
    }

    fn set_gateways(&mut self, pass: &mut Pass) {
        let keys: BTreeSet<GatewayKey> =
            self.snapshot.gateways.keys().chain(self.topology.gateways.keys()).cloned().collect();
        for key in keys {
            let policies = self.inputs.policies.keys(&Target::Gateway(key.clone()));
            let new = self.topology.gateways.get(&key);
            let new = new.map(|state| Arc::new(settings(&key, &state.settings, policies)));
            pass.set(&mut self.snapshot, ResourceKey::Gateway(key), new.map(Resource::Gateway));
        }
    }

    fn set_certificates(&mut self, pass: &mut Pass) {
        let used: BTreeSet<_> = self
            .topology
            .certificates
            .keys()
            .filter(|key| self.topology.listeners().any(|listener| listener.model.is_some() && listener.uses(key)))
            .cloned()
            .collect();
        let keys: BTreeSet<_> = self.snapshot.certificates.keys().chain(&used).cloned().collect();
        for key in keys {
            let new = self.topology.certificates.get(&key).filter(|_| used.contains(&key)).cloned();
            pass.set(&mut self.snapshot, ResourceKey::Certificate(key), new.map(Resource::Certificate));
        }
    }

    fn set_listeners(&mut self, pass: &mut Pass) {
        let models = self.topology.listeners().filter_map(|state| Some((state.key.clone(), state.model.clone()?)));
        let new: BTreeMap<ListenerKey, Arc<Listener>> = models.collect();
        let keys: BTreeSet<ListenerKey> = self.snapshot.listeners.keys().chain(new.keys()).cloned().collect();
        for key in keys {
            let listener = new.get(&key).map(|model| {
                let policies = self.inputs.policies.keys_of_listener(&key);
                Arc::new(Listener { policies, ..Listener::clone(model) })
            });
            pass.set(&mut self.snapshot, ResourceKey::Listener(key), listener.map(Resource::Listener));
        }
    }

    fn refresh_routes(
        &mut self,
        keys: &BTreeSet<RouteKey>,
        pass: &mut Pass,
    ) -> Vec<(RouteKey, Option<Arc<control_plane_model::Route>>)> {
        let mut routes = Vec::new();
        for key in keys {
            pass.work.routes += 1;
            let context = Context { inputs: &self.inputs, topology: &self.topology, mode: self.options.mode };
            let new = route::translate(key, &context);
            let old = self.routes.get(key);
            if old == new.as_ref() {
                continue;
            }
            self.index.replace(key, old, new.as_ref(), &mut pass.touched);
            pass.touched.routes.insert(key.clone());
            routes.push((key.clone(), new.as_ref().and_then(|outcome| outcome.route.clone())));
            match new {
                Some(outcome) => self.routes.insert(key.clone(), outcome),
                None => self.routes.remove(key),
            };
        }
        routes
    }

    fn refresh_backends(&mut self, stale: &Stale, pass: &mut Pass) {
        let mut keys = std::mem::take(&mut pass.touched.backends);
        for service in stale.services.iter().chain(&stale.endpoints).chain(&stale.backends) {
            keys.extend(self.index.backends_of(service).cloned());
        }
        for key in keys {
            pass.work.backends += 1;
            let backend = self.backend(&key);
            let endpoints = backend.as_ref().map(|_| Arc::new(endpoints(&key, &self.inputs, self.options.mode)));
            let endpoints = endpoints.map(Resource::Endpoints);
            pass.set(&mut self.snapshot, ResourceKey::Backend(key.clone()), backend.map(Resource::Backend));
            pass.set(&mut self.snapshot, ResourceKey::Endpoints(key), endpoints);
        }
    }

    /// The backend `key`, where a route uses it. Such a route was translated after its Service was, so that it exists.
    fn backend(&self, key: &BackendKey) -> Option<Arc<Backend>> {
        if !self.index.is_used(key) {
            return None;
        }
        let service = self.inputs.services.get(&key.service)?;
        let protocol = backend::protocol(key, service, &self.inputs).ok()?;
        let port_name = backend::service_port(service, key.port).and_then(|port| port.name.as_deref());
        let policies = self.inputs.policies.keys_of_backend(key, port_name);
        Some(Arc::new(Backend { key: key.clone(), protocol, policies }))
    }

    fn refresh_statuses(&mut self, stale: &Stale, pass: &mut Pass) -> Vec<StatusUpdate> {
        let mut keys = stale.statuses.clone();
        keys.extend(pass.touched.routes.iter().map(route_object));
        let of_routes = stale.routes.iter().flat_map(|route| self.inputs.policies.all_on_route(route));
        keys.extend(of_routes.map(|key| policy_object(&key)));
        keys.extend(pass.touched.listeners.iter().map(|listener| match &listener.listener_set {
            None => (Kind::Gateway, listener.gateway.0.clone()),
            Some(set) => (Kind::ListenerSet, set.clone()),
        }));
        let mut updates = Vec::new();
        for key in keys {
            pass.work.statuses += 1;
            let Some((generation, status)) = self.build_status(key.0, &key.1) else {
                if self.statuses.remove(&key).is_some() {
                    updates.extend(self.withdrawal(key.0, key.1));
                }
                continue;
            };
            let update = StatusUpdate { kind: key.0, name: key.1.clone(), generation, status };
            if self.statuses.get(&key) != Some(&update) {
                self.statuses.insert(key, update.clone());
                updates.push(update);
            }
        }
        updates
    }

    /// Takes back what was said of an object that is there but no longer ours. One that another controller has now is left
    /// to that controller: it writes the same conditions, and by now they may be its own.
    fn withdrawal(&self, kind: Kind, name: ObjectName) -> Option<StatusUpdate> {
        let (metadata, gateway) = match kind {
            Kind::Gateway => {
                let gateway = self.inputs.gateways.get(&name)?;
                (&gateway.metadata, Some(gateway))
            }
            Kind::ListenerSet => {
                let set = self.inputs.listener_sets.get(&name)?;
                let parent = parent_gateway(&name, set);
                (&set.metadata, parent.and_then(|gateway| self.inputs.gateways.get(&gateway.0)))
            }
            _ => return None,
        };
        if gateway.is_some_and(|gateway| self.inputs.class_of(gateway).is_some()) {
            return None;
        }
        let generation = metadata.generation.unwrap_or_default();
        Some(StatusUpdate { kind, name, generation, status: Value::Null })
    }

    fn build_status(&self, kind: Kind, name: &ObjectName) -> Option<(i64, Value)> {
        match kind {
            Kind::GatewayClass => {
                let class = self.topology.classes.get(name)?;
                let version = self.bundle_version.as_deref();
                Some((class.generation, status::class(&class.accepted, version, class.generation)))
            }
            Kind::GatewayConfig => {
                let config = self.inputs.configs.get(name)?;
                let generation = config.metadata.generation.unwrap_or_default();
                Some((generation, status::config(check_config(&config.spec), generation)))
            }
            Kind::Gateway => {
                let key = GatewayKey(name.clone());
                let state = self.topology.gateways.get(&key)?;
                Some((state.generation, status::gateway(&key, state, &self.facts(&key))))
            }
            Kind::ListenerSet => {
                let set = self.topology.listener_sets.get(name)?;
                let gateway = self.topology.gateways.get(&set.gateway)?;
                Some((set.generation, status::listener_set(set, gateway, &self.facts(&set.gateway))))
            }
            Kind::HttpRoute => self.route_status(&RouteKey { kind: RouteKind::Http, name: name.clone() }),
            Kind::GrpcRoute => self.route_status(&RouteKey { kind: RouteKind::Grpc, name: name.clone() }),
            other => {
                let key = PolicyKey { kind: other.policy()?, name: name.clone() };
                let entry = self.inputs.policies.get(&key)?;
                let generation = entry.object.metadata().generation.unwrap_or_default();
                Some((generation, status::policy(&key, entry, &self.policy_facts())))
            }
        }
    }

    fn route_status(&self, key: &RouteKey) -> Option<(i64, Value)> {
        let outcome = self.routes.get(key)?;
        let shadowed = self.index.shadowed(outcome);
        let controller = &self.options.controller_name;
        let facts = status::RouteFacts {
            shadowed: &shadowed,
            controller_name: controller,
            reports: &self.inputs.reports,
            policies: &self.inputs.policies,
        };
        let status = status::route(key, outcome, &facts);
        Some((outcome.generation, status))
    }

    fn policy_facts(&self) -> status::PolicyFacts<'_> {
        status::PolicyFacts {
            controller_name: &self.options.controller_name,
            inputs: &self.inputs,
            topology: &self.topology,
            routes: &self.routes,
        }
    }

    fn facts(&self, gateway: &GatewayKey) -> GatewayFacts<'_> {
        GatewayFacts {
            mode: self.options.mode,
            provisioned: self.inputs.provisioned.get(gateway),
            refused: self.inputs.reports.get(gateway),
            attached_routes: &self.index.attached,
        }
    }
}

/// Keys whose values are different, or are on one side alone.
fn differing<'a, K: Ord, V: PartialEq>(old: &'a BTreeMap<K, V>, new: &'a BTreeMap<K, V>) -> Vec<&'a K> {
    let gone = old.keys().filter(|key| !new.contains_key(*key));
    let changed = new.iter().filter(|(key, value)| old.get(*key) != Some(value)).map(|(key, _)| key);
    gone.chain(changed).collect()
}

/// Whether the same routes attach to both, in the same way.
fn attach_alike(old: &[ListenerState], new: &[ListenerState]) -> bool {
    old.len() == new.len()
        && old.iter().zip(new).all(|(old, new)| {
            (&old.key, old.port, &old.hostname, &old.kinds) == (&new.key, new.port, &new.hostname, &new.kinds)
                && old.namespaces == new.namespaces
                && old.accepted.status == new.accepted.status
        })
}

/// A Gateway's settings for its proxies.
fn settings(key: &GatewayKey, spec: &GatewayConfigSpec, policies: Vec<PolicyKey>) -> Gateway {
    let access_log = match spec.log.access_log {
        gateway_config::AccessLog::Json => AccessLog::Json,
        gateway_config::AccessLog::Disabled => AccessLog::Off,
    };
    let tracing = spec.telemetry.tracing.as_ref().and_then(|tracing| {
        let sampling = SamplingRatio::new(tracing.sampling.ratio()).ok()?;
        Some(Tracing { endpoint: tracing.endpoint.clone(), sampling })
    });
    Gateway { key: key.clone(), access_log, tracing, policies }
}
