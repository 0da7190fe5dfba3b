//! What the proxy says about its traffic: metrics, the access log and traces.
//!
//! Invariant: nothing here makes a request wait or fail. Queues are bounded and drop with a count; metric labels come
//! from closed enums and from the names of configured objects, never from a request.

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
