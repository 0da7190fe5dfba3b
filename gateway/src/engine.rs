//! The proxy engine with the gateway's filters, and what it tells the world with.

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use control_plane_model::{BackendKey, Delta, ListenerKey, RouteKey};
use gateway_engine::{
    BreakerCommand, EngineOptions, NoBreaker, Refused,
    limits::Limits,
    telemetry::{AccessLog, ConfigOutcome, DEFAULT_CAPACITY, Metrics, Telemetry, Tracing},
};
use gateway_filters::Filters;
use kit_process::{
    clock::{Clock as _, SystemClock},
    drain::Drain,
    tasks::Tasks,
};
use prometheus_client::registry::Registry;

use crate::config::{Settings, Source};

type Engine = gateway_engine::Engine<Filters>;

/// How long the last lines of the access log and the last spans may take to leave the process.
const FLUSH_LIMIT: Duration = Duration::from_secs(2);

/// Why the engine does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The access log.
    #[error("access log does not start")]
    AccessLog(#[from] gateway_engine::telemetry::StartError),
    /// The workers.
    #[error("engine does not start")]
    Engine(#[from] gateway_engine::StartError),
}

/// The running engine with its outputs. Clones share it.
#[derive(Clone)]
pub struct Proxy {
    engine: Arc<Engine>,
    metrics: Arc<Metrics>,
    access_log: AccessLog,
    tracing: Arc<Tracing>,
}

impl Proxy {
    /// Starts the engine; its metrics go to `registry`, its access log to standard output.
    pub(crate) fn start(settings: &Settings, registry: &mut Registry, tasks: &Tasks) -> Result<Self, StartError> {
        let metrics = Metrics::register(registry);
        let gateway = match &settings.source {
            Source::Discovery(discovery) => discovery.gateway.to_string(),
            Source::Files(_) => String::new(),
        };
        let access_log = AccessLog::start(Box::new(std::io::stdout()), DEFAULT_CAPACITY, metrics.access_log())?;
        let tracing = Tracing::start(tasks, "nebula-gateway", gateway, metrics.traces());
        let telemetry = Telemetry::new(metrics.clone(), access_log.clone(), tracing.clone(), &SystemClock);
        let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let options = EngineOptions {
            workers: settings.workers.unwrap_or(cores),
            limits: Limits::default(),
            port_map: settings.port_map.iter().map(|(listener, bound)| (listener.get(), bound.get())).collect(),
            crypto: Arc::new(rustls::crypto::aws_lc_rs::default_provider()),
        };
        Ok(Self { engine: Arc::new(Engine::start(options, telemetry)?), metrics, access_log, tracing })
    }

    /// Applies a change of configuration whole, minus the objects that are refused, whose old form stays in force.
    /// A listener whose port cannot be opened is refused; its port is tried again at every call.
    pub async fn apply(&self, delta: Delta) -> Vec<Refused> {
        let refused = self.engine.apply(delta).await;
        self.tracing.reconfigure(self.engine.tracing().await.as_ref());
        let outcome = match u64::try_from(refused.len()) {
            Ok(0) => ConfigOutcome::Accepted,
            count => ConfigOutcome::Partial { refused: count.unwrap_or(u64::MAX) },
        };
        self.metrics.config_applied(outcome, SystemClock.now());
        refused
    }

    /// Listeners whose port could not be opened.
    pub async fn unopened(&self) -> Vec<ListenerKey> {
        self.engine.unopened().await
    }

    /// The configuration in force, without secrets.
    pub async fn dump(&self) -> serde_json::Value {
        self.engine.dump().await
    }

    /// What acts on a route that is in force, without secrets.
    pub async fn explain(&self, route: &RouteKey) -> Option<serde_json::Value> {
        self.engine.explain(route).await
    }

    /// The backends that have a policy, with its state.
    pub fn backends(&self) -> serde_json::Value {
        self.engine.backends()
    }

    /// Puts a backend's circuit breaker in the state that an operator asks for.
    ///
    /// # Errors: there is no such backend, or it has no breaker.
    pub fn force_breaker(&self, key: &BackendKey, command: BreakerCommand) -> Result<(), NoBreaker> {
        self.engine.force_breaker(key, command)
    }

    /// Asks endpoints whether they are well and judges their rates, until `drain`.
    pub(crate) async fn watch_backends(self, drain: Drain) {
        self.engine.watch_backends(drain).await;
    }

    /// Lets requests end within `limit`, then writes out what was said about them.
    pub(crate) async fn end(&self, limit: Duration) {
        if !self.engine.drain(limit).await {
            tracing::warn!(connections = self.engine.connections(), "requests cut by the drain timeout");
        }
        self.access_log.close(FLUSH_LIMIT).await;
        self.tracing.close(FLUSH_LIMIT).await;
    }
}
