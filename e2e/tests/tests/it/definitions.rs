//! The custom resources of our own, as a real API server takes them: schema, defaults and CEL rules.

use anyhow::{Context as _, Result, ensure};
use e2e_tests::kubernetes::Kubernetes;

/// (spec, what the API server must say; nothing where it must accept).
const GATEWAY_CONFIGS: &[(&str, Option<&str>)] = &[
    ("{}", None),
    ("{replicas: 2, resources: {requests: {cpu: 1, memory: 64Mi}, limits: {cpu: '2', memory: 0.5Gi}}}", None),
    (
        "{service: {type: NodePort, annotations: {a: b}}, log: {filter: 'info,gateway_engine=debug', format: Text}}",
        None,
    ),
    ("{telemetry: {tracing: {endpoint: 'http://collector.obs.svc:4317', sampling: {numerator: 1}}}}", None),
    ("{replicas: 0}", Some("spec.replicas")),
    ("{resources: {requests: {cpu: much}}}", Some("spec.resources.requests.cpu")),
    ("{resources: {requests: {memory: 2Gi}, limits: {memory: 512Mi}}}", Some("a request must not be above its limit")),
    ("{resources: {requests: {cpu: 3}, limits: {cpu: 2500m}}}", Some("a request must not be above its limit")),
    ("{service: {type: ExternalName}}", Some("spec.service.type")),
    ("{log: {filter: 'two words'}}", Some("spec.log.filter")),
    ("{log: {accessLog: Never}}", Some("spec.log.accessLog")),
    ("{telemetry: {tracing: {}}}", Some("spec.telemetry.tracing.endpoint")),
    ("{telemetry: {tracing: {endpoint: 'collector:4317'}}}", Some("spec.telemetry.tracing.endpoint")),
    ("{telemetry: {tracing: {endpoint: 'https://collector:4317'}}}", Some("spec.telemetry.tracing.endpoint")),
    (
        "{telemetry: {tracing: {endpoint: 'http://c:4317', sampling: {numerator: 5, denominator: 4}}}}",
        Some("numerator must not be above denominator"),
    ),
    ("{replica: 3}", Some("replica")),
];

/// (kind, spec, what the API server must say; nothing where it must accept). In a spec, `R` stands for a reference to a route,
/// `G` for one to a Gateway, `S` for one to a Service.
const POLICIES: &[(&str, &str, Option<&str>)] = &[
    ("RateLimitPolicy", "{targetRefs: [R, G], limits: {a: {rate: 1, per: 1s}}}", None),
    (
        "RateLimitPolicy",
        "{targetRefs: [G], mode: Report, overrides: {limits: {a: {rate: 1, per: 1m30s, burst: 5, key: [{type: Header, \
         name: x-a, onMissing: Skip}, {type: Address, ipv4Prefix: 24}], tiers: {claim: plan, quotas: {pro: {rate: 2, per: 1s}}}}}}}",
        None,
    ),
    ("RateLimitPolicy", "{limits: {}}", Some("spec.targetRefs")),
    ("RateLimitPolicy", "{targetRefs: []}", Some("spec.targetRefs")),
    ("RateLimitPolicy", "{targetRefs: [{group: '', kind: Service, name: a}]}", Some("targetRefs may name Gateway")),
    ("RateLimitPolicy", "{targetRefs: [R], overrides: {disabled: true}}", Some("overrides are for Gateways")),
    ("RateLimitPolicy", "{targetRefs: [R], limits: {a: {rate: 0, per: 1s}}}", Some("spec.limits.a.rate")),
    ("RateLimitPolicy", "{targetRefs: [R], limits: {a: {rate: 1, per: soon}}}", Some("spec.limits.a.per")),
    ("RateLimitPolicy", "{targetRefs: [R], maxKeys: 10}", Some("spec.maxKeys")),
    ("RateLimitPolicy", "{targetRefs: [R], mode: Off}", Some("spec.mode")),
    (
        "RateLimitPolicy",
        "{targetRefs: [R], limits: {a: {rate: 1, per: 1s, key: [{type: Header}]}}}",
        Some("which need it"),
    ),
    (
        "RateLimitPolicy",
        "{targetRefs: [R], concurrency: {a: {limit: 1, key: [{type: Host, onMissing: Skip}]}}}",
        Some("the others are never missing"),
    ),
    ("RateLimitPolicy", "{targetRefs: [R], limit: {}}", Some("limit")),
    (
        "BackendPolicy",
        "{targetRefs: [S], limits: {maxRequests: 5}, circuitBreaker: {window: {duration: 30s}, slow: {threshold: 1s}}, outlierDetection: \
         {consecutive5xx: 3}, healthCheck: {http: {path: /}}, loadBalancing: {type: Maglev, hash: {type: Address}}, retries: {when: \
         {statuses: ['503']}}, fallback: {response: {status: 200}}}",
        None,
    ),
    ("BackendPolicy", "{targetRefs: [{kind: Service, name: a, sectionName: '80'}]}", None),
    ("BackendPolicy", "{targetRefs: [R]}", Some("targetRefs may name Services")),
    ("BackendPolicy", "{targetRefs: [S], limits: {maxRequests: 0}}", Some("spec.limits.maxRequests")),
    ("BackendPolicy", "{targetRefs: [S], circuitBreaker: {window: {}}}", Some("want requests or duration")),
    ("BackendPolicy", "{targetRefs: [S], healthCheck: {http: {}, tcp: {}}}", Some("want one of http, tcp and grpc")),
    ("BackendPolicy", "{targetRefs: [S], loadBalancing: {type: RingHash}}", Some("hash is for RingHash and Maglev")),
    (
        "BackendPolicy",
        "{targetRefs: [S], loadBalancing: {type: RingHash, hash: {type: Header}}}",
        Some("name is for Header and Cookie"),
    ),
    ("BackendPolicy", "{targetRefs: [S], retries: {when: {}}}", Some("want failures, statuses or grpcCodes")),
    ("BackendPolicy", "{targetRefs: [S], retries: {when: {statuses: [5xx]}}}", Some("spec.retries.when.statuses")),
    ("BackendPolicy", "{targetRefs: [S], breaker: {}}", Some("breaker")),
];

