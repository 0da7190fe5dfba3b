//! Sending one request to one endpoint: on an idle connection of this worker, or on a new one.
//!
//! Invariant: an HTTP/1.1 connection goes back to the pool only after its request's body was sent and its response's
//! body read to the end, and never after an upgrade was asked for. A request whose bytes may have reached the endpoint is
//! sent again only where that is harmless (RFC 9110 section 9.2.2): it is safe, its body is none or in memory, and the connection was an old one.

use std::{
    convert::Infallible,
    error::Error as _,
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{Method, Request, Response, header};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use kit_process::error::chain;
use parking_lot::Mutex;
use tokio::{sync::oneshot, time::Instant};

use super::{Endpoint, Protocol, WorkerId, connect, endpoint::Http2Way};
use crate::{
    body::{BodyError, RequestBody, Upload},
    limits::Limits,
    telemetry::ExchangeFailure,
};

/// Streams on one HTTP/2 connection before another one is opened.
pub(super) const STREAMS_PER_CONNECTION: u32 = 100;

/// An HTTP/1.1 connection that serves one request at a time. Dropping it closes the connection at once, even where the
/// endpoint takes no more of a request.
pub(super) struct Http1Connection {
    sender: http1::SendRequest<RequestBody>,
    _alive: oneshot::Sender<Infallible>,
}

impl Http1Connection {
    /// The connection of `sender`, whose task ends with the other side of `alive`.
    pub(super) fn new(sender: http1::SendRequest<RequestBody>, alive: oneshot::Sender<Infallible>) -> Self {
        Self { sender, _alive: alive }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
}

/// An HTTP/2 connection that many requests of a worker share.
#[derive(Clone)]
pub(super) struct Http2Connection {
    sender: http2::SendRequest<RequestBody>,
    usage: Arc<Http2Usage>,
}

struct Http2Usage {
    streams: AtomicUsize,
    last_used: Mutex<Instant>,
}

impl Http2Connection {
    pub(super) fn new(sender: http2::SendRequest<RequestBody>) -> Self {
        let usage = Http2Usage { streams: AtomicUsize::new(0), last_used: Mutex::new(Instant::now()) };
        Self { sender, usage: Arc::new(usage) }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    pub(super) fn has_room(&self) -> bool {
        self.usage.streams.load(Ordering::Relaxed) < STREAMS_PER_CONNECTION as usize
    }

    pub(super) fn is_idle_since(&self, before: Instant) -> bool {
        self.usage.streams.load(Ordering::Relaxed) == 0 && *self.usage.last_used.lock() < before
    }
}

/// A response's hold on its connection. Dropped early, it closes an HTTP/1.1 connection or resets an HTTP/2 stream.
pub(crate) struct Lease {
    endpoint: Arc<Endpoint>,
    worker: WorkerId,
    connection: Leased,
    /// Idle connections that the endpoint keeps; 0 where this one must not be used again.
    max_idle: usize,
    is_reused: bool,
    upload: Arc<Upload>,
}

enum Leased {
    /// None yet, or given back.
    Nothing,
    Http1(Http1Connection),
    Http2(Arc<Http2Usage>),
}

impl Lease {
    /// The connection serves no further request: its client may have sent more than the one.
    pub(crate) fn without_reuse(mut self) -> Self {
        self.max_idle = 0;
        self
    }

    /// Whether the connection came from the pool.
    pub(crate) fn is_reused(&self) -> bool {
        self.is_reused
    }

    /// Gives the connection back: the response's body has ended. One that still waits for the client's body would have
    /// the next request wait as well, so it is closed.
    pub(crate) fn finish(mut self) {
        let may_stay = self.max_idle > 0 && self.upload.has_ended();
        match std::mem::replace(&mut self.connection, Leased::Nothing) {
            Leased::Http1(connection) if may_stay && !connection.is_closed() => {
                self.endpoint.keep_idle(self.worker, connection, self.max_idle);
            }
            other => self.connection = other,
        }
    }
}

impl Lease {
    /// Why its request got no response. (With HTTP/2, hyper's error does not tell that the client's body was the cause.)
    fn failed(&self, error: hyper::Error, unsent: Option<Box<Request<RequestBody>>>) -> SendError {
        let failure = match self.upload.failure() {
            Some(error) => SendFailure::Client(error.clone()),
            None => SendFailure::Exchange(error),
        };
        SendError { failure, unsent }
    }

    /// Lets the connection go: closes it, or leaves it to the other streams.
    fn release(&mut self) {
        if let Leased::Http2(usage) = std::mem::replace(&mut self.connection, Leased::Nothing) {
            usage.streams.fetch_sub(1, Ordering::Relaxed);
            *usage.last_used.lock() = Instant::now();
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.upload.set_answered(false);
        self.release();
        self.endpoint.end(self.worker);
    }
}

/// Why a request got no response.
#[derive(Debug)]
pub(crate) struct SendError {
    pub(crate) failure: SendFailure,
    /// The request, where not a byte of it was sent.
    pub(crate) unsent: Option<Box<Request<RequestBody>>>,
}

/// How it failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendFailure {
    /// No connection: refused, unreachable, or not within the limit.
    #[error("connect: {0}")]
    Connect(io::Error),
    /// The client's body ended early.
    #[error("request body: {0}")]
    Client(BodyError),
    /// The connection ended before a whole response head.
    #[error("{}", chain(.0))]
    Exchange(hyper::Error),
}

impl SendFailure {
    /// The kind of failure, for metrics and for the reply.
    pub(crate) fn kind(&self) -> ExchangeFailure {
        match self {
            Self::Connect(error) => match error.kind() {
                io::ErrorKind::TimedOut => ExchangeFailure::ConnectTimeout,
                io::ErrorKind::ConnectionRefused => ExchangeFailure::ConnectRefused,
                _ => ExchangeFailure::ConnectError,
            },
            Self::Exchange(error) if error.is_parse() || breaks_http2(error) => ExchangeFailure::Protocol,
            Self::Client(_) | Self::Exchange(_) => ExchangeFailure::Reset,
        }
    }
}

/// Whether what came was no HTTP/2, as from a backend that speaks HTTP/1.1.
fn breaks_http2(error: &hyper::Error) -> bool {
    error.source().and_then(|source| source.downcast_ref::<h2::Error>()).is_some_and(h2::Error::is_library)
}

/// Sends `request` to `endpoint`, on a connection that is made within `connect_timeout`. Dropping the future gives the request up and closes its connection or stream.
///
/// # Errors: [`SendError`]; the request comes back where it can safely be sent elsewhere.
pub(crate) async fn send(
    endpoint: &Arc<Endpoint>,
    worker: WorkerId,
    protocol: Protocol,
    request: Box<Request<RequestBody>>,
    limits: &Limits,
    connect_timeout: Duration,
) -> Result<(Response<Incoming>, Lease), SendError> {
    endpoint.begin(worker);
    let lease = Lease {
        endpoint: endpoint.clone(),
        worker,
        connection: Leased::Nothing,
        max_idle: limits.upstream_max_idle_per_endpoint,
        is_reused: false,
        upload: request.body().upload().clone(),
    };
    let sent = match protocol {
        Protocol::Http1 => send_http1(lease, request, limits, connect_timeout).await,
        Protocol::Http2 => send_http2(lease, request, limits, connect_timeout).await,
    };
    if let Ok((_, lease)) = &sent {
        lease.upload.set_answered(true);
    }
    sent
}

async fn send_http1(
    mut lease: Lease,
    mut request: Box<Request<RequestBody>>,
    limits: &Limits,
    connect_timeout: Duration,
) -> Result<(Response<Incoming>, Lease), SendError> {
    loop {
        let idle = lease.endpoint.take_idle(lease.worker);
        let is_reused = idle.is_some();
        lease.is_reused = is_reused;
        let mut connection = match idle {
            Some(connection) => connection,
            None => match Box::pin(connect::http1(&lease.endpoint, limits, connect_timeout)).await {
                Ok(connection) => connection,
                Err(error) => return Err(SendError::connect(error, request)),
            },
        };
        // A connection comes back to the pool as its last byte is read, perhaps a moment before hyper is ready.
        if !connection.sender.is_ready() && connection.sender.ready().await.is_err() && is_reused {
            continue;
        }
        let spare = if is_reused { repeatable(&request) } else { None };
        match connection.sender.try_send_request(*request).await {
            Ok(response) => {
                lease.connection = Leased::Http1(connection);
                return Ok((response, lease));
            }
            Err(mut error) => match (error.take_message().map(Box::new), spare) {
                // The endpoint closed an idle connection just now: the next one, or a new one, will do.
                (Some(unsent), _) if is_reused => request = unsent,
                (None, Some(spare)) if broke_off(error.error()) => {
                    request = spare;
                }
                (unsent, _) => return Err(lease.failed(error.into_error(), unsent)),
            },
        }
    }
}

/// Whether the endpoint closed or reset the connection before it answered.
fn broke_off(error: &hyper::Error) -> bool {
    let is_reset = |error: &io::Error| {
        matches!(
            error.kind(),
            io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::BrokenPipe
        )
    };
    error.is_incomplete_message()
        || error.is_closed()
        || error.source().and_then(|source| source.downcast_ref()).is_some_and(is_reset)
}

/// A copy of a request that may be sent twice: safe, with no body or one in memory, without an upgrade.
fn repeatable(request: &Request<RequestBody>) -> Option<Box<Request<RequestBody>>> {
    let is_safe = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    if !is_safe || request.headers().contains_key(header::UPGRADE) {
        return None;
    }
    Some(with_body(request, request.body().copy_of_held()?))
}

/// A copy of a request whose body is kept, or that has none; `None` for others. Its body may turn out to be too long: see
/// [`RequestBody::is_whole`].
pub(crate) fn copy_of(request: &Request<RequestBody>) -> Option<Box<Request<RequestBody>>> {
    Some(with_body(request, request.body().copy()?))
}

fn with_body(request: &Request<RequestBody>, body: RequestBody) -> Box<Request<RequestBody>> {
    let mut copy = Request::new(body);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    Box::new(copy)
}

async fn send_http2(
    mut lease: Lease,
    mut request: Box<Request<RequestBody>>,
    limits: &Limits,
    connect_timeout: Duration,
) -> Result<(Response<Incoming>, Lease), SendError> {
    loop {
        let way = lease.endpoint.http2(lease.worker);
        lease.is_reused = matches!(way, Http2Way::Shared(_));
        let mut connection = match way {
            Http2Way::Shared(connection) => connection,
            Http2Way::Awaited(mut opening) => {
                if opening.changed().await.is_ok()
                    && let Some(error) = opening.borrow().clone()
                {
                    return Err(SendError::connect(io::Error::new(error.kind(), error), request));
                }
                continue;
            }
            Http2Way::Missing(opens) => {
                match Box::pin(connect::http2(&lease.endpoint, limits, connect_timeout)).await {
                    Ok(connection) => {
                        lease.endpoint.share(lease.worker, connection.clone());
                        connection
                    }
                    Err(error) => {
                        let error = Arc::new(error);
                        opens.send_replace(Some(error.clone()));
                        return Err(SendError::connect(io::Error::new(error.kind(), error), request));
                    }
                }
            }
        };
        let is_reused = lease.is_reused;
        connection.usage.streams.fetch_add(1, Ordering::Relaxed);
        lease.connection = Leased::Http2(connection.usage.clone());
        match connection.sender.try_send_request(*request).await {
            Ok(response) => return Ok((response, lease)),
            Err(mut error) => match error.take_message().map(Box::new) {
                Some(unsent) if is_reused => {
                    lease.release();
                    request = unsent;
                }
                unsent => return Err(lease.failed(error.into_error(), unsent)),
            },
        }
    }
}

impl SendError {
    fn connect(error: io::Error, request: Box<Request<RequestBody>>) -> Self {
        Self { failure: SendFailure::Connect(error), unsent: Some(request) }
    }
}
