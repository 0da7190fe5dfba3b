//! A client's body before it is forwarded: streamed, unless a filter asks for it whole.
//!
//! Invariants: what a filter was given is byte for byte what is forwarded. The bytes held for all requests together stay
//! within [`Limits::request_buffer_bytes`]; they count until the last reference to them is gone. A request whose filters do
//! not ask pays for none of it, and a client that waits for `100 Continue` gets it when its body is first asked for.

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use http_body::Body as _;
use hyper::body::Incoming;
use prometheus_client::metrics::gauge::Gauge;
use tokio::time::Instant;

use crate::{
    body::{BodyError, BodyPace, Outgoing, RequestBody, TimedBody, Upload},
    limits::Limits,
    local_reply::{LocalReply, Reason},
    strict,
};

/// What the first bytes of a body of unknown length get.
const FIRST_PIECE: usize = 4 << 10;

/// What all requests share to hold bodies in.
#[derive(Debug)]
pub struct Buffers {
    budget: Arc<Budget>,
    timeout: Duration,
}

impl Buffers {
    /// Buffers within `limits`.
    pub fn new(limits: &Limits) -> Self {
        Self::counted(limits, Gauge::default())
    }

    /// The same, whose memory `used` tells.
    pub(crate) fn counted(limits: &Limits, used: Gauge<u64, AtomicU64>) -> Self {
        Self {
            budget: Arc::new(Budget { most: limits.request_buffer_bytes as u64, used }),
            timeout: limits.request_buffer_timeout,
        }
    }

    /// Bytes that are held now.
    pub fn used(&self) -> u64 {
        self.budget.used.get()
    }
}

#[derive(Debug)]
struct Budget {
    most: u64,
    used: Gauge<u64, AtomicU64>,
}

impl Budget {
    fn take(&self, bytes: usize) -> bool {
        let taken = self.used.inner().try_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            used.checked_add(bytes as u64).filter(|used| *used <= self.most)
        });
        taken.is_ok()
    }
}

/// Bytes in memory that the budget knows of.
struct Held {
    bytes: Vec<u8>,
    taken: usize,
    budget: Arc<Budget>,
}

impl Held {
    fn new(budget: Arc<Budget>) -> Self {
        Self { bytes: Vec::new(), taken: 0, budget }
    }

    /// Makes room for `more` bytes; the whole will have `most` of them at the most. False where the budget has no room.
    fn make_room(&mut self, more: usize, most: usize) -> bool {
        let needed = self.bytes.len().saturating_add(more);
        if needed <= self.taken {
            return true;
        }
        let wanted = needed.max(self.taken.saturating_mul(2)).max(FIRST_PIECE).min(most.max(needed));
        if !self.budget.take(wanted - self.taken) {
            return false;
        }
        self.taken = wanted;
        self.bytes.reserve_exact(wanted - self.bytes.len());
        true
    }

    fn into_bytes(self) -> Bytes {
        if self.bytes.is_empty() { Bytes::new() } else { Bytes::from_owner(self) }
    }
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.budget.used.dec_by(self.taken as u64);
    }
}

/// Why a filter gets no body. After [`Self::TooLarge`], [`Self::Memory`] and [`Self::Trailers`] the request can still be
/// forwarded as it came.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyProblem {
    /// It has more bytes than asked for.
    #[error("the body is larger than {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
    /// All requests together hold as much as they may.
    #[error("no memory is left for bodies")]
    Memory,
    /// It ends with trailers, which no filter has seen and a backend might take for headers.
    #[error("the body has trailers")]
    Trailers,
    /// The client was too slow.
    #[error("the body did not come in time")]
    Late,
    /// It broke off.
    #[error("the body ended early")]
    Broken,
}

impl From<BodyProblem> for LocalReply {
    fn from(problem: BodyProblem) -> Self {
        match problem {
            BodyProblem::TooLarge { limit } => {
                Self::from(Reason::RequestBodyTooLarge).with_detail(format!("The body has more than {limit} bytes."))
            }
            BodyProblem::Memory => Self::from(Reason::BufferMemoryExhausted)
                .with_header(header::RETRY_AFTER, HeaderValue::from_static("1")),
            BodyProblem::Trailers => {
                Self::from(Reason::RequestBodyError).with_detail("A body with trailers is not accepted here.")
            }
            BodyProblem::Late => Reason::RequestTimeout.into(),
            BodyProblem::Broken => Reason::RequestBodyError.into(),
        }
    }
}

