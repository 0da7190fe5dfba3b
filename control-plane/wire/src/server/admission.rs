//! How many connections the discovery port has: those beyond a limit are closed at once, before TLS costs anything.
//!
//! Invariant: a place is taken from `accept` until the connection is dropped, however it ends.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tonic::transport::server::{Connected, TcpConnectInfo};

use super::Hub;

/// Lets connections in.
#[derive(Debug)]
pub(super) struct Admission {
    places: Arc<Semaphore>,
    limit: usize,
    hub: Hub,
    /// The last connection was refused: the log says so once.
    full: AtomicBool,
}

impl Admission {
    /// At most `limit` at one time; `hub` counts those that are refused.
    pub(super) fn new(hub: Hub, limit: usize) -> Self {
        Self { places: Arc::new(Semaphore::new(limit)), limit, hub, full: AtomicBool::new(false) }
    }

    /// The connection with its place; `None` where there is none left.
    pub(super) fn admit(&self, stream: TcpStream) -> Option<Admitted> {
        let place = self.places.clone().try_acquire_owned().ok();
        let was_full = self.full.swap(place.is_none(), Ordering::Relaxed);
        if place.is_none() {
            self.hub.count_refused_connection();
            if !was_full {
                tracing::warn!(limit = self.limit, "discovery connections are refused: there are too many");
            }
        }
        Some(Admitted { stream, _place: place? })
    }
}

/// A connection that has its place.
#[derive(Debug)]
pub(super) struct Admitted {
    stream: TcpStream,
    _place: OwnedSemaphorePermit,
}

impl Connected for Admitted {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Admitted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Admitted {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
