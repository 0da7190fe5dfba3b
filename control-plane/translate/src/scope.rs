//! Which objects the proxies of one Gateway need.

use std::collections::BTreeSet;

use control_plane_model::{
    BackendKey, BackendTarget, GatewayKey, ListenerProtocol, ResourceKey, Route, RuleAction, Snapshot,
};

/// Keys of everything that the proxies of `gateway` need: its settings, listeners, their certificates, the routes that are
/// attached to it, and the backends of those with their endpoints. Nothing else may reach them.
/// Costs one pass over the snapshot's routes.
pub fn scope(snapshot: &Snapshot, gateway: &GatewayKey) -> BTreeSet<ResourceKey> {
    let mut keys = BTreeSet::new();
    if snapshot.gateways.contains_key(gateway) {
        keys.insert(ResourceKey::Gateway(gateway.clone()));
    }
    for listener in snapshot.listeners.values().filter(|listener| listener.key.gateway == *gateway) {
        keys.insert(ResourceKey::Listener(listener.key.clone()));
        if let ListenerProtocol::Https(tls) = &listener.protocol {
            keys.extend(tls.certificates.iter().cloned().map(ResourceKey::Certificate));
        }
    }
    for route in snapshot.routes.values().filter(|route| is_attached(route, gateway)) {
        keys.insert(ResourceKey::Route(route.key.clone()));
        for backend in backends(route) {
            keys.insert(ResourceKey::Backend(backend.clone()));
            keys.insert(ResourceKey::Endpoints(backend.clone()));
        }
    }
    keys
}

/// Whether `route` is attached to a listener of `gateway`.
pub fn is_attached(route: &Route, gateway: &GatewayKey) -> bool {
    route.attachments.iter().any(|attachment| attachment.listener.gateway == *gateway)
}

/// The backends that `route` names, with repeats.
pub fn backends(route: &Route) -> impl Iterator<Item = &BackendKey> {
    let forwards = route.rules.iter().filter_map(|rule| match &rule.action {
        RuleAction::Forward(backends) => Some(backends),
        RuleAction::Fail(_) => None,
    });
    forwards.flatten().filter_map(|backend| match &backend.target {
        BackendTarget::Backend(key) => Some(key),
        BackendTarget::Invalid(_) => None,
    })
}
