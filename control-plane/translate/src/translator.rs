//! Keeps the inputs and what was made of them, and brings both from one moment to the next.

mod refresh;
mod revisions;

pub(crate) use refresh::route_kind;

use std::collections::{BTreeMap, BTreeSet};

use control_plane_model::{
    Delta, GatewayKey, ObjectName, PolicyKey, PolicyKind, ResourceKey, Revision, RouteKey, RouteKind, Snapshot,
};

use crate::{
    Change, Deployment, Kind, Problem, StatusUpdate,
    certificate::Certificates,
    gateway::Topology,
    index::Index,
    inputs::{Inputs, in_namespace},
    policy::Target,
    route::{Outcome, Parent},
    status,
};

/// Where the objects come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// From a Kubernetes API server: what was not watched does not exist.
    Cluster,
    /// From files: every Gateway is ours where no GatewayClass is given, `spec.addresses` are bound by the proxy itself, a
    /// Service may name its endpoints in the annotation `nebula.dev/endpoints`.
    Standalone,
}

/// What a [`Translator`] needs to know.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the objects come from.
    pub mode: Mode,
    /// GatewayClasses with this `spec.controllerName` are ours.
    pub controller_name: String,
}

/// What a batch of changes does.
#[derive(Clone, Debug, Default)]
pub struct Output {
    /// The change of the snapshot.
    pub delta: Delta,
    /// How new the changed objects are, and those whose source has changed in nothing that they are made of. What is not
    /// listed, and in the delta, is of unknown revision.
    pub revisions: BTreeMap<ResourceKey, Revision>,
    /// Statuses that are now different from what was said before.
    pub statuses: Vec<StatusUpdate>,
    /// Whether [`Translator::deployments`] is now different.
    pub deployments_changed: bool,
    /// How much was computed to find that out.
    pub work: Work,
}

/// Number of objects that a batch of changes computed again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Passes over all Gateways and ListenerSets.
    pub topologies: usize,
    /// Routes translated.
    pub routes: usize,
    /// Backends resolved, with their endpoints.
    pub backends: usize,
    /// Statuses built.
    pub statuses: usize,
}

/// Custom resources to configuration, incrementally.
pub struct Translator {
    options: Options,
    inputs: Inputs,
    bundle_version: Option<String>,
    certificates: Certificates,
    topology: Topology,
    routes: BTreeMap<RouteKey, Outcome>,
    index: Index,
    snapshot: Snapshot,
    statuses: BTreeMap<(Kind, ObjectName), StatusUpdate>,
    deployments: BTreeMap<GatewayKey, Deployment>,
}

/// What a batch of changes makes stale.
#[derive(Default)]
struct Stale {
    topology: bool,
    routes: BTreeSet<RouteKey>,
    /// Services whose ports or type changed.
    services: BTreeSet<ObjectName>,
    /// Services whose policies changed.
    backends: BTreeSet<ObjectName>,
    /// Services whose endpoints changed.
    endpoints: BTreeSet<ObjectName>,
    /// Policies that are different, or are gone.
    policies: BTreeSet<PolicyKey>,
    /// Whether the policies on a Gateway or a listener are.
    listener_policies: bool,
    statuses: BTreeSet<(Kind, ObjectName)>,
    /// Objects that were read again, whether anything in them changed or not.
    seen: BTreeSet<(Kind, ObjectName)>,
}

impl Translator {
    /// Knows no object yet.
    pub fn new(options: Options) -> Self {
        Self {
            options,
            inputs: Inputs::default(),
            bundle_version: None,
            certificates: Certificates::new(),
            topology: Topology::default(),
            routes: BTreeMap::new(),
            index: Index::default(),
            snapshot: Snapshot::default(),
            statuses: BTreeMap::new(),
            deployments: BTreeMap::new(),
        }
    }

