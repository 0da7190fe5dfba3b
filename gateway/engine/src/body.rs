//! Bodies on their way through: counted, bounded in time, and streamed with back-pressure (a frame is read only when
//! the other side asks for one).

mod kept;

use std::{
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use control_plane_model::TransferRate;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use kit_process::error::chain;
use tokio::time::{Instant, Sleep};

use self::kept::Kept;
use crate::{exchange::Completion, limits::Limits, spawn::Pace, strict, upstream::Lease};

/// Further away than any limit of a body.
const FAR: Duration = Duration::from_hours(48);

/// Why a body ended early.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// The connection broke, or its framing did.
    #[error("body ended early: {0}")]
    Broken(Arc<str>),
    /// The peer sent nothing for too long.
    #[error("no byte of the body for {0:?}")]
    Idle(Duration),
    /// The peer sent less than it must.
    #[error("the body comes more slowly than it may")]
    Slow,
    /// The time for it is over.
    #[error("not the whole body in time")]
    Late,
    /// The client sends more than a filter allows.
    #[error("larger than is allowed")]
    TooLarge,
}

/// What is known of a request's body by all who have to do with its exchange.
#[derive(Debug, Default)]
pub(crate) struct Upload {
    /// From the client.
    bytes: AtomicU64,
    /// To the backend, of what was held before.
    resent: AtomicU64,
    has_ended: AtomicBool,
    is_answered: AtomicBool,
    failure: OnceLock<BodyError>,
}

impl Upload {
    /// Bytes that have come from the client.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Changes whenever bytes move, from the client or to the backend.
    pub(crate) fn moved(&self) -> u64 {
        self.bytes() + self.resent.load(Ordering::Relaxed)
    }

    /// Notes bytes that have come.
    pub(crate) fn add(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Whether nothing of it is left to send.
    pub(crate) fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Relaxed)
    }

    /// Why it broke off, where it did.
    pub(crate) fn failure(&self) -> Option<&BodyError> {
        self.failure.get()
    }

    /// Notes whether a response is under way. While one is, the client may pause for as long as it likes: the response
    /// has a limit of its own, and in a stream of messages it may be the backend's turn.
    pub(crate) fn set_answered(&self, is_answered: bool) {
        self.is_answered.store(is_answered, Ordering::Relaxed);
    }

    /// Notes that nothing of it is left to send.
    pub(crate) fn end(&self) {
        self.has_ended.store(true, Ordering::Relaxed);
    }

    fn is_answered(&self) -> bool {
        self.is_answered.load(Ordering::Relaxed)
    }

    /// Notes that it is sent from its beginning once more.
    fn restart(&self) {
        self.has_ended.store(false, Ordering::Relaxed);
    }

    /// Notes that it broke off. The first failure counts, and there is only one.
    fn fail(&self, error: &BodyError) {
        drop(self.failure.set(error.clone()));
    }

    /// Notes bytes that were held and are sent.
    fn resend(&self, bytes: usize, has_ended: bool) {
        self.resent.fetch_add(bytes as u64, Ordering::Relaxed);
        self.has_ended.store(has_ended, Ordering::Relaxed);
    }
}

/// A stream of frames, each of which must come within a limit, and all of them before the deadline.
#[derive(Debug)]
pub(crate) struct TimedBody<B = Incoming> {
    incoming: B,
    idle_timeout: Duration,
    deadline: Option<Instant>,
    /// Where the body must come at a rate.
    rate: Option<Box<RateCheck>>,
    /// Runs while a frame is waited for.
    timer: Option<Pin<Box<Sleep>>>,
}

impl<B: Body<Data = Bytes, Error: std::error::Error> + Unpin> TimedBody<B> {
    /// A client's body, at the client's pace.
    pub(crate) fn from_client(incoming: B, pace: BodyPace, deadline: Option<Instant>) -> Self {
        let rate = pace.rate.map(|rate| Box::new(RateCheck::new(rate)));
        Self { rate, ..Self::new(incoming, pace.idle_timeout, deadline) }
    }

    pub(crate) fn new(incoming: B, idle_timeout: Duration, deadline: Option<Instant>) -> Self {
        Self { incoming, idle_timeout, deadline, rate: None, timer: None }
    }

    /// What is left of it, without a limit.
    pub(crate) fn into_inner(self) -> B {
        self.incoming
    }

