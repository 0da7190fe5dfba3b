//! What the proxy says about its traffic: metrics, the access log and traces.
//!
//! Invariant: nothing here makes a request wait or fail. Queues are bounded and drop with a count; metric labels come
//! from closed enums and from the names of configured objects, never from a request.

use std::{sync::Arc, time::SystemTime};

use kit_process::clock::Clock;
use tokio::time::Instant;

mod access_log;
mod exposition;
mod histogram;
mod metrics;
mod objects;
mod record;
mod trace;
mod traceparent;

pub use access_log::{AccessLog, AccessLogCounters, DEFAULT_CAPACITY, StartError};
pub use histogram::AtomicHistogram;
pub use metrics::{ActiveRequest, ConfigOutcome, ExchangeFailure, Metrics, PoolOutcome};
pub use objects::{
    BackendMetrics, DownstreamProtocol, ListenerMetrics, Observation, OpenConnection, PortMetrics, RouteMetrics,
    TlsFailure,
};
pub use record::{Record, Text};
pub use trace::{ActiveSpan, TraceCounters, TraceDecision, Tracing};

/// What a worker tells the world with. Clones share everything.
#[derive(Clone, Debug)]
pub struct Telemetry {
    /// Counters and histograms.
    pub metrics: Arc<Metrics>,
    /// One line a request.
    pub access_log: AccessLog,
    /// Spans of sampled requests.
    pub tracing: Arc<Tracing>,
    /// One moment on both clocks, so that a request reads one clock alone.
    origin: (SystemTime, Instant),
}

impl Telemetry {
    /// Puts the parts together. `clock` is read once.
    pub fn new(metrics: Arc<Metrics>, access_log: AccessLog, tracing: Arc<Tracing>, clock: &impl Clock) -> Self {
        Self { metrics, access_log, tracing, origin: (clock.now(), Instant::now()) }
    }

    /// The wall-clock time of `instant`. A clock that is set while the process runs is not followed.
    pub fn wall_clock(&self, instant: Instant) -> SystemTime {
        let (time, origin) = self.origin;
        time.checked_add(instant.saturating_duration_since(origin)).unwrap_or(time)
    }
}
