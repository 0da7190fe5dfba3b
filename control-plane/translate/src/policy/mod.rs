//! Policies: what they are attached to, and what they say.
//!
//! Invariant: a policy is translated by itself, with what it names ([`Referents`]); how it stands among others is [`Policies`]'s, and the same for every kind.
//! Decisions: `docs/adr/0006-policy-attachment.md`.

mod authentication;
mod identity_provider;
mod policies;
mod rate_limit;
mod referents;
mod target;

use std::sync::Arc;

use control_plane_model::{PolicyKey, PolicyKind, PolicySpec};
use crds::{AuthenticationPolicy, RateLimitPolicy, policy::TargetReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

pub(crate) use policies::{Policies, PolicyEntry};
pub use referents::CREDENTIALS_TYPE;
pub(crate) use referents::Referents;
pub(crate) use target::Target;

/// A policy as its owner wrote it.
#[derive(Clone)]
pub(crate) enum PolicyObject {
    RateLimit(Arc<RateLimitPolicy>),
    Authentication(Arc<AuthenticationPolicy>),
}

impl PolicyObject {
    pub(crate) fn kind(&self) -> PolicyKind {
        match self {
            Self::RateLimit(_) => PolicyKind::RateLimit,
            Self::Authentication(_) => PolicyKind::Authentication,
        }
    }

    pub(crate) fn metadata(&self) -> &ObjectMeta {
        match self {
            Self::RateLimit(object) => &object.metadata,
            Self::Authentication(object) => &object.metadata,
        }
    }

    pub(crate) fn target_refs(&self) -> &[TargetReference] {
        match self {
            Self::RateLimit(object) => &object.spec.target_refs,
            Self::Authentication(object) => &object.spec.target_refs,
        }
    }

    fn has_same_spec(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::RateLimit(one), Self::RateLimit(other)) => one.spec == other.spec,
            (Self::Authentication(one), Self::Authentication(other)) => one.spec == other.spec,
            _ => false,
        }
    }

    /// What the policy `key` says. What it names besides its targets is asked of `referents`.
    ///
    /// # Errors: the text for its owner, the field's path first.
    fn translate(&self, key: &PolicyKey, referents: &mut Referents<'_>) -> Result<PolicySpec, String> {
        match self {
            Self::RateLimit(object) => rate_limit::translate(&object.spec).map(PolicySpec::RateLimit),
            Self::Authentication(object) => {
                let levels = authentication::translate(&key.name.namespace, &object.spec, referents)?;
                Ok(PolicySpec::Authentication(Box::new(levels)))
            }
        }
    }
}
