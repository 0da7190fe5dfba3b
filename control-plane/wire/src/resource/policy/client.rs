//! Settings of a ClientPolicy.

use std::{hash::Hash, num::NonZeroU32, sync::Arc, time::Duration};

use control_plane_model::{
    CipherSuite, ClientAddress, ClientLimits, ClientSettings, ClientTimeouts, ClientTls, ForwardingHeader,
    HttpProtocol, Network, ProxyProtocol, TlsVersion, TransferRate, Trust,
};

use crate::{
    proto::{self, client_origin::Trust as WireTrust, proxy_protocol::Mode},
    resource::{
        duration::{duration_from_wire, duration_to_wire},
        error::{Field as _, InvalidResource, distinct, each, each_of_some, required},
    },
};

pub(super) fn to_wire(settings: &ClientSettings) -> proto::ClientPolicy {
    let protocols = settings.protocols.iter().flatten().copied();
    proto::ClientPolicy {
        timeouts: Some(timeouts_to_wire(&settings.timeouts)),
        limits: Some(limits_to_wire(&settings.limits)),
        minimum_transfer_rate: settings.minimum_transfer_rate.map(|rate| proto::MinimumTransferRate {
            bytes_per_second: rate.bytes_per_second.get(),
            grace: Some(duration_to_wire(rate.grace)),
        }),
        protocols: protocols.map(protocol_to_wire).collect(),
        tls: Some(tls_to_wire(&settings.tls)),
        client_address: settings.client_address.as_ref().map(address_to_wire),
        proxy_protocol: settings.proxy_protocol.as_ref().map(proxy_protocol_to_wire),
    }
}

pub(super) fn from_wire(wire: proto::ClientPolicy) -> Result<ClientSettings, InvalidResource> {
    let rate = wire.minimum_transfer_rate.map(transfer_rate_from_wire).transpose();
    let protocols = each_once(wire.protocols, "protocols", protocol_from_wire)?;
    Ok(ClientSettings {
        timeouts: timeouts_from_wire(wire.timeouts.unwrap_or_default()).field("timeouts")?,
        limits: limits_from_wire(&wire.limits.unwrap_or_default()).field("limits")?,
        minimum_transfer_rate: rate.field("minimum_transfer_rate")?,
        protocols: protocols.map(|protocols| protocols.into_iter().collect()),
        tls: tls_from_wire(wire.tls.unwrap_or_default()).field("tls")?,
        client_address: wire.client_address.map(address_from_wire).transpose().field("client_address")?,
        proxy_protocol: wire.proxy_protocol.map(proxy_protocol_from_wire).transpose().field("proxy_protocol")?,
    })
}

fn timeouts_to_wire(timeouts: &ClientTimeouts) -> proto::ClientTimeouts {
    proto::ClientTimeouts {
        request_head: timeouts.request_head.map(duration_to_wire),
        request_body_idle: timeouts.request_body_idle.map(duration_to_wire),
        response_idle: timeouts.response_idle.map(duration_to_wire),
        connection_idle: timeouts.connection_idle.map(duration_to_wire),
        tls_handshake: timeouts.tls_handshake.map(duration_to_wire),
    }
}

fn timeouts_from_wire(wire: proto::ClientTimeouts) -> Result<ClientTimeouts, InvalidResource> {
    let of = |field: &str, wire: Option<proto::Duration>| wire.map(time).transpose().field(field);
    Ok(ClientTimeouts {
        request_head: of("request_head", wire.request_head)?,
        request_body_idle: of("request_body_idle", wire.request_body_idle)?,
        response_idle: of("response_idle", wire.response_idle)?,
        connection_idle: of("connection_idle", wire.connection_idle)?,
        tls_handshake: of("tls_handshake", wire.tls_handshake)?,
    })
}

fn time(wire: proto::Duration) -> Result<Duration, InvalidResource> {
    let duration = duration_from_wire(wire)?;
    if duration.is_zero() { Err(InvalidResource::new("is 0")) } else { Ok(duration) }
}

fn limits_to_wire(limits: &ClientLimits) -> proto::ClientLimits {
    proto::ClientLimits {
        head_bytes: limits.head_bytes.map(NonZeroU32::get),
        headers: limits.headers.map(NonZeroU32::get),
        uri_bytes: limits.uri_bytes.map(NonZeroU32::get),
        concurrent_streams: limits.concurrent_streams.map(NonZeroU32::get),
        connections: limits.connections.map(NonZeroU32::get),
        connections_per_client: limits.connections_per_client.map(NonZeroU32::get),
        requests_per_connection: limits.requests_per_connection.map(NonZeroU32::get),
    }
}

fn limits_from_wire(wire: &proto::ClientLimits) -> Result<ClientLimits, InvalidResource> {
    let of = |field: &str, wire: Option<u32>| wire.map(number).transpose().field(field);
    Ok(ClientLimits {
        head_bytes: of("head_bytes", wire.head_bytes)?,
        headers: of("headers", wire.headers)?,
        uri_bytes: of("uri_bytes", wire.uri_bytes)?,
        concurrent_streams: of("concurrent_streams", wire.concurrent_streams)?,
        connections: of("connections", wire.connections)?,
        connections_per_client: of("connections_per_client", wire.connections_per_client)?,
        requests_per_connection: of("requests_per_connection", wire.requests_per_connection)?,
    })
}

fn number(number: u32) -> Result<NonZeroU32, InvalidResource> {
    NonZeroU32::new(number).ok_or_else(|| InvalidResource::new("is 0"))
}

fn transfer_rate_from_wire(wire: proto::MinimumTransferRate) -> Result<TransferRate, InvalidResource> {
    let grace = duration_from_wire(required(wire.grace).field("grace")?).field("grace")?;
    Ok(TransferRate { bytes_per_second: number(wire.bytes_per_second).field("bytes_per_second")?, grace })
}

