//! For tests: an issuer that signs, and an HTTPS server that gives out what it is told to.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    future::Future,
    net::Ipv4Addr,
    sync::{Arc, LazyLock},
};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use control_plane_model::{KeyLocation, RemoteKeys};
use http::{Request, Response};
use http_body_util::Full;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use jsonwebtoken::{Algorithm as Signing, EncodingKey, crypto};
use parking_lot::Mutex;
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer},
};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// Signs with ES256, under the key id `one`.
pub(super) static ONE: LazyLock<Signer> = LazyLock::new(|| Signer::new("one"));
/// Another one.
pub(super) static TWO: LazyLock<Signer> = LazyLock::new(|| Signer::new("two"));

/// A key pair of an issuer or a client.
pub(super) struct Signer {
    pub(super) jwk: Value,
    key: EncodingKey,
}

impl Signer {
    pub(super) fn new(id: &str) -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let point = pair.public_key().as_ref();
        let jwk =
            json!({"kty": "EC", "crv": "P-256", "kid": id, "x": encode(&point[1..33]), "y": encode(&point[33..])});
        Self { jwk, key: EncodingKey::from_ec_der(pair.to_pkcs8v1().unwrap().as_ref()) }
    }

    /// A token with this header and these claims, in whatever they say.
    pub(super) fn sign(&self, header: &Value, claims: &Value) -> String {
        let signed = format!("{}.{}", encode(header.to_string().as_bytes()), encode(claims.to_string().as_bytes()));
        let signature = crypto::sign(signed.as_bytes(), &self.key, Signing::ES256).unwrap();
        format!("{signed}.{signature}")
    }

    /// A token with a plain header.
    pub(super) fn token(&self, claims: &Value) -> String {
        self.sign(&json!({"alg": "ES256", "kid": self.jwk["kid"], "typ": "JWT"}), claims)
    }
}

pub(super) fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The key set of these.
pub(super) fn key_set(signers: &[&Signer]) -> String {
    json!({"keys": signers.iter().map(|signer| &signer.jwk).collect::<Vec<_>>()}).to_string()
}

/// What a server answers at one path.
#[derive(Clone)]
pub(super) enum Answer {
    /// This status, with these fields and this text.
    Text(u16, Vec<(&'static str, String)>, String),
    /// Nothing, and the connection stays open.
    Nothing,
}

impl Answer {
    pub(super) fn ok(text: impl Into<String>) -> Self {
        Self::Text(200, Vec::new(), text.into())
    }
}

/// An HTTPS server on loopback.
pub(super) struct Server {
    pub(super) origin: String,
    pub(super) certificate: CertificateDer<'static>,
    answers: Arc<Mutex<BTreeMap<String, Answer>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    pub(super) async fn start() -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let certificate = made.cert.der().clone();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let origin = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let server = Self { origin, certificate, answers: Arc::default(), asked: Arc::default() };
        let (answers, asked) = (server.answers.clone(), server.asked.clone());
        spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, answers, asked) = (acceptor.clone(), answers.clone(), asked.clone());
                spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(move |request| answer(request, answers.clone(), asked.clone()));
                    let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    let _ = server.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        server
    }

    /// Sets what is answered at `path`.
    pub(super) fn set(&self, path: &str, answer: Answer) {
        self.answers.lock().insert(path.to_owned(), answer);
    }

    /// The paths that were asked for.
    pub(super) fn asked(&self) -> Vec<String> {
        self.asked.lock().clone()
    }

    /// Keys at `path` of this server.
    pub(super) fn keys_at(&self, path: &str) -> Arc<RemoteKeys> {
        self.keys(KeyLocation::Url(format!("{}{path}", self.origin).parse().unwrap()))
    }

    pub(super) fn keys(&self, location: KeyLocation) -> Arc<RemoteKeys> {
        let trusted = Some(Arc::from([self.certificate.clone()]));
        let keys = RemoteKeys::new(location, trusted, RemoteKeys::DEFAULT_REFRESH, RemoteKeys::DEFAULT_STALE);
        Arc::new(keys.unwrap())
    }
}

async fn answer(
    request: Request<Incoming>,
    answers: Arc<Mutex<BTreeMap<String, Answer>>>,
    asked: Arc<Mutex<Vec<String>>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    asked.lock().push(request.uri().path().to_owned());
    let answer = answers.lock().get(request.uri().path()).cloned();
    match answer.unwrap_or(Answer::Text(404, Vec::new(), String::new())) {
        Answer::Text(status, fields, text) => {
            let mut response = Response::builder().status(status);
            for (name, value) in fields {
                response = response.header(name, value);
            }
            Ok(response.body(Full::from(text)).unwrap())
        }
        Answer::Nothing => std::future::pending().await,
    }
}

#[expect(clippy::disallowed_methods, reason = "a test's runtime ends what it runs")]
pub(super) fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(task);
}
