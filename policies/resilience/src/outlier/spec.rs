//! What a detector is told to do. Names and meaning follow Envoy's `OutlierDetection`.

use std::time::Duration;

use crate::range::{HOUR, MILLISECOND, OutOfRange, within};

const CALLS: std::ops::RangeInclusive<u32> = 1..=10_000;
const DAY: Duration = Duration::from_hours(24);

/// What becomes of failures that this proxy found itself: no connection, a reset, no answer in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalOrigin {
    /// They count as gateway errors. Envoy: `split_external_local_origin_errors = false`.
    AsGatewayError,
    /// They count by themselves, and this many without an answer between them (1 to 10000) eject. They are no part of
    /// the rates. Envoy: `split_external_local_origin_errors = true`, `consecutive_local_origin_failure`.
    Split(u32),
}

/// How long an endpoint is ejected, and how many may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EjectionSpec {
    pub(super) base: Duration,
    pub(super) maximum: Duration,
    pub(super) jitter: u8,
    pub(super) max_percent: u8,
    pub(super) at_least_one: bool,
}

impl EjectionSpec {
    /// The first ejection lasts `base` (1 ms to 1 h), the n-th n times as long, up to `maximum` (`base` to 24 h), and up to
    /// `jitter` percent (0 to 50) less at random. No more than `max_percent` (0 to 100) of the endpoints are ejected at
    /// once.
    pub fn new(base: Duration, maximum: Duration, jitter: u8, max_percent: u8) -> Result<Self, OutOfRange> {
        Ok(Self {
            base: within("outlier.baseEjectionTime", base, MILLISECOND..=HOUR)?,
            maximum: within("outlier.maxEjectionTime", maximum, base..=DAY)?,
            jitter: within("outlier.ejectionJitter", jitter, 0..=50)?,
            max_percent: within("outlier.maxEjectionPercent", max_percent, 0..=100)?,
            at_least_one: false,
        })
    }

    /// One may be ejected even where that is more than `max_percent`. Envoy: `always_eject_one_host`.
    pub fn with_at_least_one(self) -> Self {
        Self { at_least_one: true, ..self }
    }
}

/// Ejects an endpoint that succeeds far less often than the others do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SuccessRateSpec {
    pub(super) minimum_endpoints: u32,
    pub(super) minimum_calls: u32,
    pub(super) deviations: u32,
}

impl SuccessRateSpec {
    /// Ejects below the mean less `deviations` thousandths of the standard deviation (1 to 10000; Envoy: 1900). Only
    /// endpoints with `minimum_calls` (1 to 10000) in the interval take part, and there must be `minimum_endpoints` of
    /// them (1 to 10000).
    pub fn new(minimum_endpoints: u32, minimum_calls: u32, deviations: u32) -> Result<Self, OutOfRange> {
        Ok(Self {
            minimum_endpoints: within("outlier.successRate.minimumEndpoints", minimum_endpoints, CALLS)?,
            minimum_calls: within("outlier.successRate.minimumCalls", minimum_calls, CALLS)?,
            deviations: within("outlier.successRate.deviations", deviations, CALLS)?,
        })
    }
}

/// Ejects an endpoint for its own share of failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailurePercentageSpec {
    pub(super) minimum_endpoints: u32,
    pub(super) minimum_calls: u32,
    pub(super) threshold: u8,
}

impl FailurePercentageSpec {
    /// Ejects at `threshold` percent (1 to 100) of failures or more. Only endpoints with `minimum_calls` (1 to 10000) in
    /// the interval take part, and there must be `minimum_endpoints` of them (1 to 10000).
    pub fn new(minimum_endpoints: u32, minimum_calls: u32, threshold: u8) -> Result<Self, OutOfRange> {
        Ok(Self {
            minimum_endpoints: within("outlier.failurePercentage.minimumEndpoints", minimum_endpoints, CALLS)?,
            minimum_calls: within("outlier.failurePercentage.minimumCalls", minimum_calls, CALLS)?,
            threshold: within("outlier.failurePercentage.threshold", threshold, 1..=100)?,
        })
    }
}

/// All of a detector's settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutlierSpec {
    pub(super) interval: Duration,
    pub(super) ejection: EjectionSpec,
    pub(super) local_origin: LocalOrigin,
    pub(super) consecutive_5xx: Option<u32>,
    pub(super) consecutive_gateway_errors: Option<u32>,
    pub(super) success_rate: Option<SuccessRateSpec>,
    pub(super) failure_percentage: Option<FailurePercentageSpec>,
}

impl OutlierSpec {
    /// Judges the rates every `interval` (1 ms to 1 h). Ejects for nothing yet but, where they are split, errors of local
    /// origin.
    pub fn new(interval: Duration, ejection: EjectionSpec, local_origin: LocalOrigin) -> Result<Self, OutOfRange> {
        if let LocalOrigin::Split(count) = local_origin {
            within("outlier.consecutiveLocalOriginFailures", count, CALLS)?;
        }
        Ok(Self {
            interval: within("outlier.interval", interval, MILLISECOND..=HOUR)?,
            ejection,
            local_origin,
            consecutive_5xx: None,
            consecutive_gateway_errors: None,
            success_rate: None,
            failure_percentage: None,
        })
    }

    /// Ejects after `count` answers with 5xx in a row (1 to 10000).
    pub fn with_consecutive_5xx(self, count: u32) -> Result<Self, OutOfRange> {
        Ok(Self { consecutive_5xx: Some(within("outlier.consecutive5xx", count, CALLS)?), ..self })
    }

    /// Ejects after `count` answers with 502, 503 or 504 in a row (1 to 10000).
    pub fn with_consecutive_gateway_errors(self, count: u32) -> Result<Self, OutOfRange> {
        let count = within("outlier.consecutiveGatewayErrors", count, CALLS)?;
        Ok(Self { consecutive_gateway_errors: Some(count), ..self })
    }

    /// Ejects by comparison with the others.
    pub fn with_success_rate(self, success_rate: SuccessRateSpec) -> Self {
        Self { success_rate: Some(success_rate), ..self }
    }

    /// Ejects by the endpoint's own failures.
    pub fn with_failure_percentage(self, failure_percentage: FailurePercentageSpec) -> Self {
        Self { failure_percentage: Some(failure_percentage), ..self }
    }

    /// How often the caller owes an [`OutlierDetector::sweep`](super::OutlierDetector::sweep).
    pub fn interval(&self) -> Duration {
        self.interval
    }
}
