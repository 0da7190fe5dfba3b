//! A pace that several tasks keep together: so many a second, so many at once after a quiet time (GCRA, ITU-T I.371).
//! Invariant: the stored time never decreases.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// See the module.
#[derive(Debug)]
pub(crate) struct Pace {
    interval: Duration,
    burst: Duration,
    next: Mutex<Instant>,
}

impl Pace {
    /// `rate` a second, `burst` at once; both at least 1.
    pub(crate) fn new(rate: u32, burst: u32) -> Self {
        let interval = Duration::from_secs(1) / rate.max(1);
        Self { interval, burst: interval * burst.saturating_sub(1), next: Mutex::new(Instant::now()) }
    }

    /// Waits for its turn. Dropping the future gives the turn up.
    pub(crate) async fn wait(&self) {
        let turn = {
            let now = Instant::now();
            let mut next = self.next.lock();
            let mine = (*next).max(now);
            *next = mine + self.interval;
            mine
        };
        if let Some(turn) = turn.checked_sub(self.burst) {
            tokio::time::sleep_until(turn).await;
        }
    }

    /// Takes a turn if there is one now.
    pub(crate) fn try_now(&self) -> bool {
        let now = Instant::now();
        let mut next = self.next.lock();
        let mine = (*next).max(now);
        if mine.duration_since(now) > self.burst {
            return false;
        }
        *next = mine + self.interval;
        true
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
