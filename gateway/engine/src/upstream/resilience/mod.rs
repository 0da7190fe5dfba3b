//! What a BackendPolicy makes of one backend: who is admitted, what the end of a call says, what is tried again.
//!
//! Invariants: there is one [`Resilience`] a backend and process, shared by the workers; its parts outlive a change of the
//! settings that leaves their own spec equal. A call counts once, at its close, whatever the number of its attempts.
//! A backend without a policy has none of this.

mod bulkhead;
mod call;
mod retry;
mod spec;
mod view;

use std::{sync::Arc, time::Duration};

use control_plane_model::{BackendSettings, Fallback};
use http::Method;
use policy_resilience::{
    AdaptiveConcurrency, Breaker, Classifier, Ending, EndpointOutcome, Forced, HealthSpec, OutlierDetector, Refused,
};
use tokio::time::Instant;

use self::bulkhead::Bulkhead;
pub(crate) use self::{
    call::{Call, grpc_status},
    retry::{Retry, RetryPlan},
    spec::InvalidSpec,
};
use super::Endpoint;
use crate::{
    local_reply::{LocalReply, Reason},
    telemetry::BackendMetrics,
};

/// The parts of one backend's policy, with their state.
pub(crate) struct Resilience {
    pub(crate) settings: Arc<BackendSettings>,
    label: Arc<str>,
    metrics: Arc<BackendMetrics>,
    origin: Instant,
    classifier: Classifier,
    breaker: Option<Arc<Breaker>>,
    bulkhead: Option<Arc<Bulkhead>>,
    adaptive: Option<Arc<AdaptiveConcurrency>>,
    outliers: Option<Arc<OutlierDetector>>,
    retries: Option<RetryPlan>,
    health: Option<HealthSpec>,
}

/// Whose policy it is.
pub(crate) struct Owner<'a> {
    pub(crate) label: &'a Arc<str>,
    pub(crate) metrics: &'a Arc<BackendMetrics>,
    /// What times count from; the same for every policy of the process.
    pub(crate) origin: Instant,
}

/// A state that an operator asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerCommand {
    /// Refuses every request.
    Open,
    /// Admits every request, and counts.
    Closed,
    /// As the policy says, from closed.
    Auto,
}

/// Whether the decisions take `settings`.
pub(crate) fn check_settings(settings: &BackendSettings) -> Result<(), InvalidSpec> {
    settings.breaker.as_ref().map(spec::breaker).transpose()?;
    settings.breaker.as_ref().map(|breaker| spec::classifier(&breaker.failures)).transpose()?;
    settings.limits.as_ref().map(spec::concurrency).transpose()?;
    settings.adaptive.as_ref().map(spec::adaptive).transpose()?;
    settings.outliers.as_ref().map(spec::outliers).transpose()?;
    settings.retries.as_ref().map(|retries| RetryPlan::new(retries, None)).transpose()?;
    settings.health_check.as_ref().map(spec::health).transpose()?;
    Ok(())
}

/// The part that was there, where its spec is equal; else a new one.
fn kept<T, S>(
    spec: Option<S>,
    previous: Option<&Arc<T>>,
    is_equal: impl Fn(&T, &S) -> bool,
    new: impl FnOnce(S) -> Arc<T>,
) -> Option<Arc<T>> {
    let spec = spec?;
    Some(match previous {
        Some(part) if is_equal(part, &spec) => part.clone(),
        _ => new(spec),
    })
}

