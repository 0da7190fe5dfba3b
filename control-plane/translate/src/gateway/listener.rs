//! One listener: what it speaks, whom it lets attach, and whether its references hold.

use std::{net::IpAddr, num::NonZeroU16, sync::Arc};

use control_plane_model::{
    CertificateKey, GatewayKey, HostPattern, Listener, ListenerKey, ListenerProtocol, ObjectName, RouteKind,
    TlsTermination,
};
use crds::gateway_api::{
    FromNamespaces, GatewaySpec, Listener as ListenerSpec, ListenerTLSConfig, SecretObjectReference, TLSModeType,
};

use super::Topology;
use crate::{
    certificate::Certificates,
    inputs::{GATEWAY_GROUP, Inputs, Referrer},
    selector::{Namespaces, Selector},
    status::Condition,
};

/// A listener with everything that its status and its routes depend on.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ListenerState {
    pub(crate) key: ListenerKey,
    pub(crate) port: Option<NonZeroU16>,
    pub(crate) speaks: Speaks,
    pub(crate) hostname: HostPattern,
    /// Kinds of routes that may attach (`supportedKinds`).
    pub(crate) kinds: Vec<RouteKind>,
    pub(crate) namespaces: Namespaces,
    pub(crate) accepted: Condition,
    pub(crate) resolved: Condition,
    pub(crate) conflicted: Condition,
    /// `OverlappingTLSConfig`, which is there only when it is True.
    pub(crate) overlapping: Option<Condition>,
    /// What the proxy gets; `None` while the listener cannot be served.
    pub(crate) model: Option<Arc<Listener>>,
    certificates: Vec<CertificateKey>,
}

/// What a listener's `protocol` means on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speaks {
    Http,
    Https,
    /// TLS that is passed on or ends in TCP: not served yet.
    Tls,
    /// UDP: not served yet.
    Udp,
    /// Anything else.
    Other,
}

impl Speaks {
    fn new(protocol: &str) -> Self {
        match protocol {
            "HTTP" => Self::Http,
            "HTTPS" => Self::Https,
            "TLS" => Self::Tls,
            "UDP" => Self::Udp,
            _ => Self::Other,
        }
    }

    fn is_served(self) -> bool {
        matches!(self, Self::Http | Self::Https)
    }

    /// Whether listeners of both kinds can be told apart on one port: TLS by server name, UDP by transport.
    pub(super) fn can_share_port_with(self, other: Self) -> bool {
        let is_tls = |speaks| matches!(speaks, Self::Https | Self::Tls);
        self == other || (is_tls(self) && is_tls(other)) || (self == Self::Udp) != (other == Self::Udp)
    }
}

impl ListenerState {
    /// Makes what the proxy gets, once conflicts are known. `addresses` are bound; empty for every one.
    pub(super) fn finish(&mut self, addresses: &[IpAddr]) {
        self.model = self.model(addresses).map(Arc::new);
    }

    fn model(&self, addresses: &[IpAddr]) -> Option<Listener> {
        let protocol = match self.speaks {
            Speaks::Http => ListenerProtocol::Http,
            Speaks::Https if !self.certificates.is_empty() => {
                ListenerProtocol::Https(TlsTermination { certificates: self.certificates.clone() })
            }
            _ => return None,
        };
        let usable = self.accepted.status && !self.kinds.is_empty();
        usable.then_some(())?;
        Some(Listener {
            policies: Vec::new(),
            key: self.key.clone(),
            addresses: addresses.to_vec(),
            port: self.port?,
            protocol,
            hostname: self.hostname.clone(),
        })
    }

    /// Why it is not served.
    pub(super) fn complaint(&self) -> &str {
        if self.accepted.status { &self.resolved.message } else { &self.accepted.message }
    }

    /// Whether it offers this certificate.
    pub(crate) fn uses(&self, certificate: &CertificateKey) -> bool {
        self.certificates.contains(certificate)
    }
}

/// Builds listeners and notes which Secrets they use.
pub(super) struct Builder<'a> {
    pub(super) inputs: &'a Inputs,
    pub(super) certificates: &'a mut Certificates,
    pub(super) topology: &'a mut Topology,
}

