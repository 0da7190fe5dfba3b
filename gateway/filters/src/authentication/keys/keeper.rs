//! One key set that is fetched: what requests read of it, without a lock, and what is known about its fetches.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use control_plane_model::{KeyLocation, RemoteKeys, SigningAlgorithm};
use kit_process::error::chain;
use parking_lot::Mutex;
use policy_jose::KeySet;
use tokio::sync::watch;

use super::{
    fetch::{FetchError, Fetched},
    schedule::Schedule,
};

/// How long a request waits for keys.
const WAIT: Duration = Duration::from_secs(3);
/// Most requests that wait for one key set; what comes besides is answered by what is known.
const MAX_WAITING: usize = 1024;
/// Longest error that is kept, in characters.
const MAX_ERROR: usize = 512;

/// What a key set is fetched from and for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Source {
    pub(super) remote: Arc<RemoteKeys>,
    pub(super) algorithms: BTreeSet<SigningAlgorithm>,
}

impl Source {
    pub(super) fn url(&self) -> String {
        match self.remote.location() {
            KeyLocation::Discovery { url, .. } | KeyLocation::Url(url) => url.to_string(),
        }
    }
}

/// A key set and its fetches.
#[derive(Debug)]
pub(in crate::authentication) struct Keeper {
    pub(super) source: Source,
    progress: Mutex<Progress>,
    loaded: ArcSwapOption<Loaded>,
    /// Counts fetches that ended.
    rounds: watch::Sender<u64>,
    waiting: AtomicUsize,
}

#[derive(Debug)]
struct Progress {
    schedule: Schedule,
    fetched: Option<Duration>,
    last_error: Option<String>,
}

#[derive(Debug)]
struct Loaded {
    keys: Arc<KeySet>,
    usable_until: Duration,
}

/// What is known about a key set, for metrics and people. Holds no key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySetState {
    /// Where it is fetched from.
    pub url: String,
    /// Keys that count now. 0: requests get 503.
    pub usable_keys: usize,
    /// Keys of the set that cannot be used.
    pub skipped_keys: usize,
    /// Time since the last fetch that brought keys.
    pub age: Option<Duration>,
    /// For how long the keys count if no fetch brings others.
    pub usable_for: Option<Duration>,
    /// Fetches that failed since one brought keys.
    pub failures: u32,
    /// Why the last fetch failed, until one brings keys.
    pub last_error: Option<String>,
}

impl Keeper {
    pub(super) fn new(source: Source, now: Duration) -> Self {
        let schedule = Schedule::new(source.remote.refresh(), source.remote.stale_if_error(), now);
        let progress = Mutex::new(Progress { schedule, fetched: None, last_error: None });
        let (rounds, _) = watch::channel(0);
        Self { source, progress, loaded: ArcSwapOption::empty(), rounds, waiting: AtomicUsize::new(0) }
    }

    /// The keys, where there are any that count.
    pub(super) fn current(&self, now: Duration) -> Option<Arc<KeySet>> {
        let loaded = self.loaded.load();
        loaded.as_ref().filter(|loaded| now < loaded.usable_until).map(|loaded| loaded.keys.clone())
    }

    /// Whether the last fetch failed.
    pub(super) fn is_failing(&self) -> bool {
        self.progress.lock().schedule.failures() > 0
    }

    /// A token names an unknown key; see [`Schedule::missed`].
    pub(super) fn missed(&self, now: Duration) -> bool {
        self.progress.lock().schedule.missed(now)
    }

    /// Watches for the end of a fetch. To be had before it is asked for.
    pub(super) fn watch(&self) -> watch::Receiver<u64> {
        self.rounds.subscribe()
    }

    /// Waits for the end of a fetch, for a while, where not too many wait already. Cancel-safe.
    pub(super) async fn wait(&self, mut rounds: watch::Receiver<u64>) {
        let place = Place(&self.waiting);
        if self.waiting.fetch_add(1, Ordering::Relaxed) < MAX_WAITING {
            // The sender lives as long as `self`; too late is no error either.
            let _ = tokio::time::timeout(WAIT, rounds.changed()).await;
        }
        drop(place);
    }

    /// When the next fetch is due, unless one is under way.
    pub(super) fn due(&self) -> Option<Duration> {
        self.progress.lock().schedule.due()
    }

    pub(super) fn begin(&self) {
        self.progress.lock().schedule.begin();
    }

    /// A fetch has ended.
    pub(super) fn finish(&self, outcome: Result<Fetched, FetchError>, now: Duration, jitter: f64) {
        let mut progress = self.progress.lock();
        match outcome {
            Ok(Fetched { keys, max_age }) => {
                if progress.last_error.take().is_some() {
                    tracing::info!(url = self.source.url(), "key set fetched again");
                }
                progress.schedule.succeeded(now, max_age, jitter);
                progress.fetched = Some(now);
                let usable_until = progress.schedule.usable_until().unwrap_or(now);
                // Equal keys stay the same object, so that nothing is derived from them again.
                let keys = match self.loaded.load().as_ref() {
                    Some(old) if old.keys.fingerprint() == keys.fingerprint() => old.keys.clone(),
                    _ => Arc::new(keys),
                };
                self.loaded.store(Some(Arc::new(Loaded { keys, usable_until })));
            }
            Err(error) => {
                let error: String = chain(&error).chars().take(MAX_ERROR).collect();
                if progress.last_error.as_ref() != Some(&error) {
                    tracing::warn!(url = self.source.url(), error, "key set not fetched");
                }
                progress.last_error = Some(error);
                progress.schedule.failed(now, jitter);
            }
        }
        drop(progress);
        self.rounds.send_modify(|rounds| *rounds = rounds.wrapping_add(1));
    }

    pub(super) fn state(&self, now: Duration) -> KeySetState {
        let progress = self.progress.lock();
        let loaded = self.loaded.load();
        let usable = loaded.as_ref().filter(|loaded| now < loaded.usable_until);
        KeySetState {
            url: self.source.url(),
            usable_keys: usable.map_or(0, |loaded| loaded.keys.usable()),
            skipped_keys: usable.map_or(0, |loaded| loaded.keys.skipped().len()),
            age: progress.fetched.map(|fetched| now.saturating_sub(fetched)),
            usable_for: usable.map(|loaded| loaded.usable_until.saturating_sub(now)),
            failures: progress.schedule.failures(),
            last_error: progress.last_error.clone(),
        }
    }
}

/// A request's place among those that wait.
struct Place<'a>(&'a AtomicUsize);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
