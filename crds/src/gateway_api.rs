//! Kubernetes Gateway API v1.6.3, experimental channel, as Rust types. Generated (`crds/generate.sh`); only this file is ours.
//! Invariant: a type has the name that the specification gives it, and one place: its kind's module, or `common`.
//! Versions are the storage versions: `v1`, and `v1beta1` for ReferenceGrant. Reading is lenient: an unknown field is
//! skipped (who wants to know wraps the deserializer), an unknown enum value is an error.

#![allow(
    missing_docs,
    clippy::all,
    clippy::pedantic,
    rustdoc::all,
    reason = "generated from upstream's schemas, whose names and texts are not ours to change"
)]

pub mod backend_tls_policy;
pub mod common;
pub mod gateway;
pub mod gateway_class;
pub mod grpc_route;
pub mod http_route;
pub mod listener_set;
pub mod reference_grant;
pub mod tcp_route;
pub mod tls_route;
pub mod udp_route;

pub use backend_tls_policy::*;
pub use common::*;
pub use gateway::*;
pub use gateway_class::*;
pub use grpc_route::*;
pub use http_route::*;
pub use listener_set::*;
pub use reference_grant::*;
pub use tcp_route::*;
pub use tls_route::*;
pub use udp_route::*;
