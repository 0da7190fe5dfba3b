//! What may come once: states of callbacks, ids of logout tokens.
//!
//! Invariant: what was seen is known until its own end, but where more than the most are: then those that end first are forgotten,
//! and their other bounds (a deleted cookie, a code that counts once, an expiry) have to do.

use std::collections::{BTreeSet, HashMap};

use crate::{UnixTime, sha256};

/// What was seen.
#[derive(Debug)]
pub struct Once {
    seen: HashMap<[u8; 32], UnixTime>,
    ends: BTreeSet<(UnixTime, [u8; 32])>,
    most: usize,
}

impl Once {
    /// Knows `most` at most.
    pub fn new(most: usize) -> Self {
        Self { seen: HashMap::new(), ends: BTreeSet::new(), most }
    }

    /// Whether `id` of `owner` comes for the first time; from now on it does not, until `ends`.
    pub fn is_first(&mut self, owner: &str, id: &str, ends: UnixTime, now: UnixTime) -> bool {
        while let Some(first) = self.ends.first().copied().filter(|(ends, _)| *ends <= now) {
            self.remove(first);
        }
        let digest = sha256(&[owner.as_bytes(), id.as_bytes()]);
        if self.seen.contains_key(&digest) {
            return false;
        }
        if self.seen.len() >= self.most
            && let Some(first) = self.ends.first().copied()
        {
            self.remove(first);
        }
        self.seen.insert(digest, ends);
        self.ends.insert((ends, digest));
        true
    }

    fn remove(&mut self, entry: (UnixTime, [u8; 32])) {
        self.ends.remove(&entry);
        self.seen.remove(&entry.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_is_refused_until_it_ends() {
        let mut once = Once::new(2);
        assert!(once.is_first("a", "1", UnixTime(10), UnixTime(0)));
        assert!(!once.is_first("a", "1", UnixTime(99), UnixTime(9)));
        assert!(once.is_first("b", "1", UnixTime(20), UnixTime(9)), "of another owner");
        assert!(once.is_first("a", "1", UnixTime(30), UnixTime(10)));
        assert!(once.is_first("c", "1", UnixTime(40), UnixTime(10)));
        assert_eq!((once.seen.len(), once.ends.len()), (2, 2));
    }
}
