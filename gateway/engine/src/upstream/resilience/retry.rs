//! What is tried again, when, and how often.
//!
//! Source: RFC 9110 section 9.2.2 (idempotent methods); "full jitter" of M. Brooker, "Exponential Backoff And Jitter".

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use control_plane_model::{LocalFailure, Retries};
use http::Method;
use policy_resilience::{GrpcCode, RetryBudget, StatusSet};

use super::{
    kept,
    spec::{self, InvalidSpec},
};

/// What one backend's policy tries again.
pub(crate) struct RetryPlan {
    limit: u32,
    failures: BTreeSet<LocalFailure>,
    statuses: StatusSet,
    grpc_codes: BTreeSet<u8>,
    any_method: bool,
    backoff_base: Duration,
    backoff_max: Duration,
    max_body: usize,
    budget: Option<Arc<RetryBudget>>,
}

/// What may be tried again.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Retry {
    /// No answer.
    Failure(LocalFailure),
    /// This answer.
    Answer(http::StatusCode, Option<GrpcCode>),
}

impl RetryPlan {
    /// The budget of `previous` goes on where its spec is equal.
    ///
    /// # Errors: a setting that a decision does not take.
    pub(super) fn new(retries: &Retries, previous: Option<&Self>) -> Result<Self, InvalidSpec> {
        let budget = kept(
            retries.budget.as_ref().map(spec::retry_budget).transpose()?,
            previous.and_then(|previous| previous.budget.as_ref()),
            |part, spec| part.spec() == *spec,
            |spec| Arc::new(RetryBudget::new(spec)),
        );
        Ok(Self {
            limit: retries.limit,
            failures: retries.failures.clone(),
            statuses: spec::statuses(&retries.statuses)?,
            grpc_codes: retries.grpc_codes.clone(),
            any_method: retries.any_method,
            backoff_base: retries.backoff_base,
            backoff_max: retries.backoff_max,
            max_body: usize::try_from(retries.max_body).unwrap_or(usize::MAX),
            budget,
        })
    }

    /// Tries beyond the first.
    pub(crate) fn limit(&self) -> u32 {
        self.limit
    }

    /// The longest body that is kept, in bytes.
    pub(crate) fn max_body(&self) -> usize {
        self.max_body
    }

    /// Whether a request with this method may be sent again although its bytes may have reached an endpoint.
    pub(crate) fn allows(&self, method: &Method) -> bool {
        self.any_method || method.is_idempotent()
    }

    /// Whether the policy names this.
    pub(crate) fn wants(&self, retry: Retry) -> bool {
        match retry {
            Retry::Failure(failure) => self.failures.contains(&failure),
            Retry::Answer(_, Some(code)) => self.grpc_codes.contains(&(code as u8)),
            Retry::Answer(status, None) => self.statuses.contains(status.as_u16()),
        }
    }

    /// How long to wait before the retry that follows `earlier` others.
    pub(crate) fn backoff(&self, earlier: u32, random: u32) -> Duration {
        let grown = self.backoff_base.saturating_mul(1 << earlier.min(16)).min(self.backoff_max);
        grown.mul_f64(f64::from(random) / f64::from(u32::MAX))
    }

    /// Counts a request of a client.
    pub(super) fn deposit(&self, now: Duration) {
        if let Some(budget) = &self.budget {
            budget.deposit(now);
        }
    }

    /// Takes one retry from the budget. Tells whether there was one.
    pub(super) fn try_withdraw(&self, now: Duration) -> bool {
        self.budget.as_ref().is_none_or(|budget| budget.try_withdraw(now).is_ok())
    }

    /// Retries that the budget has left; `None` without one.
    pub(super) fn balance(&self, now: Duration) -> Option<u64> {
        self.budget.as_ref().map(|budget| budget.balance(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> RetryPlan {
        let retries = Retries {
            limit: 2,
            failures: BTreeSet::from([LocalFailure::Connect]),
            statuses: vec![control_plane_model::StatusRange { first: 502, last: 503 }],
            grpc_codes: BTreeSet::from([14]),
            any_method: false,
            backoff_base: Duration::from_millis(100),
            backoff_max: Duration::from_secs(1),
            max_body: 0,
            budget: None,
        };
        RetryPlan::new(&retries, None).unwrap()
    }

    #[test]
    fn waits_double_up_to_the_longest_and_are_shortened_at_random() {
        let plan = plan();
        let longest = [0, 1, 2, 3, 4, 40].map(|earlier| plan.backoff(earlier, u32::MAX).as_millis());
        assert_eq!(longest, [100, 200, 400, 800, 1000, 1000]);
        assert_eq!(plan.backoff(3, 0), Duration::ZERO);
    }

    #[test]
    fn only_what_is_named_is_tried_again() {
        let plan = plan();
        assert!(plan.wants(Retry::Failure(LocalFailure::Connect)));
        assert!(!plan.wants(Retry::Failure(LocalFailure::Reset)));
        assert!(plan.wants(Retry::Answer(http::StatusCode::BAD_GATEWAY, None)));
        assert!(!plan.wants(Retry::Answer(http::StatusCode::GATEWAY_TIMEOUT, None)));
        assert!(plan.wants(Retry::Answer(http::StatusCode::OK, Some(GrpcCode::Unavailable))));
        assert!(!plan.wants(Retry::Answer(http::StatusCode::OK, Some(GrpcCode::Ok))));
        assert!(plan.allows(&Method::PUT) && !plan.allows(&Method::POST));
    }
}
