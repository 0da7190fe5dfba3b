//! What a listener grants its clients: the ClientPolicies on its way, compiled.
//!
//! Invariants: where no policy says anything, a listener shares the process's own [`Limits`] and costs its requests nothing.
//! What has to be decided before a listener is known (by the server name, or by the host of a plain request) is decided by
//! the socket, whose limits are the strictest of its listeners'.

mod connections;
mod proxy_protocol;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use control_plane_model::{
    ClientAddress, ClientSettings, ClientTls, HttpProtocol, Network, Policy, PolicyKey, PolicyKind, ProxyProtocol,
    effective_client,
};
use http::Version;
use tokio::io::AsyncRead;

pub(crate) use self::connections::{Admission, Connections};
pub(crate) use self::proxy_protocol::InvalidHeader;
use crate::{limits::Limits, telemetry::PortMetrics};

/// The longest time that a policy may set.
const LONGEST: Duration = Duration::from_hours(24);

/// What one listener grants its clients.
#[derive(Debug)]
pub(crate) struct ClientRuntime {
    settings: ClientSettings,
    pub(crate) limits: Arc<Limits>,
}

impl ClientRuntime {
    /// What `chain` says, the least specific first, over `base`. What in it contradicts itself is left out: the listener's
    /// requests are answered with 500 then, see [`contradiction`].
    pub(crate) fn new<'a>(chain: impl IntoIterator<Item = &'a Policy>, base: &Arc<Limits>) -> Self {
        let mut settings = effective_client(chain).settings;
        if settings.clone().complete().contradiction().is_some() {
            settings.tls = ClientTls::default();
            settings.protocols = None;
        }
        let limits = laid_over(base, &settings);
        let limits = if limits == **base { base.clone() } else { Arc::new(limits) };
        Self { settings, limits }
    }

    /// Whether it is what `other` is.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.settings == other.settings
    }

    /// Whether requests of this version are served.
    pub(crate) fn speaks(&self, version: Version) -> bool {
        let Some(protocols) = &self.settings.protocols else { return true };
        protocols.contains(if version < Version::HTTP_2 { &HttpProtocol::Http1 } else { &HttpProtocol::Http2 })
    }

    /// Whom to believe about a client's address.
    pub(crate) fn address(&self) -> Option<&ClientAddress> {
        self.settings.client_address.as_ref()
    }

    /// How TLS is spoken; ALPN offers what is spoken alone.
    pub(crate) fn tls(&self) -> ClientTls {
        let ClientSettings { mut tls, protocols, .. } = self.settings.clone().complete();
        if let (Some(alpn), Some(protocols)) = (&mut tls.alpn, protocols) {
            alpn.retain(|protocol| protocols.contains(protocol));
        }
        tls
    }

    /// The networks that connections with a PROXY header come from, where there must be one.
    fn proxies(&self) -> Option<&Arc<[Network]>> {
        match self.settings.proxy_protocol.as_ref()? {
            ProxyProtocol::Disabled => None,
            ProxyProtocol::Required(networks) => Some(networks),
        }
    }
}

/// The ClientPolicy whose settings do not hold together with those before it in `chain`, and why.
pub(crate) fn contradiction(chain: &[Arc<Policy>]) -> Option<(PolicyKey, String)> {
    let last = chain.iter().rfind(|policy| policy.key.kind == PolicyKind::Client)?;
    let settings = effective_client(chain.iter().map(|policy| &**policy)).settings;
    settings.complete().contradiction().map(|message| (last.key.clone(), message))
}

/// `base` with what `settings` says in its place.
fn laid_over(base: &Limits, settings: &ClientSettings) -> Limits {
    fn put<T>(place: &mut T, value: Option<T>) {
        if let Some(value) = value {
            *place = value;
        }
    }
    let size = |number: Option<std::num::NonZeroU32>| number.and_then(|number| usize::try_from(number.get()).ok());
    let mut limits = base.clone();
    let time = |duration: Option<Duration>| duration.map(|duration| duration.min(LONGEST));
    let timeouts = &settings.timeouts;
    put(&mut limits.header_read_timeout, time(timeouts.request_head));
    put(&mut limits.request_body_idle_timeout, time(timeouts.request_body_idle));
    put(&mut limits.response_write_idle_timeout, time(timeouts.response_idle));
    put(&mut limits.downstream_idle_timeout, time(timeouts.connection_idle));
    put(&mut limits.tls_handshake_timeout, time(timeouts.tls_handshake));
    let counts = &settings.limits;
    put(&mut limits.max_head_bytes, size(counts.head_bytes));
    put(&mut limits.max_headers, size(counts.headers));
    put(&mut limits.max_uri_bytes, size(counts.uri_bytes));
    put(&mut limits.h2_max_concurrent_streams, counts.concurrent_streams.map(std::num::NonZeroU32::get));
    put(&mut limits.max_connections_per_socket, size(counts.connections));
    put(&mut limits.max_connections_per_client, size(counts.connections_per_client));
    put(&mut limits.max_requests_per_connection, counts.requests_per_connection.map(std::num::NonZeroU32::get));
    if settings.minimum_transfer_rate.is_some() {
        limits.minimum_transfer_rate = settings.minimum_transfer_rate;
    }
    limits
}

/// The strictest of both, of what a policy may set.
fn strictest(one: &Limits, other: &Limits) -> Limits {
    macro_rules! least {
        ($($field:ident)*) => {
            Limits { $($field: one.$field.min(other.$field),)* ..one.clone() }
        };
    }
    least! {
        header_read_timeout request_body_idle_timeout response_write_idle_timeout downstream_idle_timeout
        tls_handshake_timeout max_head_bytes max_headers max_uri_bytes h2_max_concurrent_streams
        max_connections_per_socket max_connections_per_client max_requests_per_connection
    }
}

