//! What protects a backend and those who call it, as a BackendPolicy says.
//!
//! Invariant: a [`BackendSettings`] is within every range that `check` names, so whoever has one need not look again. The
//! paths in errors are those of the custom resource.

mod check;

use std::{collections::BTreeSet, num::NonZeroU16, ops::Deref, sync::Arc, time::Duration};

pub use check::InvalidBackendSettings;
use http::{HeaderName, HeaderValue, StatusCode};

/// The settings of a BackendPolicy, checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackendSettings(BackendOptions);

impl BackendSettings {
    /// Checks every range.
    ///
    /// # Errors: the first field that is outside its range.
    pub fn new(options: BackendOptions) -> Result<Self, InvalidBackendSettings> {
        check::options(&options)?;
        Ok(Self(options))
    }
}

impl Deref for BackendSettings {
    type Target = BackendOptions;

    fn deref(&self) -> &BackendOptions {
        &self.0
    }
}

/// The settings of a BackendPolicy before they are checked; each part may be left out, and then does nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendOptions {
    /// How many requests at once.
    pub limits: Option<ConcurrencyLimits>,
    /// A limit that finds itself.
    pub adaptive: Option<AdaptiveLimit>,
    /// When the backend is left alone.
    pub breaker: Option<CircuitBreaker>,
    /// When one endpoint is left alone.
    pub outliers: Option<OutlierDetection>,
    /// How endpoints are asked whether they are well.
    pub health_check: Option<HealthCheck>,
    /// Where fewer of the endpoints than this percentage are well and not ejected, all get requests. 0 to 100; 0: never.
    pub panic_percent: u8,
    /// Which endpoint gets a request.
    pub balance: Balance,
    /// What is tried again.
    pub retries: Option<Retries>,
    /// How long things may take.
    pub timeouts: BackendTimeouts,
    /// What clients get where the backend gives no answer.
    pub fallback: Option<Fallback>,
}

impl BackendOptions {
    /// [`Self::panic_percent`] where nothing says otherwise; as Envoy's `healthy_panic_threshold`.
    pub const DEFAULT_PANIC_PERCENT: u8 = 50;
}

impl Default for BackendOptions {
    fn default() -> Self {
        Self {
            limits: None,
            adaptive: None,
            breaker: None,
            outliers: None,
            health_check: None,
            panic_percent: Self::DEFAULT_PANIC_PERCENT,
            balance: Balance::default(),
            retries: None,
            timeouts: BackendTimeouts::default(),
            fallback: None,
        }
    }
}

/// How many requests at once, and how many more may wait for their turn. Counted in each proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConcurrencyLimits {
    /// Requests under way, each until the last byte of its response. 1 to 1,000,000.
    pub max: u32,
    /// Requests that wait. 0 to 100,000.
    pub pending: u32,
    /// How long each of them waits at most. 1 ms to 1 min.
    pub max_wait: Duration,
}

/// A limit of requests at once that follows the backend's latency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdaptiveLimit {
    /// 1 to 100,000.
    pub min: u32,
    /// `min` to 100,000.
    pub max: u32,
    /// Where it begins: `min` to `max`.
    pub initial: u32,
    /// How often it is judged anew. 1 ms to 1 min.
    pub window: Duration,
}

/// When a backend is left alone, and how it comes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CircuitBreaker {
    /// The requests to judge by.
    pub window: BreakerWindow,
    /// Fewer in the window say nothing. 1 to 10,000, and no more than a window of requests holds.
    pub minimum_calls: u32,
    /// Percentage of failures at which it opens. 1 to 100.
    pub failure_percent: u8,
    /// Slow answers that open it too.
    pub slow_calls: Option<SlowCalls>,
    /// Failures in a row that open it too, however few requests there were. 1 to 10,000.
    pub consecutive_failures: Option<u32>,
    /// How long it stays open.
    pub open: OpenTime,
    /// How it tries whether the backend is well again.
    pub half_open: HalfOpen,
    /// After it has closed, the time over which the share of requests that it admits grows to all. 0 to 1 h.
    pub ramp: Duration,
    /// What counts as a failure.
    pub failures: Failures,
}

