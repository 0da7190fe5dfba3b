//! Any valid ClientPolicy, and what is refused in one.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use control_plane_model::{
    CipherSuite, ClientAddress, ClientLimits, ClientSettings, ClientTimeouts, ClientTls, ForwardingHeader,
    HttpProtocol, Network, ProxyProtocol, TlsVersion, TransferRate, Trust,
};
use control_plane_wire::proto;
use proptest::{
    collection::vec,
    option::of,
    prelude::*,
    sample::{select, subsequence},
};

use crate::{
    invalid::{UNKNOWN, refused},
    strategies::duration,
};

const POLICY: &str = "policy/client/shop/edge";

fn number() -> impl Strategy<Value = NonZeroU32> {
    (1..=u32::MAX).prop_map(|number| NonZeroU32::new(number).unwrap())
}

fn networks() -> impl Strategy<Value = Arc<[Network]>> {
    let network = select(vec!["10.0.0.0/8", "192.0.2.1", "0.0.0.0/0", "2001:db8::/32", "::/0"]);
    vec(network.prop_map(|text| text.parse().unwrap()), 1..4).prop_map(Arc::from)
}

fn timeouts() -> BoxedStrategy<ClientTimeouts> {
    let time = || of(duration().prop_map(|duration| duration.max(Duration::from_nanos(1))));
    (time(), time(), time(), time(), time())
        .prop_map(|(request_head, request_body_idle, response_idle, connection_idle, tls_handshake)| ClientTimeouts {
            request_head,
            request_body_idle,
            response_idle,
            connection_idle,
            tls_handshake,
        })
        .boxed()
}

fn limits() -> BoxedStrategy<ClientLimits> {
    let each = || of(number());
    (each(), each(), each(), each(), each(), each(), each())
        .prop_map(
            |(
                head_bytes,
                headers,
                uri_bytes,
                concurrent_streams,
                connections,
                connections_per_client,
                requests_per_connection,
            )| {
                ClientLimits {
                    head_bytes,
                    headers,
                    uri_bytes,
                    concurrent_streams,
                    connections,
                    connections_per_client,
                    requests_per_connection,
                }
            },
        )
        .boxed()
}

fn tls() -> BoxedStrategy<ClientTls> {
    let version = || of(select(vec![TlsVersion::Tls12, TlsVersion::Tls13]));
    let suites = of(subsequence(CipherSuite::ALL.to_vec(), 1..=CipherSuite::ALL.len()).prop_shuffle());
    let alpn = of(subsequence(HttpProtocol::ALL.to_vec(), 1..=2).prop_shuffle());
    (version(), version(), suites, alpn)
        .prop_map(|(minimum, maximum, cipher_suites, alpn)| ClientTls { minimum, maximum, cipher_suites, alpn })
        .boxed()
}

/// Any settings. Boxed in parts, as what is made of parts in place takes a lot of the stack.
pub fn settings() -> BoxedStrategy<ClientSettings> {
    let rate = (number(), duration()).prop_map(|(bytes_per_second, grace)| TransferRate { bytes_per_second, grace });
    let protocols = subsequence(HttpProtocol::ALL.to_vec(), 1..=2).prop_map(|list| list.into_iter().collect());
    let trust = prop_oneof![number().prop_map(Trust::Hops), networks().prop_map(Trust::Networks)];
    let address = (trust, select(vec![ForwardingHeader::XForwardedFor, ForwardingHeader::Forwarded]))
        .prop_map(|(trust, header)| ClientAddress { trust, header });
    let proxy = prop_oneof![Just(ProxyProtocol::Disabled), networks().prop_map(ProxyProtocol::Required)];
    (timeouts(), limits(), of(rate), of(protocols), tls(), of(address), of(proxy))
        .prop_map(|(timeouts, limits, minimum_transfer_rate, protocols, tls, client_address, proxy_protocol)| {
            ClientSettings { timeouts, limits, minimum_transfer_rate, protocols, tls, client_address, proxy_protocol }
        })
        .boxed()
}

fn check(policy: proto::ClientPolicy, error: &str) {
    let policy = proto::Policy { spec: Some(proto::policy::Spec::Client(policy)) };
    refused(POLICY, &policy, &format!("client.{error}"));
}

#[test]
fn a_client_policy_that_cannot_be_kept_is_refused_by_its_field() {
    let none = proto::ClientPolicy::default;
    let zero = Some(proto::Duration::default());
    let timeouts = Some(proto::ClientTimeouts { connection_idle: zero, ..proto::ClientTimeouts::default() });
    check(proto::ClientPolicy { timeouts, ..none() }, "timeouts.connection_idle: is 0");
    let limits = Some(proto::ClientLimits { headers: Some(0), ..proto::ClientLimits::default() });
    check(proto::ClientPolicy { limits, ..none() }, "limits.headers: is 0");
    let rate = Some(proto::MinimumTransferRate { bytes_per_second: 1, grace: None });
    check(
        proto::ClientPolicy { minimum_transfer_rate: rate, ..none() },
        &format!("minimum_transfer_rate.grace: {UNKNOWN}"),
    );
    check(proto::ClientPolicy { protocols: vec![1, 9], ..none() }, &format!("protocols[1]: {UNKNOWN}"));
    check(proto::ClientPolicy { protocols: vec![1, 1], ..none() }, "protocols[1]: repeats an earlier element");
    let tls = Some(proto::ClientTls { minimum: 9, ..proto::ClientTls::default() });
    check(proto::ClientPolicy { tls, ..none() }, &format!("tls.minimum: {UNKNOWN}"));
    let tls = Some(proto::ClientTls { cipher_suites: vec![0x1301, 0x0005], ..proto::ClientTls::default() });
    check(proto::ClientPolicy { tls, ..none() }, &format!("tls.cipher_suites[1]: {UNKNOWN}"));
}

#[test]
fn whom_a_client_policy_believes_is_never_left_open() {
    let networks = |texts: &[&str]| proto::Networks { networks: texts.iter().map(|text| (*text).to_owned()).collect() };
    let address = |trust, header| proto::ClientPolicy {
        client_address: Some(proto::ClientOrigin { trust, header }),
        ..proto::ClientPolicy::default()
    };
    check(address(None, 1), &format!("client_address.trust: {UNKNOWN}"));
    check(address(Some(proto::client_origin::Trust::Hops(0)), 1), "client_address.hops: is 0");
    check(address(Some(proto::client_origin::Trust::Hops(1)), 0), &format!("client_address.header: {UNKNOWN}"));
    let empty = proto::client_origin::Trust::Networks(networks(&[]));
    check(address(Some(empty), 1), "client_address.networks.networks: is empty");
    let proxy = |mode| proto::ClientPolicy {
        proxy_protocol: Some(proto::ProxyProtocol { mode }),
        ..proto::ClientPolicy::default()
    };
    check(proxy(None), &format!("proxy_protocol.mode: {UNKNOWN}"));
    check(
        proxy(Some(proto::proxy_protocol::Mode::Required(networks(&["10.0.0.0/8", "10.0.0.1/8"])))),
        "proxy_protocol.required.networks[1]: \"10.0.0.1/8\" has bits beyond its prefix, want 10.0.0.0/8",
    );
}

#[test]
fn a_policy_is_of_the_kind_that_its_key_names() {
    let policy = proto::Policy { spec: Some(proto::policy::Spec::Client(proto::ClientPolicy::default())) };
    refused("policy/rate-limit/shop/edge", &policy, "spec: is of another kind than its key");
}
