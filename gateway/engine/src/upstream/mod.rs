//! The way to a backend: its slot, its endpoints, the connections to them and how a request is sent on one.
//!
//! Invariants: a backend has one slot per process, shared by every route that names it. Idle connections, latency
//! estimates and in-flight counts are kept for each worker apart, so that their locks are never contended.

mod connect;
mod endpoint;
mod pool;
mod slot;

pub(crate) use endpoint::Endpoint;
pub(crate) use pool::{Lease, SendError, SendFailure, send};
pub(crate) use slot::BackendSlot;

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
