//! Rust types of every custom resource that Nebula reads or writes: the Gateway API's (generated) and our own, one kind a file.
//! Invariant: types and schemas only. No client, no IO, no decision: `kube-core` and `kube-derive` are all that is used of kube.

pub mod authentication_policy;
pub mod backend_policy;
pub mod client_policy;
pub mod gateway_api;
pub mod gateway_config;
pub mod identity_provider;
pub mod policy;
pub mod rate_limit_policy;
pub mod request_validation_policy;

pub use authentication_policy::AuthenticationPolicy;
pub use backend_policy::BackendPolicy;
pub use client_policy::ClientPolicy;
pub use gateway_config::GatewayConfig;
pub use identity_provider::IdentityProvider;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube_core::CustomResourceExt as _;
pub use rate_limit_policy::RateLimitPolicy;
pub use request_validation_policy::RequestValidationPolicy;

/// The API group of our own kinds.
pub const GROUP: &str = "nebula.dev";

/// The definitions of our own kinds, as `crds/generated` and the chart `nebula-crds` hold them; one line a kind.
pub fn definitions() -> Vec<CustomResourceDefinition> {
    vec![
        AuthenticationPolicy::crd(),
        BackendPolicy::crd(),
        ClientPolicy::crd(),
        GatewayConfig::crd(),
        IdentityProvider::crd(),
        RateLimitPolicy::crd(),
        RequestValidationPolicy::crd(),
    ]
}
