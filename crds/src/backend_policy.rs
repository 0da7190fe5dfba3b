//! `BackendPolicy`: what protects a Service and those who call it. Attached to Services, or to one port of one; not merged.
//! Defaults are said here and applied by translation.

use kube_derive::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::policy::{PolicyStatus, TargetReference};

/// What protects a Service and those who call it.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = Rule::new("self.targetRefs.all(target, target.group == '' && target.kind == 'Service')")
        .message("targetRefs may name Services, whose group is empty")
)]
#[kube(
    group = "nebula.dev",
    version = "v1alpha1",
    kind = "BackendPolicy",
    plural = "backendpolicies",
    shortname = "bkp",
    category = "nebula",
    namespaced,
    status = "PolicyStatus",
    derive = "Default",
    derive = "PartialEq",
    doc = "BackendPolicy says what protects a Service and those who call it: limits, circuit breaker, outlier detection, health checks, load balancing, retries, timeouts and a fallback. It is attached to Services, or to one port of one (sectionName), and holds for every route that uses them. State is kept by each proxy for itself. Of two policies on one Service or port the older counts, whole.",
    crates(kube_core = "::kube_core"),
    printcolumn = r#"{"name": "Accepted", "type": "string", "jsonPath": ".status.ancestors[*].conditions[?(@.type==\"Accepted\")].status", "description": "Whether it is honoured, for each Service"}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#
)]
pub struct BackendPolicySpec {
    /// The Services that the policy is for (`sectionName`: one port, by name or number).
    #[schemars(length(min = 1, max = 16))]
    pub target_refs: Vec<TargetReference>,
    /// How many requests at once. What is above is answered with 503.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// A limit of requests at once that follows the backend's latency: it grows while that holds, and shrinks when requests
    /// begin to queue in the backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adaptive_concurrency: Option<AdaptiveConcurrency>,
    /// When the backend is left alone for a while. Requests are then answered with 503 and Retry-After.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub circuit_breaker: Option<CircuitBreaker>,
    /// When one endpoint is left alone for a while, by its answers to requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outlier_detection: Option<OutlierDetection>,
    /// How endpoints are asked whether they are well, by each proxy. One that is not gets no requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_check: Option<HealthCheck>,
    /// Where less than this percentage of the endpoints is healthy and not ejected, all get requests: better to fail some than to
    /// flood the few. 0: never, and where none is left requests are answered with 503. Default: 50.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub panic_threshold: Option<i32>,
    /// Which endpoint gets a request. Default: PeakEwma.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_balancing: Option<LoadBalancing>,
    /// What is tried again. A request of which no byte was sent is tried on other endpoints in any case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<Retries>,
    /// How long things may take. The route's own timeouts hold beside these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<Timeouts>,
    /// What clients get where the backend gives no answer: it is left alone, at its limit, or fails. gRPC clients get a status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<Fallback>,
}

/// How many requests at once, and how many more may wait for their turn, in each proxy.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// Requests under way. One ends with the last byte of its response; an upgraded connection when it closes.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_requests: i32,
    /// Requests that wait. Default: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100_000))]
    pub max_pending: Option<i32>,
    /// How long each of them waits at most, up to 1m. Default: 1s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"))]
    pub max_wait: Option<String>,
}

/// A limit that finds itself, between two bounds.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AdaptiveConcurrency {
    /// The lowest. Default: 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub min: Option<i32>,
    /// The highest. Default: 200.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub max: Option<i32>,
    /// Where it begins. Default: 20, or what of it is between the bounds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub initial: Option<i32>,
    /// How often it is judged anew, up to 1m. Default: 1s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"))]
    pub window: Option<String>,
}

