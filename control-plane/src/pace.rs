//! A pace that several tasks keep together: so many a second, so many at once after a quiet time.
//!
//! `governor`'s limiter without a key (GCRA, ITU-T I.371), on tokio's clock, which tests can pause. Not fair: of two that
//! wait either may be first.

use std::{num::NonZeroU32, time::Duration};

use governor::{
    Quota, RateLimiter,
    clock::Clock,
    middleware::NoOpMiddleware,
    nanos::Nanos,
    state::{InMemoryState, NotKeyed},
};
use tokio::time::Instant;

/// See the module.
#[derive(Debug)]
pub(crate) struct Pace {
    limiter: RateLimiter<NotKeyed, InMemoryState, SinceStart, NoOpMiddleware<Nanos>>,
    clock: SinceStart,
}

/// Time since the pace was made.
#[derive(Clone, Debug)]
struct SinceStart(Instant);

impl Clock for SinceStart {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        self.0.elapsed().into()
    }
}

impl Pace {
    /// `rate` a second, `burst` at once; both at least 1.
    pub(crate) fn new(rate: u32, burst: u32) -> Self {
        let at_least_one = |count| NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::per_second(at_least_one(rate)).allow_burst(at_least_one(burst));
        let clock = SinceStart(Instant::now());
        Self { limiter: RateLimiter::direct_with_clock(quota, clock.clone()), clock }
    }

    /// Waits for a turn. Cancel-safe: a turn is taken when the future ends.
    pub(crate) async fn wait(&self) {
        while let Err(early) = self.limiter.check() {
            // A timer counts milliseconds: none would be no wait at all.
            tokio::time::sleep(early.wait_time_from(self.clock.now()).max(Duration::from_millis(1))).await;
        }
    }

    /// Takes a turn if there is one now.
    pub(crate) fn try_now(&self) -> bool {
        self.limiter.check().is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_passes_at_once_and_the_rest_at_the_rate() {
        let pace = Pace::new(10, 5);
        let start = Instant::now();
        for _ in 0..5 {
            pace.wait().await;
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
        assert!(!pace.try_now());
        for _ in 0..10 {
            pace.wait().await;
        }
        assert_eq!(start.elapsed().as_millis(), 1000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_that_is_there_is_taken_once() {
        let pace = Pace::new(1, 1);
        assert!(pace.try_now());
        assert!(!pace.try_now());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(pace.try_now());
    }
}
