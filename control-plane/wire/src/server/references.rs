//! Which Gateway's proxies need which object, kept by reference counts.
//!
//! Invariant: an object is in a Gateway's scope while the Gateway owns it (its settings, its listeners, the routes attached
//! to it) or an owned object uses it (a listener's certificates; a route's backends with their endpoints). One change
//! costs as much as the object has references, whatever else there is.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    iter,
};

use control_plane_model::{BackendTarget, GatewayKey, ListenerProtocol, Resource, ResourceKey, RuleAction};

/// What an object brings into scope, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Links {
    /// Gateways that own the object.
    pub(super) gateways: BTreeSet<GatewayKey>,
    /// Other objects that it uses.
    pub(super) uses: BTreeSet<ResourceKey>,
}

impl Links {
    /// The links of `resource`.
    pub(super) fn of(resource: &Resource) -> Self {
        match resource {
            Resource::Gateway(gateway) => Self { gateways: [gateway.key.clone()].into(), uses: BTreeSet::new() },
            Resource::Listener(listener) => Self {
                gateways: [listener.key.gateway.clone()].into(),
                uses: match &listener.protocol {
                    ListenerProtocol::Http => BTreeSet::new(),
                    ListenerProtocol::Https(tls) => {
                        tls.certificates.iter().cloned().map(ResourceKey::Certificate).collect()
                    }
                },
            },
            Resource::Route(route) => {
                let forwards = route.rules.iter().filter_map(|rule| match &rule.action {
                    RuleAction::Forward(backends) => Some(backends),
                    RuleAction::Fail(_) => None,
                });
                let backends = forwards.flatten().filter_map(|backend| match &backend.target {
                    BackendTarget::Backend(key) => Some(key),
                    BackendTarget::Invalid(_) => None,
                });
                Self {
                    gateways: route.attachments.iter().map(|at| at.listener.gateway.clone()).collect(),
                    uses: backends
                        .flat_map(|key| [ResourceKey::Backend(key.clone()), ResourceKey::Endpoints(key.clone())])
                        .collect(),
                }
            }
            Resource::Certificate(_) | Resource::Backend(_) | Resource::Endpoints(_) => Self::default(),
        }
    }
}

/// The scopes of all Gateways.
#[derive(Debug, Default)]
pub(super) struct References {
    links: HashMap<ResourceKey, Links>,
    /// For each object, how often each Gateway needs it.
    needed: HashMap<ResourceKey, BTreeMap<GatewayKey, usize>>,
    scopes: HashMap<GatewayKey, BTreeSet<ResourceKey>>,
}

impl References {
    /// Replaces the links of `owner`. Returns what entered or left which scope.
    pub(super) fn set(&mut self, owner: &ResourceKey, links: Links) -> Vec<(GatewayKey, ResourceKey)> {
        let old = if links == Links::default() {
            self.links.remove(owner).unwrap_or_default()
        } else if self.links.get(owner) == Some(&links) {
            return Vec::new();
        } else {
            self.links.insert(owner.clone(), links.clone()).unwrap_or_default()
        };
        let mut changed = Vec::new();
        // First in, then out: what is in both stays in scope throughout.
        for (gateway, key) in needs(owner, &links) {
            let count = self.needed.entry(key.clone()).or_default().entry(gateway.clone()).or_default();
            *count += 1;
            if *count == 1 {
                self.scopes.entry(gateway.clone()).or_default().insert(key.clone());
                changed.push((gateway.clone(), key.clone()));
            }
        }
        for (gateway, key) in needs(owner, &old) {
            if self.release(gateway, key) {
                changed.push((gateway.clone(), key.clone()));
            }
        }
        changed
    }

