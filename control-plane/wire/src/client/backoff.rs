//! Pauses between attempts: doubled each time, jittered so that a fleet of proxies does not come back at one moment.

use std::time::Duration;

const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(10);

/// Pauses of 100 ms, 200 ms, … 10 s before jitter.
#[derive(Debug)]
pub(super) struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(SHORTEST)
    }
}

impl Backoff {
    /// The next pause, shortened by the factor `jitter` (0 to 1).
    pub(super) fn next(&mut self, jitter: f64) -> Duration {
        let pause = self.0.mul_f64(jitter.clamp(0.0, 1.0));
        self.0 = (self.0 * 2).min(LONGEST);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_ten_seconds() {
        let mut backoff = Backoff::default();
        let pauses: Vec<u128> = (0..9).map(|_| backoff.next(1.0).as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        assert_eq!(backoff.next(0.5).as_millis(), 5000);
    }
}
