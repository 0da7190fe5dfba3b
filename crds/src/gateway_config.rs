//! `GatewayConfig`: how the proxies of a Gateway are run. Named by `parametersRef` of a GatewayClass (for all of its Gateways)
//! or by `infrastructure.parametersRef` of one Gateway (GEP-1867); of both, the Gateway's is used whole.
//! Invariant: every field has a default, here and in the schema alike, so that a file and the API server read the same.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::ResourceRequirements,
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::Condition, util::intstr::IntOrString},
};
use kube_derive::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the proxies of a Gateway are run.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(crates(kube_core = "::kube_core"))]
#[kube(
    group = "nebula.dev",
    version = "v1alpha1",
    kind = "GatewayConfig",
    plural = "gatewayconfigs",
    shortname = "gwcfg",
    category = "nebula",
    namespaced,
    status = "GatewayConfigStatus",
    derive = "Default",
    doc = "GatewayConfig says how the proxies of a Gateway are run: how many, with which resources, behind which kind of Service, and what they log and trace. A GatewayClass names one for all of its Gateways (spec.parametersRef), a Gateway names one for itself (spec.infrastructure.parametersRef); of both, the Gateway's is used, whole.",
    crates(kube_core = "::kube_core")
)]
#[kube(
    printcolumn = r#"{"name": "Replicas", "type": "integer", "jsonPath": ".spec.replicas", "description": "Proxies per Gateway; empty where an autoscaler decides"}"#,
    printcolumn = r#"{"name": "Service", "type": "string", "jsonPath": ".spec.service.type", "description": "Kind of Service in front of the proxies"}"#,
    printcolumn = r#"{"name": "Accepted", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Accepted\")].status", "description": "Whether the Gateways that name it are run as it says"}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#
)]
#[kube(derive = "PartialEq")]
pub struct GatewayConfigSpec {
    /// Number of proxies for each Gateway. Where it is absent, a Deployment starts with one and its count is left alone, so
    /// that a HorizontalPodAutoscaler may set it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub replicas: Option<i32>,
    /// CPU, memory and other resources of each proxy's container, as in a Pod.
    #[serde(default)]
    pub resources: Resources,
    /// The Service that clients reach the proxies through.
    #[serde(default)]
    pub service: Service,
    /// What the proxies log.
    #[serde(default)]
    pub log: Log,
    /// What the proxies report to other systems.
    #[serde(default)]
    pub telemetry: Telemetry,
}

/// Resources of the proxy container. Quantities are written as in a Pod: `500m`, `1`, `128Mi`.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = Rule::new("!has(self.requests) || !has(self.limits) || ['cpu', 'memory'].all(name, \
         !(name in self.requests) || !(name in self.limits) || \
         quantity(string(self.requests[name])).compareTo(quantity(string(self.limits[name]))) <= 0)")
        .message("a request must not be above its limit")
)]
pub struct Resources {
    /// What the scheduler sets aside for one proxy.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "quantities")]
    pub requests: BTreeMap<String, IntOrString>,
    /// What one proxy may use at most. A CPU limit throttles, which shows in the tail of latency: think twice.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "quantities")]
    pub limits: BTreeMap<String, IntOrString>,
}

impl Resources {
    /// As a container states them; `None` for an empty side.
    pub fn to_requirements(&self) -> ResourceRequirements {
        let quantities = |side: &BTreeMap<String, IntOrString>| {
            let quantity = |value: &IntOrString| match value {
                IntOrString::Int(number) => Quantity(number.to_string()),
                IntOrString::String(text) => Quantity(text.clone()),
            };
            (!side.is_empty()).then(|| side.iter().map(|(name, value)| (name.clone(), quantity(value))).collect())
        };
        ResourceRequirements { requests: quantities(&self.requests), limits: quantities(&self.limits), claims: None }
    }
}

/// A map of quantities, as controller-gen writes one. (CEL's `isQuantity` over the whole map is above the API server's
/// budget, as it takes a number or text for text of any length.)
fn quantities(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "maxProperties": 16,
        "additionalProperties": {
            "pattern": r"^([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?$",
            "x-kubernetes-int-or-string": true,
        },
    })
}

