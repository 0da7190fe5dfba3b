//! The messages and the service, as generated from `proto/` (see `tests/it/generated.rs`). Public for peers in tests.

#[allow(
    missing_docs,
    rust_2018_idioms,
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]
mod generated {
    include!("generated/nebula.discovery.v1.rs");
}

use std::fmt;

pub use generated::*;

// Bodies and certificates hold private keys: what they print is their size.
impl fmt::Debug for Resource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Resource")
            .field("key", &self.key)
            .field("body", &self.body.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Certificate").field("chain", &self.chain.len()).finish_non_exhaustive()
    }
}

// A hash can be tried against words.
impl fmt::Debug for BasicUser {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("BasicUser").field("name", &self.name).finish_non_exhaustive()
    }
}
