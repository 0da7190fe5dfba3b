//! EndpointSlices to endpoints: ready addresses of one Service port, sorted, each once.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use control_plane_model::{BackendKey, Endpoint, Endpoints, ObjectName};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::{Mode, inputs::Inputs, route::backend::service_port};

/// Annotation of a Service that names its endpoints, in standalone mode alone: `127.0.0.1:3000`, several with commas.
const ENDPOINTS_ANNOTATION: &str = "nebula.dev/endpoints";

/// The endpoints of a backend. None for a Service or port that does not exist.
pub(crate) fn endpoints(key: &BackendKey, inputs: &Inputs, mode: Mode) -> Endpoints {
    let mut found = BTreeSet::new();
    if let Some(service) = inputs.services.get(&key.service)
        && let Some(port) = service_port(service, key.port)
    {
        for slice in inputs.slices_of(&key.service) {
            collect(slice, port.name.as_deref().unwrap_or_default(), &mut found);
        }
        if mode == Mode::Standalone {
            found.extend(named_by_annotation(&key.service, inputs).into_iter().flatten());
        }
    }
    Endpoints { key: key.clone(), endpoints: found.into_iter().map(|address| Endpoint { address }).collect() }
}

/// The endpoints that a Service names itself, or why its annotation cannot be read.
fn named_by_annotation(service: &ObjectName, inputs: &Inputs) -> Result<Vec<SocketAddr>, String> {
    let service = inputs.services.get(service);
    let annotation = service.and_then(|service| service.metadata.annotations.as_ref()?.get(ENDPOINTS_ANNOTATION));
    let addresses = annotation.into_iter().flat_map(|text| text.split(','));
    addresses
        .map(|text| {
            let text = text.trim();
            text.parse().map_err(|_| format!("{ENDPOINTS_ANNOTATION}: {text:?} is not an address with a port"))
        })
        .collect()
}

/// Why the annotation of a Service cannot be read, where there is one.
pub(crate) fn annotation_problem(service: &ObjectName, inputs: &Inputs) -> Option<String> {
    named_by_annotation(service, inputs).err()
}

fn collect(slice: &EndpointSlice, port_name: &str, found: &mut BTreeSet<SocketAddr>) {
    let named = |name: Option<&String>| name.map_or("", String::as_str) == port_name;
    let is_tcp = |protocol: Option<&String>| protocol.is_none_or(|protocol| protocol == "TCP");
    let ports = slice.ports.iter().flatten().filter(|port| named(port.name.as_ref()) && is_tcp(port.protocol.as_ref()));
    let ports: Vec<u16> = ports.filter_map(|port| u16::try_from(port.port?).ok().filter(|port| *port > 0)).collect();
    for endpoint in &slice.endpoints {
        let conditions = endpoint.conditions.as_ref();
        let ready = conditions.and_then(|conditions| conditions.ready).unwrap_or(true);
        let terminating = conditions.and_then(|conditions| conditions.terminating).unwrap_or(false);
        // Consumers take the first address alone: the API calls the others undefined.
        let address = endpoint.addresses.first().and_then(|address| address.parse::<IpAddr>().ok());
        if let (true, false, Some(address)) = (ready, terminating, address) {
            found.extend(ports.iter().map(|port| SocketAddr::new(address, *port)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collected(slice: serde_json::Value, port_name: &str) -> Vec<String> {
        let mut found = BTreeSet::new();
        collect(&serde_json::from_value(slice).unwrap(), port_name, &mut found);
        found.into_iter().map(|address| address.to_string()).collect()
    }

    #[test]
    fn only_ready_endpoints_of_the_named_port_count() {
        let slice = serde_json::json!({
            "addressType": "IPv4", "metadata": {"name": "a"},
            "ports": [{"name": "web", "port": 3000, "protocol": "TCP"}, {"name": "dns", "port": 53, "protocol": "UDP"},
                {"port": 9}],
            "endpoints": [
                {"addresses": ["10.0.0.2"], "conditions": {"ready": true}},
                {"addresses": ["10.0.0.1"]},
                {"addresses": ["10.0.0.3"], "conditions": {"ready": false}},
                {"addresses": ["10.0.0.4"], "conditions": {"ready": true, "terminating": true}},
                {"addresses": ["pod.example.com"]},
            ],
        });
        assert_eq!(collected(slice.clone(), "web"), ["10.0.0.1:3000", "10.0.0.2:3000"]);
        assert_eq!(collected(slice.clone(), ""), ["10.0.0.1:9", "10.0.0.2:9"]);
        assert!(collected(slice, "dns").is_empty());
    }
}
