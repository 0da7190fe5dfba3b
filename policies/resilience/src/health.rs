//! Active health checks: what a run of results makes of an endpoint, and when to ask again. The check itself is the
//! caller's.
//!
//! Source: Envoy's `HealthCheck` (`healthy_threshold`, `unhealthy_threshold`, `interval_jitter`, `initial_jitter`), and
//! its rule that one good check is enough for an endpoint that nothing is known of.
//! Invariant: one owner, who calls it once for each check.

use std::time::Duration;

use crate::range::{HOUR, MILLISECOND, OutOfRange, fraction, shortened, within};

/// What checks say of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Health {
    /// May get requests.
    Healthy,
    /// Must get none.
    Unhealthy,
}

/// The result of one check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// The answer was the expected one.
    Passed,
    /// Another answer, or none in time.
    Failed,
}

/// The settings of the checks of one backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthSpec {
    interval: Duration,
    jitter: u8,
    healthy_threshold: u32,
    unhealthy_threshold: u32,
    initial: Health,
}

impl HealthSpec {
    /// A check every `interval` (1 ms to 1 h), shortened by a random part of up to `jitter` percent (0 to 50).
    /// `healthy_threshold` good ones in a row (1 to 100) make an endpoint healthy, `unhealthy_threshold` bad ones (1 to
    /// 100) make it unhealthy. A new one is `initial`; if that is unhealthy its first check is enough when it passes.
    pub fn new(
        interval: Duration,
        jitter: u8,
        healthy_threshold: u32,
        unhealthy_threshold: u32,
        initial: Health,
    ) -> Result<Self, OutOfRange> {
        Ok(Self {
            interval: within("healthCheck.interval", interval, MILLISECOND..=HOUR)?,
            jitter: within("healthCheck.jitter", jitter, 0..=50)?,
            healthy_threshold: within("healthCheck.healthyThreshold", healthy_threshold, 1..=100)?,
            unhealthy_threshold: within("healthCheck.unhealthyThreshold", unhealthy_threshold, 1..=100)?,
            initial,
        })
    }
}

/// What is known of one endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthState {
    health: Health,
    /// Results in a row that speak against `health`.
    against: u32,
    is_checked: bool,
    next_check: Duration,
}

impl HealthState {
    /// A new endpoint. Its first check falls anywhere in one interval, so that not all are asked at once.
    pub fn new(spec: &HealthSpec, now: Duration, random: u32) -> Self {
        let next_check = now.saturating_add(spec.interval.mul_f64(fraction(random)));
        Self { health: spec.initial, against: 0, is_checked: false, next_check }
    }

    /// Takes in the result of a check that ended at `now`. Returns the new state where it changed.
    pub fn observe(&mut self, spec: &HealthSpec, check: Check, now: Duration, random: u32) -> Option<Health> {
        self.next_check = now.saturating_add(shortened(spec.interval, spec.jitter, random));
        let is_first = !std::mem::replace(&mut self.is_checked, true);
        let (other, threshold) = match (self.health, check) {
            (Health::Healthy, Check::Failed) => (Health::Unhealthy, spec.unhealthy_threshold),
            (Health::Unhealthy, Check::Passed) if is_first => (Health::Healthy, 1),
            (Health::Unhealthy, Check::Passed) => (Health::Healthy, spec.healthy_threshold),
            (Health::Healthy, Check::Passed) | (Health::Unhealthy, Check::Failed) => {
                self.against = 0;
                return None;
            }
        };
        self.against += 1;
        if self.against < threshold {
            return None;
        }
        self.against = 0;
        self.health = other;
        Some(other)
    }

    /// What the checks so far say.
    pub fn health(&self) -> Health {
        self.health
    }

    /// When to check next.
    pub fn next_check(&self) -> Duration {
        self.next_check
    }

    /// Whether a check has ended yet.
    pub fn is_checked(&self) -> bool {
        self.is_checked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(initial: Health) -> HealthSpec {
        HealthSpec::new(Duration::from_secs(10), 10, 2, 3, initial).unwrap()
    }

    /// The health after each of `checks`, where `+` is one that passed.
    fn run(initial: Health, checks: &str) -> String {
        let spec = spec(initial);
        let mut state = HealthState::new(&spec, Duration::ZERO, 0);
        let mut after = String::new();
        for check in checks.chars() {
            let before = state.health();
            let check = if check == '+' { Check::Passed } else { Check::Failed };
            let change = state.observe(&spec, check, Duration::ZERO, 0);
            assert_eq!(change.is_some(), state.health() != before);
            after.push(if state.health() == Health::Healthy { 'h' } else { 'u' });
        }
        after
    }

    #[test]
    fn thresholds_ask_for_results_in_a_row() {
        assert_eq!(run(Health::Healthy, "--+---+-++"), "hhhhhuuuuh");
    }

    #[test]
    fn the_first_check_of_an_unknown_endpoint_is_enough_when_it_passes() {
        assert_eq!(run(Health::Unhealthy, "+--"), "hhh");
        assert_eq!(run(Health::Unhealthy, "-++"), "uuh");
    }

    #[test]
    fn checks_are_spread_over_the_interval_and_then_follow_it() {
        let spec = spec(Health::Unhealthy);
        let start = Duration::from_secs(100);
        let next = |random| HealthState::new(&spec, start, random).next_check();
        assert_eq!(next(0), start);
        assert_eq!(next(1 << 31), Duration::from_secs(105));
        let mut state = HealthState::new(&spec, start, 0);
        state.observe(&spec, Check::Passed, Duration::from_secs(101), 0);
        assert_eq!(state.next_check(), Duration::from_secs(111));
        state.observe(&spec, Check::Passed, Duration::from_secs(111), 1 << 31);
        assert_eq!(state.next_check(), Duration::from_millis(120_500));
    }
}