impl From<BodyError> for BodyProblem {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::Idle(_) | BodyError::Slow | BodyError::Late => Self::Late,
            BodyError::Broken(_) | BodyError::TooLarge => Self::Broken,
        }
    }
}

/// The body of one request, as its filters and then its backend get it.
#[derive(Debug)]
pub struct ClientBody {
    source: Source,
    upload: Arc<Upload>,
    pace: BodyPace,
    /// Bytes that may pass; `u64::MAX` for any number.
    most: u64,
}

#[derive(Debug)]
enum Source {
    /// Still with the client, but for what was read `before`.
    Stream { before: Bytes, incoming: Incoming },
    /// All of it is here. `trailers` are not empty.
    Whole { bytes: Bytes, trailers: Option<Box<HeaderMap>> },
    /// It broke off, or whoever read it did.
    Lost,
}

impl ClientBody {
    /// The body `incoming`, which must come within `limits`, and which `upload` keeps account of.
    pub(crate) fn new(incoming: Incoming, limits: &Limits, upload: Arc<Upload>) -> Self {
        let source = if incoming.is_end_stream() {
            upload.end();
            Source::Whole { bytes: Bytes::new(), trailers: None }
        } else {
            Source::Stream { before: Bytes::new(), incoming }
        };
        Self { source, upload, pace: BodyPace::new(limits), most: u64::MAX }
    }

    /// A body that is here already, for tests of filters.
    pub fn whole(bytes: Bytes) -> Self {
        let pace = BodyPace::new(&Limits::default());
        Self { source: Source::Whole { bytes, trailers: None }, upload: Arc::default(), pace, most: u64::MAX }
    }

    /// Whether there may be a byte: one of unknown length can turn out to be empty.
    pub(crate) fn may_have_bytes(&self) -> bool {
        !matches!(&self.source, Source::Whole { bytes, .. } if bytes.is_empty())
    }

    /// Refuses all bytes beyond `most`, at once where more are announced, else when they come.
    pub(crate) fn limit(&mut self, most: u64) -> Result<(), BodyProblem> {
        self.most = self.most.min(most);
        if self.announced().is_some_and(|length| length > most) {
            return Err(BodyProblem::TooLarge { limit: usize::try_from(most).unwrap_or(usize::MAX) });
        }
        Ok(())
    }

    /// The length that is known before the body has come.
    fn announced(&self) -> Option<u64> {
        match &self.source {
            Source::Stream { before, incoming } => Some(incoming.size_hint().exact()? + before.len() as u64),
            Source::Whole { bytes, .. } => Some(bytes.len() as u64),
            Source::Lost => None,
        }
    }

    /// The whole body, of `limit` bytes at the most. It comes within [`Limits::request_buffer_timeout`].
    ///
    /// Not cancel-safe: dropping the future gives the body up, and the request can then not be forwarded.
    pub(crate) async fn read(&mut self, limit: usize, buffers: &Buffers) -> Result<Bytes, BodyProblem> {
        let limit = limit.min(usize::try_from(self.most).unwrap_or(usize::MAX));
        let announced = self.announced();
        if announced.is_some_and(|length| length > limit as u64) {
            return Err(BodyProblem::TooLarge { limit });
        }
        match &self.source {
            Source::Whole { trailers: Some(_), .. } => return Err(BodyProblem::Trailers),
            Source::Whole { bytes, trailers: None } => return Ok(bytes.clone()),
            Source::Lost => return Err(BodyProblem::Broken),
            Source::Stream { .. } => {}
        }
        let Source::Stream { before, incoming } = std::mem::replace(&mut self.source, Source::Lost) else {
            return Err(BodyProblem::Broken);
        };
        let most = announced.and_then(|length| usize::try_from(length).ok()).unwrap_or(limit);
        let mut held = Held::new(buffers.budget.clone());
        let mut next = before;
        let deadline = Instant::now() + buffers.timeout;
        let mut stream = TimedBody::from_client(incoming, self.pace, Some(deadline));
        let mut trailers = None;
        loop {
            let is_too_large = held.bytes.len().saturating_add(next.len()) > limit;
            if is_too_large || !held.make_room(next.len(), most) {
                // One piece beyond the limit, so that the request may still be forwarded.
                held.bytes.extend_from_slice(&next);
                self.source = Source::Stream { before: held.into_bytes(), incoming: stream.into_inner() };
                return Err(if is_too_large { BodyProblem::TooLarge { limit } } else { BodyProblem::Memory });
            }
            held.bytes.extend_from_slice(&next);
            let Some(frame) = poll_fn(|context| stream.poll_frame(context, || false)).await else { break };
            match frame?.into_data() {
                Ok(data) => next = data,
                Err(frame) => {
                    trailers = frame.into_trailers().ok();
                    next = Bytes::new();
                }
            }
            self.upload.add(next.len() as u64);
        }
        let bytes = held.into_bytes();
        if let Some(trailers) = &mut trailers {
            strict::clean_trailers(trailers);
        }
        let trailers = trailers.filter(|trailers| !trailers.is_empty()).map(Box::new);
        let has_trailers = trailers.is_some();
        self.source = Source::Whole { bytes: bytes.clone(), trailers };
        if has_trailers { Err(BodyProblem::Trailers) } else { Ok(bytes) }
    }

