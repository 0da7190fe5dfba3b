//! The telemetry port: `/healthz` (the process runs), `/readyz` (it can do its work, and if not, why), `/metrics`.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use axum::{Router, extract::State, http::StatusCode, response::IntoResponse, routing::get};
use parking_lot::Mutex;
use prometheus_client::registry::Registry;

use crate::{drain::Drain, tasks::Tasks};

/// What the process still waits for before it is ready. Clones share the same list.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Mutex<BTreeMap<&'static str, String>>>);

impl Readiness {
    /// Ready once nothing is pending.
    pub fn new() -> Self {
        Self::default()
    }

    /// Not ready because of `what`, until [`Self::done`].
    pub fn pending(&self, what: &'static str, why: impl Into<String>) {
        self.0.lock().insert(what, why.into());
    }

    /// `what` is no longer in the way.
    pub fn done(&self, what: &'static str) {
        self.0.lock().remove(what);
    }

    /// Whether nothing is pending.
    pub fn is_ready(&self) -> bool {
        self.0.lock().is_empty()
    }

    fn report(&self) -> String {
        self.0.lock().iter().fold(String::new(), |report, (what, why)| report + what + ": " + why + "\n")
    }
}

/// Why the telemetry port does not open.
#[derive(Debug, thiserror::Error)]
#[error("telemetry port {address}")]
pub struct BindError {
    /// The address.
    pub address: SocketAddr,
    /// What the system says.
    #[source]
    pub source: std::io::Error,
}

#[derive(Clone)]
struct Telemetry {
    registry: Arc<Registry>,
    readiness: Readiness,
    tasks: Tasks,
    drain: Drain,
}

/// Opens the port at `address` and serves it as a task of `tasks`. Returns the bound address (for port 0).
///
/// Readiness fails while something is pending, after a task failed, and once the drain has begun.
///
/// # Errors: [`BindError`] where the address cannot be bound.
pub async fn serve(
    address: SocketAddr,
    registry: Arc<Registry>,
    readiness: Readiness,
    tasks: &Tasks,
) -> Result<SocketAddr, BindError> {
    let bind_error = |source| BindError { address, source };
    let listener = tokio::net::TcpListener::bind(address).await.map_err(bind_error)?;
    let bound = listener.local_addr().map_err(bind_error)?;
    let state = Telemetry { registry, readiness, tasks: tasks.clone(), drain: tasks.drain().clone() };
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(state);
    // It answers through the drain, so that readiness is seen to fail; it ends with the runtime.
    let server = async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "telemetry port closed");
        }
    };
    tasks.spawn_detached("telemetry", server);
    Ok(bound)
}

async fn ready(State(state): State<Telemetry>) -> impl IntoResponse {
    if state.drain.is_signaled() {
        return (StatusCode::SERVICE_UNAVAILABLE, "draining\n".to_owned());
    }
    if !state.tasks.is_healthy() {
        return (StatusCode::SERVICE_UNAVAILABLE, "a background task failed\n".to_owned());
    }
    if state.readiness.is_ready() {
        (StatusCode::OK, "ready\n".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, state.readiness.report())
    }
}

async fn metrics(State(state): State<Telemetry>) -> impl IntoResponse {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &state.registry) {
        Ok(()) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(axum::http::header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, "metrics cannot be encoded\n").into_response(),
    }
}
