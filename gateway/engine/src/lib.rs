//! The proxy engine of gateway and sidecar: listeners, TLS, strictness, routes, filters, pools, drain.
//!
//! Generic over the set of filters, which the binary brings. Has no globals: registry, signals, allocator and crypto
//! provider are `main`'s. See `docs/architecture.md` for the way of a request.

mod attempts;
mod body;
mod client;
mod client_body;
mod compile;
mod connection;
mod engine;
mod exchange;
pub mod filter;
mod io;
pub mod limits;
pub mod local_reply;
mod lookup;
pub mod notes;
mod policies;
mod proxy;
pub mod router;
mod sockets;
mod spawn;
pub mod strict;
pub mod telemetry;
mod tls;
mod tunnel;
mod upstream;
mod watchdog;
mod worker;

pub use compile::Refused;
pub use engine::{Engine, EngineOptions, NoBreaker, StartError};
pub use upstream::BreakerCommand;
