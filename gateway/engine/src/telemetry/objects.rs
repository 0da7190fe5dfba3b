//! Metrics of configured objects: routes, listeners, ports, backends. Handles are resolved when the configuration is
//! compiled; counting a request is a few relaxed additions.
//!
//! Invariant: an object's series live exactly as long as a handle on it does, and two handles on one object count
//! together. What has counted nothing has no series.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicI64, AtomicU8, AtomicU64, Ordering},
    },
    time::Duration,
};

use control_plane_model::{BackendKey, ListenerKey, RouteKey};
use http::StatusCode;
use opentelemetry::trace::TraceId;
use parking_lot::Mutex;
use policy_resilience::{EjectionCause, State};
use prometheus_client::{collector::Collector, encoding::DescriptorEncoder, metrics::exemplar::HistogramWithExemplars};

use super::{exposition, histogram::AtomicHistogram};
use crate::local_reply::Reason;

/// Where the buckets of a listener's request durations end.
static REQUEST_BOUNDS: [Duration; 8] = [
    Duration::from_millis(1),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(5),
];

/// Where the buckets of a backend's durations end. Few, as there are thousands of backends.
static UPSTREAM_BOUNDS: [Duration; 3] =
    [Duration::from_millis(5), Duration::from_millis(50), Duration::from_millis(500)];

/// The first digit of a status, as the label `code_class`.
pub(super) const CODE_CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// The `route` of requests that no route matched.
const UNMATCHED: &str = "unmatched";

/// What is spoken on a client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DownstreamProtocol {
    /// HTTP/1.0 and HTTP/1.1.
    Http1,
    /// HTTP/2, with or without TLS.
    Http2,
}

impl DownstreamProtocol {
    pub(super) const ALL: [Self; 2] = [Self::Http1, Self::Http2];

    /// The value of the label `protocol`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::Http2 => "http2",
        }
    }
}

/// Why a client's TLS handshake failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsFailure {
    /// The client took too long.
    Timeout,
    /// The client went away.
    Closed,
    /// No listener of the port serves the name, or its certificate is missing.
    NoCertificate,
    /// What came is not TLS, or not a version or a cipher that is offered.
    Protocol,
}

impl TlsFailure {
    pub(super) const ALL: [Self; 4] = [Self::Timeout, Self::Closed, Self::NoCertificate, Self::Protocol];

    /// The value of the label `reason`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Closed => "closed",
            Self::NoCertificate => "no_certificate",
            Self::Protocol => "protocol",
        }
    }
}

/// The live handles of one kind of object.
#[derive(Debug)]
struct Handles<K, H>(Mutex<BTreeMap<K, Weak<H>>>);

impl<K: Ord + Clone, H> Handles<K, H> {
    fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::default()))
    }

    /// The handle on `key`: the one that lives, or a new one.
    fn get(&self, key: &K, new: impl FnOnce() -> H) -> Arc<H> {
        let mut handles = self.0.lock();
        if let Some(handle) = handles.get(key).and_then(Weak::upgrade) {
            return handle;
        }
        let handle = Arc::new(new());
        handles.insert(key.clone(), Arc::downgrade(&handle));
        handle
    }

    /// Forgets `key`, whose handle is being dropped, unless it has a new one already.
    fn forget(&self, key: &K) {
        let mut handles = self.0.lock();
        if handles.get(key).is_some_and(|handle| handle.strong_count() == 0) {
            handles.remove(key);
        }
    }

    fn live(&self) -> Vec<Arc<H>> {
        self.0.lock().values().filter_map(Weak::upgrade).collect()
    }
}

/// One route's requests, by class of status code.
#[derive(Debug)]
pub struct RouteMetrics {
    key: Option<RouteKey>,
    pub(super) label: String,
    pub(super) requests: [AtomicU64; CODE_CLASSES.len()],
    home: Weak<Handles<RouteKey, RouteMetrics>>,
}

