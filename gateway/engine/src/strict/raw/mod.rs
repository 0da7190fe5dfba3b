//! Looks at the bytes of an HTTP/1 connection before hyper does, for what hyper settles without telling: both
//! `Content-Length` and `Transfer-Encoding`, repeated lengths, bare LF, fragments. It also gives a reason to what hyper
//! would refuse with an empty answer.
//!
//! [`StrictIo`] lies between socket and hyper. It holds a request's head back until it is whole and checked. In place of
//! a head that is refused, hyper gets a request of ours that asks to close; [`Guard`] tells the service why, which
//! answers from the table of local replies, after the answers to earlier requests on the connection. Whatever the client
//! sends behind it is dropped. So no refused byte reaches the service, and nothing is answered out of order.
//! Behind a request to upgrade nothing is read until it is answered: with 101 the bytes pass, else the connection closes.
//!
//! Invariant: what passes is byte for byte what came; the scanner agrees with hyper on where each head begins, as it lets
//! no head pass on which two readers could differ.

mod chunked;
mod head;
mod scanner;

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use self::scanner::{Outcome, Scanner};
use crate::{limits::Limits, local_reply::Reason};

/// What hyper sees in place of a refused head. A client that sends this method itself gains nothing: it is refused only
/// on a connection where something else is refused too.
const SUBSTITUTE: &[u8] = b"NEBULA-REFUSED / HTTP/1.1\r\nhost: refused\r\nconnection: close\r\n\r\n";
const SUBSTITUTE_METHOD: &str = "NEBULA-REFUSED";
/// Bytes read at once while a head is incomplete.
const PIECE: usize = 4 << 10;
/// Reads of dropped bytes in one turn.
const DROPS: usize = 16;

/// What the service must know of a connection's [`StrictIo`], and tell it.
#[derive(Clone, Debug, Default)]
pub struct Guard(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    refused: OnceLock<Reason>,
    /// A request to upgrade, or CONNECT, has passed.
    waits: AtomicBool,
    /// It was answered with 101.
    switched: AtomicBool,
}

impl Guard {
    /// Why this request must be refused; `None` for one that the client sent. To be asked before anything else is done
    /// with a request.
    pub fn refused(&self, method: &Method) -> Option<Reason> {
        self.0.refused.get().copied().filter(|_| method.as_str() == SUBSTITUTE_METHOD)
    }

    /// To be called with each answer before hyper gets it. Lets the other protocol's bytes pass behind a 101, and has the
    /// connection closed behind every other answer to a request to upgrade.
    pub fn answered(&self, status: StatusCode, headers: &mut HeaderMap) {
        if !self.0.waits.load(Ordering::Acquire) {
            return;
        }
        if status == StatusCode::SWITCHING_PROTOCOLS {
            self.0.switched.store(true, Ordering::Release);
        } else {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
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
    guard: Guard,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Heads are checked.
    Checking,
    /// A request to upgrade, or CONNECT, has passed: nothing is given out until it is answered.
    Waiting,
    /// The connection speaks another protocol.
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
            guard: Guard::default(),
        }
    }

    /// For the service of this connection.
    pub fn guard(&self) -> Guard {
        self.guard.clone()
    }

    /// Enters the phase that follows the bytes scanned.
    fn settle(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::More => {}
            Outcome::Switch => {
                self.guard.0.waits.store(true, Ordering::Release);
                self.phase = Phase::Waiting;
            }
            Outcome::Broken => {
                self.held.truncate(self.checked);
                self.phase = Phase::Ended;
            }
            Outcome::Refused(reason) => self.refuse(reason),
        }
    }

    /// Puts the substitute behind the bytes that may pass.
    fn refuse(&mut self, reason: Reason) {
        // Only the first refusal counts, and there is only one.
        let _ = self.guard.0.refused.set(reason);
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
        let (passed, outcome) = self.scanner.feed(bytes);
        if matches!(outcome, Outcome::More | Outcome::Switch) {
            self.held.extend_from_slice(bytes.get(passed..).unwrap_or_default());
        }
        buffer.set_filled(start + passed);
        self.settle(outcome);
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
        let (passed, outcome) = self.scanner.feed(&self.held);
        self.checked = passed;
        self.settle(outcome);
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
                Phase::Waiting if this.guard.0.switched.load(Ordering::Acquire) => {
                    this.phase = Phase::Open;
                    this.checked = this.held.len();
                }
                // Who answers wakes hyper, which reads again.
                Phase::Waiting => return Poll::Pending,
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