/// When a backend is left alone, and how it comes back. The words are resilience4j's, but for requests where it says calls.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CircuitBreaker {
    /// The requests to judge by. Default: the last 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<Window>,
    /// Fewer requests in the window say nothing. Default: 20, or the window's size where that is less.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub minimum_requests: Option<i32>,
    /// Percentage of failures at which it opens. Default: 50.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub failure_percent: Option<i32>,
    /// Slow answers that open it too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow: Option<Slow>,
    /// Failures in a row that open it too, however few requests there were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub consecutive_failures: Option<i32>,
    /// How long it stays open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open: Option<Open>,
    /// How it tries whether the backend is well again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub half_open: Option<HalfOpen>,
    /// After it has closed, the time over which the share of requests that it lets through grows from a tenth to all, up to 1h.
    /// Default: 10s; `0s` for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"))]
    pub ramp: Option<String>,
    /// What counts as a failure. No answer always does, unless the client went away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failures: Option<Failures>,
}

/// The requests that a breaker judges by: so many, or those of the last while.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = Rule::new("has(self.requests) != has(self.duration)").message("want requests or duration")
)]
pub struct Window {
    /// So many of the last ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub requests: Option<i32>,
    /// Those that ended in the last while, 1s to 1h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"))]
    pub duration: Option<String>,
}

/// When slow answers open a breaker.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Slow {
    /// An answer is slow whose head comes later than this after the request, up to 1h.
    #[schemars(regex(pattern = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"))]
    pub threshold: String,
    /// Percentage of slow answers at which the breaker opens. Default: 80.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub percent: Option<i32>,
}

/// How long a breaker stays open.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Open {
    /// The first time, up to 1h. Default: 5s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"))]
    pub duration: Option<String>,
    /// How many times longer each time is that follows without a recovery. Default: 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10))]
    pub factor: Option<i32>,
    /// The longest, up to 24h. Default: 1m, or the first time where that is longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"))]
    pub maximum: Option<String>,
    /// Up to this percentage of it is taken off at random, so that proxies do not probe in step. Default: 20.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 50))]
    pub jitter_percent: Option<i32>,
}

/// How a breaker tries whether the backend is well again.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HalfOpen {
    /// Requests at once. One that fails or is slow opens the breaker again. Default: 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub probes: Option<i32>,
    /// Good answers that close it. Default: 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub successes: Option<i32>,
    /// Without a verdict by then it opens again, up to 1h. Default: 30s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"))]
    pub max_duration: Option<String>,
}

/// What counts as a failure of the backend.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failures {
    /// Statuses and ranges of them: `429`, `500-599`. Default: 500-599.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(regex(pattern = r"^[1-5][0-9]{2}(-[1-5][0-9]{2})?$")))]
    pub statuses: Vec<String>,
    /// gRPC codes. Default: Unknown, DeadlineExceeded, Internal, Unavailable, DataLoss.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 17))]
    pub grpc_codes: Vec<GrpcCode>,
}

/// A gRPC status code (`google.rpc.Code`).
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the codes are explained at https://grpc.io/docs/guides/status-codes/")]
pub enum GrpcCode {
    #[default]
    Ok,
    Cancelled,
    Unknown,
    InvalidArgument,
    DeadlineExceeded,
    NotFound,
    AlreadyExists,
    PermissionDenied,
    ResourceExhausted,
    FailedPrecondition,
    Aborted,
    OutOfRange,
    Unimplemented,
    Internal,
    Unavailable,
    DataLoss,
    Unauthenticated,
}

/// When one endpoint is left alone. The words are Envoy's.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OutlierDetection {
    /// How often the rates are judged, 1s to 1h. Default: 10s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"))]
    pub interval: Option<String>,
    /// Answers with 5xx in a row that eject. Default: 5, where nothing else is set that ejects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub consecutive_5xx: Option<i32>,
    /// Answers with 502, 503 or 504 in a row that eject.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub consecutive_gateway_errors: Option<i32>,
    /// Times in a row without an answer that eject; they then count nowhere else. Without it they count as gateway errors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub consecutive_local_failures: Option<i32>,
    /// Ejects an endpoint that succeeds far less often than the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub success_rate: Option<SuccessRate>,
    /// Ejects an endpoint for its own share of failures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_percentage: Option<FailurePercentage>,
    /// The first ejection lasts so long, the n-th n times as long, up to 1h. Default: 30s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"))]
    pub base_ejection_time: Option<String>,
    /// The longest ejection, up to 24h. Default: 5m, or the first where that is longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"))]
    pub max_ejection_time: Option<String>,
    /// Up to this percentage of an ejection is taken off at random. Default: 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 50))]
    pub jitter_percent: Option<i32>,
    /// Percentage of the endpoints that may be ejected at once. Default: 50.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub max_ejection_percent: Option<i32>,
    /// One endpoint may be ejected even where that is a larger percentage. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub always_eject_one: Option<bool>,
}

