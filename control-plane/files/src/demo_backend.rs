//! Services that ask for the demo backend of standalone mode, and where their endpoints are then.

use std::net::SocketAddr;

use k8s_openapi::{
    api::{
        core::v1::Service,
        discovery::v1::{Endpoint, EndpointPort, EndpointSlice},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

/// The annotation of a Service that the demo backend serves: `"true"`.
pub const ANNOTATION: &str = "nebula.dev/demo-backend";

/// Whether the Service asks for the demo backend.
pub fn is_asked_for(service: &Service) -> bool {
    service
        .metadata
        .annotations
        .as_ref()
        .and_then(|annotations| annotations.get(ANNOTATION))
        .is_some_and(|value| value == "true")
}

/// The EndpointSlice that leads every port of `service` to the demo backend at `address`.
pub fn endpoint_slice(service: &Service, address: SocketAddr) -> EndpointSlice {
    let service_name = service.metadata.name.clone().unwrap_or_default();
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten()).map(|port| EndpointPort {
        name: port.name.clone(),
        port: Some(address.port().into()),
        protocol: port.protocol.clone(),
        app_protocol: port.app_protocol.clone(),
    });
    EndpointSlice {
        metadata: ObjectMeta {
            name: Some(slice_name(&service_name)),
            namespace: service.metadata.namespace.clone(),
            labels: Some([("kubernetes.io/service-name".to_owned(), service_name)].into()),
            ..ObjectMeta::default()
        },
        address_type: if address.is_ipv4() { "IPv4" } else { "IPv6" }.to_owned(),
        endpoints: vec![Endpoint { addresses: vec![address.ip().to_string()], ..Endpoint::default() }],
        ports: Some(ports.collect()),
    }
}

/// The slice's name. No user's object has it: a file's object must be a DNS name.
pub fn slice_name(service: &str) -> String {
    format!("{service}:demo-backend")
}
