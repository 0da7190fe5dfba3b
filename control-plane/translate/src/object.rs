//! What the translator takes: custom resources and core objects, and the changes of them.

use std::{collections::BTreeMap, fmt, sync::Arc};

use control_plane_model::{GatewayKey, ObjectName, PolicyKind, ResourceKey};
use crds::{
    AuthenticationPolicy, BackendPolicy, ClientPolicy, GatewayConfig, IdentityProvider, RateLimitPolicy,
    RequestValidationPolicy,
    gateway_api::{BackendTLSPolicy, GRPCRoute, Gateway, GatewayClass, HTTPRoute, ListenerSet, ReferenceGrant},
};
use k8s_openapi::{
    api::{
        core::v1::{ConfigMap, Namespace, Secret, Service},
        discovery::v1::EndpointSlice,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

/// The kinds that the translator reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `gateway.networking.k8s.io/v1` GatewayClass; has no namespace.
    GatewayClass,
    /// `gateway.networking.k8s.io/v1` Gateway.
    Gateway,
    /// `gateway.networking.k8s.io/v1` ListenerSet.
    ListenerSet,
    /// `gateway.networking.k8s.io/v1` HTTPRoute.
    HttpRoute,
    /// `gateway.networking.k8s.io/v1` GRPCRoute.
    GrpcRoute,
    /// `gateway.networking.k8s.io/v1beta1` ReferenceGrant.
    ReferenceGrant,
    /// `gateway.networking.k8s.io/v1` BackendTLSPolicy.
    BackendTlsPolicy,
    /// `nebula.dev/v1alpha1` GatewayConfig.
    GatewayConfig,
    /// `nebula.dev/v1alpha1` RateLimitPolicy.
    RateLimitPolicy,
    /// `nebula.dev/v1alpha1` BackendPolicy.
    BackendPolicy,
    /// `nebula.dev/v1alpha1` RequestValidationPolicy.
    RequestValidationPolicy,
    /// `nebula.dev/v1alpha1` AuthenticationPolicy.
    AuthenticationPolicy,
    /// `nebula.dev/v1alpha1` IdentityProvider.
    IdentityProvider,
    /// `nebula.dev/v1alpha1` ClientPolicy.
    ClientPolicy,
    /// Service.
    Service,
    /// `discovery.k8s.io/v1` EndpointSlice.
    EndpointSlice,
    /// Secret.
    Secret,
    /// ConfigMap.
    ConfigMap,
    /// Namespace; has no namespace.
    Namespace,
}

impl Kind {
    /// The kind as Kubernetes spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::GatewayClass => "GatewayClass",
            Self::Gateway => "Gateway",
            Self::ListenerSet => "ListenerSet",
            Self::HttpRoute => "HTTPRoute",
            Self::GrpcRoute => "GRPCRoute",
            Self::ReferenceGrant => "ReferenceGrant",
            Self::BackendTlsPolicy => "BackendTLSPolicy",
            Self::GatewayConfig => "GatewayConfig",
            Self::RateLimitPolicy => "RateLimitPolicy",
            Self::BackendPolicy => "BackendPolicy",
            Self::RequestValidationPolicy => "RequestValidationPolicy",
            Self::AuthenticationPolicy => "AuthenticationPolicy",
            Self::IdentityProvider => "IdentityProvider",
            Self::ClientPolicy => "ClientPolicy",
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::Secret => "Secret",
            Self::ConfigMap => "ConfigMap",
            Self::Namespace => "Namespace",
        }
    }

    /// The kind of policy that it is, if it is one of Nebula's.
    pub fn policy(self) -> Option<PolicyKind> {
        match self {
            Self::RateLimitPolicy => Some(PolicyKind::RateLimit),
            Self::BackendPolicy => Some(PolicyKind::Backend),
            Self::RequestValidationPolicy => Some(PolicyKind::RequestValidation),
            Self::AuthenticationPolicy => Some(PolicyKind::Authentication),
            Self::ClientPolicy => Some(PolicyKind::Client),
            _ => None,
        }
    }

    /// The kind of a policy's resource.
    pub fn of_policy(kind: PolicyKind) -> Self {
        match kind {
            PolicyKind::RateLimit => Self::RateLimitPolicy,
            PolicyKind::Backend => Self::BackendPolicy,
            PolicyKind::RequestValidation => Self::RequestValidationPolicy,
            PolicyKind::Authentication => Self::AuthenticationPolicy,
            PolicyKind::Client => Self::ClientPolicy,
        }
    }

    /// Whether objects of the kind live in a namespace.
    pub fn is_namespaced(self) -> bool {
        !matches!(self, Self::GatewayClass | Self::Namespace)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// One object as it was read. Cheap to clone. Its `Debug` form is kind and name alone: Secrets are among them.
#[derive(Clone)]
pub enum Object {
    /// See [`Kind::GatewayClass`].
    GatewayClass(Arc<GatewayClass>),
    /// See [`Kind::Gateway`].
    Gateway(Arc<Gateway>),
    /// See [`Kind::ListenerSet`].
    ListenerSet(Arc<ListenerSet>),
    /// See [`Kind::HttpRoute`].
    HttpRoute(Arc<HTTPRoute>),
    /// See [`Kind::GrpcRoute`].
    GrpcRoute(Arc<GRPCRoute>),
    /// See [`Kind::ReferenceGrant`].
    ReferenceGrant(Arc<ReferenceGrant>),
    /// See [`Kind::BackendTlsPolicy`].
    BackendTlsPolicy(Arc<BackendTLSPolicy>),
    /// See [`Kind::GatewayConfig`].
    GatewayConfig(Arc<GatewayConfig>),
    /// See [`Kind::RateLimitPolicy`].
    RateLimitPolicy(Arc<RateLimitPolicy>),
    /// See [`Kind::BackendPolicy`].
    BackendPolicy(Arc<BackendPolicy>),
    /// See [`Kind::RequestValidationPolicy`].
    RequestValidationPolicy(Arc<RequestValidationPolicy>),
    /// See [`Kind::AuthenticationPolicy`].
    AuthenticationPolicy(Arc<AuthenticationPolicy>),
    /// See [`Kind::IdentityProvider`].
    IdentityProvider(Arc<IdentityProvider>),
    /// See [`Kind::ClientPolicy`].
    ClientPolicy(Arc<ClientPolicy>),
    /// See [`Kind::Service`].
    Service(Arc<Service>),
    /// See [`Kind::EndpointSlice`].
    EndpointSlice(Arc<EndpointSlice>),
    /// See [`Kind::Secret`].
    Secret(Arc<Secret>),
    /// See [`Kind::ConfigMap`].
    ConfigMap(Arc<ConfigMap>),
    /// See [`Kind::Namespace`].
    Namespace(Arc<Namespace>),
}

impl Object {
    /// The object's kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::GatewayClass(_) => Kind::GatewayClass,
            Self::Gateway(_) => Kind::Gateway,
            Self::ListenerSet(_) => Kind::ListenerSet,
            Self::HttpRoute(_) => Kind::HttpRoute,
            Self::GrpcRoute(_) => Kind::GrpcRoute,
            Self::ReferenceGrant(_) => Kind::ReferenceGrant,
            Self::BackendTlsPolicy(_) => Kind::BackendTlsPolicy,
            Self::GatewayConfig(_) => Kind::GatewayConfig,
            Self::RateLimitPolicy(_) => Kind::RateLimitPolicy,
            Self::BackendPolicy(_) => Kind::BackendPolicy,
            Self::RequestValidationPolicy(_) => Kind::RequestValidationPolicy,
            Self::AuthenticationPolicy(_) => Kind::AuthenticationPolicy,
            Self::IdentityProvider(_) => Kind::IdentityProvider,
            Self::ClientPolicy(_) => Kind::ClientPolicy,
            Self::Service(_) => Kind::Service,
            Self::EndpointSlice(_) => Kind::EndpointSlice,
            Self::Secret(_) => Kind::Secret,
            Self::ConfigMap(_) => Kind::ConfigMap,
            Self::Namespace(_) => Kind::Namespace,
        }
    }

    /// The object's metadata.
    pub fn metadata(&self) -> &ObjectMeta {
        match self {
            Self::GatewayClass(object) => &object.metadata,
            Self::Gateway(object) => &object.metadata,
            Self::ListenerSet(object) => &object.metadata,
            Self::HttpRoute(object) => &object.metadata,
            Self::GrpcRoute(object) => &object.metadata,
            Self::ReferenceGrant(object) => &object.metadata,
            Self::BackendTlsPolicy(object) => &object.metadata,
            Self::GatewayConfig(object) => &object.metadata,
            Self::RateLimitPolicy(object) => &object.metadata,
            Self::BackendPolicy(object) => &object.metadata,
            Self::RequestValidationPolicy(object) => &object.metadata,
            Self::AuthenticationPolicy(object) => &object.metadata,
            Self::IdentityProvider(object) => &object.metadata,
            Self::ClientPolicy(object) => &object.metadata,
            Self::Service(object) => &object.metadata,
            Self::EndpointSlice(object) => &object.metadata,
            Self::Secret(object) => &object.metadata,
            Self::ConfigMap(object) => &object.metadata,
            Self::Namespace(object) => &object.metadata,
        }
    }

    /// The object's name; see [`object_name`].
    pub fn name(&self) -> ObjectName {
        object_name(self.kind(), self.metadata())
    }
}

