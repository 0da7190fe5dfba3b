//! TLS at the listeners: which listener a ClientHello belongs to, and with which certificate it is answered.
//!
//! Invariant: one `ServerConfig` a listener, kept while its certificates stay, so that session tickets go on working.
//! TLS 1.3 alone, unless a ClientPolicy says otherwise; no early data.

use std::sync::Arc;

use control_plane_model::{Certificate, CipherSuite, ClientTls, HttpProtocol, TlsVersion};
use rustls::{
    ServerConfig, SupportedProtocolVersion,
    client::verify_server_name,
    crypto::CryptoProvider,
    pki_types::ServerName,
    server::{ClientHello, ParsedCertificate, ResolvesServerCert},
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};

/// A certificate that rustls does not take.
#[derive(Debug, thiserror::Error)]
#[error("certificate cannot be used")]
pub(crate) struct InvalidCertificate(#[source] rustls::Error);

/// Checks a certificate and loads its key.
///
/// # Errors: [`InvalidCertificate`] where the chain is empty or does not parse, or the key is of an unknown kind or
/// another certificate's.
pub(crate) fn certified_key(
    certificate: &Certificate,
    provider: &CryptoProvider,
) -> Result<Arc<CertifiedKey>, InvalidCertificate> {
    CertifiedKey::from_der(certificate.chain.clone(), certificate.private_key.clone_key(), provider)
        .map(Arc::new)
        .map_err(InvalidCertificate)
}

/// The TLS side of one listener.
#[derive(Debug)]
pub(crate) struct ListenerTls {
    certificates: Vec<Arc<CertifiedKey>>,
    settings: ClientTls,
    config: Arc<ServerConfig>,
}

impl ListenerTls {
    /// Serves `certificates`, preferring the first whose names cover what the client asks for, as `settings` says.
    ///
    /// # Errors: those of the crypto provider.
    pub(crate) fn new(
        certificates: Vec<Arc<CertifiedKey>>,
        settings: ClientTls,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, rustls::Error> {
        let resolver = Arc::new(CertificateChoice(certificates.clone()));
        let provider = match &settings.cipher_suites {
            None => provider.clone(),
            Some(suites) => Arc::new(with_suites(provider, suites)),
        };
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions(&settings))?
            .with_no_client_auth()
            .with_cert_resolver(resolver);
        let alpn = settings.alpn.as_deref().unwrap_or(&[HttpProtocol::Http2, HttpProtocol::Http1]);
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.alpn().into()).collect();
        config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
        Ok(Self { certificates, settings, config: Arc::new(config) })
    }

    /// What the handshake needs.
    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        self.config.clone()
    }

    /// Whether it serves exactly these certificates in this way.
    pub(crate) fn serves(&self, certificates: &[Arc<CertifiedKey>], settings: &ClientTls) -> bool {
        self.settings == *settings
            && self.certificates.len() == certificates.len()
            && self.certificates.iter().zip(certificates).all(|(mine, other)| Arc::ptr_eq(mine, other))
    }
}

/// The versions that are spoken.
fn versions(settings: &ClientTls) -> &'static [&'static SupportedProtocolVersion] {
    static BOTH: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
    static OLD: [&SupportedProtocolVersion; 1] = [&TLS12];
    static NEW: [&SupportedProtocolVersion; 1] = [&TLS13];
    match (settings.minimum, settings.maximum) {
        (_, Some(TlsVersion::Tls12)) => &OLD,
        (Some(TlsVersion::Tls12), _) => &BOTH,
        _ => &NEW,
    }
}

/// `provider` with `suites` alone, the most wanted first.
fn with_suites(provider: &CryptoProvider, suites: &[CipherSuite]) -> CryptoProvider {
    let find = |wanted: &CipherSuite| {
        let known = provider.cipher_suites.iter();
        known.copied().find(|suite| u16::from(suite.suite()) == wanted.code())
    };
    CryptoProvider { cipher_suites: suites.iter().filter_map(find).collect(), ..provider.clone() }
}

/// A listener's certificates, in the order of its `certificateRefs`.
#[derive(Debug)]
struct CertificateChoice(Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for CertificateChoice {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let wanted = hello.server_name().and_then(|name| ServerName::try_from(name).ok());
        let covering = wanted.and_then(|name| {
            self.0.iter().find(|key| {
                let leaf = key.cert.first().and_then(|leaf| ParsedCertificate::try_from(leaf).ok());
                leaf.is_some_and(|leaf| verify_server_name(&leaf, &name).is_ok())
            })
        });
        covering.or_else(|| self.0.first()).cloned()
    }
}
