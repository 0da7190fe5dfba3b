//! Gateways, routes and backends as the tests make them, and what they wait for.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::clock::eventually;
use crate::http::{self, Response};
use crate::kubernetes::{Kubernetes, LIMIT, Namespace, has_condition};

/// The chart's GatewayClass.
pub const CLASS: &str = "nebula";
/// The namespace of the release.
pub const SYSTEM: &str = "nebula-system";
/// The control plane's Deployment.
pub const CONTROL_PLANE: &str = "nebula-control-plane";
/// The ConfigMap with what proxies trust, for the chart's own controllerName.
pub const TRUST_BUNDLE: &str = "nebula-ca-640753898c";
/// The backend answers with the request it got, as JSON.
const ECHO: &str = "registry.k8s.io/gateway-api/echo-basic:v1.6.0-dev.3";

/// A Gateway in YAML with one HTTP listener on port 80; `extra` goes below `spec`, indented by two.
pub fn gateway(namespace: &str, name: &str, extra: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: \"{name}\", namespace: {namespace}}}
spec:
  gatewayClassName: {CLASS}
  listeners:
  - {{name: http, port: 80, protocol: HTTP}}
{extra}
---
"
    )
}

/// An HTTPRoute in YAML that sends paths below `prefix` to port 80 of a Service, `NAME` or `NAMESPACE/NAME`.
pub fn route(namespace: &str, name: &str, gateway: &str, prefix: &str, service: &str) -> String {
    let (backend_namespace, backend) = service.split_once('/').unwrap_or((namespace, service));
    format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  parentRefs: [{{name: \"{gateway}\"}}]
  rules:
  - matches: [{{path: {{type: PathPrefix, value: {prefix}}}}}]
    backendRefs: [{{name: {backend}, namespace: {backend_namespace}, port: 80}}]
---
"
    )
}

/// A Deployment and a Service of the echo backend.
pub fn echo(namespace: &str, name: &str) -> String {
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: echo
        image: {ECHO}
        env:
        - {{name: POD_NAME, valueFrom: {{fieldRef: {{fieldPath: metadata.name}}}}}}
        - {{name: NAMESPACE, valueFrom: {{fieldRef: {{fieldPath: metadata.namespace}}}}}}
        readinessProbe: {{tcpSocket: {{port: 3000}}, periodSeconds: 1}}
---
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: {namespace}}}
spec: {{selector: {{app: {name}}}, ports: [{{port: 80, targetPort: 3000}}]}}
---
"
    )
}

impl Namespace<'_> {
    /// Applies `yaml` and waits for the Gateway's address; the rest may still be on its way.
    pub fn serve(&self, gateway: &str, yaml: &str) -> Result<SocketAddr> {
        self.kubernetes.apply(yaml)?;
        self.address(gateway)
    }

    /// The address of a Gateway, once it is programmed.
    pub fn address(&self, gateway: &str) -> Result<SocketAddr> {
        let object = self.kubernetes.wait(&self.name, "gateway", gateway, |object| {
            has_condition(object, "/status/conditions", "Programmed", "True", "Programmed")
        })?;
        let text = object.pointer("/status/addresses/0/value").and_then(Value::as_str);
        let ip: IpAddr = text.context("a programmed Gateway has an address")?.parse()?;
        Ok(SocketAddr::new(ip, 80))
    }

    /// Waits until the route's condition on its only parent is as given.
    pub fn route_condition(&self, route: &str, kind: &str, status: &str, reason: &str) -> Result<()> {
        self.kubernetes
            .wait(&self.name, "httproute", route, |object| {
                has_condition(object, "/status/parents/0/conditions", kind, status, reason)
            })
            .map(drop)
    }

    /// Deployments that the control plane made for a Gateway, found by the label of the Gateway API (GEP-1762).
    pub fn proxies(&self, gateway: &str) -> Result<Vec<Value>> {
        let selector = format!("gateway.networking.k8s.io/gateway-name={gateway}");
        self.kubernetes.list(&self.name, "deployment", &selector)
    }

    /// The name of the one Deployment of a Gateway.
    pub fn proxy(&self, gateway: &str) -> Result<String> {
        let proxies = self.proxies(gateway)?;
        let name = proxies.first().and_then(|proxy| proxy.pointer("/metadata/name")).and_then(Value::as_str);
        Ok(name.with_context(|| format!("no Deployment for Gateway {gateway}"))?.to_owned())
    }
}

/// Waits until `GET path` answers as `wanted` says.
pub fn answers(
    address: SocketAddr,
    path: &str,
    wanted: impl Fn(&Response) -> bool,
    limit: Duration,
) -> Result<Response> {
    eventually(&format!("the wanted answer to GET {path} from {address}"), limit, || {
        match http::get(address, "example.test", path) {
            Ok(response) if wanted(&response) => Ok(response),
            Ok(response) => Err(format!("{} {}", response.status, response.body)),
            Err(error) => Err(format!("{error:#}")),
        }
    })
}

/// Waits until `GET path` answers with that status.
pub fn answers_status(address: SocketAddr, path: &str, status: u16) -> Result<Response> {
    answers(address, path, |response| response.status == status, LIMIT)
}

/// As many requests as it takes to be sure that a status is steady and not one proxy's.
pub fn steadily(address: SocketAddr, path: &str, status: u16) -> Result<()> {
    for _ in 0..20 {
        let response = http::get(address, "example.test", path)?;
        anyhow::ensure!(response.status == status, "{} after {status} was seen: {}", response.status, response.body);
    }
    Ok(())
}

/// Everything that a test of traffic needs first: a Gateway, a backend and a route of all paths to it, answering.
pub fn serving(kubernetes: &Kubernetes, namespace: &Namespace<'_>) -> Result<SocketAddr> {
    let name = &namespace.name;
    let yaml = gateway(name, "edge", "") + &echo(name, "echo") + &route(name, "all", "edge", "/", "echo");
    let address = namespace.serve("edge", &yaml)?;
    kubernetes.rolled_out(name, "echo")?;
    answers_status(address, "/", 200)?;
    Ok(address)
}
