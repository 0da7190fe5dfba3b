//! Standalone mode: serves the YAML files of a folder and follows their changes.
//!
//! Invariant: what is served stays served until files that are in order say otherwise; a file that is broken, empty for
//! a moment or being written changes nothing.

mod watch;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use control_plane_files::{Files, Inputs, Problem, read};
use control_plane_model::{Delta, Listener, Resource, ResourceKey};
use kit_process::drain::Drain;
use tokio::time::{Instant, sleep, timeout_at};

use self::watch::Watch;
use crate::{engine::Proxy, problems::Problems};

/// How long to wait before a file that vanished, or is empty all of a sudden, is believed to be so.
const SECOND_LOOK: Duration = Duration::from_millis(80);
/// How often a listener that could not be opened is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// The folder cannot be served at all.
#[derive(Debug, thiserror::Error)]
#[error("--config {}", root.display())]
pub struct FolderError {
    /// The folder.
    pub root: PathBuf,
    /// What the system says.
    #[source]
    pub source: io::Error,
}

/// Everything that is wrong with the files of a folder, sorted by place.
///
/// # Errors: [`FolderError`] where it cannot be listed.
pub fn check(root: &Path) -> Result<Vec<Problem>, FolderError> {
    let files = read(root).map_err(|source| FolderError { root: root.to_owned(), source })?;
    let mut inputs = Inputs::new(SocketAddr::from(([127, 0, 0, 1], 1)));
    inputs.update(files);
    let mut problems = inputs.problems();
    problems.sort();
    Ok(problems)
}

/// A folder that is being served.
pub struct FilesSource {
    root: PathBuf,
    watch: Watch,
    inputs: Inputs,
    proxy: Proxy,
    problems: Problems,
    /// What the engine refuses.
    refused: BTreeMap<ResourceKey, String>,
    /// Why the folder cannot be listed.
    folder_problem: Option<Problem>,
}

impl FilesSource {
    /// Reads `root` and brings `proxy` to it. What is wrong with single files or objects is told, not an error.
    ///
    /// # Errors: [`FolderError`] where the folder cannot be listed.
    pub async fn start(
        root: PathBuf,
        proxy: Proxy,
        problems: Problems,
        demo_address: SocketAddr,
    ) -> Result<Self, FolderError> {
        let watch = Watch::new(&root);
        let mut source = Self {
            watch,
            inputs: Inputs::new(demo_address),
            proxy,
            problems,
            refused: BTreeMap::new(),
            folder_problem: None,
            root,
        };
        let files = source.read().await.map_err(|error| FolderError { root: source.root.clone(), source: error })?;
        source.take(files).await;
        Ok(source)
    }

    /// Follows the folder until `drain`.
    pub async fn run(mut self, drain: Drain) {
        loop {
            let retry = async {
                if self.refused_listeners().next().is_some() {
                    sleep(RETRY).await;
                } else {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                () = self.watch.changed() => self.refresh().await,
                () = retry => {
                    self.apply(Delta::default()).await;
                    self.tell();
                }
                () = drain.signaled() => return,
            }
        }
    }

    /// Listeners that the engine could not open, each with the reason.
    pub fn refused_listeners(&self) -> impl Iterator<Item = (&Listener, &str)> {
        let listeners = &self.inputs.snapshot().listeners;
        self.refused.iter().filter_map(|(key, error)| match key {
            ResourceKey::Listener(key) => Some((&**listeners.get(key)?, error.as_str())),
            _ => None,
        })
    }

    /// Listeners that serve.
    pub fn listeners(&self) -> impl Iterator<Item = &Listener> {
        let listeners = self.inputs.snapshot().listeners.values();
        listeners
            .map(|listener| &**listener)
            .filter(|listener| !self.refused.contains_key(&ResourceKey::Listener(listener.key.clone())))
    }

    async fn refresh(&mut self) {
        self.watch.renew();
        match self.read_twice().await {
            Ok(files) => {
                self.folder_problem = None;
                self.take(files).await;
            }
            Err(error) => {
                let message = format!("cannot be listed, serving what it held: {error}");
                self.folder_problem = Some(Problem { file: Some(self.root.clone()), message, ..Problem::default() });
                self.tell();
            }
        }
    }

    /// Reads the folder; where a file seems to be lost, again with the next change or after [`SECOND_LOOK`].
    async fn read_twice(&self) -> io::Result<Files> {
        let end = Instant::now() + SECOND_LOOK;
        loop {
            let files = self.read().await?;
            if !self.inputs.would_lose_a_file(&files) || Instant::now() >= end {
                return Ok(files);
            }
            // Running into the time limit is the second look.
            let _ = timeout_at(end, self.watch.changed()).await;
        }
    }

    async fn read(&self) -> io::Result<Files> {
        let root = self.root.clone();
        tokio::task::spawn_blocking(move || read(&root)).await.map_err(io::Error::other)?
    }

    async fn take(&mut self, files: Files) {
        let delta = self.inputs.update(files);
        if !delta.is_empty() {
            tracing::info!(changed = delta.upserted.len(), removed = delta.removed.len(), "configuration changed");
            self.apply(delta).await;
        }
        self.tell();
    }

    async fn apply(&mut self, mut delta: Delta) {
        // What was refused because of something else is tried again with every change: a port may be free by now, or
        // another Gateway gone.
        let touched: BTreeSet<_> =
            delta.removed.iter().cloned().chain(delta.upserted.iter().map(Resource::key)).collect();
        let snapshot = self.inputs.snapshot();
        let again = std::mem::take(&mut self.refused).into_iter().filter(|(key, _)| !touched.contains(key));
        for (key, error) in again {
            match &key {
                ResourceKey::Listener(listener) => {
                    delta.upserted.extend(snapshot.listeners.get(listener).cloned().map(Resource::Listener));
                }
                ResourceKey::Gateway(gateway) => {
                    delta.upserted.extend(snapshot.gateways.get(gateway).cloned().map(Resource::Gateway));
                }
                _ => drop(self.refused.insert(key, error)),
            }
        }
        let refused = self.proxy.apply(delta).await;
        self.refused.extend(refused.into_iter().map(|refused| (refused.key, refused.error)));
    }

    /// Publishes what is wrong, and logs what is new in it.
    fn tell(&self) {
        let refused = self.refused.iter().map(|(key, error)| self.inputs.refusal(key, error));
        let all = self.folder_problem.iter().cloned().chain(self.inputs.problems()).chain(refused);
        self.problems.replace(all).log();
    }
}
