//! Keeps the inputs and what was made of them, and brings both from one moment to the next.

mod refresh;
mod revisions;

use std::collections::{BTreeMap, BTreeSet};

use control_plane_model::{Delta, GatewayKey, ObjectName, ResourceKey, Revision, RouteKey, RouteKind, Snapshot};

use crate::{
    Change, Deployment, Kind, Problem, StatusUpdate,
    certificate::Certificates,
    gateway::Topology,
    index::Index,
    inputs::{Inputs, in_namespace},
    route::Outcome,
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
    /// Services whose ports, type or policies changed.
    services: BTreeSet<ObjectName>,
    /// Services whose endpoints changed.
    endpoints: BTreeSet<ObjectName>,
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
                // Where an EndpointSlice or a policy belonged before it changed matters as much as where it belongs now.
                self.mark_dependents(kind, &name, stale);
                stale.seen.insert((kind, name.clone()));
                if self.inputs.upsert(object) {
                    self.mark(kind, &name, stale);
                }
            }
            Change::Remove(kind, name) => {
                self.mark_dependents(kind, &name, stale);
                if kind == Kind::Gateway {
                    self.mark_reported(&GatewayKey(name.clone()), stale);
                }
                if self.inputs.remove(kind, &name) {
                    self.mark(kind, &name, stale);
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
            }
            Kind::Secret => stale.topology |= self.topology.secrets.contains(name),
            Kind::Namespace => {
                stale.topology = true;
                self.mark_namespace(&name.name, stale);
            }
            Kind::EndpointSlice | Kind::BackendTlsPolicy => self.mark_dependents(kind, name, stale),
            Kind::ConfigMap => {}
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
            // A Gateway's own status is marked with the report.
            ResourceKey::Gateway(_) | ResourceKey::Listener(_) | ResourceKey::Certificate(_) => {}
        }
    }
}
