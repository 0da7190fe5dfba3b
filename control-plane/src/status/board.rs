//! Which statuses are to be written, and what the objects' statuses are as far as the watches know.
//!
//! Invariants: an object is with one writer at most; of several wanted statuses of an object the newest is kept; the
//! queue is as long as there are objects, not longer.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::Duration,
};

use control_plane_model::ObjectName;
use control_plane_translate::{Kind, StatusUpdate};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::{sync::Notify, time::Instant};

type Key = (Kind, ObjectName);

/// How long a status waits before it is written. Traffic comes first: by then the proxies have the change that the status
/// tells of, and many changes of an object (a Gateway's count of routes) make one write.
const SETTLE: Duration = Duration::from_millis(50);

/// The queue of the status writers.
#[derive(Debug, Default)]
pub struct Board {
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Statuses as the watches last saw them, JSON text: a fraction of the memory of parsed values.
    observed: HashMap<Key, Box<str>>,
    wanted: HashMap<Key, StatusUpdate>,
    /// When each is due; never earlier than the one before it.
    order: VecDeque<(Key, Instant)>,
    busy: HashSet<Key>,
}

enum Take {
    Now(StatusUpdate),
    At(Instant),
    Nothing,
}

impl Board {
    /// A watch saw an object with this `status`, as JSON text.
    pub fn observed(&self, kind: Kind, name: &ObjectName, status: String) {
        self.state.lock().observed.insert((kind, name.clone()), status.into());
    }

    /// A watch saw an object go.
    pub fn removed(&self, kind: Kind, name: &ObjectName) {
        let key = (kind, name.clone());
        let mut state = self.state.lock();
        state.observed.remove(&key);
        state.wanted.remove(&key);
    }

    /// The status as a watch last saw it; `None` where there is no such object.
    pub fn status(&self, kind: Kind, name: &ObjectName) -> Option<Value> {
        let state = self.state.lock();
        let text = state.observed.get(&(kind, name.clone()))?;
        Some(serde_json::from_str(text).unwrap_or(Value::Null))
    }

    /// Wants a status; takes the place of what was wanted of the object before.
    pub fn want(&self, update: StatusUpdate) {
        let key = (update.kind, update.name.clone());
        {
            let mut state = self.state.lock();
            let queued = state.wanted.insert(key.clone(), update).is_some();
            if queued || state.busy.contains(&key) {
                return;
            }
            state.order.push_back((key, Instant::now() + SETTLE));
        }
        self.wake.notify_one();
    }

    /// Wants nothing any more: this replica no longer leads.
    pub fn clear(&self) {
        let mut state = self.state.lock();
        state.wanted.clear();
        state.order.clear();
    }

    /// Whether nothing is wanted and no writer is at work.
    pub fn is_idle(&self) -> bool {
        let state = self.state.lock();
        state.wanted.is_empty() && state.busy.is_empty()
    }

    /// The next status to write; waits for one to be due. Follow with [`Self::done`]. Cancel-safe.
    pub async fn next(&self) -> StatusUpdate {
        loop {
            let woken = self.wake.notified();
            match self.take() {
                Take::Now(update) => return update,
                Take::At(due) => tokio::time::sleep_until(due).await,
                Take::Nothing => woken.await,
            }
        }
    }

    fn take(&self) -> Take {
        let now = Instant::now();
        let mut state = self.state.lock();
        let update = loop {
            // Every status waits as long as any other, so the first of the queue is due first.
            match state.order.front() {
                None => return Take::Nothing,
                Some((_, due)) if *due > now => return Take::At(*due),
                Some(_) => {}
            }
            let Some((key, _)) = state.order.pop_front() else { return Take::Nothing };
            if let Some(update) = state.wanted.remove(&key) {
                state.busy.insert(key);
                break update;
            }
        };
        // One notification may stand for several statuses.
        if !state.order.is_empty() {
            self.wake.notify_one();
        }
        Take::Now(update)
    }

    /// A writer is done with `update`. `again` puts it at the end of the queue, unless something newer is wanted.
    pub fn done(&self, update: StatusUpdate, again: bool) {
        let key = (update.kind, update.name.clone());
        {
            let mut state = self.state.lock();
            state.busy.remove(&key);
            if again {
                state.wanted.entry(key.clone()).or_insert(update);
            }
            if !state.wanted.contains_key(&key) {
                return;
            }
            state.order.push_back((key, Instant::now() + SETTLE));
        }
        self.wake.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn update(name: &str, generation: i64) -> StatusUpdate {
        StatusUpdate { kind: Kind::HttpRoute, name: ObjectName::new("shop", name), generation, status: Value::Null }
    }

    /// The next status, or `None` where there is none to come.
    async fn next(board: &Board) -> Option<StatusUpdate> {
        tokio::time::timeout(SETTLE * 2, board.next()).await.ok()
    }

    #[tokio::test(start_paused = true)]
    async fn the_newest_wanted_status_of_an_object_wins_and_keeps_its_place() {
        let board = Board::default();
        board.want(update("a", 1));
        board.want(update("b", 1));
        board.want(update("a", 2));
        assert_eq!(next(&board).await, Some(update("a", 2)));
        assert_eq!(next(&board).await, Some(update("b", 1)));
        assert_eq!(next(&board).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_status_waits_for_traffic_and_no_longer_than_that() {
        let board = Board::default();
        let start = Instant::now();
        board.want(update("a", 1));
        tokio::time::advance(SETTLE / 2).await;
        board.want(update("a", 2));
        assert_eq!(next(&board).await, Some(update("a", 2)));
        assert!(start.elapsed() >= SETTLE && start.elapsed() < SETTLE * 5 / 4, "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn an_object_is_with_one_writer_at_a_time() {
        let board = Board::default();
        board.want(update("a", 1));
        let first = next(&board).await.unwrap();
        board.want(update("a", 2));
        assert_eq!(next(&board).await, None);
        board.done(first, true);
        assert_eq!(next(&board).await, Some(update("a", 2)));
        board.done(update("a", 2), false);
        assert_eq!(next(&board).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_failed_comes_again() {
        let board = Board::default();
        board.want(update("a", 1));
        let first = next(&board).await.unwrap();
        board.done(first, true);
        assert_eq!(next(&board).await, Some(update("a", 1)));
    }

    #[tokio::test(start_paused = true)]
    async fn an_object_that_is_gone_is_not_written() {
        let board = Board::default();
        board.want(update("a", 1));
        board.removed(Kind::HttpRoute, &ObjectName::new("shop", "a"));
        assert_eq!(next(&board).await, None);
    }
}