impl Builder<'_> {
    /// The listener that `spec` declares, in the Gateway itself or in the ListenerSet `set`. Conflicts are still open.
    pub(super) fn build(
        &mut self,
        gateway: &GatewayKey,
        set: Option<&ObjectName>,
        spec: &ListenerSpec,
        gateway_spec: &GatewaySpec,
    ) -> ListenerState {
        let key = ListenerKey { gateway: gateway.clone(), listener_set: set.cloned(), name: spec.name.as_str().into() };
        let owner = Referrer {
            kind: if set.is_some() { "ListenerSet" } else { "Gateway" },
            namespace: set.map_or(&*gateway.0.namespace, |set| &*set.namespace),
        };
        let speaks = Speaks::new(&spec.protocol);
        let mut state = ListenerState {
            key,
            port: u16::try_from(spec.port).ok().and_then(NonZeroU16::new),
            speaks,
            hostname: HostPattern::Any,
            kinds: Vec::new(),
            namespaces: Namespaces::None,
            accepted: Condition::yes("Accepted", "Accepted"),
            resolved: Condition::yes("ResolvedRefs", "ResolvedRefs"),
            conflicted: Condition::no("Conflicted", "NoConflicts", ""),
            overlapping: None,
            model: None,
            certificates: Vec::new(),
        };
        if !speaks.is_served() {
            let message = format!("protocol {:?} is not supported, want HTTP or HTTPS", spec.protocol);
            state.accepted = Condition::no("Accepted", "UnsupportedProtocol", message);
            return state;
        }
        if let Err(message) = check(&mut state, spec, &owner, gateway_spec) {
            state.accepted = Condition::no("Accepted", "UnsupportedValue", message);
        }
        state.resolved = kinds(&mut state.kinds, spec);
        if speaks == Speaks::Https
            && let Err(problem) = self.tls(&mut state.certificates, spec.tls.as_ref(), &owner)
        {
            state.resolved = problem;
        }
        state
    }

    /// Collects the certificates that can be served. Where some cannot, the first reason is the answer.
    fn tls(
        &mut self,
        certificates: &mut Vec<CertificateKey>,
        tls: Option<&ListenerTLSConfig>,
        owner: &Referrer<'_>,
    ) -> Result<(), Condition> {
        let references = tls.and_then(|tls| tls.certificate_refs.as_deref()).unwrap_or_default();
        let mut problems: Vec<(&'static str, String)> = Vec::new();
        if references.is_empty() {
            problems.push(("InvalidCertificateRef", "tls.certificateRefs names no certificate".to_owned()));
        }
        for reference in references {
            match self.certificate(reference, owner) {
                Ok(key) if certificates.contains(&key) => {}
                Ok(key) => certificates.push(key),
                Err(problem) => problems.push(problem),
            }
        }
        let Some((reason, _)) = problems.first() else { return Ok(()) };
        let reason = *reason;
        let messages: Vec<String> = problems.into_iter().map(|(_, message)| message).collect();
        Err(Condition::no("ResolvedRefs", reason, messages.join("; ")))
    }

    fn certificate(
        &mut self,
        reference: &SecretObjectReference,
        owner: &Referrer<'_>,
    ) -> Result<CertificateKey, (&'static str, String)> {
        let group = reference.group.as_deref().unwrap_or_default();
        let kind = reference.kind.as_deref().unwrap_or("Secret");
        if !group.is_empty() || kind != "Secret" {
            return Err(("InvalidCertificateRef", format!("{kind} of group {group:?} is not supported, want Secret")));
        }
        let namespace = reference.namespace.as_deref().unwrap_or(owner.namespace);
        let name = ObjectName::new(namespace, reference.name.as_str());
        if !self.inputs.permits(owner, "Secret", &name) {
            let message =
                format!("no ReferenceGrant in namespace {namespace} lets this {} use Secret {name}", owner.kind);
            return Err(("RefNotPermitted", message));
        }
        self.topology.secrets.insert(name.clone());
        let missing = || ("InvalidCertificateRef", format!("Secret {name} does not exist"));
        let secret = self.inputs.secrets.get(&name).ok_or_else(missing)?;
        let certificate =
            self.certificates.parse(&name, secret).map_err(|message| ("InvalidCertificateRef", message))?;
        let key = certificate.key.clone();
        self.topology.certificates.insert(key.clone(), certificate);
        Ok(key)
    }
}

