//! New connections to an endpoint.

use std::{io, time::Duration};

use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpStream, sync::oneshot};

use super::{
    Endpoint,
    pool::{Http1Connection, Http2Connection, STREAMS_PER_CONNECTION},
};
use crate::{
    limits::Limits,
    spawn::{WorkerExecutor, on_this_worker},
};

/// The largest window (RFC 9113 §6.9.1).
const MAX_WINDOW: u32 = (1 << 31) - 1;

/// Opens a connection for HTTP/1.1.
///
/// # Errors: the system's; `TimedOut` after `timeout`.
pub(super) async fn http1(endpoint: &Endpoint, limits: &Limits, timeout: Duration) -> io::Result<Http1Connection> {
    let stream = tcp(endpoint, timeout).await?;
    let (sender, connection) = http1::Builder::new()
        .max_headers(limits.max_headers)
        .max_header_size(limits.upstream_max_head_bytes)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    let (alive, dropped) = oneshot::channel();
    on_this_worker(async move {
        tokio::select! {
            biased;
            // Its errors reach whoever waits for a response; on an idle connection nobody does.
            _ = connection.with_upgrades() => {}
            _ = dropped => {}
        }
    });
    Ok(Http1Connection::new(sender, alive))
}

/// Opens a connection for HTTP/2 with prior knowledge.
///
/// # Errors: as [`http1`].
pub(super) async fn http2(endpoint: &Endpoint, limits: &Limits, timeout: Duration) -> io::Result<Http2Connection> {
    let stream = tcp(endpoint, timeout).await?;
    let (sender, connection) = http2::Builder::new(WorkerExecutor)
        .timer(TokioTimer::new())
        .initial_stream_window_size(limits.h2_stream_window_bytes)
        // Room for all streams at once: clients that do not read their responses must not hold up those of others.
        .initial_connection_window_size(
            limits.h2_stream_window_bytes.saturating_mul(STREAMS_PER_CONNECTION).min(MAX_WINDOW),
        )
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

async fn tcp(endpoint: &Endpoint, timeout: Duration) -> io::Result<TcpStream> {
    let stream = tokio::time::timeout(timeout, TcpStream::connect(endpoint.address)).await??;
    stream.set_nodelay(true)?;
    Ok(stream)
}