impl Resilience {
    /// The parts that `settings` name. Those of `previous` whose spec is equal go on.
    ///
    /// # Errors: a setting that a decision does not take.
    pub(crate) fn new(
        owner: &Owner<'_>,
        settings: Arc<BackendSettings>,
        previous: Option<&Self>,
    ) -> Result<Self, InvalidSpec> {
        let breaker = kept(
            settings.breaker.as_ref().map(spec::breaker).transpose()?,
            previous.and_then(|previous| previous.breaker.as_ref()),
            |part, spec| part.spec() == spec,
            Breaker::new,
        );
        let bulkhead = kept(
            settings.limits.as_ref().map(spec::concurrency).transpose()?,
            previous.and_then(|previous| previous.bulkhead.as_ref()),
            |part, spec| part.spec() == *spec,
            Bulkhead::new,
        );
        let adaptive = kept(
            settings.adaptive.as_ref().map(spec::adaptive).transpose()?,
            previous.and_then(|previous| previous.adaptive.as_ref()),
            |part, spec| part.spec() == *spec,
            AdaptiveConcurrency::new,
        );
        let outliers = kept(
            settings.outliers.as_ref().map(spec::outliers).transpose()?,
            previous.and_then(|previous| previous.outliers.as_ref()),
            |part, spec| part.spec() == spec,
            |spec| Arc::new(OutlierDetector::new(spec)),
        );
        let plan = |retries| RetryPlan::new(retries, previous.and_then(|previous| previous.retries.as_ref()));
        let failures = settings.breaker.as_ref().map(|breaker| &breaker.failures);
        let resilience = Self {
            label: owner.label.clone(),
            metrics: owner.metrics.clone(),
            origin: owner.origin,
            classifier: failures.map_or_else(|| Ok(Classifier::default()), spec::classifier)?,
            breaker,
            bulkhead,
            adaptive,
            outliers,
            retries: settings.retries.as_ref().map(plan).transpose()?,
            health: settings.health_check.as_ref().map(spec::health).transpose()?,
            settings,
        };
        resilience.metrics.set_breaker(resilience.breaker.as_ref().map(|breaker| breaker.state()));
        Ok(resilience)
    }

