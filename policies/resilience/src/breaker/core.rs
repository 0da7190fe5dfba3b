//! The state machine of a breaker, for one thread at a time.
//! Invariant: `generation` grows by one with each transition, and a call counts only in the generation that admitted it.

use std::collections::VecDeque;
use std::time::Duration;

use super::spec::BreakerSpec;
use super::window::{Call, Totals, Window};
use super::{Cause, Forced, Refused, Snapshot, State, Transition};
use crate::outcome::Outcome;
use crate::range::{fraction, reaches};

/// Transitions that wait for [`Core::take_transitions`]. One that comes too late is missing from their numbers.
const KEPT_TRANSITIONS: usize = 32;
/// The share with which a ramp begins; as Envoy's slow start.
const FIRST_SHARE: f64 = 0.1;

#[derive(Debug)]
pub(super) struct Core {
    pub generation: u64,
    phase: Phase,
    since: Duration,
    window: Window,
    consecutive_failures: u32,
    /// Openings without a recovery between them.
    openings: u32,
    pub transitions: VecDeque<Transition>,
}

#[derive(Debug)]
enum Phase {
    /// `ramp_end` is `None` once all calls are admitted.
    Closed {
        ramp_end: Option<Duration>,
    },
    Open {
        until: Duration,
    },
    HalfOpen {
        in_flight: u32,
        successes: u32,
    },
    Forced(Forced),
}

/// What a permit remembers of its admission.
#[derive(Clone, Copy, Debug)]
pub(super) struct Admission {
    pub generation: u64,
    pub is_probe: bool,
    /// Still even over all values, so that the end of the call can use it for jitter.
    pub random: u32,
}

/// What can be decided without the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    Locked,
    Admit,
    AdmitUncounted,
    Refuse,
}

impl Core {
    pub fn new(spec: &BreakerSpec) -> Self {
        Self {
            generation: 0,
            phase: Phase::Closed { ramp_end: None },
            since: Duration::ZERO,
            window: Window::new(spec.window),
            consecutive_failures: 0,
            openings: 0,
            transitions: VecDeque::with_capacity(KEPT_TRANSITIONS),
        }
    }

    pub fn lane(&self) -> Lane {
        match self.phase {
            Phase::Closed { ramp_end: None } | Phase::Forced(Forced::Closed) => Lane::Admit,
            Phase::Forced(Forced::Disabled) => Lane::AdmitUncounted,
            Phase::Forced(Forced::Open) => Lane::Refuse,
            Phase::Closed { .. } | Phase::Open { .. } | Phase::HalfOpen { .. } => Lane::Locked,
        }
    }

    pub fn state(&self) -> State {
        match self.phase {
            Phase::Closed { .. } => State::Closed,
            Phase::Open { .. } => State::Open,
            Phase::HalfOpen { .. } => State::HalfOpen,
            Phase::Forced(Forced::Open) => State::ForcedOpen,
            Phase::Forced(Forced::Closed) => State::ForcedClosed,
            Phase::Forced(Forced::Disabled) => State::Disabled,
        }
    }

    pub fn acquire(&mut self, spec: &BreakerSpec, now: Duration, random: u32) -> Result<Admission, Refused> {
        self.advance(spec, now, random);
        let mut random = random;
        match &mut self.phase {
            Phase::Closed { ramp_end: None } | Phase::Forced(Forced::Closed | Forced::Disabled) => {}
            Phase::Closed { ramp_end: Some(end) } => {
                let left = end.saturating_sub(now);
                let share = share(spec.ramp, left);
                if fraction(random) >= share {
                    return Err(Refused { state: State::Closed, retry_after: Some(left) });
                }
                random = spread(random, share);
            }
            Phase::Open { until } if now < *until => {
                return Err(Refused { state: State::Open, retry_after: Some(until.saturating_sub(now)) });
            }
            Phase::Open { .. } => {
                self.enter(Phase::HalfOpen { in_flight: 1, successes: 0 }, Cause::WaitOver, now);
                return Ok(Admission { generation: self.generation, is_probe: true, random });
            }
            Phase::HalfOpen { in_flight, .. } => {
                if *in_flight >= spec.half_open.probes {
                    return Err(Refused { state: State::HalfOpen, retry_after: None });
                }
                *in_flight += 1;
                return Ok(Admission { generation: self.generation, is_probe: true, random });
            }
            Phase::Forced(Forced::Open) => return Err(Refused { state: State::ForcedOpen, retry_after: None }),
        }
        Ok(Admission { generation: self.generation, is_probe: false, random })
    }

    pub fn record(
        &mut self,
        spec: &BreakerSpec,
        admission: Admission,
        outcome: Outcome,
        latency: Duration,
        now: Duration,
    ) {
        if admission.generation != self.generation {
            return;
        }
        self.advance(spec, now, admission.random);
        if admission.generation != self.generation {
            return;
        }
        let call = Call {
            failed: outcome == Outcome::Failure,
            slow: spec.slow_calls.is_some_and(|slow| latency > slow.threshold),
        };
        match &mut self.phase {
            Phase::HalfOpen { in_flight, successes } => {
                *in_flight = in_flight.saturating_sub(1);
                if outcome == Outcome::Ignored {
                    return;
                }
                if call.failed || call.slow {
                    self.open(spec, Cause::ProbeFailed, now, admission.random);
                    return;
                }
                *successes += 1;
                if *successes >= spec.half_open.successes {
                    self.close(spec, now);
                }
            }
            Phase::Closed { .. } | Phase::Forced(Forced::Closed) if outcome != Outcome::Ignored => {
                self.consecutive_failures = if call.failed { self.consecutive_failures.saturating_add(1) } else { 0 };
                let totals = self.window.record(call, now);
                if matches!(self.phase, Phase::Closed { .. })
                    && let Some(cause) = self.reason_to_open(spec, totals)
                {
                    self.open(spec, cause, now, admission.random);
                }
            }
            Phase::Closed { .. } | Phase::Open { .. } | Phase::Forced(_) => {}
        }
    }

