//! Outlier detection: endpoints that fail while others do not get no requests for a while.
//!
//! Source: Envoy's outlier detection and its panic threshold. It differs in this: an endpoint comes back by time alone,
//! to the moment and not at the next interval.
//!
//! Invariants: what is kept of an endpoint has a fixed size; the endpoints are the caller's. Of the endpoints that the
//! caller names, no more than the allowed share is ejected at once, whatever the number of threads. Counting an answer
//! and asking whether an endpoint is ejected take atomics only; ejecting takes a lock and looks at every endpoint.

mod spec;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

pub use self::spec::{EjectionSpec, FailurePercentageSpec, LocalOrigin, OutlierSpec, SuccessRateSpec};
use crate::outcome::{Ending, GrpcCode, LocalError};
use crate::range::{nanos, reaches, shortened};

/// What an answer, or its absence, says of the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndpointOutcome {
    /// Any answer but a 5xx.
    Success,
    /// 5xx, but not a gateway error.
    ServerError,
    /// 502, 503, 504.
    GatewayError,
    /// No answer.
    LocalOrigin,
}

impl EndpointOutcome {
    /// `None` where the client went away. A gRPC code counts as the HTTP status that `google.rpc.Code` gives for it, but
    /// for `Unimplemented`, which is the client's mistake.
    pub fn of(ending: Ending) -> Option<Self> {
        match ending {
            Ending::Http(502..=504) | Ending::Grpc(GrpcCode::Unavailable | GrpcCode::DeadlineExceeded) => {
                Some(Self::GatewayError)
            }
            Ending::Http(500..=599) | Ending::Grpc(GrpcCode::Unknown | GrpcCode::Internal | GrpcCode::DataLoss) => {
                Some(Self::ServerError)
            }
            Ending::Local(LocalError::Cancelled) | Ending::Grpc(GrpcCode::Cancelled) => None,
            Ending::Local(_) => Some(Self::LocalOrigin),
            Ending::Http(_) | Ending::Grpc(_) => Some(Self::Success),
        }
    }
}

/// Why an endpoint is ejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EjectionCause {
    /// Too many 5xx in a row.
    Consecutive5xx,
    /// Too many 502, 503, 504 in a row.
    ConsecutiveGatewayErrors,
    /// Too many times no answer in a row.
    ConsecutiveLocalOrigin,
    /// It succeeds far less often than the others.
    SuccessRate,
    /// Too large a share of its answers are failures.
    FailurePercentage,
}

impl EjectionCause {
    /// The word in metrics, logs and the admin interface.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Consecutive5xx => "consecutive_5xx",
            Self::ConsecutiveGatewayErrors => "consecutive_gateway_errors",
            Self::ConsecutiveLocalOrigin => "consecutive_local_origin",
            Self::SuccessRate => "success_rate",
            Self::FailurePercentage => "failure_percentage",
        }
    }
}

/// An endpoint was ejected just now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ejection {
    /// Why.
    pub cause: EjectionCause,
    /// When it comes back.
    pub until: Duration,
    /// Its number among the ejections that were not forgiven, from 1; the time grows with it, and it stops growing at the
    /// longest time.
    pub number: u32,
}

/// What is kept of one endpoint.
#[derive(Debug, Default)]
pub struct EndpointOutliers {
    /// Nanoseconds.
    ejected_until: AtomicU64,
    ejections: AtomicU32,
    consecutive_5xx: AtomicU32,
    consecutive_gateway_errors: AtomicU32,
    consecutive_local_origin: AtomicU32,
    /// In this interval: calls in the upper half, failures in the lower.
    interval: AtomicU64,
}

impl EndpointOutliers {
    /// Whether it gets no requests at `now`.
    pub fn is_ejected(&self, now: Duration) -> bool {
        nanos(now) < self.ejected_until.load(Ordering::Relaxed)
    }

    /// When it comes back, if it is ejected at `now`.
    pub fn ejected_until(&self, now: Duration) -> Option<Duration> {
        let until = self.ejected_until.load(Ordering::Relaxed);
        (nanos(now) < until).then(|| Duration::from_nanos(until))
    }

    /// Forgets everything, as for an endpoint that is new: its detector is gone or has another spec.
    pub fn reset(&self) {
        self.ejected_until.store(0, Ordering::Relaxed);
        self.interval.store(0, Ordering::Relaxed);
        let counts = [&self.consecutive_5xx, &self.consecutive_gateway_errors, &self.consecutive_local_origin];
        for count in counts.into_iter().chain([&self.ejections]) {
            clear(count);
        }
    }

    /// Ejections that were not forgiven: each interval without one forgives one.
    pub fn ejections(&self) -> u32 {
        self.ejections.load(Ordering::Relaxed)
    }

