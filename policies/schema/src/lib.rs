//! Request validation as pure code: strict JSON, JSON Schema and OpenAPI documents.
//!
//! Invariant: no IO, nothing is fetched, no clock; what a request may cost is bounded by limits that are arguments. No
//! error and no violation contains a value of the request, only the names of its properties.
//! The caller buffers the body and decodes `Content-Encoding` under limits of its own.

mod json;
mod metered;
pub mod openapi;
mod pointer;
pub mod problem;
mod readonly;
mod references;
mod schema;
pub mod settings;
mod violation;

pub use json::{Limits as TextLimits, MAX_DEPTH, Numbers, ParseError, Reason, parse};
pub use pointer::MAX_POINTER_BYTES;
pub use references::ANONYMOUS as BASE_URI;
pub use schema::{Draft, Formats, Limits, Options, Patterns, Schema, SchemaError};
pub use violation::{LIMIT, Place, Violation, Violations};
