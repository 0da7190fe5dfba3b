//! Authentication through the process: an identity provider over HTTPS, its tokens, rotation, and its end.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use rustls_pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, crypto::aws_lc_rs::default_provider},
};

use crate::harness::{Answer, Client, Folder, Gateway, backend, eventually, gateway, route, service, spawn, try_get};

/// A key of the provider.
struct Signer {
    id: &'static str,
    pair: EcdsaKeyPair,
}

impl Signer {
    fn new(id: &'static str) -> Self {
        Self { id, pair: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap() }
    }

    fn jwk(&self) -> Value {
        let point = self.pair.public_key().as_ref();
        let (x, y) = (encode(&point[1..33]), encode(&point[33..]));
        json!({"kty": "EC", "crv": "P-256", "kid": self.id, "x": x, "y": y})
    }

    fn token(&self, claims: &Value) -> String {
        let header = json!({"alg": "ES256", "kid": self.id});
        let signed = format!("{}.{}", encode(header.to_string().as_bytes()), encode(claims.to_string().as_bytes()));
        let signature = self.pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", encode(signature.as_ref()))
    }
}

fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// An identity provider over HTTPS: its metadata and its keys, or 500 for everything.
struct Provider {
    issuer: String,
    ca: String,
    pages: Arc<Mutex<BTreeMap<String, String>>>,
}

impl Provider {
    async fn start(keys: &[&Signer]) -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let provider = Self { issuer, ca: made.cert.pem(), pages: Arc::default() };
        let metadata = json!({"issuer": provider.issuer, "jwks_uri": format!("{}/keys", provider.issuer)});
        provider.pages.lock().insert("/.well-known/openid-configuration".to_owned(), metadata.to_string());
        provider.set_keys(keys);
        let (acceptor, pages) = (TlsAcceptor::from(Arc::new(config)), provider.pages.clone());
        spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, pages) = (acceptor.clone(), pages.clone());
                spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
                        let page = pages.lock().get(request.uri().path()).cloned();
                        let status = if page.is_some() { 200 } else { 500 };
                        let body = Full::new(Bytes::from(page.unwrap_or_default()));
                        async move { Ok::<_, Infallible>(Response::builder().status(status).body(body).unwrap()) }
                    });
                    let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    let _ = server.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        provider
    }

    fn set_keys(&self, keys: &[&Signer]) {
        let keys: Vec<Value> = keys.iter().map(|signer| signer.jwk()).collect();
        self.pages.lock().insert("/keys".to_owned(), json!({ "keys": keys }).to_string());
    }

    fn go_down(&self) {
        self.pages.lock().clear();
    }

    fn resource(&self) -> String {
        let resource = json!({
            "apiVersion": "nebula.dev/v1alpha1", "kind": "IdentityProvider", "metadata": {"name": "id"},
            "spec": {
                "issuer": self.issuer, "jwt": {"audiences": ["api"], "algorithms": ["ES256"]},
                "tls": {"caCertificates": self.ca},
            },
        });
        resource.to_string()
    }

    fn claims(&self) -> Value {
        let now = now();
        json!({"iss": self.issuer, "aud": "api", "sub": "alice", "iat": now, "exp": now + 600, "scope": "read"})
    }

    fn claims_with(&self, name: &str, value: Value) -> Value {
        let mut claims = self.claims();
        claims[name] = value;
        claims
    }
}

