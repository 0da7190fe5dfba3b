//! Statuses of routes.

use std::collections::BTreeMap;

use control_plane_model::{GatewayKey, PolicyKey, ResourceKey, RouteKey};
use serde_json::{Value, json};

use super::{Condition, POLICIES, PROXY_PROGRAMMED, conditions_json};
use crate::{
    policy::{Policies, Target},
    route::Outcome,
};

/// What a route's status needs beside what became of it.
#[derive(Clone, Copy)]
pub(crate) struct RouteFacts<'a> {
    pub(crate) shadowed: &'a str,
    pub(crate) controller_name: &'a str,
    pub(crate) reports: &'a BTreeMap<GatewayKey, BTreeMap<ResourceKey, String>>,
    pub(crate) policies: &'a Policies,
}

/// `status` of a route: an entry for each parentRef that is ours.
pub(crate) fn route(key: &RouteKey, outcome: &Outcome, facts: &RouteFacts<'_>) -> Value {
    let RouteFacts { shadowed, controller_name, reports, policies } = *facts;
    let parents = outcome.verdicts.iter().map(|verdict| {
        let mut accepted = verdict.accepted.clone();
        if accepted.status && !shadowed.is_empty() {
            let separator = if accepted.message.is_empty() { "" } else { "; " };
            accepted.message = format!("{}{separator}{shadowed}", accepted.message);
        }
        let is_accepted = accepted.status;
        let mut conditions = vec![accepted, outcome.resolved.clone()];
        conditions.extend(outcome.partially_invalid.clone().filter(|_| is_accepted));
        conditions.extend(in_force(key, outcome, &verdict.gateway, policies).filter(|_| is_accepted));
        if let Some(text) = reports.get(&verdict.gateway).and_then(|refused| refusal(key, outcome, refused)) {
            conditions.push(Condition::no(PROXY_PROGRAMMED, "RefusedByProxy", text));
        }
        json!({
            "parentRef": verdict.reference,
            "controllerName": controller_name,
            "conditions": conditions_json(&conditions, outcome.generation),
        })
    });
    json!({"parents": parents.collect::<Vec<Value>>()})
}

/// Which policies act on the route's requests that come by `gateway`; `None` where none does.
fn in_force(key: &RouteKey, outcome: &Outcome, gateway: &GatewayKey, policies: &Policies) -> Option<Condition> {
    let mut places: Vec<(PolicyKey, String)> = Vec::new();
    let mut add = |keys: Vec<PolicyKey>, place: String| {
        for key in keys {
            let found = (key, place.clone());
            if !places.contains(&found) {
                places.push(found);
            }
        }
    };
    add(policies.keys(&Target::Gateway(gateway.clone())), "the Gateway".to_owned());
    for listener in outcome.attached.iter().filter(|listener| listener.gateway == *gateway) {
        add(policies.keys_of_listener(listener), format!("listener {}", listener.name));
    }
    add(policies.keys(&Target::Route(key.clone())), "the route".to_owned());
    for rule in &outcome.rule_names {
        add(policies.keys(&Target::Rule(key.clone(), rule.clone())), format!("rule {rule}"));
    }
    let mut has_invalid = false;
    let texts: Vec<String> = places
        .iter()
        .map(|(key, place)| {
            let remark = match policies.get(key).map(|entry| &entry.spec) {
                Some(Ok(spec)) if spec.is_disabled() => ", which is disabled",
                Some(Ok(_)) => "",
                Some(Err(_)) | None => {
                    has_invalid = true;
                    ", which is invalid: requests get 500"
                }
            };
            format!("{} {} on {place}{remark}", key.kind.resource_kind(), key.name)
        })
        .collect();
    let message = texts.join("; ");
    match () {
        () if texts.is_empty() => None,
        () if has_invalid => Some(Condition::no(POLICIES, "Invalid", message)),
        () => Some(Condition::yes(POLICIES, "InForce").saying(message)),
    }
}

/// What a proxy said about the route or one of its backends.
fn refusal(key: &RouteKey, outcome: &Outcome, refused: &BTreeMap<ResourceKey, String>) -> Option<String> {
    if let Some(text) = refused.get(&ResourceKey::Route(key.clone())) {
        return Some(format!("refused by a proxy, which keeps what it had: {text}"));
    }
    outcome.backends().into_iter().find_map(|backend| {
        let keys = [ResourceKey::Backend(backend.clone()), ResourceKey::Endpoints(backend.clone())];
        let text = keys.iter().find_map(|key| refused.get(key))?;
        Some(format!("a proxy refused backend {backend}: {text}"))
    })
}
