//! Statuses of routes.

use std::collections::BTreeMap;

use control_plane_model::{GatewayKey, ResourceKey, RouteKey};
use serde_json::{Value, json};

use super::{Condition, PROXY_PROGRAMMED, conditions_json};
use crate::route::Outcome;

/// `status` of a route: an entry for each parentRef that is ours.
pub(crate) fn route(
    key: &RouteKey,
    outcome: &Outcome,
    shadowed: &str,
    controller_name: &str,
    reports: &BTreeMap<GatewayKey, BTreeMap<ResourceKey, String>>,
) -> Value {
    let parents = outcome.verdicts.iter().map(|verdict| {
        let mut accepted = verdict.accepted.clone();
        if accepted.status && !shadowed.is_empty() {
            let separator = if accepted.message.is_empty() { "" } else { "; " };
            accepted.message = format!("{}{separator}{shadowed}", accepted.message);
        }
        let is_accepted = accepted.status;
        let mut conditions = vec![accepted, outcome.resolved.clone()];
        conditions.extend(outcome.partially_invalid.clone().filter(|_| is_accepted));
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
