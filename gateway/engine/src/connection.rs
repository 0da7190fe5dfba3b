//! One client connection: TLS, the protocol, and serving its requests until it ends, drains or is given up.

use std::{
    convert::Infallible,
    future::{Future as _, poll_fn},
    io,
    net::SocketAddr,
    pin::pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use control_plane_model::ListenerKey;
use http::{HeaderValue, Request};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use kit_process::drain::Drain;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::{LazyConfigAcceptor, rustls::server::Acceptor, server::TlsStream};

use crate::{
    client::{Admission, PortRuntime},
    compile::Handshake,
    exchange::Client,
    filter::FilterSet,
    io::WatchedIo,
    limits::Limits,
    proxy,
    router::Bind,
    spawn::StreamExecutor,
    strict::{
        self, Scheme,
        raw::{Guard, StrictIo},
    },
    telemetry::{DownstreamProtocol, PortMetrics, TlsFailure},
    watchdog::Progress,
    worker::Load,
};

/// How long a client that has just come may take for its first bytes, or its handshake, once the engine drains: its
/// request may be on the way already.
const DRAIN_GRACE: Duration = Duration::from_secs(1);

/// What a request needs to know of its connection.
pub(crate) struct Downstream<F: FilterSet> {
    pub(crate) worker: Load<F>,
    /// Who connects, or who that is for by the PROXY protocol.
    pub(crate) client: Client,
    /// Who connects, where that is somebody else than the client.
    pub(crate) peer: Option<Client>,
    /// The client as the backend reads it.
    pub(crate) forwarded_for: HeaderValue,
    /// The socket that the client came to.
    pub(crate) bind: Bind,
    pub(crate) scheme: Scheme,
    /// The listener that the TLS handshake chose.
    pub(crate) handshake: Option<ListenerKey>,
    /// Those of that listener, or of the socket.
    pub(crate) limits: Arc<Limits>,
    pub(crate) progress: Arc<Progress>,
    /// Tells which HTTP/1 requests were refused before hyper read them.
    pub(crate) guard: Guard,
    /// The connection counts at its socket while this lives.
    _admission: Admission,
}

/// A connection that was accepted: where it came from, and what its socket says about it.
struct Accepted<F: FilterSet> {
    worker: Load<F>,
    bind: Bind,
    port: Arc<PortRuntime>,
    client: SocketAddr,
    peer: SocketAddr,
    admission: Admission,
}

impl<F: FilterSet> Accepted<F> {
    fn into_downstream(
        self,
        handshake: Option<ListenerKey>,
        limits: Arc<Limits>,
        progress: Arc<Progress>,
    ) -> Downstream<F> {
        Downstream {
            client: self.client.into(),
            peer: (self.peer != self.client).then(|| self.peer.into()),
            forwarded_for: strict::forwarded_for(self.client),
            bind: self.bind,
            scheme: if handshake.is_some() { Scheme::Https } else { Scheme::Http },
            handshake,
            limits,
            progress,
            guard: Guard::default(),
            worker: self.worker,
            _admission: self.admission,
        }
    }
}

/// Serves a connection that was accepted on `bind`, to its end.
pub(crate) async fn serve<F: FilterSet>(worker: Load<F>, mut stream: TcpStream, peer: SocketAddr, bind: Bind) {
    let (port, has_tls) = {
        let config = worker.shared.config.load();
        let Some(port) = config.port(bind) else { return };
        (port.clone(), config.has_tls(bind))
    };
    let Some(mut admission) = port.connections.admit(port.limits.max_connections_per_socket) else {
        tracing::debug!(%peer, "connection refused: this socket has as many as it may");
        return port.metrics.refused();
    };
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "connection ended before it was served");
        return;
    }
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    let Some(client) = client(&worker, &port, &mut stream, peer).await else { return };
    if !admission.of_client(client.ip(), port.limits.max_connections_per_client) {
        tracing::debug!(%client, "connection refused: this client has as many as it may");
        return port.metrics.refused();
    }
    let accepted = Accepted { worker, bind, port, client, peer, admission };
    if has_tls {
        serve_tls(accepted, stream).await;
    } else {
        serve_plain(accepted, stream).await;
    }
}