fn tls_to_wire(tls: &ClientTls) -> proto::ClientTls {
    let version = |version| {
        let version = match version {
            None => proto::TlsVersion::Unspecified,
            Some(TlsVersion::Tls12) => proto::TlsVersion::TlsVersion12,
            Some(TlsVersion::Tls13) => proto::TlsVersion::TlsVersion13,
        };
        version.into()
    };
    proto::ClientTls {
        minimum: version(tls.minimum),
        maximum: version(tls.maximum),
        cipher_suites: tls.cipher_suites.iter().flatten().map(|suite| suite.code().into()).collect(),
        alpn: tls.alpn.iter().flatten().copied().map(protocol_to_wire).collect(),
    }
}

fn tls_from_wire(wire: proto::ClientTls) -> Result<ClientTls, InvalidResource> {
    let version = |wire| match proto::TlsVersion::try_from(wire) {
        Ok(proto::TlsVersion::Unspecified) => Ok(None),
        Ok(proto::TlsVersion::TlsVersion12) => Ok(Some(TlsVersion::Tls12)),
        Ok(proto::TlsVersion::TlsVersion13) => Ok(Some(TlsVersion::Tls13)),
        Err(_) => Err(InvalidResource::unknown()),
    };
    let suite = |code: u32| {
        let found = CipherSuite::ALL.iter().find(|suite| u32::from(suite.code()) == code);
        found.copied().ok_or_else(InvalidResource::unknown)
    };
    Ok(ClientTls {
        minimum: version(wire.minimum).field("minimum")?,
        maximum: version(wire.maximum).field("maximum")?,
        cipher_suites: each_once(wire.cipher_suites, "cipher_suites", suite)?,
        alpn: each_once(wire.alpn, "alpn", protocol_from_wire)?,
    })
}

fn protocol_to_wire(protocol: HttpProtocol) -> i32 {
    let protocol = match protocol {
        HttpProtocol::Http1 => proto::ClientProtocol::Http1,
        HttpProtocol::Http2 => proto::ClientProtocol::Http2,
    };
    protocol.into()
}

fn protocol_from_wire(wire: i32) -> Result<HttpProtocol, InvalidResource> {
    match proto::ClientProtocol::try_from(wire) {
        Ok(proto::ClientProtocol::Http1) => Ok(HttpProtocol::Http1),
        Ok(proto::ClientProtocol::Http2) => Ok(HttpProtocol::Http2),
        Ok(proto::ClientProtocol::Unspecified) | Err(_) => Err(InvalidResource::unknown()),
    }
}

fn address_to_wire(address: &ClientAddress) -> proto::ClientOrigin {
    let trust = match &address.trust {
        Trust::Hops(hops) => WireTrust::Hops(hops.get()),
        Trust::Networks(networks) => WireTrust::Networks(networks_to_wire(networks)),
    };
    let header = match address.header {
        ForwardingHeader::XForwardedFor => proto::ForwardingHeader::XForwardedFor,
        ForwardingHeader::Forwarded => proto::ForwardingHeader::Forwarded,
    };
    proto::ClientOrigin { trust: Some(trust), header: header.into() }
}

fn address_from_wire(wire: proto::ClientOrigin) -> Result<ClientAddress, InvalidResource> {
    let trust = match required(wire.trust).field("trust")? {
        WireTrust::Hops(hops) => Trust::Hops(number(hops).field("hops")?),
        WireTrust::Networks(networks) => Trust::Networks(networks_from_wire(networks).field("networks")?),
    };
    let header = match proto::ForwardingHeader::try_from(wire.header) {
        Ok(proto::ForwardingHeader::XForwardedFor) => Ok(ForwardingHeader::XForwardedFor),
        Ok(proto::ForwardingHeader::Forwarded) => Ok(ForwardingHeader::Forwarded),
        Ok(proto::ForwardingHeader::Unspecified) | Err(_) => Err(InvalidResource::unknown()),
    };
    Ok(ClientAddress { trust, header: header.field("header")? })
}

fn proxy_protocol_to_wire(proxy: &ProxyProtocol) -> proto::ProxyProtocol {
    let mode = match proxy {
        ProxyProtocol::Disabled => Mode::Disabled(proto::ProxyProtocolDisabled {}),
        ProxyProtocol::Required(networks) => Mode::Required(networks_to_wire(networks)),
    };
    proto::ProxyProtocol { mode: Some(mode) }
}

fn proxy_protocol_from_wire(wire: proto::ProxyProtocol) -> Result<ProxyProtocol, InvalidResource> {
    match required(wire.mode).field("mode")? {
        Mode::Disabled(_) => Ok(ProxyProtocol::Disabled),
        Mode::Required(networks) => networks_from_wire(networks).field("required").map(ProxyProtocol::Required),
    }
}

fn networks_to_wire(networks: &[Network]) -> proto::Networks {
    proto::Networks { networks: networks.iter().map(ToString::to_string).collect() }
}

fn networks_from_wire(wire: proto::Networks) -> Result<Arc<[Network]>, InvalidResource> {
    let parse = |text: String| text.parse().map_err(InvalidResource::new);
    each_of_some(wire.networks, "networks", parse).map(Arc::from)
}

/// A list that names nothing twice; `None` where it is empty.
fn each_once<W, M: Copy + Hash + Eq>(
    wire: Vec<W>,
    name: &str,
    convert: impl Fn(W) -> Result<M, InvalidResource>,
) -> Result<Option<Vec<M>>, InvalidResource> {
    let list = each(wire, name, convert)?;
    distinct(&list, name, |entry| *entry)?;
    Ok((!list.is_empty()).then_some(list))
}