/// What holds for every connection of one socket.
#[derive(Debug)]
pub(crate) struct PortRuntime {
    pub(crate) metrics: Arc<PortMetrics>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) connections: Arc<Connections>,
    /// Of each listener that requires the PROXY protocol; none: nobody does.
    proxies: Vec<Arc<[Network]>>,
}

impl PortRuntime {
    /// A socket without listeners.
    pub(crate) fn new(metrics: Arc<PortMetrics>, limits: Arc<Limits>, connections: Arc<Connections>) -> Self {
        Self { metrics, limits, connections, proxies: Vec::new() }
    }

    /// Adds a listener; `is_first` for the first one, whose limits are the socket's.
    pub(crate) fn add(&mut self, client: &ClientRuntime, is_first: bool) {
        if is_first {
            self.limits = client.limits.clone();
        } else if *self.limits != *client.limits {
            self.limits = Arc::new(strictest(&self.limits, &client.limits));
        }
        self.proxies.extend(client.proxies().cloned());
    }

    /// Whether connections begin with a PROXY header.
    pub(crate) fn has_proxy_protocol(&self) -> bool {
        !self.proxies.is_empty()
    }

    /// The client of a connection from `peer` that begins with a PROXY header.
    ///
    /// # Errors: why the connection must end.
    pub(crate) async fn proxied(
        &self,
        stream: &mut (impl AsyncRead + Unpin),
        peer: SocketAddr,
    ) -> Result<SocketAddr, Unproxied> {
        if !self.proxies.iter().all(|networks| networks.iter().any(|network| network.contains(peer.ip()))) {
            return Err(Unproxied::Untrusted);
        }
        let limit = self.limits.header_read_timeout;
        let header = tokio::time::timeout(limit, proxy_protocol::read(stream)).await;
        Ok(header.map_err(|_| Unproxied::Late(limit))??.unwrap_or(peer))
    }
}

/// Why a connection ends before it begins.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unproxied {
    #[error("the PROXY protocol is not taken from this address")]
    Untrusted,
    #[error("no PROXY header within {0:?}")]
    Late(Duration),
    #[error(transparent)]
    Invalid(#[from] InvalidHeader),
}

#[cfg(test)]
mod tests {
    use control_plane_model::{ClientLimits, ClientTimeouts, ObjectName, PolicySpec, TlsVersion};

    use super::*;

    fn policy(name: &str, settings: ClientSettings) -> Policy {
        let key = PolicyKey { kind: PolicyKind::Client, name: ObjectName::new("a", name) };
        Policy { key, spec: PolicySpec::Client(settings) }
    }

    fn head_within(seconds: u64) -> ClientSettings {
        let timeouts = ClientTimeouts { request_head: Some(Duration::from_secs(seconds)), ..ClientTimeouts::default() };
        ClientSettings { timeouts, ..ClientSettings::default() }
    }

    #[test]
    fn without_policies_the_limits_are_shared() {
        let base = Arc::new(Limits::default());
        assert!(Arc::ptr_eq(&ClientRuntime::new([], &base).limits, &base));
    }

    #[test]
    fn a_listeners_policy_wins_field_by_field() {
        let headers = ClientLimits { headers: Some(50.try_into().unwrap()), ..ClientLimits::default() };
        let gateway = policy("gateway", ClientSettings { limits: headers, ..head_within(9) });
        let listener = policy("listener", head_within(3));
        let runtime = ClientRuntime::new([&gateway, &listener], &Arc::default());
        assert_eq!(runtime.limits.header_read_timeout, Duration::from_secs(3));
        assert_eq!(runtime.limits.max_headers, 50);
    }

    #[test]
    fn a_socket_has_the_strictest_limits_of_its_listeners() {
        let base = Arc::new(Limits::default());
        let [slow, quick] = [20, 3].map(|seconds| ClientRuntime::new([&policy("p", head_within(seconds))], &base));
        let metrics = crate::telemetry::Metrics::register(&mut prometheus_client::registry::Registry::default());
        let mut port = PortRuntime::new(metrics.port(80), base, Arc::default());
        port.add(&slow, true);
        assert_eq!(port.limits.header_read_timeout, Duration::from_secs(20), "as its only listener has it");
        port.add(&quick, false);
        assert_eq!(port.limits.header_read_timeout, Duration::from_secs(3));
    }

    #[test]
    fn what_only_contradicts_together_is_the_more_specific_policys_fault_and_left_out() {
        let tls = |tls| ClientSettings { tls, ..ClientSettings::default() };
        let minimum = ClientTls { minimum: Some(TlsVersion::Tls13), ..ClientTls::default() };
        let maximum = ClientTls { maximum: Some(TlsVersion::Tls12), ..ClientTls::default() };
        let chain = [Arc::new(policy("gateway", tls(minimum))), Arc::new(policy("listener", tls(maximum)))];
        assert_eq!(contradiction(&chain[..1]), None);
        let (key, message) = contradiction(&chain).unwrap();
        assert_eq!(&*key.name.name, "listener");
        assert_eq!(message, "tls.maxVersion: TLSv1.2 is below the oldest version, TLSv1.3");
        let runtime = ClientRuntime::new(chain.iter().map(|policy| &**policy), &Arc::default());
        assert_eq!(runtime.tls().maximum, Some(TlsVersion::Tls13));
    }
}
