//! Policies: what they are attached to, and what they say.
//!
//! Invariant: a policy is translated by itself; how it stands among others is [`Policies`]'s, and the same for every kind.
//! Decisions: `docs/adr/0006-policy-attachment.md`.

mod documents;
mod policies;
mod rate_limit;
mod request_validation;
mod target;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use control_plane_model::{ObjectName, PolicyKind, PolicySpec};
use crds::{RateLimitPolicy, RequestValidationPolicy, policy::TargetReference};
use k8s_openapi::{api::core::v1::ConfigMap, apimachinery::pkg::apis::meta::v1::ObjectMeta};

use self::documents::Documents;
pub(crate) use policies::{Policies, PolicyEntry};
pub(crate) use target::Target;

/// A policy as its owner wrote it.
#[derive(Clone)]
pub(crate) enum PolicyObject {
    RateLimit(Arc<RateLimitPolicy>),
    RequestValidation(Arc<RequestValidationPolicy>),
}

impl PolicyObject {
    pub(crate) fn kind(&self) -> PolicyKind {
        match self {
            Self::RateLimit(_) => PolicyKind::RateLimit,
            Self::RequestValidation(_) => PolicyKind::RequestValidation,
        }
    }

    pub(crate) fn metadata(&self) -> &ObjectMeta {
        match self {
            Self::RateLimit(object) => &object.metadata,
            Self::RequestValidation(object) => &object.metadata,
        }
    }

    pub(crate) fn target_refs(&self) -> &[TargetReference] {
        match self {
            Self::RateLimit(object) => &object.spec.target_refs,
            Self::RequestValidation(object) => &object.spec.target_refs,
        }
    }

    fn has_same_spec(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::RateLimit(one), Self::RateLimit(other)) => one.spec == other.spec,
            (Self::RequestValidation(one), Self::RequestValidation(other)) => one.spec == other.spec,
            (Self::RateLimit(_) | Self::RequestValidation(_), _) => false,
        }
    }

    /// The ConfigMaps of its `namespace` that it reads, there or not.
    fn config_maps(&self, namespace: &Arc<str>) -> BTreeSet<ObjectName> {
        match self {
            Self::RateLimit(_) => BTreeSet::new(),
            Self::RequestValidation(object) => request_validation::references(&object.spec)
                .into_iter()
                .map(|reference| ObjectName::new(namespace.clone(), reference.name.as_str()))
                .collect(),
        }
    }

    /// What it says, with what it reads in the ConfigMaps of its `namespace`.
    ///
    /// # Errors: the text for its owner, the field's path first.
    fn translate(
        &self,
        namespace: &Arc<str>,
        config_maps: &BTreeMap<ObjectName, Arc<ConfigMap>>,
    ) -> Result<PolicySpec, String> {
        match self {
            Self::RateLimit(object) => rate_limit::translate(&object.spec).map(PolicySpec::RateLimit),
            Self::RequestValidation(object) => {
                let documents = Documents { config_maps, namespace };
                request_validation::translate(&object.spec, &documents).map(PolicySpec::RequestValidation)
            }
        }
    }
}
