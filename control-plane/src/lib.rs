//! The control plane: watches the API server, translates, serves configuration to proxies, writes status, runs proxies.
//!
//! ```text
//! watches (watch, provisioner::observe, reports) -> controller [Translator] -> Hub -> proxies
//!                                                        |-> status::Board -> status writers, events   (leader)
//!                                                        '-> provisioner -> Deployments, Services      (leader)
//! ```
//! Invariants: every replica watches, translates and serves; the holder of the Lease alone writes statuses and events and
//! runs proxies. (Each replica may write the roots' Secret, under the version that it read, and its own reports.) A loss of
//! the API server stops changes, not the serving of what is known. A task that fails ends the process in order, so that the
//! Lease is free and Kubernetes starts the replica anew. No globals: `main` owns process-wide settings.

pub mod authenticate;
pub mod ca;
pub mod config;
mod controller;
pub mod events;
mod kubernetes;
pub mod lease;
pub mod metrics;
mod pace;
pub mod provisioner;
mod reports;
pub mod status;
pub mod watch;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use control_plane_translate::{Mode, Options, Translator};
use control_plane_wire::server::{DiscoveryService, Hub, serve};
use kit_process::{
    clock::SystemClock,
    drain::{self, Drain, DrainTrigger},
    tasks::Tasks,
    telemetry::{self, Readiness},
};
use kube::Client;
use prometheus_client::registry::Registry;
use rustls::crypto::aws_lc_rs;
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch as channel},
};

use crate::{
    authenticate::{ServiceAccounts, TokenAuthenticator},
    ca::Authority,
    config::Settings,
    controller::{Controller, Outlets},
    events::Events,
    lease::{Elector, Leadership},
    metrics::{Metrics, ProxyCount},
    provisioner::{Observed, Orders, Provisioner, ProxyDefaults, names::controller_label},
    reports::Exchange,
    status::{Board, Writer},
    watch::Input,
};

/// Longest time from the drain to the end: streams close, the Lease is given back.
const DRAIN_LIMIT: Duration = Duration::from_secs(15);