pub fn policies(kubernetes: &Kubernetes) -> Result<()> {
    let _namespace = kubernetes.namespace("e2e-policies")?;
    for (kind, spec, expected) in POLICIES {
        let reference = |kind: &str| format!("{{group: gateway.networking.k8s.io, kind: {kind}, name: a}}");
        let spec = spec.replace("[R", &format!("[{}", reference("HTTPRoute")));
        let spec = spec
            .replace("[G", &format!("[{}", reference("Gateway")))
            .replace("[S", "[{kind: Service, name: a}")
            .replace(", G]", &format!(", {}]", reference("Gateway")));
        check(kubernetes, kind, "e2e-policies", &spec, *expected)?;
    }
    Ok(())
}

/// Applies an object `sample` with that spec, and compares what the API server says.
fn check(kubernetes: &Kubernetes, kind: &str, namespace: &str, spec: &str, expected: Option<&str>) -> Result<()> {
    let outcome = kubernetes.apply(&format!(
        "apiVersion: nebula.dev/v1alpha1
kind: {kind}
metadata: {{name: sample, namespace: {namespace}}}
spec: {spec}
"
    ));
    match (expected, outcome) {
        (None, outcome) => outcome.with_context(|| format!("{spec} is refused")),
        (Some(expected), Ok(())) => anyhow::bail!("{spec} is accepted, want: {expected}"),
        (Some(expected), Err(error)) => {
            let said = format!("{error:#}");
            ensure!(said.contains(expected), "{spec}: it says {said:?}, want {expected:?}");
            Ok(())
        }
    }
}

pub fn gateway_config(kubernetes: &Kubernetes) -> Result<()> {
    let _namespace = kubernetes.namespace("e2e-definitions")?;
    for (spec, expected) in GATEWAY_CONFIGS {
        check(kubernetes, "GatewayConfig", "e2e-definitions", spec, *expected)?;
    }
    let object = kubernetes.get("e2e-definitions", "gatewayconfig", "sample")?.context("the sample is gone")?;
    let filter = object.pointer("/spec/log/filter").and_then(serde_json::Value::as_str);
    ensure!(filter == Some("info"), "the API server does not put defaults in: {object}");
    let explained = kubernetes.kubectl(&["explain", "gatewayconfig.spec.telemetry.tracing.sampling"])?;
    ensure!(explained.contains("share of requests"), "kubectl explain says {explained:?}");
    Ok(())
}
