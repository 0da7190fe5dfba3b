//! TLS at the listeners: version, certificate by server name, reload, misdirected requests.

use std::{num::NonZeroU16, sync::Arc, time::Duration};

use bytes::Bytes;
use control_plane_model::{
    AttachedHost, BackendProtocol, Certificate, CertificateKey, CipherSuite, ClientSettings, ClientTimeouts, ClientTls,
    HostPattern, HttpProtocol, Listener, ListenerKey, ListenerProtocol, ObjectName, ProxyProtocol, Resource, Route,
    RouteKey, RouteKind, TlsTermination, TlsVersion,
};
use http::{Request, StatusCode};
use http_body_util::Full;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{PrivateKeyDer, ServerName},
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::clients::{policy, policy_key};
use crate::harness::{Proxy, backend, collect, listener_key, rule, saying, spawn};

/// A self-signed certificate for one name.
fn certificate(secret: &str, host: &str) -> Certificate {
    let made = rcgen::generate_simple_self_signed([host.to_owned()]).unwrap();
    Certificate {
        key: CertificateKey(ObjectName::new("test", secret)),
        chain: vec![made.cert.der().clone()],
        private_key: PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap(),
    }
}

fn key(name: &str) -> ListenerKey {
    ListenerKey { name: name.into(), ..listener_key() }
}

fn https(name: &str, port: NonZeroU16, hostname: &str, secrets: &[&str]) -> Resource {
    let certificates = secrets.iter().map(|secret| CertificateKey(ObjectName::new("test", *secret))).collect();
    Resource::Listener(Arc::new(Listener {
        key: key(name),
        addresses: vec![std::net::Ipv4Addr::LOCALHOST.into()],
        port,
        protocol: ListenerProtocol::Https(TlsTermination { certificates }),
        hostname: HostPattern::parse(hostname).unwrap(),
        policies: Vec::new(),
    }))
}

fn route_to(name: &str, listener: &str, host: &str) -> Resource {
    let host = HostPattern::parse(host).unwrap();
    Resource::Route(Arc::new(Route {
        key: RouteKey { kind: RouteKind::Http, name: ObjectName::new("test", name) },
        created: 0,
        attachments: vec![control_plane_model::Attachment {
            listener: key(listener),
            hosts: vec![AttachedHost { served: host.clone(), declared: host }],
        }],
        rules: vec![rule("/", &[("one", 1)])],
        policies: Vec::new(),
    }))
}

/// Two HTTPS listeners on one port, for `a.test` and `*.b.test`.
async fn two_listeners() -> Proxy {
    let proxy = Proxy::start_closed(backend("one", BackendProtocol::Http1, &[saying("secret").await])).await;
    let refused = proxy
        .upsert([
            Resource::Certificate(Arc::new(certificate("a", "a.test"))),
            Resource::Certificate(Arc::new(certificate("b", "*.b.test"))),
            https("a", proxy.port, "a.test", &["a"]),
            https("b", proxy.port, "*.b.test", &["b"]),
            route_to("a", "a", "a.test"),
            route_to("b", "b", "*.b.test"),
        ])
        .await;
    assert_eq!(refused, []);
    proxy
}

/// A handshake that takes any certificate, which the caller then looks at.
async fn handshake(proxy: &Proxy, name: &str, protocol: &[u8]) -> std::io::Result<TlsStream<tokio::net::TcpStream>> {
    handshake_with(proxy, name, protocol, rustls::DEFAULT_VERSIONS).await
}

