//! A concurrency limit that finds itself: it grows while latency holds and shrinks when calls begin to queue in the
//! backend.
//!
//! Source: `Gradient2Limit` and `WindowedLimit` of Netflix's concurrency-limits, with their constants. Its known weakness
//! is theirs: the long average follows a load that stays too high, within some 600 windows.
//! Invariant: the limit stays within its bounds, and calls under way never pass the limit that held when they began.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::concurrency::take;
use crate::range::{MILLISECOND, OutOfRange, within};

/// A window with fewer calls goes on.
const WINDOW_CALLS: u32 = 10;
/// Windows that the long average remembers.
const LONG_WINDOWS: f64 = 600.0;
/// Windows over which the long average is a plain one.
const WARMUP_WINDOWS: u32 = 10;
/// Latency may be this many times the long average before the limit shrinks.
const TOLERANCE: f64 = 1.5;
/// Calls that may queue; what the limit grows by when nothing is slow.
const QUEUE: f64 = 4.0;
/// The share of a new limit that is taken over at once.
const SMOOTHING: f64 = 0.2;

/// The settings of an adaptive limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdaptiveSpec {
    min: u32,
    max: u32,
    initial: u32,
    window: Duration,
}

impl AdaptiveSpec {
    /// Begins at `initial` and stays within `min` (1 to 100000) and `max` (`min` to 100000). It is judged anew every
    /// `window` (1 ms to 60 s; concurrency-limits: 1 s) that has at least ten calls.
    pub fn new(min: u32, max: u32, initial: u32, window: Duration) -> Result<Self, OutOfRange> {
        const MOST: u32 = 100_000;
        Ok(Self {
            min: within("adaptive.min", min, 1..=MOST)?,
            max: within("adaptive.max", max, min..=MOST)?,
            initial: within("adaptive.initial", initial, min..=max)?,
            window: within("adaptive.window", window, MILLISECOND..=Duration::from_mins(1))?,
        })
    }
}

/// As many calls are under way as the limit of this moment allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the adaptive limit of {limit} calls is reached")]
pub struct LimitReached {
    /// The limit that refused.
    pub limit: u32,
}

/// The limit of one backend, shared by all its callers.
#[derive(Debug)]
pub struct AdaptiveConcurrency {
    spec: AdaptiveSpec,
    in_flight: AtomicU32,
    limit: AtomicU32,
    estimate: Mutex<Estimate>,
}

impl AdaptiveConcurrency {
    /// Nothing under way, nothing known.
    pub fn new(spec: AdaptiveSpec) -> Arc<Self> {
        Arc::new(Self {
            spec,
            in_flight: AtomicU32::new(0),
            limit: AtomicU32::new(spec.initial),
            estimate: Mutex::new(Estimate::new(spec)),
        })
    }

    /// What it was made with.
    pub fn spec(&self) -> AdaptiveSpec {
        self.spec
    }

    /// Begins a call.
    ///
    /// # Errors: the limit of this moment is reached.
    pub fn try_acquire(self: &Arc<Self>) -> Result<AdaptivePermit, LimitReached> {
        let limit = self.limit();
        if take(&self.in_flight, limit) { Ok(AdaptivePermit(Arc::clone(self))) } else { Err(LimitReached { limit }) }
    }

    /// The limit of this moment.
    pub fn limit(&self) -> u32 {
        self.limit.load(Ordering::Relaxed)
    }

    /// Calls under way.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }
}

/// One call under way. Dropping it without [`AdaptivePermit::record`] ends the call and says nothing of its latency.
#[must_use = "dropping it ends the call"]
#[derive(Debug)]
pub struct AdaptivePermit(Arc<AdaptiveConcurrency>);

impl AdaptivePermit {
    /// Ends the call and takes in its latency. Calls that timed out belong here too; those that failed at once do not,
    /// they would look fast.
    pub fn record(self, latency: Duration, now: Duration) {
        let shared = &self.0;
        let mut estimate = shared.estimate.lock();
        if let Some(limit) = estimate.observe(latency, shared.in_flight(), now) {
            shared.limit.store(limit, Ordering::Relaxed);
        }
    }
}

impl Drop for AdaptivePermit {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Release);
    }
}

/// Times are in seconds.
#[derive(Debug)]
struct Estimate {
    spec: AdaptiveSpec,
    limit: f64,
    /// `None` before the first call.
    window_end: Option<Duration>,
    window_calls: u32,
    window_latency: f64,
    window_in_flight: u32,
    long_average: f64,
    /// Windows so far, up to the end of the warm-up.
    windows: u32,
}

impl Estimate {
    fn new(spec: AdaptiveSpec) -> Self {
        Self {
            spec,
            limit: spec.initial.into(),
            window_end: None,
            window_calls: 0,
            window_latency: 0.0,
            window_in_flight: 0,
            long_average: 0.0,
            windows: 0,
        }
    }

    /// Takes in one latency. Returns the limit where a window ended.
    fn observe(&mut self, latency: Duration, in_flight: u32, now: Duration) -> Option<u32> {
        let end = *self.window_end.get_or_insert_with(|| now.saturating_add(self.spec.window));
        self.window_calls = self.window_calls.saturating_add(1);
        self.window_latency += latency.as_secs_f64();
        self.window_in_flight = self.window_in_flight.max(in_flight);
        if now < end || self.window_calls < WINDOW_CALLS {
            return None;
        }
        // A latency of zero would divide by it.
        let average = (self.window_latency / f64::from(self.window_calls)).max(1e-9);
        let in_flight = self.window_in_flight;
        self.window_end = Some(now.saturating_add(self.spec.window));
        self.window_calls = 0;
        self.window_latency = 0.0;
        self.window_in_flight = 0;
        self.adjust(average, in_flight.into());
        Some(self.rounded())
    }

