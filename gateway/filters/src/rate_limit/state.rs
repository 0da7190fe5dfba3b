//! What limits keep while the configuration changes.
//!
//! Invariant: counters live as long as a filter uses them, and an edited policy finds those that it had; a table is made with
//! its first request, so that a limit that nobody meets costs nothing.

use std::{
    collections::HashMap,
    num::{NonZeroU32, NonZeroUsize},
    sync::{Arc, OnceLock, Weak},
};

use control_plane_model::PolicyKey;
use parking_lot::Mutex;
use policy_rate_limit::{Buckets, InFlight, KeySeed};

/// Keys with requests in flight, of one limit; a process has fewer requests at once.
const MAX_KEYS_IN_FLIGHT: NonZeroUsize = NonZeroUsize::new(1 << 20).unwrap();

/// Whose counters they are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct CounterId {
    pub(super) policy: PolicyKey,
    /// The limit's name.
    pub(super) name: Arc<str>,
}

/// The counters of all limits of the process.
pub struct State {
    seed: KeySeed,
    tables: Mutex<HashMap<CounterId, Weak<Table>>>,
    in_flight: Mutex<HashMap<CounterId, Weak<InFlight>>>,
}

impl Default for State {
    fn default() -> Self {
        Self { seed: KeySeed::new(rand::random()), tables: Mutex::default(), in_flight: Mutex::default() }
    }
}

/// The buckets of one limit.
#[derive(Debug)]
pub(super) struct Table {
    max_keys: NonZeroU32,
    buckets: OnceLock<Buckets>,
}

impl Table {
    pub(super) fn buckets(&self) -> &Buckets {
        self.buckets.get_or_init(|| {
            let max_keys = usize::try_from(self.max_keys.get()).unwrap_or(usize::MAX);
            Buckets::new(NonZeroUsize::new(max_keys).unwrap_or(NonZeroUsize::MIN))
        })
    }
}

impl State {
    pub(super) fn seed(&self) -> &KeySeed {
        &self.seed
    }

    /// The buckets of a limit: those that it has, unless it is to have another number of them.
    pub(super) fn table(&self, id: CounterId, max_keys: NonZeroU32) -> Arc<Table> {
        let mut tables = self.tables.lock();
        if let Some(table) = tables.get(&id).and_then(Weak::upgrade).filter(|table| table.max_keys == max_keys) {
            return table;
        }
        let table = Arc::new(Table { max_keys, buckets: OnceLock::new() });
        insert(&mut tables, id, Arc::downgrade(&table));
        table
    }

    /// The counts of a limit of requests in flight.
    pub(super) fn in_flight(&self, id: CounterId) -> Arc<InFlight> {
        let mut counters = self.in_flight.lock();
        if let Some(counters) = counters.get(&id).and_then(Weak::upgrade) {
            return counters;
        }
        let new = Arc::new(InFlight::new(MAX_KEYS_IN_FLIGHT));
        insert(&mut counters, id, Arc::downgrade(&new));
        new
    }
}

/// Adds an entry, and drops those that nobody uses whenever the map would grow.
fn insert<T>(map: &mut HashMap<CounterId, Weak<T>>, id: CounterId, entry: Weak<T>) {
    if map.len() == map.capacity() {
        map.retain(|_, entry| entry.strong_count() > 0);
    }
    map.insert(id, entry);
}
