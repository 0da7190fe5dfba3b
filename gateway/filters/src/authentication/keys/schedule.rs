//! When a key set is fetched: ahead of its expiry, again after a failure, and at once where a token names a key that is not
//! known.
//!
//! Invariants: one fetch at a time; never more than [`MISSES`] fetches for unknown keys in a row and one in each
//! [`MISS_PERIOD`] then, whatever clients send. No IO, no clock: `now` is the time since an origin that all calls share,
//! `jitter` a number from 0 to 1.

use std::{
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use governor::{
    Quota, RateLimiter,
    clock::Clock,
    middleware::NoOpMiddleware,
    state::{InMemoryState, NotKeyed},
};

/// The least time that a key set counts as fresh, whatever its server says.
const LEAST_FRESH: Duration = Duration::from_mins(1);
/// After the first failure; doubled with each one that follows.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// Longest time between two attempts.
const LONGEST_RETRY: Duration = Duration::from_mins(1);
/// Fetches for unknown keys at once after a quiet time.
const MISSES: NonZeroU32 = NonZeroU32::new(2).unwrap();
/// One more fetch for unknown keys after each of these.
const MISS_PERIOD: Duration = Duration::from_secs(15);

/// The fetches of one key set.
#[derive(Debug)]
pub(super) struct Schedule {
    /// Longest time between two fetches.
    refresh: Duration,
    /// For how long keys count that should have been refreshed.
    stale_if_error: Duration,
    next: Duration,
    usable_until: Option<Duration>,
    failures: u32,
    is_fetching: bool,
    time: GivenTime,
    misses: RateLimiter<NotKeyed, InMemoryState, GivenTime, NoOpMiddleware<Duration>>,
}

impl Schedule {
    /// The first fetch is due at once.
    pub(super) fn new(refresh: Duration, stale_if_error: Duration, now: Duration) -> Self {
        let time = GivenTime::default();
        time.set(now);
        let period = Quota::with_period(MISS_PERIOD).unwrap_or(Quota::per_minute(NonZeroU32::MIN));
        let misses = RateLimiter::direct_with_clock(period.allow_burst(MISSES), time.clone());
        Self { refresh, stale_if_error, next: now, usable_until: None, failures: 0, is_fetching: false, time, misses }
    }

    /// When the next fetch is due; `None` while one is under way.
    pub(super) fn due(&self) -> Option<Duration> {
        (!self.is_fetching).then_some(self.next)
    }

    /// A fetch begins.
    pub(super) fn begin(&mut self) {
        self.is_fetching = true;
    }

    /// It brought keys, fresh for `max_age` as their server says. They are fetched again when 80 % to 95 % of the time is
    /// over for which they are fresh here: a minute at least, the refresh interval at most.
    pub(super) fn succeeded(&mut self, now: Duration, max_age: Option<Duration>, jitter: f64) {
        let fresh = max_age.unwrap_or(self.refresh).clamp(LEAST_FRESH, self.refresh.max(LEAST_FRESH));
        self.next = now.saturating_add(fresh.mul_f64(0.8 + 0.15 * jitter.clamp(0.0, 1.0)));
        self.usable_until = Some(now.saturating_add(fresh).saturating_add(self.stale_if_error));
        self.failures = 0;
        self.is_fetching = false;
    }

    /// It brought none. The next one follows after half to all of a time that doubles up to a minute.
    pub(super) fn failed(&mut self, now: Duration, jitter: f64) {
        let doubled = FIRST_RETRY.saturating_mul(1 << self.failures.min(16)).min(LONGEST_RETRY);
        self.next = now.saturating_add(doubled.mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0)));
        self.failures = self.failures.saturating_add(1);
        self.is_fetching = false;
    }

    /// A token names a key that is not in the set. Tells whether a fetch is under way or due now, so that waiting for it
    /// makes sense. After a failure it is not: the next attempt has its time.
    pub(super) fn missed(&mut self, now: Duration) -> bool {
        if self.is_fetching || self.next <= now {
            return true;
        }
        self.time.set(now);
        if self.failures > 0 || self.misses.check().is_err() {
            return false;
        }
        self.next = now;
        true
    }

    /// Until when the keys count, where there were ever any.
    pub(super) fn usable_until(&self) -> Option<Duration> {
        self.usable_until
    }

    /// Failures since the last success.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }
}

/// The time as it was last given.
#[derive(Clone, Debug, Default)]
struct GivenTime(Arc<AtomicU64>);

impl GivenTime {
    /// Sets it, in whole nanoseconds up to five centuries.
    fn set(&self, now: Duration) {
        self.0.store(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

impl Clock for GivenTime {
    type Instant = Duration;

    fn now(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Duration = Duration::from_secs(1000);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn schedule() -> Schedule {
        Schedule::new(seconds(600), seconds(3600), START)
    }

    #[test]
    fn the_first_fetch_is_due_at_once_and_one_runs_at_a_time() {
        let mut schedule = schedule();
        assert_eq!(schedule.due(), Some(START));
        schedule.begin();
        assert_eq!(schedule.due(), None);
        assert!(schedule.missed(START));
        assert_eq!(schedule.due(), None);
    }

    #[test]
    fn keys_are_refreshed_ahead_of_their_expiry_within_bounds() {
        for (max_age, fresh) in [(None, 600), (Some(100), 100), (Some(0), 60), (Some(86_400), 600)] {
            for (jitter, part) in [(0.0, 0.8), (1.0, 0.95), (7.0, 0.95)] {
                let mut schedule = schedule();
                schedule.begin();
                schedule.succeeded(START, max_age.map(seconds), jitter);
                let fresh = seconds(fresh);
                let due = schedule.due().unwrap();
                assert!(due.abs_diff(START + fresh.mul_f64(part)) < Duration::from_micros(1), "{due:?}");
                assert_eq!(schedule.usable_until(), Some(START + fresh + seconds(3600)));
            }
        }
    }

    #[test]
    fn failures_are_retried_after_a_growing_time_and_keep_the_old_keys_within_their_limit() {
        let mut schedule = schedule();
        schedule.begin();
        schedule.succeeded(START, None, 0.0);
        let until = schedule.usable_until();
        let mut waits = Vec::new();
        for _ in 0..9 {
            schedule.begin();
            schedule.failed(START, 1.0);
            waits.push(schedule.due().unwrap().abs_diff(START).as_secs());
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!((schedule.usable_until(), schedule.failures()), (until, 9));
        schedule.begin();
        schedule.failed(START, 0.0);
        assert_eq!(schedule.due(), Some(START + seconds(30)));
    }

    #[test]
    fn unknown_keys_cause_two_fetches_at_once_and_one_in_fifteen_seconds_then() {
        let mut schedule = schedule();
        schedule.begin();
        schedule.succeeded(START, None, 0.0);
        let mut miss = |at: u64| {
            let is_worth_it = schedule.missed(START + seconds(at));
            if is_worth_it {
                assert_eq!(schedule.due(), Some(START + seconds(at)));
                schedule.begin();
                schedule.succeeded(START + seconds(at), None, 0.0);
            }
            is_worth_it
        };
        assert_eq!([1, 1, 1, 2, 14, 17, 18, 31].map(&mut miss), [true, true, false, false, false, true, false, true]);
    }

    #[test]
    fn after_a_failure_unknown_keys_cause_no_fetch() {
        let mut schedule = schedule();
        schedule.begin();
        schedule.succeeded(START, None, 0.0);
        schedule.begin();
        schedule.failed(START, 1.0);
        assert!(!schedule.missed(START + Duration::from_millis(999)));
        assert!(schedule.missed(START + seconds(1)));
    }
}