    /// What the decisions call now.
    pub(crate) fn time(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.origin)
    }

    /// Whether endpoints are judged by the answers to requests.
    pub(crate) fn outliers(&self) -> Option<&Arc<OutlierDetector>> {
        self.outliers.as_ref()
    }

    /// When endpoints are asked whether they are well.
    pub(crate) fn health(&self) -> Option<&HealthSpec> {
        self.health.as_ref()
    }

    /// What is tried again.
    pub(crate) fn retries(&self) -> Option<&RetryPlan> {
        self.retries.as_ref()
    }

    /// How many bytes of the body of a request with this method are kept, to be sent again.
    pub(crate) fn kept_of(&self, method: &Method) -> usize {
        self.retries.as_ref().filter(|plan| plan.allows(method)).map_or(0, RetryPlan::max_body)
    }

    /// What the client gets in place of `reply`, where that says that the backend gave no answer.
    pub(crate) fn or_fallback(&self, reply: LocalReply) -> LocalReply {
        match &self.settings.fallback {
            Some(Fallback::Response(response)) if is_without_answer(reply.reason()) => {
                reply.with_response(response.clone())
            }
            _ => reply,
        }
    }

    /// Lets one call of a client begin, at once or when it is its turn. `random` is even over all values.
    ///
    /// Cancel-safe: dropping the future gives back what it has. Allocates only where the call waits.
    ///
    /// # Errors: the reply for a call that must not be made.
    pub(crate) async fn admit(self: &Arc<Self>, random: u32) -> Result<Call, LocalReply> {
        let mut permit = self.acquire_breaker(random)?;
        let adaptive = match &self.adaptive {
            None => None,
            Some(limit) => Some(limit.try_acquire().map_err(|_| self.refuse(Reason::AdaptiveLimit))?),
        };
        let mut turn = None;
        if let (Some(bulkhead), Some(limits)) = (&self.bulkhead, &self.settings.limits) {
            turn = bulkhead.try_enter();
            if turn.is_none() {
                let waited = Box::pin(bulkhead.enter(limits.max_wait)).await;
                turn = Some(waited.map_err(|reason| self.refuse(reason))?);
                // The breaker may have opened meanwhile.
                if permit.as_ref().is_some_and(|permit| !permit.is_current()) {
                    permit = self.acquire_breaker(random)?;
                }
            }
        }
        if let Some(retries) = &self.retries {
            retries.deposit(self.time(Instant::now()));
        }
        Ok(Call::new(self.clone(), permit, adaptive, turn, random))
    }

    fn acquire_breaker(&self, random: u32) -> Result<Option<policy_resilience::Permit>, LocalReply> {
        let Some(breaker) = &self.breaker else { return Ok(None) };
        let acquired = breaker.acquire(self.time(Instant::now()), random);
        self.follow(breaker);
        acquired.map(Some).map_err(|refused| self.circuit_open(refused))
    }

    fn circuit_open(&self, refused: Refused) -> LocalReply {
        let reply = self.refuse(Reason::CircuitOpen);
        match refused.retry_after {
            Some(wait) => reply.with_retry_after(wait),
            None => reply,
        }
    }

    /// The reply for `reason`, counted.
    pub(crate) fn refuse(&self, reason: Reason) -> LocalReply {
        self.metrics.refused(reason);
        reason.into()
    }

    /// Takes a retry from the budget and counts it. Tells whether there was one.
    pub(crate) fn may_retry(&self, now: Instant) -> bool {
        let has_one = self.retries.as_ref().is_none_or(|retries| retries.try_withdraw(self.time(now)));
        self.metrics.retried(has_one);
        has_one
    }

    /// Tells the log and the metrics what the breaker has done.
    fn follow(&self, breaker: &Breaker) {
        for transition in breaker.take_transitions() {
            let (from, to, cause) = (transition.from.as_str(), transition.to.as_str(), transition.cause.as_str());
            self.metrics.breaker_changed(transition.to);
            tracing::warn!(backend = %self.label, from, to, cause, "circuit breaker changed its state");
        }
    }

    /// Counts how an attempt at `endpoint` ended, and ejects it where that is enough.
    pub(crate) fn attempt_ended<'a, I>(
        &self,
        endpoint: &Endpoint,
        ending: Ending,
        endpoints: impl FnOnce() -> I,
        now: Instant,
        random: u32,
    ) -> Option<Duration>
    where
        I: IntoIterator<Item = &'a policy_resilience::EndpointOutliers>,
    {
        let (detector, outcome) = (self.outliers.as_ref()?, EndpointOutcome::of(ending)?);
        let ejection = detector.record(&endpoint.outliers, outcome, endpoints, self.time(now), random)?;
        self.ejected(endpoint, &ejection, now);
        Some(ejection.until)
    }

    /// Tells the log and the metrics of an ejection.
    pub(crate) fn ejected(&self, endpoint: &Endpoint, ejection: &policy_resilience::Ejection, now: Instant) {
        self.metrics.ejected(ejection.cause);
        let seconds = ejection.until.saturating_sub(self.time(now)).as_secs_f64();
        let cause = ejection.cause.as_str();
        tracing::warn!(backend = %self.label, endpoint = %endpoint.address, cause, seconds, "endpoint ejected");
    }

    /// Puts the breaker in the state that an operator asks for. Tells whether there is one.
    pub(crate) fn force(&self, command: BreakerCommand, now: Instant) -> bool {
        let Some(breaker) = &self.breaker else { return false };
        let now = self.time(now);
        match command {
            BreakerCommand::Open => breaker.force(Forced::Open, now),
            BreakerCommand::Closed => breaker.force(Forced::Closed, now),
            BreakerCommand::Auto => breaker.reset(now),
        }
        self.follow(breaker);
        true
    }
}

/// Whether a reply for this reason stands for an answer that the backend did not give.
fn is_without_answer(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::CircuitOpen
            | Reason::BackendAtLimit
            | Reason::TooManyPending
            | Reason::AdaptiveLimit
            | Reason::NoEndpoints
            | Reason::NoHealthyEndpoints
            | Reason::ConnectFailed
            | Reason::ConnectTimeout
            | Reason::UpstreamReset
            | Reason::UpstreamProtocolError
            | Reason::UpstreamTimeout
            | Reason::DeadlineExceeded
    )
}
