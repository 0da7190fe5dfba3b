//! To be written.

pub mod telemetry;
