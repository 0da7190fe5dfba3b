//! Tests against a running engine, over loopback.

mod harness;
mod panic;
mod proxying;
mod strictness;
mod tls;
