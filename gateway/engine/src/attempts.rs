//! The attempts of one request at one backend: which endpoint, how long, and what is tried again.
//!
//! Invariants: without a policy only a request is sent again of which not a byte was sent. No attempt is made that the
//! backend's breaker would refuse, nor one beyond its budget of retries.

use std::{future::Future, pin::Pin, pin::pin, sync::Arc, time::Duration};

use control_plane_model::LocalFailure;
use http::{Request, Response, header};
use hyper::body::Incoming;
use policy_resilience::{Ending, LocalError};
use rand::RngExt as _;
use tokio::time::Instant;

use crate::{
    body::{BodyError, RequestBody},
    connection::Downstream,
    exchange::Completion,
    filter::FilterSet,
    local_reply::{LocalReply, Reason},
    telemetry::{ExchangeFailure, PoolOutcome},
    upstream::{
        self, BackendSlot, Call, Endpoint, Lease, NoEndpoint, PickKey, Protocol, Resilience, Retry, RetryPlan,
        SendError, SendFailure, grpc_status,
    },
};

/// Endpoints that are tried for one request while none of its bytes were sent, where no policy says otherwise.
const MAX_ATTEMPTS: u32 = 3;
/// The least that a failed attempt counts as, among the times of answers.
const FAILURE_COST: Duration = Duration::from_secs(1);

/// A request's way to its backend.
pub(crate) struct Attempts<'a, F: FilterSet> {
    pub(crate) downstream: &'a Downstream<F>,
    pub(crate) slot: &'a BackendSlot,
    pub(crate) policy: Option<&'a Resilience>,
    /// What the policy chooses an endpoint by.
    pub(crate) key: Option<PickKey>,
    pub(crate) protocol: Protocol,
    pub(crate) is_grpc: bool,
    /// The rule's limit for one attempt.
    pub(crate) limit: Option<Duration>,
    /// When the client must have its answer.
    pub(crate) deadline: Option<Instant>,
}

