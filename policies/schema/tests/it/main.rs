//! Tests through the public interface: one binary.

mod openapi;
mod schema;
mod suite;
