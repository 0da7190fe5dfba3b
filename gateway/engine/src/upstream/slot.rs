//! A backend's slot: the fixed place that routes point to, while its settings, policy and endpoints come and go.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use control_plane_model::{Backend, BackendKey, BackendSettings, Endpoints, PolicyKey};
use policy_resilience::Ending;
use rand::Rng;
use tokio::time::Instant;

use super::{
    Endpoint, NoEndpoint, Resilience, WorkerId,
    pick::{Choice, EndpointSet, PickKey},
    resilience::{BreakerCommand, InvalidSpec, Owner},
};
use crate::{
    local_reply::{LocalReply, Reason},
    telemetry::{BackendMetrics, Metrics},
};

/// One backend. Exists as soon as a route or a configuration object names it.
pub(crate) struct BackendSlot {
    pub(crate) key: BackendKey,
    /// The key as the access log shows it.
    pub(crate) label: Arc<str>,
    pub(crate) metrics: Arc<BackendMetrics>,
    workers: usize,
    origin: Instant,
    settings: ArcSwapOption<Backend>,
    policy: ArcSwapOption<SlotPolicy>,
    endpoints: ArcSwap<EndpointSet>,
    /// Nanoseconds since the origin; no endpoint is ejected beyond it.
    ejected_until: AtomicU64,
    has_unhealthy: AtomicBool,
    /// Whose turn it is, for each worker.
    turns: Box<[AtomicUsize]>,
}

/// What holds for requests to a backend.
struct SlotPolicy {
    /// Why none is let through, where none is.
    closed: Option<(Reason, PolicyKey)>,
    /// Kept while the backend is closed, so that it goes on afterwards.
    resilience: Option<Arc<Resilience>>,
}

/// What the configuration says of a backend's policy.
#[derive(Clone, Debug)]
pub(crate) enum PolicyState {
    /// There is none.
    None,
    /// This one.
    Settings(Arc<BackendSettings>),
    /// There should be this one, and it cannot be honoured: requests are answered for this reason.
    Closed(Reason, PolicyKey),
}

impl BackendSlot {
    /// An empty slot, whose endpoints will keep state for `workers` workers. Its policy's times count from `origin`.
    pub(crate) fn new(key: BackendKey, workers: usize, metrics: &Metrics, origin: Instant) -> Self {
        let metrics = metrics.backend(&key);
        let label = key.to_string().into();
        Self {
            key,
            label,
            metrics,
            workers,
            origin,
            settings: ArcSwapOption::empty(),
            policy: ArcSwapOption::empty(),
            endpoints: ArcSwap::default(),
            ejected_until: AtomicU64::new(0),
            has_unhealthy: AtomicBool::new(false),
            turns: (0..workers).map(AtomicUsize::new).collect(),
        }
    }

    /// Sets the backend's settings; `None` once the backend is gone.
    pub(crate) fn set(&self, settings: Option<Arc<Backend>>) {
        self.settings.store(settings);
    }

    /// The backend's settings; `None` while there is no such backend.
    pub(crate) fn settings(&self) -> Option<Arc<Backend>> {
        self.settings.load_full()
    }

    /// Sets the backend's policy. Its parts whose spec stays equal go on: breaker, limits, budget, ejections.
    ///
    /// # Errors: a setting that cannot be honoured; the policy stays as it was.
    pub(crate) fn set_policy(&self, state: PolicyState) -> Result<(), InvalidSpec> {
        let before = self.policy.load_full();
        let before = before.as_ref().and_then(|policy| policy.resilience.as_ref());
        let owner = Owner { label: &self.label, metrics: &self.metrics, origin: self.origin };
        let next = match state {
            PolicyState::None => None,
            PolicyState::Closed(reason, policy) => {
                Some(SlotPolicy { closed: Some((reason, policy)), resilience: before.cloned() })
            }
            PolicyState::Settings(settings) => {
                let resilience = Resilience::new(&owner, settings, before.map(Arc::as_ref))?;
                Some(SlotPolicy { closed: None, resilience: Some(Arc::new(resilience)) })
            }
        };
        let now = next.as_ref().and_then(|policy| policy.resilience.as_ref());
        self.forget_what_nothing_keeps(before.map(Arc::as_ref), now.map(Arc::as_ref));
        if now.is_none() {
            self.metrics.set_breaker(None);
        }
        let balance = now.map(|resilience| &resilience.settings.balance);
        self.endpoints.rcu(|set| EndpointSet::new(set.list.clone(), balance));
        self.policy.store(next.map(Arc::new));
        Ok(())
    }

