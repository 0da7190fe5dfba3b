//! Looks at the bytes of an HTTP/1 connection before hyper does, for what hyper settles without telling: both
//! `Content-Length` and `Transfer-Encoding`, repeated lengths, bare LF, fragments. It also gives a reason to what hyper
//! would refuse with an empty answer.
//!
//! [`StrictIo`] lies between socket and hyper. It holds a request's head back until it is whole and checked. In place of
//! a head that is refused, hyper gets a request of ours that asks to close; [`Refusal`] tells the service why, which
//! answers from the table of local replies, after the answers to earlier requests on the connection. Whatever the client
//! sends behind it is dropped. So no refused byte reaches the service, and nothing is answered out of order.
//!
//! Invariant: what passes is byte for byte what came; the scanner agrees with hyper on where each head begins, as it lets
//! no head pass on which two readers could differ.

mod chunked;
mod head;
mod scanner;

use std::{
    io,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
};

use http::Method;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use self::scanner::Scanner;
use crate::{limits::Limits, local_reply::Reason};

/// What hyper sees in place of a refused head. A client that sends this method itself gains nothing: it is refused only
/// on a connection where something else is refused too.
const SUBSTITUTE: &[u8] = b"NEBULA-REFUSED / HTTP/1.1\r\nhost: refused\r\nconnection: close\r\n\r\n";
const SUBSTITUTE_METHOD: &str = "NEBULA-REFUSED";
/// Bytes read at once while a head is incomplete.
const PIECE: usize = 4 << 10;
/// Reads of dropped bytes in one turn.
const DROPS: usize = 16;

/// Why a connection's last request was refused, if it was.
#[derive(Clone, Debug, Default)]
pub struct Refusal(Arc<OnceLock<Reason>>);

impl Refusal {
    /// Why this request must be refused; `None` for one that the client sent. To be asked before anything else is done
    /// with a request.
    pub fn reason(&self, method: &Method) -> Option<Reason> {
        self.0.get().copied().filter(|_| method.as_str() == SUBSTITUTE_METHOD)
    }
}

/// A client's HTTP/1 connection of which only checked heads can be read.
#[derive(Debug)]
pub struct StrictIo<S> {
    io: S,
    scanner: Scanner,
    /// Bytes not yet read by hyper: `held[taken..checked]` may be, the rest is the beginning of a head.
    held: Vec<u8>,
    taken: usize,
    checked: usize,
    phase: Phase,
    refusal: Refusal,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Heads are checked.
    Checking,
    /// A request to upgrade, or CONNECT, has passed: what follows may be anything. The service closes the connection
    /// unless it has upgraded.
    Open,
    /// A head was refused: what follows is dropped.
    Refused,
    /// A body's framing broke, or the client has sent all: end of file.
    Ended,
}

impl<S> StrictIo<S> {
    /// Checks what is read from `io`.
    pub fn new(io: S, limits: &Limits) -> Self {
        Self {
            io,
            scanner: Scanner::new(limits),
            held: Vec::new(),
            taken: 0,
            checked: 0,
            phase: Phase::Checking,
            refusal: Refusal::default(),
        }
    }

    /// Where the service learns what was refused.
    pub fn refusal(&self) -> Refusal {
        self.refusal.clone()
    }

    /// Scans bytes that came and tells how many of them may pass.
    fn scan(scanner: &mut Scanner, phase: &mut Phase, bytes: &[u8]) -> (usize, Option<Reason>) {
        let (passed, outcome) = scanner.feed(bytes);
        match outcome {
            scanner::Outcome::More => (passed, None),
            scanner::Outcome::Open => {
                *phase = Phase::Open;
                (bytes.len(), None)
            }
            scanner::Outcome::Broken => {
                *phase = Phase::Ended;
                (passed, None)
            }
            scanner::Outcome::Refused(reason) => (passed, Some(reason)),
        }
    }

    /// Puts the substitute behind the bytes that may pass.
    fn refuse(&mut self, reason: Reason) {
        // Only the first refusal counts, and there is only one.
        let _ = self.refusal.0.set(reason);
        self.held.truncate(self.checked);
        self.held.extend_from_slice(SUBSTITUTE);
        self.checked = self.held.len();
        self.phase = Phase::Refused;
    }

    /// Gives out checked bytes.
    fn give(&mut self, buffer: &mut ReadBuf<'_>) {
        let ready = self.held.get(self.taken..self.checked).unwrap_or_default();
        let count = ready.len().min(buffer.remaining());
        buffer.put_slice(ready.get(..count).unwrap_or_default());
        self.taken += count;
        if self.taken == self.checked {
            self.held.drain(..self.checked);
            (self.taken, self.checked) = (0, 0);
            if self.held.is_empty() && self.held.capacity() > PIECE {
                self.held = Vec::new();
            }
        }
    }
}

impl<S: AsyncRead + Unpin> StrictIo<S> {
    /// Reads straight into hyper's buffer; keeps the beginning of an incomplete head for itself.
    fn read_through(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let start = buffer.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(context, buffer))?;
        let bytes = buffer.filled().get(start..).unwrap_or_default();
        if bytes.is_empty() {
            self.phase = Phase::Ended;
            return Poll::Ready(Ok(()));
        }
        let (passed, refused) = Self::scan(&mut self.scanner, &mut self.phase, bytes);
        if self.phase == Phase::Checking && refused.is_none() {
            self.held.extend_from_slice(bytes.get(passed..).unwrap_or_default());
        }
        buffer.set_filled(start + passed);
        if let Some(reason) = refused {
            self.refuse(reason);
        }
        Poll::Ready(Ok(()))
    }

    /// Reads more of a head that is incomplete.
    fn read_on(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let old = self.held.len();
        self.held.resize(old + PIECE, 0);
        let mut piece = ReadBuf::new(self.held.get_mut(old..).unwrap_or_default());
        let outcome = Pin::new(&mut self.io).poll_read(context, &mut piece);
        let count = piece.filled().len();
        self.held.truncate(old + count);
        ready!(outcome)?;
        if count == 0 {
            self.refuse(Reason::MalformedRequest);
            return Poll::Ready(Ok(()));
        }
        let (passed, refused) = Self::scan(&mut self.scanner, &mut self.phase, &self.held);
        self.checked = passed;
        if self.phase == Phase::Ended {
            self.held.truncate(passed);
        }
        if let Some(reason) = refused {
            self.refuse(reason);
        }
        Poll::Ready(Ok(()))
    }

    /// Drops what comes, so that the answer is not lost to a reset because of unread bytes.
    fn drop_rest(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut bytes = [0; PIECE];
        for _ in 0..DROPS {
            let mut piece = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut self.io).poll_read(context, &mut piece))?;
            if piece.filled().is_empty() {
                // Hyper would give the request up at an end of file; it closes once the answer is written.
                return Poll::Pending;
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for StrictIo<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let start = buffer.filled().len();
        while buffer.filled().len() == start && buffer.remaining() > 0 {
            if this.taken < this.checked {
                this.give(buffer);
                break;
            }
            match this.phase {
                Phase::Open => return Pin::new(&mut this.io).poll_read(context, buffer),
                Phase::Refused => return this.drop_rest(context),
                Phase::Ended => break,
                Phase::Checking if this.held.is_empty() => ready!(this.read_through(context, buffer))?,
                Phase::Checking => ready!(this.read_on(context))?,
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for StrictIo<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests;
