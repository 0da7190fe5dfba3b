//! Tests against a running engine, over loopback.

mod harness;
mod proxying;
mod panic;
mod tls;
