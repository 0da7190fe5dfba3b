//! ClientPolicy.

use std::{num::NonZeroU32, ops::RangeInclusive, sync::Arc, time::Duration};

use control_plane_model::{
    CipherSuite, ClientAddress, ClientLimits, ClientSettings, ClientTimeouts, ClientTls, ForwardingHeader,
    HttpProtocol, Network, ProxyProtocol, TlsVersion, TransferRate, Trust,
};
use crds::client_policy::{self as resource, ClientPolicySpec, ProxyProtocolMode};

use crate::route::values;

/// The most networks of one list.
const MAX_NETWORKS: usize = 64;
/// What a time limit may be: the proxy looks twice a second.
const DURATIONS: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_hours(24);
/// The grace of a transfer rate that names none.
const DEFAULT_GRACE: Duration = Duration::from_secs(10);

pub(super) fn translate(spec: &ClientPolicySpec) -> Result<ClientSettings, String> {
    let settings = settings(spec).map_err(|error| format!("spec.{error}"))?;
    match settings.contradiction() {
        Some(error) => Err(format!("spec.{error}")),
        None => Ok(settings),
    }
}

fn settings(spec: &ClientPolicySpec) -> Result<ClientSettings, String> {
    Ok(ClientSettings {
        timeouts: spec.timeouts.as_ref().map_or_else(|| Ok(ClientTimeouts::default()), timeouts)?,
        limits: spec.limits.as_ref().map_or_else(|| Ok(ClientLimits::default()), limits)?,
        minimum_transfer_rate: spec.minimum_transfer_rate.as_ref().map(transfer_rate).transpose()?,
        protocols: each_once(&spec.protocols, "protocols", |protocol| match protocol {
            resource::HttpProtocol::Http1 => HttpProtocol::Http1,
            resource::HttpProtocol::Http2 => HttpProtocol::Http2,
        })?
        .map(|protocols| protocols.into_iter().collect()),
        tls: spec.tls.as_ref().map_or_else(|| Ok(ClientTls::default()), tls)?,
        client_address: spec.client_address.as_ref().map(client_address).transpose()?,
        proxy_protocol: spec.proxy_protocol.as_ref().map(proxy_protocol).transpose()?,
    })
}

fn timeouts(timeouts: &resource::ClientTimeouts) -> Result<ClientTimeouts, String> {
    let of = |field: &str, text: &Option<String>| {
        text.as_ref().map(|text| duration(text).map_err(|error| format!("timeouts.{field}: {error}"))).transpose()
    };
    Ok(ClientTimeouts {
        request_head: of("requestHead", &timeouts.request_head)?,
        request_body_idle: of("requestBodyIdle", &timeouts.request_body_idle)?,
        response_idle: of("responseIdle", &timeouts.response_idle)?,
        connection_idle: of("connectionIdle", &timeouts.connection_idle)?,
        tls_handshake: of("tlsHandshake", &timeouts.tls_handshake)?,
    })
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration = values::duration(text)?.filter(|duration| DURATIONS.contains(duration));
    duration.ok_or_else(|| format!("{text:?} is not from 100ms to 24h"))
}

fn limits(limits: &resource::ClientLimits) -> Result<ClientLimits, String> {
    let of = |field: &str, found: Option<i32>, range: RangeInclusive<u32>| {
        found.map(|found| number(found, &range).map_err(|error| format!("limits.{field} {error}"))).transpose()
    };
    Ok(ClientLimits {
        head_bytes: of("headBytes", limits.head_bytes, 1024..=1 << 20)?,
        headers: of("headers", limits.headers, 10..=1000)?,
        uri_bytes: of("uriBytes", limits.uri_bytes, 64..=32 << 10)?,
        concurrent_streams: of("concurrentStreams", limits.concurrent_streams, 1..=10_000)?,
        connections: of("connections", limits.connections, 1..=1_000_000)?,
        connections_per_client: of("connectionsPerClient", limits.connections_per_client, 1..=1_000_000)?,
        requests_per_connection: of("requestsPerConnection", limits.requests_per_connection, 1..=1_000_000_000)?,
    })
}