    /// Takes a batch of changes as one moment.
    pub fn apply(&mut self, changes: Vec<Change>) -> Output {
        let mut stale = Stale::default();
        for change in changes {
            self.take(change, &mut stale);
        }
        self.refresh(stale)
    }

    /// The configuration of this moment.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// What the provisioner is to run for each Gateway of ours. A Gateway that is missing here is to have nothing.
    pub fn deployments(&self) -> &BTreeMap<GatewayKey, Deployment> {
        &self.deployments
    }

    /// Every status of this moment, for a writer that begins now.
    pub fn statuses(&self) -> impl Iterator<Item = &StatusUpdate> {
        self.statuses.values()
    }

    /// The status of one object, for a writer that saw it change; `None` where it is not ours.
    pub fn status(&self, kind: Kind, name: &ObjectName) -> Option<&StatusUpdate> {
        self.statuses.get(&(kind, name.clone()))
    }

    /// Everything that is refused, by object. In standalone mode, where no other controller can be meant, also Gateways and
    /// routes that are nobody's.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems: Vec<Problem> = self.statuses.values().flat_map(status::problems).collect();
        if self.options.mode == Mode::Standalone {
            problems.extend(self.strangers());
        }
        problems
    }

    fn strangers(&self) -> impl Iterator<Item = Problem> {
        let gateways = self
            .inputs
            .gateways
            .iter()
            .filter(|(name, _)| !self.topology.gateways.contains_key(&GatewayKey((*name).clone())));
        let gateways = gateways.map(|(name, gateway)| {
            let class = &gateway.spec.gateway_class_name;
            let controller = &self.options.controller_name;
            let message = format!("no GatewayClass {class:?} with controllerName {controller:?} is here");
            Problem::of_stranger(Kind::Gateway, name.clone(), message)
        });
        let routes = self.routes.iter().filter(|(_, outcome)| outcome.verdicts.is_empty()).map(|(key, _)| {
            let (kind, name) = refresh::route_object(key);
            Problem::of_stranger(kind, name, "no parentRef names a Gateway or ListenerSet that is here".to_owned())
        });
        gateways.chain(routes)
    }

    fn take(&mut self, change: Change, stale: &mut Stale) {
        match change {
            Change::Upsert(object) => {
                let (kind, name) = (object.kind(), object.name());
                stale.seen.insert((kind, name.clone()));
                if let Some(policy) = kind.policy() {
                    let key = PolicyKey { kind: policy, name };
                    return self.change_policy(&key, stale, |inputs| inputs.upsert(object));
                }
                // Where an EndpointSlice or a policy belonged before it changed matters as much as where it belongs now.
                self.mark_dependents(kind, &name, stale);
                if self.inputs.upsert(object) {
                    self.mark(kind, &name, stale);
                    self.change_users(kind, &name, stale);
                }
            }
            Change::Remove(kind, name) => {
                if let Some(policy) = kind.policy() {
                    let key = PolicyKey { kind: policy, name: name.clone() };
                    return self.change_policy(&key, stale, |inputs| inputs.remove(kind, &name));
                }
                self.mark_dependents(kind, &name, stale);
                if kind == Kind::Gateway {
                    self.mark_reported(&GatewayKey(name.clone()), stale);
                }
                if self.inputs.remove(kind, &name) {
                    self.mark(kind, &name, stale);
                    self.change_users(kind, &name, stale);
                }
            }
            Change::BundleVersion(version) => {
                self.bundle_version = Some(version);
                stale.statuses.extend(self.topology.classes.keys().map(|name| (Kind::GatewayClass, name.clone())));
            }
            Change::Provisioned { gateway, state } => {
                self.mark_gateway_status(&gateway, stale);
                let was_orphaned = self.inputs.is_orphaned(&gateway);
                self.inputs.provisioned.insert(gateway.clone(), state);
                stale.topology |= self.inputs.is_orphaned(&gateway) != was_orphaned;
            }
            Change::Report { gateway, refused } => {
                self.mark_reported(&gateway, stale);
                self.inputs.reports.insert(gateway.clone(), refused);
                self.mark_reported(&gateway, stale);
            }
        }
    }

    /// Marks what an object that is now different makes stale.
    fn mark(&self, kind: Kind, name: &ObjectName, stale: &mut Stale) {
        match kind {
            Kind::GatewayClass | Kind::Gateway | Kind::ListenerSet => stale.topology = true,
            Kind::GatewayConfig => {
                stale.topology = true;
                stale.statuses.insert((kind, name.clone()));
            }
            Kind::HttpRoute => {
                stale.routes.insert(RouteKey { kind: RouteKind::Http, name: name.clone() });
            }
            Kind::GrpcRoute => {
                stale.routes.insert(RouteKey { kind: RouteKind::Grpc, name: name.clone() });
            }
            Kind::ReferenceGrant => {
                stale.topology = true;
                stale.routes.extend(self.index.users_of_namespace(&name.namespace).cloned());
            }
            Kind::Service => {
                stale.services.insert(name.clone());
                // Whether a policy has its target depends on the Service.
                stale.statuses.extend(self.inputs.policies.all_on_service(name).map(|key| policy_object(&key)));
            }
            Kind::Secret => stale.topology |= self.topology.secrets.contains(name),
            Kind::Namespace => {
                stale.topology = true;
                self.mark_namespace(&name.name, stale);
            }
            Kind::EndpointSlice | Kind::BackendTlsPolicy => self.mark_dependents(kind, name, stale),
            // What a policy changes is marked by `change_policy`, what it names by `change_users`.
            _ => {}
        }
    }

    /// Marks the Services that an EndpointSlice or a BackendTLSPolicy, as it is stored, speaks of.
    fn mark_dependents(&self, kind: Kind, name: &ObjectName, stale: &mut Stale) {
        match kind {
            Kind::EndpointSlice => stale.endpoints.extend(self.inputs.service_of_slice(name)),
            Kind::BackendTlsPolicy => stale.services.extend(self.inputs.targets_of_policy(name)),
            _ => {}
        }
    }

    /// Translates the policies again that name an object which is now different.
    fn change_users(&mut self, kind: Kind, name: &ObjectName, stale: &mut Stale) {
        for key in self.inputs.policies.users(kind, name) {
            self.change_policy(&key, stale, |inputs| inputs.translate_policy_again(&key));
        }
    }

    /// Changes a policy, and marks it with what it is attached to, was attached to, and the others there.
    fn change_policy(&mut self, key: &PolicyKey, stale: &mut Stale, change: impl FnOnce(&mut Inputs) -> bool) {
        let mut before = self.inputs.policies.faces(key);
        if !change(&mut self.inputs) {
            return;
        }
        stale.policies.insert(key.clone());
        stale.statuses.insert(policy_object(key));
        for (target, face) in self.inputs.policies.faces(key) {
            let is_seen = match before.remove(&target) {
                Some(before) => before != face,
                None => face.is_some_and(|face| face.winner() == key),
            };
            self.mark_target(&target, key.kind, is_seen, stale);
        }
        for (target, face) in before {
            self.mark_target(&target, key.kind, face.is_some_and(|face| face.winner() == key), stale);
        }
        if key.kind == PolicyKind::Client {
            // What one of them says of its listeners depends on the others there, and on those of listeners beside them.
            let others = self.inputs.policies.all_where(Target::is_of_gateway);
            let others = others.iter().filter(|other| other.kind == PolicyKind::Client);
            stale.statuses.extend(others.map(policy_object));
        }
    }

    /// Marks what a policy is attached to. `is_seen`: the statuses of others can tell that it is different.
    fn mark_target(&self, target: &Target, kind: PolicyKind, is_seen: bool, stale: &mut Stale) {
        let others = self.inputs.policies.all_on(target).filter(|other| other.kind == kind);
        stale.statuses.extend(others.map(|other| policy_object(&other)));
        if !is_seen {
            return;
        }
        match target {
            Target::Route(route) | Target::Rule(route, _) => {
                stale.routes.insert(route.clone());
                stale.statuses.insert(refresh::route_object(route));
                self.mark_route_policies(route, stale);
            }
            Target::Gateway(gateway) | Target::GatewayListener(gateway, _) => {
                stale.listener_policies = true;
                self.mark_children(&Parent::Gateway(gateway.clone()), stale);
                for (set, _) in self.topology.listener_sets.iter().filter(|(_, set)| set.gateway == *gateway) {
                    self.mark_children(&Parent::ListenerSet(set.clone()), stale);
                }
            }
            Target::ListenerSet(set) | Target::SetListener(set, _) => {
                stale.listener_policies = true;
                self.mark_children(&Parent::ListenerSet(set.clone()), stale);
            }
            Target::Service(service) | Target::ServicePort(service, _) => {
                stale.backends.insert(service.clone());
            }
        }
    }

    /// Marks the statuses of the routes below a parent, which name the policies in force, and of those routes' policies.
    fn mark_children(&self, parent: &Parent, stale: &mut Stale) {
        for route in self.index.children(parent) {
            stale.statuses.insert(refresh::route_object(route));
            self.mark_route_policies(route, stale);
        }
    }

    /// Marks the statuses of the policies on a route and its rules.
    fn mark_route_policies(&self, route: &RouteKey, stale: &mut Stale) {
        let on_route = self.inputs.policies.all_on_route(route);
        stale.statuses.extend(on_route.map(|key| policy_object(&key)));
    }

    fn mark_namespace(&self, namespace: &str, stale: &mut Stale) {
        let key = |kind| move |name: &ObjectName| RouteKey { kind, name: name.clone() };
        let http = in_namespace(&self.inputs.http_routes, namespace).map(|(name, _)| name).map(key(RouteKind::Http));
        let grpc = in_namespace(&self.inputs.grpc_routes, namespace).map(|(name, _)| name).map(key(RouteKind::Grpc));
        stale.routes.extend(http.chain(grpc));
    }

    /// Marks the statuses that a Gateway's proxies have a part in.
    fn mark_gateway_status(&self, gateway: &GatewayKey, stale: &mut Stale) {
        stale.statuses.insert((Kind::Gateway, gateway.0.clone()));
        let sets = self.topology.listener_sets.iter().filter(|(_, set)| set.gateway == *gateway);
        stale.statuses.extend(sets.map(|(name, _)| (Kind::ListenerSet, name.clone())));
    }

    /// Marks everything that the stored report of a Gateway's proxies speaks of.
    fn mark_reported(&self, gateway: &GatewayKey, stale: &mut Stale) {
        self.mark_gateway_status(gateway, stale);
        for key in self.inputs.reports.get(gateway).into_iter().flat_map(BTreeMap::keys) {
            self.mark_refused(key, stale);
        }
    }

    fn mark_refused(&self, key: &ResourceKey, stale: &mut Stale) {
        match key {
            ResourceKey::Route(route) => {
                stale.statuses.insert(refresh::route_object(route));
            }
            ResourceKey::Backend(backend) | ResourceKey::Endpoints(backend) => {
                stale.statuses.extend(self.index.users_of_service(&backend.service).map(refresh::route_object));
            }
            ResourceKey::Policy(policy) => {
                stale.statuses.insert(policy_object(policy));
            }
            // A Gateway's own status is marked with the report.
            ResourceKey::Gateway(_) | ResourceKey::Listener(_) | ResourceKey::Certificate(_) => {}
        }
    }
}

/// The object behind a policy's key.
pub(crate) fn policy_object(key: &PolicyKey) -> (Kind, ObjectName) {
    (Kind::of_policy(key.kind), key.name.clone())
}