impl<F: FilterSet> Attempts<'_, F> {
    /// Sends the request; tries again where not a byte of it was sent, or where the policy says so.
    pub(crate) async fn send(
        &self,
        mut request: Box<Request<RequestBody>>,
        completion: &mut Completion,
    ) -> Result<(Response<Incoming>, Lease), LocalReply> {
        let mut failed: Option<Arc<Endpoint>> = None;
        loop {
            let started = Instant::now();
            let endpoint = self.pick(failed.as_ref(), started)?;
            completion.endpoint = Some(endpoint.clone());
            completion.attempts += 1;
            let spare = self.spare(&request, completion.attempts);
            match self.attempt(&endpoint, request, started, completion).await {
                Ok((response, lease)) => {
                    let (retry, ending) = self.answered(&response, completion);
                    let Some(next) = self.next(retry, None, spare, made(completion)).await else {
                        return Ok((response, lease));
                    };
                    self.attempt_ended(&endpoint, ending, completion);
                    request = next;
                }
                Err(AttemptError { failure, unsent }) => {
                    let (backend, address) = (&self.slot.key, endpoint.address);
                    tracing::debug!(%backend, endpoint = %address, error = %failure, "attempt failed");
                    let ending = failure.ending();
                    self.attempt_ended(&endpoint, ending, completion);
                    let Some(next) = self.next(failure.retry(), unsent, spare, made(completion)).await else {
                        if let Some(call) = completion.call.take() {
                            call.finish(ending, Instant::now());
                        }
                        return Err(failure.reason().into());
                    };
                    request = next;
                }
            }
            failed = Some(endpoint);
        }
    }

    fn pick(&self, failed: Option<&Arc<Endpoint>>, now: Instant) -> Result<Arc<Endpoint>, LocalReply> {
        let worker = &self.downstream.worker;
        let policy = self.policy.map(|policy| (policy, self.key.as_ref()));
        let picked = self.slot.pick(worker.id, failed, policy, &mut *worker.rng.lock(), now);
        picked.map_err(|missing| match (missing, self.policy) {
            (NoEndpoint::NoneUsable, Some(policy)) => policy.refuse(Reason::NoHealthyEndpoints),
            _ => Reason::from(missing).into(),
        })
    }

    /// A copy of the request for the attempt that follows this one, where the policy may ask for one.
    fn spare(&self, request: &Request<RequestBody>, attempts: u32) -> Option<Box<Request<RequestBody>>> {
        let plan = self.policy?.retries()?;
        let may_repeat = plan.allows(request.method()) && !request.headers().contains_key(header::UPGRADE);
        (may_repeat && attempts <= plan.limit()).then(|| upstream::copy_of(request))?
    }

    /// Notes the head of an answer. Returns what might be tried again, and what the answer says of its endpoint.
    fn answered(&self, response: &Response<Incoming>, completion: &mut Completion) -> (Option<Retry>, Ending) {
        let status = response.status();
        let code = if self.is_grpc { grpc_status(response.headers()) } else { None };
        if let Some(call) = &mut completion.call {
            call.answered(status, response.headers(), self.is_grpc, Instant::now());
        }
        let ending = code.map_or(Ending::Http(status.as_u16()), Ending::Grpc);
        (self.policy.map(|_| Retry::Answer(status, code)), ending)
    }

    fn attempt_ended(&self, endpoint: &Endpoint, ending: Ending, completion: &Completion) {
        if let (Some(policy), Some(call)) = (self.policy, &completion.call) {
            self.slot.attempt_ended(policy, endpoint, ending, Instant::now(), call.random());
        }
    }

    /// The request for the next attempt, after its wait; `None` where there is none: the last attempt's end is the
    /// request's. `unsent` is the request, where not a byte of it was sent; `spare` is a copy.
    async fn next(
        &self,
        retry: Option<Retry>,
        unsent: Option<Box<Request<RequestBody>>>,
        spare: Option<Box<Request<RequestBody>>>,
        (attempts, call): (u32, Option<&Call>),
    ) -> Option<Box<Request<RequestBody>>> {
        let made = attempts.saturating_sub(1);
        let Some(policy) = self.policy else { return unsent.filter(|_| attempts < MAX_ATTEMPTS) };
        let (call, plan) = (call?, policy.retries());
        if made >= plan.map_or(MAX_ATTEMPTS - 1, RetryPlan::limit) || !call.may_go_on() {
            return None;
        }
        let is_unsent = unsent.is_some();
        let is_wanted = retry.is_some_and(|retry| plan.is_some_and(|plan| plan.wants(retry)));
        let next = unsent.or_else(|| spare.filter(|spare| is_wanted && spare.body().is_whole()))?;
        if !policy.may_retry(Instant::now()) {
            return None;
        }
        // Another endpoint may be well: only what an endpoint has seen waits.
        if let Some(plan) = plan.filter(|_| !is_unsent) {
            let wait = plan.backoff(made, self.downstream.worker.rng.lock().random());
            Box::pin(tokio::time::sleep(wait)).await;
        }
        call.may_go_on().then_some(next)
    }

    /// Sends the request to `endpoint`, within the limits for one attempt and what is left of that for all.
    async fn attempt(
        &self,
        endpoint: &Arc<Endpoint>,
        request: Box<Request<RequestBody>>,
        started: Instant,
        completion: &mut Completion,
    ) -> Result<(Response<Incoming>, Lease), AttemptError> {
        let worker = &self.downstream.worker;
        let limits = &worker.shared.limits;
        let metrics = &worker.shared.telemetry.metrics;
        let timeouts = self.policy.map(|policy| policy.settings.timeouts).unwrap_or_default();
        let limit = self.limit.into_iter().chain(timeouts.attempt).min();
        completion.attempt_deadline = limit.map(|limit| started + limit);
        let hard_limit = completion.attempt_deadline.into_iter().chain(self.deadline).min();
        let connect = timeouts.connect.unwrap_or(limits.connect_timeout);
        // Pinned once for all ways: it is large, and each of them would hold it.
        let mut sending = pin!(upstream::send(endpoint, worker.id, self.protocol, request, limits, connect));
        // An upload takes the time that it takes, while it goes on.
        let moved = || completion.upload.moved();
        let sent = match (hard_limit, timeouts.response) {
            (Some(hard_limit), None) => tokio::time::timeout_at(hard_limit, sending.as_mut()).await.ok(),
            (Some(hard_limit), Some(limit)) => {
                let sending = Box::pin(while_it_moves(limit, moved, sending));
                tokio::time::timeout_at(hard_limit, sending).await.ok().flatten()
            }
            (None, limit) => while_it_moves(limit.unwrap_or(limits.response_head_timeout), moved, sending).await,
        };
        let now = Instant::now();
        let elapsed = now.saturating_duration_since(started);
        completion.upstream_duration = Some(elapsed);
        let error = match sent {
            Some(Ok((response, lease))) => {
                endpoint.observe(worker.id, elapsed, now);
                self.slot.metrics.observe(elapsed);
                metrics.attempt(if lease.is_reused() { PoolOutcome::Reused } else { PoolOutcome::Connected });
                return Ok((response, lease));
            }
            Some(Err(error)) => AttemptError::from(error),
            None if self.deadline.is_some_and(|deadline| deadline <= now) => AttemptFailure::Deadline(elapsed).into(),
            None => AttemptFailure::Timeout(elapsed).into(),
        };
        if !matches!(error.failure, AttemptFailure::Send(SendFailure::Client(_))) {
            // A failure counts as a slow answer, so that the endpoint is avoided for a while, and not for long: a
            // client's own request may have caused it.
            endpoint.observe(worker.id, elapsed.max(FAILURE_COST), now);
            metrics.attempt_failed(&self.slot.metrics, error.failure.kind());
        }
        Err(error)
    }
}