impl RouteMetrics {
    /// Counts a request that was answered with `status`.
    pub fn observe(&self, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100).saturating_sub(1).min(CODE_CLASSES.len() - 1);
        if let Some(requests) = self.requests.get(class) {
            requests.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for RouteMetrics {
    fn drop(&mut self) {
        if let (Some(home), Some(key)) = (self.home.upgrade(), &self.key) {
            home.forget(key);
        }
    }
}

/// What a listener learns of a request that has ended.
#[derive(Clone, Copy, Debug)]
pub struct Observation {
    /// From the request's head received to the last byte of the response sent.
    pub duration: Duration,
    /// Bytes of the request's body.
    pub request_bytes: u64,
    /// Bytes of the response's body.
    pub response_bytes: u64,
    /// The trace, where the request is sampled; becomes the exemplar of its bucket.
    pub trace: Option<TraceId>,
}

type TracedHistogram = HistogramWithExemplars<[(&'static str, String); 1]>;

/// One listener's requests: durations and bytes.
#[derive(Debug)]
pub struct ListenerMetrics {
    key: ListenerKey,
    pub(super) label: String,
    pub(super) durations: AtomicHistogram<{ REQUEST_BOUNDS.len() }>,
    /// Sampled requests alone, with exemplars; a lock each, which sampling makes rare.
    pub(super) traced: TracedHistogram,
    pub(super) traced_count: AtomicU64,
    pub(super) request_bytes: AtomicU64,
    pub(super) response_bytes: AtomicU64,
    home: Weak<Handles<ListenerKey, ListenerMetrics>>,
}

impl ListenerMetrics {
    /// Counts a request that has ended.
    pub fn observe(&self, observation: &Observation) {
        match observation.trace {
            None => self.durations.observe(observation.duration),
            Some(trace) => {
                let exemplar = Some([("trace_id", trace.to_string())]);
                self.traced.observe(observation.duration.as_secs_f64(), exemplar, None);
                self.traced_count.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.request_bytes.fetch_add(observation.request_bytes, Ordering::Relaxed);
        self.response_bytes.fetch_add(observation.response_bytes, Ordering::Relaxed);
    }
}

impl Drop for ListenerMetrics {
    fn drop(&mut self) {
        if let Some(home) = self.home.upgrade() {
            home.forget(&self.key);
        }
    }
}

/// One backend: how long its answers take, and connections that could not be made.
#[derive(Debug)]
pub struct BackendMetrics {
    key: BackendKey,
    pub(super) label: String,
    pub(super) durations: AtomicHistogram<{ UPSTREAM_BOUNDS.len() }>,
    pub(super) connect_failures: AtomicU64,
    /// Boxed, as only backends with a policy have any; made when the first is counted.
    pub(super) policy: OnceLock<Box<PolicyCounts>>,
    home: Weak<Handles<BackendKey, BackendMetrics>>,
}

impl BackendMetrics {
    /// Counts an attempt that was answered: from the request's head sent to the response's head received.
    pub fn observe(&self, duration: Duration) {
        self.durations.observe(duration);
    }

    /// Counts a connection that could not be made.
    pub(super) fn connect_failed(&self) {
        self.connect_failures.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes the state of the backend's breaker; `None` where it has none any more.
    pub fn set_breaker(&self, state: Option<State>) {
        if state.is_some() || self.policy.get().is_some() {
            let place = state.and_then(|state| BREAKER_STATES.iter().position(|known| *known == state));
            let shown = place.and_then(|place| u8::try_from(place + 1).ok()).unwrap_or(0);
            self.counts().breaker.store(shown, Ordering::Relaxed);
        }
    }

    /// Notes that the breaker went to `state`.
    pub fn breaker_changed(&self, state: State) {
        self.set_breaker(Some(state));
        if state == State::Open {
            self.counts().openings.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts an endpoint that was ejected.
    pub fn ejected(&self, cause: EjectionCause) {
        let place = EJECTION_CAUSES.iter().position(|known| *known == cause);
        if let Some(count) = place.and_then(|place| self.counts().ejections.get(place)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Notes how many endpoints health checks find unhealthy.
    pub fn set_unhealthy(&self, endpoints: usize) {
        if endpoints > 0 || self.policy.get().is_some() {
            self.counts().unhealthy.store(endpoints as u64, Ordering::Relaxed);
        }
    }

    /// Counts a request that the policy refused.
    pub fn refused(&self, reason: Reason) {
        let place = REFUSALS.iter().position(|known| *known == reason);
        if let Some(count) = place.and_then(|place| self.counts().refused.get(place)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts a retry; one that the budget did not allow apart.
    pub fn retried(&self, is_allowed: bool) {
        let counts = self.counts();
        let count = if is_allowed { &counts.retries } else { &counts.retries_over_budget };
        count.fetch_add(1, Ordering::Relaxed);
    }

    fn counts(&self) -> &PolicyCounts {
        self.policy.get_or_init(Box::default)
    }
}

/// The states of a breaker, as the label `state`.
pub(super) const BREAKER_STATES: [State; 6] =
    [State::Closed, State::Open, State::HalfOpen, State::ForcedOpen, State::ForcedClosed, State::Disabled];

/// The causes of ejections, as the label `cause`.
pub(super) const EJECTION_CAUSES: [EjectionCause; 5] = [
    EjectionCause::Consecutive5xx,
    EjectionCause::ConsecutiveGatewayErrors,
    EjectionCause::ConsecutiveLocalOrigin,
    EjectionCause::SuccessRate,
    EjectionCause::FailurePercentage,
];

/// Why a backend's policy refuses a request, as the label `reason`.
pub(super) const REFUSALS: [Reason; 5] = [
    Reason::CircuitOpen,
    Reason::BackendAtLimit,
    Reason::TooManyPending,
    Reason::AdaptiveLimit,
    Reason::NoHealthyEndpoints,
];

/// What a backend's policy has done.
#[derive(Debug, Default)]
pub(super) struct PolicyCounts {
    /// 1 and more: a place in [`BREAKER_STATES`].
    pub(super) breaker: AtomicU8,
    pub(super) openings: AtomicU64,
    /// Endpoints, now.
    pub(super) unhealthy: AtomicU64,
    pub(super) ejections: [AtomicU64; EJECTION_CAUSES.len()],
    pub(super) refused: [AtomicU64; REFUSALS.len()],
    pub(super) retries: AtomicU64,
    pub(super) retries_over_budget: AtomicU64,
}

impl Drop for BackendMetrics {
    fn drop(&mut self) {
        if let Some(home) = self.home.upgrade() {
            home.forget(&self.key);
        }
    }
}

/// One port: its clients' connections.
#[derive(Debug)]
pub struct PortMetrics {
    port: u16,
    pub(super) label: String,
    pub(super) opened: [AtomicU64; DownstreamProtocol::ALL.len()],
    pub(super) active: [AtomicI64; DownstreamProtocol::ALL.len()],
    pub(super) tls_failures: [AtomicU64; TlsFailure::ALL.len()],
    pub(super) refused: AtomicU64,
    home: Weak<Handles<u16, PortMetrics>>,
}

impl PortMetrics {
    /// Counts a connection, once its protocol is known; it is active until the guard goes.
    pub fn opened(self: &Arc<Self>, protocol: DownstreamProtocol) -> OpenConnection {
        if let Some(opened) = self.opened.get(protocol as usize) {
            opened.fetch_add(1, Ordering::Relaxed);
        }
        let connection = OpenConnection { port: self.clone(), protocol };
        connection.add(1);
        connection
    }

    /// Counts a connection that was closed at once, as there are as many as may be.
    pub fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a handshake that failed.
    pub fn tls_failed(&self, reason: TlsFailure) {
        if let Some(failures) = self.tls_failures.get(reason as usize) {
            failures.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for PortMetrics {
    fn drop(&mut self) {
        if let Some(home) = self.home.upgrade() {
            home.forget(&self.port);
        }
    }
}

/// A client's connection, counted as active while this lives.
#[derive(Debug)]
pub struct OpenConnection {
    port: Arc<PortMetrics>,
    protocol: DownstreamProtocol,
}

impl OpenConnection {
    fn add(&self, change: i64) {
        if let Some(active) = self.port.active.get(self.protocol as usize) {
            active.fetch_add(change, Ordering::Relaxed);
        }
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.add(-1);
    }
}

/// Every object's metrics, and how they are written.
#[derive(Debug)]
pub(super) struct Objects {
    routes: Arc<Handles<RouteKey, RouteMetrics>>,
    listeners: Arc<Handles<ListenerKey, ListenerMetrics>>,
    backends: Arc<Handles<BackendKey, BackendMetrics>>,
    ports: Arc<Handles<u16, PortMetrics>>,
    unmatched: Arc<RouteMetrics>,
}

fn counters<const N: usize>() -> [AtomicU64; N] {
    std::array::from_fn(|_| AtomicU64::new(0))
}

fn new_route(key: Option<&RouteKey>, home: Weak<Handles<RouteKey, RouteMetrics>>) -> RouteMetrics {
    let label = key.map_or_else(|| UNMATCHED.to_owned(), ToString::to_string);
    RouteMetrics { key: key.cloned(), label, requests: counters(), home }
}

impl Objects {
    pub(super) fn new() -> Self {
        Self {
            routes: Handles::new(),
            listeners: Handles::new(),
            backends: Handles::new(),
            ports: Handles::new(),
            unmatched: Arc::new(new_route(None, Weak::new())),
        }
    }

    pub(super) fn unmatched(&self) -> &Arc<RouteMetrics> {
        &self.unmatched
    }

    pub(super) fn route(&self, key: &RouteKey) -> Arc<RouteMetrics> {
        self.routes.get(key, || new_route(Some(key), Arc::downgrade(&self.routes)))
    }

    pub(super) fn listener(&self, key: &ListenerKey) -> Arc<ListenerMetrics> {
        self.listeners.get(key, || ListenerMetrics {
            key: key.clone(),
            label: key.to_string(),
            durations: AtomicHistogram::new(&REQUEST_BOUNDS),
            traced: TracedHistogram::new(REQUEST_BOUNDS.iter().map(Duration::as_secs_f64)),
            traced_count: AtomicU64::new(0),
            request_bytes: AtomicU64::new(0),
            response_bytes: AtomicU64::new(0),
            home: Arc::downgrade(&self.listeners),
        })
    }

    pub(super) fn backend(&self, key: &BackendKey) -> Arc<BackendMetrics> {
        self.backends.get(key, || BackendMetrics {
            key: key.clone(),
            label: key.to_string(),
            durations: AtomicHistogram::new(&UPSTREAM_BOUNDS),
            connect_failures: AtomicU64::new(0),
            policy: OnceLock::new(),
            home: Arc::downgrade(&self.backends),
        })
    }

    pub(super) fn port(&self, port: u16) -> Arc<PortMetrics> {
        self.ports.get(&port, || PortMetrics {
            port,
            label: port.to_string(),
            opened: counters(),
            active: std::array::from_fn(|_| AtomicI64::new(0)),
            tls_failures: counters(),
            refused: AtomicU64::new(0),
            home: Arc::downgrade(&self.ports),
        })
    }
}

impl Collector for Objects {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        // Copies of the handles, so that no lock is held while text is written.
        let mut routes = self.routes.live();
        routes.push(self.unmatched.clone());
        exposition::routes(&mut encoder, &routes)?;
        exposition::listeners(&mut encoder, &self.listeners.live())?;
        exposition::backends(&mut encoder, &self.backends.live())?;
        exposition::ports(&mut encoder, &self.ports.live())
    }
}
