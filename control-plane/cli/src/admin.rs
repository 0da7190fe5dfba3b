//! The admin port of a running gateway, which answers on its own machine only (or through `kubectl port-forward`).
//!
//! Invariant: an answer is bounded in size and time; redirects are not followed.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Uri, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;

use crate::output::Failure;

/// The port that a gateway opens where it is not told another one.
const DEFAULT_PORT: u16 = 19_000;
/// A configuration with tens of thousands of routes stays below it.
const ANSWER_LIMIT: usize = 256 << 20;
/// How long connection and answer may take.
const TIME_LIMIT: Duration = Duration::from_secs(10);

/// Why the admin port did not answer.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The URL.
    #[error("--admin {0}: want http://HOST:PORT, as in http://127.0.0.1:19000")]
    Url(Uri),
    /// It cannot be asked.
    #[error("{url} (does a gateway run there? in a cluster: kubectl port-forward POD {DEFAULT_PORT})")]
    Ask {
        /// What was asked for.
        url: String,
        /// What happened.
        #[source]
        source: Failure,
    },
    /// It takes too long.
    #[error("{url}: no answer within {} s", TIME_LIMIT.as_secs())]
    Late {
        /// What was asked for.
        url: String,
    },
    /// It does not know the page, or refuses.
    #[error("{url} answered {status}")]
    Status {
        /// What was asked for.
        url: String,
        /// The answer.
        status: http::StatusCode,
    },
    /// It is not what an admin port says.
    #[error("{url}: not the answer of an admin port")]
    Content {
        /// What was asked for.
        url: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
}

/// Asks the gateway at `base` for `page` (`/config`), and waits for the answer.
///
/// # Errors: [`AdminError`].
pub fn get<T: DeserializeOwned>(base: &Uri, page: &str) -> Result<T, AdminError> {
    let url = || format!("{}{page}", base.to_string().trim_end_matches('/'));
    find(base, page)?.ok_or_else(|| AdminError::Status { url: url(), status: http::StatusCode::NOT_FOUND })
}

/// As [`get`]; `None` where the gateway has no such thing.
///
/// # Errors: [`AdminError`].
pub fn find<T: DeserializeOwned>(base: &Uri, page: &str) -> Result<Option<T>, AdminError> {
    let host = base.host().filter(|_| base.scheme_str() == Some("http") && matches!(base.path(), "" | "/"));
    let Some(host) = host else { return Err(AdminError::Url(base.clone())) };
    let authority = format!("{host}:{}", base.port_u16().unwrap_or(DEFAULT_PORT));
    let url = format!("http://{authority}{page}");
    let ask_error = |source: Failure| AdminError::Ask { url: url.clone(), source };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| ask_error(error.into()))?;
    let answer = runtime.block_on(async { tokio::time::timeout(TIME_LIMIT, ask(&authority, page)).await });
    let (status, body) = answer.map_err(|_| AdminError::Late { url: url.clone() })?.map_err(ask_error)?;
    if status == http::StatusCode::NOT_FOUND {
        return Ok(None);
    }
    if !status.is_success() {
        return Err(AdminError::Status { url, status });
    }
    serde_json::from_slice(&body).map(Some).map_err(|source| AdminError::Content { url, source })
}

/// Cancel-safe: dropping the future closes the connection.
async fn ask(authority: &str, page: &str) -> Result<(http::StatusCode, Bytes), Failure> {
    let stream = TcpStream::connect(authority).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get(page).header(header::HOST, authority).body(Empty::<Bytes>::new())?;
    let exchange = async move {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_LIMIT).collect().await?.to_bytes();
        Ok((status, body))
    };
    // The connection moves the bytes, and ends with the sender.
    let (answer, _) = futures::future::join(exchange, connection).await;
    answer
}
