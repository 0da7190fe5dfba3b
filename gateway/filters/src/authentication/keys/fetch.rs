//! Fetches a key set over HTTPS, from its URL or by way of the issuer's metadata (OpenID Connect Discovery 1.0).
//!
//! Invariants: nothing but HTTPS, with the certificate checked; no redirect is followed, so a server's answer cannot send
//! the gateway elsewhere; an answer is bounded in bytes and in time. Keeps no connection: fetches are minutes apart.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use control_plane_model::{HttpsUrl, KeyLocation, RemoteKeys};
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use policy_jose::{Algorithms, KeySet, KeySetError, MAX_KEY_SET_BYTES};
use rustls::{ClientConfig, RootCertStore, crypto::CryptoProvider, pki_types::CertificateDer};
use serde::Deserialize;

/// How long one answer may take, from the resolution of the name to the last byte.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// How long a connection may take, all addresses of a name together.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// How much of a text from outside an error repeats.
const SHOWN: usize = 200;

/// Why there are no new keys.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("no certificate authority is known: the platform has none and the provider names none")]
    NoAuthority,
    #[error("a certificate authority of the provider cannot be used")]
    Authority(#[source] rustls::Error),
    #[error("set up TLS")]
    Tls(#[source] rustls::Error),
    #[error("{url} did not answer within {} seconds", ANSWER_LIMIT.as_secs())]
    Timeout { url: String },
    #[error("{url} cannot be reached")]
    Send { url: String, source: hyper_util::client::legacy::Error },
    #[error("{url} answered with status {status}, want 200 (redirects are not followed)")]
    Status { url: String, status: StatusCode },
    #[error("{url} answered with more than {MAX_KEY_SET_BYTES} bytes")]
    TooLarge { url: String },
    #[error("the answer of {url} was cut short")]
    Cut { url: String },
    #[error("{url} is not the metadata of an issuer")]
    Metadata { url: String },
    #[error("the metadata at {url} are of the issuer {found:?}, want {wanted:?}")]
    Issuer { url: String, found: String, wanted: Arc<str> },
    #[error("the metadata at {url} name the key set {found:?}, want a URL that begins with https://")]
    KeySetUrl { url: String, found: String },
    #[error("the key set at {url} cannot be used")]
    Keys { url: String, source: KeySetError },
}

/// Keys as they were fetched.
#[derive(Debug)]
pub(super) struct Fetched {
    pub(super) keys: KeySet,
    /// For how long their server says that they are fresh.
    pub(super) max_age: Option<Duration>,
}

/// What fetches.
#[derive(Debug)]
pub(super) struct Fetcher {
    crypto: Arc<CryptoProvider>,
    /// Read once, at the first fetch that needs it.
    platform: OnceLock<Arc<RootCertStore>>,
}

impl Fetcher {
    pub(super) fn new(crypto: Arc<CryptoProvider>) -> Self {
        Self { crypto, platform: OnceLock::new() }
    }

    /// Fetches the keys that `remote` names, of those `algorithms`. Cancel-safe: dropping it closes the connection.
    pub(super) async fn fetch(&self, remote: &RemoteKeys, algorithms: Algorithms) -> Result<Fetched, FetchError> {
        let client = self.client(remote.authorities())?;
        let url = match remote.location() {
            KeyLocation::Url(url) => url.clone(),
            KeyLocation::Discovery { url, issuer } => {
                let (metadata, _) = get(&client, url).await?;
                key_set_url(url, issuer, &metadata)?
            }
        };
        let (text, headers) = get(&client, &url).await?;
        let keys = KeySet::parse(&text, algorithms);
        let keys = keys.map_err(|source| FetchError::Keys { url: url.to_string(), source })?;
        Ok(Fetched { keys, max_age: max_age(&headers) })
    }

    fn client(&self, authorities: Option<&[CertificateDer<'static>]>) -> Result<HttpsClient, FetchError> {
        let roots = match authorities {
            Some(authorities) => {
                let mut roots = RootCertStore::empty();
                for authority in authorities {
                    roots.add(authority.clone()).map_err(FetchError::Authority)?;
                }
                Arc::new(roots)
            }
            None => self.platform.get_or_init(platform_roots).clone(),
        };
        if roots.is_empty() {
            return Err(FetchError::NoAuthority);
        }
        let config = ClientConfig::builder_with_provider(self.crypto.clone())
            .with_safe_default_protocol_versions()
            .map_err(FetchError::Tls)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_connect_timeout(Some(CONNECT_LIMIT));
        let tls = HttpsConnectorBuilder::new().with_tls_config(config).https_only().enable_all_versions();
        Ok(Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(tls.wrap_connector(connector)))
    }
}

type HttpsClient = Client<HttpsConnector<HttpConnector>, Empty<Bytes>>;

/// What the platform trusts. A file that cannot be read leaves out what it holds; an empty store is an error of the fetch.
fn platform_roots() -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    Arc::new(roots)
}

async fn get(client: &HttpsClient, url: &HttpsUrl) -> Result<(Bytes, HeaderMap), FetchError> {
    let text = || url.to_string();
    let answer = tokio::time::timeout(ANSWER_LIMIT, async {
        let request = Request::get(url.uri().clone())
            .header(header::ACCEPT, "application/jwk-set+json, application/json")
            .header(header::USER_AGENT, "nebula-gateway")
            .body(Empty::new());
        // A checked URL and constant fields make a request.
        let request = request.map_err(|_| FetchError::Metadata { url: text() })?;
        let response = client.request(request).await.map_err(|source| FetchError::Send { url: text(), source })?;
        body(response, url).await
    });
    answer.await.unwrap_or_else(|_| Err(FetchError::Timeout { url: text() }))
}

async fn body(response: Response<Incoming>, url: &HttpsUrl) -> Result<(Bytes, HeaderMap), FetchError> {
    let text = || url.to_string();
    let (head, body) = response.into_parts();
    if head.status != StatusCode::OK {
        return Err(FetchError::Status { url: text(), status: head.status });
    }
    match Limited::new(body, MAX_KEY_SET_BYTES).collect().await {
        Ok(body) => Ok((body.to_bytes(), head.headers)),
        Err(error) if error.is::<LengthLimitError>() => Err(FetchError::TooLarge { url: text() }),
        Err(_) => Err(FetchError::Cut { url: text() }),
    }
}

/// The part of an issuer's metadata that matters here.
#[derive(Deserialize)]
struct Metadata {
    issuer: String,
    jwks_uri: String,
}

/// Where the metadata say that the keys are, if they are the issuer's own (OpenID Connect Discovery 1.0, section 4.3).
fn key_set_url(url: &HttpsUrl, issuer: &Arc<str>, metadata: &[u8]) -> Result<HttpsUrl, FetchError> {
    let Ok(metadata) = serde_json::from_slice::<Metadata>(metadata) else {
        return Err(FetchError::Metadata { url: url.to_string() });
    };
    if *metadata.issuer != **issuer {
        let found = metadata.issuer.chars().take(SHOWN).collect();
        return Err(FetchError::Issuer { url: url.to_string(), found, wanted: issuer.clone() });
    }
    metadata.jwks_uri.parse().map_err(|_| {
        let found = metadata.jwks_uri.chars().take(SHOWN).collect();
        FetchError::KeySetUrl { url: url.to_string(), found }
    })
}

/// `max-age` less `Age`; zero where it must not be kept (RFC 9111 sections 4.2 and 5.2.2).
fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let mut longest = None;
    for value in headers.get_all(header::CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok()) {
        for directive in value.split(',').map(str::trim) {
            let (name, argument) = directive.split_once('=').unwrap_or((directive, ""));
            if ["no-store", "no-cache"].iter().any(|forbids| name.eq_ignore_ascii_case(forbids)) {
                return Some(Duration::ZERO);
            }
            if name.eq_ignore_ascii_case("max-age") {
                longest = argument.trim_matches('"').parse().ok().map(Duration::from_secs);
            }
        }
    }
    let age = headers.get(header::AGE).and_then(|value| value.to_str().ok()).and_then(|text| text.parse().ok());
    longest.map(|longest| longest.saturating_sub(Duration::from_secs(age.unwrap_or(0))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_age_of_an_answer_counts_against_its_time() {
        for (control, age, expected) in [
            (None, None, None),
            (Some("public, max-age=300"), None, Some(300)),
            (Some("Max-Age=300"), Some("100"), Some(200)),
            (Some("max-age=300"), Some("400"), Some(0)),
            (Some("max-age=x"), None, None),
            (Some("max-age=300, no-store"), None, Some(0)),
            (Some("no-cache"), Some("x"), Some(0)),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in [(header::CACHE_CONTROL, control), (header::AGE, age)] {
                if let Some(value) = value {
                    headers.insert(name, value.parse().unwrap());
                }
            }
            assert_eq!(max_age(&headers), expected.map(Duration::from_secs), "{control:?} {age:?}");
        }
    }

    #[test]
    fn metadata_count_only_for_the_issuer_that_they_name() {
        let url: HttpsUrl = "https://id.example/.well-known/openid-configuration".parse().unwrap();
        let issuer: Arc<str> = "https://id.example".into();
        let read = |text: &str| key_set_url(&url, &issuer, text.as_bytes());
        let good = r#"{"issuer": "https://id.example", "jwks_uri": "https://keys.example/1", "x": []}"#;
        assert_eq!(read(good).unwrap().to_string(), "https://keys.example/1");
        let slash = good.replace("id.example\"", "id.example/\"");
        assert!(matches!(read(&slash), Err(FetchError::Issuer { .. })));
        let plain = good.replace("https://keys", "http://keys");
        assert!(matches!(read(&plain), Err(FetchError::KeySetUrl { .. })));
        assert!(matches!(read("[]"), Err(FetchError::Metadata { .. })));
    }
}