/// Ejects an endpoint whose rate of success is far below the mean of all.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SuccessRate {
    /// Endpoints with enough requests that there must be. Default: 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub minimum_endpoints: Option<i32>,
    /// Requests in an interval that are enough. Default: 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub minimum_requests: Option<i32>,
    /// Thousandths of the standard deviation below the mean that eject. Default: 1900.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub deviations: Option<i32>,
}

/// Ejects an endpoint for its own share of failures.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FailurePercentage {
    /// Endpoints with enough requests that there must be. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub minimum_endpoints: Option<i32>,
    /// Requests in an interval that are enough. Default: 50.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub minimum_requests: Option<i32>,
    /// Percentage of failures that ejects. Default: 85.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub percent: Option<i32>,
}

/// How endpoints are asked whether they are well.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = Rule::new("[has(self.http), has(self.tcp), has(self.grpc)].exists_one(is, is)")
        .message("want one of http, tcp and grpc")
)]
pub struct HealthCheck {
    /// A GET over HTTP/1.1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpCheck>,
    /// A connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<TcpCheck>,
    /// `grpc.health.v1.Health/Check` over HTTP/2 without TLS; SERVING is good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc: Option<GrpcCheck>,
    /// The port to ask. Default: that of the endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65_535))]
    pub port: Option<i32>,
    /// Between two checks of an endpoint, 100ms to 1h. Default: 10s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"))]
    pub interval: Option<String>,
    /// How long one may take, 10ms to 1m. Default: 1s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"))]
    pub timeout: Option<String>,
    /// Up to this percentage of the interval is taken off at random. Default: 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 50))]
    pub jitter_percent: Option<i32>,
    /// Good checks in a row that bring an endpoint back. Default: 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub healthy_threshold: Option<i32>,
    /// Bad checks in a row that take it away. Default: 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub unhealthy_threshold: Option<i32>,
}

/// A GET over HTTP/1.1, without TLS.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpCheck {
    /// Path and query. Default: `/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), regex(pattern = r"^/\S*$"))]
    pub path: Option<String>,
    /// The Host header. Default: the endpoint's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub host: Option<String>,
    /// Statuses of a good answer, and ranges of them: `204`, `200-399`. Default: 200-299.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(regex(pattern = r"^[1-5][0-9]{2}(-[1-5][0-9]{2})?$")))]
    pub statuses: Vec<String>,
}

/// A connection that is made and closed.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TcpCheck {}

/// A call of `grpc.health.v1`.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrpcCheck {
    /// The service to ask for. Default: the server as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub service: Option<String>,
}

/// Which endpoint gets a request.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = Rule::new("(self.type in ['RingHash', 'Maglev']) == has(self.hash)")
        .message("hash is for RingHash and Maglev, which need it")
)]
pub struct LoadBalancing {
    /// How it is chosen.
    #[serde(rename = "type")]
    pub kind: LoadBalancingType,
    /// What is hashed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<Hash>,
}

/// How an endpoint is chosen.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum LoadBalancingType {
    /// Of two drawn at random the one with less to do and faster answers.
    #[default]
    PeakEwma,
    /// Of two drawn at random the one with fewer requests under way.
    LeastRequest,
    /// Each in turn.
    RoundRobin,
    /// The same for the same key; only the keys of an endpoint that comes or goes move.
    RingHash,
    /// The same for the same key; more even and faster than RingHash, and a few more keys move.
    Maglev,
}

