//! Policies in a cluster: what they do to traffic, and what their status and the route's say.

use anyhow::{Context, Result, ensure};
use e2e_tests::gateway::{answers, answers_status, route, serving, steadily};
use e2e_tests::kubernetes::{Kubernetes, LIMIT, Namespace, has_condition};
use serde_json::Value;

/// A RateLimitPolicy `limit` of the route `limited`.
fn rate_limit(limits: &str) -> String {
    format!(
        "apiVersion: nebula.dev/v1alpha1
kind: RateLimitPolicy
metadata: {{name: limit, namespace: e2e-limit}}
spec:
  targetRefs: [{{group: gateway.networking.k8s.io, kind: HTTPRoute, name: limited}}]
  limits: {limits}
---
"
    )
}

pub fn rate_limit_acts(kubernetes: &Kubernetes) -> Result<()> {
    let namespace = kubernetes.namespace("e2e-limit")?;
    let address = serving(kubernetes, &namespace)?;
    let limits = "{all: {rate: 1, per: 1h, burst: 3, key: [{type: Shared}]}}";
    kubernetes.apply(&(route("e2e-limit", "limited", "edge", "/limited", "echo") + &rate_limit(limits)))?;
    policy_says(&namespace, "Accepted", "True", "Accepted")?;
    policy_says(&namespace, "Programmed", "True", "Programmed")?;
    namespace.route_condition("limited", "nebula.dev/Policies", "True", "InForce")?;
    let refused = answers_status(address, "/limited", 429)?;
    ensure!(refused.body.contains("rate_limited"), "{}", refused.body);
    // Nobody is let through again, and another route is free.
    steadily(address, "/limited", 429)?;
    steadily(address, "/", 200)?;

    // The schema takes any name of a header, and the translator does not.
    kubernetes.apply(&rate_limit("{all: {rate: 1, per: 1h, key: [{type: Header, name: 'x y'}]}}"))?;
    policy_says(&namespace, "Accepted", "False", "Invalid")?;
    namespace.route_condition("limited", "nebula.dev/Policies", "False", "Invalid")?;
    answers(address, "/limited", |answer| answer.status == 500 && answer.body.contains("policy_invalid"), LIMIT)?;
    steadily(address, "/", 200)?;

    kubernetes.kubectl(&["delete", "ratelimitpolicy", "limit", "--namespace", "e2e-limit"])?;
    answers_status(address, "/limited", 200)?;
    let object = kubernetes.get("e2e-limit", "httproute", "limited")?.context("the route is gone")?;
    let conditions =
        object.pointer("/status/parents/0/conditions").and_then(Value::as_array).context("no conditions")?;
    let left = conditions.iter().any(|condition| condition.get("type") == Some(&"nebula.dev/Policies".into()));
    ensure!(!left, "the route still names a policy that is gone: {object}");
    Ok(())
}

/// Waits until the policy's condition at its only ancestor is as given.
fn policy_says(namespace: &Namespace<'_>, kind: &str, status: &str, reason: &str) -> Result<()> {
    let wanted = |object: &Value| has_condition(object, "/status/ancestors/0/conditions", kind, status, reason);
    namespace.kubernetes.wait(&namespace.name, "ratelimitpolicy", "limit", wanted).map(drop)
}
