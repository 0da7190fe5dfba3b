//! What acts on one route: the route with every object that it names, and what the policies on the way to each of its rules
//! come to.

use std::sync::Arc;

use control_plane_model::{
    BackendTarget, Listener, ListenerKey, Policy, PolicyKey, PolicyKind, PolicySpec, Resource, ResourceKey, Route,
    RouteKey, Rule, RuleAction, Snapshot,
};
use serde_json::{Map, Value, json};

use crate::{policy, resource};

/// A policy on the way to a rule, and the level that it is attached to: `gateway`, `listener`, `route` or `rule`.
type Level = (PolicyKey, &'static str);

/// Everything that acts on the requests of the route `key`; `None` where there is no such route.
pub fn explain(snapshot: &Snapshot, key: &RouteKey) -> Option<Value> {
    let route = snapshot.routes.get(key)?;
    let chains: Vec<Value> =
        route.rules.iter().enumerate().flat_map(|(index, rule)| chains(snapshot, route, index, rule)).collect();
    Some(json!({
        "route": resource(&Resource::Route(route.clone())),
        "objects": objects(snapshot, route),
        "policies": chains,
    }))
}

/// The objects that the route leads to and comes from, its policies among them.
fn objects(snapshot: &Snapshot, route: &Route) -> Map<String, Value> {
    let mut found: Vec<Resource> = Vec::new();
    for attachment in &route.attachments {
        let listener = snapshot.listeners.get(&attachment.listener);
        found.extend(listener.cloned().map(Resource::Listener));
        found.extend(snapshot.gateways.get(&attachment.listener.gateway).cloned().map(Resource::Gateway));
    }
    let mut policies: Vec<PolicyKey> = Vec::new();
    for rule in &route.rules {
        for attachment in &route.attachments {
            policies.extend(levels(snapshot, &attachment.listener, route, rule).into_iter().map(|(key, _)| key));
        }
        let RuleAction::Forward(backends) = &rule.action else { continue };
        for backend in backends {
            let BackendTarget::Backend(key) = &backend.target else { continue };
            let object = snapshot.backends.get(key);
            policies.extend(object.into_iter().flat_map(|backend| backend.policies.clone()));
            found.extend(object.cloned().map(Resource::Backend));
            found.extend(snapshot.endpoints.get(key).cloned().map(Resource::Endpoints));
        }
    }
    found.extend(policies.iter().filter_map(|key| snapshot.policies.get(key).cloned().map(Resource::Policy)));
    found.into_iter().map(|object| (object.key().to_string(), resource(&object))).collect()
}

/// The policies on the way to a rule, for each set of listeners where they are the same; none where there is no policy.
fn chains(snapshot: &Snapshot, route: &Route, index: usize, rule: &Rule) -> Vec<Value> {
    let mut chains: Vec<(Vec<Level>, Vec<String>)> = Vec::new();
    for attachment in &route.attachments {
        let levels = levels(snapshot, &attachment.listener, route, rule);
        let listener = attachment.listener.to_string();
        match chains.iter_mut().find(|(known, _)| *known == levels) {
            Some((_, listeners)) => listeners.push(listener),
            None => chains.push((levels, vec![listener])),
        }
    }
    let chains = chains.into_iter().filter(|(levels, _)| !levels.is_empty());
    chains.map(|(levels, listeners)| chain(snapshot, &levels, &listeners, index)).collect()
}

fn chain(snapshot: &Snapshot, levels: &[Level], listeners: &[String], rule: usize) -> Value {
    let policies: Vec<Arc<Policy>> = levels.iter().filter_map(|(key, _)| snapshot.policies.get(key).cloned()).collect();
    let kinds = PolicyKind::ALL.into_iter().filter_map(|kind| {
        let of_kind: Vec<Value> = levels
            .iter()
            .filter(|(key, _)| key.kind == kind)
            .map(|(key, on)| json!({ "policy": key.to_string(), "on": on }))
            .collect();
        (!of_kind.is_empty()).then(|| {
            let merged = policy::merged(kind, &policies);
            let sources: Map<String, Value> =
                merged.sources.into_iter().map(|(field, source)| (field, source.to_string().into())).collect();
            json!({
                "kind": kind.resource_kind(),
                "levels": of_kind,
                "disabled": merged.disabled,
                "settings": merged.settings,
                "sources": sources,
            })
        })
    });
    let kinds: Vec<Value> = kinds.collect();
    json!({ "rule": rule, "listeners": listeners, "closed": closed(snapshot, levels), "kinds": kinds })
}

/// Why every request of the chain gets 500; null where it does not.
fn closed(snapshot: &Snapshot, levels: &[Level]) -> Value {
    let reason = |key: &PolicyKey| match snapshot.policies.get(key).map(|policy| &policy.spec) {
        None => Some("policy_unavailable"),
        Some(PolicySpec::Invalid) => Some("policy_invalid"),
        Some(_) => None,
    };
    let found = levels.iter().find_map(|(key, _)| Some(json!({ "policy": key.to_string(), "reason": reason(key)? })));
    found.unwrap_or(Value::Null)
}

/// The policies on the way, the least specific first.
fn levels(snapshot: &Snapshot, listener: &ListenerKey, route: &Route, rule: &Rule) -> Vec<Level> {
    let on = |keys: &[PolicyKey], level: &'static str| keys.iter().cloned().map(|key| (key, level)).collect::<Vec<_>>();
    let gateway = snapshot.gateways.get(&listener.gateway);
    let listener: Option<&Listener> = snapshot.listeners.get(listener).map(AsRef::as_ref);
    [
        on(gateway.map(|gateway| gateway.policies.as_slice()).unwrap_or_default(), "gateway"),
        on(listener.map(|listener| listener.policies.as_slice()).unwrap_or_default(), "listener"),
        on(&route.policies, "route"),
        on(&rule.policies, "rule"),
    ]
    .concat()
}

/// The route that `text` names: `http/shop/cart`.
pub fn route_key(text: &str) -> Option<RouteKey> {
    match format!("route/{text}").parse() {
        Ok(ResourceKey::Route(key)) => Some(key),
        _ => None,
    }
}