/// The Service in front of the proxies.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Service {
    /// How clients outside the cluster get to it: `LoadBalancer` (an address from the cloud or from the cluster's address
    /// controller), `NodePort` (a port of every node) or `ClusterIP` (not at all).
    #[serde(default, rename = "type")]
    pub kind: ServiceType,
    /// Annotations of the Service, which is where clouds and address controllers are told what to do. The Gateway's
    /// `infrastructure.annotations` come on top and win.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub annotations: BTreeMap<String, String>,
}

/// Kubernetes' `ServiceSpec.type`, as far as it makes sense for a Gateway.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ServiceType {
    /// An address of its own.
    #[default]
    LoadBalancer,
    /// Inside the cluster only.
    #[serde(rename = "ClusterIP")]
    ClusterIp,
    /// A port of every node.
    NodePort,
}

impl ServiceType {
    /// As `ServiceSpec.type` spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LoadBalancer => "LoadBalancer",
            Self::ClusterIp => "ClusterIP",
            Self::NodePort => "NodePort",
        }
    }
}

/// What a proxy writes: its own log on standard error, the access log on standard output.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Log {
    /// Which lines of the proxy's own log are written: a level (`error`, `warn`, `info`, `debug`, `trace`), or levels by
    /// module, such as `info,gateway_engine=debug`.
    #[serde(default = "default_filter")]
    #[schemars(length(min = 1, max = 256), regex(pattern = r"^[A-Za-z0-9_:=,\[\]{}./\-]+$"))]
    pub filter: String,
    /// How lines of the proxy's own log look.
    #[serde(default)]
    pub format: LogFormat,
    /// The access log: one line for each request, or none.
    #[serde(default)]
    pub access_log: AccessLog,
}

impl Default for Log {
    fn default() -> Self {
        Self { filter: default_filter(), format: LogFormat::default(), access_log: AccessLog::default() }
    }
}

fn default_filter() -> String {
    "info".to_owned()
}

/// How log lines look.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum LogFormat {
    /// One JSON object a line.
    #[default]
    Json,
    /// For people.
    Text,
}

/// Whether requests are logged.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AccessLog {
    /// One JSON object for each request.
    #[default]
    Json,
    /// Nothing. (Not `Off`: YAML 1.1, which kubectl reads, takes that for the boolean.)
    Disabled,
}

/// What a proxy reports to other systems. Metrics need no setting: they are at `/metrics` on port 15020 of every proxy.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Telemetry {
    /// Traces over OTLP. Where it is absent no spans are made; `traceparent` of the client is passed on all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracing: Option<Tracing>,
}

/// Where spans go, and how many.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tracing {
    /// The collector, as `http://host:port`; OTLP over gRPC (port 4317 by custom). Without TLS: a collector outside the
    /// cluster is reached through one inside it.
    #[schemars(length(max = 512), regex(pattern = r"^http://[A-Za-z0-9.\-\[\]:]+(/[^\s]*)?$"))]
    pub endpoint: String,
    /// The share of requests that get a span where the client has not decided (W3C trace context: its sampled flag is
    /// followed). A fraction of whole numbers, as Kubernetes APIs carry no floating point; the Gateway API writes its
    /// mirror's share the same way. Default: one in a hundred.
    #[serde(default)]
    pub sampling: Sampling,
}

/// `numerator` of `denominator` requests.
#[derive(KubeSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = Rule::new("self.numerator <= self.denominator").message("numerator must not be above denominator")
)]
pub struct Sampling {
    /// How many of `denominator` requests; 0 is none.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub numerator: i32,
    /// Of how many requests.
    #[serde(default = "default_denominator")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub denominator: i32,
}

impl Sampling {
    /// The share, from 0 to 1. What the schema refuses is brought into that range: a denominator under 1 samples nothing.
    pub fn ratio(self) -> f64 {
        if self.denominator < 1 {
            0.0
        } else {
            (f64::from(self.numerator) / f64::from(self.denominator)).clamp(0.0, 1.0)
        }
    }
}

impl Default for Sampling {
    fn default() -> Self {
        Self { numerator: 1, denominator: default_denominator() }
    }
}

fn default_denominator() -> i32 {
    100
}

/// What the control plane made of it.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[x_kube(crates(kube_core = "::kube_core"))]
pub struct GatewayConfigStatus {
    /// `Accepted`: whether the Gateways that name it are run as it says; the reason is `Accepted` or `Invalid`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_owned()]))]
    pub conditions: Vec<Condition>,
}
