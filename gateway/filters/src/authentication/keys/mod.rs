//! The key sets of identity providers: fetched once for the process, by one task, and read by every worker.
//!
//! Invariants: policies with equal settings share a key set, also across a reload; one that no policy uses any more is
//! forgotten. A request waits for a fetch for three seconds at most, and never starts one itself.

mod fetch;
mod keeper;
mod schedule;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Weak},
    time::Duration,
};

use control_plane_model::{RemoteKeys, SigningAlgorithm};
use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use kit_process::drain::Drain;
use parking_lot::Mutex;
use policy_jose::KeySet;
use rustls::crypto::CryptoProvider;
use tokio::{sync::Notify, time::Instant};

pub(super) use self::keeper::Keeper;
pub use self::keeper::KeySetState;
use self::{
    fetch::{FetchError, Fetched, Fetcher},
    keeper::Source,
};
use super::provider::algorithms;

/// Fetches at a time; a Gateway with hundreds of providers starts without a burst.
const MAX_FETCHING: usize = 8;
/// Between two looks where no fetch is due.
const IDLE: Duration = Duration::from_hours(1);

/// Every key set of the process.
#[derive(Debug)]
pub(super) struct KeyStore {
    origin: Instant,
    keepers: Mutex<HashMap<Source, Weak<Keeper>>>,
    /// Something may be due.
    wake: Notify,
    fetcher: Fetcher,
}

/// A fetch that has ended, and for which key set.
type Fetch = (Arc<Keeper>, Result<Fetched, FetchError>);

/// What a token with an unknown key is answered with.
#[derive(Clone, Debug)]
pub(super) enum Missed {
    /// The keys after a look at the provider.
    Current(Arc<KeySet>),
    /// Nobody knows: the provider does not answer.
    Unavailable,
}

impl KeyStore {
    pub(super) fn new(crypto: Arc<CryptoProvider>) -> Self {
        let fetcher = Fetcher::new(crypto);
        Self { origin: Instant::now(), keepers: Mutex::default(), wake: Notify::new(), fetcher }
    }

    /// The key set that `remote` describes; the same one for equal descriptions. Fetched as soon as [`Self::run`] runs.
    pub(super) fn keeper(&self, remote: &Arc<RemoteKeys>, algorithms: &BTreeSet<SigningAlgorithm>) -> Arc<Keeper> {
        let source = Source { remote: remote.clone(), algorithms: algorithms.clone() };
        let mut keepers = self.keepers.lock();
        if let Some(keeper) = keepers.get(&source).and_then(Weak::upgrade) {
            return keeper;
        }
        let keeper = Arc::new(Keeper::new(source.clone(), self.now()));
        keepers.insert(source, Arc::downgrade(&keeper));
        drop(keepers);
        self.wake.notify_one();
        keeper
    }

    /// The keys; waits for a first fetch. `None` where there are none that count.
    pub(super) async fn keys(&self, keeper: &Keeper) -> Option<Arc<KeySet>> {
        if let Some(keys) = keeper.current(self.now()) {
            return Some(keys);
        }
        let rounds = keeper.watch();
        // Who has come between the two looks is not waited for.
        if let Some(keys) = keeper.current(self.now()) {
            return Some(keys);
        }
        if keeper.is_failing() {
            return None;
        }
        keeper.wait(rounds).await;
        keeper.current(self.now())
    }

    /// The keys once more, for a token whose key `known` does not have: after a fetch, where one may be made.
    pub(super) async fn keys_after_miss(&self, keeper: &Keeper, known: &Arc<KeySet>) -> Missed {
        let rounds = keeper.watch();
        if keeper.missed(self.now()) {
            self.wake.notify_one();
            // Another request may have been waiting for the same.
            if keeper.current(self.now()).is_some_and(|keys| Arc::ptr_eq(&keys, known)) {
                keeper.wait(rounds).await;
            }
        }
        match keeper.current(self.now()) {
            // The provider may have a new key that nobody can see.
            Some(keys) if Arc::ptr_eq(&keys, known) && keeper.is_failing() => Missed::Unavailable,
            Some(keys) => Missed::Current(keys),
            None => Missed::Unavailable,
        }
    }

    /// What is known about every key set in use, by URL.
    pub(super) fn states(&self) -> Vec<KeySetState> {
        let now = self.now();
        let mut states: Vec<KeySetState> = self.in_use().iter().map(|keeper| keeper.state(now)).collect();
        states.sort_by(|one, other| one.url.cmp(&other.url));
        states
    }

    /// Fetches what is due until `drain` begins. `random` gives numbers from 0 to 1.
    pub(super) async fn run(&self, drain: Drain, mut random: impl FnMut() -> f64 + Send) {
        let mut fetches: FuturesUnordered<BoxFuture<'_, Fetch>> = FuturesUnordered::new();
        loop {
            let mut due: Vec<_> =
                self.in_use().into_iter().filter_map(|keeper| Some((keeper.due()?, keeper))).collect();
            due.sort_by_key(|(due, _)| *due);
            let now = self.now();
            let mut next = now + IDLE;
            for (at, keeper) in due {
                if at > now {
                    next = next.min(at);
                    break;
                }
                if fetches.len() == MAX_FETCHING {
                    break;
                }
                keeper.begin();
                fetches.push(self.fetch(keeper).boxed());
            }
            tokio::select! {
                () = drain.signaled() => return,
                () = self.wake.notified() => {}
                () = tokio::time::sleep_until(self.origin + next) => {}
                Some((keeper, outcome)) = fetches.next() => keeper.finish(outcome, self.now(), random()),
            }
        }
    }

    async fn fetch(&self, keeper: Arc<Keeper>) -> Fetch {
        let fetched = self.fetcher.fetch(&keeper.source.remote, algorithms(&keeper.source.algorithms)).await;
        (keeper, fetched)
    }

    /// Those that a policy uses; forgets the others.
    fn in_use(&self) -> Vec<Arc<Keeper>> {
        let mut in_use = Vec::new();
        self.keepers.lock().retain(|_, keeper| {
            let keeper = keeper.upgrade();
            in_use.extend(keeper.clone());
            keeper.is_some()
        });
        in_use
    }

    fn now(&self) -> Duration {
        self.origin.elapsed()
    }
}
