use std::collections::VecDeque;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, AtomicUsize};

use proptest::prelude::*;

use super::*;
use crate::range::OutOfRange;

const OPEN: Duration = Duration::from_secs(10);
const MAX_HALF_OPEN: Duration = Duration::from_mins(1);
const QUICK: Duration = Duration::from_millis(5);
/// No jitter.
const NONE: u32 = 0;

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn open_spec() -> OpenSpec {
    OpenSpec::new(OPEN, 1.0, OPEN, 0).unwrap()
}

/// The last ten calls, at least four, 50 %; `probes` at once and `successes` to close.
fn spec(probes: u32, successes: u32) -> BreakerSpec {
    let half_open = HalfOpenSpec::new(probes, successes, MAX_HALF_OPEN).unwrap();
    BreakerSpec::new(WindowSpec::count(10).unwrap(), 4, 50, open_spec(), half_open).unwrap()
}

fn outcome(letter: char) -> (Outcome, Duration) {
    match letter {
        '+' => (Outcome::Success, QUICK),
        '-' => (Outcome::Failure, QUICK),
        's' => (Outcome::Success, at(3)),
        'x' => (Outcome::Failure, at(3)),
        'i' => (Outcome::Ignored, at(3)),
        letter => panic!("{letter} is no outcome"),
    }
}

/// Makes calls that end as the letters say, as long as the breaker admits them. Returns how many it admitted.
fn call(breaker: &Arc<Breaker>, letters: &str, now: Duration) -> usize {
    let admitted = letters.chars().map_while(|letter| {
        let (outcome, latency) = outcome(letter);
        breaker.acquire(now, NONE).ok().map(|permit| permit.record(outcome, latency, now))
    });
    admitted.count()
}

/// Opens the breaker. From half-open state one call is enough.
fn fail(breaker: &Arc<Breaker>, now: Duration) {
    call(breaker, "----------", now);
    assert_eq!(breaker.state(), State::Open);
}

fn causes(breaker: &Breaker) -> Vec<Cause> {
    breaker.take_transitions().into_iter().map(|transition| transition.cause).collect()
}

#[test]
fn a_closed_breaker_opens_by_the_rates_of_its_window() {
    let slow = |rate| spec(1, 1).with_slow_calls(SlowCallSpec::new(at(2), rate).unwrap());
    for (spec, calls, cause) in [
        // Less than the minimum of calls: no rate.
        (spec(1, 1), "---", None),
        (spec(1, 1), "----", Some(Cause::FailureRate)),
        // Equal to the threshold is enough.
        (spec(1, 1), "++--", Some(Cause::FailureRate)),
        (spec(1, 1), "+++--", None),
        // The call that completes the minimum may be a success.
        (spec(1, 1), "--++", Some(Cause::FailureRate)),
        // Ignored calls are no calls.
        (spec(1, 1), "iiiiii--+", None),
        (spec(1, 1), "ii--+i+", Some(Cause::FailureRate)),
        // Old calls leave the window.
        (spec(1, 1), "++++++-----", Some(Cause::FailureRate)),
        (spec(1, 1), "++++++++++----", None),
        (spec(1, 1), "++++++++++-----", Some(Cause::FailureRate)),
        // Slow ones count whether they succeed or fail, and only where the spec says so.
        (spec(1, 1), "ssss", None),
        (slow(100), "ssss", Some(Cause::SlowCallRate)),
        (slow(100), "+ssss", None),
        (slow(50), "++sx", Some(Cause::SlowCallRate)),
        (slow(50), "++xx", Some(Cause::FailureRate)),
        // In a row, whatever the minimum.
        (spec(1, 1).with_consecutive_failures(2).unwrap(), "+-i-", Some(Cause::ConsecutiveFailures)),
        (spec(1, 1).with_consecutive_failures(3).unwrap(), "+++--++++--", None),
    ] {
        let breaker = Breaker::new(spec);
        assert_eq!(call(&breaker, calls, at(0)), calls.len(), "{calls}");
        assert_eq!(causes(&breaker), Vec::from_iter(cause), "{calls}");
    }
}

#[test]
fn a_call_as_long_as_the_threshold_is_not_slow() {
    let breaker = Breaker::new(spec(1, 1).with_slow_calls(SlowCallSpec::new(at(3), 1).unwrap()));
    assert_eq!(call(&breaker, "ssssss", at(0)), 6);
    assert_eq!(breaker.snapshot(at(0)).slow_calls, 0);
}