async fn handshake_with(
    proxy: &Proxy,
    name: &str,
    protocol: &[u8],
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> std::io::Result<TlsStream<tokio::net::TcpStream>> {
    shake(proxy.connect().await, name, protocol, versions).await
}

async fn shake(
    stream: tokio::net::TcpStream,
    name: &str,
    protocol: &[u8],
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> std::io::Result<TlsStream<tokio::net::TcpStream>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    config.dangerous().set_certificate_verifier(Arc::new(AnyCertificate));
    config.alpn_protocols = vec![protocol.to_vec()];
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

async fn leaf(proxy: &Proxy, name: &str) -> Vec<u8> {
    let stream = handshake(proxy, name, b"h2").await.unwrap();
    let (_, session) = stream.get_ref();
    assert_eq!(session.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    session.peer_certificates().unwrap()[0].to_vec()
}

async fn get(proxy: &Proxy, server_name: &str, host: &str) -> http::Response<Bytes> {
    let stream = handshake(proxy, server_name, b"h2").await.unwrap();
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    spawn(async move { drop(connection.await) });
    let request = Request::get(format!("https://{host}/")).body(Full::<Bytes>::default()).unwrap();
    collect(client.send_request(request).await.unwrap()).await
}

#[tokio::test]
async fn the_server_name_chooses_listener_and_certificate() {
    let proxy = two_listeners().await;
    assert_ne!(leaf(&proxy, "a.test").await, leaf(&proxy, "x.b.test").await);
    assert_eq!(get(&proxy, "a.test", "a.test").await.body(), "secret");
    assert_eq!(get(&proxy, "x.b.test", "x.b.test").await.body(), "secret");
    assert!(handshake(&proxy, "c.test", b"h2").await.is_err(), "no listener serves this name");
}

#[tokio::test]
async fn a_client_without_tls_1_3_is_refused() {
    let proxy = two_listeners().await;
    let error = handshake_with(&proxy, "a.test", b"h2", &[&rustls::version::TLS12]).await.unwrap_err();
    let alert = error.get_ref().and_then(|source| source.downcast_ref());
    assert_eq!(alert, Some(&rustls::Error::AlertReceived(rustls::AlertDescription::ProtocolVersion)));
}

/// [`two_listeners`], of which the first has a ClientPolicy with these settings.
async fn with_policy(tls: ClientTls) -> Proxy {
    let proxy = two_listeners().await;
    let Resource::Listener(listener) = https("a", proxy.port, "a.test", &["a"]) else { unreachable!() };
    let listener = Listener { policies: vec![policy_key()], ..Listener::clone(&listener) };
    let settings = ClientSettings { tls, ..ClientSettings::default() };
    assert_eq!(proxy.upsert([policy(settings), Resource::Listener(Arc::new(listener))]).await, []);
    proxy
}

const TLS12: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS12];
const TLS13: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13];

#[tokio::test]
async fn a_policy_lets_tls_1_2_in_at_its_own_listener_alone() {
    let proxy = with_policy(ClientTls { minimum: Some(TlsVersion::Tls12), ..ClientTls::default() }).await;
    let old = handshake_with(&proxy, "a.test", b"h2", TLS12).await.unwrap();
    assert_eq!(old.get_ref().1.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_2));
    let new = handshake(&proxy, "a.test", b"h2").await.unwrap();
    assert_eq!(
        new.get_ref().1.protocol_version(),
        Some(rustls::ProtocolVersion::TLSv1_3),
        "the newer one is preferred"
    );
    assert!(handshake_with(&proxy, "x.b.test", b"h2", TLS12).await.is_err(), "the other listener");
}

#[tokio::test]
async fn a_policy_may_forbid_the_newest_version_and_choose_cipher_suites() {
    let suites = vec![CipherSuite::EcdsaChacha20, CipherSuite::RsaAes256Gcm];
    let (minimum, maximum) = (Some(TlsVersion::Tls12), Some(TlsVersion::Tls12));
    let proxy = with_policy(ClientTls { minimum, maximum, cipher_suites: Some(suites), alpn: None }).await;
    let stream = handshake(&proxy, "a.test", b"h2").await.unwrap();
    let (_, session) = stream.get_ref();
    assert_eq!(session.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_2));
    let suite = session.negotiated_cipher_suite().unwrap().suite();
    assert_eq!(suite, rustls::CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256);
    assert!(handshake_with(&proxy, "a.test", b"h2", TLS13).await.is_err());
}

#[tokio::test]
async fn a_policy_chooses_what_alpn_offers() {
    let proxy = with_policy(ClientTls { alpn: Some(vec![HttpProtocol::Http1]), ..ClientTls::default() }).await;
    let stream = handshake(&proxy, "a.test", b"http/1.1").await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    let error = handshake(&proxy, "a.test", b"h2").await.unwrap_err();
    let alert = error.get_ref().and_then(|source| source.downcast_ref());
    assert_eq!(alert, Some(&rustls::Error::AlertReceived(rustls::AlertDescription::NoApplicationProtocol)));
    assert!(handshake(&proxy, "x.b.test", b"h2").await.is_ok(), "the other listener");
}

