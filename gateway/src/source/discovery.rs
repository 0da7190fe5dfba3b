//! Cluster mode: serves what the control plane sends, and goes on with it while the control plane is away.

use std::{collections::BTreeMap, time::Duration};

use control_plane_files::Problem;
use control_plane_model::{Delta, ResourceKey};
use control_plane_wire::{ClientOptions, Connection, DeltaSink, Refused};
use kit_process::{drain::Drain, telemetry::Readiness};
use parking_lot::Mutex;
use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};

use crate::{config::Discovery, engine::Proxy, problems::Problems};

/// What readiness waits for in cluster mode.
pub const SYNC: &str = "discovery";

/// How often a port that could not be opened is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// The stream to the control plane, counted.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    connected: Gauge,
    losses: Counter,
}

impl Metrics {
    /// Makes the metrics and registers them.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let registry = registry.sub_registry_with_prefix("discovery");
        registry.register("connected", "1 while the control plane answers", metrics.connected.clone());
        registry.register("connection_losses", "Streams lost and attempts that failed", metrics.losses.clone());
        metrics
    }
}

/// Takes what comes from the control plane.
pub struct Sink {
    /// What is changed.
    pub proxy: Proxy,
    /// Waits for [`SYNC`].
    pub readiness: Readiness,
    /// Where the lost connection is told.
    pub problems: Problems,
    /// What is counted.
    pub metrics: Metrics,
    /// What is refused by the last answer, so that the same is logged once.
    pub refused: Mutex<BTreeMap<ResourceKey, String>>,
}

impl DeltaSink for Sink {
    async fn apply(&self, delta: Delta) -> Vec<Refused> {
        let refused = self.proxy.apply(delta).await;
        let now = refused.iter().map(|object| (object.key.clone(), object.error.clone())).collect();
        let before = std::mem::replace(&mut *self.refused.lock(), now);
        for object in refused.iter().filter(|object| before.get(&object.key) != Some(&object.error)) {
            tracing::warn!(object = %object.key, error = %object.error, "configuration object refused");
        }
        refused.into_iter().map(|refused| Refused { key: refused.key, error: refused.error }).collect()
    }

    async fn retry(&self) {
        let is_listener = |key: &ResourceKey| matches!(key, ResourceKey::Listener(_));
        if !self.refused.lock().keys().any(is_listener) {
            return std::future::pending().await;
        }
        loop {
            tokio::time::sleep(RETRY).await;
            if !self.proxy.unopened().await.is_empty() {
                return;
            }
        }
    }

    fn synced(&self) {
        self.readiness.done(SYNC);
    }

    fn connection(&self, state: Connection) {
        let problem = match state {
            Connection::Connected => {
                self.metrics.connected.set(1);
                None
            }
            Connection::Lost { error } => {
                self.metrics.connected.set(0);
                self.metrics.losses.inc();
                Some(Problem { message: format!("control plane is away: {error}"), ..Problem::default() })
            }
        };
        // The client logs it.
        self.problems.replace(problem);
    }
}

/// Follows the control plane until `drain`; `proxy` is this process's name in its logs.
pub async fn run(discovery: Discovery, proxy: String, sink: Sink, drain: Drain) {
    let options = ClientOptions {
        endpoint: discovery.endpoint,
        ca_file: Some(discovery.ca_file),
        token_file: discovery.token_file,
        gateway: discovery.gateway,
        proxy,
    };
    control_plane_wire::client::run(options, sink, drain).await;
}
