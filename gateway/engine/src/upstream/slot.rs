//! A backend's slot: the fixed place that routes point to, while its settings and endpoints come and go.

use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use control_plane_model::{Backend, BackendKey, Endpoints};
use policy_balance::power_of_two_choices;
use rand::Rng;
use tokio::time::Instant;

use super::{Endpoint, WorkerId};
use crate::telemetry::{BackendMetrics, Metrics};

/// One backend. Exists as soon as a route or a configuration object names it.
pub(crate) struct BackendSlot {
    pub(crate) key: BackendKey,
    /// The key as the access log shows it.
    pub(crate) label: Arc<str>,
    pub(crate) metrics: Arc<BackendMetrics>,
    workers: usize,
    settings: ArcSwapOption<Backend>,
    endpoints: ArcSwap<Vec<Arc<Endpoint>>>,
}

impl BackendSlot {
    /// An empty slot, whose endpoints will keep state for `workers` workers.
    pub(crate) fn new(key: BackendKey, workers: usize, metrics: &Metrics) -> Self {
        let metrics = metrics.backend(&key);
        let label = key.to_string().into();
        Self { key, label, metrics, workers, settings: ArcSwapOption::empty(), endpoints: ArcSwap::default() }
    }

    /// Sets the backend's settings; `None` once the backend is gone.
    pub(crate) fn set(&self, settings: Option<Arc<Backend>>) {
        self.settings.store(settings);
    }

    /// The backend's settings; `None` while there is no such backend.
    pub(crate) fn settings(&self) -> Option<Arc<Backend>> {
        self.settings.load_full()
    }

    /// Replaces the endpoints; one whose address stays keeps its connections and its estimate.
    pub(crate) fn set_endpoints(&self, endpoints: Option<&Endpoints>) {
        let before = self.endpoints.load();
        let next = endpoints.map_or_else(Vec::new, |wanted| {
            wanted
                .endpoints
                .iter()
                .map(|endpoint| {
                    let same = before.iter().find(|known| known.address == endpoint.address);
                    same.cloned().unwrap_or_else(|| Arc::new(Endpoint::new(endpoint.address, self.workers)))
                })
                .collect()
        });
        self.endpoints.store(Arc::new(next));
    }

    /// Whether nothing in the configuration speaks of this backend any more.
    pub(crate) fn is_vacant(&self) -> bool {
        self.settings.load().is_none() && self.endpoints.load().is_empty()
    }

    /// The endpoint for one attempt of a request on `worker`; `None` where there are none.
    /// `avoid` is the one that failed before: it is taken only where there is no other.
    pub(crate) fn pick(
        &self,
        worker: WorkerId,
        avoid: Option<&Arc<Endpoint>>,
        rng: &mut impl Rng,
        now: Instant,
    ) -> Option<Arc<Endpoint>> {
        let endpoints = self.endpoints.load();
        let index = power_of_two_choices(endpoints.len(), rng, |index| {
            endpoints.get(index).map_or(f64::INFINITY, |endpoint| {
                let is_avoided = avoid.is_some_and(|failed| Arc::ptr_eq(failed, endpoint));
                if is_avoided { f64::INFINITY } else { endpoint.cost(worker, now) }
            })
        })?;
        endpoints.get(index).cloned()
    }

    /// Closes connections on `worker` that have been idle for too long.
    pub(crate) fn close_idle(&self, worker: WorkerId, before: Instant) {
        for endpoint in self.endpoints.load().iter() {
            endpoint.close_idle(worker, before);
        }
    }
}

impl std::fmt::Debug for BackendSlot {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("BackendSlot").field("key", &self.key).finish_non_exhaustive()
    }
}
