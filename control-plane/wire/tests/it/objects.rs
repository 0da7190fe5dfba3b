//! Builders of objects. Everything is in namespace `shop`; gateways are in `infra`.

use std::sync::Arc;

use control_plane_model::*;

pub fn gateway_key(name: &str) -> GatewayKey {
    GatewayKey(ObjectName::new("infra", name))
}

pub fn gateway(name: &str, access_log: AccessLog) -> Resource {
    Resource::Gateway(Arc::new(Gateway { key: gateway_key(name), access_log, tracing: None, policies: Vec::new() }))
}

pub fn listener_key(gateway: &str, name: &str) -> ListenerKey {
    ListenerKey { gateway: gateway_key(gateway), listener_set: None, name: name.into() }
}

/// An HTTPS listener with these certificates, or an HTTP one where there are none.
pub fn listener(gateway: &str, name: &str, certificates: &[&str]) -> Resource {
    let certificates: Vec<_> = certificates.iter().map(|name| certificate_key(name)).collect();
    Resource::Listener(Arc::new(Listener {
        key: listener_key(gateway, name),
        addresses: Vec::new(),
        port: 80.try_into().unwrap(),
        protocol: if certificates.is_empty() {
            ListenerProtocol::Http
        } else {
            ListenerProtocol::Https(TlsTermination { certificates })
        },
        hostname: HostPattern::Any,
        policies: Vec::new(),
    }))
}

pub fn certificate_key(name: &str) -> CertificateKey {
    CertificateKey(ObjectName::new("shop", name))
}

/// A certificate whose chain has one element of `size` bytes.
pub fn certificate(name: &str, size: usize) -> Resource {
    Resource::Certificate(Arc::new(Certificate {
        key: certificate_key(name),
        chain: vec![vec![7; size].into()],
        private_key: rustls_pki_types::PrivatePkcs8KeyDer::from(b"HUSH-HUSH".to_vec()).into(),
    }))
}

pub fn backend_key(name: &str) -> BackendKey {
    BackendKey { service: ObjectName::new("shop", name), port: 80.try_into().unwrap() }
}

pub fn backend(name: &str, protocol: BackendProtocol) -> Resource {
    Resource::Backend(Arc::new(Backend { key: backend_key(name), protocol, policies: Vec::new() }))
}

/// Endpoints 10.0.0.1 to 10.0.0.`count`.
pub fn endpoints(name: &str, count: u8) -> Resource {
    let endpoint = |last| Endpoint { address: ([10, 0, 0, last], 8080).into() };
    Resource::Endpoints(Arc::new(Endpoints { key: backend_key(name), endpoints: (1..=count).map(endpoint).collect() }))
}

pub fn route_key(name: &str) -> ResourceKey {
    ResourceKey::Route(RouteKey { kind: RouteKind::Http, name: ObjectName::new("shop", name) })
}

/// A route on listener `http` of each gateway, to each backend. `created` tells versions apart.
pub fn route(name: &str, gateways: &[&str], backends: &[&str], created: i64) -> Resource {
    let attachment = |gateway: &&str| Attachment {
        listener: listener_key(gateway, "http"),
        hosts: vec![AttachedHost { served: HostPattern::Any, declared: HostPattern::Any }],
    };
    let backend = |name: &&str| WeightedBackend {
        weight: 1,
        target: BackendTarget::Backend(backend_key(name)),
        filters: Vec::new(),
    };
    let path = PathMatch::Prefix(format!("/{name}").into());
    Resource::Route(Arc::new(Route {
        key: RouteKey { kind: RouteKind::Http, name: ObjectName::new("shop", name) },
        created,
        attachments: gateways.iter().map(attachment).collect(),
        rules: vec![Rule {
            name: None,
            matches: vec![RouteMatch { path, method: None, headers: Vec::new(), query: Vec::new() }],
            filters: Vec::new(),
            action: RuleAction::Forward(backends.iter().map(backend).collect()),
            timeouts: Timeouts::default(),
            policies: Vec::new(),
        }],
        policies: Vec::new(),
    }))
}

/// A gateway that serves one route to one backend.
pub fn edge() -> Vec<Resource> {
    vec![
        gateway("edge", AccessLog::Json),
        listener("edge", "http", &[]),
        backend("cart", BackendProtocol::Http1),
        endpoints("cart", 2),
        route("cart", &["edge"], &["cart"], 1),
    ]
}

pub fn upsert(upserted: Vec<Resource>) -> Delta {
    Delta { upserted, removed: Vec::new() }
}

pub fn remove(removed: Vec<ResourceKey>) -> Delta {
    Delta { upserted: Vec::new(), removed }
}

pub fn snapshot(resources: &[Resource]) -> Snapshot {
    let mut snapshot = Snapshot::default();
    resources.iter().cloned().for_each(|resource| snapshot.insert(resource));
    snapshot
}
