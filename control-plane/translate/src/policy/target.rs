//! What a policy is attached to (`targetRefs`).

use std::{fmt, sync::Arc};

use control_plane_model::{GatewayKey, ObjectName, PolicyKind, RouteKey, RouteKind};
use crds::policy::TargetReference;

use crate::inputs::GATEWAY_GROUP;

/// An object, or a part of one, there or not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Target {
    Gateway(GatewayKey),
    GatewayListener(GatewayKey, Arc<str>),
    ListenerSet(ObjectName),
    SetListener(ObjectName, Arc<str>),
    Route(RouteKey),
    Rule(RouteKey, Arc<str>),
    Service(ObjectName),
    /// By the name or the number of the port.
    ServicePort(ObjectName, Arc<str>),
}

impl Target {
    /// What `reference` of a policy of `kind` in `namespace` names.
    ///
    /// # Errors: why the kind cannot be attached to that.
    pub(super) fn new(kind: PolicyKind, namespace: &Arc<str>, reference: &TargetReference) -> Result<Self, String> {
        let name = ObjectName::new(namespace.clone(), reference.name.as_str());
        let section = reference.section_name.as_deref().filter(|section| !section.is_empty()).map(Arc::<str>::from);
        let route = |kind| RouteKey { kind, name: name.clone() };
        if kind == PolicyKind::Backend {
            return match (reference.group.as_str(), reference.kind.as_str()) {
                ("", "Service") => Ok(match section {
                    None => Self::Service(name),
                    Some(port) => Self::ServicePort(name, port),
                }),
                (group, other) => Err(format!(
                    "BackendPolicy cannot be attached to {other} of {group:?}, want Service, whose group is empty"
                )),
            };
        }
        let target = match (reference.group.as_str(), reference.kind.as_str()) {
            (GATEWAY_GROUP, "Gateway") => match section {
                None => Self::Gateway(GatewayKey(name)),
                Some(section) => Self::GatewayListener(GatewayKey(name), section),
            },
            (GATEWAY_GROUP, "ListenerSet") => match section {
                None => Self::ListenerSet(name),
                Some(section) => Self::SetListener(name, section),
            },
            (GATEWAY_GROUP, "HTTPRoute") if attaches_to_routes(kind) => Self::of_route(route(RouteKind::Http), section),
            (GATEWAY_GROUP, "GRPCRoute") if attaches_to_routes(kind) => Self::of_route(route(RouteKind::Grpc), section),
            (group, other) => {
                let wanted = if attaches_to_routes(kind) {
                    "Gateway, ListenerSet, HTTPRoute or GRPCRoute"
                } else {
                    "Gateway or ListenerSet"
                };
                let kind = kind.resource_kind();
                return Err(format!(
                    "{kind} cannot be attached to {other} of {group:?}, want {wanted} of {GATEWAY_GROUP}"
                ));
            }
        };
        Ok(target)
    }

    /// Whether it is a Gateway, a ListenerSet, or a listener of one.
    pub(crate) fn is_of_gateway(&self) -> bool {
        match self {
            Self::Gateway(_) | Self::GatewayListener(..) | Self::ListenerSet(_) | Self::SetListener(..) => true,
            Self::Route(_) | Self::Rule(..) | Self::Service(_) | Self::ServicePort(..) => false,
        }
    }

    /// A route, or one of its rules.
    fn of_route(route: RouteKey, rule: Option<Arc<str>>) -> Self {
        match rule {
            None => Self::Route(route),
            Some(rule) => Self::Rule(route, rule),
        }
    }
}

/// Whether a policy of the kind may be on a route or a rule, not on Gateways and listeners alone.
fn attaches_to_routes(kind: PolicyKind) -> bool {
    match kind {
        PolicyKind::RateLimit | PolicyKind::Authentication | PolicyKind::RequestValidation => true,
        PolicyKind::Client | PolicyKind::Backend => false,
    }
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = |route: &RouteKey| match route.kind {
            RouteKind::Http => "HTTPRoute",
            RouteKind::Grpc => "GRPCRoute",
        };
        match self {
            Self::Gateway(key) => write!(formatter, "Gateway {key}"),
            Self::GatewayListener(key, section) => write!(formatter, "listener {section} of Gateway {key}"),
            Self::ListenerSet(name) => write!(formatter, "ListenerSet {name}"),
            Self::SetListener(name, section) => write!(formatter, "listener {section} of ListenerSet {name}"),
            Self::Route(route) => write!(formatter, "{} {}", kind(route), route.name),
            Self::Rule(route, rule) => write!(formatter, "rule {rule} of {} {}", kind(route), route.name),
            Self::Service(name) => write!(formatter, "Service {name}"),
            Self::ServicePort(name, port) => write!(formatter, "port {port} of Service {name}"),
        }
    }
}
