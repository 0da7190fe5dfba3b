//! What a listener grants its clients: limits, timeouts, protocols, TLS, and whom it believes about where they come from.
//!
//! Invariant: nothing here is needed; what no policy says is the proxy's own default, which is safe on the open internet.

use std::{collections::BTreeSet, num::NonZeroU32, sync::Arc, time::Duration};

use super::{Mode, Settings, merge::scalar};
use crate::Network;

/// The settings of a ClientPolicy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientSettings {
    /// How long a client may take.
    pub timeouts: ClientTimeouts,
    /// How much a client may ask of a connection.
    pub limits: ClientLimits,
    /// How fast a request's body must come.
    pub minimum_transfer_rate: Option<TransferRate>,
    /// What is spoken. Never empty.
    pub protocols: Option<BTreeSet<HttpProtocol>>,
    /// How TLS is spoken, where the listener has it.
    pub tls: ClientTls,
    /// Whom to believe about a client's address.
    pub client_address: Option<ClientAddress>,
    /// Whether connections begin with the address of the client.
    pub proxy_protocol: Option<ProxyProtocol>,
}

/// How long a client may take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientTimeouts {
    /// From the first byte of a request's head to its last.
    pub request_head: Option<Duration>,
    /// Between two pieces of a request's body.
    pub request_body_idle: Option<Duration>,
    /// How long it may take none of a response that is ready.
    pub response_idle: Option<Duration>,
    /// Between two requests of a connection, and before the first one.
    pub connection_idle: Option<Duration>,
    /// From the connection accepted to the TLS handshake done.
    pub tls_handshake: Option<Duration>,
}

/// How much a client may ask of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientLimits {
    /// Bytes of a request's head.
    pub head_bytes: Option<NonZeroU32>,
    /// Fields in a request's head.
    pub headers: Option<NonZeroU32>,
    /// Bytes of path and query.
    pub uri_bytes: Option<NonZeroU32>,
    /// Streams open at once on one HTTP/2 connection.
    pub concurrent_streams: Option<NonZeroU32>,
    /// Connections open at once at the listener's socket, in each proxy.
    pub connections: Option<NonZeroU32>,
    /// Those of one client's address, of an IPv6 one its first 64 bits.
    pub connections_per_client: Option<NonZeroU32>,
    /// Requests of one connection, over its life.
    pub requests_per_connection: Option<NonZeroU32>,
}

/// The least that must come on average, while the proxy waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransferRate {
    /// So many bytes for each second of waiting.
    pub bytes_per_second: NonZeroU32,
    /// A time of waiting that is not counted.
    pub grace: Duration,
}

/// A version of HTTP, as a client's connection speaks it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HttpProtocol {
    /// HTTP/1.1 and 1.0.
    Http1,
    /// HTTP/2.
    Http2,
}

impl HttpProtocol {
    /// Every one of them.
    pub const ALL: [Self; 2] = [Self::Http1, Self::Http2];

    /// Its name in ALPN (RFC 7301 §6).
    pub const fn alpn(self) -> &'static str {
        match self {
            Self::Http1 => "http/1.1",
            Self::Http2 => "h2",
        }
    }
}

/// How TLS is spoken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientTls {
    /// The oldest version.
    pub minimum: Option<TlsVersion>,
    /// The newest version.
    pub maximum: Option<TlsVersion>,
    /// What may be used, the most wanted first. Never empty.
    pub cipher_suites: Option<Vec<CipherSuite>>,
    /// What is offered by ALPN, the most wanted first; only what `protocols` has of it is. Never empty.
    pub alpn: Option<Vec<HttpProtocol>>,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TlsVersion {
    /// RFC 5246.
    Tls12,
    /// RFC 8446.
    Tls13,
}

impl TlsVersion {
    /// As the custom resource spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tls12 => "TLSv1.2",
            Self::Tls13 => "TLSv1.3",
        }
    }
}

macro_rules! cipher_suites {
    ($($name:ident $text:literal $code:literal $version:ident;)*) => {
        /// A cipher suite: those of TLS 1.3, and those of TLS 1.2 with forward secrecy and authenticated encryption.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum CipherSuite {
            $(
                #[doc = $text]
                $name,
            )*
        }

        impl CipherSuite {
            /// Every one of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Its name in the IANA registry.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// Its code point in the IANA registry.
            pub const fn code(self) -> u16 {
                match self { $(Self::$name => $code,)* }
            }

            /// The version that it belongs to.
            pub const fn version(self) -> TlsVersion {
                match self { $(Self::$name => TlsVersion::$version,)* }
            }
        }
    };
}

cipher_suites! {
    Aes256Gcm "TLS_AES_256_GCM_SHA384" 0x1302 Tls13;
    Aes128Gcm "TLS_AES_128_GCM_SHA256" 0x1301 Tls13;
    Chacha20 "TLS_CHACHA20_POLY1305_SHA256" 0x1303 Tls13;
    EcdsaAes256Gcm "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384" 0xc02c Tls12;
    EcdsaAes128Gcm "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256" 0xc02b Tls12;
    EcdsaChacha20 "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256" 0xcca9 Tls12;
    RsaAes256Gcm "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384" 0xc030 Tls12;
    RsaAes128Gcm "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256" 0xc02f Tls12;
    RsaChacha20 "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256" 0xcca8 Tls12;
}

/// Whom to believe about a client's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientAddress {
    /// Which of the proxies in front.
    pub trust: Trust,
    /// Where they write it.
    pub header: ForwardingHeader,
}

