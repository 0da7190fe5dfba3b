//! What depends on what among routes: kept by difference, so that one route's change touches what it names and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use control_plane_model::{BackendKey, HostPattern, ListenerKey, ObjectName, RouteKey, RouteKind};

use crate::route::{Outcome, Parent};

/// Look-ups over the outcomes of all routes.
#[derive(Default)]
pub(crate) struct Index {
    by_parent: BTreeMap<Parent, BTreeSet<RouteKey>>,
    by_service: BTreeMap<ObjectName, BTreeSet<RouteKey>>,
    /// `attachedRoutes` by listener.
    pub(crate) attached: BTreeMap<ListenerKey, i32>,
    /// Number of routes by backend.
    users: BTreeMap<BackendKey, usize>,
    /// Who asks for the same requests, the winner first.
    claims: BTreeMap<Claim, BTreeSet<Claimant>>,
}

/// A match on a host of a listener. The match is compared by its debug text, which shows all of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Claim {
    listener: ListenerKey,
    served: HostPattern,
    declared: HostPattern,
    kind: RouteKind,
    route_match: String,
}

/// A route's claim: the older first, then by name, then by place in the route.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Claimant {
    created: i64,
    name: ObjectName,
    rule: usize,
}

/// What else is different once a route's outcome is.
#[derive(Default)]
pub(crate) struct Touched {
    pub(crate) listeners: BTreeSet<ListenerKey>,
    pub(crate) backends: BTreeSet<BackendKey>,
    /// Routes that are no longer, or newly, shadowed by another.
    pub(crate) routes: BTreeSet<RouteKey>,
}

impl Index {
    /// Replaces the outcome of a route.
    pub(crate) fn replace(
        &mut self,
        key: &RouteKey,
        old: Option<&Outcome>,
        new: Option<&Outcome>,
        touched: &mut Touched,
    ) {
        if let Some(old) = old {
            self.remove(key, old, touched);
        }
        if let Some(new) = new {
            self.add(key, new, touched);
        }
    }

    fn remove(&mut self, key: &RouteKey, outcome: &Outcome, touched: &mut Touched) {
        for parent in &outcome.parents {
            forget(&mut self.by_parent, parent, key);
        }
        for service in &outcome.services {
            forget(&mut self.by_service, service, key);
        }
        for listener in &outcome.attached {
            if let Some(count) = self.attached.get_mut(listener) {
                *count -= 1;
                if *count == 0 {
                    self.attached.remove(listener);
                }
            }
            touched.listeners.insert(listener.clone());
        }
        for backend in outcome.backends() {
            if let Some(count) = self.users.get_mut(backend) {
                *count -= 1;
                if *count == 0 {
                    self.users.remove(backend);
                }
            }
            touched.backends.insert(backend.clone());
        }
        for (claim, claimant) in claims(outcome) {
            let Some(claimants) = self.claims.get_mut(&claim) else { continue };
            claimants.remove(&claimant);
            touch(claimants, key, touched);
            if claimants.is_empty() {
                self.claims.remove(&claim);
            }
        }
    }

    fn add(&mut self, key: &RouteKey, outcome: &Outcome, touched: &mut Touched) {
        for parent in &outcome.parents {
            self.by_parent.entry(parent.clone()).or_default().insert(key.clone());
        }
        for service in &outcome.services {
            self.by_service.entry(service.clone()).or_default().insert(key.clone());
        }
        for listener in &outcome.attached {
            *self.attached.entry(listener.clone()).or_default() += 1;
            touched.listeners.insert(listener.clone());
        }
        for backend in outcome.backends() {
            *self.users.entry(backend.clone()).or_default() += 1;
            touched.backends.insert(backend.clone());
        }
        for (claim, claimant) in claims(outcome) {
            let claimants = self.claims.entry(claim).or_default();
            claimants.insert(claimant);
            touch(claimants, key, touched);
        }
    }

    /// Routes that name a parent.
    pub(crate) fn children(&self, parent: &Parent) -> impl Iterator<Item = &RouteKey> {
        self.by_parent.get(parent).into_iter().flatten()
    }

    /// Routes that name a Service.
    pub(crate) fn users_of_service(&self, service: &ObjectName) -> impl Iterator<Item = &RouteKey> {
        self.by_service.get(service).into_iter().flatten()
    }

    /// Routes that name a Service of a namespace.
    pub(crate) fn users_of_namespace<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a RouteKey> {
        let first = ObjectName::new(namespace, "");
        let services = self.by_service.range(first..).take_while(move |(name, _)| *name.namespace == *namespace);
        services.flat_map(|(_, routes)| routes)
    }

    /// Whether a route uses a backend.
    pub(crate) fn is_used(&self, backend: &BackendKey) -> bool {
        self.users.contains_key(backend)
    }

    /// The backends of a Service that a route uses.
    pub(crate) fn backends_of<'a>(&'a self, service: &'a ObjectName) -> impl Iterator<Item = &'a BackendKey> {
        let first = BackendKey { service: service.clone(), port: std::num::NonZeroU16::MIN };
        self.users.range(first..).map(|(key, _)| key).take_while(move |key| key.service == *service)
    }

    /// Which rules of a route get no request because an older route, or an older name, asks for the same; empty for none.
    pub(crate) fn shadowed(&self, outcome: &Outcome) -> String {
        let mut winners: BTreeMap<usize, &ObjectName> = BTreeMap::new();
        for (claim, claimant) in claims(outcome) {
            let winner = self.claims.get(&claim).and_then(BTreeSet::first);
            if let Some(winner) = winner.filter(|winner| winner.name != claimant.name) {
                winners.entry(claimant.rule).or_insert(&winner.name);
            }
        }
        let texts = winners.into_iter().map(|(rule, winner)| {
            format!("rules[{rule}] is shadowed, in part or whole, by the same match of {winner}, which is older or first by name")
        });
        texts.collect::<Vec<String>>().join("; ")
    }
}

/// The routes behind a changed claim, but for the one that changed it.
fn touch(claimants: &BTreeSet<Claimant>, key: &RouteKey, touched: &mut Touched) {
    let others = claimants.iter().filter(|claimant| claimant.name != key.name);
    touched.routes.extend(others.map(|claimant| RouteKey { kind: key.kind, name: claimant.name.clone() }));
}

fn claims(outcome: &Outcome) -> impl Iterator<Item = (Claim, Claimant)> {
    outcome.route.iter().flat_map(|route| {
        let matches = route.rules.iter().enumerate().flat_map(|(rule, content)| {
            content.matches.iter().map(move |route_match| (rule, format!("{route_match:?}")))
        });
        matches.flat_map(move |(rule, route_match)| {
            route.attachments.iter().flat_map(move |attachment| {
                let route_match = route_match.clone();
                attachment.hosts.iter().map(move |host| {
                    let claim = Claim {
                        listener: attachment.listener.clone(),
                        served: host.served.clone(),
                        declared: host.declared.clone(),
                        kind: route.key.kind,
                        route_match: route_match.clone(),
                    };
                    (claim, Claimant { created: route.created, name: route.key.name.clone(), rule })
                })
            })
        })
    })
}

fn forget<K: Ord>(map: &mut BTreeMap<K, BTreeSet<RouteKey>>, key: &K, route: &RouteKey) {
    if let Some(routes) = map.get_mut(key) {
        routes.remove(route);
        if routes.is_empty() {
            map.remove(key);
        }
    }
}
