//! Peak-sensitive moving average of an endpoint's latency (as in Finagle's and Linkerd's Peak EWMA): a slow answer
//! counts at once, a fast one only little by little, and old knowledge fades.

use std::time::Duration;

/// Time after which an observation has lost 63 % of its weight.
const DECAY: Duration = Duration::from_secs(10);
/// The estimate for an endpoint that has not answered yet, so that new ones are tried early but not all at once.
const UNKNOWN_NANOS: f64 = 1_000_000.0;

/// The estimate for one endpoint.
#[derive(Clone, Copy, Debug, Default)]
pub struct LatencyEstimate {
    /// Nanoseconds; 0 while unknown.
    average: f64,
    updated: Duration,
}

impl LatencyEstimate {
    /// Takes in one answer. `now` is any monotonic time that all calls share.
    pub fn observe(&mut self, latency: Duration, now: Duration) {
        let sample = nanos(latency);
        if sample > self.average {
            self.average = sample;
        } else {
            let keep = self.kept(now);
            self.average = self.average * keep + sample * (1.0 - keep);
        }
        self.updated = now;
    }

    /// What one more request would cost here, with `in_flight` requests under way. Only good for comparing.
    pub fn cost(&self, in_flight: u32, now: Duration) -> f64 {
        let average = if self.average == 0.0 { UNKNOWN_NANOS } else { self.average * self.kept(now) };
        (average + 1.0) * (f64::from(in_flight) + 1.0)
    }

    fn kept(&self, now: Duration) -> f64 {
        (-nanos(now.saturating_sub(self.updated)) / nanos(DECAY)).exp()
    }
}

#[expect(clippy::cast_precision_loss, reason = "a latency of 104 days would lose a nanosecond")]
fn nanos(duration: Duration) -> f64 {
    duration.as_nanos() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_slow_answer_counts_at_once_and_a_fast_one_slowly() {
        let mut estimate = LatencyEstimate::default();
        estimate.observe(Duration::from_millis(1), at(0));
        estimate.observe(Duration::from_millis(100), at(1));
        let slow = estimate.cost(0, at(1));
        estimate.observe(Duration::from_millis(1), at(1));
        assert!((estimate.cost(0, at(1)) - slow).abs() < 1.0, "no time has passed");
        estimate.observe(Duration::from_millis(1), at(4));
        assert!(estimate.cost(0, at(4)) < slow);
    }

    #[test]
    fn a_busy_endpoint_costs_more_than_an_idle_one() {
        let estimate = LatencyEstimate::default();
        assert!(estimate.cost(3, at(0)) > estimate.cost(0, at(0)));
    }

    #[test]
    fn an_endpoint_that_was_slow_long_ago_is_tried_again() {
        let mut estimate = LatencyEstimate::default();
        estimate.observe(Duration::from_secs(5), at(0));
        assert!(estimate.cost(0, at(120)) < LatencyEstimate::default().cost(0, at(120)));
    }
}
