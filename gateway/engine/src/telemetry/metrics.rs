//! The proxy's metrics: one value a process, registered once, given to whoever counts.
//!
//! Invariant: for 5,000 routes and 5,000 backends there are fewer than 60,000 series: at most 5 a route (one for each
//! class of status code it has answered with), 7 a backend, and a few dozen a listener or port. A backend whose policy has
//! acted has up to 15 more.

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::{SystemTime, UNIX_EPOCH},
};

use control_plane_model::{BackendKey, ListenerKey, PolicyKey, RouteKey};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::{
    access_log::AccessLogCounters,
    objects::{BackendMetrics, ListenerMetrics, Objects, PortMetrics, RouteMetrics},
    trace::TraceCounters,
};
use crate::{local_reply::Reason, notes::Decision};

/// Where the connection of an attempt came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolOutcome {
    /// From the pool.
    Reused,
    /// It was made for the attempt.
    Connected,
}

/// Why an attempt brought no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExchangeFailure {
    /// The endpoint refused the connection.
    ConnectRefused,
    /// The endpoint did not accept the connection in time.
    ConnectTimeout,
    /// The connection could not be made for another reason.
    ConnectError,
    /// The endpoint closed or reset the connection before it answered.
    Reset,
    /// The answer did not come in time.
    ResponseTimeout,
    /// The answer is not valid HTTP.
    Protocol,
}

impl ExchangeFailure {
    const ALL: [Self; 6] = [
        Self::ConnectRefused,
        Self::ConnectTimeout,
        Self::ConnectError,
        Self::Reset,
        Self::ResponseTimeout,
        Self::Protocol,
    ];

    fn is_connect(self) -> bool {
        matches!(self, Self::ConnectRefused | Self::ConnectTimeout | Self::ConnectError)
    }

    /// The value of the label `reason`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ConnectRefused => "connect_refused",
            Self::ConnectTimeout => "connect_timeout",
            Self::ConnectError => "connect_error",
            Self::Reset => "reset",
            Self::ResponseTimeout => "response_timeout",
            Self::Protocol => "protocol",
        }
    }
}

/// How a delta of the configuration was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigOutcome {
    /// Every object is in force.
    Accepted,
    /// Some objects were refused; their old ones stay.
    Partial {
        /// How many.
        refused: u64,
    },
}

/// Labels of [`Metrics::policy_decision`]: as many policies as the proxy has, and reasons from a closed list.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PolicyLabels {
    policy: String,
    reason: &'static str,
    mode: &'static str,
}

impl PolicyLabels {
    fn of(decision: &Decision) -> Self {
        let mode = if decision.reported { "report" } else { "enforce" };
        Self { policy: decision.policy.to_string(), reason: decision.reason.word(), mode }
    }
}

type Label = [(&'static str, &'static str); 1];

/// Every metric of the engine. Cheap to share; counting is a few relaxed additions, but for [`Self::local_reply`].
#[derive(Debug)]
pub struct Metrics {
    objects: Arc<Objects>,
    local_replies: Family<Label, Counter>,
    policy_decisions: Family<PolicyLabels, Counter>,
    requests_active: Gauge,
    request_buffer_bytes: Gauge<u64, AtomicU64>,
    attempts_reused: Counter,
    attempts_connected: Counter,
    attempt_failures: [Counter; ExchangeFailure::ALL.len()],
    config_accepted: Counter,
    config_partial: Counter,
    config_refused: Counter,
    config_applied_at: Gauge<u64, AtomicU64>,
    access_log: AccessLogCounters,
    traces: TraceCounters,
}

