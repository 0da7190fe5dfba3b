//! Renewals in single flight: of requests that find one session to be renewed, one renews it and the others get what it got.
//!
//! Invariants: of one generation of a session at most one renewal is on its way, so that a refresh token that counts once is
//! shown once. What a renewal gave is kept for a minute: a browser sends its older cookie for as long as answers are on their
//! way, and that one's refresh token is spent. Memory is bounded.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use crate::UnixTime;

/// For how long a renewal's result is given to requests with the older session.
const KEPT: Duration = Duration::from_mins(1);
/// So long after a failure that may pass it is tried again.
const AGAIN: Duration = Duration::from_secs(5);
/// A renewal that has said nothing for so long is lost: its task has ended.
const LOST: Duration = Duration::from_secs(30);

/// A generation of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RefreshKey {
    pub(crate) session: [u8; 16],
    pub(crate) generation: u32,
}

/// What a request does that finds its session to be renewed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn<T> {
    /// It renews, and calls [`Refreshes::finish`], whatever comes of it.
    Lead,
    /// Another one renews.
    Wait,
    /// Another one has.
    Done(T),
    /// So many are on their way that no more begin.
    Full,
}

/// Renewals on their way and those of the last minute.
#[derive(Debug)]
pub struct Refreshes<T> {
    entries: HashMap<RefreshKey, Entry<T>>,
    ends: BTreeSet<(UnixTime, RefreshKey)>,
    most: usize,
}

#[derive(Debug)]
struct Entry<T> {
    ends: UnixTime,
    result: Option<T>,
}

impl<T: Clone> Refreshes<T> {
    /// Remembers `most` renewals at most.
    pub fn new(most: usize) -> Self {
        Self { entries: HashMap::new(), ends: BTreeSet::new(), most }
    }

    /// What a request does.
    pub fn begin(&mut self, key: RefreshKey, now: UnixTime) -> Turn<T> {
        self.forget(now);
        match self.entries.get(&key) {
            Some(Entry { result: Some(result), .. }) => return Turn::Done(result.clone()),
            Some(_) => return Turn::Wait,
            None => {}
        }
        if self.entries.len() >= self.most && !self.drop_a_result() {
            return Turn::Full;
        }
        self.insert(key, None, now.plus(LOST));
        Turn::Lead
    }

    /// What became of a renewal; `is_final` where trying again gives no other result.
    pub fn finish(&mut self, key: RefreshKey, result: T, is_final: bool, now: UnixTime) {
        self.remove(key);
        self.insert(key, Some(result), now.plus(if is_final { KEPT } else { AGAIN }));
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn insert(&mut self, key: RefreshKey, result: Option<T>, ends: UnixTime) {
        self.entries.insert(key, Entry { ends, result });
        self.ends.insert((ends, key));
    }

    fn remove(&mut self, key: RefreshKey) {
        if let Some(entry) = self.entries.remove(&key) {
            self.ends.remove(&(entry.ends, key));
        }
    }

    fn forget(&mut self, now: UnixTime) {
        while let Some((_, key)) = self.ends.first().copied().filter(|(ends, _)| *ends <= now) {
            self.remove(key);
        }
    }

    fn drop_a_result(&mut self) -> bool {
        let is_result = |key: &RefreshKey| self.entries.get(key).is_some_and(|entry| entry.result.is_some());
        let oldest = self.ends.iter().map(|(_, key)| *key).find(is_result);
        if let Some(key) = oldest {
            self.remove(key);
        }
        oldest.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(session: u8) -> RefreshKey {
        RefreshKey { session: [session; 16], generation: 0 }
    }

    #[test]
    fn of_many_requests_one_renews_and_all_get_the_same() {
        let mut refreshes = Refreshes::new(10);
        assert_eq!(refreshes.begin(key(1), UnixTime(0)), Turn::Lead);
        assert_eq!(refreshes.begin(key(1), UnixTime(1)), Turn::Wait);
        assert_eq!(refreshes.begin(key(2), UnixTime(1)), Turn::Lead);
        refreshes.finish(key(1), "new", true, UnixTime(2));
        // One that was on its way with the older cookie.
        assert_eq!(refreshes.begin(key(1), UnixTime(61)), Turn::Done("new"));
        assert_eq!(refreshes.begin(key(1), UnixTime(62)), Turn::Lead);
    }

    #[test]
    fn one_that_failed_or_was_lost_is_tried_again() {
        let mut refreshes: Refreshes<&str> = Refreshes::new(10);
        assert_eq!(refreshes.begin(key(1), UnixTime(0)), Turn::Lead);
        refreshes.finish(key(1), "unavailable", false, UnixTime(1));
        assert_eq!(refreshes.begin(key(1), UnixTime(5)), Turn::Done("unavailable"));
        assert_eq!(refreshes.begin(key(1), UnixTime(6)), Turn::Lead);
        assert_eq!(refreshes.begin(key(1), UnixTime(35)), Turn::Wait);
        assert_eq!(refreshes.begin(key(1), UnixTime(36)), Turn::Lead);
    }

    #[test]
    fn memory_is_bounded_and_results_make_room() {
        let mut refreshes = Refreshes::new(2);
        assert_eq!(refreshes.begin(key(1), UnixTime(0)), Turn::Lead);
        assert_eq!(refreshes.begin(key(2), UnixTime(0)), Turn::Lead);
        assert_eq!(refreshes.begin(key(3), UnixTime(0)), Turn::Full);
        refreshes.finish(key(1), "new", true, UnixTime(0));
        assert_eq!(refreshes.begin(key(3), UnixTime(0)), Turn::Lead);
        assert_eq!(refreshes.len(), 2);
        assert_eq!(refreshes.ends.len(), 2);
    }
}
