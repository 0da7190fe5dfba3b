//! A client's connection as hyper sees it: bytes that were read too early come first, and progress is noted.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};

use crate::watchdog::{Phase, Progress};

/// How long a client may send nothing, and hold its side open, once the proxy has closed its own.
const LINGER_IDLE: Duration = Duration::from_secs(1);
/// How long it may go on sending then.
const LINGER: Duration = Duration::from_secs(30);
/// Reads of dropped bytes in one turn.
const DROPS: usize = 16;

/// The stream of a client, watched.
#[derive(Debug)]
pub(crate) struct WatchedIo<S> {
    stream: S,
    early: Bytes,
    progress: Arc<Progress>,
    /// Once the proxy has sent its last byte.
    linger: Option<Linger>,
}

/// The time that a client has left to end its side.
#[derive(Debug)]
struct Linger {
    timer: Pin<Box<Sleep>>,
    end: Instant,
}

impl Linger {
    fn begin() -> Self {
        Self { timer: Box::pin(tokio::time::sleep(LINGER_IDLE)), end: Instant::now() + LINGER }
    }

    /// The client has sent something.
    fn extend(&mut self) {
        self.timer.as_mut().reset(self.end.min(Instant::now() + LINGER_IDLE));
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> WatchedIo<S> {
    pub(crate) fn new(stream: S, progress: Arc<Progress>) -> Self {
        Self { stream, early: Bytes::new(), progress, linger: None }
    }

    /// Reads until it is clear whether the client opens with the HTTP/2 preface (RFC 9113 §3.4). What was read
    /// is read again afterwards.
    ///
    /// # Errors: those of the stream; `UnexpectedEof` where it ends before the first byte.
    pub(crate) async fn opens_with_http2(&mut self) -> io::Result<bool> {
        const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        let mut buffer = [0; PREFACE.len()];
        let mut filled = 0;
        while let Some(free) = buffer.get_mut(filled..) {
            let read = self.stream.read(free).await?;
            if read == 0 {
                break;
            }
            self.progress.read();
            filled += read;
            let seen = buffer.get(..filled).unwrap_or_default();
            if filled == PREFACE.len() || !PREFACE.starts_with(seen) {
                break;
            }
        }
        let seen = buffer.get(..filled).unwrap_or_default();
        if seen.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.early = Bytes::copy_from_slice(seen);
        Ok(seen == PREFACE)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WatchedIo<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.early.has_remaining() {
            let count = this.early.len().min(buffer.remaining());
            buffer.put_slice(&this.early.split_to(count));
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(context, buffer))?;
        if buffer.filled().len() > before {
            this.progress.read();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> WatchedIo<S> {
    /// Drops what the client still sends until it ends too: a socket that is closed with bytes unread is reset, and a
    /// client that was sending a body would lose the answer to it (RFC 9112 section 9.6).
    fn poll_linger(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let linger = self.linger.get_or_insert_with(Linger::begin);
        let mut bytes = [0; 4 << 10];
        for _ in 0..DROPS {
            let mut piece = ReadBuf::new(&mut bytes);
            match Pin::new(&mut self.stream).poll_read(context, &mut piece) {
                Poll::Pending => return linger.timer.as_mut().poll(context),
                Poll::Ready(Ok(())) if !piece.filled().is_empty() => {}
                Poll::Ready(_) => return Poll::Ready(()),
            }
        }
        linger.extend();
        context.waker().wake_by_ref();
        linger.timer.as_mut().poll(context)
    }

    fn note<T>(&self, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match &result {
            Poll::Pending => self.progress.write_blocked(),
            Poll::Ready(_) => self.progress.written(),
        }
        result
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WatchedIo<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(context, buffer);
        self.note(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(context, buffers);
        self.note(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_flush(context);
        self.note(result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.linger.is_none() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(context))?;
        }
        // The other side of a tunnel may have ended alone: what the client goes on sending is the backend's.
        if self.progress.phase() == Phase::Tunnel {
            return Poll::Ready(Ok(()));
        }
        self.poll_linger(context).map(Ok)
    }
}