    /// Frees the slot of a probe that ended without an outcome.
    pub fn release(&mut self, admission: Admission) {
        if admission.generation == self.generation
            && let Phase::HalfOpen { in_flight, .. } = &mut self.phase
        {
            *in_flight = in_flight.saturating_sub(1);
        }
    }

    pub fn force(&mut self, forced: Forced, now: Duration) {
        if !matches!(self.phase, Phase::Forced(current) if current == forced) {
            self.forget();
            self.enter(Phase::Forced(forced), Cause::Forced, now);
        }
    }

    pub fn reset(&mut self, now: Duration) {
        self.forget();
        self.enter(Phase::Closed { ramp_end: None }, Cause::Reset, now);
    }

    pub fn snapshot(&mut self, spec: &BreakerSpec, now: Duration) -> Snapshot {
        let Totals { calls, failures, slow } = self.window.totals(now);
        let (probes_in_flight, probe_successes) = match self.phase {
            Phase::HalfOpen { in_flight, successes } => (in_flight, successes),
            _ => (0, 0),
        };
        Snapshot {
            state: self.state(),
            since: self.since,
            transitions: self.generation,
            calls,
            failures,
            slow_calls: slow,
            consecutive_failures: self.consecutive_failures,
            openings: self.openings,
            probes_in_flight,
            probe_successes,
            retry_after: match self.phase {
                Phase::Open { until } => Some(until.saturating_sub(now)),
                _ => None,
            },
            admitted_share: match self.phase {
                Phase::Closed { ramp_end: Some(end) } => share(spec.ramp, end.saturating_sub(now)),
                Phase::Closed { .. } | Phase::Forced(Forced::Closed | Forced::Disabled) => 1.0,
                Phase::Open { .. } | Phase::HalfOpen { .. } | Phase::Forced(Forced::Open) => 0.0,
            },
        }
    }

    /// What happens by time alone. An open breaker waits for a call, which becomes its first probe.
    fn advance(&mut self, spec: &BreakerSpec, now: Duration, random: u32) {
        match self.phase {
            Phase::Closed { ramp_end: Some(end) } if now >= end => {
                self.phase = Phase::Closed { ramp_end: None };
                self.openings = 0;
            }
            Phase::HalfOpen { in_flight, .. } => {
                let end = self.since.saturating_add(spec.half_open.max_duration);
                if now >= end {
                    // Too little traffic to judge by is not the backend's fault.
                    if in_flight == 0 {
                        self.openings = self.openings.saturating_sub(1);
                    }
                    self.open(spec, Cause::ProbesTimedOut, end, random);
                }
            }
            _ => {}
        }
    }

    fn reason_to_open(&self, spec: &BreakerSpec, totals: Totals) -> Option<Cause> {
        if spec.consecutive_failures.is_some_and(|limit| self.consecutive_failures >= limit) {
            return Some(Cause::ConsecutiveFailures);
        }
        if totals.calls < spec.minimum_calls {
            return None;
        }
        if reaches(totals.failures, totals.calls, spec.failure_rate) {
            return Some(Cause::FailureRate);
        }
        let slow = spec.slow_calls.is_some_and(|slow| reaches(totals.slow, totals.calls, slow.rate));
        slow.then_some(Cause::SlowCallRate)
    }

    fn open(&mut self, spec: &BreakerSpec, cause: Cause, now: Duration, random: u32) {
        let until = now.saturating_add(spec.open.length(self.openings, random));
        self.openings = self.openings.saturating_add(1);
        self.enter(Phase::Open { until }, cause, now);
    }

    fn close(&mut self, spec: &BreakerSpec, now: Duration) {
        let ramp_end = (!spec.ramp.is_zero()).then(|| now.saturating_add(spec.ramp));
        if ramp_end.is_none() {
            self.openings = 0;
        }
        self.window.clear();
        self.consecutive_failures = 0;
        self.enter(Phase::Closed { ramp_end }, Cause::ProbesSucceeded, now);
    }

    fn forget(&mut self) {
        self.window.clear();
        self.consecutive_failures = 0;
        self.openings = 0;
    }

    fn enter(&mut self, phase: Phase, cause: Cause, now: Duration) {
        let from = self.state();
        self.generation = self.generation.wrapping_add(1);
        self.phase = phase;
        self.since = now;
        if self.transitions.len() >= KEPT_TRANSITIONS {
            self.transitions.pop_front();
        }
        self.transitions.push_back(Transition { number: self.generation, from, to: self.state(), cause, at: now });
    }
}

/// The share of calls that a ramp admits with `left` of it to go.
fn share(ramp: Duration, left: Duration) -> f64 {
    if ramp.is_zero() {
        return 1.0;
    }
    (1.0 - left.as_secs_f64() / ramp.as_secs_f64()).clamp(FIRST_SHARE, 1.0)
}

/// A value that was even over all and turned out below `share` of them, made even over all again.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a float to u32 conversion saturates")]
fn spread(random: u32, share: f64) -> u32 {
    (f64::from(random) / share) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_ramp_admits_is_spread_over_all_values() {
        assert_eq!(spread(0, 0.25), 0);
        assert_eq!(spread(1 << 29, 0.25), 1 << 31);
        assert_eq!(spread((1 << 30) - 1, 0.25), u32::MAX - 3);
    }
}
