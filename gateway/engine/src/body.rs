//! Bodies on their way through: counted, bounded in time, and streamed with back-pressure (a frame is read only when
//! the other side asks for one).

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use kit_process::error::chain;
use tokio::time::{Instant, Sleep};

use crate::{exchange::Completion, upstream::Lease};

/// Why a body ended early.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// The connection broke, or its framing did.
    #[error("body ended early: {0}")]
    Broken(Arc<str>),
    /// The peer sent nothing for too long.
    #[error("no byte of the body for {0:?}")]
    Idle(Duration),
}

/// A stream of frames, each of which must come within a limit.
#[derive(Debug)]
struct TimedBody {
    incoming: Incoming,
    idle_timeout: Duration,
    /// Runs while a frame is waited for.
    timer: Option<Pin<Box<Sleep>>>,
}

impl TimedBody {
    fn new(incoming: Incoming, idle_timeout: Duration) -> Self {
        Self { incoming, idle_timeout, timer: None }
    }

    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.incoming).poll_frame(context) {
            self.timer = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(|error| BodyError::Broken(chain(&error).into()))));
        }
        let deadline = Instant::now() + self.idle_timeout;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        ready!(timer.as_mut().poll(context));
        Poll::Ready(Some(Err(BodyError::Idle(self.idle_timeout))))
    }
}

/// A client's request body on its way to a backend.
#[derive(Debug)]
pub(crate) struct RequestBody {
    /// `None` for a request without a body.
    stream: Option<(TimedBody, Arc<AtomicU64>)>,
}

impl RequestBody {
    /// Streams `incoming`, adding what passes to `bytes`.
    pub(crate) fn new(incoming: Incoming, idle_timeout: Duration, bytes: &Arc<AtomicU64>) -> Self {
        if incoming.is_end_stream() {
            return Self { stream: None };
        }
        Self { stream: Some((TimedBody::new(incoming, idle_timeout), bytes.clone())) }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some((body, bytes)) = &mut self.stream else { return Poll::Ready(None) };
        let frame = ready!(body.poll_frame(context));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.stream.as_ref().is_none_or(|(body, _)| body.incoming.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.stream.as_ref().map_or_else(|| SizeHint::with_exact(0), |(body, _)| body.incoming.size_hint())
    }
}

/// A response body on its way to the client. Carries the request's completion, which is written when it goes.
pub(crate) struct ResponseBody {
    source: Source,
    completion: Option<Completion>,
}

enum Source {
    /// The engine's own answer.
    Local(Option<Bytes>),
    /// A backend's; the lease goes with its last frame.
    Upstream(TimedBody, Option<Lease>),
}

impl ResponseBody {
    /// The engine's own answer.
    pub(crate) fn local(bytes: Bytes, completion: Completion) -> Self {
        let bytes = (!bytes.is_empty()).then_some(bytes);
        let mut body = Self { source: Source::Local(bytes), completion: Some(completion) };
        body.finish_if_ended();
        body
    }

    /// Nothing, for a response whose account goes on elsewhere.
    pub(crate) fn empty() -> Self {
        Self { source: Source::Local(None), completion: None }
    }

    /// A backend's answer.
    pub(crate) fn upstream(incoming: Incoming, lease: Lease, idle_timeout: Duration, completion: Completion) -> Self {
        let stream = TimedBody::new(incoming, idle_timeout);
        let mut body = Self { source: Source::Upstream(stream, Some(lease)), completion: Some(completion) };
        body.finish_if_ended();
        body
    }

    /// hyper asks for no frame behind the last one that it expects, so the end is looked for after each.
    fn finish_if_ended(&mut self) {
        if self.is_end_stream() {
            self.finish();
        }
    }

    fn finish(&mut self) {
        if let Source::Upstream(_, lease) = &mut self.source
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
        let frame = match &mut this.source {
            Source::Local(bytes) => bytes.take().map(|bytes| Ok(Frame::data(bytes))),
            Source::Upstream(stream, _) => ready!(stream.poll_frame(context)),
        };
        match &frame {
            Some(Ok(frame)) => {
                if let (Some(data), Some(completion)) = (frame.data_ref(), &mut this.completion) {
                    completion.response_bytes += data.len() as u64;
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
            Source::Upstream(stream, _) => stream.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Local(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Source::Upstream(stream, _) => stream.incoming.size_hint(),
        }
    }
}
