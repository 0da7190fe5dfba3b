//! The kinds that are watched, and what is dropped of their objects before they are kept.

use std::{fmt::Debug, sync::Arc};

use control_plane_translate::{Kind, Object};
use crds::{
    AuthenticationPolicy, BackendPolicy, ClientPolicy, GatewayConfig, IdentityProvider, RateLimitPolicy,
    RequestValidationPolicy,
    gateway_api::{BackendTLSPolicy, GRPCRoute, Gateway, GatewayClass, HTTPRoute, ListenerSet, ReferenceGrant},
};
use k8s_openapi::api::{
    core::v1::{ConfigMap, Namespace, Secret, Service},
    discovery::v1::EndpointSlice,
};
use kube::Resource;
use serde::de::DeserializeOwned;

/// A kind that the translator reads.
pub trait Watched: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + Sync + 'static {
    /// Its name in the translator.
    const KIND: Kind;
    /// Whether nothing works without the kind, so that its absence keeps the control plane from being ready.
    const REQUIRED: bool;
    /// Whether `metadata.generation` tells changes of the content from changes of the status.
    const HAS_GENERATION: bool;
    /// Whether we write its status.
    const HAS_STATUS: bool;

    /// As the translator takes it.
    fn into_object(self: Arc<Self>) -> Object;

    /// Drops what nobody here reads: it is most of an object's memory.
    fn slim(&mut self) {
        let metadata = self.meta_mut();
        metadata.managed_fields = None;
        if let Some(annotations) = &mut metadata.annotations {
            annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
        }
    }
}

/// Custom resources whose status we write.
macro_rules! with_status {
    ($($type:ident => $kind:ident, required: $required:literal;)*) => {$(
        impl Watched for $type {
            const KIND: Kind = Kind::$kind;
            const REQUIRED: bool = $required;
            const HAS_GENERATION: bool = true;
            const HAS_STATUS: bool = true;

            fn into_object(self: Arc<Self>) -> Object {
                Object::$kind(self)
            }
        }
    )*};
}

with_status! {
    GatewayClass => GatewayClass, required: true;
    Gateway => Gateway, required: true;
    HTTPRoute => HttpRoute, required: true;
    GRPCRoute => GrpcRoute, required: false;
    ListenerSet => ListenerSet, required: false;
    BackendTLSPolicy => BackendTlsPolicy, required: false;
    GatewayConfig => GatewayConfig, required: false;
    RateLimitPolicy => RateLimitPolicy, required: false;
    BackendPolicy => BackendPolicy, required: false;
    RequestValidationPolicy => RequestValidationPolicy, required: false;
    AuthenticationPolicy => AuthenticationPolicy, required: false;
    ClientPolicy => ClientPolicy, required: false;
}

macro_rules! without_status {
    ($($type:ident => $kind:ident, required: $required:literal, generation: $generation:literal;)*) => {$(
        impl Watched for $type {
            const KIND: Kind = Kind::$kind;
            const REQUIRED: bool = $required;
            const HAS_GENERATION: bool = $generation;
            const HAS_STATUS: bool = false;

            fn into_object(self: Arc<Self>) -> Object {
                Object::$kind(self)
            }
        }
    )*};
}

without_status! {
    ReferenceGrant => ReferenceGrant, required: false, generation: true;
    IdentityProvider => IdentityProvider, required: false, generation: true;
    Service => Service, required: true, generation: false;
    EndpointSlice => EndpointSlice, required: true, generation: false;
    Secret => Secret, required: true, generation: false;
    Namespace => Namespace, required: true, generation: false;
    ConfigMap => ConfigMap, required: false, generation: false;
}