impl fmt::Debug for Object {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.kind(), self.name())
    }
}

/// The name that the translator knows an object by: namespace `default` where the object names none, and an empty
/// namespace for kinds that have none.
pub fn object_name(kind: Kind, metadata: &ObjectMeta) -> ObjectName {
    let namespace = if kind.is_namespaced() { metadata.namespace.as_deref().unwrap_or("default") } else { "" };
    ObjectName::new(namespace, metadata.name.as_deref().unwrap_or_default())
}

/// One change of the inputs.
#[derive(Clone, Debug)]
pub enum Change {
    /// An object is new, or is different.
    Upsert(Object),
    /// An object is gone. The namespace is empty for kinds that have none.
    Remove(Kind, ObjectName),
    /// The `gateway.networking.k8s.io/bundle-version` of the Gateway API's CRDs in the cluster, for `SupportedVersion` of
    /// GatewayClasses. Never said: the condition is not set.
    BundleVersion(String),
    /// What the provisioner made of a Gateway.
    Provisioned {
        /// The Gateway.
        gateway: GatewayKey,
        /// What there is now; takes the place of what was said before.
        state: Provisioned,
    },
    /// What the proxies of a Gateway refused.
    Report {
        /// The Gateway.
        gateway: GatewayKey,
        /// Everything that a proxy refuses now, with the proxy's text; takes the place of what was said before.
        refused: BTreeMap<ResourceKey, String>,
    },
}

/// What runs for a Gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Provisioned {
    /// Where its proxies are reached: IP addresses or host names.
    pub addresses: Vec<String>,
    /// Whether at least one proxy is ready.
    pub ready: bool,
    /// Why they could not be brought to what the Gateway asks for, at the last attempt.
    pub failure: Option<String>,
}

impl Provisioned {
    /// Whether there is something to keep: a proxy that is ready, or an address by which one was reached.
    pub(crate) fn runs(&self) -> bool {
        self.ready || !self.addresses.is_empty()
    }
}
