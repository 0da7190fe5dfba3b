//! The control plane: watches the API server, translates, serves configuration to proxies, writes status, runs proxies.
//!
//! ```text
//! watches (watch, provisioner::observe, reports) -> controller [Translator] -> Hub -> proxies
//!                                                        |-> status::Board -> status writers, events   (leader)
//!                                                        '-> provisioner -> Deployments, Services      (leader)
//! ```
//! Invariants: every replica watches, translates and serves; the holder of the Lease alone writes. A loss of the API
//! server stops changes, not the serving of what is known. No globals: `main` owns process-wide settings.

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
mod watch;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use control_plane_translate::{Mode, Options, Translator};
use control_plane_wire::server::{DiscoveryService, Hub, serve};
use kit_process::{
    clock::{Clock, SystemClock},
    drain::Drain,
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
    lease::Elector,
    metrics::{Metrics, ProxyCount},
    provisioner::{Observed, Orders, Provisioner, ProxyDefaults},
    reports::Exchange,
    status::{Board, Writer},
};

/// Longest time from the drain to the end: streams close, the Lease is given back.
const DRAIN_LIMIT: Duration = Duration::from_secs(15);

/// Why the control plane does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
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
}

/// Runs one replica until the drain, then ends in order. Returns early only if it cannot start.
///
/// # Errors: [`StartError`]. Whatever goes wrong later is logged and tried again.
pub async fn run(settings: Settings, drain: Drain) -> Result<(), StartError> {
    let client = Client::try_default().await.map_err(|error| StartError::NoCluster(error.to_string()))?;
    let tasks = Tasks::new(drain.clone());
    let readiness = Readiness::new();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let hub = Hub::new();
    let mut registry = Registry::default();
    let metrics = Metrics::new(&mut registry);
    registry.register_collector(Box::new(ProxyCount(hub.clone())));

    let address = settings.discovery_address;
    let discovery = |source| StartError::Discovery { address, source };
    let listener = TcpListener::bind(address).await.map_err(discovery)?;
    telemetry::serve(settings.telemetry_address, Arc::new(registry), readiness.clone(), &tasks).await?;
    tracing::info!(%address, replica = settings.pod_name, version = env!("CARGO_PKG_VERSION"), "control plane starts");

    let provider = Arc::new(aws_lc_rs::default_provider());
    let names = settings.discovery_names();
    let authority = Arc::new(Authority::new(client.clone(), &settings.namespace, names, provider, clock.clone()));
    tasks.spawn("certificate authority", authority.clone().run(readiness.clone(), drain.clone()));

    let elector = Elector::new(client.clone(), &settings.namespace, &settings.pod_name, clock.clone());
    let leadership = elector.leadership();
    tasks.spawn("lease", elector.run(drain.clone()));

    let service_accounts = ServiceAccounts::default();
    let authenticator = TokenAuthenticator::new(client.clone(), service_accounts.clone());
    let service = DiscoveryService::new(hub.clone(), authenticator, drain.clone());
    let resolver = authority.resolver();
    let until = drain.clone();
    tasks.spawn("discovery", async move {
        if let Err(error) = serve(listener, resolver, service, until).await {
            tracing::error!(error = kit_process::error::chain(&error), "discovery port closed");
        }
    });

    let board = Arc::new(Board::default());
    let events = Events::start(client.clone(), &settings.controller_name, &settings.pod_name, metrics.clone(), &tasks);
    let writer = Writer::new(
        client.clone(),
        board.clone(),
        &settings.controller_name,
        leadership.clone(),
        events.clone(),
        metrics.clone(),
        clock,
    );
    writer.start(&tasks);

    let (sink, inputs) = mpsc::channel(controller::QUEUE);
    let observed = Arc::new(Observed::default());
    let wishes = channel::Sender::new(None);
    let defaults = ProxyDefaults { image: settings.gateway_image.clone(), discovery: settings.discovery_endpoint() };
    let orders = Orders { wishes: wishes.subscribe(), bundle: authority.bundle(), leadership: leadership.clone() };
    let provisioner = Provisioner::new(client.clone(), defaults, orders, observed.clone(), events, metrics.clone());
    tasks.spawn("provisioner", provisioner.run(drain.clone()));

    let watched = observed.watch(client.clone(), sink.clone(), metrics.watches.clone());
    let until = drain.clone();
    tasks.spawn("watch own objects", async move {
        tokio::select! {
            () = watched => {}
            () = until.signaled() => {}
        }
    });
    let Settings { namespace, pod_name, pod_uid, .. } = &settings;
    let exchange =
        Exchange::new(client.clone(), namespace, pod_name, pod_uid.clone(), sink.clone(), metrics.watches.clone());
    tasks.spawn("reports", exchange.run(hub.clone(), drain.clone()));
    let context =
        watch::Context { client, sink, board: board.clone(), metrics: metrics.watches.clone(), drain: drain.clone() };
    watch::start(&context, &tasks);

    let options = Options { mode: Mode::Cluster, controller_name: settings.controller_name.clone() };
    let outlets = Outlets { hub, board, wishes, service_accounts };
    let controller = Controller::new(Translator::new(options), outlets, leadership, metrics, readiness);
    tasks.spawn("controller", controller.run(inputs, drain.clone()));

    drain.signaled().await;
    tracing::info!("control plane ends");
    if !tasks.finished(DRAIN_LIMIT).await {
        tracing::warn!("some tasks did not end in time");
    }
    Ok(())
}
