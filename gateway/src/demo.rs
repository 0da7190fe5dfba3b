//! The demo backend: a tiny HTTP server inside the gateway, so that the quickstart needs nothing else.
//!
//! Only standalone mode has it, only on loopback, and only for Services that ask for it by
//! [`control_plane_files::demo_backend::ANNOTATION`].

use std::{convert::Infallible, net::SocketAddr};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body_util::Full;
use hyper_util::rt::{TokioExecutor, TokioIo};
use kit_process::tasks::Tasks;

/// Opens the demo backend on a free loopback port and serves it as a task of `tasks`, HTTP/1.1 and h2c.
///
/// # Errors: where no loopback port can be bound.
pub async fn serve(tasks: &Tasks) -> std::io::Result<SocketAddr> {
    let listener = tokio::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let connections = tasks.clone();
    tasks.spawn_detached("demo-backend", async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                // Out of file descriptors, most likely: let some be closed.
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            };
            connections.spawn_detached("demo-backend-connection", async move {
                let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                let service =
                    hyper::service::service_fn(|request| async move { Ok::<_, Infallible>(answer(&request)) });
                // A client that goes away is no event.
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    Ok(address)
}

/// Says who it is and what it was asked. The body of the request is not read.
fn answer<B>(request: &Request<B>) -> Response<Full<Bytes>> {
    let headers: serde_json::Map<_, _> = request
        .headers()
        .keys()
        .map(|name| {
            let values: Vec<_> =
                request.headers().get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
            (name.to_string(), values.join(", ").into())
        })
        .collect();
    let text = serde_json::json!({
        "message": "Hello from Nebula's demo backend. Edit the YAML and ask again.",
        "request": {
            "method": request.method().as_str(),
            "path": request.uri().path_and_query().map_or("/", http::uri::PathAndQuery::as_str),
            "headers": headers,
        },
    });
    let mut response = Response::new(Full::from(format!("{text:#}\n")));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_says_what_was_asked() {
        let request = Request::get("/a?b=c").header("x-one", "1").header("x-one", "2").body(()).unwrap();
        let response = answer(&request);
        assert_eq!(response.status(), 200);
        let body = format!("{:?}", response.body());
        for want in ["/a?b=c", "GET", "1, 2"] {
            assert!(body.contains(want), "{body}");
        }
    }
}
