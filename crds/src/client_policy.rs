//! `ClientPolicy`: what a listener grants its clients. For Gateways and listeners; nothing is below those, so it has no overrides.

use kube_derive::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::policy::{PolicyStatus, TargetReference};

/// What a listener grants its clients.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = Rule::new("self.targetRefs.all(target, target.group == 'gateway.networking.k8s.io' && \
         target.kind in ['Gateway', 'ListenerSet'])")
        .message("targetRefs may name Gateway and ListenerSet of gateway.networking.k8s.io")
)]
#[kube(
    group = "nebula.dev",
    version = "v1alpha1",
    kind = "ClientPolicy",
    plural = "clientpolicies",
    shortname = "clp",
    category = "nebula",
    namespaced,
    status = "PolicyStatus",
    derive = "Default",
    derive = "PartialEq",
    doc = "ClientPolicy says what a listener grants its clients: limits and timeouts, protocols, versions and cipher suites of TLS, connections, and which proxies in front are believed about a client's address. It is attached to Gateways and listeners; of both, the listener's wins field by field. What neither says is the proxy's default, which is safe on the open internet.",
    crates(kube_core = "::kube_core"),
    printcolumn = r#"{"name": "Accepted", "type": "string", "jsonPath": ".status.ancestors[*].conditions[?(@.type==\"Accepted\")].status", "description": "Whether it is honoured, for each Gateway"}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#
)]
pub struct ClientPolicySpec {
    /// What the policy is attached to: a Gateway or ListenerSet (`sectionName`: one listener).
    #[schemars(length(min = 1, max = 16))]
    pub target_refs: Vec<TargetReference>,
    /// How long a client may take. Enforced at most half a second late.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<ClientTimeouts>,
    /// How much a client may ask of a connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<ClientLimits>,
    /// How fast a request's body must come, on average over the time that the proxy waits for it. A client that is slower is
    /// answered with 408. Default: any rate will do, as long as no pause is longer than `timeouts.requestBodyIdle`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum_transfer_rate: Option<MinimumTransferRate>,
    /// What is spoken. A request in another version of HTTP is answered with 505. Default: all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2))]
    pub protocols: Vec<HttpProtocol>,
    /// How TLS is spoken, where the listener has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ClientTls>,
    /// Which proxies in front are believed about a client's address. Without it none is, and the client is who connects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_address: Option<ClientAddress>,
    /// Whether connections begin with the client's address, as load balancers write it. Default: they do not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<ProxyProtocol>,
}

/// How long a client may take. Each a duration such as `500ms`, `10s` or `1h`, from 100ms to 24h.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientTimeouts {
    /// From the first byte of a request's head to its last; with the PROXY protocol also for that. The connection is closed
    /// then. Default: 10s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"))]
    pub request_head: Option<String>,
    /// Between two pieces of a request's body, until its response begins. Answered with 408 then. Default: 30s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"))]
    pub request_body_idle: Option<String>,
    /// How long a client may take none of a response that is ready. The response breaks off then. Default: 30s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"))]
    pub response_idle: Option<String>,
    /// Between two requests of a connection, and before the first one. The connection is closed then. Default: 75s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"))]
    pub connection_idle: Option<String>,
    /// From the connection accepted to the TLS handshake done. The connection is closed then. Default: 10s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"))]
    pub tls_handshake: Option<String>,
}

/// How much a client may ask of a connection.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientLimits {
    /// Bytes of a request's head. Above: 431. Default: 65536.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1024, max = 1_048_576))]
    pub head_bytes: Option<i32>,
    /// Fields in a request's head. Above: 431. Default: 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 1000))]
    pub headers: Option<i32>,
    /// Bytes of path and query. Above: 414. Default: 8192.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 64, max = 32_768))]
    pub uri_bytes: Option<i32>,
    /// Streams open at once on one HTTP/2 connection. What is above is refused, to be tried again. Default: 128.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub concurrent_streams: Option<i32>,
    /// Connections open at once at the listener's address and port, in each proxy. Above: new ones are closed. Default: only
    /// the proxy's own limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub connections: Option<i32>,
    /// Connections of one client's address open at once, in each proxy; of an IPv6 address the first 64 bits count. With the
    /// PROXY protocol the address is the one that it tells. Above: new ones are closed. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub connections_per_client: Option<i32>,
    /// Requests of one connection over its life; then the client is told to open a new one. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub requests_per_connection: Option<i32>,
}

/// The least that must come on average.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MinimumTransferRate {
    /// So many bytes for each second that the proxy waits for the client.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub bytes_per_second: i32,
    /// How much of that time is not counted, from 100ms to 24h. Default: 10s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"))]
    pub grace: Option<String>,
}

