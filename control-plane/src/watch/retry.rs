//! How long to wait before a broken watch is tried again: half a second, doubling to ten seconds, with jitter.

use std::time::Duration;

use kube::runtime::utils::Backoff;
use tokio::time::Instant;

const FIRST: Duration = Duration::from_millis(500);
const MOST: Duration = Duration::from_secs(10);
/// A watch that has lived this long begins again with [`FIRST`].
const CALM: Duration = Duration::from_secs(30);

/// The waits between attempts.
#[derive(Debug, Default)]
pub(crate) struct Retry {
    attempt: u32,
    last: Option<Instant>,
}

impl Iterator for Retry {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let now = Instant::now();
        if self.last.is_some_and(|last| now.duration_since(last) > MOST + CALM) {
            self.attempt = 0;
        }
        self.last = Some(now);
        let wait = FIRST.saturating_mul(1 << self.attempt.min(10)).min(MOST);
        self.attempt += 1;
        Some(wait.mul_f64(rand::random_range(0.75..=1.0)))
    }
}

impl Backoff for Retry {
    /// Does nothing: an event is no proof of health (a list that fails begins with one). Time is; see [`CALM`].
    fn reset(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waits_grow_to_a_limit_and_start_anew_after_a_calm_time() {
        let mut retry = Retry::default();
        let first = retry.next().unwrap();
        assert!(first <= FIRST);
        for _ in 0..20 {
            assert!(retry.next().unwrap() <= MOST);
        }
        assert!(retry.next().unwrap() > MOST / 2);
        tokio::time::advance(MOST + CALM + FIRST).await;
        assert!(retry.next().unwrap() <= FIRST);
    }
}
