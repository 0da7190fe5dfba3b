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
    let kinds = PolicyKind::ALL.iter().copied().filter_map(|kind| {
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

#[cfg(test)]
mod tests {
    use control_plane_model::{
        AttachedHost, Attachment, GatewayKey, HostPattern, Leveled, ListenerProtocol, ObjectName, PathMatch, Quota,
        RateLimit, RateLimitSettings, RouteKind, RouteMatch, Timeouts,
    };

    use super::*;

    fn listener(name: &str, policies: Vec<PolicyKey>) -> Listener {
        Listener {
            key: ListenerKey { gateway: gateway(), listener_set: None, name: name.into() },
            addresses: Vec::new(),
            port: 80.try_into().unwrap(),
            protocol: ListenerProtocol::Http,
            hostname: HostPattern::Any,
            policies,
        }
    }

    fn gateway() -> GatewayKey {
        GatewayKey(ObjectName::new("infra", "edge"))
    }

    fn policy(name: &str) -> PolicyKey {
        PolicyKey { kind: PolicyKind::RateLimit, name: ObjectName::new("infra", name) }
    }

    fn route(listeners: &[&Listener], policies: Vec<PolicyKey>) -> Route {
        let host = AttachedHost { served: HostPattern::Any, declared: HostPattern::Any };
        let attach = |listener: &&Listener| Attachment { listener: listener.key.clone(), hosts: vec![host.clone()] };
        let path = PathMatch::Prefix("/".into());
        Route {
            key: RouteKey { kind: RouteKind::Http, name: ObjectName::new("shop", "cart") },
            created: 0,
            attachments: listeners.iter().map(attach).collect(),
            policies,
            rules: vec![Rule {
                name: None,
                matches: vec![RouteMatch { path, method: None, headers: Vec::new(), query: Vec::new() }],
                filters: Vec::new(),
                action: RuleAction::Forward(Vec::new()),
                timeouts: Timeouts::default(),
                policies: Vec::new(),
            }],
        }
    }

    fn limits(rate: u32) -> PolicySpec {
        let rate = rate.try_into().unwrap();
        let quota = Quota { rate, per: std::time::Duration::from_secs(1), burst: rate };
        let limit = RateLimit { quota, key: Vec::new(), tiers: None };
        let settings = RateLimitSettings { limits: [("client".into(), limit)].into(), ..RateLimitSettings::default() };
        PolicySpec::RateLimit(Leveled { settings, overrides: None })
    }

    fn explained(listeners: &[&Listener], specs: [(&str, PolicySpec); 2]) -> Value {
        let mut snapshot = Snapshot::default();
        for listener in listeners {
            snapshot.insert(Resource::Listener(Arc::new((*listener).clone())));
        }
        for (name, spec) in specs {
            snapshot.insert(Resource::Policy(Arc::new(Policy { key: policy(name), spec })));
        }
        let route = route(listeners, vec![policy("route")]);
        let key = route.key.clone();
        snapshot.insert(Resource::Route(Arc::new(route)));
        explain(&snapshot, &key).unwrap()
    }

    #[test]
    fn listeners_of_one_chain_are_told_once_and_the_more_specific_policy_wins() {
        let (a, b) = (listener("a", vec![policy("listener")]), listener("b", vec![policy("listener")]));
        let explained = explained(&[&a, &b], [("listener", limits(5)), ("route", limits(7))]);
        let chains = explained["policies"].as_array().unwrap();
        assert_eq!(chains.len(), 1, "{explained}");
        assert_eq!(chains[0]["listeners"], json!(["infra/edge/a", "infra/edge/b"]));
        let kind = &chains[0]["kinds"][0];
        assert_eq!(kind["sources"], json!({"limits.client": "rate-limit/infra/route"}));
        assert_eq!(kind["settings"]["limits"]["client"]["quota"]["rate"], 7);
        assert_eq!(kind["levels"][0], json!({"policy": "rate-limit/infra/listener", "on": "listener"}));
        assert_eq!(chains[0]["closed"], Value::Null);
        assert!(explained["objects"]["policy/rate-limit/infra/listener"].is_object(), "{explained}");
    }

    #[test]
    fn a_policy_that_is_missing_or_invalid_closes_the_listeners_that_it_is_on() {
        let (a, b) = (listener("a", vec![policy("lost")]), listener("b", vec![policy("listener")]));
        let told = explained(&[&a, &b], [("listener", PolicySpec::Invalid), ("route", limits(7))]);
        let closed = |index: usize| told["policies"][index]["closed"].clone();
        assert_eq!(closed(0), json!({"policy": "rate-limit/infra/lost", "reason": "policy_unavailable"}));
        assert_eq!(closed(1), json!({"policy": "rate-limit/infra/listener", "reason": "policy_invalid"}));
    }

    #[test]
    fn a_route_is_named_as_its_key_is() {
        assert_eq!(route_key("grpc/shop/cart").unwrap().to_string(), "grpc/shop/cart");
        for text in ["shop/cart", "tcp/shop/cart", "", "http/shop/cart/x"] {
            assert_eq!(route_key(text), None, "{text}");
        }
    }
}