/// A version of HTTP.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum HttpProtocol {
    /// HTTP/1.1 and 1.0.
    #[serde(rename = "HTTP/1.1")]
    Http1,
    /// HTTP/2, over TLS or with prior knowledge.
    #[serde(rename = "HTTP/2")]
    Http2,
}

/// How TLS is spoken.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = Rule::new("!has(self.minVersion) || !has(self.maxVersion) || self.minVersion <= self.maxVersion")
        .message("maxVersion is below minVersion")
)]
pub struct ClientTls {
    /// The oldest version. Default: TLSv1.3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_version: Option<TlsVersion>,
    /// The newest version. Default: TLSv1.3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_version: Option<TlsVersion>,
    /// What may be used, the most wanted first. Default: every one, those of TLS 1.3 and those with AES-256 first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 9))]
    pub cipher_suites: Vec<CipherSuite>,
    /// What is offered by ALPN, the most wanted first; what `protocols` leaves out is not offered. Default: h2, http/1.1.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2))]
    pub alpn: Vec<AlpnProtocol>,
}

/// A version of TLS.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TlsVersion {
    /// RFC 5246.
    #[serde(rename = "TLSv1.2")]
    Tls12,
    /// RFC 8446.
    #[serde(rename = "TLSv1.3")]
    Tls13,
}

/// A cipher suite by its IANA name: those of TLS 1.3, and those of TLS 1.2 with forward secrecy and authenticated encryption.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum CipherSuite {
    /// TLS 1.3.
    #[serde(rename = "TLS_AES_256_GCM_SHA384")]
    Aes256Gcm,
    /// TLS 1.3.
    #[serde(rename = "TLS_AES_128_GCM_SHA256")]
    Aes128Gcm,
    /// TLS 1.3.
    #[serde(rename = "TLS_CHACHA20_POLY1305_SHA256")]
    Chacha20,
    /// TLS 1.2, for certificates with an ECDSA or Ed25519 key.
    #[serde(rename = "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384")]
    EcdsaAes256Gcm,
    /// TLS 1.2, for certificates with an ECDSA or Ed25519 key.
    #[serde(rename = "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256")]
    EcdsaAes128Gcm,
    /// TLS 1.2, for certificates with an ECDSA or Ed25519 key.
    #[serde(rename = "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256")]
    EcdsaChacha20,
    /// TLS 1.2, for certificates with an RSA key.
    #[serde(rename = "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384")]
    RsaAes256Gcm,
    /// TLS 1.2, for certificates with an RSA key.
    #[serde(rename = "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256")]
    RsaAes128Gcm,
    /// TLS 1.2, for certificates with an RSA key.
    #[serde(rename = "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256")]
    RsaChacha20,
}

/// A protocol that ALPN offers.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AlpnProtocol {
    /// HTTP/2.
    #[serde(rename = "h2")]
    Http2,
    /// HTTP/1.1.
    #[serde(rename = "http/1.1")]
    Http1,
}

/// Which proxies in front are believed about a client's address. What they say is the client's address for policies, logs and
/// backends; everything else that a request says about it is dropped.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = Rule::new("has(self.trustedHops) != has(self.trustedNetworks)")
        .message("exactly one of trustedHops and trustedNetworks is needed")
)]
pub struct ClientAddress {
    /// How many proxies are in front, whoever they are: each wrote down who asked it, so the client is the entry at this place
    /// from the right. Only where no client can reach the listener past them; else use `trustedNetworks`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 16))]
    pub trusted_hops: Option<i32>,
    /// The networks that the proxies in front are in, such as `10.0.0.0/8`. The client is the first address from the right
    /// that is in none of them, beginning with the one that connects.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 49)))]
    pub trusted_networks: Vec<String>,
    /// The header in which the proxies write it. The other one is not read. Default: XForwardedFor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<ForwardingHeader>,
}

/// A header in which a proxy writes down for whom it asks.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ForwardingHeader {
    /// `X-Forwarded-For`, with `X-Forwarded-Proto` and `X-Forwarded-Host`.
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

/// The PROXY protocol, versions 1 and 2.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = Rule::new("(self.mode == 'Required') == has(self.trustedNetworks)")
        .message("trustedNetworks is for mode Required, which needs it")
)]
pub struct ProxyProtocol {
    /// Whether connections begin with it.
    pub mode: ProxyProtocolMode,
    /// The networks of the load balancers, such as `10.0.0.0/8`. A connection from elsewhere is closed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 49)))]
    pub trusted_networks: Vec<String>,
}

/// Whether connections begin with the PROXY protocol.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ProxyProtocolMode {
    /// They do not.
    Disabled,
    /// They do. One that does not, or whose header is malformed, is closed.
    Required,
}