#[test]
fn a_window_over_time_forgets() {
    let window = WindowSpec::time(at(10)).unwrap();
    let half_open = HalfOpenSpec::new(1, 1, MAX_HALF_OPEN).unwrap();
    let breaker = Breaker::new(BreakerSpec::new(window, 4, 50, open_spec(), half_open).unwrap());
    call(&breaker, "---", at(0));
    call(&breaker, "-", at(10));
    assert_eq!((breaker.state(), breaker.snapshot(at(10)).calls), (State::Closed, 1));
    call(&breaker, "---", at(19));
    assert_eq!(breaker.state(), State::Open);
}

#[test]
fn an_open_breaker_refuses_until_its_wait_is_over() {
    let breaker = Breaker::new(spec(1, 1));
    fail(&breaker, at(5));
    let refused = breaker.acquire(at(12), NONE).unwrap_err();
    assert_eq!(refused, Refused { state: State::Open, retry_after: Some(at(3)) });
    assert!(breaker.acquire(at(15), NONE).unwrap().is_probe());
}

#[test]
fn good_probes_close_the_breaker_with_an_empty_window() {
    let breaker = Breaker::new(spec(1, 3));
    fail(&breaker, at(0));
    assert_eq!(call(&breaker, "+i+", at(10)), 3);
    assert_eq!(breaker.snapshot(at(10)).probe_successes, 2);
    call(&breaker, "+", at(11));
    assert_eq!(breaker.state(), State::Closed);
    assert_eq!((breaker.snapshot(at(11)).calls, breaker.snapshot(at(11)).openings), (0, 0));
    assert_eq!(causes(&breaker), [Cause::FailureRate, Cause::WaitOver, Cause::ProbesSucceeded]);
}

#[test]
fn one_bad_probe_opens_the_breaker_again() {
    let slow = SlowCallSpec::new(at(2), 100).unwrap();
    for bad in ["+-", "+s"] {
        let breaker = Breaker::new(spec(1, 3).with_slow_calls(slow));
        fail(&breaker, at(0));
        call(&breaker, bad, at(10));
        assert_eq!(causes(&breaker), [Cause::FailureRate, Cause::WaitOver, Cause::ProbeFailed]);
        assert_eq!(breaker.acquire(at(19), NONE).unwrap_err().retry_after, Some(at(1)));
    }
}

#[test]
fn half_open_admits_only_so_many_probes_at_once() {
    let breaker = Breaker::new(spec(2, 5));
    fail(&breaker, at(0));
    let first = breaker.acquire(at(10), NONE).unwrap();
    let second = breaker.acquire(at(10), NONE).unwrap();
    let refused = breaker.acquire(at(10), NONE).unwrap_err();
    assert_eq!(refused, Refused { state: State::HalfOpen, retry_after: None });
    first.record(Outcome::Success, QUICK, at(11));
    let third = breaker.acquire(at(11), NONE).unwrap();
    second.release();
    let fourth = breaker.acquire(at(11), NONE).unwrap();
    drop(third);
    fourth.record(Outcome::Ignored, QUICK, at(11));
    let snapshot = breaker.snapshot(at(11));
    assert_eq!((snapshot.probes_in_flight, snapshot.probe_successes), (0, 1));
}

#[test]
fn a_call_counts_only_in_the_state_that_admitted_it() {
    let breaker = Breaker::new(spec(1, 2));
    let from_closed: Vec<_> = (0..3).map(|_| breaker.acquire(at(0), NONE).unwrap()).collect();
    fail(&breaker, at(0));
    let probe = breaker.acquire(at(10), NONE).unwrap();
    for (permit, outcome) in from_closed.into_iter().zip([Outcome::Success, Outcome::Failure, Outcome::Ignored]) {
        permit.record(outcome, QUICK, at(11));
    }
    let snapshot = breaker.snapshot(at(11));
    assert_eq!((snapshot.state, snapshot.probes_in_flight, snapshot.probe_successes), (State::HalfOpen, 1, 0));
    assert!(breaker.acquire(at(11), NONE).is_err());
    drop(probe);
}

