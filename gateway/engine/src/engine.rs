//! The engine as a binary sees it: start it, give it deltas of configuration, drain it.

use std::{collections::BTreeMap, num::NonZeroUsize, sync::Arc, time::Duration};

use control_plane_model::{BackendKey, Delta, ListenerKey, ListenerProtocol, ResourceKey, RouteKey, Tracing};
use kit_process::{
    drain::{self, Drain, DrainTrigger},
    error::chain,
};
use rand::{SeedableRng as _, rngs::SmallRng};
use rustls::crypto::CryptoProvider;
use tokio::sync::{Mutex, mpsc};

use crate::{
    compile::{Compiler, Config, Refused},
    filter::FilterSet,
    limits::Limits,
    router::Bind,
    sockets::{BindError, Sockets},
    telemetry::Telemetry,
    upstream::{BackendWatch, BreakerCommand},
    worker::{self, Command, Shared},
};

/// How often a drain looks whether connections are left.
const DRAIN_POLL: Duration = Duration::from_millis(20);

/// How an engine is set up.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Workers, each with a thread of its own; one a core is best.
    pub workers: NonZeroUsize,
    /// Limits against clients and backends.
    pub limits: Limits,
    /// Ports to open in place of those that listeners name.
    pub port_map: BTreeMap<u16, u16>,
    /// Where TLS takes its algorithms from.
    pub crypto: Arc<CryptoProvider>,
}