impl Metrics {
    /// Makes the metrics and registers them, under the registry's prefix.
    pub fn register(registry: &mut Registry) -> Arc<Self> {
        let objects = Arc::new(Objects::new());
        registry.register_collector(Box::new(objects.clone()));
        kit_process::usage::register(registry);

        let local_replies = Family::default();
        registry.register("http_local_replies", "Answers of the proxy itself, by reason", local_replies.clone());
        let policy_decisions = Family::default();
        let help = "Requests that a policy refused, or would have refused (mode Report), by policy and reason";
        registry.register("policy_decisions", help, policy_decisions.clone());
        let requests_active = Gauge::default();
        registry.register("http_requests_active", "Requests in work", requests_active.clone());

        let request_buffer_bytes = Gauge::default();
        let help = "Memory of request bodies that are held whole, in bytes";
        registry.register("http_request_buffer_bytes", help, request_buffer_bytes.clone());

        let attempts = Family::<Label, Counter>::default();
        let help = "Attempts that had a connection, by where it came from";
        registry.register("upstream_attempts", help, attempts.clone());
        let failures = Family::<Label, Counter>::default();
        registry.register("upstream_attempt_failures", "Attempts that brought no answer, by reason", failures.clone());

        let config = registry.sub_registry_with_prefix("config");
        let applies = Family::<Label, Counter>::default();
        config.register("applies", "Changes of the configuration, by outcome", applies.clone());
        let config_refused = Counter::default();
        config.register("objects_refused", "Objects refused, whose old form stays in force", config_refused.clone());
        let config_applied_at = Gauge::default();
        let help = "When the configuration was last changed, in seconds since 1970";
        config.register("applied_timestamp_seconds", help, config_applied_at.clone());

        let access_log = AccessLogCounters::default();
        access_log.register(registry.sub_registry_with_prefix("access_log"));
        let traces = TraceCounters::default();
        traces.register(registry.sub_registry_with_prefix("trace"));

        Arc::new(Self {
            objects,
            local_replies,
            policy_decisions,
            requests_active,
            request_buffer_bytes,
            attempts_reused: attempts.get_or_create_owned(&[("connection", "reused")]),
            attempts_connected: attempts.get_or_create_owned(&[("connection", "new")]),
            attempt_failures: ExchangeFailure::ALL
                .map(|reason| failures.get_or_create_owned(&[("reason", reason.as_str())])),
            config_accepted: applies.get_or_create_owned(&[("outcome", "accepted")]),
            config_partial: applies.get_or_create_owned(&[("outcome", "partial")]),
            config_refused,
            config_applied_at,
            access_log,
            traces,
        })
    }

    /// The handle on a route. Its series live as long as a handle does.
    pub fn route(&self, key: &RouteKey) -> Arc<RouteMetrics> {
        self.objects.route(key)
    }

    /// The handle for requests that no route matched: `route="unmatched"`.
    pub fn unmatched(&self) -> &Arc<RouteMetrics> {
        self.objects.unmatched()
    }

    /// The handle on a listener. Its series live as long as a handle does.
    pub fn listener(&self, key: &ListenerKey) -> Arc<ListenerMetrics> {
        self.objects.listener(key)
    }

    /// The handle on a backend. Its series live as long as a handle does.
    pub fn backend(&self, key: &BackendKey) -> Arc<BackendMetrics> {
        self.objects.backend(key)
    }

    /// The handle on a port. Its series live as long as a handle, or one of its connections, does.
    pub fn port(&self, port: u16) -> Arc<PortMetrics> {
        self.objects.port(port)
    }

    /// Counts a request as active until the guard goes.
    pub fn request_started(&self) -> ActiveRequest {
        self.requests_active.inc();
        ActiveRequest(self.requests_active.clone())
    }

    /// The memory of request bodies that are held whole.
    pub fn request_buffer_bytes(&self) -> Gauge<u64, AtomicU64> {
        self.request_buffer_bytes.clone()
    }

    /// Counts an answer of the proxy itself. `reason` comes from the closed table of local replies.
    pub fn local_reply(&self, reason: &'static str) {
        self.local_replies.get_or_create(&[("reason", reason)]).inc();
    }

    /// Counts what a policy decided.
    pub fn policy_decision(&self, decision: &Decision) {
        self.policy_decisions.get_or_create(&PolicyLabels::of(decision)).inc();
    }

    /// Ends the series of a policy that is gone.
    pub fn policy_removed(&self, policy: &PolicyKey) {
        for (reason, reported) in Reason::ALL.iter().flat_map(|reason| [(*reason, false), (*reason, true)]) {
            self.policy_decisions.remove(&PolicyLabels::of(&Decision { policy: policy.clone(), reason, reported }));
        }
    }

    /// Counts an attempt that has a connection.
    pub fn attempt(&self, pool: PoolOutcome) {
        match pool {
            PoolOutcome::Reused => self.attempts_reused.inc(),
            PoolOutcome::Connected => self.attempts_connected.inc(),
        };
    }

    /// Counts an attempt on `backend` that brought no answer.
    pub fn attempt_failed(&self, backend: &BackendMetrics, failure: ExchangeFailure) {
        if let Some(failures) = self.attempt_failures.get(failure as usize) {
            failures.inc();
        }
        if failure.is_connect() {
            backend.connect_failed();
        }
    }

    /// Counts a change of the configuration that is in force since `now`.
    pub fn config_applied(&self, outcome: ConfigOutcome, now: SystemTime) {
        match outcome {
            ConfigOutcome::Accepted => self.config_accepted.inc(),
            ConfigOutcome::Partial { refused } => {
                self.config_refused.inc_by(refused);
                self.config_partial.inc()
            }
        };
        self.config_applied_at.set(now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()));
    }

    /// The counters to start the access log with.
    pub fn access_log(&self) -> AccessLogCounters {
        self.access_log.clone()
    }

    /// The counters to start tracing with.
    pub fn traces(&self) -> TraceCounters {
        self.traces.clone()
    }
}

/// A request, counted as active while this lives.
#[derive(Debug)]
pub struct ActiveRequest(Gauge);

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests;