#[test]
fn a_probe_of_an_earlier_half_open_state_frees_no_slot_of_this_one() {
    let breaker = Breaker::new(spec(2, 1));
    fail(&breaker, at(0));
    let stale = [breaker.acquire(at(10), NONE).unwrap(), breaker.acquire(at(10), NONE).unwrap()];
    let _probe = breaker.acquire(at(10) + MAX_HALF_OPEN + OPEN, NONE).unwrap();
    for (permit, outcome) in stale.into_iter().zip([Some(Outcome::Success), None]) {
        match outcome {
            Some(outcome) => permit.record(outcome, QUICK, at(81)),
            None => drop(permit),
        }
    }
    let snapshot = breaker.snapshot(at(81));
    assert_eq!((snapshot.state, snapshot.probes_in_flight), (State::HalfOpen, 1));
}

#[test]
fn a_half_open_state_without_a_verdict_opens_when_it_is_due() {
    let breaker = Breaker::new(spec(1, 1));
    fail(&breaker, at(0));
    let stuck = breaker.acquire(at(10), NONE).unwrap();
    assert_eq!(breaker.acquire(at(69), NONE).unwrap_err().state, State::HalfOpen);
    let refused = breaker.acquire(at(74), NONE).unwrap_err();
    assert_eq!(refused, Refused { state: State::Open, retry_after: Some(at(6)) }, "open since second 70");
    stuck.record(Outcome::Success, QUICK, at(75));
    assert_eq!(breaker.state(), State::Open);
    let transitions = breaker.take_transitions();
    assert_eq!((transitions[2].cause, transitions[2].at), (Cause::ProbesTimedOut, at(70)));
}

#[test]
fn a_verdict_that_comes_after_the_longest_time_comes_too_late() {
    let breaker = Breaker::new(spec(1, 1));
    fail(&breaker, at(0));
    let probe = breaker.acquire(at(10), NONE).unwrap();
    probe.record(Outcome::Success, at(60), at(70));
    assert_eq!(breaker.state(), State::Open);
}

#[test]
fn openings_grow_to_their_maximum_and_begin_anew_after_a_recovery() {
    let half_open = HalfOpenSpec::new(1, 1, at(1000)).unwrap();
    let open = OpenSpec::new(at(10), 2.0, at(60), 0).unwrap();
    let spec = BreakerSpec::new(WindowSpec::count(1).unwrap(), 1, 100, open, half_open).unwrap();
    let breaker = Breaker::new(spec);
    let mut now = at(0);
    let mut reopen = || {
        call(&breaker, "-", now);
        let wait = breaker.snapshot(now).retry_after.unwrap();
        now += wait;
        wait
    };
    assert_eq!([reopen(), reopen(), reopen(), reopen(), reopen()], [10, 20, 40, 60, 60].map(at));
    let now = now + at(1);
    call(&breaker, "+-", now);
    assert_eq!(breaker.snapshot(now).retry_after, Some(at(10)));
}

#[test]
fn only_probes_that_hang_make_the_next_opening_longer() {
    let open = OpenSpec::new(at(10), 2.0, at(60), 0).unwrap();
    let half_open = HalfOpenSpec::new(1, 2, MAX_HALF_OPEN).unwrap();
    let breaker = || {
        let breaker = Breaker::new(BreakerSpec::new(WindowSpec::count(1).unwrap(), 1, 1, open, half_open).unwrap());
        fail(&breaker, at(0));
        breaker
    };
    let hung = breaker();
    let _probe = hung.acquire(at(10), NONE).unwrap();
    assert_eq!(hung.acquire(at(70), NONE).unwrap_err().retry_after, Some(at(20)));
    let idle = breaker();
    call(&idle, "+", at(10));
    assert_eq!(idle.acquire(at(70), NONE).unwrap_err().retry_after, Some(at(10)));
}

#[test]
fn a_failure_within_the_ramp_continues_the_growth_of_openings() {
    let open = OpenSpec::new(at(10), 2.0, at(60), 0).unwrap();
    let half_open = HalfOpenSpec::new(1, 1, MAX_HALF_OPEN).unwrap();
    let spec = BreakerSpec::new(WindowSpec::count(1).unwrap(), 1, 100, open, half_open).unwrap();
    for (failure_at, expected) in [(at(19), at(20)), (at(20), at(10))] {
        let breaker = Breaker::new(spec.clone().with_ramp(at(10)).unwrap());
        call(&breaker, "-", at(0));
        call(&breaker, "+", at(10));
        let permit = breaker.acquire(at(15), NONE).unwrap();
        permit.record(Outcome::Failure, QUICK, failure_at);
        assert_eq!(breaker.snapshot(failure_at).retry_after, Some(expected));
    }
}

