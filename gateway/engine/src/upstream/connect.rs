//! New connections to an endpoint.

use std::io;

use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;

use super::{
    Endpoint,
    pool::{Http1Connection, Http2Connection},
};
use crate::{
    limits::Limits,
    spawn::{WorkerExecutor, on_this_worker},
};

/// Opens a connection for HTTP/1.1.
///
/// # Errors: the system's; `TimedOut` after the connect limit.
pub(super) async fn http1(endpoint: &Endpoint, limits: &Limits) -> io::Result<Http1Connection> {
    let stream = tcp(endpoint, limits).await?;
    let (sender, connection) = http1::Builder::new()
        .max_headers(limits.max_headers)
        .max_header_size(limits.upstream_max_head_bytes)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    on_this_worker(async move {
        // Its errors reach whoever waits for a response; on an idle connection nobody does.
        let _ = connection.with_upgrades().await;
    });
    Ok(Http1Connection::new(sender))
}

/// Opens a connection for HTTP/2 with prior knowledge.
///
/// # Errors: as [`http1`].
pub(super) async fn http2(endpoint: &Endpoint, limits: &Limits) -> io::Result<Http2Connection> {
    let stream = tcp(endpoint, limits).await?;
    let (sender, connection) = http2::Builder::new(WorkerExecutor)
        .timer(TokioTimer::new())
        .initial_stream_window_size(limits.h2_stream_window_bytes)
        .initial_connection_window_size(limits.h2_connection_window_bytes)
        .max_header_list_size(u32::try_from(limits.upstream_max_head_bytes).unwrap_or(u32::MAX))
        .keep_alive_interval(limits.h2_ping_interval)
        .keep_alive_timeout(limits.h2_ping_timeout)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    on_this_worker(async move {
        let _ = connection.await;
    });
    Ok(Http2Connection::new(sender))
}

async fn tcp(endpoint: &Endpoint, limits: &Limits) -> io::Result<TcpStream> {
    let stream = tokio::time::timeout(limits.connect_timeout, TcpStream::connect(endpoint.address)).await??;
    stream.set_nodelay(true)?;
    Ok(stream)
}
