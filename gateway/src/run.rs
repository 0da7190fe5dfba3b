//! From settings to a serving process, and from SIGTERM to its end.
//!
//! Order at start: the ports of the process, the engine, the configuration, ready. Order at the end: readiness fails,
//! the delay passes, nothing new is accepted, what runs may finish, exit.

use std::{io, sync::Arc, time::Duration};

use control_plane_model::Listener;
use kit_process::{
    drain,
    error::chain,
    tasks::Tasks,
    telemetry::{self, Readiness},
};
use prometheus_client::registry::Registry;

use crate::{
    admin,
    config::{Settings, Source},
    demo,
    engine::{self, Proxy},
    problems::Problems,
    source::{
        discovery,
        files::{FilesSource, FolderError},
    },
};

/// How long background tasks may take to end after the last request.
const TASKS_LIMIT: Duration = Duration::from_secs(2);

/// Why the gateway does not start. Each is one line that names the flag to change.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The admin port.
    #[error(transparent)]
    Admin(#[from] admin::BindError),
    /// The telemetry port.
    #[error("{source}; --telemetry-address names another one")]
    Telemetry {
        /// Which one.
        source: telemetry::BindError,
    },
    /// The engine.
    #[error(transparent)]
    Engine(#[from] engine::StartError),
    /// The demo backend.
    #[error("demo backend finds no free loopback port")]
    Demo(#[source] io::Error),
    /// The folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// A port of a listener.
    #[error("listener {listener}: {error}; --port-map {port}=PORT binds another port in its place")]
    Listener {
        /// The listener, as `namespace/gateway/name`.
        listener: String,
        /// The port that it names.
        port: u16,
        /// Why it cannot be opened.
        error: String,
    },
}

/// Serves until `terminated` resolves and the drain is over; a second termination ends the drain at once.
///
/// Metrics go to `registry`, under the prefix `gateway`. Installs nothing global.
///
/// # Errors: [`StartError`]; once it serves, nothing ends it but `terminated`.
pub async fn run(settings: Settings, mut registry: Registry, terminated: impl AsyncFn()) -> Result<(), StartError> {
    let (trigger, drain) = drain::channel();
    let tasks = Tasks::new(drain);
    // Endpoints come and go for as long as requests do, so the configuration is followed until the last one has ended.
    let (stop_sources, sources_drain) = drain::channel();
    let readiness = Readiness::new();
    readiness.pending(discovery::SYNC, "no configuration yet");
    let problems = Problems::default();

    let proxy = Proxy::start(&settings, &mut registry, &tasks)?;
    let discovery_metrics = match settings.source {
        Source::Discovery(_) => Some(discovery::Metrics::register(&mut registry)),
        Source::Files(_) => None,
    };
    // Before any background task: a task that outlives an error here would hold the process.
    admin::serve(settings.admin_address, proxy.clone(), problems.clone(), &tasks).await?;
    telemetry::serve(settings.telemetry_address, Arc::new(registry), readiness.clone(), &tasks)
        .await
        .map_err(|source| StartError::Telemetry { source })?;

    tasks.spawn("backends", proxy.clone().watch_backends(sources_drain.clone()));
    match (&settings.source, discovery_metrics) {
        (Source::Discovery(options), metrics) => {
            let metrics = metrics.unwrap_or_default();
            let sink = discovery::Sink {
                proxy: proxy.clone(),
                readiness,
                problems,
                metrics,
                refused: parking_lot::Mutex::default(),
            };
            let stream = discovery::run(options.clone(), settings.proxy.clone(), sink, sources_drain);
            tasks.spawn("discovery", stream);
        }
        (Source::Files(root), _) => {
            let demo_address = demo::serve(&tasks).await.map_err(StartError::Demo)?;
            let source = FilesSource::start(root.clone(), proxy.clone(), problems, demo_address).await?;
            // Any other refusal concerns one object, and the rest is served.
            let unopened = proxy.unopened().await;
            let taken = source.refused_listeners().find(|(listener, _)| unopened.contains(&listener.key));
            if let Some((listener, error)) = taken {
                return Err(StartError::Listener {
                    listener: listener.key.to_string(),
                    port: listener.port.get(),
                    error: error.to_owned(),
                });
            }
            greet(&settings, source.listeners());
            readiness.done(discovery::SYNC);
            tasks.spawn("files", source.run(sources_drain));
        }
    }

    terminated().await;
    tokio::select! {
        () = end(&settings, &proxy, trigger, stop_sources, &tasks) => {}
        () = terminated() => tracing::warn!("drain cut short by a second signal"),
    }
    Ok(())
}

async fn end(
    settings: &Settings,
    proxy: &Proxy,
    trigger: drain::DrainTrigger,
    stop_sources: drain::DrainTrigger,
    tasks: &Tasks,
) {
    tracing::info!(
        delay_seconds = settings.drain_delay.as_secs_f64(),
        limit_seconds = settings.drain_timeout.as_secs_f64(),
        "draining"
    );
    // Readiness fails from here on; connections still come until everyone has noticed.
    trigger.start();
    tokio::time::sleep(settings.drain_delay).await;
    proxy.end(settings.drain_timeout).await;
    stop_sources.start();
    tasks.finished(TASKS_LIMIT).await;
    tracing::info!("ended");
}

/// Says where it listens and what to try.
fn greet<'a>(settings: &Settings, listeners: impl Iterator<Item = &'a Listener>) {
    let mut first = None;
    for listener in listeners {
        let bound = settings.port_map.get(&listener.port).unwrap_or(&listener.port);
        let host = listener.addresses.first().map_or_else(
            || "127.0.0.1".to_owned(),
            |address| match address {
                std::net::IpAddr::V4(address) => address.to_string(),
                std::net::IpAddr::V6(address) => format!("[{address}]"),
            },
        );
        let scheme = match listener.protocol {
            control_plane_model::ListenerProtocol::Http => "http",
            control_plane_model::ListenerProtocol::Https(_) => "https",
        };
        tracing::info!("listener {} serves {scheme}://{host}:{bound}", listener.key);
        first.get_or_insert_with(|| format!("{scheme}://{host}:{bound}/"));
    }
    if let Some(url) = first {
        tracing::info!("try: curl -i {url}");
    } else {
        tracing::warn!("no listener: the folder holds no Gateway that can be served");
    }
    tracing::info!(
        "admin port: http://{}/  telemetry: http://{}/metrics",
        settings.admin_address,
        settings.telemetry_address
    );
}

/// Resolves at the next SIGTERM or SIGINT; at once where signals cannot be had, as the process could not be ended.
pub async fn terminated() {
    if let Err(error) = drain::termination().await {
        tracing::error!(error = %chain(&error), "no signal handlers");
    }
}