#[test]
fn openings_are_shortened_by_no_more_than_the_jitter() {
    let open = OpenSpec::new(at(10), 2.0, at(60), 20).unwrap();
    assert_eq!(open.length(0, 0), at(10));
    assert_eq!(open.length(0, 1 << 31), at(9));
    assert_eq!(open.length(1_000_000, 1 << 31), at(54));
}

#[test]
fn a_ramp_admits_a_growing_share() {
    let breaker = Breaker::new(spec(1, 1).with_ramp(at(100)).unwrap());
    fail(&breaker, at(0));
    call(&breaker, "+", at(10));
    // 1000 values, evenly over all.
    let admitted = |now| (0..1000u32).filter(|part| breaker.acquire(now, part * 4_294_967).is_ok()).count();
    let shares: Vec<usize> = [10, 20, 35, 60, 109, 110].map(at).into_iter().map(admitted).collect();
    for (share, expected) in shares.iter().zip([100usize, 100, 250, 500, 990, 1000]) {
        assert!(share.abs_diff(expected) <= 1, "{shares:?}");
    }
    assert!((breaker.snapshot(at(35)).admitted_share - 1.0).abs() < f64::EPSILON, "it has ended");
}

#[test]
fn openings_within_a_ramp_use_all_of_the_jitter() {
    let open = OpenSpec::new(at(10), 1.0, at(10), 50).unwrap();
    let half_open = HalfOpenSpec::new(1, 1, MAX_HALF_OPEN).unwrap();
    let spec = BreakerSpec::new(WindowSpec::count(1).unwrap(), 1, 1, open, half_open).unwrap();
    let breaker = Breaker::new(spec.with_ramp(at(100)).unwrap());
    fail(&breaker, at(0));
    call(&breaker, "+", at(10));
    // The ramp admits the lower half of all values here. This one is in the middle of that half.
    breaker.acquire(at(60), 1 << 30).unwrap().record(Outcome::Failure, QUICK, at(60));
    assert_eq!(breaker.snapshot(at(60)).retry_after, Some(Duration::from_millis(7500)));
}

#[test]
fn who_is_refused_in_a_ramp_learns_when_it_ends() {
    let breaker = Breaker::new(spec(1, 1).with_ramp(at(100)).unwrap());
    fail(&breaker, at(0));
    call(&breaker, "+", at(10));
    let refused = breaker.acquire(at(60), u32::MAX).unwrap_err();
    assert_eq!(refused, Refused { state: State::Closed, retry_after: Some(at(50)) });
    assert!((breaker.snapshot(at(60)).admitted_share - 0.5).abs() < 1e-9);
}

#[test]
fn forced_states_hold_until_a_reset() {
    let breaker = Breaker::new(spec(1, 1));
    breaker.force(Forced::Open, at(1));
    let refused = breaker.acquire(at(1000), NONE).unwrap_err();
    assert_eq!(refused, Refused { state: State::ForcedOpen, retry_after: None });
    breaker.force(Forced::Closed, at(2));
    assert_eq!(call(&breaker, "------", at(3)), 6);
    assert_eq!((breaker.state(), breaker.snapshot(at(3)).failures), (State::ForcedClosed, 6));
    breaker.force(Forced::Disabled, at(4));
    assert_eq!(call(&breaker, "------", at(5)), 6);
    assert_eq!((breaker.state(), breaker.snapshot(at(5)).calls), (State::Disabled, 0));
    breaker.force(Forced::Disabled, at(6));
    breaker.reset(at(7));
    assert_eq!(breaker.state(), State::Closed);
    let transitions = breaker.take_transitions();
    let states: Vec<State> = transitions.iter().map(|transition| transition.to).collect();
    assert_eq!(states, [State::ForcedOpen, State::ForcedClosed, State::Disabled, State::Closed]);
    assert!(transitions.iter().map(|transition| transition.number).eq(1..=4));
}

#[test]
fn a_reset_closes_an_open_breaker_at_once() {
    let breaker = Breaker::new(spec(1, 1).with_ramp(at(100)).unwrap());
    fail(&breaker, at(0));
    breaker.reset(at(1));
    assert_eq!(call(&breaker, "+++", at(1)), 3);
    assert_eq!(breaker.snapshot(at(1)).openings, 0);
}

#[test]
fn transitions_are_given_out_once_and_the_newest_are_kept() {
    let breaker = Breaker::new(spec(1, 1));
    assert_eq!(breaker.take_transitions(), []);
    (0..40).for_each(|second| breaker.reset(at(second)));
    let numbers: Vec<u64> = breaker.take_transitions().iter().map(|transition| transition.number).collect();
    assert!(numbers.into_iter().eq(9..=40));
    assert_eq!(breaker.take_transitions(), []);
}

