//! From the settings of a BackendPolicy to what each decision is told.
//!
//! Invariant: whatever the model accepts is accepted here; a test goes to both ends of every range.

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

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, time::Duration};

    use control_plane_model::{
        BackendOptions, BackendSettings, Ejection, FailurePercentage, HalfOpen, HealthProbe, LocalFailure, OpenTime,
        Retries, SlowCalls, SuccessRate,
    };

    use super::*;
    use crate::upstream::resilience::check_settings;

    const MILLISECOND: Duration = Duration::from_millis(1);
    const SECOND: Duration = Duration::from_secs(1);
    const MINUTE: Duration = Duration::from_mins(1);
    const HOUR: Duration = Duration::from_hours(1);
    const DAY: Duration = Duration::from_hours(24);

    /// One end of every range that a decision checks too.
    struct End {
        calls: u32,
        percent: u8,
        jitter_percent: u8,
        max_percent: u8,
        probes: u32,
        time: Duration,
        longest: Duration,
        window: Duration,
        interval: Duration,
        minute: Duration,
        in_flight: u32,
        pending: u32,
        factor: u32,
        budget: u32,
        first_status: u16,
    }

    const LOWEST: End = End {
        calls: 1,
        percent: 1,
        jitter_percent: 0,
        max_percent: 0,
        probes: 1,
        time: MILLISECOND,
        longest: MILLISECOND,
        window: SECOND,
        interval: Duration::from_millis(100),
        minute: MILLISECOND,
        in_flight: 1,
        pending: 0,
        factor: 1,
        budget: 0,
        first_status: 100,
    };

    const HIGHEST: End = End {
        calls: 10_000,
        percent: 100,
        jitter_percent: 50,
        max_percent: 100,
        probes: 100,
        time: HOUR,
        longest: DAY,
        window: HOUR,
        interval: HOUR,
        minute: MINUTE,
        in_flight: 100_000,
        pending: 100_000,
        factor: 10,
        budget: 100_000,
        first_status: 599,
    };

    fn options(end: &End, window: BreakerWindow) -> BackendOptions {
        let ranges = vec![StatusRange { first: end.first_status, last: 599 }];
        BackendOptions {
            limits: Some(ConcurrencyLimits { max: end.in_flight * 10, pending: end.pending, max_wait: end.minute }),
            adaptive: Some(AdaptiveLimit {
                min: end.in_flight,
                max: end.in_flight,
                initial: end.in_flight,
                window: end.minute,
            }),
            breaker: Some(CircuitBreaker {
                window,
                minimum_calls: end.calls,
                failure_percent: end.percent,
                slow_calls: Some(SlowCalls { threshold: end.time, percent: end.percent }),
                consecutive_failures: Some(end.calls),
                open: OpenTime {
                    duration: end.time,
                    factor: end.factor,
                    maximum: end.longest,
                    jitter_percent: end.jitter_percent,
                },
                half_open: HalfOpen { probes: end.probes, successes: end.probes, max_duration: end.time },
                ramp: end.time,
                failures: Failures { statuses: ranges.clone(), grpc_codes: BTreeSet::from([0, 16]) },
            }),
            outliers: Some(OutlierDetection {
                interval: end.window,
                ejection: Ejection {
                    base: end.time,
                    maximum: end.longest,
                    jitter_percent: end.jitter_percent,
                    max_percent: end.max_percent,
                    at_least_one: true,
                },
                consecutive_5xx: Some(end.calls),
                consecutive_gateway_errors: Some(end.calls),
                consecutive_local_failures: Some(end.calls),
                success_rate: Some(SuccessRate {
                    minimum_endpoints: end.calls,
                    minimum_calls: end.calls,
                    deviations: end.calls,
                }),
                failure_percentage: Some(FailurePercentage {
                    minimum_endpoints: end.calls,
                    minimum_calls: end.calls,
                    percent: end.percent,
                }),
            }),
            health_check: Some(HealthCheck {
                interval: end.interval,
                timeout: Duration::from_secs(1),
                jitter_percent: end.jitter_percent,
                healthy_threshold: end.probes,
                unhealthy_threshold: end.probes,
                port: None,
                probe: HealthProbe::Tcp,
            }),
            retries: Some(Retries {
                limit: 1,
                failures: BTreeSet::from([LocalFailure::Reset]),
                statuses: ranges,
                grpc_codes: BTreeSet::new(),
                any_method: false,
                backoff_base: MILLISECOND,
                backoff_max: MILLISECOND,
                max_body: 0,
                budget: Some(RetryBudget { percent: end.max_percent, window: end.window, minimum: end.budget }),
            }),
            ..BackendOptions::default()
        }
    }

    #[test]
    fn what_the_model_accepts_at_either_end_of_a_range_is_accepted_here() {
        for end in [LOWEST, HIGHEST] {
            for window in [BreakerWindow::Calls(end.calls), BreakerWindow::Time(end.window)] {
                let settings = BackendSettings::new(options(&end, window)).unwrap();
                check_settings(&settings).unwrap();
            }
        }
    }
}
