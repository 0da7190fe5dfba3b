//! Circuit breaker: refuses calls to a backend that fails, tries it with a few probes, and lets traffic back little by
//! little.
//!
//! Source: resilience4j's `CircuitBreakerStateMachine`, M. Nygard, "Release It!". It differs in this: a failed or slow
//! probe opens the breaker at once, the number of probes is a limit on calls at the same time, and a call counts only in
//! the state that admitted it.
//!
//! Invariant: in half-open state no more than `probes` calls of that state are under way, whatever the number of threads.
//! A closed breaker admits with one atomic load; the end of a call takes one short lock.

mod core;
mod spec;
#[cfg(test)]
mod tests;
mod window;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use self::core::{Admission, Core, Lane};
pub use self::spec::{BreakerSpec, HalfOpenSpec, OpenSpec, SlowCallSpec, WindowSpec};
use crate::outcome::Outcome;

/// What a breaker does with calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Admits all, or a growing share while it ramps up.
    Closed,
    /// Refuses all until its wait is over.
    Open,
    /// Admits a few probes.
    HalfOpen,
    /// Refuses all until it is reset.
    ForcedOpen,
    /// Admits and counts all until it is reset.
    ForcedClosed,
    /// Admits all and counts none until it is reset.
    Disabled,
}

impl State {
    /// The word in metrics, logs and the admin interface.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
            Self::ForcedOpen => "forced_open",
            Self::ForcedClosed => "forced_closed",
            Self::Disabled => "disabled",
        }
    }
}

/// A state that an operator asks for. Only [`Breaker::reset`] and another force end it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forced {
    /// resilience4j: `FORCED_OPEN`.
    Open,
    /// resilience4j: `METRICS_ONLY`.
    Closed,
    /// resilience4j: `DISABLED`.
    Disabled,
}

/// Why a breaker changed its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// Too many calls of the window failed.
    FailureRate,
    /// Too many calls of the window were slow.
    SlowCallRate,
    /// Too many failures with no success between them.
    ConsecutiveFailures,
    /// The open state has lasted its time and a call came.
    WaitOver,
    /// A probe failed or was slow.
    ProbeFailed,
    /// Enough probes were good.
    ProbesSucceeded,
    /// The half-open state lasted its longest time without a verdict.
    ProbesTimedOut,
    /// An operator asked for a forced state.
    Forced,
    /// An operator asked for a fresh start.
    Reset,
}

impl Cause {
    /// The word in metrics, logs and the admin interface.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FailureRate => "failure_rate",
            Self::SlowCallRate => "slow_call_rate",
            Self::ConsecutiveFailures => "consecutive_failures",
            Self::WaitOver => "wait_over",
            Self::ProbeFailed => "probe_failed",
            Self::ProbesSucceeded => "probes_succeeded",
            Self::ProbesTimedOut => "probes_timed_out",
            Self::Forced => "forced",
            Self::Reset => "reset",
        }
    }
}

/// A change of state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// 1 for a breaker's first. A gap means that older ones were dropped before anybody took them.
    pub number: u64,
    /// The state before; equal to `to` only for a reset.
    pub from: State,
    /// The state after.
    pub to: State,
    /// What brought it about.
    pub cause: Cause,
    /// When it was due. A call sees what time alone brings about, so this may lie before that call.
    pub at: Duration,
}

/// The call must not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("breaker refuses the call in state {state:?}")]
pub struct Refused {
    /// [`State::Closed`] where the breaker still ramps up.
    pub state: State,
    /// Open: time to the next probe. Closed: time until all calls are admitted. Otherwise not known.
    pub retry_after: Option<Duration>,
}

/// What an operator sees, as of the last call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Snapshot {
    /// The state now. An open breaker whose wait is over stays open until a call comes.
    pub state: State,
    /// When this state began; the origin for a breaker without a transition.
    pub since: Duration,
    /// Changes of state so far.
    pub transitions: u64,
    /// Calls in the window. It is emptied when the breaker closes, and keeps what opened it until then.
    pub calls: u32,
    /// Of these, how many failed.
    pub failures: u32,
    /// Of these, how many were slow.
    pub slow_calls: u32,
    /// Failures since the last success.
    pub consecutive_failures: u32,
    /// Openings since the breaker was last closed and fully ramped up.
    pub openings: u32,
    /// Probes under way.
    pub probes_in_flight: u32,
    /// Probes of this half-open state that were good.
    pub probe_successes: u32,
    /// Time left of an open state.
    pub retry_after: Option<Duration>,
    /// The share of ordinary calls admitted, 0 to 1.
    pub admitted_share: f64,
}

/// The breaker of one backend or endpoint, shared by all its callers.
#[derive(Debug)]
pub struct Breaker {
    spec: BreakerSpec,
    /// `generation * 4 + lane`, written under the lock.
    published: AtomicU64,
    has_transitions: AtomicBool,
    core: Mutex<Core>,
}

