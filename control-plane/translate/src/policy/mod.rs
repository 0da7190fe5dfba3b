//! Policies: what they are attached to, and what they say.
//!
//! Invariant: a policy is translated by itself; how it stands among others is [`Policies`]'s, and the same for every kind.
//! Decisions: `docs/adr/0006-policy-attachment.md`.

mod client;
mod policies;
mod rate_limit;
mod target;

use std::sync::Arc;

use control_plane_model::{PolicyKind, PolicySpec};
use crds::{ClientPolicy, RateLimitPolicy, policy::TargetReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

pub(crate) use policies::{Policies, PolicyEntry};
pub(crate) use target::Target;

/// A policy as its owner wrote it.
#[derive(Clone)]
pub(crate) enum PolicyObject {
    RateLimit(Arc<RateLimitPolicy>),
    Client(Arc<ClientPolicy>),
}

impl PolicyObject {
    pub(crate) fn kind(&self) -> PolicyKind {
        match self {
            Self::RateLimit(_) => PolicyKind::RateLimit,
            Self::Client(_) => PolicyKind::Client,
        }
    }

    pub(crate) fn metadata(&self) -> &ObjectMeta {
        match self {
            Self::RateLimit(object) => &object.metadata,
            Self::Client(object) => &object.metadata,
        }
    }

    pub(crate) fn target_refs(&self) -> &[TargetReference] {
        match self {
            Self::RateLimit(object) => &object.spec.target_refs,
            Self::Client(object) => &object.spec.target_refs,
        }
    }

    fn has_same_spec(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::RateLimit(one), Self::RateLimit(other)) => one.spec == other.spec,
            (Self::Client(one), Self::Client(other)) => one.spec == other.spec,
            _ => false,
        }
    }

    /// What it says.
    ///
    /// # Errors: the text for its owner, the field's path first.
    fn translate(&self) -> Result<PolicySpec, String> {
        match self {
            Self::RateLimit(object) => rate_limit::translate(&object.spec).map(PolicySpec::RateLimit),
            Self::Client(object) => client::translate(&object.spec).map(PolicySpec::Client),
        }
    }
}
