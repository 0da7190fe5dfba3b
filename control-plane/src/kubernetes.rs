//! Small facts about talking to the API server that several modules share.
//!
//! Invariant: nothing waits for ever for an API server that has fallen silent. Single requests have [`limited`]; a watch ends
//! every [`WATCH_SECONDS`] by the API server's own clock and begins anew where it was, and one that does not end then is
//! given up five seconds later (by kube's watcher); a list, and the answer to a new watch, end with [`READ_TIMEOUT`].

use std::{error::Error, fmt::Write as _, time::Duration};

use kube::{Client, Config, runtime::watcher};

/// How long the API server keeps one watch open.
const WATCH_SECONDS: u32 = 30;
/// Longest silence on a connection with a request under way. A watch may say nothing for as long as it lives, so this is
/// longer, with the watcher's own five seconds of patience. (It would end exec and attach, which are not used here.)
const READ_TIMEOUT: Duration = Duration::from_secs(40);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest time that one request may take.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Who owns the fields that we apply.
pub const FIELD_MANAGER: &str = "nebula";
/// Label on everything that the control plane makes.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Value of [`MANAGED_BY`].
pub const MANAGER: &str = "nebula";
/// Label that tells which control plane made an object, where a cluster has several.
pub const CONTROLLER: &str = "nebula.dev/controller";

/// The API server as kubectl finds it, and then the pod's ServiceAccount.
///
/// # Errors: where neither is there, or the settings cannot be used.
pub async fn connect() -> Result<Client, Box<dyn Error + Send + Sync>> {
    Ok(client(Config::infer().await?)?)
}

/// A client that notices an API server that has fallen silent.
fn client(mut config: Config) -> kube::Result<Client> {
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.read_timeout = Some(READ_TIMEOUT);
    // Otherwise the time that a connection lay idle would count against the next answer on it.
    config.reset_reader_on_write = true;
    Client::try_from(config)
}

/// What every watch begins with.
pub fn watching() -> watcher::Config {
    watcher::Config::default().timeout(WATCH_SECONDS)
}

/// Whether the API server answered with this HTTP status.
pub fn is_status(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}

/// One line about what went wrong, shorter than the error's own text, which repeats the whole answer.
pub fn describe(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => {
            let mut text = status.message.clone();
            if text.is_empty() {
                text.clone_from(&status.reason);
            }
            // Writing to a String cannot fail.
            let _ = write!(text, " ({})", status.code);
            text
        }
        other => without_repeats(other),
    }
}

/// The error and its sources, but for those that the text holds already: the client's errors repeat theirs.
fn without_repeats(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let more = inner.to_string();
        if !text.contains(&more) {
            // Writing to a String cannot fail.
            let _ = write!(text, ": {more}");
        }
        source = inner.source();
    }
    text
}

/// A request that fails when the API server takes too long over it: the client itself would wait for five minutes.
pub async fn limited<T>(request: impl Future<Output = kube::Result<T>>) -> kube::Result<T> {
    tokio::time::timeout(TIMEOUT, request).await.unwrap_or_else(|_| Err(timed_out()))
}

/// What a request that took too long counts as: the API server's own word for it.
pub fn timed_out() -> kube::Error {
    let mut status = kube::core::Status::failure("the API server does not answer", "Timeout");
    status.code = 504;
    kube::Error::Api(status.boxed())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Namespace;
    use kube::{Api, api::ListParams};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_request_to_a_server_that_says_nothing_ends() {
        // An error means that another test has installed it.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = silent.local_addr().unwrap();
        let client = client(Config::new(format!("http://{address}").parse().unwrap())).unwrap();
        let namespaces = Api::<Namespace>::all(client);
        let listed = tokio::time::timeout(READ_TIMEOUT * 2, namespaces.list(&ListParams::default())).await;
        assert!(listed.is_ok_and(|listed| listed.is_err()));
    }

    #[derive(Debug, thiserror::Error)]
    #[error("send: {0}")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn what_an_error_repeats_of_its_source_is_said_once() {
        let error = Outer(std::io::Error::other("connection refused"));
        assert_eq!(without_repeats(&error), "send: connection refused");
    }

    #[test]
    fn an_answer_of_the_api_server_is_its_message_and_code() {
        assert_eq!(describe(&timed_out()), "the API server does not answer (504)");
    }
}
