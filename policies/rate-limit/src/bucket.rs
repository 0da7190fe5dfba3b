//! One token bucket shared by threads: a limit without a key.
//!
//! Invariant: no lock, and each call is one atomic step: calls of several threads come out as if made one after another.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use crate::{Decision, Limit, limit::Ticks};

/// A bucket, full at first. Which limit it keeps is an argument: pass the same one each time. A changed limit applies from
/// the next call on, and what is owed is kept as time to the full bucket.
///
/// `now` is the time since an origin that all calls share, at most seven years ago; after that, time stands still. It need
/// not be in order between threads: an earlier time than another thread's never admits more.
#[derive(Debug, Default)]
pub struct Bucket {
    /// The theoretical arrival time in [`Ticks`]. Ordering is relaxed: no other memory hangs on it.
    arrival: AtomicU64,
}

impl Bucket {
    /// Takes `cost` units, or none. A cost of 0 passes even in debt.
    pub fn take(&self, limit: &Limit, cost: u64, now: Duration) -> Decision {
        let now = Ticks::at(now);
        let mut arrival = self.arrival.load(Ordering::Relaxed);
        loop {
            let (decision, next) = limit.take(Ticks(arrival), cost, now);
            let Some(next) = next else { return decision };
            match self.arrival.compare_exchange_weak(arrival, next.0, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return decision,
                Err(current) => arrival = current,
            }
        }
    }

    /// What [`Self::take`] would say; takes nothing.
    pub fn peek(&self, limit: &Limit, cost: u64, now: Duration) -> Decision {
        limit.peek(Ticks(self.arrival.load(Ordering::Relaxed)), cost, Ticks::at(now))
    }

    /// Takes a cost that is known only afterwards, so that it cannot be refused. It may lead into debt, in which nothing
    /// passes; a debt is at most the burst and what the rate gives in [`LONGEST`](crate::LONGEST), and more is forgiven.
    pub fn charge(&self, limit: &Limit, cost: u64, now: Duration) {
        let now = Ticks::at(now);
        self.update(|arrival| limit.charge(arrival, cost, now));
    }

    /// Gives back units that were taken. Never makes the bucket more than full.
    ///
    /// A bucket does not remember whether it was full since the units were taken. If it was, they had come back already and
    /// come back twice: then as much as was refunded, and no more, is admitted above the limit.
    pub fn refund(&self, limit: &Limit, cost: u64) {
        self.update(|arrival| limit.refund(arrival, cost));
    }