impl Breaker {
    /// A closed breaker. It takes all the memory it will ever need.
    pub fn new(spec: BreakerSpec) -> Arc<Self> {
        let core = Core::new(&spec);
        let published = AtomicU64::new(published(&core));
        Arc::new(Self { spec, published, has_transitions: AtomicBool::new(false), core: Mutex::new(core) })
    }

    /// What it was made with.
    pub fn spec(&self) -> &BreakerSpec {
        &self.spec
    }

    /// Asks to make a call. `random` decides who is among the share that a ramp admits, and the jitter if the call makes
    /// the breaker open.
    ///
    /// # Errors: the state, and when to ask again where that is known.
    pub fn acquire(self: &Arc<Self>, now: Duration, random: u32) -> Result<Permit, Refused> {
        let published = self.published.load(Ordering::Acquire);
        let admission = match lane(published) {
            Lane::Admit | Lane::AdmitUncounted => {
                Admission { generation: generation(published), is_probe: false, random }
            }
            Lane::Refuse => return Err(Refused { state: State::ForcedOpen, retry_after: None }),
            Lane::Locked => {
                let mut core = self.core.lock();
                let result = core.acquire(&self.spec, now, random);
                self.publish(core);
                result?
            }
        };
        Ok(Permit { breaker: Arc::clone(self), admission })
    }

    /// The state without its details, for a metric.
    pub fn state(&self) -> State {
        self.core.lock().state()
    }

    /// The state with its details.
    pub fn snapshot(&self, now: Duration) -> Snapshot {
        self.core.lock().snapshot(&self.spec, now)
    }

    /// Holds a state until [`Breaker::reset`]. Forgets all calls so far.
    pub fn force(&self, forced: Forced, now: Duration) {
        let mut core = self.core.lock();
        core.force(forced, now);
        self.publish(core);
    }

    /// Closes with no ramp, an empty window and the first length of opening, from whatever state.
    pub fn reset(&self, now: Duration) {
        let mut core = self.core.lock();
        core.reset(now);
        self.publish(core);
    }

    /// The changes of state that nobody has taken yet, oldest first, each given to one caller once. The newest 32 are
    /// kept. Costs one atomic load where there are none, so it can follow every [`Breaker::acquire`] and
    /// [`Permit::record`]; allocates where there are some.
    pub fn take_transitions(&self) -> Vec<Transition> {
        if !self.has_transitions.load(Ordering::Acquire) {
            return Vec::new();
        }
        let mut core = self.core.lock();
        let transitions = core.transitions.drain(..).collect();
        self.publish(core);
        transitions
    }

    /// Writes only what changed, so that the callers' cache lines stay with them.
    fn publish(&self, core: MutexGuard<'_, Core>) {
        let published = published(&core);
        if self.published.load(Ordering::Relaxed) != published {
            self.published.store(published, Ordering::Release);
        }
        let has_transitions = !core.transitions.is_empty();
        if self.has_transitions.load(Ordering::Relaxed) != has_transitions {
            self.has_transitions.store(has_transitions, Ordering::Release);
        }
    }
}

/// Leave to make one call. Dropping it is [`Permit::release`], so a cancelled call gives its slot back.
#[must_use = "dropping a permit gives it back without an outcome"]
#[derive(Debug)]
pub struct Permit {
    breaker: Arc<Breaker>,
    admission: Admission,
}

impl Permit {
    /// Reports how the call ended, `latency` after it began. Does nothing where the breaker has changed its state since
    /// it admitted the call.
    pub fn record(mut self, outcome: Outcome, latency: Duration, now: Duration) {
        let published = self.breaker.published.load(Ordering::Acquire);
        if generation(published) != self.admission.generation || lane(published) == Lane::AdmitUncounted {
            return;
        }
        let mut core = self.breaker.core.lock();
        core.record(&self.breaker.spec, self.admission, outcome, latency, now);
        self.breaker.publish(core);
        // The slot is free; dropping must not free another one.
        self.admission.is_probe = false;
    }

    /// Ends the call without an outcome: it counts as nothing, and a probe's slot is free again.
    pub fn release(self) {}

    /// Whether the breaker is still in the state that admitted the call. Where it is not, it has opened or closed since: the
    /// call's outcome counts no more, and it must not be tried again on this permit. Costs one atomic load.
    pub fn is_current(&self) -> bool {
        generation(self.breaker.published.load(Ordering::Acquire)) == self.admission.generation
    }

    /// Whether the call helps decide if the breaker closes.
    pub fn is_probe(&self) -> bool {
        self.admission.is_probe
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.admission.is_probe {
            self.breaker.core.lock().release(self.admission);
        }
    }
}

fn published(core: &Core) -> u64 {
    let lane = match core.lane() {
        Lane::Locked => 0,
        Lane::Admit => 1,
        Lane::AdmitUncounted => 2,
        Lane::Refuse => 3,
    };
    core.generation << 2 | lane
}

fn lane(published: u64) -> Lane {
    match published & 3 {
        0 => Lane::Locked,
        1 => Lane::Admit,
        2 => Lane::AdmitUncounted,
        _ => Lane::Refuse,
    }
}

fn generation(published: u64) -> u64 {
    published >> 2
}
