//! Which Gateway's proxies need which object, kept by reference counts.
//!
//! Invariant: an object is in a Gateway's scope while the Gateway owns it (its settings, its listeners, the routes attached
//! to it) or an object in its scope uses it (a listener's certificates; a route's backends with their endpoints; the policies
//! on any of them). One change costs as much as the object has references, whatever else there is.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use control_plane_model::{BackendTarget, GatewayKey, ListenerProtocol, PolicyKey, Resource, ResourceKey, RuleAction};

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
            Resource::Gateway(gateway) => {
                Self { gateways: [gateway.key.clone()].into(), uses: policies(&gateway.policies).collect() }
            }
            Resource::Listener(listener) => {
                let certificates: &[_] = match &listener.protocol {
                    ListenerProtocol::Http => &[],
                    ListenerProtocol::Https(tls) => &tls.certificates,
                };
                let certificates = certificates.iter().cloned().map(ResourceKey::Certificate);
                Self {
                    gateways: [listener.key.gateway.clone()].into(),
                    uses: certificates.chain(policies(&listener.policies)).collect(),
                }
            }
            Resource::Route(route) => {
                let forwards = route.rules.iter().filter_map(|rule| match &rule.action {
                    RuleAction::Forward(backends) => Some(backends),
                    RuleAction::Fail(_) => None,
                });
                let backends = forwards.flatten().filter_map(|backend| match &backend.target {
                    BackendTarget::Backend(key) => Some(key),
                    BackendTarget::Invalid(_) => None,
                });
                let backends =
                    backends.flat_map(|key| [ResourceKey::Backend(key.clone()), ResourceKey::Endpoints(key.clone())]);
                let of_rules = route.rules.iter().flat_map(|rule| policies(&rule.policies));
                Self {
                    gateways: route.attachments.iter().map(|at| at.listener.gateway.clone()).collect(),
                    uses: backends.chain(policies(&route.policies)).chain(of_rules).collect(),
                }
            }
            Resource::Backend(backend) => {
                Self { gateways: BTreeSet::new(), uses: policies(&backend.policies).collect() }
            }
            Resource::Certificate(_) | Resource::Endpoints(_) | Resource::Policy(_) => Self::default(),
        }
    }
}

fn policies(keys: &[PolicyKey]) -> impl Iterator<Item = ResourceKey> + '_ {
    keys.iter().cloned().map(ResourceKey::Policy)
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
        let before: Vec<GatewayKey> = self.gateways_of(owner).cloned().collect();
        let mut changed = Vec::new();
        // First in, then out: what is in both stays in scope throughout.
        for gateway in &before {
            links.uses.iter().for_each(|used| self.acquire(gateway, used, &mut changed));
        }
        links.gateways.iter().for_each(|gateway| self.acquire(gateway, owner, &mut changed));
        old.gateways.iter().for_each(|gateway| self.release(gateway, owner, &mut changed));
        for gateway in &before {
            old.uses.iter().for_each(|used| self.release(gateway, used, &mut changed));
        }
        changed
    }

    /// Counts one need more. What enters the scope brings in what it uses.
    fn acquire(&mut self, gateway: &GatewayKey, key: &ResourceKey, changed: &mut Vec<(GatewayKey, ResourceKey)>) {
        let count = self.needed.entry(key.clone()).or_default().entry(gateway.clone()).or_default();
        *count += 1;
        if *count > 1 {
            return;
        }
        self.scopes.entry(gateway.clone()).or_default().insert(key.clone());
        changed.push((gateway.clone(), key.clone()));
        for used in self.uses_of(key) {
            self.acquire(gateway, &used, changed);
        }
    }

    /// Counts one need less. What leaves the scope takes what it uses along.
    fn release(&mut self, gateway: &GatewayKey, key: &ResourceKey, changed: &mut Vec<(GatewayKey, ResourceKey)>) {
        let Some(gateways) = self.needed.get_mut(key) else { return };
        let Some(count) = gateways.get_mut(gateway) else { return };
        *count -= 1;
        if *count > 0 {
            return;
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
        changed.push((gateway.clone(), key.clone()));
        for used in self.uses_of(key) {
            self.release(gateway, &used, changed);
        }
    }

    fn uses_of(&self, key: &ResourceKey) -> Vec<ResourceKey> {
        self.links.get(key).map_or_else(Vec::new, |links| links.uses.iter().cloned().collect())
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
    fn what_an_object_in_scope_uses_is_in_scope_whichever_came_first() {
        let policy = || "policy/rate-limit/shop/cart".parse::<ResourceKey>().unwrap();
        let uses = Links { gateways: BTreeSet::new(), uses: [policy()].into() };
        let mut references = References::default();
        assert_eq!(references.set(&backend("cart"), uses.clone()), [], "nobody needs the backend");
        references.set(&route("a"), links(&["edge"], &["cart"]));
        assert!(references.contains(&gateway("edge"), &policy()));
        references.set(&route("b"), links(&["inner"], &["cart"]));
        assert_eq!(references.set(&backend("cart"), Links::default()).len(), 2, "it leaves both scopes");
        references.set(&backend("cart"), uses);
        let gone = references.set(&route("a"), Links::default());
        assert_eq!(gone.len(), 3, "{gone:?}");
        assert!(!references.contains(&gateway("edge"), &policy()) && references.contains(&gateway("inner"), &policy()));
        references.set(&route("b"), Links::default());
        references.set(&backend("cart"), Links::default());
        assert!(references.scopes.is_empty() && references.needed.is_empty() && references.links.is_empty());
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
