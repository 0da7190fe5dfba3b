//! Translates custom resources into validated configuration and statuses.
//!
//! Owns every decision of the Gateway API that does not need a request: which listeners, routes and backends there are, what
//! is wrong with the rest, and what the user is told about it. Invariants: pure (no IO, no clock, no randomness); what
//! [`Translator::apply`] says after any sequence of changes equals what it says when it is given the last state at once; a bad
//! object fails alone. Sources: Gateway API v1.6.3 (Go types) with v1.7.0's rules where they do not conflict.

mod certificate;
mod deployment;
mod endpoints;
mod gateway;
mod index;
mod inputs;
mod object;
mod policy;
mod route;
mod scope;
mod selector;
mod status;
mod translator;

pub use deployment::{Deployment, DeploymentSpec};
pub use object::{Change, Kind, Object, Provisioned, object_name};
pub use policy::CREDENTIALS_TYPE;
pub use scope::{backends, is_attached, scope};
pub use status::{PROXY_PROGRAMMED, Problem, SUPPORTED_FEATURES, StatusUpdate, merge_status};
pub use translator::{Mode, Options, Output, Translator, Work};