/// Why the control plane does not start, or ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// There is no way to the API server. Holds the reason as one text, as the source repeats itself at each level.
    #[error("find the API server (set KUBECONFIG, or run in a pod): {0}")]
    NoCluster(String),
    /// The telemetry port does not open.
    #[error("open the telemetry port (--telemetry-address)")]
    Telemetry(#[from] telemetry::BindError),
    /// The discovery port does not open.
    #[error("open the discovery port {address} (--discovery-address)")]
    Discovery {
        /// As set.
        address: SocketAddr,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// A part of it no longer works; what it was is in the log.
    #[error("task {task:?} failed (the log says why)")]
    Failed {
        /// Its name.
        task: &'static str,
    },
}

/// Runs one replica until the drain, then ends in order. Returns early if it cannot start, and once a task has failed:
/// a replica of which a part is dead must not hold the Lease.
///
/// # Errors: [`RunError`]. What is not a fault of this process is logged and tried again.
pub async fn run(settings: Settings, drain: Drain) -> Result<(), RunError> {
    let client = kubernetes::connect().await.map_err(|error| RunError::NoCluster(error.to_string()))?;
    let hub = Hub::new();
    let mut registry = Registry::default();
    let metrics = Metrics::new(&mut registry);
    registry.register_collector(Box::new(ProxyCount(hub.clone())));
    // Of its own, as a failure drains too.
    let (trigger, inner) = drain::channel();
    let tasks = Tasks::new(inner.clone());
    let replica = Replica { settings, client, hub, tasks, readiness: Readiness::new(), metrics, drain: inner };
    let listener = replica.open_ports(registry).await?;

    let authority = replica.start_authority();
    let leadership = replica.start_election();
    let service_accounts = replica.start_discovery(listener, &authority);
    let (board, events) = replica.start_status(&leadership);
    let (sink, inputs) = mpsc::channel(controller::QUEUE);
    let wishes = channel::Sender::new(None);
    let orders = Orders { wishes: wishes.subscribe(), bundle: authority.bundle(), leadership: leadership.clone() };
    replica.start_provisioner(orders, events, &sink);
    replica.start_watches(sink, board.clone());
    let outlets = Outlets { hub: replica.hub.clone(), board, wishes, service_accounts };
    replica.start_controller(outlets, leadership, inputs);

    until_end(&replica.tasks, &trigger, &drain).await
}

/// Waits for the drain or for the first task that fails, and then for the others to end.
async fn until_end(tasks: &Tasks, trigger: &DrainTrigger, drain: &Drain) -> Result<(), RunError> {
    let ended = tokio::select! {
        () = drain.signaled() => Ok(()),
        task = tasks.failed() => Err(RunError::Failed { task }),
    };
    tracing::info!("control plane ends");
    trigger.start();
    if !tasks.finished(DRAIN_LIMIT).await {
        tracing::warn!("some tasks did not end in time");
    }
    ended
}

/// What the parts of one replica share while they are put together.
struct Replica {
    settings: Settings,
    client: Client,
    hub: Hub,
    tasks: Tasks,
    readiness: Readiness,
    metrics: Metrics,
    drain: Drain,
}

impl Replica {
    /// Opens both ports, so that one that is taken ends the process before it does anything.
    async fn open_ports(&self, registry: Registry) -> Result<TcpListener, RunError> {
        let address = self.settings.discovery_address;
        let failed = |source| RunError::Discovery { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let telemetry_address = self.settings.telemetry_address;
        telemetry::serve(telemetry_address, Arc::new(registry), self.readiness.clone(), &self.tasks).await?;
        let version = env!("CARGO_PKG_VERSION");
        tracing::info!(%address, replica = self.settings.pod_name, version, "control plane starts");
        Ok(listener)
    }

    fn start_authority(&self) -> Arc<Authority> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let names = self.settings.discovery_names();
        let client = self.client.clone();
        let authority = Authority::new(client, &self.settings.namespace, names, provider, Arc::new(SystemClock));
        let authority = Arc::new(authority);
        let running = authority.clone().run(self.readiness.clone(), self.drain.clone());
        self.tasks.spawn("certificate authority", running);
        authority
    }

    fn start_election(&self) -> Leadership {
        let Settings { namespace, pod_name, .. } = &self.settings;
        let elector = Elector::new(self.client.clone(), namespace, pod_name, Arc::new(SystemClock));
        let leadership = elector.leadership();
        self.tasks.spawn("lease", elector.run(self.drain.clone()));
        leadership
    }

    fn start_discovery(&self, listener: TcpListener, authority: &Authority) -> ServiceAccounts {
        let service_accounts = ServiceAccounts::default();
        let authenticator =
            TokenAuthenticator::new(self.client.clone(), service_accounts.clone(), Arc::new(SystemClock));
        let service = DiscoveryService::new(self.hub.clone(), authenticator, self.drain.clone());
        let serving = serve(listener, authority.resolver(), service, self.drain.clone());
        let tasks = self.tasks.clone();
        self.tasks.spawn("discovery", async move {
            if let Err(error) = serving.await {
                tracing::error!(error = kit_process::error::chain(&error), "discovery port closed");
            }
            // Until the drain it serves: whatever its reason, an early end is a failure.
            if !tasks.drain().is_signaled() {
                tasks.fail("discovery");
            }
        });
        service_accounts
    }

    fn start_status(&self, leadership: &Leadership) -> (Arc<Board>, Events) {
        let Settings { controller_name, pod_name, .. } = &self.settings;
        let events = Events::start(self.client.clone(), controller_name, pod_name, self.metrics.clone(), &self.tasks);
        let board = Arc::new(Board::default());
        let writer = Writer::new(
            self.client.clone(),
            board.clone(),
            controller_name,
            leadership.clone(),
            events.clone(),
            self.metrics.clone(),
            Arc::new(SystemClock),
        );
        writer.start(&self.tasks);
        (board, events)
    }

    fn start_provisioner(&self, orders: Orders, events: Events, sink: &mpsc::Sender<Input>) {
        let observed = Arc::new(Observed::default());
        let controller = controller_label(&self.settings.controller_name);
        let defaults = ProxyDefaults {
            image: self.settings.gateway_image.clone(),
            discovery: self.settings.discovery_endpoint(),
            controller: controller.clone(),
        };
        let outlets = provisioner::Outlets { events, metrics: self.metrics.clone(), changes: sink.clone() };
        let provisioner = Provisioner::new(self.client.clone(), defaults, orders, observed.clone(), outlets);
        self.tasks.spawn("provisioner", provisioner.run(self.drain.clone()));
        let (client, sink, metrics) = (self.client.clone(), sink.clone(), self.metrics.watches.clone());
        let watched = async move { observed.watch(client, &controller, sink, metrics).await };
        let until = self.drain.clone();
        self.tasks.spawn("watch own objects", async move {
            tokio::select! {
                () = watched => {}
                () = until.signaled() => {}
            }
        });
    }

    fn start_watches(&self, sink: mpsc::Sender<Input>, board: Arc<Board>) {
        let Settings { namespace, pod_name, pod_uid, .. } = &self.settings;
        let watches = self.metrics.watches.clone();
        let (client, uid) = (self.client.clone(), pod_uid.clone());
        let exchange = Exchange::new(client, namespace, pod_name, uid, sink.clone(), watches.clone());
        self.tasks.spawn("reports", exchange.run(self.hub.clone(), self.drain.clone()));
        let (client, drain) = (self.client.clone(), self.drain.clone());
        watch::start(&watch::Context { client, sink, board, metrics: watches, drain }, &self.tasks);
    }

    fn start_controller(&self, outlets: Outlets, leadership: Leadership, inputs: mpsc::Receiver<Input>) {
        let options = Options { mode: Mode::Cluster, controller_name: self.settings.controller_name.clone() };
        let (metrics, readiness) = (self.metrics.clone(), self.readiness.clone());
        let controller = Controller::new(Translator::new(options), outlets, leadership, metrics, readiness);
        self.tasks.spawn("controller", controller.run(inputs, self.drain.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_task_that_panics_ends_the_others_in_order_and_the_process_with_an_error() {
        let (_outer, drain) = drain::channel();
        let (trigger, inner) = drain::channel();
        let tasks = Tasks::new(inner.clone());
        let (given_back, lease) = tokio::sync::oneshot::channel();
        tasks.spawn("lease", async move {
            inner.signaled().await;
            given_back.send(()).unwrap();
        });
        tasks.spawn("controller", async { panic!("as planned") });
        let ended = tokio::time::timeout(DRAIN_LIMIT, until_end(&tasks, &trigger, &drain)).await;
        assert!(matches!(ended, Ok(Err(RunError::Failed { task: "controller" }))), "{ended:?}");
        assert!(lease.await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_is_no_error() {
        let (outer, drain) = drain::channel();
        let (trigger, inner) = drain::channel();
        let tasks = Tasks::new(inner.clone());
        tasks.spawn("lease", async move { inner.signaled().await });
        outer.start();
        assert!(until_end(&tasks, &trigger, &drain).await.is_ok());
    }
}
