//! Listeners.

use std::num::NonZeroU16;

use control_plane_model::{
    CertificateKey, HostPattern, Listener, ListenerKey, ListenerProtocol, ResourceKey, TlsTermination,
};

use super::{
    error::{Field as _, InvalidResource, each, each_of_some, required},
    policy,
};
use crate::proto::{self, listener::Protocol};

pub(super) fn to_wire(listener: &Listener) -> proto::Listener {
    proto::Listener {
        addresses: listener.addresses.iter().map(ToString::to_string).collect(),
        port: u32::from(listener.port.get()),
        hostname: listener.hostname.to_string(),
        protocol: Some(match &listener.protocol {
            ListenerProtocol::Http => Protocol::Http(proto::PlainHttp {}),
            ListenerProtocol::Https(tls) => Protocol::Https(proto::TlsTermination {
                certificates: tls
                    .certificates
                    .iter()
                    .cloned()
                    .map(|key| ResourceKey::Certificate(key).to_string())
                    .collect(),
            }),
        }),
        policies: policy::keys_to_wire(&listener.policies),
    }
}

pub(super) fn from_wire(key: ListenerKey, wire: proto::Listener) -> Result<Listener, InvalidResource> {
    Ok(Listener {
        key,
        addresses: each(wire.addresses, "addresses", |text| text.parse().map_err(InvalidResource::new))?,
        port: port(wire.port).field("port")?,
        hostname: host(&wire.hostname).field("hostname")?,
        protocol: match required(wire.protocol).field("protocol")? {
            Protocol::Http(proto::PlainHttp {}) => ListenerProtocol::Http,
            Protocol::Https(tls) => ListenerProtocol::Https(TlsTermination {
                certificates: each_of_some(tls.certificates, "certificates", |key| certificate(&key)).field("https")?,
            }),
        },
        policies: policy::keys_from_wire(wire.policies)?,
    })
}

fn certificate(text: &str) -> Result<CertificateKey, InvalidResource> {
    match text.parse() {
        Ok(ResourceKey::Certificate(key)) => Ok(key),
        _ => Err(InvalidResource::new(format_args!("{text:?} is not the key of a certificate"))),
    }
}

/// A port from 1 to 65535.
pub(super) fn port(number: u32) -> Result<NonZeroU16, InvalidResource> {
    u16::try_from(number)
        .ok()
        .and_then(NonZeroU16::new)
        .ok_or_else(|| InvalidResource::new(format_args!("{number} is not between 1 and 65535")))
}

/// A host pattern, exact, `*.suffix` or empty.
pub(super) fn host(text: &str) -> Result<HostPattern, InvalidResource> {
    HostPattern::parse(text).map_err(InvalidResource::new)
}