    /// The body as the backend gets it. Of one that nobody has read or limited, up to `kept` bytes are kept as it streams, so
    /// that another attempt can send it again.
    ///
    /// # Errors: [`BodyProblem::Broken`] where it was given up.
    pub(crate) fn forward(self, kept: usize) -> Result<RequestBody, BodyProblem> {
        let timed = |incoming| TimedBody::from_client(incoming, self.pace, None);
        let outgoing = match self.source {
            Source::Stream { before, incoming } if kept > 0 && before.is_empty() && self.most == u64::MAX => {
                Outgoing::kept(timed(incoming), kept)
            }
            Source::Stream { before, incoming } => Outgoing::Stream { before, body: timed(incoming), most: self.most },
            Source::Whole { bytes, trailers } => Outgoing::whole(bytes, trailers),
            Source::Lost => return Err(BodyProblem::Broken),
        };
        if matches!(outgoing, Outgoing::Nothing) {
            self.upload.end();
        }
        Ok(RequestBody::new(outgoing, self.upload))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buffers(bytes: usize) -> Buffers {
        Buffers::new(&Limits { request_buffer_bytes: bytes, ..Limits::default() })
    }

    #[test]
    fn bytes_count_until_their_last_reference_is_gone() {
        let buffers = buffers(10_000);
        let mut held = Held::new(buffers.budget.clone());
        assert!(held.make_room(6_000, 6_000));
        held.bytes.extend_from_slice(&[b'x'; 6_000]);
        assert_eq!(buffers.used(), 6_000);
        let bytes = held.into_bytes();
        let part = bytes.slice(10..20);
        drop(bytes);
        assert_eq!(buffers.used(), 6_000);
        drop(part);
        assert_eq!(buffers.used(), 0);
    }

    #[test]
    fn what_the_budget_does_not_hold_is_not_taken() {
        let buffers = buffers(10_000);
        let mut held = Held::new(buffers.budget.clone());
        assert!(held.make_room(8_000, 100_000));
        held.bytes.extend_from_slice(&[b'x'; 8_000]);
        assert!(!held.make_room(4_000, 100_000));
        assert!(!Held::new(buffers.budget.clone()).make_room(3_000, 100_000), "the least that is taken is a piece");
        assert_eq!(buffers.used(), 8_000);
        drop(held);
        assert_eq!(buffers.used(), 0);
    }

    #[test]
    fn memory_grows_with_what_has_come_and_not_with_what_is_announced() {
        let buffers = buffers(1 << 20);
        let mut held = Held::new(buffers.budget.clone());
        assert!(held.make_room(10, 1 << 20));
        assert_eq!(buffers.used(), FIRST_PIECE as u64);
        held.bytes.extend_from_slice(&[b'x'; FIRST_PIECE]);
        assert!(held.make_room(1, 1 << 20));
        assert_eq!(buffers.used(), 2 * FIRST_PIECE as u64);
    }

    #[test]
    fn a_body_that_is_small_takes_what_it_announces() {
        let buffers = buffers(1 << 20);
        let mut held = Held::new(buffers.budget.clone());
        assert!(held.make_room(10, 100));
        assert_eq!(buffers.used(), 100);
    }
}