    /// The next frame. Where the limit has passed and the pause `is_excused`, the limit begins anew.
    pub(crate) fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
        mut is_excused: impl FnMut() -> bool,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.is_late() {
            return Poll::Ready(Some(Err(BodyError::Late)));
        }
        if let Poll::Ready(frame) = Pin::new(&mut self.incoming).poll_frame(context) {
            self.timer = None;
            if let Some(rate) = &mut self.rate {
                let data = frame.as_ref().and_then(|frame| frame.as_ref().ok()).and_then(Frame::data_ref);
                rate.came(data.map_or(0, Bytes::len));
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(|error| BodyError::Broken(chain(&error).into()))));
        }
        let (limit, deadline) = (self.idle_timeout, self.deadline);
        loop {
            let rate = &mut self.rate;
            let timer = self.timer.get_or_insert_with(|| {
                let now = Instant::now();
                let slow = rate.as_mut().map(|rate| rate.wait(now));
                let end = [deadline, slow].into_iter().flatten().min();
                Box::pin(tokio::time::sleep_until(end.map_or(now + limit, |end| end.min(now + limit))))
            });
            ready!(timer.as_mut().poll(context));
            if self.is_late() {
                return Poll::Ready(Some(Err(BodyError::Late)));
            }
            if !is_excused() {
                let is_slow = self.rate.as_ref().is_some_and(|rate| rate.is_slow());
                let error = if is_slow { BodyError::Slow } else { BodyError::Idle(limit) };
                return Poll::Ready(Some(Err(error)));
            }
            self.timer = None;
            if let Some(rate) = &mut self.rate {
                rate.waiting_until = None;
            }
        }
    }

    fn is_late(&self) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= Instant::now())
    }
}

/// How fast a client's body must come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BodyPace {
    idle_timeout: Duration,
    rate: Option<TransferRate>,
}

impl BodyPace {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self { idle_timeout: limits.request_body_idle_timeout, rate: limits.minimum_transfer_rate }
    }
}

/// Whether a body comes as fast as it must, over the time that it is waited for: a backend that takes it slowly is not the
/// client's fault.
#[derive(Debug)]
struct RateCheck {
    rate: TransferRate,
    bytes: u64,
    waited: Duration,
    waiting_since: Option<Instant>,
    /// When it will be too slow, unless something comes.
    waiting_until: Option<Instant>,
}

impl RateCheck {
    fn new(rate: TransferRate) -> Self {
        Self { rate, bytes: 0, waited: Duration::ZERO, waiting_since: None, waiting_until: None }
    }

    /// Begins to wait; returns until when.
    fn wait(&mut self, now: Instant) -> Instant {
        let earned = self.bytes.saturating_mul(1000) / u64::from(self.rate.bytes_per_second.get());
        let left = self.rate.grace.saturating_add(Duration::from_millis(earned)).saturating_sub(self.waited);
        let until = now.checked_add(left).unwrap_or(now + FAR);
        self.waiting_since = Some(now);
        self.waiting_until = Some(until);
        until
    }

    /// Notes that something came.
    fn came(&mut self, bytes: usize) {
        if let Some(since) = self.waiting_since.take() {
            self.waited += since.elapsed();
        }
        self.waiting_until = None;
        self.bytes += bytes as u64;
    }

    fn is_slow(&self) -> bool {
        self.waiting_until.is_some_and(|until| until <= Instant::now())
    }
}

/// A client's request body on its way to a backend.
#[derive(Debug)]
pub(crate) struct RequestBody {
    outgoing: Outgoing,
    upload: Arc<Upload>,
}

/// Where the bytes of a request's body come from.
#[derive(Debug)]
pub(crate) enum Outgoing {
    /// There is nothing to send.
    Nothing,
    /// The client, behind what was read `before`. More than `most` bytes of it end the request.
    Stream { before: Bytes, body: TimedBody, most: u64 },
    /// The client; what has come is kept, up to a limit, to be sent again.
    Kept(Kept),
    /// Memory. Not empty.
    Whole { bytes: Bytes, trailers: Option<Box<HeaderMap>> },
}

/// What is given to the backend's connection at once of a body in memory: small enough that its progress is seen.
const PIECE: usize = 64 << 10;

impl Outgoing {
    /// A body in memory.
    pub(crate) fn whole(bytes: Bytes, trailers: Option<Box<HeaderMap>>) -> Self {
        if bytes.is_empty() && trailers.is_none() { Self::Nothing } else { Self::Whole { bytes, trailers } }
    }

    /// A stream from the client, of which up to `limit` bytes are kept.
    pub(crate) fn kept(body: TimedBody, limit: usize) -> Self {
        Self::Kept(Kept::new(body, limit))
    }
}

impl RequestBody {
    /// Sends `outgoing`, noting in `upload` how far it is.
    pub(crate) fn new(outgoing: Outgoing, upload: Arc<Upload>) -> Self {
        Self { outgoing, upload }
    }

    /// A second body for the same request, where the first one did not come from the client piece by piece. Only before
    /// anything of it was sent.
    pub(crate) fn copy_of_held(&self) -> Option<Self> {
        match &self.outgoing {
            Outgoing::Kept(_) => None,
            _ => self.copy(),
        }
    }