/// Values that the listener cannot be accepted with. What the API server checks by CEL is checked here for files.
fn check(
    state: &mut ListenerState,
    spec: &ListenerSpec,
    owner: &Referrer<'_>,
    gateway: &GatewaySpec,
) -> Result<(), String> {
    state.namespaces = namespaces(spec, owner)?;
    state.hostname =
        HostPattern::parse(spec.hostname.as_deref().unwrap_or_default()).map_err(|error| error.to_string())?;
    if state.port.is_none() {
        return Err(format!("port {} is not from 1 to 65535", spec.port));
    }
    if state.speaks == Speaks::Http {
        return if spec.tls.is_some() { Err("tls is set on a listener of protocol HTTP".to_owned()) } else { Ok(()) };
    }
    if spec.tls.as_ref().is_some_and(|tls| tls.mode == Some(TLSModeType::Passthrough)) {
        return Err("tls.mode Passthrough does not go with protocol HTTPS".to_owned());
    }
    let options = spec.tls.as_ref().and_then(|tls| tls.options.as_ref());
    if let Some(option) = options.and_then(|options| options.keys().find(|key| key.starts_with("nebula.dev/"))) {
        return Err(format!("tls.options: {option:?} is unknown"));
    }
    let frontend = gateway.tls.as_ref().and_then(|tls| tls.frontend.as_ref());
    let per_port =
        frontend.and_then(|frontend| frontend.per_port.iter().flatten().find(|entry| entry.port == spec.port));
    let tls = per_port.map(|entry| &entry.tls).or(frontend.map(|frontend| &frontend.default));
    if tls.is_some_and(|tls| tls.validation.is_some()) {
        return Err("spec.tls.frontend: validation of client certificates is not supported yet".to_owned());
    }
    Ok(())
}

fn namespaces(spec: &ListenerSpec, owner: &Referrer<'_>) -> Result<Namespaces, String> {
    let allowed = spec.allowed_routes.as_ref().and_then(|allowed| allowed.namespaces.as_ref());
    Ok(match allowed.and_then(|allowed| allowed.from).unwrap_or(FromNamespaces::Same) {
        FromNamespaces::All => Namespaces::All,
        FromNamespaces::Same => Namespaces::Only(owner.namespace.into()),
        FromNamespaces::Selector => {
            let selector = allowed.and_then(|allowed| allowed.selector.as_ref());
            Namespaces::Selected(Selector::new(selector.ok_or("allowedRoutes.namespaces has no selector")?)?)
        }
    })
}

/// Fills in the kinds that may attach; the answer is the listener's `ResolvedRefs` as far as kinds are concerned.
fn kinds(kinds: &mut Vec<RouteKind>, spec: &ListenerSpec) -> Condition {
    let named = spec.allowed_routes.as_ref().and_then(|allowed| allowed.kinds.as_deref()).unwrap_or_default();
    if named.is_empty() {
        kinds.extend([RouteKind::Http, RouteKind::Grpc]);
    }
    let mut unknown = Vec::new();
    for named in named {
        let group = named.group.as_deref().unwrap_or(GATEWAY_GROUP);
        let kind = match (group, named.kind.as_str()) {
            (GATEWAY_GROUP, "HTTPRoute") => RouteKind::Http,
            (GATEWAY_GROUP, "GRPCRoute") => RouteKind::Grpc,
            (group, kind) => {
                unknown.push(format!("{kind} of {group:?}"));
                continue;
            }
        };
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    if unknown.is_empty() {
        return Condition::yes("ResolvedRefs", "ResolvedRefs");
    }
    let message = format!("allowedRoutes.kinds: {} cannot attach to protocol {}", unknown.join(", "), spec.protocol);
    Condition::no("ResolvedRefs", "InvalidRouteKinds", message)
}