fn number(found: i32, range: &RangeInclusive<u32>) -> Result<NonZeroU32, String> {
    let number = u32::try_from(found).ok().filter(|number| range.contains(number)).and_then(NonZeroU32::new);
    number.ok_or_else(|| format!("is {found}, want {} to {}", range.start(), range.end()))
}

fn transfer_rate(rate: &resource::MinimumTransferRate) -> Result<TransferRate, String> {
    let bytes_per_second = number(rate.bytes_per_second, &(1..=1_000_000_000))
        .map_err(|error| format!("minimumTransferRate.bytesPerSecond {error}"))?;
    let grace = rate.grace.as_deref().map_or(Ok(DEFAULT_GRACE), duration);
    Ok(TransferRate { bytes_per_second, grace: grace.map_err(|error| format!("minimumTransferRate.grace: {error}"))? })
}

fn tls(tls: &resource::ClientTls) -> Result<ClientTls, String> {
    let version = |version| match version {
        resource::TlsVersion::Tls12 => TlsVersion::Tls12,
        resource::TlsVersion::Tls13 => TlsVersion::Tls13,
    };
    Ok(ClientTls {
        minimum: tls.min_version.map(version),
        maximum: tls.max_version.map(version),
        cipher_suites: each_once(&tls.cipher_suites, "tls.cipherSuites", cipher_suite)?,
        alpn: each_once(&tls.alpn, "tls.alpn", |protocol| match protocol {
            resource::AlpnProtocol::Http1 => HttpProtocol::Http1,
            resource::AlpnProtocol::Http2 => HttpProtocol::Http2,
        })?,
    })
}

fn cipher_suite(suite: resource::CipherSuite) -> CipherSuite {
    match suite {
        resource::CipherSuite::Aes256Gcm => CipherSuite::Aes256Gcm,
        resource::CipherSuite::Aes128Gcm => CipherSuite::Aes128Gcm,
        resource::CipherSuite::Chacha20 => CipherSuite::Chacha20,
        resource::CipherSuite::EcdsaAes256Gcm => CipherSuite::EcdsaAes256Gcm,
        resource::CipherSuite::EcdsaAes128Gcm => CipherSuite::EcdsaAes128Gcm,
        resource::CipherSuite::EcdsaChacha20 => CipherSuite::EcdsaChacha20,
        resource::CipherSuite::RsaAes256Gcm => CipherSuite::RsaAes256Gcm,
        resource::CipherSuite::RsaAes128Gcm => CipherSuite::RsaAes128Gcm,
        resource::CipherSuite::RsaChacha20 => CipherSuite::RsaChacha20,
    }
}

fn client_address(address: &resource::ClientAddress) -> Result<ClientAddress, String> {
    let trust = match (address.trusted_hops, address.trusted_networks.as_slice()) {
        (Some(hops), []) => {
            Trust::Hops(number(hops, &(1..=16)).map_err(|error| format!("clientAddress.trustedHops {error}"))?)
        }
        (None, [_, ..]) => Trust::Networks(networks(&address.trusted_networks, "clientAddress")?),
        _ => return Err("clientAddress: exactly one of trustedHops and trustedNetworks is needed".to_owned()),
    };
    let header = match address.from.unwrap_or_default() {
        resource::ForwardingHeader::XForwardedFor => ForwardingHeader::XForwardedFor,
        resource::ForwardingHeader::Forwarded => ForwardingHeader::Forwarded,
    };
    Ok(ClientAddress { trust, header })
}

fn proxy_protocol(proxy: &resource::ProxyProtocol) -> Result<ProxyProtocol, String> {
    match (proxy.mode, proxy.trusted_networks.as_slice()) {
        (ProxyProtocolMode::Disabled, []) => Ok(ProxyProtocol::Disabled),
        (ProxyProtocolMode::Disabled, _) => {
            Err("proxyProtocol.trustedNetworks is for mode Required; mode is Disabled".to_owned())
        }
        (ProxyProtocolMode::Required, []) => {
            Err("proxyProtocol.trustedNetworks is missing: anyone could claim any address".to_owned())
        }
        (ProxyProtocolMode::Required, _) => {
            networks(&proxy.trusted_networks, "proxyProtocol").map(ProxyProtocol::Required)
        }
    }
}