#[test]
fn a_thousand_threads_get_exactly_the_probes() {
    for probes in [1, 5] {
        let breaker = Breaker::new(spec(probes, 1));
        fail(&breaker, at(0));
        let start = Barrier::new(1000);
        let permits: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..1000)
                .map(|_| {
                    let attempt = || {
                        start.wait();
                        breaker.acquire(at(10), NONE)
                    };
                    std::thread::Builder::new().stack_size(64 * 1024).spawn_scoped(scope, attempt).unwrap()
                })
                .collect();
            threads.into_iter().filter_map(|thread| thread.join().unwrap().ok()).collect()
        });
        assert_eq!(permits.len(), probes as usize);
        assert_eq!(breaker.snapshot(at(10)).probes_in_flight, probes);
        drop(permits);
        assert_eq!(breaker.snapshot(at(10)).probes_in_flight, 0);
    }
}

#[test]
fn probes_that_come_and_go_never_pass_their_limit() {
    const PROBES: u32 = 3;
    let breaker = Breaker::new(spec(PROBES, 100));
    fail(&breaker, at(0));
    let (inside, most, admitted, start) = (AtomicU32::new(0), AtomicU32::new(0), AtomicUsize::new(0), Barrier::new(16));
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                start.wait();
                for round in 0..500 {
                    let Ok(permit) = breaker.acquire(at(10), NONE) else { continue };
                    most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    admitted.fetch_add(1, Ordering::SeqCst);
                    std::thread::yield_now();
                    inside.fetch_sub(1, Ordering::SeqCst);
                    if round % 2 == 0 { permit.record(Outcome::Ignored, QUICK, at(10)) } else { drop(permit) }
                }
            });
        }
    });
    assert!(most.into_inner() <= PROBES);
    assert!(admitted.into_inner() >= PROBES as usize);
    assert_eq!(breaker.snapshot(at(10)).probes_in_flight, 0);
}

#[test]
fn bad_settings_are_named() {
    let field = |result: Result<(), OutOfRange>| result.unwrap_err().field;
    assert_eq!(field(WindowSpec::count(0).map(drop)), "window.size");
    assert_eq!(field(WindowSpec::time(QUICK).map(drop)), "window.length");
    assert_eq!(field(OpenSpec::new(at(0), 1.0, at(1), 0).map(drop)), "open.duration");
    assert_eq!(field(OpenSpec::new(at(1), f64::NAN, at(1), 0).map(drop)), "open.factor");
    assert_eq!(field(OpenSpec::new(at(2), 1.0, at(1), 0).map(drop)), "open.maximum");
    assert_eq!(field(OpenSpec::new(at(1), 1.0, at(1), 51).map(drop)), "open.jitter");
    assert_eq!(field(HalfOpenSpec::new(0, 1, at(1)).map(drop)), "halfOpen.probes");
    assert_eq!(field(HalfOpenSpec::new(1, 0, at(1)).map(drop)), "halfOpen.successes");
    assert_eq!(field(HalfOpenSpec::new(1, 1, at(0)).map(drop)), "halfOpen.maxDuration");
    assert_eq!(field(SlowCallSpec::new(at(0), 1).map(drop)), "slowCall.threshold");
    assert_eq!(field(SlowCallSpec::new(at(1), 101).map(drop)), "slowCall.rate");
    assert_eq!(field(spec(1, 1).with_consecutive_failures(0).map(drop)), "consecutiveFailures");
    assert_eq!(field(spec(1, 1).with_ramp(at(3601)).map(drop)), "ramp");
    let (window, half_open) = (WindowSpec::count(10).unwrap(), HalfOpenSpec::new(1, 1, at(1)).unwrap());
    let calls = BreakerSpec::new(window, 11, 50, open_spec(), half_open);
    assert_eq!(calls.unwrap_err().to_string(), "minimumCalls must be 1 to 10");
    assert_eq!(field(BreakerSpec::new(window, 1, 0, open_spec(), half_open).map(drop)), "failureRate");
}

/// The breaker as its documentation describes it, with lists and no care for cost: ten calls, at least four, 50 %, two
/// probes at once, three successes, no ramp, no growth.
struct Model {
    state: State,
    since: u64,
    /// Number of the state; a permit belongs to the one that admitted it.
    number: usize,
    calls: Vec<bool>,
    probes: u32,
    successes: u32,
}