    /// A second body for the same request, where it is held or kept. Only of one that is held, before anything of it was sent.
    pub(crate) fn copy(&self) -> Option<Self> {
        let outgoing = match &self.outgoing {
            Outgoing::Nothing => Outgoing::Nothing,
            Outgoing::Whole { bytes, trailers } => Outgoing::Whole { bytes: bytes.clone(), trailers: trailers.clone() },
            Outgoing::Kept(kept) => Outgoing::Kept(kept.again()),
            Outgoing::Stream { .. } => return None,
        };
        Some(Self { outgoing, upload: self.upload.clone() })
    }

    /// Whether a copy has it from its beginning.
    pub(crate) fn is_whole(&self) -> bool {
        match &self.outgoing {
            Outgoing::Kept(kept) => kept.is_repeatable(),
            Outgoing::Nothing | Outgoing::Whole { .. } | Outgoing::Stream { .. } => true,
        }
    }

    /// How far it is.
    pub(crate) fn upload(&self) -> &Arc<Upload> {
        &self.upload
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Self { outgoing, upload } = &mut *self;
        let (body, most) = match outgoing {
            Outgoing::Nothing => return Poll::Ready(None),
            Outgoing::Whole { bytes, trailers } if bytes.is_empty() => {
                let trailers = trailers.take();
                *outgoing = Outgoing::Nothing;
                upload.resend(0, true);
                return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(*trailers))));
            }
            Outgoing::Whole { bytes, trailers } => {
                let piece = bytes.split_to(bytes.len().min(PIECE));
                let has_ended = bytes.is_empty() && trailers.is_none();
                upload.resend(piece.len(), has_ended);
                if has_ended {
                    *outgoing = Outgoing::Nothing;
                }
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            Outgoing::Stream { before, .. } if !before.is_empty() => {
                let piece = before.split_to(before.len().min(PIECE));
                upload.resend(piece.len(), false);
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            Outgoing::Kept(kept) => return kept.poll_frame(context, upload),
            Outgoing::Stream { body, most, .. } => (body, *most),
        };
        let mut frame = ready!(body.poll_frame(context, || upload.is_answered()));
        match &mut frame {
            Some(Ok(piece)) => {
                if let Some(data) = piece.data_ref() {
                    upload.add(data.len() as u64);
                }
                if let Some(trailers) = piece.trailers_mut() {
                    strict::clean_trailers(trailers);
                }
                if upload.bytes() > most {
                    upload.fail(&BodyError::TooLarge);
                    return Poll::Ready(Some(Err(BodyError::TooLarge)));
                }
                if body.incoming.is_end_stream() {
                    upload.end();
                }
            }
            Some(Err(error)) => upload.fail(error),
            None => upload.end(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.outgoing {
            Outgoing::Nothing => true,
            Outgoing::Whole { .. } => false,
            Outgoing::Kept(kept) => kept.is_end_stream(),
            Outgoing::Stream { before, body, .. } => before.is_empty() && body.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.outgoing {
            Outgoing::Nothing => SizeHint::with_exact(0),
            // Trailers need a framing without a length.
            Outgoing::Whole { trailers: Some(_), .. } => SizeHint::default(),
            Outgoing::Whole { bytes, .. } => SizeHint::with_exact(bytes.len() as u64),
            Outgoing::Kept(kept) => kept.size_hint(),
            Outgoing::Stream { before, body, .. } => {
                let rest = body.incoming.size_hint();
                let before = before.len() as u64;
                rest.exact().map_or_else(SizeHint::default, |rest| SizeHint::with_exact(before + rest))
            }
        }
    }
}

/// A response body on its way to the client. Carries the request's completion, which is written when it goes.
pub(crate) struct ResponseBody {
    source: Source,
    completion: Option<Box<Completion>>,
    pace: Option<Arc<Pace>>,
}

enum Source {
    /// The engine's own answer.
    Local(Option<Bytes>),
    /// A backend's; the lease goes with its last frame. With the bytes of the request's body at the last look.
    Upstream(TimedBody, Option<Lease>, u64),
}

impl ResponseBody {
    /// The engine's own answer.
    pub(crate) fn local(bytes: Bytes, completion: Box<Completion>) -> Self {
        let bytes = (!bytes.is_empty()).then_some(bytes);
        let mut body =
            Self { source: Source::Local(bytes), completion: Some(completion), pace: Pace::of_this_stream() };
        body.finish_if_ended();
        body
    }

    /// Nothing, for a response whose account goes on elsewhere.
    pub(crate) fn empty() -> Self {
        Self { source: Source::Local(None), completion: None, pace: None }
    }

    /// A backend's answer, which must end within the attempt that brought it.
    pub(crate) fn upstream(
        incoming: Incoming,
        lease: Lease,
        idle_timeout: Duration,
        completion: Box<Completion>,
    ) -> Self {
        let stream = TimedBody::new(incoming, idle_timeout, completion.attempt_deadline);
        let source = Source::Upstream(stream, Some(lease), 0);
        let mut body = Self { source, completion: Some(completion), pace: Pace::of_this_stream() };
        body.finish_if_ended();
        body
    }

    /// hyper asks for no frame behind the last one that it expects, so the end is looked for after each: an HTTP/2
    /// backend may have sent all that it announced and tell the end of the stream only later.
    fn finish_if_ended(&mut self) {
        if self.is_end_stream() || self.size_hint().exact() == Some(0) {
            self.finish();
        }
    }

    fn finish(&mut self) {
        if let Source::Upstream(_, lease, _) = &mut self.source
            && let Some(lease) = lease.take()
        {
            lease.finish();
        }
        if let Some(completion) = &mut self.completion {
            completion.body_ended();
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if let Some(pace) = &this.pace {
            pace.asked();
        }
        let frame = match &mut this.source {
            Source::Local(bytes) => bytes.take().map(|bytes| Ok(Frame::data(bytes))),
            Source::Upstream(stream, _, seen) => {
                let upload = this.completion.as_ref().map(|completion| &completion.upload);
                // A backend that takes in a long upload need not send anything meanwhile.
                let is_excused =
                    || upload.is_some_and(|upload| upload.moved() != std::mem::replace(seen, upload.moved()));
                ready!(stream.poll_frame(context, is_excused))
            }
        };
        match &frame {
            Some(Ok(frame)) => {
                if let Some(pace) = &this.pace {
                    pace.given();
                }
                if let Some(completion) = &mut this.completion {
                    completion.response_bytes += frame.data_ref().map_or(0, Bytes::len) as u64;
                    if let (Some(call), Some(trailers)) = (&mut completion.call, frame.trailers_ref()) {
                        call.trailers(trailers);
                    }
                }
                this.finish_if_ended();
            }
            Some(Err(error)) => {
                if let Some(completion) = &mut this.completion {
                    completion.body_failed(error);
                }
            }
            None => this.finish(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Local(bytes) => bytes.is_none(),
            Source::Upstream(stream, ..) => stream.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Local(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Source::Upstream(stream, ..) => stream.incoming.size_hint(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, convert::Infallible, future::poll_fn};

    use http_body_util::StreamBody;
    use tokio::sync::mpsc;
    use tokio_stream::wrappers::ReceiverStream;

    use super::*;

    type Piece = Result<Frame<Bytes>, Infallible>;

    const IDLE: Duration = Duration::from_secs(10);

    fn body(deadline: Option<Duration>) -> (mpsc::Sender<Piece>, TimedBody<StreamBody<ReceiverStream<Piece>>>) {
        let (sender, receiver) = mpsc::channel(1);
        let deadline = deadline.map(|limit| Instant::now() + limit);
        (sender, TimedBody::new(StreamBody::new(ReceiverStream::new(receiver)), IDLE, deadline))
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stands_still_is_given_up_at_its_limit() {
        let (_sender, mut body) = body(None);
        let begun = Instant::now();
        let frame = poll_fn(|context| body.poll_frame(context, || false)).await;
        assert!(matches!(frame, Some(Err(BodyError::Idle(IDLE)))), "{frame:?}");
        assert_eq!(begun.elapsed(), IDLE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_that_is_excused_begins_the_limit_anew() {
        let (_sender, mut body) = body(None);
        let (begun, excuses) = (Instant::now(), Cell::new(3));
        let is_excused = || excuses.replace(excuses.get() - 1) > 0;
        let frame = poll_fn(|context| body.poll_frame(context, is_excused)).await;
        assert!(matches!(frame, Some(Err(BodyError::Idle(_)))), "{frame:?}");
        assert_eq!(begun.elapsed(), IDLE * 4);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_goes_on_for_ever_ends_at_its_deadline() {
        let (sender, mut body) = body(Some(IDLE * 2));
        let begun = Instant::now();
        let drip = async {
            while sender.send(Ok(Frame::data(Bytes::from_static(b"x")))).await.is_ok() {
                tokio::time::sleep(IDLE / 3).await;
            }
        };
        let read = async {
            loop {
                match poll_fn(|context| body.poll_frame(context, || true)).await {
                    Some(Ok(_)) => {}
                    ended => break ended,
                }
            }
        };
        let ended = tokio::select! { ended = read => ended, () = drip => None };
        assert!(matches!(ended, Some(Err(BodyError::Late))), "{ended:?}");
        assert_eq!(begun.elapsed(), IDLE * 2);
    }
}