/// The requests that a breaker judges by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerWindow {
    /// So many of the last ones. 1 to 10,000.
    Calls(u32),
    /// Those that ended in the last while. 1 s to 1 h.
    Time(Duration),
}

/// When slow answers open a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlowCalls {
    /// From the request sent to the response's head; longer is slow. 1 ms to 1 h.
    pub threshold: Duration,
    /// Percentage of slow answers at which it opens. 1 to 100.
    pub percent: u8,
}

/// How long a breaker stays open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenTime {
    /// The first time. 1 ms to 1 h.
    pub duration: Duration,
    /// How many times longer each time is that follows without a recovery. 1 to 10.
    pub factor: u32,
    /// The longest. `duration` to 24 h.
    pub maximum: Duration,
    /// Up to this percentage of it is taken off at random, so that proxies do not probe in step. 0 to 50.
    pub jitter_percent: u8,
}

/// How a breaker finds out whether it may close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HalfOpen {
    /// Requests at once. 1 to 100.
    pub probes: u32,
    /// Good answers that close it. 1 to 100.
    pub successes: u32,
    /// Without a verdict by then it opens again. 1 ms to 1 h.
    pub max_duration: Duration,
}

/// What counts as a failure of the backend. Where both sets are empty: statuses 500 to 599, and the gRPC codes 2, 4, 13, 14
/// and 15. No answer is always one, unless the client went away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failures {
    /// Statuses; none: the default.
    pub statuses: Vec<StatusRange>,
    /// gRPC codes, 0 to 16; none: the default.
    pub grpc_codes: BTreeSet<u8>,
}

/// Statuses from `first` to `last`, both included. 100 to 599.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StatusRange {
    /// The lowest.
    pub first: u16,
    /// The highest.
    pub last: u16,
}

/// Why a request got no answer from an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LocalFailure {
    /// No connection, or none in time: not a byte was sent.
    Connect,
    /// The connection ended before the whole head of the answer.
    Reset,
    /// No answer in time.
    Timeout,
}

/// When one endpoint gets no requests for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutlierDetection {
    /// How often the rates are judged. 1 s to 1 h.
    pub interval: Duration,
    /// How long, and how many.
    pub ejection: Ejection,
    /// Answers with 5xx in a row. 1 to 10,000.
    pub consecutive_5xx: Option<u32>,
    /// Answers with 502, 503, 504 in a row. 1 to 10,000.
    pub consecutive_gateway_errors: Option<u32>,
    /// Times in a row without an answer, 1 to 10,000, which then count nowhere else; `None`: they count as gateway errors.
    pub consecutive_local_failures: Option<u32>,
    /// By comparison with the others.
    pub success_rate: Option<SuccessRate>,
    /// By the endpoint's own failures.
    pub failure_percentage: Option<FailurePercentage>,
}

/// How long an endpoint is ejected, and how many may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ejection {
    /// The first time; the n-th is n times as long. 1 ms to 1 h.
    pub base: Duration,
    /// The longest. `base` to 24 h.
    pub maximum: Duration,
    /// Up to this percentage of it is taken off at random. 0 to 50.
    pub jitter_percent: u8,
    /// Percentage of the endpoints that may be ejected at once. 0 to 100.
    pub max_percent: u8,
    /// One may be, even where that is more.
    pub at_least_one: bool,
}

/// Ejects an endpoint that succeeds far less often than the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SuccessRate {
    /// Endpoints with enough requests that there must be. 1 to 10,000.
    pub minimum_endpoints: u32,
    /// Requests in an interval that are enough. 1 to 10,000.
    pub minimum_calls: u32,
    /// Thousandths of the standard deviation below the mean. 1 to 10,000.
    pub deviations: u32,
}

/// Ejects an endpoint for its own share of failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailurePercentage {
    /// As [`SuccessRate::minimum_endpoints`].
    pub minimum_endpoints: u32,
    /// As [`SuccessRate::minimum_calls`].
    pub minimum_calls: u32,
    /// 1 to 100.
    pub percent: u8,
}