/// The client of a connection: who connects, or who its PROXY header says. `None` where it must end.
async fn client<F: FilterSet>(
    worker: &Load<F>,
    port: &PortRuntime,
    stream: &mut TcpStream,
    peer: SocketAddr,
) -> Option<SocketAddr> {
    if !port.has_proxy_protocol() {
        return Some(peer);
    }
    let proxied = tokio::select! {
        biased;
        proxied = port.proxied(stream, peer) => proxied,
        () = grace_after(&worker.shared.drain) => return None,
    };
    match proxied {
        Ok(client) => Some(client),
        Err(error) => {
            tracing::debug!(%peer, error = %kit_process::error::chain(&error), "connection refused");
            port.metrics.refused();
            None
        }
    }
}

async fn serve_plain<F: FilterSet>(accepted: Accepted<F>, stream: TcpStream) {
    let (port, limits) = (accepted.port.clone(), accepted.port.limits.clone());
    let progress = accepted.worker.watchdog.watch(limits.clone());
    let downstream = accepted.into_downstream(None, limits, progress);
    let mut io = WatchedIo::new(stream, downstream.progress.clone());
    let is_http2 = tokio::select! {
        biased;
        preface = io.opens_with_http2() => preface,
        () = downstream.progress.aborted() => return,
        () = grace_after(&downstream.worker.shared.drain) => return,
    };
    match is_http2 {
        Ok(false) => http1(io, downstream, &port.metrics).await,
        Ok(true) => http2(io, downstream, &port.metrics).await,
        // A connection that is opened and closed without a byte, as health checks of load balancers do.
        Err(error) => tracing::trace!(%error, "no request on this connection"),
    }
}

async fn serve_tls<F: FilterSet>(accepted: Accepted<F>, stream: TcpStream) {
    let (worker, port, bind) = (&accepted.worker, accepted.port.clone(), accepted.bind);
    let find = |name: Option<&str>| worker.shared.config.load().handshake(bind, name);
    let shaken = tokio::select! {
        biased;
        shaken = handshake(stream, port.limits.tls_handshake_timeout, find) => shaken,
        () = grace_after(&worker.shared.drain) => return,
    };
    let (stream, listener, limits) = match shaken {
        Ok(shaken) => shaken,
        Err((failure, error)) => {
            tracing::debug!(%error, reason = failure.as_str(), "TLS handshake failed");
            port.metrics.tls_failed(failure);
            return;
        }
    };
    let progress = worker.watchdog.watch(limits.clone());
    let downstream = accepted.into_downstream(Some(listener), limits, progress);
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let io = WatchedIo::new(stream, downstream.progress.clone());
    if is_http2 {
        http2(io, downstream, &port.metrics).await;
    } else {
        http1(io, downstream, &port.metrics).await;
    }
}

/// Ends [`DRAIN_GRACE`] after the drain has begun.
async fn grace_after(drain: &Drain) {
    drain.signaled().await;
    tokio::time::sleep(DRAIN_GRACE).await;
}

type Shaken = (TlsStream<TcpStream>, ListenerKey, Arc<Limits>);

/// Reads the ClientHello, finds the listener for its server name, and finishes the handshake within the limit.
async fn handshake(
    stream: TcpStream,
    limit: Duration,
    find: impl Fn(Option<&str>) -> Option<Handshake>,
) -> Result<Shaken, (TlsFailure, io::Error)> {
    let accept = async {
        let start =
            LazyConfigAcceptor::new(Acceptor::default(), stream).await.map_err(|error| (classify(&error), error))?;
        let name = start.client_hello().server_name().map(str::to_ascii_lowercase);
        let Some(Handshake { listener, tls, limits }) = find(name.as_deref()) else {
            let error = io::Error::other("no listener with a certificate serves this name");
            return Err((TlsFailure::NoCertificate, error));
        };
        let stream = start.into_stream(tls.config()).await.map_err(|error| (classify(&error), error))?;
        Ok((stream, listener, limits))
    };
    tokio::time::timeout(limit, accept)
        .await
        .unwrap_or_else(|_| Err((TlsFailure::Timeout, io::ErrorKind::TimedOut.into())))
}

