//! What every Nebula process has: a clock, owned tasks, drain, logs, and the telemetry port.
//!
//! Invariant: nothing here is a global but the tracing subscriber, which only a `main` installs.

pub mod clock;
pub mod drain;
pub mod error;
pub mod logging;
pub mod tasks;
pub mod telemetry;
pub mod usage;
