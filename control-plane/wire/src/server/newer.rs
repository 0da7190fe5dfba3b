//! What a proxy holds in a newer state than this replica has: it comes from a replica that was ahead of this one.
//!
//! Invariant: while a newer object is kept nothing is removed, as what it uses may not be here yet; it goes with the last of
//! them. Decides by revisions alone, which say nothing of objects that are not here at all.

use std::collections::{BTreeSet, HashMap};

use control_plane_model::{ResourceKey, Revision};

use super::hub::{KnownObject, Transaction};
use crate::resource::Encoded;

/// Newer objects of one proxy, and removals that wait for them.
#[derive(Debug, Default)]
pub(super) struct Newer {
    kept: HashMap<ResourceKey, Revision>,
    gone: BTreeSet<ResourceKey>,
}

impl Newer {
    /// Whether the proxy has nothing that is newer.
    pub(super) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Keys of what is newer.
    pub(super) fn kept(&self) -> impl Iterator<Item = &ResourceKey> {
        self.kept.keys()
    }

    /// Whether the proxy has something newer of `key`, as far as is known.
    pub(super) fn is_kept(&self, key: &ResourceKey) -> bool {
        self.kept.contains_key(key)
    }

    /// Whether the proxy keeps what it has of `key` when it could have the state of `offered`. Where it does not, it takes that.
    pub(super) fn keeps(&mut self, key: &ResourceKey, offered: Revision) -> bool {
        let keeps = self.kept.get(key).is_some_and(|held| is_newer(*held, offered));
        if !keeps {
            self.kept.remove(key);
        }
        keeps
    }

    /// `key` is to be removed.
    pub(super) fn remove(&mut self, key: ResourceKey) {
        self.kept.remove(&key);
        self.gone.insert(key);
    }

    /// What is to be removed now.
    pub(super) fn take_gone(&mut self) -> BTreeSet<ResourceKey> {
        if self.kept.is_empty() { std::mem::take(&mut self.gone) } else { BTreeSet::new() }
    }

    /// Keeps nothing any more. Returns what was kept.
    pub(super) fn forget(&mut self) -> Vec<ResourceKey> {
        self.kept.drain().map(|(key, _)| key).collect()
    }
}

/// Whether a proxy keeps an object of revision `held` when it could have one of revision `offered`.
fn is_newer(held: Revision, offered: Revision) -> bool {
    offered != Revision::UNKNOWN && held > offered
}

/// What brings a proxy that holds `known` to `visible`, and what it holds that is newer.
pub(super) fn compare(
    mut known: HashMap<String, KnownObject>,
    mut visible: Vec<(ResourceKey, Encoded)>,
) -> (Transaction, Newer) {
    let mut newer = Newer::default();
    visible.retain(|(key, object)| match known.remove(&key.to_string()) {
        Some(held) if held.version == object.version => false,
        Some(held) if is_newer(held.revision, object.revision) => {
            newer.kept.insert(key.clone(), held.revision);
            false
        }
        _ => true,
    });
    let mut removed: Vec<String> = known.into_keys().collect();
    if !newer.is_empty() {
        // What is of no kind that is known here is used by nothing that is.
        removed.retain(|key| match key.parse() {
            Ok(key) => !newer.gone.insert(key),
            Err(_) => true,
        });
    }
    removed.sort_unstable();
    (Transaction { upserted: visible, removed, synced: true }, newer)
}
