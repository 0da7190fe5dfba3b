//! From a slow bucket to the trace in it: what a real Prometheus makes of the gateway's metrics.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use e2e_tests::clock::eventually;
use e2e_tests::gateway::{answers_status, echo, gateway, route, steadily};
use e2e_tests::kubernetes::{Kubernetes, LIMIT, Namespace};
use e2e_tests::prometheus::Prometheus;
use serde_json::Value;

/// The gateway's telemetry port.
const TELEMETRY: u16 = 15020;

pub fn trace_in_prometheus(kubernetes: &Kubernetes) -> Result<()> {
    let namespace = kubernetes.namespace("e2e-exemplars")?;
    let name = namespace.name.as_str();
    // Every request is sampled; that nobody collects its spans changes nothing for the metrics.
    let config = format!(
        "apiVersion: nebula.dev/v1alpha1
kind: GatewayConfig
metadata: {{name: traced, namespace: {name}}}
spec: {{telemetry: {{tracing: {{endpoint: 'http://nowhere.{name}.svc:4317', sampling: {{numerator: 100}}}}}}}}
---
"
    );
    let reference = "  infrastructure: {parametersRef: {group: nebula.dev, kind: GatewayConfig, name: traced}}";
    let yaml =
        config + &gateway(name, "edge", reference) + &echo(name, "echo") + &route(name, "all", "edge", "/", "echo");
    let address = namespace.serve("edge", &yaml)?;
    answers_status(address, "/", 200)?;
    steadily(address, "/", 200)?;
    let forwarded = kubernetes.forward(name, &format!("deployment/{}", namespace.proxy("edge")?), TELEMETRY)?;
    let prometheus = Prometheus::scraping(forwarded.address())?;
    let shown = eventually("an exemplar of a request in Prometheus", LIMIT, || {
        let traces = prometheus.exemplars("gateway_http_request_duration_seconds_bucket", "trace_id");
        let traces = traces.map_err(|error| format!("{error:#}"))?;
        if traces.is_empty() { Err("no exemplars".to_owned()) } else { Ok(traces) }
    })?;
    let logged = logged_traces(&namespace, "edge")?;
    ensure!(shown.is_subset(&logged), "Prometheus shows traces {shown:?}, the access log has {logged:?}");
    Ok(())
}

/// The traces that the access log of a Gateway's proxy names.
fn logged_traces(namespace: &Namespace<'_>, gateway: &str) -> Result<BTreeSet<String>> {
    let proxy = format!("deployment/{}", namespace.proxy(gateway)?);
    let log = namespace.kubernetes.kubectl(&["logs", &proxy, "--namespace", &namespace.name])?;
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    Ok(lines.filter_map(|line| Some(line.get("trace_id")?.as_str()?.to_owned())).collect())
}
