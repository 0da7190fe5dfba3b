//! The admin port: what the process holds, for someone on the same machine, and the breakers of backends to overrule.
//! Loopback only.
//!
//! Invariants: it shows no secret. A request that names another host than this machine is refused: a web page must not
//! reach it through a name that it makes point here (DNS rebinding). What changes something is refused where a browser
//! sends it for any page, this one too (cross-site request forgery).

use std::{net::SocketAddr, num::NonZeroU16};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Path, Query, Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use control_plane_files::Problem;
use control_plane_model::{BackendKey, ObjectName};
use gateway_engine::BreakerCommand;
use kit_process::tasks::Tasks;
use serde::Deserialize;

use crate::{engine::Proxy, problems::Problems};

/// The longest command, in bytes.
const MAX_COMMAND: usize = 64;

/// Why the admin port does not open.
#[derive(Debug, thiserror::Error)]
#[error("admin port {address}; --admin-address names another one")]
pub struct BindError {
    /// The address.
    pub address: SocketAddr,
    /// What the system says.
    #[source]
    pub source: std::io::Error,
}

#[derive(Clone)]
struct Admin {
    proxy: Proxy,
    problems: Problems,
}

/// Opens the port at `address` and serves it as a task of `tasks`. Returns the bound address (for port 0).
///
/// # Errors: [`BindError`] where the address cannot be bound.
pub async fn serve(
    address: SocketAddr,
    proxy: Proxy,
    problems: Problems,
    tasks: &Tasks,
) -> Result<SocketAddr, BindError> {
    let bind_error = |source| BindError { address, source };
    let listener = tokio::net::TcpListener::bind(address).await.map_err(bind_error)?;
    let bound = listener.local_addr().map_err(bind_error)?;
    let router = Router::new()
        .route("/", get(|| async { INDEX }))
        .route("/config", get(config))
        .route("/explain", get(explain))
        .route("/problems", get(list_problems))
        .route("/backends", get(backends))
        .route("/backends/{namespace}/{service}/{port}/breaker", post(force_breaker))
        .layer(DefaultBodyLimit::max(MAX_COMMAND))
        .layer(middleware::from_fn(only_this_machine))
        .with_state(Admin { proxy, problems });
    // It answers through the drain and ends with the runtime.
    let server = async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "admin port closed");
        }
    };
    tasks.spawn_detached("admin", server);
    Ok(bound)
}

const INDEX: &str = "\
Nebula gateway
/config    what is served now, as JSON, without private keys
/explain?route=http/NAMESPACE/NAME  what acts on a route, policies merged, as JSON (also grpc/…)
/problems  what is wrong with the configuration, as JSON
/backends  backends with a policy: breakers, limits, endpoints, as JSON
POST /backends/<namespace>/<service>/<port>/breaker  with the body open, closed or auto: overrules a circuit breaker
";

async fn config(State(admin): State<Admin>) -> Json<serde_json::Value> {
    Json(admin.proxy.dump().await)
}

#[derive(Deserialize)]
struct Explain {
    route: String,
}

async fn explain(State(admin): State<Admin>, Query(wanted): Query<Explain>) -> Response {
    let Some(key) = control_plane_dump::route_key(&wanted.route) else {
        return (StatusCode::BAD_REQUEST, "route: want http/NAMESPACE/NAME or grpc/NAMESPACE/NAME\n").into_response();
    };
    match admin.proxy.explain(&key).await {
        Some(explanation) => Json(explanation).into_response(),
        None => (StatusCode::NOT_FOUND, "no such route is in force\n").into_response(),
    }
}

async fn list_problems(State(admin): State<Admin>) -> Json<Vec<Problem>> {
    Json(admin.problems.list())
}

async fn backends(State(admin): State<Admin>) -> Json<serde_json::Value> {
    Json(admin.proxy.backends())
}

/// 204; 400 for another command, 404 where there is no such breaker.
async fn force_breaker(
    State(admin): State<Admin>,
    Path((namespace, service, port)): Path<(String, String, NonZeroU16)>,
    headers: HeaderMap,
    command: String,
) -> Response {
    // Browsers send these with what a page makes them send, and nothing else does.
    if headers.contains_key(header::ORIGIN) || headers.contains_key("sec-fetch-site") {
        return (StatusCode::FORBIDDEN, "not from a web page\n").into_response();
    }
    let command = match command.trim() {
        "open" => BreakerCommand::Open,
        "closed" => BreakerCommand::Closed,
        "auto" => BreakerCommand::Auto,
        _ => return (StatusCode::BAD_REQUEST, "the body must be open, closed or auto\n").into_response(),
    };
    let key = BackendKey { service: ObjectName::new(namespace, service), port };
    match admin.proxy.force_breaker(&key, command) {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => (StatusCode::NOT_FOUND, format!("{error}\n")).into_response(),
    }
}

async fn only_this_machine(request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    if names_this_machine(host) {
        next.run(request).await
    } else {
        (StatusCode::FORBIDDEN, "the admin port answers to localhost, 127.0.0.1 and [::1] only\n").into_response()
    }
}

fn names_this_machine(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    matches!(name, "localhost" | "127.0.0.1" | "[::1]")
}

#[cfg(test)]
mod tests {
    use super::names_this_machine;

    #[test]
    fn only_names_of_this_machine_are_answered() {
        for host in ["localhost", "localhost:19000", "127.0.0.1:19000", "[::1]:19000", "[::1]"] {
            assert!(names_this_machine(host), "{host}");
        }
        for host in
            ["", "evil.example", "evil.example:19000", "localhost.evil.example", "127.0.0.1.evil:80", "[::1", ":80"]
        {
            assert!(!names_this_machine(host), "{host}");
        }
    }
}