    /// Takes in one outcome. Returns the cause to eject, if this outcome completes one.
    fn count(&self, spec: &OutlierSpec, outcome: EndpointOutcome) -> Option<EjectionCause> {
        let outcome = match (outcome, spec.local_origin) {
            (EndpointOutcome::LocalOrigin, LocalOrigin::Split(limit)) => {
                let is_complete = grow(&self.consecutive_local_origin, Some(limit));
                return is_complete.then_some(EjectionCause::ConsecutiveLocalOrigin);
            }
            (EndpointOutcome::LocalOrigin, LocalOrigin::AsGatewayError) => EndpointOutcome::GatewayError,
            (outcome, _) => outcome,
        };
        clear(&self.consecutive_local_origin);
        let failed = outcome != EndpointOutcome::Success;
        self.interval.fetch_add(1 << 32 | u64::from(failed), Ordering::Relaxed);
        if !failed {
            clear(&self.consecutive_5xx);
            clear(&self.consecutive_gateway_errors);
            return None;
        }
        let is_gateway_error = outcome == EndpointOutcome::GatewayError;
        let gateway_errors_complete = if is_gateway_error {
            grow(&self.consecutive_gateway_errors, spec.consecutive_gateway_errors)
        } else {
            clear(&self.consecutive_gateway_errors);
            false
        };
        if grow(&self.consecutive_5xx, spec.consecutive_5xx) {
            return Some(EjectionCause::Consecutive5xx);
        }
        gateway_errors_complete.then_some(EjectionCause::ConsecutiveGatewayErrors)
    }

    fn eject(&self, spec: &EjectionSpec, cause: EjectionCause, now: Duration, random: u32) -> Ejection {
        let next = |earlier: u32| {
            let is_longest = spec.base.saturating_mul(earlier) >= spec.maximum;
            if is_longest { earlier } else { earlier.saturating_add(1) }
        };
        let number = next(self.ejections.update(Ordering::Relaxed, Ordering::Relaxed, next));
        let time = spec.base.saturating_mul(number).min(spec.maximum);
        let until = now.saturating_add(shortened(time, spec.jitter, random));
        for count in [&self.consecutive_5xx, &self.consecutive_gateway_errors, &self.consecutive_local_origin] {
            clear(count);
        }
        self.ejected_until.store(nanos(until), Ordering::Relaxed);
        Ejection { cause, until, number }
    }

    /// Calls and failures of the interval that ends now.
    fn take_interval(&self) -> Interval {
        let counts = self.interval.swap(0, Ordering::Relaxed);
        #[expect(clippy::cast_possible_truncation, reason = "each half is taken on its own")]
        Interval { calls: (counts >> 32) as u32, failures: counts as u32 }
    }

    /// Forgives one ejection.
    fn forgive(&self) {
        self.ejections.update(Ordering::Relaxed, Ordering::Relaxed, |ejections| ejections.saturating_sub(1));
    }
}

#[derive(Clone, Copy, Debug)]
struct Interval {
    calls: u32,
    failures: u32,
}

impl Interval {
    /// 0 to 100.
    fn success_rate(self) -> f64 {
        100.0 * f64::from(self.calls.saturating_sub(self.failures)) / f64::from(self.calls.max(1))
    }
}

/// Decides for the endpoints of one backend.
#[derive(Debug)]
pub struct OutlierDetector {
    spec: OutlierSpec,
    /// Held while the share of ejected endpoints is compared and one more is ejected.
    ejecting: Mutex<()>,
}

impl OutlierDetector {
    /// A detector for one backend.
    pub fn new(spec: OutlierSpec) -> Self {
        Self { spec, ejecting: Mutex::new(()) }
    }

    /// What it was made with.
    pub fn spec(&self) -> &OutlierSpec {
        &self.spec
    }