#[tokio::test]
async fn the_proxy_header_comes_before_the_handshake() {
    let proxy = two_listeners().await;
    let Resource::Listener(listener) = https("a", proxy.port, "a.test", &["a"]) else { unreachable!() };
    let listener = Listener { policies: vec![policy_key()], ..Listener::clone(&listener) };
    let from = ["127.0.0.0/8".parse().unwrap()];
    let proxied = Some(ProxyProtocol::Required(from.into()));
    let settings = ClientSettings { proxy_protocol: proxied, ..ClientSettings::default() };
    assert_eq!(proxy.upsert([policy(settings), Resource::Listener(Arc::new(listener))]).await, []);
    assert!(handshake(&proxy, "a.test", b"h2").await.is_err(), "without it");
    assert!(
        handshake(&proxy, "x.b.test", b"h2").await.is_err(),
        "nor at the other listener, which has the same socket"
    );
    let mut stream = proxy.connect().await;
    stream.write_all(b"PROXY TCP4 203.0.113.9 10.0.0.1 5555 80\r\n").await.unwrap();
    assert!(shake(stream, "a.test", b"h2", rustls::DEFAULT_VERSIONS).await.is_ok());
}

#[tokio::test]
async fn a_client_that_does_not_shake_hands_is_given_up_at_the_listeners_own_limit() {
    let proxy = two_listeners().await;
    let Resource::Listener(listener) = https("a", proxy.port, "a.test", &["a"]) else { unreachable!() };
    let listener = Listener { policies: vec![policy_key()], ..Listener::clone(&listener) };
    let timeouts = ClientTimeouts { tls_handshake: Some(Duration::from_millis(200)), ..ClientTimeouts::default() };
    let settings = ClientSettings { timeouts, ..ClientSettings::default() };
    assert_eq!(proxy.upsert([policy(settings), Resource::Listener(Arc::new(listener))]).await, []);
    let mut stream = proxy.connect().await;
    stream.write_all(&[0x16, 3, 1, 0, 200]).await.unwrap();
    let closed = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut Vec::new())).await;
    assert!(closed.is_ok(), "still open");
}

#[tokio::test]
async fn a_request_for_another_listeners_host_is_misdirected() {
    let proxy = two_listeners().await;
    assert_eq!(get(&proxy, "a.test", "x.b.test").await.status(), StatusCode::MISDIRECTED_REQUEST);
    assert_eq!(get(&proxy, "a.test", "c.test").await.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_new_certificate_serves_the_next_handshake_and_old_connections_live_on() {
    let proxy = two_listeners().await;
    let before = leaf(&proxy, "a.test").await;
    let stream = handshake(&proxy, "a.test", b"http/1.1").await.unwrap();
    let (mut client, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    spawn(async move { drop(connection.await) });
    let renewed = certificate("a", "a.test");
    let expected = renewed.chain[0].to_vec();
    assert_eq!(proxy.upsert([Resource::Certificate(Arc::new(renewed))]).await, []);
    assert_eq!(leaf(&proxy, "a.test").await, expected);
    assert_ne!(before, expected);
    let request = Request::get("/").header("host", "a.test").body(Full::<Bytes>::default()).unwrap();
    assert_eq!(collect(client.send_request(request).await.unwrap()).await.body(), "secret");
}

#[tokio::test]
async fn a_key_that_is_not_the_certificates_is_refused_and_the_old_one_stays() {
    let proxy = two_listeners().await;
    let before = leaf(&proxy, "a.test").await;
    let mut broken = certificate("a", "a.test");
    broken.private_key = certificate("other", "a.test").private_key;
    let refused = proxy.upsert([Resource::Certificate(Arc::new(broken))]).await;
    assert_eq!(refused.len(), 1);
    assert!(refused[0].error.starts_with("certificate cannot be used"), "{}", refused[0].error);
    assert_eq!(leaf(&proxy, "a.test").await, before);
}

/// Verifies nothing: these tests look at the certificate themselves.
#[derive(Debug)]
struct AnyCertificate;

impl rustls::client::danger::ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &rustls::pki_types::CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
