//! A request's body that is kept as it streams, so that another attempt can send it from its beginning.
//!
//! Invariants: no more than the limit is kept; a body that passes it streams on, and cannot be repeated. Of several
//! attempts only the newest reads from the client. Trailers are kept with the body.

use std::{
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};
use parking_lot::Mutex;

use super::{BodyError, TimedBody, Upload};
use crate::strict;

/// One attempt's way through a kept body.
#[derive(Debug)]
pub(crate) struct Kept {
    shared: Arc<Mutex<Shared>>,
    attempt: u32,
    /// Bytes that this attempt has given.
    given: usize,
    has_given_trailers: bool,
    length: Option<u64>,
}

#[derive(Debug)]
struct Shared {
    incoming: TimedBody,
    kept: Vec<u8>,
    trailers: Option<HeaderMap>,
    limit: usize,
    /// Whether all of it has come from the client.
    has_ended: bool,
    /// Whether it was too long or broke off.
    is_lost: bool,
    /// The newest attempt that has asked for a frame.
    attempt: u32,
}

impl Kept {
    pub(super) fn new(incoming: TimedBody, limit: usize) -> Self {
        let length = incoming.incoming.size_hint().exact();
        let shared = Shared {
            incoming,
            kept: Vec::new(),
            trailers: None,
            limit,
            has_ended: false,
            is_lost: length.is_some_and(|length| usize::try_from(length).map_or(true, |length| length > limit)),
            attempt: 0,
        };
        Self { shared: Arc::new(Mutex::new(shared)), attempt: 0, given: 0, has_given_trailers: false, length }
    }

    /// The same body from its beginning, for the attempt after this one.
    pub(super) fn again(&self) -> Self {
        Self {
            shared: self.shared.clone(),
            attempt: self.attempt + 1,
            given: 0,
            has_given_trailers: false,
            length: self.length,
        }
    }

    /// Whether its beginning is still there.
    pub(super) fn is_repeatable(&self) -> bool {
        !self.shared.lock().is_lost
    }

    pub(super) fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
        upload: &Upload,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut shared = self.shared.lock();
        if self.attempt < shared.attempt {
            return Poll::Ready(Some(Err(BodyError::Broken("another attempt was made".into()))));
        }
        if self.attempt > shared.attempt {
            shared.attempt = self.attempt;
            upload.restart();
        }
        if let Some(rest) = shared.kept.get(self.given..).filter(|rest| !rest.is_empty()) {
            let rest = Bytes::copy_from_slice(rest);
            self.given += rest.len();
            return Poll::Ready(Some(Ok(Frame::data(rest))));
        }
        if !shared.has_ended {
            let frame = ready!(shared.read(context, upload));
            if let Some(Ok(frame)) = &frame {
                self.given += frame.data_ref().map_or(0, Bytes::len);
                self.has_given_trailers |= frame.is_trailers();
            }
            return Poll::Ready(frame);
        }
        upload.end();
        let trailers = shared.trailers.clone().filter(|_| !std::mem::replace(&mut self.has_given_trailers, true));
        Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
    }

    pub(super) fn is_end_stream(&self) -> bool {
        let shared = self.shared.lock();
        let has_trailers = shared.trailers.is_some() && !self.has_given_trailers;
        shared.has_ended && !has_trailers && (shared.is_lost || self.given >= shared.kept.len())
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        let given = u64::try_from(self.given).unwrap_or(u64::MAX);
        self.length.map_or_else(SizeHint::default, |length| SizeHint::with_exact(length.saturating_sub(given)))
    }
}

impl Shared {
    /// The client's next frame, kept as far as it fits.
    fn read(&mut self, context: &mut Context<'_>, upload: &Upload) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut frame = ready!(self.incoming.poll_frame(context, || upload.is_answered()));
        match &mut frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    upload.add(data.len() as u64);
                    self.keep(data);
                }
                if let Some(trailers) = frame.trailers_mut() {
                    strict::clean_trailers(trailers);
                    self.trailers = Some(trailers.clone());
                }
                self.has_ended = self.incoming.incoming.is_end_stream();
            }
            Some(Err(error)) => {
                self.is_lost = true;
                upload.fail(error);
            }
            None => self.has_ended = true,
        }
        if self.has_ended {
            upload.end();
        }
        Poll::Ready(frame)
    }

    fn keep(&mut self, data: &[u8]) {
        if self.is_lost || self.kept.len() + data.len() > self.limit {
            self.is_lost = true;
            self.kept = Vec::new();
        } else {
            self.kept.extend_from_slice(data);
        }
    }
}
