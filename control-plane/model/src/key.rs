//! Names of configuration objects. Each has one text form, `kind/namespace/name…`, which the wire and the logs use.

use std::{fmt, num::NonZeroU16, str::FromStr, sync::Arc};

use crate::{PolicyKey, PolicyKind};

/// A Kubernetes object's namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName {
    /// Namespace; never empty.
    pub namespace: Arc<str>,
    /// Name; never empty, never holds a `/`.
    pub name: Arc<str>,
}

impl ObjectName {
    /// Names the object `name` in `namespace`.
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.namespace, self.name)
    }
}

/// A Gateway.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GatewayKey(pub ObjectName);

/// One listener of a Gateway, declared by the Gateway itself or by a ListenerSet attached to it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListenerKey {
    /// The Gateway whose proxies serve the listener.
    pub gateway: GatewayKey,
    /// The ListenerSet that declares it; `None` for the Gateway's own.
    pub listener_set: Option<ObjectName>,
    /// `sectionName` of the listener.
    pub name: Arc<str>,
}

/// The kind of a route object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RouteKind {
    /// HTTPRoute.
    Http,
    /// GRPCRoute.
    Grpc,
}

impl RouteKind {
    /// The word for it in keys, metrics and logs: `http` or `grpc`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Grpc => "grpc",
        }
    }
}

/// A route object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteKey {
    /// HTTPRoute or GRPCRoute.
    pub kind: RouteKind,
    /// The object.
    pub name: ObjectName,
}

/// A port of a Service: the unit that endpoints, pools and limits belong to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackendKey {
    /// The Service.
    pub service: ObjectName,
    /// The Service's port (not the target port).
    pub port: NonZeroU16,
}

/// A TLS certificate with its private key, from a Secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CertificateKey(pub ObjectName);

/// The key of any configuration object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceKey {
    /// See [`crate::Gateway`].
    Gateway(GatewayKey),
    /// See [`crate::Certificate`].
    Certificate(CertificateKey),
    /// See [`crate::Policy`].
    Policy(PolicyKey),
    /// See [`crate::Listener`].
    Listener(ListenerKey),
    /// See [`crate::Backend`].
    Backend(BackendKey),
    /// See [`crate::Endpoints`].
    Endpoints(BackendKey),
    /// See [`crate::Route`].
    Route(RouteKey),
}

impl fmt::Display for GatewayKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl fmt::Display for CertificateKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl fmt::Display for ListenerKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.listener_set {
            None => write!(formatter, "{}/{}", self.gateway, self.name),
            Some(set) => write!(formatter, "{}/{set}/{}", self.gateway, self.name),
        }
    }
}

impl fmt::Display for RouteKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.kind.as_str(), self.name)
    }
}

impl fmt::Display for BackendKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.service, self.port)
    }
}

impl fmt::Display for ResourceKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gateway(key) => write!(formatter, "gateway/{key}"),
            Self::Certificate(key) => write!(formatter, "certificate/{key}"),
            Self::Policy(key) => write!(formatter, "policy/{key}"),
            Self::Listener(key) => write!(formatter, "listener/{key}"),
            Self::Backend(key) => write!(formatter, "backend/{key}"),
            Self::Endpoints(key) => write!(formatter, "endpoints/{key}"),
            Self::Route(key) => write!(formatter, "route/{key}"),
        }
    }
}

impl ResourceKey {
    /// The kind, as it begins the text form.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Gateway(_) => "gateway",
            Self::Certificate(_) => "certificate",
            Self::Policy(_) => "policy",
            Self::Listener(_) => "listener",
            Self::Backend(_) => "backend",
            Self::Endpoints(_) => "endpoints",
            Self::Route(_) => "route",
        }
    }
}

/// A text that is not the key of a configuration object.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not a resource key: {0:?}")]
pub struct InvalidKey(pub String);

impl FromStr for ResourceKey {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        let parts: Vec<&str> = text.split('/').collect();
        if parts.iter().any(|part| part.is_empty()) {
            return Err(InvalidKey(text.to_owned()));
        }
        let object = |namespace: &str, name: &str| ObjectName::new(namespace, name);
        match parts.as_slice() {
            ["gateway", namespace, name] => Ok(Self::Gateway(GatewayKey(object(namespace, name)))),
            ["certificate", namespace, name] => Ok(Self::Certificate(CertificateKey(object(namespace, name)))),
            ["policy", kind, namespace, name] => {
                let kind = PolicyKind::from_word(kind).ok_or_else(|| InvalidKey(text.to_owned()))?;
                Ok(Self::Policy(PolicyKey { kind, name: object(namespace, name) }))
            }
            ["listener", namespace, gateway, name] => Ok(Self::Listener(ListenerKey {
                gateway: GatewayKey(object(namespace, gateway)),
                listener_set: None,
                name: (*name).into(),
            })),
            ["listener", namespace, gateway, set_namespace, set, name] => Ok(Self::Listener(ListenerKey {
                gateway: GatewayKey(object(namespace, gateway)),
                listener_set: Some(object(set_namespace, set)),
                name: (*name).into(),
            })),
            [kind @ ("backend" | "endpoints"), namespace, name, port] => {
                let port = port.parse().map_err(|_| InvalidKey(text.to_owned()))?;
                let key = BackendKey { service: object(namespace, name), port };
                Ok(if *kind == "backend" { Self::Backend(key) } else { Self::Endpoints(key) })
            }
            ["route", "http", namespace, name] => {
                Ok(Self::Route(RouteKey { kind: RouteKind::Http, name: object(namespace, name) }))
            }
            ["route", "grpc", namespace, name] => {
                Ok(Self::Route(RouteKey { kind: RouteKind::Grpc, name: object(namespace, name) }))
            }
            _ => Err(InvalidKey(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_key_survives_its_text_form() {
        for text in [
            "gateway/infra/edge",
            "certificate/infra/edge-tls",
            "policy/rate-limit/infra/edge",
            "policy/client/infra/edge",
            "listener/infra/edge/http",
            "listener/infra/edge/team/extra/http",
            "backend/shop/cart/8080",
            "endpoints/shop/cart/8080",
            "route/http/shop/cart",
            "route/grpc/shop/cart",
        ] {
            let key = text.parse::<ResourceKey>().unwrap();
            assert_eq!(key.to_string(), text);
            assert!(text.starts_with(&format!("{}/", key.kind())));
        }
    }

    #[test]
    fn what_is_not_a_key_is_refused() {
        for text in [
            "",
            "gateway",
            "gateway//x",
            "backend/a/b/0",
            "backend/a/b/70000",
            "route/tcp/a/b",
            "policy/x/a/b",
            "x/a/b",
        ] {
            assert_eq!(text.parse::<ResourceKey>(), Err(InvalidKey(text.to_owned())));
        }
    }
}
