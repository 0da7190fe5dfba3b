//! What a breaker is told to do. Names and meaning follow resilience4j's `CircuitBreakerConfig`.

use std::time::Duration;

use crate::range::{HOUR, MILLISECOND, OutOfRange, shortened, within};

const CALLS: std::ops::RangeInclusive<u32> = 1..=10_000;
const DAY: Duration = Duration::from_hours(24);

/// Which calls a closed breaker judges by. resilience4j: `slidingWindowType`, `slidingWindowSize`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowSpec(WindowKind);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WindowKind {
    Count(u32),
    Time(Duration),
}

impl WindowSpec {
    /// The last `size` calls, 1 to 10000. A breaker takes two bytes for each.
    pub fn count(size: u32) -> Result<Self, OutOfRange> {
        Ok(Self(WindowKind::Count(within("window.size", size, CALLS)?)))
    }

    /// The calls that ended in the last `length`, 1 s to 1 h. It moves in steps of a tenth.
    pub fn time(length: Duration) -> Result<Self, OutOfRange> {
        Ok(Self(WindowKind::Time(within("window.length", length, Duration::from_secs(1)..=HOUR)?)))
    }

    pub(super) fn kind(self) -> WindowKind {
        self.0
    }
}

/// How long a breaker stays open.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OpenSpec {
    duration: Duration,
    factor: f64,
    maximum: Duration,
    jitter: u8,
}

impl OpenSpec {
    /// The first opening lasts `duration` (1 ms to 1 h), each that follows without a recovery `factor` times the one
    /// before (1 to 10), up to `maximum` (`duration` to 24 h). Each is shortened by a random part of up to `jitter`
    /// percent (0 to 50), so that proxies do not probe in step.
    pub fn new(duration: Duration, factor: f64, maximum: Duration, jitter: u8) -> Result<Self, OutOfRange> {
        Ok(Self {
            duration: within("open.duration", duration, MILLISECOND..=HOUR)?,
            factor: within("open.factor", factor, 1.0..=10.0)?,
            maximum: within("open.maximum", maximum, duration..=DAY)?,
            jitter: within("open.jitter", jitter, 0..=50)?,
        })
    }

    /// The length of the opening that follows `earlier` others without a recovery.
    pub(super) fn length(&self, earlier: u32, random: u32) -> Duration {
        let growth = self.factor.powi(i32::try_from(earlier).unwrap_or(i32::MAX));
        let grown = Duration::try_from_secs_f64(self.duration.as_secs_f64() * growth).unwrap_or(self.maximum);
        shortened(grown.min(self.maximum), self.jitter, random)
    }
}

/// How a breaker finds out whether it may close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HalfOpenSpec {
    pub(super) probes: u32,
    pub(super) successes: u32,
    pub(super) max_duration: Duration,
}

impl HalfOpenSpec {
    /// At most `probes` calls at once (1 to 100); after `successes` good ones (1 to 100) the breaker closes, after one
    /// that failed or was slow it opens again. After `max_duration` (1 ms to 1 h) without either it opens again too; the
    /// opening is longer than the one before only if a probe was still under way, else there was just too little traffic.
    pub fn new(probes: u32, successes: u32, max_duration: Duration) -> Result<Self, OutOfRange> {
        Ok(Self {
            probes: within("halfOpen.probes", probes, 1..=100)?,
            successes: within("halfOpen.successes", successes, 1..=100)?,
            max_duration: within("halfOpen.maxDuration", max_duration, MILLISECOND..=HOUR)?,
        })
    }
}

/// When slow calls open a breaker. A call may be slow and failed at once, and then counts as both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlowCallSpec {
    pub(super) threshold: Duration,
    pub(super) rate: u8,
}

impl SlowCallSpec {
    /// A call is slow when it takes longer than `threshold` (1 ms to 1 h). The breaker opens when at least `rate`
    /// percent (1 to 100) of the calls in the window were.
    pub fn new(threshold: Duration, rate: u8) -> Result<Self, OutOfRange> {
        Ok(Self {
            threshold: within("slowCall.threshold", threshold, MILLISECOND..=HOUR)?,
            rate: within("slowCall.rate", rate, 1..=100)?,
        })
    }
}

/// All of a breaker's settings. A breaker whose spec stays equal keeps its state over a reload.
#[derive(Clone, Debug, PartialEq)]
pub struct BreakerSpec {
    pub(super) window: WindowSpec,
    pub(super) minimum_calls: u32,
    pub(super) failure_rate: u8,
    pub(super) open: OpenSpec,
    pub(super) half_open: HalfOpenSpec,
    pub(super) slow_calls: Option<SlowCallSpec>,
    pub(super) consecutive_failures: Option<u32>,
    pub(super) ramp: Duration,
}

impl BreakerSpec {
    /// Opens when at least `failure_rate` percent (1 to 100) of the calls in the window failed and it holds at least
    /// `minimum_calls` (1 to 10000, and no more than a count window's size).
    pub fn new(
        window: WindowSpec,
        minimum_calls: u32,
        failure_rate: u8,
        open: OpenSpec,
        half_open: HalfOpenSpec,
    ) -> Result<Self, OutOfRange> {
        let most = match window.kind() {
            WindowKind::Count(size) => size,
            WindowKind::Time(_) => *CALLS.end(),
        };
        Ok(Self {
            window,
            minimum_calls: within("minimumCalls", minimum_calls, 1..=most)?,
            failure_rate: within("failureRate", failure_rate, 1..=100)?,
            open,
            half_open,
            slow_calls: None,
            consecutive_failures: None,
            ramp: Duration::ZERO,
        })
    }

    /// Opens on slow calls too.
    pub fn with_slow_calls(self, slow_calls: SlowCallSpec) -> Self {
        Self { slow_calls: Some(slow_calls), ..self }
    }

    /// Opens after `count` failures (1 to 10000) with no success between them too, however few calls there were.
    pub fn with_consecutive_failures(self, count: u32) -> Result<Self, OutOfRange> {
        Ok(Self { consecutive_failures: Some(within("consecutiveFailures", count, CALLS)?), ..self })
    }

    /// After it has closed, admits a share of the calls that grows evenly from a tenth to all over `ramp` (up to 1 h).
    pub fn with_ramp(self, ramp: Duration) -> Result<Self, OutOfRange> {
        Ok(Self { ramp: within("ramp", ramp, Duration::ZERO..=HOUR)?, ..self })
    }
}