    fn adjust(&mut self, latency: f64, in_flight: f64) {
        self.remember(latency);
        let long = self.long_average;
        if long / latency > 2.0 {
            // The backend has recovered; a long memory of it would hide the next slowdown.
            self.long_average *= 0.95;
        }
        if in_flight < self.limit / 2.0 {
            // The callers ask for less than the limit, so latency says nothing about it.
            return;
        }
        let gradient = (TOLERANCE * long / latency).clamp(0.5, 1.0);
        let target = self.limit * gradient + QUEUE;
        let limit = self.limit * (1.0 - SMOOTHING) + target * SMOOTHING;
        self.limit = limit.clamp(self.spec.min.into(), self.spec.max.into());
    }

    fn remember(&mut self, latency: f64) {
        if self.windows < WARMUP_WINDOWS {
            let windows = f64::from(self.windows);
            self.long_average = (self.long_average * windows + latency) / (windows + 1.0);
            self.windows += 1;
        } else {
            let weight = 2.0 / (LONG_WINDOWS + 1.0);
            self.long_average = self.long_average * (1.0 - weight) + latency * weight;
        }
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within min and max, which are u32")]
    fn rounded(&self) -> u32 {
        self.limit as u32
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WINDOW: Duration = Duration::from_secs(1);

    /// A backend that works on `capacity` calls at once; each takes `service` and waits for those before it.
    struct Backend {
        limit: Arc<AdaptiveConcurrency>,
        capacity: f64,
        service: f64,
        now: Duration,
    }

    impl Backend {
        fn new(capacity: f64) -> Self {
            let spec = AdaptiveSpec::new(5, 200, 20, WINDOW).unwrap();
            Self { limit: AdaptiveConcurrency::new(spec), capacity, service: 0.01, now: Duration::ZERO }
        }

        /// Lets `callers` try all at once, for `windows`.
        fn run(&mut self, callers: usize, windows: u32) -> u32 {
            for _ in 0..windows * 4 {
                self.now += WINDOW / 4;
                let permits: Vec<_> = (0..callers).filter_map(|_| self.limit.try_acquire().ok()).collect();
                let load = f64::from(self.limit.in_flight()) / self.capacity;
                let latency = Duration::from_secs_f64(self.service * load.max(1.0));
                for permit in permits {
                    permit.record(latency, self.now);
                }
            }
            self.limit.limit()
        }
    }

    #[test]
    fn the_limit_settles_a_little_above_what_the_backend_can_do() {
        let limit = Backend::new(50.0).run(1000, 100);
        assert!((50..100).contains(&limit), "{limit}");
    }

    #[test]
    fn the_limit_grows_to_its_maximum_while_latency_holds() {
        assert_eq!(Backend::new(10_000.0).run(1000, 400), 200);
    }

    #[test]
    fn the_limit_halves_and_more_when_the_backend_slows_down_and_then_recovers() {
        let mut backend = Backend::new(50.0);
        let before = backend.run(1000, 100);
        backend.service = 0.1;
        let slow = backend.run(1000, 15);
        assert!(slow < before / 2, "{before} {slow}");
        backend.service = 0.01;
        let after = backend.run(1000, 60);
        assert!(after > before / 2, "{before} {after}");
    }

    #[test]
    fn a_limit_that_nobody_reaches_does_not_grow() {
        assert_eq!(Backend::new(10_000.0).run(9, 50), 20);
    }

    #[test]
    fn a_slow_time_is_soon_forgotten() {
        let mut estimate = Estimate::new(AdaptiveSpec::new(5, 200, 20, WINDOW).unwrap());
        (0..20).for_each(|_| estimate.adjust(0.1, 20.0));
        (0..40).for_each(|_| estimate.adjust(0.01, 20.0));
        assert!(estimate.long_average < 0.025, "{}", estimate.long_average);
    }

    #[test]
    fn a_window_waits_for_ten_calls() {
        let limit = AdaptiveConcurrency::new(AdaptiveSpec::new(1, 100, 1, WINDOW).unwrap());
        for second in 0..9 {
            limit.try_acquire().unwrap().record(Duration::from_millis(5), Duration::from_secs(second));
        }
        assert_eq!(limit.limit(), 1);
        (0..40).for_each(|second| {
            limit.try_acquire().unwrap().record(Duration::from_millis(5), Duration::from_secs(9 + second));
        });
        assert!(limit.limit() > 1);
    }

    #[test]
    fn a_call_that_is_dropped_ends_without_a_latency() {
        let limit = AdaptiveConcurrency::new(AdaptiveSpec::new(1, 1, 1, WINDOW).unwrap());
        let permit = limit.try_acquire().unwrap();
        assert_eq!(limit.try_acquire().unwrap_err(), LimitReached { limit: 1 });
        drop(permit);
        assert_eq!(limit.in_flight(), 0);
        assert_eq!(limit.estimate.lock().window_calls, 0);
    }

    proptest! {
        #[test]
        fn the_limit_stays_within_its_bounds(
            min in 1u32..50,
            more in 0u32..100,
            latencies in prop::collection::vec((0u64..10_000_000_000, 1u32..300), 0..300),
        ) {
            let spec = AdaptiveSpec::new(min, min + more, min + more / 2, WINDOW).unwrap();
            let mut estimate = Estimate::new(spec);
            let mut now = Duration::ZERO;
            for (latency, in_flight) in latencies {
                now += WINDOW / 5;
                if let Some(limit) = estimate.observe(Duration::from_nanos(latency), in_flight, now) {
                    prop_assert!((min..=min + more).contains(&limit), "{limit}");
                }
            }
        }
    }
}
