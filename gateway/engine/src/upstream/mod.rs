//! The way to a backend: its slot, its endpoints, the connections to them and how a request is sent on one.
//!
//! Invariants: a backend has one slot per process, shared by every route that names it. Idle connections, latency
//! estimates and in-flight counts are kept for each worker apart, so that their locks are never contended.

mod connect;
mod endpoint;
mod pick;
mod pool;
mod probe;
mod resilience;
mod slot;
mod watch;

pub(crate) use endpoint::Endpoint;
pub(crate) use pick::{NoEndpoint, PickKey};
pub(crate) use pool::{Lease, SendError, SendFailure, copy_of, send};
pub use resilience::BreakerCommand;
pub(crate) use resilience::{Call, Resilience, Retry, RetryPlan, check_settings, grpc_status};
pub(crate) use slot::{BackendSlot, PolicyState};
pub(crate) use watch::BackendWatch;

/// Index of a worker, below the engine's number of workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WorkerId(pub(crate) usize);

/// What is spoken on a connection to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
}