/// The attempts so far, and the call that they are for.
fn made(completion: &Completion) -> (u32, Option<&Call>) {
    (completion.attempts, completion.call.as_ref())
}

/// Waits for `sending` for as long as `moved` goes on changing within `limit`.
async fn while_it_moves<T>(
    limit: Duration,
    moved: impl Fn() -> u64,
    mut sending: Pin<&mut impl Future<Output = T>>,
) -> Option<T> {
    loop {
        let before = moved();
        match tokio::time::timeout(limit, sending.as_mut()).await {
            Ok(sent) => return Some(sent),
            Err(_) if moved() != before => {}
            Err(_) => return None,
        }
    }
}

/// Why an attempt brought no response.
struct AttemptError {
    failure: AttemptFailure,
    unsent: Option<Box<Request<RequestBody>>>,
}

#[derive(Debug, thiserror::Error)]
enum AttemptFailure {
    #[error("no response within {0:?}")]
    Timeout(Duration),
    #[error("no response in what was left of the request's time, {0:?}")]
    Deadline(Duration),
    #[error("{0}")]
    Send(SendFailure),
}

impl From<AttemptFailure> for AttemptError {
    fn from(failure: AttemptFailure) -> Self {
        Self { failure, unsent: None }
    }
}

impl From<SendError> for AttemptError {
    fn from(error: SendError) -> Self {
        Self { failure: AttemptFailure::Send(error.failure), unsent: error.unsent }
    }
}

impl AttemptFailure {
    /// What a policy may try again.
    fn retry(&self) -> Option<Retry> {
        let failure = match self {
            Self::Timeout(_) => LocalFailure::Timeout,
            Self::Deadline(_) | Self::Send(SendFailure::Client(_)) => return None,
            Self::Send(failure) => match failure.kind() {
                ExchangeFailure::ConnectTimeout | ExchangeFailure::ConnectRefused | ExchangeFailure::ConnectError => {
                    LocalFailure::Connect
                }
                ExchangeFailure::Reset => LocalFailure::Reset,
                ExchangeFailure::ResponseTimeout => LocalFailure::Timeout,
                ExchangeFailure::Protocol => return None,
            },
        };
        Some(Retry::Failure(failure))
    }

    /// What it says of the backend.
    fn ending(&self) -> Ending {
        Ending::Local(match self {
            Self::Timeout(_) | Self::Deadline(_) => LocalError::ResponseTimeout,
            Self::Send(SendFailure::Client(_)) => LocalError::Cancelled,
            Self::Send(failure) => match failure.kind() {
                ExchangeFailure::ConnectTimeout => LocalError::ConnectTimeout,
                ExchangeFailure::ConnectRefused | ExchangeFailure::ConnectError => LocalError::ConnectFailed,
                ExchangeFailure::Reset => LocalError::Reset,
                ExchangeFailure::ResponseTimeout => LocalError::ResponseTimeout,
                ExchangeFailure::Protocol => LocalError::ProtocolError,
            },
        })
    }

    fn kind(&self) -> ExchangeFailure {
        match self {
            Self::Timeout(_) | Self::Deadline(_) => ExchangeFailure::ResponseTimeout,
            Self::Send(failure) => failure.kind(),
        }
    }

    fn reason(&self) -> Reason {
        match self {
            Self::Timeout(_) => Reason::UpstreamTimeout,
            Self::Deadline(_) => Reason::DeadlineExceeded,
            Self::Send(SendFailure::Client(error)) => match error {
                BodyError::Idle(_) | BodyError::Slow | BodyError::Late => Reason::RequestTimeout,
                BodyError::Broken(_) => Reason::RequestBodyError,
                BodyError::TooLarge => Reason::RequestBodyTooLarge,
            },
            Self::Send(failure) => match failure.kind() {
                ExchangeFailure::ConnectTimeout => Reason::ConnectTimeout,
                ExchangeFailure::ConnectRefused | ExchangeFailure::ConnectError => Reason::ConnectFailed,
                ExchangeFailure::Protocol => Reason::UpstreamProtocolError,
                ExchangeFailure::Reset | ExchangeFailure::ResponseTimeout => Reason::UpstreamReset,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn an_upload_that_goes_on_is_not_given_up() {
        let moved = AtomicU64::new(0);
        let upload = async {
            for _ in 0..20 {
                tokio::time::sleep(LIMIT / 2).await;
                moved.fetch_add(1, Ordering::Relaxed);
            }
        };
        assert_eq!(while_it_moves(LIMIT, || moved.load(Ordering::Relaxed), pin!(upload)).await, Some(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_backend_that_does_not_answer_is_given_up_at_the_limit() {
        let begun = Instant::now();
        assert_eq!(while_it_moves(LIMIT, || 7, pin!(std::future::pending::<()>())).await, None);
        assert_eq!(begun.elapsed(), LIMIT);
    }
}
