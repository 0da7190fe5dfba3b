//! Backends and their endpoints.

use control_plane_model::{Backend, BackendKey, BackendProtocol, Endpoint, Endpoints};

use super::{
    error::{Field as _, InvalidResource, each},
    policy,
};
use crate::proto;

pub(super) fn to_wire(backend: &Backend) -> proto::Backend {
    let protocol = match backend.protocol {
        BackendProtocol::Http1 => proto::BackendProtocol::Http1,
        BackendProtocol::H2c => proto::BackendProtocol::H2c,
    };
    proto::Backend { protocol: protocol.into(), policies: policy::keys_to_wire(&backend.policies) }
}

pub(super) fn from_wire(key: BackendKey, wire: proto::Backend) -> Result<Backend, InvalidResource> {
    let protocol = match wire.protocol() {
        proto::BackendProtocol::Http1 => Ok(BackendProtocol::Http1),
        proto::BackendProtocol::H2c => Ok(BackendProtocol::H2c),
        proto::BackendProtocol::Unspecified => Err(InvalidResource::unknown()),
    };
    let protocol = protocol.field("protocol")?;
    Ok(Backend { key, protocol, policies: policy::keys_from_wire(wire.policies)? })
}

pub(super) fn endpoints_to_wire(endpoints: &Endpoints) -> proto::Endpoints {
    let endpoint = |endpoint: &Endpoint| proto::Endpoint { address: endpoint.address.to_string() };
    proto::Endpoints { endpoints: endpoints.endpoints.iter().map(endpoint).collect() }
}

pub(super) fn endpoints_from_wire(key: BackendKey, wire: proto::Endpoints) -> Result<Endpoints, InvalidResource> {
    let endpoints = each(wire.endpoints, "endpoints", |endpoint| {
        let address = endpoint.address.parse().map_err(InvalidResource::new).field("address")?;
        Ok(Endpoint { address })
    })?;
    for (index, pair) in endpoints.windows(2).enumerate() {
        if let [before, after] = pair
            && before >= after
        {
            return Err(InvalidResource::new("is not sorted, or is repeated")).element("endpoints", index + 1);
        }
    }
    Ok(Endpoints { key, endpoints })
}