fn classify(error: &io::Error) -> TlsFailure {
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => TlsFailure::Closed,
        _ => TlsFailure::Protocol,
    }
}

/// Serves requests on `$connection` until it ends; ends it gracefully when the worker drains.
macro_rules! serve_until_drained {
    ($connection:expr, $progress:expr, $drain:expr) => {{
        let mut connection = pin!($connection);
        let ended = tokio::select! {
            biased;
            // Before the connection, so that a response that is ready at the same time says that it closes.
            () = $drain.signaled() => None,
            ended = connection.as_mut() => Some(ended),
            // A client that is idle may be sending its next request just now: HTTP/2 can tell it not to. One that has had
            // all its requests gets the answers to those under way.
            () = $progress.aborted() => if $progress.ends_gracefully() { None } else { return },
        };
        let ended = match ended {
            Some(ended) => ended,
            None => {
                let first = poll_fn(|context| match connection.as_mut().poll(context) {
                    Poll::Pending if !$progress.has_begun() => Poll::Pending,
                    polled => Poll::Ready(polled.is_ready()),
                });
                // hyper would close a connection without a request at once, although one may be on the way.
                if !$progress.has_begun() && tokio::time::timeout(DRAIN_GRACE, first).await == Ok(true) {
                    return;
                }
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    biased;
                    ended = connection => ended,
                    () = $progress.aborted() => return,
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(error = %kit_process::error::chain(&error), "connection ended with an error");
        }
    }};
}

async fn http1<F: FilterSet, S>(io: WatchedIo<S>, mut downstream: Downstream<F>, metrics: &Arc<PortMetrics>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let _open = metrics.opened(DownstreamProtocol::Http1);
    let io = StrictIo::new(io, &downstream.limits);
    downstream.guard = io.guard();
    let downstream = Arc::new(downstream);
    let limits = &downstream.limits;
    let connection = http1::Builder::new()
        // The watchdog has the time limits, for less than a timer a request.
        .header_read_timeout(None)
        .max_headers(limits.max_headers)
        .max_header_size(limits.max_head_bytes)
        .serve_connection(TokioIo::new(io), service(&downstream))
        .with_upgrades();
    serve_until_drained!(connection, downstream.progress, downstream.worker.shared.drain);
}

async fn http2<F: FilterSet, S>(io: WatchedIo<S>, downstream: Downstream<F>, metrics: &Arc<PortMetrics>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let _open = metrics.opened(DownstreamProtocol::Http2);
    let downstream = Arc::new(downstream);
    downstream.progress.multiplexed();
    let limits = &downstream.limits;
    let connection = http2::Builder::new(StreamExecutor::new(limits.response_write_idle_timeout))
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.h2_max_concurrent_streams)
        .max_pending_accept_reset_streams(limits.h2_max_pending_accept_reset_streams)
        .max_local_error_reset_streams(limits.h2_max_local_error_reset_streams)
        // Twice the limit, so that what is a little above it is answered from the table of local replies; what is far
        // above gets a bare 431.
        .max_header_list_size(u32::try_from(limits.max_head_bytes.saturating_mul(2)).unwrap_or(u32::MAX))
        .max_send_buf_size(limits.h2_max_send_buffer_bytes)
        .initial_stream_window_size(limits.h2_stream_window_bytes)
        .initial_connection_window_size(limits.h2_connection_window_bytes)
        .keep_alive_interval(limits.h2_ping_interval)
        .keep_alive_timeout(limits.h2_ping_timeout)
        .serve_connection(TokioIo::new(io), service(&downstream));
    serve_until_drained!(connection, downstream.progress, downstream.worker.shared.drain);
}

fn service<F: FilterSet>(
    downstream: &Arc<Downstream<F>>,
) -> impl hyper::service::Service<
    Request<Incoming>,
    Response = http::Response<crate::body::ResponseBody>,
    Error = Infallible,
    Future: Send + 'static,
> + Send
+ 'static {
    let downstream = downstream.clone();
    service_fn(move |request| {
        let downstream = downstream.clone();
        // On the heap at once: hyper and tokio move the future several times on its way into a task, and it is large.
        Box::pin(async move { Ok(proxy::serve(downstream, request).await) })
    })
}