    /// Endpoints are as new to a detector or a health check that was not there before.
    fn forget_what_nothing_keeps(&self, before: Option<&Resilience>, now: Option<&Resilience>) {
        let detector = |resilience: Option<&Resilience>| resilience.and_then(Resilience::outliers).map(Arc::as_ptr);
        let check = |resilience: Option<&Resilience>| {
            resilience.and_then(|resilience| resilience.settings.health_check.clone())
        };
        let endpoints = self.endpoints.load();
        if detector(before) != detector(now) {
            endpoints.list.iter().for_each(|endpoint| endpoint.outliers.reset());
            self.ejected_until.store(0, Ordering::Relaxed);
        }
        if check(before) != check(now) {
            endpoints.list.iter().for_each(|endpoint| endpoint.set_unhealthy(false));
            self.look_for_unhealthy();
        }
    }

    /// The backend's policy, where it has one.
    ///
    /// # Errors: why it gets no requests.
    pub(crate) fn policy(&self) -> Result<Option<Arc<Resilience>>, LocalReply> {
        match &*self.policy.load() {
            None => Ok(None),
            Some(policy) => match &policy.closed {
                Some((reason, key)) => Err(LocalReply::from(*reason).by(key)),
                None => Ok(policy.resilience.clone()),
            },
        }
    }

    /// Replaces the endpoints; one whose address stays keeps its connections and what is known of it.
    pub(crate) fn set_endpoints(&self, endpoints: Option<&Endpoints>) {
        let before = self.endpoints.load();
        let next: Vec<_> = endpoints.map_or_else(Vec::new, |wanted| {
            wanted
                .endpoints
                .iter()
                .map(|endpoint| {
                    let same = before.list.iter().find(|known| known.address == endpoint.address);
                    same.cloned().unwrap_or_else(|| Arc::new(Endpoint::new(endpoint.address, self.workers)))
                })
                .collect()
        });
        let policy = self.policy.load_full();
        let resilience = policy.as_ref().and_then(|policy| policy.resilience.as_ref());
        let balance = resilience.map(|resilience| &resilience.settings.balance);
        self.endpoints.store(Arc::new(EndpointSet::new(next, balance)));
        self.look_for_unhealthy();
    }

    /// Whether nothing in the configuration speaks of this backend any more.
    pub(crate) fn is_vacant(&self) -> bool {
        self.settings.load().is_none() && self.endpoints.load().list.is_empty()
    }

    /// The endpoints.
    pub(crate) fn endpoints(&self) -> Vec<Arc<Endpoint>> {
        self.endpoints.load().list.clone()
    }

    /// The endpoint for one attempt of a request on `worker`.
    /// `avoid` is the one that failed before: it is taken only where there is no other.
    ///
    /// # Errors: why there is none.
    pub(crate) fn pick(
        &self,
        worker: WorkerId,
        avoid: Option<&Arc<Endpoint>>,
        policy: Option<(&Resilience, Option<&PickKey>)>,
        rng: &mut impl Rng,
        now: Instant,
    ) -> Result<Arc<Endpoint>, NoEndpoint> {
        let set = self.endpoints.load();
        let choice = Choice { set: &set, worker, avoid, now, turn: self.turns.get(worker.0) };
        let Some((resilience, key)) = policy else { return choice.cheapest(rng) };
        let has_unusable = self.has_unhealthy.load(Ordering::Relaxed)
            || nanos(resilience.time(now)) < self.ejected_until.load(Ordering::Relaxed);
        choice.by_policy(&resilience.settings, has_unusable.then(|| resilience.time(now)), key, rng)
    }