    /// Counts one need less; tells whether the object left the scope.
    fn release(&mut self, gateway: &GatewayKey, key: &ResourceKey) -> bool {
        let Some(gateways) = self.needed.get_mut(key) else { return false };
        let Some(count) = gateways.get_mut(gateway) else { return false };
        *count -= 1;
        if *count > 0 {
            return false;
        }
        gateways.remove(gateway);
        if gateways.is_empty() {
            self.needed.remove(key);
        }
        if let Some(scope) = self.scopes.get_mut(gateway) {
            scope.remove(key);
            if scope.is_empty() {
                self.scopes.remove(gateway);
            }
        }
        true
    }

    /// Gateways that have `key` in scope.
    pub(super) fn gateways_of(&self, key: &ResourceKey) -> impl Iterator<Item = &GatewayKey> {
        self.needed.get(key).into_iter().flat_map(BTreeMap::keys)
    }

    /// Whether `gateway` has `key` in scope.
    pub(super) fn contains(&self, gateway: &GatewayKey, key: &ResourceKey) -> bool {
        self.needed.get(key).is_some_and(|gateways| gateways.contains_key(gateway))
    }

    /// Everything in the scope of `gateway`, sorted by kind so that no object precedes one that it uses.
    pub(super) fn scope(&self, gateway: &GatewayKey) -> impl Iterator<Item = &ResourceKey> {
        self.scopes.get(gateway).into_iter().flatten()
    }
}

fn needs<'a>(owner: &'a ResourceKey, links: &'a Links) -> impl Iterator<Item = (&'a GatewayKey, &'a ResourceKey)> {
    links.gateways.iter().flat_map(move |gateway| iter::once(owner).chain(&links.uses).map(move |key| (gateway, key)))
}

#[cfg(test)]
mod tests {
    use control_plane_model::{BackendKey, ObjectName, RouteKey, RouteKind};

    use super::*;

    fn gateway(name: &str) -> GatewayKey {
        GatewayKey(ObjectName::new("infra", name))
    }

    fn route(name: &str) -> ResourceKey {
        ResourceKey::Route(RouteKey { kind: RouteKind::Http, name: ObjectName::new("shop", name) })
    }

    fn backend(name: &str) -> ResourceKey {
        let key = BackendKey { service: ObjectName::new("shop", name), port: 80.try_into().unwrap() };
        ResourceKey::Backend(key)
    }

    fn links(gateways: &[&str], uses: &[&str]) -> Links {
        Links {
            gateways: gateways.iter().map(|name| gateway(name)).collect(),
            uses: uses.iter().map(|name| backend(name)).collect(),
        }
    }

    #[test]
    fn an_object_that_two_routes_use_leaves_scope_with_the_second() {
        let mut references = References::default();
        references.set(&route("a"), links(&["edge"], &["cart"]));
        references.set(&route("b"), links(&["edge"], &["cart"]));
        let gone = references.set(&route("a"), Links::default());
        assert_eq!(gone, [(gateway("edge"), route("a"))]);
        let gone = references.set(&route("b"), Links::default());
        assert_eq!(gone, [(gateway("edge"), route("b")), (gateway("edge"), backend("cart"))]);
        assert!(references.scopes.is_empty() && references.needed.is_empty() && references.links.is_empty());
    }

    #[test]
    fn a_route_that_moves_takes_its_backends_along() {
        let mut references = References::default();
        references.set(&route("a"), links(&["edge"], &["cart"]));
        let changed = references.set(&route("a"), links(&["inner"], &["cart"]));
        assert_eq!(changed.len(), 4);
        assert!(!references.contains(&gateway("edge"), &backend("cart")));
        assert!(references.contains(&gateway("inner"), &backend("cart")));
    }

    #[test]
    fn links_that_stay_change_nothing() {
        let mut references = References::default();
        references.set(&route("a"), links(&["edge"], &["cart"]));
        assert_eq!(references.set(&route("a"), links(&["edge"], &["cart"])), []);
        assert_eq!(
            references.set(&route("a"), links(&["edge"], &["cart", "stock"])),
            [(gateway("edge"), backend("stock"))]
        );
    }
}
