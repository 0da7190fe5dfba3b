//! Listeners: where the proxy accepts connections, and which hosts it serves there.

use std::{net::IpAddr, num::NonZeroU16};

use crate::{CertificateKey, HostPattern, ListenerKey, PolicyKey};

/// One listener. Several listeners may share a port as long as they differ in host (Gateway API: distinct listeners).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Its name.
    pub key: ListenerKey,
    /// The addresses to bind; empty for every address of the machine. Only standalone mode sets them.
    pub addresses: Vec<IpAddr>,
    /// The port to bind, as the Gateway names it.
    pub port: NonZeroU16,
    /// What is spoken there.
    pub protocol: ListenerProtocol,
    /// The hosts that it serves.
    pub hostname: HostPattern,
    /// For everything that it serves; at most one of a kind, sorted.
    pub policies: Vec<PolicyKey>,
}

/// What a listener speaks with its clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenerProtocol {
    /// HTTP/1.1 and HTTP/2 with prior knowledge, without TLS.
    Http,
    /// HTTP/1.1 and HTTP/2 over TLS that ends here.
    Https(TlsTermination),
}

/// How TLS ends at a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsTermination {
    /// The certificates to choose from, in the order of the listener's `certificateRefs`; at least one.
    pub certificates: Vec<CertificateKey>,
}