#[expect(clippy::disallowed_methods, reason = "the process under test reads the same clock")]
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn policy(name: &str, target: &str, spec: &Value) -> String {
    let mut spec = spec.clone();
    spec["targetRefs"] = json!([{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": target}]);
    let api = "nebula.dev/v1alpha1";
    json!({"apiVersion": api, "kind": "AuthenticationPolicy", "metadata": {"name": name}, "spec": spec}).to_string()
}

/// Tokens of the provider, told to the backend; `more` is laid over it.
fn takes_tokens(more: Value) -> Value {
    let mut used = json!({"providerRef": {"name": "id"}, "claimsToHeaders": [{"claim": "sub", "header": "x-user"}]});
    used.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"providers": {"id": used}})
}

/// A backend that tells which user it was told, in each spelling.
async fn folder(provider: &Provider) -> Folder {
    let address = backend(|request: Request<hyper::body::Incoming>| async move {
        let told: Vec<String> = ["x-user", "x_user", "x-api-key"]
            .iter()
            .filter_map(|name| Some(format!("{name}={}", request.headers().get(*name)?.to_str().unwrap())))
            .collect();
        Response::new(Full::new(Bytes::from(told.join(" "))))
    })
    .await;
    Folder::with([
        ("gateway.yaml", gateway()),
        ("service.yaml", service("one", address)),
        ("open.yaml", route("open", "/open", "one")),
        ("closed.yaml", route("closed", "/closed", "one")),
        ("provider.yaml", provider.resource()),
    ])
}

async fn send(gateway: &Gateway, path: &str, fields: &[(&str, &str)]) -> Answer {
    let mut request = Request::get(path).header("host", "127.0.0.1");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    Client::connect(gateway.http).await.unwrap().send(request.body(Full::default()).unwrap()).await.unwrap()
}

async fn bearer(gateway: &Gateway, path: &str, token: &str) -> Answer {
    send(gateway, path, &[("authorization", &format!("Bearer {token}")), ("x-user", "root"), ("x_user", "root")]).await
}

/// Status, reason of the gateway, and body.
fn told(answer: &Answer) -> (u16, &str, &str) {
    let body = if answer.status == 200 { answer.body.as_str() } else { "" };
    (answer.status.as_u16(), answer.header("x-nebula-reason"), body)
}

#[tokio::test]
async fn tokens_of_a_provider_open_a_route_and_nothing_else_does() {
    let (one, two) = (Signer::new("one"), Signer::new("two"));
    let provider = Provider::start(&[&one]).await;
    let folder = folder(&provider).await;
    folder.write("policy.yaml", &policy("p", "closed", &takes_tokens(json!({"requiredScopes": ["read"]}))));
    let gateway = Gateway::ready(&folder).await;
    let refused = (401, "credentials_refused", "");

    assert_eq!(told(&send(&gateway, "/open", &[]).await), (200, "", ""));
    let missing = send(&gateway, "/closed", &[("x-user", "root")]).await;
    assert_eq!(told(&missing), (401, "credentials_missing", ""));
    assert_eq!(missing.header("www-authenticate"), "Bearer");
    let good = one.token(&provider.claims());
    assert_eq!(told(&bearer(&gateway, "/closed", &good).await), (200, "", "x-user=alice"));

    let expired = bearer(&gateway, "/closed", &one.token(&provider.claims_with("exp", json!(now() - 60)))).await;
    assert_eq!(told(&expired), refused);
    let error = r#"Bearer error="invalid_token", error_description="the token has expired""#;
    assert_eq!(expired.header("www-authenticate"), error);
    let scope = bearer(&gateway, "/closed", &one.token(&provider.claims_with("scope", json!("write")))).await;
    assert_eq!(told(&scope), (403, "insufficient_scope", ""));
    let payload = good.split('.').nth(1).unwrap();
    let unsigned = format!("{}.{payload}.", encode(br#"{"alg":"none"}"#));
    let confused = format!("{}.{payload}.{}", encode(br#"{"alg":"HS256","kid":"one"}"#), encode(&[7; 32]));
    for (attack, token) in [
        ("another audience", one.token(&provider.claims_with("aud", json!("other")))),
        ("another issuer", one.token(&provider.claims_with("iss", json!("https://evil.example")))),
        ("no algorithm", unsigned),
        ("a symmetric algorithm", confused),
        ("another key", two.token(&provider.claims())),
        ("no token", "x".to_owned()),
    ] {
        assert_eq!(told(&bearer(&gateway, "/closed", &token).await), refused, "{attack}");
    }
    let twice = [("authorization", "Bearer a"), ("authorization", "Bearer b")];
    assert_eq!(told(&send(&gateway, "/closed", &twice).await), (400, "credentials_malformed", ""));

    let line = gateway.access_logged("\"status\":403").await;
    assert!(line.contains("\"policy\":\"authentication/default/p\""), "{line}");
    let log = [gateway.log(), line].concat();
    assert!(!log.contains(payload), "a token is in the log");
}

#[tokio::test]
async fn a_rotated_key_is_found_and_a_provider_that_is_gone_opens_nothing() {
    let (one, two, three) = (Signer::new("one"), Signer::new("two"), Signer::new("three"));
    let provider = Provider::start(&[&one]).await;
    let folder = folder(&provider).await;
    folder.write("policy.yaml", &policy("p", "closed", &takes_tokens(json!({}))));
    let gateway = Gateway::ready(&folder).await;
    assert_eq!(bearer(&gateway, "/closed", &one.token(&provider.claims())).await.status, 200);
    provider.set_keys(&[&two]);
    assert_eq!(bearer(&gateway, "/closed", &two.token(&provider.claims())).await.status, 200);
    let old = bearer(&gateway, "/closed", &one.token(&provider.claims())).await;
    assert_eq!(told(&old), (401, "credentials_refused", ""));

    provider.go_down();
    assert_eq!(bearer(&gateway, "/closed", &two.token(&provider.claims())).await.status, 200, "the keys it has count");
    let unknown = bearer(&gateway, "/closed", &three.token(&provider.claims())).await;
    assert_ne!(unknown.status, 200);
    drop(gateway);

    let anonymous = takes_tokens(json!({}));
    let mut anonymous = anonymous.as_object().unwrap().clone();
    anonymous.insert("allowAnonymous".to_owned(), json!(true));
    folder.write("policy.yaml", &policy("p", "closed", &anonymous.into()));
    let gateway = Gateway::ready(&folder).await;
    let unavailable = bearer(&gateway, "/closed", &two.token(&provider.claims())).await;
    assert_eq!(told(&unavailable), (503, "identity_provider_unavailable", ""));
    assert_eq!(unavailable.header("retry-after"), "5");
    assert_eq!(
        told(&send(&gateway, "/closed", &[("x-user", "root")]).await),
        (200, "", ""),
        "who brings no token passes"
    );
    assert_eq!(send(&gateway, "/open", &[]).await.status, 200);
    let states = try_get(gateway.admin, "/key-sets").await.unwrap().body;
    assert!(states.contains("\"usable_keys\":0") && states.contains("answered with status 500"), "{states}");
    gateway.logged("key set not fetched").await;
}

#[tokio::test]
async fn an_edit_of_what_a_policy_names_reaches_it_and_what_is_missing_closes_the_route() {
    let one = Signer::new("one");
    let provider = Provider::start(&[&one]).await;
    let folder = folder(&provider).await;
    folder.remove("provider.yaml");
    folder.write("policy.yaml", &policy("p", "closed", &takes_tokens(json!({}))));
    let gateway = Gateway::ready(&folder).await;
    let token = one.token(&provider.claims());
    assert_eq!(told(&bearer(&gateway, "/closed", &token).await), (500, "policy_invalid", ""));
    let problems = try_get(gateway.admin, "/problems").await.unwrap().body;
    let field = "\"field\":\"spec.providers.id.providerRef\"";
    let text = "there is no IdentityProvider default/id";
    assert!(problems.contains(field) && problems.contains(text), "{problems}");
    folder.write("provider.yaml", &provider.resource());
    gateway.answers("/closed", 401).await;
    assert_eq!(bearer(&gateway, "/closed", &token).await.status, 200);
    folder.replace("provider.yaml", &provider.resource().replace("\"api\"", "\"other\""));
    let refused = eventually("the new audience counts", || async {
        let answer = bearer(&gateway, "/closed", &token).await;
        (answer.status != 200).then_some(answer)
    });
    assert_eq!(told(&refused.await), (401, "credentials_refused", ""));
}

#[tokio::test]
async fn api_keys_and_passwords_come_from_secrets_and_stay_at_the_gateway() {
    let one = Signer::new("one");
    let provider = Provider::start(&[&one]).await;
    let folder = folder(&provider).await;
    let spec = json!({
        "apiKeys": {"partners": {"secretRefs": [{"name": "keys"}], "clientHeader": "x-user"}},
        "basic": {"secretRef": {"name": "users"}, "userHeader": "x-user"},
    });
    folder.write("policy.yaml", &policy("p", "closed", &spec));
    let secret = |name: &str, entry: &str, value: &str| {
        json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": "nebula.dev/credentials",
            "stringData": {entry: value},
        })
        .to_string()
    };
    let key = "2dfx0mQqvW7nU3k5JtYh8RzB";
    // Of `password`, by the reference implementation of Argon2.
    let hash = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
    folder.write("keys.yaml", &secret("keys", "acme", key));
    folder.write("users.yaml", &secret("users", ".htpasswd", &format!("bob:{hash}")));
    let gateway = Gateway::ready(&folder).await;
    let by_key = send(&gateway, "/closed", &[("x-api-key", key), ("x-user", "root")]).await;
    assert_eq!(told(&by_key), (200, "", "x-user=acme"));
    let wrong = send(&gateway, "/closed", &[("x-api-key", "2dfx0mQqvW7nU3k5JtYh8RzC")]).await;
    assert_eq!(told(&wrong), (401, "credentials_refused", ""));
    let login = |text: &str| format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(text));
    let by_password = send(&gateway, "/closed", &[("authorization", &login("bob:password"))]).await;
    assert_eq!(told(&by_password), (200, "", "x-user=bob"));
    let wrong = send(&gateway, "/closed", &[("authorization", &login("bob:Password"))]).await;
    assert_eq!(told(&wrong), (401, "credentials_refused", ""));
    assert_eq!(wrong.header("www-authenticate"), r#"Basic realm="gateway", charset="UTF-8""#);
    let config = try_get(gateway.admin, "/config").await.unwrap().body;
    assert!(config.contains("acme") && !config.contains(key) && !config.contains("argon2id"), "{config}");
    assert!(!gateway.log().contains(key));
}
