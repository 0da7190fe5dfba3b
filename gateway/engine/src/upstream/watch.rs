//! What is done for backends once in a process, beside their requests: health checks, and the intervals of outlier detection.
//!
//! Invariants: one check of an endpoint at a time, no more than [`MAX_CHECKS`] at all; those that are due wait. What is
//! known of an endpoint goes with the endpoint, or with the settings of its checks.

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};

use control_plane_model::{BackendKey, HealthCheck};
use futures::{StreamExt as _, stream::FuturesUnordered};
use kit_process::drain::Drain;
use policy_resilience::{Check, Health, HealthSpec, HealthState, OutlierDetector};
use rand::{Rng as _, rngs::SmallRng};
use tokio::time::Instant;

use super::{
    BackendSlot, Endpoint, Resilience,
    probe::{self, NotHealthy},
};

/// Checks at once.
const MAX_CHECKS: usize = 256;
/// Between two looks at what is due, at least.
const LEAST_PAUSE: Duration = Duration::from_millis(20);
/// The same at most, so that what the configuration brings is seen.
const MOST_PAUSE: Duration = Duration::from_millis(250);

/// The state of all checks and intervals.
pub(crate) struct BackendWatch {
    rng: SmallRng,
    endpoints: HashMap<(BackendKey, SocketAddr), Watched>,
    intervals: HashMap<BackendKey, Interval>,
    /// The number of this look at the configuration; what was not seen in it is forgotten.
    round: u64,
}

struct Watched {
    check: HealthCheck,
    spec: HealthSpec,
    state: HealthState,
    is_asked: bool,
    /// The round in which it came: an answer to an older one's check says nothing.
    since: u64,
    seen: u64,
}

struct Interval {
    detector: Arc<OutlierDetector>,
    ends: Duration,
    seen: u64,
}

/// A check that has ended.
struct Asked {
    slot: Arc<BackendSlot>,
    endpoint: Arc<Endpoint>,
    since: u64,
    result: Result<(), NotHealthy>,
}

impl BackendWatch {
    pub(crate) fn new(rng: SmallRng) -> Self {
        Self { rng, endpoints: HashMap::new(), intervals: HashMap::new(), round: 0 }
    }

    /// Runs until `drain`. `backends` are those of the moment.
    pub(crate) async fn run(&mut self, backends: impl Fn() -> Vec<Arc<BackendSlot>>, drain: &Drain) {
        let mut asking = FuturesUnordered::new();
        loop {
            let now = Instant::now();
            let (due, next) = self.look(&backends(), now, MAX_CHECKS - asking.len().min(MAX_CHECKS));
            asking.extend(due.into_iter().map(ask));
            let mut pause = std::pin::pin!(tokio::time::sleep(next.clamp(LEAST_PAUSE, MOST_PAUSE)));
            loop {
                tokio::select! {
                    biased;
                    () = drain.signaled() => return,
                    Some(asked) = asking.next(), if !asking.is_empty() => self.answered(asked),
                    () = pause.as_mut() => break,
                }
            }
        }
    }

    /// Ends the intervals that are over. Returns up to `room` checks that are due, and how long until there is more to do.
    fn look(&mut self, backends: &[Arc<BackendSlot>], now: Instant, room: usize) -> (Vec<Due>, Duration) {
        self.round += 1;
        let mut due = Vec::new();
        let mut next = MOST_PAUSE;
        for slot in backends {
            let Ok(Some(policy)) = slot.policy() else { continue };
            let time = policy.time(now);
            if let Some(detector) = policy.outliers() {
                next = next.min(self.end_interval(slot, &policy, detector, now));
            }
            let (Some(check), Some(spec)) = (&policy.settings.health_check, policy.health()) else { continue };
            for endpoint in slot.endpoints() {
                let watched = self.watched(slot, &endpoint, check, spec, time);
                let wait = watched.state.next_check().saturating_sub(time);
                if watched.is_asked || !wait.is_zero() {
                    next = next.min(wait.max(LEAST_PAUSE));
                } else if due.len() < room {
                    watched.is_asked = true;
                    due.push(Due { slot: slot.clone(), endpoint, check: check.clone(), since: watched.since });
                }
            }
        }
        let round = self.round;
        self.endpoints.retain(|_, watched| watched.seen == round);
        self.intervals.retain(|_, interval| interval.seen == round);
        (due, next)
    }

    fn watched(
        &mut self,
        slot: &BackendSlot,
        endpoint: &Endpoint,
        check: &HealthCheck,
        spec: &HealthSpec,
        time: Duration,
    ) -> &mut Watched {
        let (round, random) = (self.round, self.rng.next_u32());
        let new = || Watched {
            check: check.clone(),
            spec: *spec,
            state: HealthState::new(spec, time, random),
            is_asked: false,
            since: round,
            seen: round,
        };
        let watched = self.endpoints.entry((slot.key.clone(), endpoint.address)).or_insert_with(new);
        if watched.check != *check {
            *watched = new();
        }
        watched.seen = round;
        watched
    }

    /// Judges the rates of a backend's endpoints if its interval is over; returns the time until the next one is.
    fn end_interval(
        &mut self,
        slot: &BackendSlot,
        policy: &Resilience,
        detector: &Arc<OutlierDetector>,
        now: Instant,
    ) -> Duration {
        let (time, length, round) = (policy.time(now), detector.spec().interval(), self.round);
        let new = || Interval { detector: detector.clone(), ends: time.saturating_add(length), seen: round };
        let interval = self.intervals.entry(slot.key.clone()).or_insert_with(new);
        if !Arc::ptr_eq(&interval.detector, detector) {
            *interval = new();
        }
        interval.seen = round;
        if interval.ends <= time {
            interval.ends = time.saturating_add(length);
            slot.sweep(policy, now, &mut self.rng);
        }
        interval.ends.saturating_sub(time)
    }

    /// Takes in the result of a check.
    fn answered(&mut self, asked: Asked) {
        let Asked { slot, endpoint, since, result } = asked;
        let Ok(Some(policy)) = slot.policy() else { return };
        let Some(watched) = self.endpoints.get_mut(&(slot.key.clone(), endpoint.address)) else { return };
        if watched.since != since {
            return;
        }
        watched.is_asked = false;
        let (check, time) = match &result {
            Ok(()) => (Check::Passed, policy.time(Instant::now())),
            Err(_) => (Check::Failed, policy.time(Instant::now())),
        };
        let changed = watched.state.observe(&watched.spec, check, time, self.rng.next_u32());
        let (backend, address) = (&slot.key, endpoint.address);
        match changed {
            Some(Health::Healthy) => tracing::info!(%backend, endpoint = %address, "endpoint is healthy again"),
            Some(Health::Unhealthy) => {
                let error = result.err().map(|error| error.to_string()).unwrap_or_default();
                tracing::warn!(%backend, endpoint = %address, error, "endpoint is unhealthy");
            }
            None => return,
        }
        slot.set_health(&endpoint, changed == Some(Health::Unhealthy));
    }
}

/// A check that is due.
struct Due {
    slot: Arc<BackendSlot>,
    endpoint: Arc<Endpoint>,
    check: HealthCheck,
    since: u64,
}

async fn ask(due: Due) -> Asked {
    let Due { slot, endpoint, check, since } = due;
    let result = probe::ask(endpoint.address, &check).await;
    Asked { slot, endpoint, since, result }
}
