//! One client's call to a backend with a policy, from its admission to the last byte of its response.
//!
//! Invariant: it counts exactly once, when it is finished; dropped unfinished it counts as given up by the client.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName};
use policy_resilience::{AdaptivePermit, Ending, GrpcCode, LocalError, Permit};
use tokio::time::Instant;

use super::{Resilience, bulkhead::Turn};
use crate::{body::BodyError, local_reply::Reason};

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// A call under way. Holds its place among the calls at once.
pub(crate) struct Call {
    resilience: Arc<Resilience>,
    permit: Option<Permit>,
    adaptive: Option<AdaptivePermit>,
    _turn: Option<Turn>,
    random: u32,
    began: Instant,
    /// From its beginning to the head of the answer.
    latency: Option<Duration>,
    answer: Answer,
}

/// What is known of the answer.
#[derive(Clone, Copy, Debug)]
enum Answer {
    None,
    Http(u16),
    /// The status is known with the trailers, or with the head where there is no message.
    Grpc(Option<GrpcCode>),
    Broken(LocalError),
}

impl Call {
    pub(super) fn new(
        resilience: Arc<Resilience>,
        permit: Option<Permit>,
        adaptive: Option<AdaptivePermit>,
        turn: Option<Turn>,
        random: u32,
    ) -> Self {
        Self {
            resilience,
            permit,
            adaptive,
            _turn: turn,
            random,
            began: Instant::now(),
            latency: None,
            answer: Answer::None,
        }
    }

    /// The policy that admitted it.
    pub(crate) fn resilience(&self) -> &Arc<Resilience> {
        &self.resilience
    }

    /// Even over all values, the same for the whole call.
    pub(crate) fn random(&self) -> u32 {
        self.random
    }

    /// Whether the breaker would still have it: a call that it would not is not tried again.
    pub(crate) fn may_go_on(&self) -> bool {
        self.permit.as_ref().is_none_or(Permit::is_current)
    }

    /// Notes the head of the answer.
    pub(crate) fn answered(&mut self, status: http::StatusCode, headers: &HeaderMap, is_grpc: bool, now: Instant) {
        self.latency = Some(now.saturating_duration_since(self.began));
        self.answer = if is_grpc && status == http::StatusCode::OK {
            Answer::Grpc(grpc_status(headers))
        } else {
            Answer::Http(status.as_u16())
        };
        // A probe that became a tunnel would hold the breaker half open for as long as it lasts.
        if status == http::StatusCode::SWITCHING_PROTOCOLS && self.permit.as_ref().is_some_and(Permit::is_probe) {
            self.count(Ending::Http(status.as_u16()), now);
        }
    }

    /// Notes the trailers of the answer.
    pub(crate) fn trailers(&mut self, trailers: &HeaderMap) {
        if let Answer::Grpc(known) = &mut self.answer {
            *known = grpc_status(trailers).or(*known);
        }
    }

    /// Notes that the answer broke off.
    pub(crate) fn broke(&mut self, error: &BodyError) {
        self.answer = Answer::Broken(match error {
            BodyError::Broken(_) | BodyError::TooLarge => LocalError::Reset,
            BodyError::Idle(_) | BodyError::Slow | BodyError::Late => LocalError::ResponseTimeout,
        });
    }

    /// Notes that the proxy answers in place of the backend, for `reason`.
    pub(crate) fn gave_up(&mut self, reason: Reason) {
        self.answer = match reason {
            Reason::DeadlineExceeded => Answer::Broken(LocalError::ResponseTimeout),
            Reason::UpgradeRefused => Answer::Broken(LocalError::ProtocolError),
            _ => return,
        };
    }

    /// How it ended. A client that leaves early takes back no failure that it was told of.
    pub(crate) fn ending(&self, has_ended: bool) -> Ending {
        match self.answer {
            Answer::Broken(error) => Ending::Local(error),
            Answer::Http(status) if has_ended || status >= 500 => Ending::Http(status),
            Answer::Grpc(Some(code)) => Ending::Grpc(code),
            Answer::Grpc(None) if has_ended => Ending::Grpc(GrpcCode::Unknown),
            Answer::None | Answer::Http(_) | Answer::Grpc(None) => Ending::Local(LocalError::Cancelled),
        }
    }

    /// Ends it.
    pub(crate) fn finish(mut self, ending: Ending, now: Instant) {
        self.count(ending, now);
    }

    fn count(&mut self, ending: Ending, now: Instant) {
        let latency = self.latency.unwrap_or_else(|| now.saturating_duration_since(self.began));
        let time = self.resilience.time(now);
        if let Some(permit) = self.permit.take() {
            permit.record(self.resilience.classifier.classify(ending), latency, time);
            if let Some(breaker) = &self.resilience.breaker {
                self.resilience.follow(breaker);
            }
        }
        // What failed at once would look fast.
        let tells_latency =
            matches!(ending, Ending::Http(_) | Ending::Grpc(_) | Ending::Local(LocalError::ResponseTimeout));
        if let Some(adaptive) = self.adaptive.take_if(|_| tells_latency) {
            adaptive.record(latency, time);
        }
    }
}

/// The gRPC status among `fields`.
pub(crate) fn grpc_status(fields: &HeaderMap) -> Option<GrpcCode> {
    let value = fields.get(GRPC_STATUS)?;
    Some(GrpcCode::from_number(value.to_str().ok().and_then(|text| text.parse().ok()).unwrap_or(u32::MAX)))
}