    fn update(&self, change: impl Fn(Ticks) -> Ticks) {
        let mut arrival = self.arrival.load(Ordering::Relaxed);
        while let Err(current) =
            self.arrival.compare_exchange_weak(arrival, change(Ticks(arrival)).0, Ordering::Relaxed, Ordering::Relaxed)
        {
            arrival = current;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        num::NonZeroU32,
        sync::atomic::{AtomicU64, Ordering},
        thread,
    };

    use governor::{Quota, RateLimiter, clock::FakeRelativeClock};
    use proptest::prelude::*;

    use super::*;
    use crate::Verdict;

    const fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn ten_a_second(burst: u64) -> Limit {
        Limit::new(10, Duration::from_secs(1), burst).unwrap()
    }

    #[test]
    fn a_burst_is_refused_until_one_interval_has_passed() {
        let (bucket, limit) = (Bucket::default(), ten_a_second(2));
        let now = millis(5000);
        assert_eq!(
            bucket.take(&limit, 1, now),
            Decision { verdict: Verdict::Allowed, remaining: 1, full_after: millis(100) }
        );
        assert_eq!(
            bucket.take(&limit, 1, now),
            Decision { verdict: Verdict::Allowed, remaining: 0, full_after: millis(200) }
        );
        assert_eq!(
            bucket.take(&limit, 1, now + millis(99)),
            Decision { verdict: Verdict::RetryAfter(millis(1)), remaining: 0, full_after: millis(101) }
        );
        assert!(bucket.take(&limit, 1, now + millis(100)).is_allowed());
    }

    #[test]
    fn a_cost_above_the_burst_never_passes_and_takes_nothing() {
        let (bucket, limit) = (Bucket::default(), ten_a_second(5));
        let refused = Decision { verdict: Verdict::CostAboveBurst, remaining: 5, full_after: Duration::ZERO };
        assert_eq!(bucket.take(&limit, 6, millis(0)), refused);
        assert_eq!(bucket.take(&limit, u64::MAX, millis(0)), refused);
        assert!(bucket.take(&limit, 5, millis(0)).is_allowed());
    }

    #[test]
    fn a_cost_of_nothing_passes_even_in_debt() {
        let (bucket, limit) = (Bucket::default(), ten_a_second(1));
        bucket.charge(&limit, 100, millis(0));
        assert!(bucket.take(&limit, 0, millis(0)).is_allowed());
    }

    #[test]
    fn a_late_charge_leads_into_debt_and_the_debt_is_paid_off_at_the_rate() {
        let (bucket, limit) = (Bucket::default(), ten_a_second(5));
        bucket.charge(&limit, 8, millis(0));
        assert_eq!(
            bucket.peek(&limit, 1, millis(0)),
            Decision { verdict: Verdict::RetryAfter(millis(400)), remaining: 0, full_after: millis(800) }
        );
        assert!(bucket.take(&limit, 1, millis(400)).is_allowed());
    }

    #[test]
    fn a_debt_ends_within_a_year_and_a_refill_whatever_was_charged() {
        let (bucket, limit) = (Bucket::default(), ten_a_second(5));
        bucket.charge(&limit, u64::MAX, millis(0));
        bucket.charge(&limit, u64::MAX, millis(0));
        assert!(!bucket.peek(&limit, 5, crate::LONGEST).is_allowed());
        assert!(bucket.peek(&limit, 5, crate::LONGEST + millis(500)).is_allowed());
    }

    #[test]
    fn a_refund_fills_the_bucket_and_no_more() {
        let (bucket, limit) = (Bucket::default(), ten_a_second(5));
        assert!(bucket.take(&limit, 4, millis(0)).is_allowed());
        bucket.refund(&limit, 3);
        assert_eq!(bucket.peek(&limit, 1, millis(0)).remaining, 4);
        bucket.refund(&limit, u64::MAX);
        assert_eq!(bucket.peek(&limit, 1, millis(0)).remaining, 5);
    }

    #[test]
    fn threads_together_never_pass_the_burst_and_the_rate() {
        let (bucket, admitted) = (Bucket::default(), AtomicU64::new(0));
        let limit = Limit::new(1_000_000, Duration::from_secs(1), 500).unwrap();
        // Each thread walks through the same 2 ms; at the end all of them have passed.
        let last = Duration::from_millis(2);
        thread::scope(|scope| {
            for cost in [1, 2, 3, 1] {
                let (bucket, admitted, limit) = (&bucket, &admitted, &limit);
                scope.spawn(move || {
                    for step in 0..=20_000 {
                        if bucket.take(limit, cost, last * step / 20_000).is_allowed() {
                            admitted.fetch_add(cost, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        // One more would be above the limit; one less could only be a cost that did not fit.
        let admitted = admitted.into_inner();
        assert!((2490..=2500).contains(&admitted), "{admitted}");
    }

    /// A step of a test: time passes, then so many units are asked for.
    fn steps() -> impl Strategy<Value = Vec<(u64, u32)>> {
        prop::collection::vec((prop_oneof![Just(0), 0u64..2_000, 0u64..5_000_000], 1u32..6), 1..200)
    }

    proptest! {
        #[test]
        fn the_same_requests_pass_as_with_governor(
            interval in prop_oneof![1u64..1000, 1u64..3_000_000],
            burst in 1u32..20,
            steps in steps(),
        ) {
            let clock = FakeRelativeClock::default();
            let quota = Quota::with_period(Duration::from_nanos(interval)).unwrap();
            let quota = quota.allow_burst(NonZeroU32::new(burst).unwrap());
            let oracle = RateLimiter::direct_with_clock(quota, clock.clone());
            let limit = Limit::new(1, Duration::from_nanos(interval), burst.into()).unwrap();
            let bucket = Bucket::default();
            let mut now = Duration::ZERO;
            for (wait, cost) in steps {
                now += Duration::from_nanos(wait);
                clock.advance(Duration::from_nanos(wait));
                let ours = bucket.take(&limit, cost.into(), now).verdict;
                match oracle.check_n(NonZeroU32::new(cost).unwrap()) {
                    Ok(Ok(())) => prop_assert_eq!(ours, Verdict::Allowed),
                    Ok(Err(not_until)) => {
                        let wait = not_until.wait_time_from(governor::clock::Clock::now(&clock));
                        prop_assert_eq!(ours, Verdict::RetryAfter(wait));
                    }
                    Err(_) => prop_assert_eq!(ours, Verdict::CostAboveBurst),
                }
            }
        }

        #[test]
        fn a_refused_cost_passes_at_the_time_it_was_given_and_not_a_nanosecond_before(
            rate in 1u64..10_000,
            burst in 1u64..50,
            steps in steps(),
        ) {
            let limit = Limit::new(rate, Duration::from_secs(1), burst).unwrap();
            let bucket = Bucket::default();
            let mut now = Duration::ZERO;
            for (wait, cost) in steps {
                now += Duration::from_nanos(wait);
                let cost = u64::from(cost);
                if let Verdict::RetryAfter(wait) = bucket.take(&limit, cost, now).verdict {
                    prop_assert!(bucket.peek(&limit, cost, now + wait).is_allowed());
                    let just_before = (now + wait).saturating_sub(Duration::from_nanos(1));
                    prop_assert!(!bucket.peek(&limit, cost, just_before).is_allowed());
                }
            }
        }

        #[test]
        fn what_remains_is_what_passes(rate in 1u64..10_000, burst in 1u64..50, steps in steps()) {
            let limit = Limit::new(rate, Duration::from_secs(1), burst).unwrap();
            let bucket = Bucket::default();
            let mut now = Duration::ZERO;
            for (wait, cost) in steps {
                now += Duration::from_nanos(wait);
                let decision = bucket.take(&limit, cost.into(), now);
                prop_assert!(bucket.peek(&limit, decision.remaining, now).is_allowed());
                prop_assert!(!bucket.peek(&limit, decision.remaining + 1, now).is_allowed());
                prop_assert_eq!(bucket.peek(&limit, 1, now + decision.full_after).remaining, burst);
            }
        }

        #[test]
        fn in_any_order_of_times_no_more_passes_than_burst_and_rate(
            rate in 1u64..10_000_000,
            burst in 1u64..50,
            calls in prop::collection::vec((0u64..3_000_000, 1u64..6), 1..300),
        ) {
            let limit = Limit::new(rate, Duration::from_secs(1), burst).unwrap();
            let bucket = Bucket::default();
            let (mut admitted, mut latest) = (0, 0);
            for (now, cost) in calls {
                latest = latest.max(now);
                if bucket.take(&limit, cost, Duration::from_nanos(now)).is_allowed() {
                    admitted += u128::from(cost);
                }
                let allowed = u128::from(burst) + u128::from(rate) * u128::from(latest) / 1_000_000_000;
                prop_assert!(admitted <= allowed, "{} of {}", admitted, allowed);
            }
        }
    }
}
