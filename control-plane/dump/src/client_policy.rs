//! ClientPolicies as JSON.

use std::time::Duration;

use control_plane_model::{
    ClientAddress, ClientSettings, ClientTls, ForwardingHeader, HttpProtocol, Network, ProxyProtocol, Trust,
};
use serde_json::{Value, json};

use super::policy::present;

/// What a ClientPolicy says; fields that it leaves to others are left out.
pub(super) fn settings(settings: &ClientSettings) -> Value {
    let (timeouts, limits) = (&settings.timeouts, &settings.limits);
    let seconds = |duration: Option<Duration>| duration.map(|duration| duration.as_secs_f64().into());
    let number = |number: Option<std::num::NonZeroU32>| number.map(|number| number.get().into());
    present([
        ("request_head_seconds", seconds(timeouts.request_head)),
        ("request_body_idle_seconds", seconds(timeouts.request_body_idle)),
        ("response_idle_seconds", seconds(timeouts.response_idle)),
        ("connection_idle_seconds", seconds(timeouts.connection_idle)),
        ("tls_handshake_seconds", seconds(timeouts.tls_handshake)),
        ("head_bytes", number(limits.head_bytes)),
        ("headers", number(limits.headers)),
        ("uri_bytes", number(limits.uri_bytes)),
        ("concurrent_streams", number(limits.concurrent_streams)),
        ("connections", number(limits.connections)),
        ("connections_per_client", number(limits.connections_per_client)),
        ("requests_per_connection", number(limits.requests_per_connection)),
        (
            "minimum_transfer_rate",
            settings.minimum_transfer_rate.map(
                |rate| json!({ "bytes_per_second": rate.bytes_per_second, "grace_seconds": rate.grace.as_secs_f64() }),
            ),
        ),
        ("protocols", settings.protocols.as_ref().map(|found| protocols(found.iter()))),
        ("tls", Some(tls(&settings.tls)).filter(|tls| tls.as_object().is_some_and(|fields| !fields.is_empty()))),
        ("client_address", settings.client_address.as_ref().map(address)),
        ("proxy_protocol_from", settings.proxy_protocol.as_ref().map(proxy_protocol)),
    ])
}

fn protocols<'a>(protocols: impl Iterator<Item = &'a HttpProtocol>) -> Value {
    protocols.map(|protocol| protocol.alpn()).collect()
}

fn tls(tls: &ClientTls) -> Value {
    let suites = tls.cipher_suites.as_ref();
    present([
        ("minimum", tls.minimum.map(|version| version.as_str().into())),
        ("maximum", tls.maximum.map(|version| version.as_str().into())),
        ("cipher_suites", suites.map(|suites| suites.iter().map(|suite| suite.as_str()).collect())),
        ("alpn", tls.alpn.as_ref().map(|alpn| protocols(alpn.iter()))),
    ])
}

fn address(address: &ClientAddress) -> Value {
    let header = match address.header {
        ForwardingHeader::XForwardedFor => "x-forwarded-for",
        ForwardingHeader::Forwarded => "forwarded",
    };
    match &address.trust {
        Trust::Hops(hops) => json!({ "header": header, "trusted_hops": hops }),
        Trust::Networks(trusted) => json!({ "header": header, "trusted_networks": networks(trusted) }),
    }
}

/// The networks that it is required from; null where it is disabled.
fn proxy_protocol(proxy: &ProxyProtocol) -> Value {
    match proxy {
        ProxyProtocol::Disabled => Value::Null,
        ProxyProtocol::Required(trusted) => networks(trusted),
    }
}

fn networks(networks: &[Network]) -> Value {
    networks.iter().map(ToString::to_string).collect()
}