    /// Takes in the outcome of one attempt at `endpoint`. Where that completes a cause, ejects it, if the number of
    /// ejected ones among `endpoints` (all of the backend's, this one too) allows. Outcomes while it is ejected say
    /// nothing new. `endpoints` is asked for only then.
    pub fn record<'a, I>(
        &self,
        endpoint: &EndpointOutliers,
        outcome: EndpointOutcome,
        endpoints: impl FnOnce() -> I,
        now: Duration,
        random: u32,
    ) -> Option<Ejection>
    where
        I: IntoIterator<Item = &'a EndpointOutliers>,
    {
        if endpoint.is_ejected(now) {
            return None;
        }
        let cause = endpoint.count(&self.spec, outcome)?;
        self.try_eject(endpoint, cause, endpoints(), now, random)
    }

    /// Ends an interval: judges the rates of all `endpoints`, ejects those that fail too much as far as the share
    /// allows, worst first, and forgives one ejection of each that is not ejected. The caller owes it every
    /// [`OutlierSpec::interval`]. Returns the ejected ones by their place in `endpoints`. Allocates.
    pub fn sweep(
        &self,
        endpoints: &[&EndpointOutliers],
        now: Duration,
        mut random: impl FnMut() -> u32,
    ) -> Vec<(usize, Ejection)> {
        let mut judged: Vec<(usize, &EndpointOutliers, Interval)> = Vec::with_capacity(endpoints.len());
        for (index, endpoint) in endpoints.iter().enumerate() {
            let interval = endpoint.take_interval();
            if !endpoint.is_ejected(now) {
                judged.push((index, endpoint, interval));
            }
        }
        judged.sort_by(|(_, _, first), (_, _, second)| first.success_rate().total_cmp(&second.success_rate()));
        let least_success = self.least_success(judged.iter().map(|(_, _, interval)| *interval));
        let most_failures = self.most_failures(judged.iter().map(|(_, _, interval)| *interval));
        let mut ejected = Vec::new();
        for (index, endpoint, interval) in judged {
            let cause = if least_success.is_some_and(|least| least.is_missed_by(interval)) {
                Some(EjectionCause::SuccessRate)
            } else if most_failures.is_some_and(|most| most.is_reached_by(interval)) {
                Some(EjectionCause::FailurePercentage)
            } else {
                None
            };
            let ejection =
                cause.and_then(|cause| self.try_eject(endpoint, cause, endpoints.iter().copied(), now, random()));
            match ejection {
                Some(ejection) => ejected.push((index, ejection)),
                None => endpoint.forgive(),
            }
        }
        ejected
    }

    fn try_eject<'a>(
        &self,
        endpoint: &EndpointOutliers,
        cause: EjectionCause,
        endpoints: impl IntoIterator<Item = &'a EndpointOutliers>,
        now: Duration,
        random: u32,
    ) -> Option<Ejection> {
        let _ejecting = self.ejecting.lock();
        if endpoint.is_ejected(now) {
            return None;
        }
        let (mut all, mut ejected) = (0u64, 0u64);
        for other in endpoints {
            all += 1;
            ejected += u64::from(other.is_ejected(now));
        }
        let spec = &self.spec.ejection;
        let fits = (ejected + 1) * 100 <= all * u64::from(spec.max_percent);
        (fits || ejected == 0 && spec.at_least_one).then(|| endpoint.eject(spec, cause, now, random))
    }

    /// The success rate below which an endpoint is an outlier, if enough take part.
    fn least_success(&self, intervals: impl Iterator<Item = Interval>) -> Option<LeastSuccess> {
        let spec = self.spec.success_rate?;
        let rates: Vec<f64> =
            intervals.filter(|interval| interval.calls >= spec.minimum_calls).map(Interval::success_rate).collect();
        let count = u32::try_from(rates.len()).unwrap_or(u32::MAX);
        if count < spec.minimum_endpoints {
            return None;
        }
        let mean = rates.iter().sum::<f64>() / f64::from(count);
        let variance = rates.iter().map(|rate| (rate - mean).powi(2)).sum::<f64>() / f64::from(count);
        let rate = mean - variance.sqrt() * f64::from(spec.deviations) / 1000.0;
        Some(LeastSuccess { rate, minimum_calls: spec.minimum_calls })
    }

    /// The failure percentage, if enough take part.
    fn most_failures(&self, intervals: impl Iterator<Item = Interval>) -> Option<FailurePercentageSpec> {
        let spec = self.spec.failure_percentage?;
        let count = intervals.filter(|interval| interval.calls >= spec.minimum_calls).count();
        u32::try_from(count).is_ok_and(|count| count >= spec.minimum_endpoints).then_some(spec)
    }
}

#[derive(Clone, Copy, Debug)]
struct LeastSuccess {
    rate: f64,
    minimum_calls: u32,
}

impl LeastSuccess {
    fn is_missed_by(self, interval: Interval) -> bool {
        interval.calls >= self.minimum_calls && interval.success_rate() < self.rate
    }
}

impl FailurePercentageSpec {
    fn is_reached_by(self, interval: Interval) -> bool {
        interval.calls >= self.minimum_calls && reaches(interval.failures, interval.calls, self.threshold)
    }
}

/// Whether so few of `all` endpoints are usable, less than `threshold` percent (0 to 100; 0 is never), that all get
/// requests as if healthy: better to fail some than to flood the few. Envoy: `healthy_panic_threshold`.
pub fn is_panic(usable: u32, all: u32, threshold: u8) -> bool {
    !reaches(usable, all, threshold)
}

/// Adds one. At `limit` begins anew and says so.
fn grow(count: &AtomicU32, limit: Option<u32>) -> bool {
    let Some(limit) = limit else { return false };
    let next = count.fetch_add(1, Ordering::Relaxed).saturating_add(1);
    if next >= limit {
        count.store(0, Ordering::Relaxed);
    }
    next >= limit
}

/// Writes only where something is to be cleared, so that good endpoints' cache lines stay shared.
fn clear(count: &AtomicU32) {
    if count.load(Ordering::Relaxed) != 0 {
        count.store(0, Ordering::Relaxed);
    }
}
