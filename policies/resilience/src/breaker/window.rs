//! The calls that a closed breaker judges by: the last N, or those of the last T. Recording is constant time for a count
//! and at most [`BUCKETS`] steps for a time; no memory is taken after construction.
//!
//! Source: resilience4j's `FixedSizeSlidingWindowMetrics` and `SlidingTimeWindowMetrics`.

use std::time::Duration;

use super::spec::{WindowKind, WindowSpec};
use crate::range::nanos;

/// A window over time moves in steps of a tenth of its length, so it holds between nine tenths and all of it.
pub(super) const BUCKETS: u32 = 10;

/// What one call adds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Call {
    pub failed: bool,
    pub slow: bool,
}

/// The sum over calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub calls: u32,
    pub failures: u32,
    pub slow: u32,
}

impl Totals {
    fn add(&mut self, call: Call) {
        self.calls = self.calls.saturating_add(1);
        self.failures = self.failures.saturating_add(u32::from(call.failed));
        self.slow = self.slow.saturating_add(u32::from(call.slow));
    }

    fn subtract(&mut self, other: Self) {
        self.calls = self.calls.saturating_sub(other.calls);
        self.failures = self.failures.saturating_sub(other.failures);
        self.slow = self.slow.saturating_sub(other.slow);
    }
}

#[derive(Debug)]
pub(super) enum Window {
    Count {
        /// Full once it has `totals.calls == ring.len()`.
        ring: Box<[Call]>,
        next: usize,
        totals: Totals,
    },
    Time {
        /// Nanoseconds, more than 0.
        width: u64,
        /// Number of the newest bucket since the origin. Never decreases.
        newest: u64,
        buckets: [Totals; BUCKETS as usize],
        totals: Totals,
    },
}

impl Window {
    pub fn new(spec: WindowSpec) -> Self {
        match spec.kind() {
            WindowKind::Count(size) => {
                let ring = (0..size).map(|_| Call::default()).collect();
                Self::Count { ring, next: 0, totals: Totals::default() }
            }
            WindowKind::Time(length) => Self::Time {
                width: nanos(length / BUCKETS).max(1),
                newest: 0,
                buckets: [Totals::default(); BUCKETS as usize],
                totals: Totals::default(),
            },
        }
    }

    /// Takes in one call. One that is reported out of order counts in the newest bucket.
    pub fn record(&mut self, call: Call, now: Duration) -> Totals {
        self.advance(now);
        match self {
            Self::Count { ring, next, totals } => {
                let is_full = usize::try_from(totals.calls).is_ok_and(|calls| calls >= ring.len());
                if let Some(slot) = ring.get_mut(*next) {
                    let oldest = std::mem::replace(slot, call);
                    if is_full {
                        totals.subtract(Totals { calls: 1, failures: oldest.failed.into(), slow: oldest.slow.into() });
                    }
                }
                *next += 1;
                if *next >= ring.len() {
                    *next = 0;
                }
                totals.add(call);
                *totals
            }
            Self::Time { newest, buckets, totals, .. } => {
                if let Some(bucket) = buckets.get_mut(slot(*newest)) {
                    bucket.add(call);
                }
                totals.add(call);
                *totals
            }
        }
    }

    /// The sum as of `now`.
    pub fn totals(&mut self, now: Duration) -> Totals {
        self.advance(now);
        match self {
            Self::Count { totals, .. } | Self::Time { totals, .. } => *totals,
        }
    }

    pub fn clear(&mut self) {
        match self {
            Self::Count { next, totals, .. } => {
                *next = 0;
                *totals = Totals::default();
            }
            Self::Time { buckets, totals, .. } => {
                buckets.fill(Totals::default());
                *totals = Totals::default();
            }
        }
    }

    /// Drops the buckets that a window over time has left behind.
    fn advance(&mut self, now: Duration) {
        let Self::Time { width, newest, buckets, totals } = self else { return };
        let current = nanos(now) / *width;
        let steps = current.saturating_sub(*newest).min(u64::from(BUCKETS));
        for step in 0..steps {
            if let Some(bucket) = buckets.get_mut(slot(current - step)) {
                totals.subtract(std::mem::take(bucket));
            }
        }
        *newest = current.max(*newest);
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a remainder of 10 fits")]
fn slot(bucket: u64) -> usize {
    (bucket % u64::from(BUCKETS)) as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sum(calls: impl IntoIterator<Item = Call>) -> Totals {
        calls.into_iter().fold(Totals::default(), |mut totals, call| {
            totals.add(call);
            totals
        })
    }

    fn call() -> impl Strategy<Value = Call> {
        any::<(bool, bool)>().prop_map(|(failed, slow)| Call { failed, slow })
    }

    proptest! {
        #[test]
        fn a_count_window_holds_the_last_calls(
            size in 1u32..40,
            calls in prop::collection::vec((call(), prop::bool::weighted(0.02)), 0..200),
        ) {
            let mut window = Window::new(WindowSpec::count(size).unwrap());
            let mut all: Vec<Call> = Vec::new();
            for (call, clear) in calls {
                if clear {
                    window.clear();
                    all.clear();
                }
                all.push(call);
                let expected = sum(all.iter().rev().take(size as usize).copied());
                prop_assert_eq!(window.record(call, Duration::ZERO), expected);
            }
        }

        #[test]
        fn a_time_window_holds_the_calls_of_its_newest_ten_buckets(
            seconds in 1u64..30,
            start in 0u64..100_000,
            calls in prop::collection::vec((call(), prop_oneof![0u64..50, 0u64..3_000, 0u64..60_000]), 0..200),
        ) {
            let mut window = Window::new(WindowSpec::time(Duration::from_secs(seconds)).unwrap());
            let width = seconds * 100;
            let mut now = start;
            let mut all: Vec<(u64, Call)> = Vec::new();
            for (call, gap) in calls {
                now += gap;
                all.push((now / width, call));
                let expected = sum(all.iter().filter(|(bucket, _)| bucket + 10 > now / width).map(|(_, call)| *call));
                prop_assert_eq!(window.record(call, Duration::from_millis(now)), expected);
            }
            prop_assert_eq!(window.totals(Duration::from_millis(now + seconds * 1000)), Totals::default());
        }

        #[test]
        fn a_call_reported_late_counts_and_time_does_not_go_back(late in 0u64..10_000) {
            let mut window = Window::new(WindowSpec::time(Duration::from_secs(10)).unwrap());
            window.record(Call::default(), Duration::from_secs(10));
            let totals = window.record(Call { failed: true, slow: false }, Duration::from_millis(late));
            prop_assert_eq!(totals, Totals { calls: 2, failures: 1, slow: 0 });
            prop_assert_eq!(window.totals(Duration::from_millis(19_999)), totals);
            prop_assert_eq!(window.totals(Duration::from_secs(20)), Totals::default());
        }
    }
}