/// An engine that cannot start.
#[derive(Debug, thiserror::Error)]
#[error("start the workers")]
pub struct StartError(#[source] std::io::Error);

/// A breaker that cannot be forced.
#[derive(Debug, thiserror::Error)]
pub enum NoBreaker {
    /// The configuration has no such backend.
    #[error("there is no backend {0}")]
    NoBackend(BackendKey),
    /// The backend has no breaker.
    #[error("backend {0} has no circuit breaker")]
    NoPolicy(BackendKey),
}

/// A running proxy. Serves nothing until the first [`Self::apply`].
pub struct Engine<F: FilterSet> {
    shared: Arc<Shared<F>>,
    state: Arc<F::State>,
    control: Mutex<Control<F>>,
    drain: DrainTrigger,
}

/// What only one task at a time may change.
struct Control<F: FilterSet> {
    compiler: Compiler<F>,
    sockets: Sockets,
    workers: Vec<mpsc::Sender<Command>>,
}

impl<F: FilterSet> Engine<F> {
    /// Starts the workers.
    ///
    /// # Errors: [`StartError`] when threads or runtimes cannot be made.
    pub fn start(options: EngineOptions, telemetry: Telemetry) -> Result<Self, StartError> {
        let state = Arc::<F::State>::default();
        let (trigger, drain) = drain::channel();
        let count = options.workers.get();
        let limits = Arc::new(options.limits);
        let compiler = Compiler::new(count, limits.clone(), telemetry.metrics.clone(), options.crypto, state.clone());
        let shared = Arc::new(Shared::new(Config::default(), limits, telemetry, drain, count));
        let workers = worker::start(&shared).map_err(StartError)?;
        let control = Control { compiler, sockets: Sockets::new(options.port_map), workers };
        Ok(Self { shared, state, control: Mutex::new(control), drain: trigger })
    }

    /// Applies a change of configuration: whole, minus the objects that are refused, whose old form stays in force.
    /// In force when this returns; requests under way keep what they began with.
    ///
    /// A listener whose port cannot be opened is refused as well; the port is tried again at every call.
    pub async fn apply(&self, delta: Delta) -> Vec<Refused> {
        let mut control = self.control.lock().await;
        let Control { compiler, sockets, workers } = &mut *control;
        let (config, mut refused) = compiler.apply(&delta);
        let config = Arc::new(config);
        // Published before sockets open and before they close: no connection meets a port that nothing is known of.
        self.shared.config.store(config.clone());
        if self.shared.drain.is_signaled() {
            // Its ports are closed for good; what is under way may still learn of new endpoints.
            return refused;
        }
        let failed = sockets.reconcile(config.binds(), workers).await;
        for (bind, error) in failed {
            let listeners = config.listeners_of(bind).map(|listener| listener.key.clone());
            refused.extend(listeners.map(|listener| unopened(listener, &error)));
        }
        for object in &refused {
            // The caller knows better what to tell people, and whether it is new.
            tracing::debug!(object = %object.key, error = %object.error, "configuration object refused");
        }
        refused
    }

    /// The configuration in force, for people: what listens where, and every object without secrets.
    pub async fn dump(&self) -> serde_json::Value {
        let control = self.control.lock().await;
        let snapshot = &control.compiler.snapshot;
        let listeners: Vec<_> = snapshot
            .listeners
            .values()
            .map(|listener| {
                serde_json::json!({
                    "listener": listener.key.to_string(),
                    "port": listener.port,
                    "opened": control.sockets.mapped(listener.port.get()),
                    "is_open": Bind::of(listener).all(|bind| control.sockets.is_open(bind)),
                    "hostname": listener.hostname.to_string(),
                    "protocol": match listener.protocol {
                        ListenerProtocol::Http => "HTTP",
                        ListenerProtocol::Https(_) => "HTTPS",
                    },
                })
            })
            .collect();
        serde_json::json!({ "listeners": listeners, "objects": control_plane_dump::objects(snapshot) })
    }

    /// What acts on a route that is in force, without secrets.
    pub async fn explain(&self, route: &RouteKey) -> Option<serde_json::Value> {
        control_plane_dump::explain(&self.control.lock().await.compiler.snapshot, route)
    }

    /// Listeners in force whose port could not be opened.
    pub async fn unopened(&self) -> Vec<ListenerKey> {
        let control = self.control.lock().await;
        let listeners = control.compiler.snapshot.listeners.values();
        let closed = listeners.filter(|listener| !Bind::of(listener).all(|bind| control.sockets.is_open(bind)));
        closed.map(|listener| listener.key.clone()).collect()
    }

    /// Where traces go, by the Gateway whose settings are in force.
    pub async fn tracing(&self) -> Option<Tracing> {
        self.control.lock().await.compiler.settings()?.tracing.clone()
    }

    /// Asks endpoints whether they are well, and judges their rates, as the policies of their backends say. Runs until `drain`;
    /// once for the process, on a runtime of its own.
    ///
    /// Cancel-safe: dropping the future ends every check.
    pub async fn watch_backends(&self, drain: Drain) {
        let mut watch = BackendWatch::new(SmallRng::from_rng(&mut rand::rng()));
        watch.run(|| self.shared.config.load().backends().cloned().collect(), &drain).await;
    }

    /// The backends that have a policy, with its state, for people.
    pub fn backends(&self) -> serde_json::Value {
        let config = self.shared.config.load();
        let views = config.backends().filter_map(|slot| Some((slot.label.to_string(), slot.view()?)));
        views.collect::<serde_json::Map<_, _>>().into()
    }

    /// Puts a backend's circuit breaker in the state that an operator asks for.
    ///
    /// # Errors: there is no such backend, or it has no breaker.
    pub fn force_breaker(&self, key: &BackendKey, command: BreakerCommand) -> Result<(), NoBreaker> {
        let config = self.shared.config.load();
        let slot = config.backend(key).ok_or_else(|| NoBreaker::NoBackend(key.clone()))?;
        if !slot.force_breaker(command) {
            return Err(NoBreaker::NoPolicy(key.clone()));
        }
        tracing::warn!(backend = %key, ?command, "circuit breaker set by an operator");
        Ok(())
    }

    /// What the filters share.
    pub fn state(&self) -> &Arc<F::State> {
        &self.state
    }

    /// Client connections that are open.
    pub fn connections(&self) -> usize {
        self.shared.connections()
    }

    /// Ends gracefully: closes the ports, lets requests under way finish and tells clients to go elsewhere (GOAWAY,
    /// `connection: close`). Returns once every connection has ended, or after `limit`; tells whether they all have.
    pub async fn drain(&self, limit: Duration) -> bool {
        let mut control = self.control.lock().await;
        control.sockets.close_all();
        self.drain.start();
        drop(control);
        let all_ended = async {
            while self.connections() > 0 {
                tokio::time::sleep(DRAIN_POLL).await;
            }
        };
        tokio::time::timeout(limit, all_ended).await.is_ok()
    }
}

fn unopened(listener: ListenerKey, error: &BindError) -> Refused {
    Refused { key: ResourceKey::Listener(listener), error: chain(error) }
}