/// What is hashed. A request without it goes to an endpoint drawn at random.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = Rule::new("(self.type in ['Header', 'Cookie']) == has(self.name)")
        .message("name is for Header and Cookie, which need it")
)]
pub struct Hash {
    /// What it is.
    #[serde(rename = "type")]
    pub kind: HashType,
    /// Name of the header or cookie.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub name: Option<String>,
}

/// What a hash is of.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum HashType {
    /// The client's address.
    #[default]
    Address,
    /// The first value of a header.
    Header,
    /// The value of a cookie.
    Cookie,
}

/// What is tried again. No retry is made that the circuit breaker would refuse, and a request counts once however often it is
/// tried.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Retries {
    /// Tries beyond the first. Default: 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10))]
    pub limit: Option<i32>,
    /// What is tried again.
    pub when: RetryConditions,
    /// The requests that may be sent again although an endpoint may have seen them. Default: Idempotent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub methods: Option<RetryMethods>,
    /// How long to wait before a retry; each wait is shortened at random. A request of which no byte was sent does not wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff: Option<Backoff>,
    /// The longest body that is kept to be sent again, in bytes. A longer one is sent once. Default: 65536.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_048_576))]
    pub max_body_bytes: Option<i32>,
    /// How many retries there may be, by the requests there are. It is there without being named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<RetryBudget>,
}

/// What is tried again.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = Rule::new("has(self.failures) || has(self.statuses) || has(self.grpcCodes)")
        .message("want failures, statuses or grpcCodes")
)]
pub struct RetryConditions {
    /// Failures without an answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 3))]
    pub failures: Vec<LocalFailure>,
    /// Statuses and ranges of them: `503`, `502-504`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(regex(pattern = r"^[1-5][0-9]{2}(-[1-5][0-9]{2})?$")))]
    pub statuses: Vec<String>,
    /// gRPC codes, of responses without messages.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 17))]
    pub grpc_codes: Vec<GrpcCode>,
}

/// Why there is no answer.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum LocalFailure {
    /// No connection, or none in time.
    #[default]
    Connect,
    /// The connection ended before the answer's head.
    Reset,
    /// No answer in time.
    Timeout,
}

/// The requests that may be sent again.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RetryMethods {
    /// Those with GET, HEAD, OPTIONS, TRACE, PUT or DELETE (RFC 9110, 9.2.2).
    #[default]
    Idempotent,
    /// All, gRPC calls among them: for backends that take a repetition for what it is.
    Any,
}

/// How long to wait before a retry.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Backoff {
    /// The first wait, which doubles, up to 1m. Default: 25ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"))]
    pub base: Option<String>,
    /// The longest, up to 5m. Default: 250ms, or the first where that is longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"))]
    pub max: Option<String>,
}

/// How many retries there may be, so that they cannot multiply the load of a backend in trouble.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RetryBudget {
    /// Percentage of the requests of the last window. Default: 20.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub percent: Option<i32>,
    /// The window, 1s to 1h. Default: 10s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"))]
    pub window: Option<String>,
    /// Retries in each window beyond that, for a backend that gets few requests. Default: 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100_000))]
    pub minimum: Option<i32>,
}

/// How long things may take. What is not set is the proxy's own limit.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Timeouts {
    /// From the first packet to the connection, up to 1m. Default: 5s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"))]
    pub connect: Option<String>,
    /// From the request sent to the response's head, up to 1h. Default: 1m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"))]
    pub response: Option<String>,
    /// One try: from the request sent to the response received whole, up to 24h. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"))]
    pub attempt: Option<String>,
    /// Between two pieces of a response's body, up to 24h. Default: 5m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"))]
    pub idle: Option<String>,
}

/// What clients get where the backend gives no answer.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fallback {
    /// This answer. It keeps `x-nebula-reason`, which says why.
    pub response: FallbackResponse,
}

/// An answer that the proxy gives.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FallbackResponse {
    /// Default: 503.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 200, max = 599))]
    pub status: Option<i32>,
    /// Media type of the body. Default: `text/plain; charset=utf-8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub content_type: Option<String>,
    /// Default: empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65_536))]
    pub body: Option<String>,
}