fn networks(texts: &[String], field: &str) -> Result<Arc<[Network]>, String> {
    if texts.len() > MAX_NETWORKS {
        return Err(format!("{field}.trustedNetworks has {} entries, {MAX_NETWORKS} at most", texts.len()));
    }
    let parse = |(index, text): (usize, &String)| {
        text.parse().map_err(|error| format!("{field}.trustedNetworks[{index}]: {error}"))
    };
    texts.iter().enumerate().map(parse).collect()
}

/// A list that names nothing twice; `None` where it is empty.
fn each_once<T: Copy, M: PartialEq>(
    entries: &[T],
    field: &str,
    convert: impl Fn(T) -> M,
) -> Result<Option<Vec<M>>, String> {
    let mut found = Vec::with_capacity(entries.len());
    for (index, entry) in entries.iter().enumerate() {
        let entry = convert(*entry);
        if found.contains(&entry) {
            return Err(format!("{field}[{index}] repeats an earlier entry"));
        }
        found.push(entry);
    }
    Ok((!found.is_empty()).then_some(found))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(spec: serde_json::Value, error: &str) {
        let mut spec = spec;
        spec["targetRefs"] = serde_json::json!([]);
        let spec: ClientPolicySpec = serde_json::from_value(spec).unwrap();
        assert_eq!(translate(&spec).unwrap_err(), error);
    }

    #[test]
    fn what_cannot_be_honoured_is_refused_by_its_field() {
        use serde_json::json;
        refused(
            json!({"timeouts": {"requestHead": "0s"}}),
            "spec.timeouts.requestHead: \"0s\" is not from 100ms to 24h",
        );
        refused(
            json!({"timeouts": {"tlsHandshake": "soon"}}),
            "spec.timeouts.tlsHandshake: \"soon\" is not a duration, such as 1h30m, 10s or 250ms",
        );
        refused(json!({"limits": {"headers": 1}}), "spec.limits.headers is 1, want 10 to 1000");
        refused(json!({"limits": {"connections": -1}}), "spec.limits.connections is -1, want 1 to 1000000");
        refused(
            json!({"minimumTransferRate": {"bytesPerSecond": 0}}),
            "spec.minimumTransferRate.bytesPerSecond is 0, want 1 to 1000000000",
        );
        refused(json!({"protocols": ["HTTP/2", "HTTP/2"]}), "spec.protocols[1] repeats an earlier entry");
        refused(
            json!({"tls": {"minVersion": "TLSv1.3", "maxVersion": "TLSv1.2"}}),
            "spec.tls.maxVersion: TLSv1.2 is below the oldest version, TLSv1.3",
        );
        let one_of = "spec.clientAddress: exactly one of trustedHops and trustedNetworks is needed";
        refused(json!({"clientAddress": {}}), one_of);
        refused(json!({"clientAddress": {"trustedHops": 1, "trustedNetworks": ["10.0.0.0/8"]}}), one_of);
        refused(json!({"clientAddress": {"trustedHops": 0}}), "spec.clientAddress.trustedHops is 0, want 1 to 16");
        refused(
            json!({"clientAddress": {"trustedNetworks": ["10.0.0.0/8", "10.0.0.1/8"]}}),
            "spec.clientAddress.trustedNetworks[1]: \"10.0.0.1/8\" has bits beyond its prefix, want 10.0.0.0/8",
        );
        refused(
            json!({"proxyProtocol": {"mode": "Required"}}),
            "spec.proxyProtocol.trustedNetworks is missing: anyone could claim any address",
        );
        refused(
            json!({"proxyProtocol": {"mode": "Disabled", "trustedNetworks": ["10.0.0.0/8"]}}),
            "spec.proxyProtocol.trustedNetworks is for mode Required; mode is Disabled",
        );
    }
}