/// How endpoints are asked whether they are well, once from each proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// Between two checks of one endpoint. 100 ms to 1 h.
    pub interval: Duration,
    /// How long one may take. 10 ms to 1 min.
    pub timeout: Duration,
    /// Up to this percentage of the interval is taken off at random. 0 to 50.
    pub jitter_percent: u8,
    /// Good checks in a row that bring an endpoint back. 1 to 100.
    pub healthy_threshold: u32,
    /// Bad checks in a row that take it away. 1 to 100.
    pub unhealthy_threshold: u32,
    /// The port to ask; `None`: that of the endpoint.
    pub port: Option<NonZeroU16>,
    /// What is asked.
    pub probe: HealthProbe,
}

/// What a health check asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HealthProbe {
    /// A connection.
    Tcp,
    /// `GET path` over HTTP/1.1.
    Http {
        /// Begins with `/`.
        path: Arc<str>,
        /// `None`: the endpoint's address.
        host: Option<HeaderValue>,
        /// What is a good answer; none: 200 to 299.
        statuses: Vec<StatusRange>,
    },
    /// `grpc.health.v1.Health/Check` over HTTP/2 with prior knowledge; SERVING is good.
    Grpc {
        /// The service to ask for; empty for the server as a whole.
        service: Arc<str>,
    },
}

/// Which endpoint gets a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// Of two drawn at random the one with less to do and faster answers.
    #[default]
    PeakEwma,
    /// Of two drawn at random the one with less to do.
    LeastRequest,
    /// Each in turn.
    RoundRobin,
    /// The same for the same key; few keys move when endpoints come and go.
    RingHash(HashKey),
    /// As [`Self::RingHash`], more even and faster, with more keys that move.
    Maglev(HashKey),
}

/// What is hashed. A request without it goes to an endpoint drawn at random.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashKey {
    /// The client's address.
    Address,
    /// A header's first value.
    Header(HeaderName),
    /// A cookie's value.
    Cookie(Arc<str>),
}

/// What is tried again. A retry goes to another endpoint where there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retries {
    /// Tries beyond the first. 1 to 10.
    pub limit: u32,
    /// Failures without an answer.
    pub failures: BTreeSet<LocalFailure>,
    /// Answers by status.
    pub statuses: Vec<StatusRange>,
    /// Answers by gRPC code, 0 to 16, of responses without messages.
    pub grpc_codes: BTreeSet<u8>,
    /// Whether requests are sent again too whose method is not idempotent (RFC 9110 section 9.2.2), gRPC calls among them.
    pub any_method: bool,
    /// The first wait, which doubles; each is shortened at random. 1 ms to 1 min.
    pub backoff_base: Duration,
    /// The longest. `backoff_base` to 5 min.
    pub backoff_max: Duration,
    /// The longest body that is kept to be sent again, in bytes. 0 to 1 MiB. Longer ones are sent once.
    pub max_body: u32,
    /// How many there may be, by the requests there are.
    pub budget: Option<RetryBudget>,
}

/// How many retries there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryBudget {
    /// Percentage of the requests of the last `window`. 0 to 100.
    pub percent: u8,
    /// 1 s to 1 h.
    pub window: Duration,
    /// So many in each window beyond that. 0 to 100,000.
    pub minimum: u32,
}

/// How long things may take; `None`: the proxy's own limit. The route's own timeouts hold beside these.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackendTimeouts {
    /// From the first packet to the connection. 1 ms to 1 min.
    pub connect: Option<Duration>,
    /// From the request sent to the head of the response. 1 ms to 1 h.
    pub response: Option<Duration>,
    /// One try: from the request sent to the response received whole. 1 ms to 24 h.
    pub attempt: Option<Duration>,
    /// Between two pieces of a response's body. 1 ms to 24 h.
    pub idle: Option<Duration>,
}

/// What clients get where the backend gives no answer: it refuses, fails or is left alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// This.
    Response(FallbackResponse),
}

/// An answer that the proxy gives in place of the backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FallbackResponse {
    /// 200 to 599, but for 204, 205 and 304 only where the body is empty.
    pub status: StatusCode,
    /// Media type of the body.
    pub content_type: HeaderValue,
    /// At most 64 KiB.
    pub body: Arc<[u8]>,
}
