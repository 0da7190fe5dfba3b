//! Small facts about talking to the API server that several modules share.

use std::{error::Error, fmt::Write as _, time::Duration};

/// Longest time that one request may take.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Who owns the fields that we apply.
pub const FIELD_MANAGER: &str = "nebula";
/// Label on everything that the control plane makes.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Value of [`MANAGED_BY`].
pub const MANAGER: &str = "nebula";

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
    use super::*;

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