/// The proxies in front that are believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// So many, the one that connects included.
    Hops(NonZeroU32),
    /// Those with an address in one of these. Never empty.
    Networks(Arc<[Network]>),
}

/// The field in which a proxy writes down for whom it asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForwardingHeader {
    /// `X-Forwarded-For`, with `X-Forwarded-Proto` and `X-Forwarded-Host`.
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

/// Whether connections begin with the client's address (the PROXY protocol, versions 1 and 2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// They do not.
    Disabled,
    /// They do, and come from one of these networks. Never empty.
    Required(Arc<[Network]>),
}

impl ClientSettings {
    /// With the defaults of those settings that have to go together.
    #[must_use]
    pub fn complete(mut self) -> Self {
        self.protocols.get_or_insert_with(|| HttpProtocol::ALL.into());
        self.tls.minimum.get_or_insert(TlsVersion::Tls13);
        self.tls.maximum.get_or_insert(TlsVersion::Tls13);
        self.tls.alpn.get_or_insert_with(|| vec![HttpProtocol::Http2, HttpProtocol::Http1]);
        self
    }

    /// Which of the settings that are there cannot hold together: the field's path, and why.
    pub fn contradiction(&self) -> Option<String> {
        let ClientTls { minimum, maximum, cipher_suites, alpn } = &self.tls;
        if let (Some(minimum), Some(maximum)) = (minimum, maximum)
            && minimum > maximum
        {
            let (minimum, maximum) = (minimum.as_str(), maximum.as_str());
            return Some(format!("tls.maxVersion: {maximum} is below the oldest version, {minimum}"));
        }
        if let Some(suites) = cipher_suites {
            let is_usable = |suite: &CipherSuite| {
                minimum.is_none_or(|minimum| minimum <= suite.version())
                    && maximum.is_none_or(|maximum| suite.version() <= maximum)
            };
            if !suites.iter().any(is_usable) {
                return Some("tls.cipherSuites: none of them belongs to a version of TLS that is spoken".to_owned());
            }
        }
        if let (Some(protocols), Some(alpn)) = (&self.protocols, alpn)
            && !alpn.iter().any(|protocol| protocols.contains(protocol))
        {
            return Some("tls.alpn: none of them is among the protocols that are spoken".to_owned());
        }
        None
    }
}

impl Settings for ClientSettings {
    fn lay(&mut self, over: &Self, took: &mut dyn FnMut(String)) {
        macro_rules! lay {
            ($($($field:ident).+ $path:literal;)*) => {
                $(scalar(&mut self.$($field).+, over.$($field).+.as_ref(), $path, took);)*
            };
        }
        lay! {
            timeouts.request_head "timeouts.requestHead";
            timeouts.request_body_idle "timeouts.requestBodyIdle";
            timeouts.response_idle "timeouts.responseIdle";
            timeouts.connection_idle "timeouts.connectionIdle";
            timeouts.tls_handshake "timeouts.tlsHandshake";
            limits.head_bytes "limits.headBytes";
            limits.headers "limits.headers";
            limits.uri_bytes "limits.uriBytes";
            limits.concurrent_streams "limits.concurrentStreams";
            limits.connections "limits.connections";
            limits.connections_per_client "limits.connectionsPerClient";
            limits.requests_per_connection "limits.requestsPerConnection";
            minimum_transfer_rate "minimumTransferRate";
            protocols "protocols";
            tls.minimum "tls.minVersion";
            tls.maximum "tls.maxVersion";
            tls.cipher_suites "tls.cipherSuites";
            tls.alpn "tls.alpn";
            client_address "clientAddress";
            proxy_protocol "proxyProtocol";
        }
    }

    fn is_disabled(&self) -> bool {
        false
    }

    fn mode(&self) -> Mode {
        Mode::Enforce
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tls(tls: ClientTls) -> ClientSettings {
        ClientSettings { tls, ..ClientSettings::default() }
    }

    #[test]
    fn what_is_left_out_contradicts_nothing_until_the_defaults_stand_in_for_it() {
        let old = tls(ClientTls { maximum: Some(TlsVersion::Tls12), ..ClientTls::default() });
        assert_eq!(old.contradiction(), None);
        let contradiction = old.complete().contradiction();
        assert_eq!(contradiction.as_deref(), Some("tls.maxVersion: TLSv1.2 is below the oldest version, TLSv1.3"));
        assert_eq!(ClientSettings::default().complete().contradiction(), None);
    }

    #[test]
    fn suites_and_protocols_that_are_never_spoken_are_a_contradiction() {
        let suites = |suites: &[CipherSuite], minimum| {
            tls(ClientTls { cipher_suites: Some(suites.to_vec()), minimum, ..ClientTls::default() })
        };
        let old = [CipherSuite::EcdsaAes128Gcm];
        assert!(suites(&old, None).complete().contradiction().is_some());
        assert_eq!(suites(&old, Some(TlsVersion::Tls12)).complete().contradiction(), None);
        assert_eq!(
            suites(&[CipherSuite::EcdsaAes128Gcm, CipherSuite::Aes128Gcm], None).complete().contradiction(),
            None
        );
        let alpn = ClientSettings {
            protocols: Some([HttpProtocol::Http1].into()),
            ..tls(ClientTls { alpn: Some(vec![HttpProtocol::Http2]), ..ClientTls::default() })
        };
        assert!(alpn.contradiction().is_some());
    }
}