    /// Counts how an attempt at `endpoint` ended, for the detection of outliers.
    pub(crate) fn attempt_ended(
        &self,
        resilience: &Resilience,
        endpoint: &Endpoint,
        ending: Ending,
        now: Instant,
        random: u32,
    ) {
        let set = self.endpoints.load();
        let endpoints = || set.list.iter().map(|endpoint| &endpoint.outliers);
        if let Some(until) = resilience.attempt_ended(endpoint, ending, endpoints, now, random) {
            self.ejected_until.fetch_max(nanos(until), Ordering::Relaxed);
        }
    }

    /// Judges the rates of an interval that has ended.
    pub(crate) fn sweep(&self, resilience: &Resilience, now: Instant, rng: &mut impl Rng) {
        let Some(detector) = resilience.outliers() else { return };
        let set = self.endpoints.load();
        let outliers: Vec<_> = set.list.iter().map(|endpoint| &endpoint.outliers).collect();
        for (index, ejection) in detector.sweep(&outliers, resilience.time(now), || rng.next_u32()) {
            self.ejected_until.fetch_max(nanos(ejection.until), Ordering::Relaxed);
            if let Some(endpoint) = set.list.get(index) {
                resilience.ejected(endpoint, &ejection, now);
            }
        }
    }

    /// Notes what health checks say of an endpoint.
    pub(crate) fn set_health(&self, endpoint: &Endpoint, is_unhealthy: bool) {
        endpoint.set_unhealthy(is_unhealthy);
        self.look_for_unhealthy();
    }

    fn look_for_unhealthy(&self) {
        let unhealthy = self.endpoints.load().list.iter().filter(|endpoint| endpoint.is_unhealthy()).count();
        self.has_unhealthy.store(unhealthy > 0, Ordering::Relaxed);
        self.metrics.set_unhealthy(unhealthy);
    }

    /// Puts the breaker in the state that an operator asks for. Tells whether there is one.
    pub(crate) fn force_breaker(&self, command: BreakerCommand) -> bool {
        let policy = self.policy.load_full();
        let resilience = policy.as_ref().and_then(|policy| policy.resilience.as_ref());
        resilience.is_some_and(|resilience| resilience.force(command, Instant::now()))
    }

    /// Policy and endpoints with their state, as JSON; `None` for a backend without a policy.
    pub(crate) fn view(&self) -> Option<serde_json::Value> {
        let policy = self.policy.load_full()?;
        let now = Instant::now();
        let time = now.saturating_duration_since(self.origin);
        let endpoints: Vec<_> = self
            .endpoints()
            .iter()
            .map(|endpoint| {
                let ejected = endpoint.outliers.ejected_until(time);
                serde_json::json!({
                    "address": endpoint.address.to_string(),
                    "is_healthy": !endpoint.is_unhealthy(),
                    "ejected_for_seconds": ejected.map(|until| until.saturating_sub(time).as_secs_f64()),
                    "ejections": endpoint.outliers.ejections(),
                })
            })
            .collect();
        Some(serde_json::json!({
            "closed": policy.closed.as_ref().map(|(reason, _)| reason.word()),
            "state": policy.resilience.as_ref().map(|resilience| resilience.view(now)),
            "endpoints": endpoints,
        }))
    }

    /// Closes connections on `worker` that have been idle for too long.
    pub(crate) fn close_idle(&self, worker: WorkerId, before: Instant) {
        for endpoint in &self.endpoints.load().list {
            endpoint.close_idle(worker, before);
        }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl std::fmt::Debug for BackendSlot {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("BackendSlot").field("key", &self.key).finish_non_exhaustive()
    }
}
