//! How new each configuration object is, told by the one object of the user that it is named after.
//!
//! Kubernetes' resourceVersion would do for that, but writing a status raises it too, and the watches do not pass on what
//! changes in its status alone. So a custom resource counts by its creation and its generation; core objects, which have
//! no generation, by their resourceVersion. Both only grow, and are the same for every replica. An object whose content
//! depends on others as well may change without growing; equal revisions say nothing.

use std::collections::{BTreeMap, BTreeSet};

use control_plane_model::{
    BackendKey, CertificateKey, Delta, GatewayKey, ListenerKey, ObjectName, PolicyKey, Resource, ResourceKey, Revision,
    RouteKey, RouteKind,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{Translator, refresh::get};
use crate::{Kind, gateway::ListenerState};

impl Translator {
    /// Of what `delta` changes, and of what was made from the objects in `seen`.
    pub(super) fn revisions(
        &self,
        seen: &BTreeSet<(Kind, ObjectName)>,
        delta: &Delta,
    ) -> BTreeMap<ResourceKey, Revision> {
        let again = seen.iter().flat_map(|(kind, name)| self.made_from(*kind, name));
        let again = again.filter(|key| get(&self.snapshot, key).is_some());
        let keys = delta.upserted.iter().map(Resource::key).chain(again);
        keys.filter_map(|key| self.revision(&key).map(|revision| (key, revision))).collect()
    }

    /// Objects whose revision is that of the object `name`. They may not be there.
    fn made_from(&self, kind: Kind, name: &ObjectName) -> Vec<ResourceKey> {
        let route = |kind| vec![ResourceKey::Route(RouteKey { kind, name: name.clone() })];
        let listeners = |states: &[ListenerState]| -> Vec<ResourceKey> {
            states.iter().map(|state| ResourceKey::Listener(state.key.clone())).collect()
        };
        let backends = |service: &ObjectName, key: fn(BackendKey) -> ResourceKey| -> Vec<ResourceKey> {
            self.index.backends_of(service).cloned().map(key).collect()
        };
        match kind {
            Kind::HttpRoute => route(RouteKind::Http),
            Kind::GrpcRoute => route(RouteKind::Grpc),
            Kind::Gateway => {
                let key = GatewayKey(name.clone());
                let mut keys =
                    self.topology.gateways.get(&key).map_or_else(Vec::new, |state| listeners(&state.listeners));
                keys.push(ResourceKey::Gateway(key));
                keys
            }
            Kind::ListenerSet => {
                self.topology.listener_sets.get(name).map_or_else(Vec::new, |state| listeners(&state.listeners))
            }
            Kind::Secret => vec![ResourceKey::Certificate(CertificateKey(name.clone()))],
            Kind::Service => backends(name, ResourceKey::Backend),
            Kind::EndpointSlice => {
                let service = self.inputs.service_of_slice(name);
                service.map_or_else(Vec::new, |service| backends(&service, ResourceKey::Endpoints))
            }
            Kind::GatewayClass
            | Kind::ReferenceGrant
            | Kind::BackendTlsPolicy
            | Kind::GatewayConfig
            | Kind::ConfigMap
            | Kind::Namespace => Vec::new(),
            other => other
                .policy()
                .map_or_else(Vec::new, |kind| vec![ResourceKey::Policy(PolicyKey { kind, name: name.clone() })]),
        }
    }

    fn revision(&self, key: &ResourceKey) -> Option<Revision> {
        let inputs = &self.inputs;
        match key {
            ResourceKey::Gateway(key) => of_custom(&inputs.gateways.get(&key.0)?.metadata),
            ResourceKey::Listener(ListenerKey { listener_set: Some(set), .. }) => {
                of_custom(&inputs.listener_sets.get(set)?.metadata)
            }
            ResourceKey::Listener(key) => of_custom(&inputs.gateways.get(&key.gateway.0)?.metadata),
            ResourceKey::Route(RouteKey { kind: RouteKind::Http, name }) => {
                of_custom(&inputs.http_routes.get(name)?.metadata)
            }
            ResourceKey::Route(RouteKey { kind: RouteKind::Grpc, name }) => {
                of_custom(&inputs.grpc_routes.get(name)?.metadata)
            }
            ResourceKey::Policy(key) => of_custom(inputs.policies.get(key)?.object.metadata()),
            ResourceKey::Certificate(key) => of_core(&inputs.secrets.get(&key.0)?.metadata),
            ResourceKey::Backend(key) => of_core(&inputs.services.get(&key.service)?.metadata),
            // Of several slices the newest may go, and what is left would look old.
            ResourceKey::Endpoints(key) => {
                let mut slices = inputs.slices_of(&key.service);
                let only = slices.next()?;
                slices.next().is_none().then(|| of_core(&only.metadata))?
            }
        }
    }
}

/// The creation's second before the generation, as an object that is made anew begins at generation 1.
fn of_custom(metadata: &ObjectMeta) -> Option<Revision> {
    let created = u64::try_from(metadata.creation_timestamp.as_ref()?.0.as_second()).ok()?;
    let generation = u32::try_from(metadata.generation?).ok()?;
    created.checked_mul(1 << 32).map(|created| Revision(created + u64::from(generation)))
}

fn of_core(metadata: &ObjectMeta) -> Option<Revision> {
    metadata.resource_version.as_ref()?.parse().ok().map(Revision)
}
