//! Policies: what they are attached to, and what they say.
//!
//! Invariant: a policy is translated by itself, with what it names ([`Referents`]); how it stands among others is [`Policies`]'s, and the same for every kind.
//! Decisions: `docs/adr/0006-policy-attachment.md`.

mod authentication;
mod backend;
mod client;
mod documents;
mod identity_provider;
mod policies;
mod rate_limit;
mod referents;
mod request_validation;
mod target;

use std::sync::Arc;

use control_plane_model::{ObjectName, PolicyKey, PolicyKind, PolicySpec};
use crds::{
    AuthenticationPolicy, BackendPolicy, ClientPolicy, RateLimitPolicy, RequestValidationPolicy,
    policy::TargetReference,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use self::documents::Documents;
pub(crate) use policies::{Policies, PolicyEntry};
pub use referents::CREDENTIALS_TYPE;
pub(crate) use referents::Referents;
pub(crate) use target::Target;

use crate::Kind;

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
    Authentication: AuthenticationPolicy,
    RequestValidation: RequestValidationPolicy,
    Backend: BackendPolicy,
    Client: ClientPolicy,
}

impl PolicyObject {
    /// What the policy `key` says. What it names besides its targets is asked of `referents`.
    ///
    /// # Errors: the text for its owner, the field's path first.
    fn translate(&self, key: &PolicyKey, referents: &mut Referents<'_>) -> Result<PolicySpec, String> {
        let namespace = &key.name.namespace;
        match self {
            Self::RateLimit(object) => rate_limit::translate(&object.spec).map(PolicySpec::RateLimit),
            Self::Client(object) => client::translate(&object.spec).map(PolicySpec::Client),
            Self::Authentication(object) => {
                authentication::translate(namespace, &object.spec, referents).map(PolicySpec::Authentication)
            }
            Self::RequestValidation(object) => {
                for reference in request_validation::references(&object.spec) {
                    let name = ObjectName::new(namespace.clone(), reference.name.as_str());
                    referents.asked.insert((Kind::ConfigMap, name));
                }
                let documents = Documents { config_maps: referents.config_maps, namespace };
                request_validation::translate(&object.spec, &documents).map(PolicySpec::RequestValidation)
            }
            Self::Backend(object) => {
                backend::translate(&object.spec).map(|settings| PolicySpec::Backend(Box::new(settings)))
            }
        }
    }
}
