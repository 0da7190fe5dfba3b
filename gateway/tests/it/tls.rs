//! TLS at the listener: certificates from Secrets, and their change while connections run.

use std::sync::Arc;

use base64::Engine as _;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs},
};

use crate::harness::{ClientError, Folder, Gateway, eventually, gateway_with, route, says, service, spawn, try_get};

/// A self-signed certificate with its key.
struct Identity {
    certificate: CertificateDer<'static>,
    secret: String,
    key_base64: String,
}

impl Identity {
    /// A certificate for `host`, as Secret `name`.
    fn new(host: &str, name: &str) -> Self {
        let certified = rcgen::generate_simple_self_signed([host.to_owned()]).unwrap();
        let base64 = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
        let key_base64 = base64(&certified.signing_key.serialize_pem());
        let secret = format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}}}\ntype: kubernetes.io/tls\ndata:\n  tls.crt: \
             {}\n  tls.key: {key_base64}\n",
            base64(&certified.cert.pem())
        );
        Self { certificate: certified.cert.der().clone(), secret, key_base64 }
    }
}

const LISTENERS: &str = "    - {name: http, protocol: HTTP, port: 8080}\n    - name: https\n      protocol: HTTPS\n      \
                         port: 8443\n      tls: {certificateRefs: [{name: cert}]}\n";

async fn folder(secret: &str) -> Folder {
    Folder::with([
        ("gateway.yaml", gateway_with(LISTENERS)),
        ("route.yaml", route("r", "/", "one")),
        ("service.yaml", service("one", says("one").await)),
        ("secret.yaml", secret.to_owned()),
    ])
}

/// The certificate that the listener shows for `host`, and the answer; only the certificates in `trusted` are taken.
async fn get(
    port: u16,
    host: &'static str,
    trusted: &[&Identity],
) -> Result<(CertificateDer<'static>, String), ClientError> {
    let mut roots = RootCertStore::empty();
    for identity in trusted {
        roots.add(identity.certificate.clone())?;
    }
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&tokio_rustls::rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let stream = TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(host)?, stream).await?;
    let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first).cloned().ok_or("no certificate")?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    spawn(async move { drop(connection.await) });
    let request = Request::get("/").header("host", host).body(Empty::<Bytes>::new())?;
    let body = sender.send_request(request).await?.into_body().collect().await?.to_bytes();
    Ok((shown, String::from_utf8(body.to_vec())?))
}

#[tokio::test]
async fn an_edited_secret_changes_the_certificate_without_a_failed_connection() {
    let (old, new) = (Identity::new("edge.example", "cert"), Identity::new("edge.example", "cert"));
    let folder = folder(&old.secret).await;
    let gateway = Gateway::ready(&folder).await;
    let (shown, body) = get(gateway.https, "edge.example", &[&old]).await.unwrap();
    assert_eq!((shown, body.as_str()), (old.certificate.clone(), "one"));
    folder.write("secret.yaml", &new.secret);
    eventually("new certificate", || async {
        let (shown, _) = get(gateway.https, "edge.example", &[&old, &new]).await.expect("no connection fails");
        (shown == new.certificate).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_secret_that_is_no_certificate_is_told_and_the_other_listener_serves() {
    let good = Identity::new("edge.example", "cert");
    for secret in [
        "apiVersion: v1\nkind: Secret\nmetadata: {name: cert}\ntype: kubernetes.io/tls\nstringData: {tls.crt: no, \
         tls.key: hunter2}\n",
        "# there is no Secret\n",
    ] {
        let folder = folder(secret).await;
        let gateway = Gateway::ready(&folder).await;
        assert_eq!(gateway.get("/").await.body, "one");
        let line = gateway.logged("InvalidCertificateRef").await;
        assert!(line.contains("gateway.yaml:9:7: Gateway default/edge: https"), "{line}");
        assert!(!gateway.log().contains("hunter2"));
        assert!(get(gateway.https, "edge.example", &[&good]).await.is_err());
        // It comes true once the Secret is in order.
        folder.write("secret.yaml", &good.secret);
        eventually("served", || async { get(gateway.https, "edge.example", &[&good]).await.ok() }).await;
    }
}

#[tokio::test]
async fn a_secret_that_breaks_later_keeps_the_old_certificate() {
    let good = Identity::new("edge.example", "cert");
    let folder = folder(&good.secret).await;
    let gateway = Gateway::ready(&folder).await;
    folder.write("secret.yaml", &good.secret.replace("\ndata:", "\ndatum:"));
    gateway.logged("datum: unknown field").await;
    get(gateway.https, "edge.example", &[&good]).await.unwrap();
}

#[tokio::test]
async fn the_dump_and_the_log_hold_no_private_key() {
    let identity = Identity::new("edge.example", "cert");
    let folder = folder(&identity.secret).await;
    let gateway = Gateway::start_with(folder.path(), &["--log", "trace"]);
    gateway.is_ready().await;
    get(gateway.https, "edge.example", &[&identity]).await.unwrap();
    let dump = try_get(gateway.admin, "/config").await.unwrap().body;
    assert!(dump.contains("certificate/default/cert"), "{dump}");
    // Any part of the key would do to tell, in base64 or as numbers of a list.
    let key = base64::engine::general_purpose::STANDARD.decode(&identity.key_base64).unwrap();
    let pem = String::from_utf8(key).unwrap();
    let der = base64::engine::general_purpose::STANDARD
        .decode(pem.lines().filter(|line| !line.contains('-')).collect::<String>());
    let numbers = format!("{:?}", &der.unwrap()[40..60]);
    for text in [dump, gateway.log()] {
        assert!(!text.contains("PRIVATE KEY") && !text.contains(&identity.key_base64[40..80]));
        assert!(!text.contains(pem.lines().nth(1).unwrap()) && !text.contains(numbers.trim_matches(['[', ']'])));
    }
}