impl Model {
    fn new() -> Self {
        Self { state: State::Closed, since: 0, number: 0, calls: vec![], probes: 0, successes: 0 }
    }

    fn enter(&mut self, state: State, now: u64) {
        *self = Self { state, since: now, number: self.number + 1, ..Self::new() };
    }

    fn time_passes(&mut self, now: u64) {
        if self.state == State::HalfOpen && now >= self.since + 60 {
            self.enter(State::Open, self.since + 60);
        }
    }

    fn acquire(&mut self, now: u64) -> Option<usize> {
        self.time_passes(now);
        if self.state == State::Open && now >= self.since + 10 {
            self.enter(State::HalfOpen, now);
        }
        match self.state {
            State::Closed => Some(self.number),
            State::HalfOpen if self.probes < 2 => {
                self.probes += 1;
                Some(self.number)
            }
            _ => None,
        }
    }

    fn end(&mut self, number: usize, outcome: Option<Outcome>, now: u64) {
        if outcome.is_some() && number == self.number {
            self.time_passes(now);
        }
        if number != self.number {
            return;
        }
        if self.state == State::HalfOpen {
            self.probes -= 1;
        }
        match (self.state, outcome) {
            (State::Closed, Some(outcome @ (Outcome::Success | Outcome::Failure))) => {
                self.calls.push(outcome == Outcome::Failure);
                let recent = self.calls.iter().rev().take(10);
                let failures = recent.clone().filter(|failed| **failed).count();
                if recent.len() >= 4 && failures * 2 >= recent.len() {
                    self.enter(State::Open, now);
                }
            }
            (State::HalfOpen, Some(Outcome::Failure)) => self.enter(State::Open, now),
            (State::HalfOpen, Some(Outcome::Success)) => {
                self.successes += 1;
                if self.successes == 3 {
                    self.enter(State::Closed, now);
                }
            }
            _ => {}
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    Acquire,
    /// Ends the call at this place among those under way.
    End(usize, Option<Outcome>),
}

fn step() -> impl Strategy<Value = Step> {
    let ending = prop_oneof![
        3 => Just(Some(Outcome::Success)),
        3 => Just(Some(Outcome::Failure)),
        1 => Just(Some(Outcome::Ignored)),
        1 => Just(None),
    ];
    prop_oneof![
        1 => prop_oneof![0u64..4, 0u64..15, 50u64..80].prop_map(Step::Wait),
        4 => Just(Step::Acquire),
        4 => (0usize..8, ending).prop_map(|(index, ending)| Step::End(index, ending)),
    ]
}

proptest! {
    #[test]
    fn the_breaker_does_what_its_description_says(steps in prop::collection::vec(step(), 0..400)) {
        let breaker = Breaker::new(spec(2, 3));
        let mut model = Model::new();
        let mut under_way: VecDeque<(Permit, usize)> = VecDeque::new();
        let mut now = 0;
        for step in steps {
            match step {
                Step::Wait(seconds) => now += seconds,
                Step::Acquire => match (breaker.acquire(at(now), NONE), model.acquire(now)) {
                    (Ok(permit), Some(number)) => under_way.push_back((permit, number)),
                    (Err(_), None) => {}
                    (real, expected) => prop_assert!(false, "{real:?}, expected {expected:?}"),
                },
                Step::End(index, outcome) => {
                    let Some((permit, number)) = under_way.remove(index) else { continue };
                    model.end(number, outcome, now);
                    match outcome {
                        Some(outcome) => permit.record(outcome, QUICK, at(now)),
                        None => permit.release(),
                    }
                }
            }
            let snapshot = breaker.snapshot(at(now));
            prop_assert_eq!(snapshot.state, model.state);
            prop_assert_eq!(snapshot.since, at(model.since));
            prop_assert_eq!(snapshot.probes_in_flight, model.probes);
            prop_assert_eq!(snapshot.probe_successes, model.successes);
        }
    }
}

#[test]
fn a_permit_is_current_until_the_breaker_changes_its_state() {
    let breaker = Breaker::new(spec(1, 1));
    let permit = breaker.acquire(at(0), NONE).unwrap();
    call(&breaker, "++", at(0));
    assert!(permit.is_current());
    fail(&breaker, at(0));
    assert!(!permit.is_current());
    let probe = breaker.acquire(at(0) + OPEN, NONE).unwrap();
    assert!(probe.is_current());
}
