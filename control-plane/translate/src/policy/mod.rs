//! Policies: what they are attached to, and what they say.
//!
//! Invariant: a policy is translated by itself; how it stands among others is [`Policies`]'s, and the same for every kind.
//! Decisions: `docs/adr/0006-policy-attachment.md`.

mod backend;
mod client;
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
use crds::{BackendPolicy, ClientPolicy, RateLimitPolicy, RequestValidationPolicy, policy::TargetReference};
use k8s_openapi::{api::core::v1::ConfigMap, apimachinery::pkg::apis::meta::v1::ObjectMeta};

use self::documents::Documents;
pub(crate) use policies::{Policies, PolicyEntry};
pub(crate) use target::Target;

/// Declares a policy as its owner wrote it: one of these kinds.
macro_rules! policy_objects {
    ($($kind:ident: $type:ident,)*) => {
        /// A policy as its owner wrote it.
        #[derive(Clone)]
        pub(crate) enum PolicyObject {
            $($kind(Arc<$type>),)*
        }

        impl PolicyObject {
            pub(crate) fn kind(&self) -> PolicyKind {
                match self {
                    $(Self::$kind(_) => PolicyKind::$kind,)*
                }
            }

            pub(crate) fn metadata(&self) -> &ObjectMeta {
                match self {
                    $(Self::$kind(object) => &object.metadata,)*
                }
            }

            pub(crate) fn target_refs(&self) -> &[TargetReference] {
                match self {
                    $(Self::$kind(object) => &object.spec.target_refs,)*
                }
            }

            fn has_same_spec(&self, other: &Self) -> bool {
                match (self, other) {
                    $((Self::$kind(one), Self::$kind(other)) => one.spec == other.spec,)*
                    _ => false,
                }
            }
        }
    };
}

policy_objects! {
    RateLimit: RateLimitPolicy,
    RequestValidation: RequestValidationPolicy,
    Backend: BackendPolicy,
    Client: ClientPolicy,
}

impl PolicyObject {
    /// The ConfigMaps of its `namespace` that it reads, there or not.
    fn config_maps(&self, namespace: &Arc<str>) -> BTreeSet<ObjectName> {
        match self {
            Self::RateLimit(_) | Self::Backend(_) | Self::Client(_) => BTreeSet::new(),
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
            Self::Client(object) => client::translate(&object.spec).map(PolicySpec::Client),
            Self::Backend(object) => {
                backend::translate(&object.spec).map(|settings| PolicySpec::Backend(Box::new(settings)))
            }
            Self::RequestValidation(object) => {
                let documents = Documents { config_maps, namespace };
                request_validation::translate(&object.spec, &documents).map(PolicySpec::RequestValidation)
            }
        }
    }
}
