//! Backend references: to which port of which Service, whether the route may, and what is spoken there.

use std::{collections::BTreeSet, num::NonZeroU16};

use control_plane_model::{BackendKey, BackendProtocol, BackendTarget, ObjectName, Unavailable};
use k8s_openapi::api::core::v1::{Service, ServicePort};

use super::Context;
use crate::{
    Mode,
    endpoints::annotation_problem,
    inputs::{Inputs, Referrer},
};

/// A backend reference of either route kind, without its weight and filters.
pub(super) struct Reference<'a> {
    pub(super) group: Option<&'a str>,
    pub(super) kind: Option<&'a str>,
    pub(super) namespace: Option<&'a str>,
    pub(super) name: &'a str,
    pub(super) port: Option<i32>,
}

/// A reference that does not resolve.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RefProblem {
    pub(crate) cause: Unavailable,
    pub(crate) message: String,
}

impl RefProblem {
    fn new(cause: Unavailable, message: String) -> Self {
        Self { cause, message }
    }

    /// The reason for `ResolvedRefs`.
    pub(crate) fn reason(&self) -> &'static str {
        match self.cause {
            Unavailable::BackendNotFound => "BackendNotFound",
            Unavailable::InvalidKind => "InvalidKind",
            Unavailable::RefNotPermitted => "RefNotPermitted",
            Unavailable::UnsupportedProtocol => "UnsupportedProtocol",
            Unavailable::UnsupportedValue | Unavailable::InvalidFilter => "UnsupportedValue",
        }
    }
}

/// Resolves `reference` of `route`, and notes in `services` on which Service the answer depends.
pub(super) fn resolve(
    reference: &Reference<'_>,
    route: &Referrer<'_>,
    context: &Context<'_>,
    services: &mut BTreeSet<ObjectName>,
) -> Result<BackendKey, RefProblem> {
    let inputs = context.inputs;
    let (group, kind) = (reference.group.unwrap_or_default(), reference.kind.unwrap_or("Service"));
    if !group.is_empty() || kind != "Service" {
        let message = format!("{kind} of group {group:?} is not supported as a backend, want Service");
        return Err(RefProblem::new(Unavailable::InvalidKind, message));
    }
    let name = ObjectName::new(reference.namespace.unwrap_or(route.namespace), reference.name);
    services.insert(name.clone());
    if !inputs.permits(route, "Service", &name) {
        let namespace = &name.namespace;
        let message = format!("no ReferenceGrant in namespace {namespace} lets this {} use Service {name}", route.kind);
        return Err(RefProblem::new(Unavailable::RefNotPermitted, message));
    }
    let not_found = |message: String| RefProblem::new(Unavailable::BackendNotFound, message);
    let port = reference.port.ok_or_else(|| not_found(format!("the reference to Service {name} has no port")))?;
    let port = u16::try_from(port).ok().and_then(NonZeroU16::new);
    let port = port.ok_or_else(|| not_found(format!("the port of Service {name} is not from 1 to 65535")))?;
    let service = inputs.services.get(&name).ok_or_else(|| not_found(format!("Service {name} does not exist")))?;
    let key = BackendKey { service: name, port };
    protocol(&key, service, inputs)?;
    if context.mode == Mode::Standalone
        && let Some(message) = annotation_problem(&key.service, inputs)
    {
        return Err(not_found(format!("Service {}: {message}", key.service)));
    }
    Ok(key)
}

/// What is spoken with a port of a Service.
///
/// # Errors: why requests cannot be sent there.
pub(crate) fn protocol(key: &BackendKey, service: &Service, inputs: &Inputs) -> Result<BackendProtocol, RefProblem> {
    let name = &key.service;
    if service.spec.as_ref().and_then(|spec| spec.type_.as_deref()) == Some("ExternalName") {
        let message = format!("Service {name} is of type ExternalName, which has no endpoints of its own");
        return Err(RefProblem::new(Unavailable::BackendNotFound, message));
    }
    let Some(port) = service_port(service, key.port) else {
        let message = format!("Service {name} has no TCP port {}", key.port);
        return Err(RefProblem::new(Unavailable::BackendNotFound, message));
    };
    if let Some(policy) = inputs.policy_of(name, port.name.as_deref().unwrap_or_default()) {
        let message = format!("BackendTLSPolicy {policy} asks for TLS to Service {name}, which is not supported yet");
        return Err(RefProblem::new(Unavailable::UnsupportedProtocol, message));
    }
    match port.app_protocol.as_deref().unwrap_or_default() {
        "" | "http" | "ws" | "kubernetes.io/ws" => Ok(BackendProtocol::Http1),
        "grpc" | "h2c" | "http2" | "kubernetes.io/h2c" => Ok(BackendProtocol::H2c),
        other => {
            let message = format!("Service {name} port {}: appProtocol {other:?} is not supported", key.port);
            Err(RefProblem::new(Unavailable::UnsupportedProtocol, message))
        }
    }
}

/// The TCP port `port` of `service`.
pub(crate) fn service_port(service: &Service, port: NonZeroU16) -> Option<&ServicePort> {
    let mut ports = service.spec.as_ref()?.ports.as_deref().unwrap_or_default().iter();
    ports.find(|entry| {
        entry.port == i32::from(port.get()) && entry.protocol.as_deref().is_none_or(|protocol| protocol == "TCP")
    })
}

/// A weight, 1 where there is none.
///
/// # Errors: the text for the user, outside 0 to 1,000,000.
pub(super) fn weight(weight: Option<i32>) -> Result<u32, String> {
    let weight = weight.unwrap_or(1);
    let valid = u32::try_from(weight).ok().filter(|weight| *weight <= 1_000_000);
    valid.ok_or_else(|| format!("weight {weight} is not from 0 to 1000000"))
}

/// Where a share goes, and what is said about it.
pub(super) fn target(resolved: Result<BackendKey, RefProblem>) -> (BackendTarget, Option<RefProblem>) {
    match resolved {
        Ok(key) => (BackendTarget::Backend(key), None),
        Err(problem) => (BackendTarget::Invalid(problem.cause), Some(problem)),
    }
}
