//! From the settings of a BackendPolicy to what each decision is told.
//!
//! Invariant: whatever the model accepts is accepted here; a test holds the ranges of the two equal.

use control_plane_model::{
    AdaptiveLimit, BreakerWindow, CircuitBreaker, ConcurrencyLimits, Failures, HealthCheck, OutlierDetection,
    RetryBudget, StatusRange,
};
use policy_resilience::{
    AdaptiveSpec, BreakerSpec, Classifier, ConcurrencySpec, EjectionSpec, FailurePercentageSpec, GrpcCode,
    HalfOpenSpec, Health, HealthSpec, InvalidStatusRange, LocalOrigin, OpenSpec, OutOfRange, OutlierSpec,
    RetryBudgetSpec, SlowCallSpec, StatusSet, SuccessRateSpec, WindowSpec,
};

/// A setting that a decision does not take.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InvalidSpec {
    #[error(transparent)]
    OutOfRange(#[from] OutOfRange),
    #[error(transparent)]
    Statuses(#[from] InvalidStatusRange),
}

pub(super) fn breaker(breaker: &CircuitBreaker) -> Result<BreakerSpec, OutOfRange> {
    let window = match breaker.window {
        BreakerWindow::Calls(size) => WindowSpec::count(size)?,
        BreakerWindow::Time(length) => WindowSpec::time(length)?,
    };
    let open = &breaker.open;
    let open = OpenSpec::new(open.duration, open.factor.into(), open.maximum, open.jitter_percent)?;
    let half_open = &breaker.half_open;
    let half_open = HalfOpenSpec::new(half_open.probes, half_open.successes, half_open.max_duration)?;
    let mut spec = BreakerSpec::new(window, breaker.minimum_calls, breaker.failure_percent, open, half_open)?
        .with_ramp(breaker.ramp)?;
    if let Some(slow) = &breaker.slow_calls {
        spec = spec.with_slow_calls(SlowCallSpec::new(slow.threshold, slow.percent)?);
    }
    if let Some(count) = breaker.consecutive_failures {
        spec = spec.with_consecutive_failures(count)?;
    }
    Ok(spec)
}

/// What counts as a failure; what is not said is as [`Classifier::default`] has it.
pub(super) fn classifier(failures: &Failures) -> Result<Classifier, InvalidSpec> {
    let mut classifier = Classifier::default();
    if !failures.statuses.is_empty() {
        classifier = classifier.with_http(statuses(&failures.statuses)?, StatusSet::default());
    }
    if !failures.grpc_codes.is_empty() {
        let codes = failures.grpc_codes.iter().map(|code| GrpcCode::from_number((*code).into()));
        classifier = classifier.with_grpc(codes, [GrpcCode::Cancelled]);
    }
    Ok(classifier)
}

pub(super) fn statuses(ranges: &[StatusRange]) -> Result<StatusSet, InvalidStatusRange> {
    StatusSet::new(ranges.iter().map(|range| range.first..=range.last))
}

pub(super) fn concurrency(limits: &ConcurrencyLimits) -> Result<ConcurrencySpec, OutOfRange> {
    ConcurrencySpec::new(limits.max)?.with_pending(limits.pending)
}

pub(super) fn adaptive(limit: &AdaptiveLimit) -> Result<AdaptiveSpec, OutOfRange> {
    AdaptiveSpec::new(limit.min, limit.max, limit.initial, limit.window)
}

pub(super) fn outliers(outliers: &OutlierDetection) -> Result<OutlierSpec, OutOfRange> {
    let ejection = &outliers.ejection;
    let mut ejections =
        EjectionSpec::new(ejection.base, ejection.maximum, ejection.jitter_percent, ejection.max_percent)?;
    if ejection.at_least_one {
        ejections = ejections.with_at_least_one();
    }
    let local = outliers.consecutive_local_failures.map_or(LocalOrigin::AsGatewayError, LocalOrigin::Split);
    let mut spec = OutlierSpec::new(outliers.interval, ejections, local)?;
    if let Some(count) = outliers.consecutive_5xx {
        spec = spec.with_consecutive_5xx(count)?;
    }
    if let Some(count) = outliers.consecutive_gateway_errors {
        spec = spec.with_consecutive_gateway_errors(count)?;
    }
    if let Some(rate) = &outliers.success_rate {
        let rate = SuccessRateSpec::new(rate.minimum_endpoints, rate.minimum_calls, rate.deviations)?;
        spec = spec.with_success_rate(rate);
    }
    if let Some(rate) = &outliers.failure_percentage {
        let rate = FailurePercentageSpec::new(rate.minimum_endpoints, rate.minimum_calls, rate.percent)?;
        spec = spec.with_failure_percentage(rate);
    }
    Ok(spec)
}

pub(super) fn retry_budget(budget: &RetryBudget) -> Result<RetryBudgetSpec, OutOfRange> {
    RetryBudgetSpec::new(budget.percent, budget.window, budget.minimum, budget.window)
}

/// Endpoints are well until a check says otherwise: that they are there at all means that the cluster finds them ready.
pub(super) fn health(check: &HealthCheck) -> Result<HealthSpec, OutOfRange> {
    HealthSpec::new(
        check.interval,
        check.jitter_percent,
        check.healthy_threshold,
        check.unhealthy_threshold,
        Health::Healthy,
    )
}
