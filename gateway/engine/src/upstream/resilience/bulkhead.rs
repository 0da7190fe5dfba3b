//! The limit on requests at once, and those that wait for their turn.
//!
//! Invariant: whoever leaves wakes one of those that wait, on whatever worker; a turn is not promised by it, so one that has
//! just come may be first.

use std::{sync::Arc, time::Duration};

use policy_resilience::{Concurrency, ConcurrencySpec, InFlight};
use tokio::sync::Notify;

use crate::local_reply::Reason;

#[derive(Debug)]
pub(super) struct Bulkhead {
    limits: Arc<Concurrency>,
    may_wait: bool,
    left: Notify,
}

impl Bulkhead {
    pub(super) fn new(spec: ConcurrencySpec) -> Arc<Self> {
        let limits = Concurrency::new(spec);
        let may_wait = spec.pending() > 0;
        Arc::new(Self { limits, may_wait, left: Notify::new() })
    }

    pub(super) fn spec(&self) -> ConcurrencySpec {
        self.limits.spec()
    }

    pub(super) fn in_flight(&self) -> u32 {
        self.limits.in_flight()
    }

    pub(super) fn pending(&self) -> u32 {
        self.limits.pending()
    }

    /// A turn, where one is free.
    pub(super) fn try_enter(self: &Arc<Self>) -> Option<Turn> {
        let in_flight = self.limits.try_acquire().ok()?;
        Some(Turn { in_flight: Some(in_flight), bulkhead: self.clone() })
    }

    /// A turn, within `limit`.
    ///
    /// # Errors: why there is none.
    pub(super) async fn enter(self: &Arc<Self>, limit: Duration) -> Result<Turn, Reason> {
        if !self.may_wait {
            return Err(Reason::BackendAtLimit);
        }
        let _pending = self.limits.try_wait().map_err(|_| Reason::TooManyPending)?;
        let wait = async {
            loop {
                let left = self.left.notified();
                if let Some(turn) = self.try_enter() {
                    return turn;
                }
                left.await;
            }
        };
        tokio::time::timeout(limit, wait).await.map_err(|_| Reason::BackendAtLimit)
    }
}

/// One request under way, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    in_flight: Option<InFlight>,
    bulkhead: Arc<Bulkhead>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.in_flight = None;
        if self.bulkhead.may_wait {
            // Kept for the next one, where none waits just now: it may be about to.
            self.bulkhead.left.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulkhead(pending: u32) -> Arc<Bulkhead> {
        Bulkhead::new(ConcurrencySpec::new(1).unwrap().with_pending(pending).unwrap())
    }

    const LIMIT: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_has_its_turn_when_another_leaves() {
        let bulkhead = bulkhead(1);
        let turn = bulkhead.try_enter().unwrap();
        let (entered, ()) = tokio::join!(bulkhead.enter(LIMIT), async {
            tokio::time::sleep(LIMIT / 2).await;
            drop(turn);
        });
        assert!(entered.is_ok());
        assert_eq!((bulkhead.in_flight(), bulkhead.pending()), (1, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_too_long_is_refused() {
        let bulkhead = bulkhead(1);
        let _turn = bulkhead.try_enter().unwrap();
        assert_eq!(bulkhead.enter(LIMIT).await.unwrap_err(), Reason::BackendAtLimit);
        assert_eq!(bulkhead.pending(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_wait_than_may() {
        let bulkhead = bulkhead(1);
        let _turn = bulkhead.try_enter().unwrap();
        let (first, second) = tokio::join!(bulkhead.enter(LIMIT), bulkhead.enter(LIMIT));
        assert_eq!((first.unwrap_err(), second.unwrap_err()), (Reason::BackendAtLimit, Reason::TooManyPending));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_gives_up_does_not_take_the_turn_of_the_next() {
        let bulkhead = bulkhead(2);
        let turn = bulkhead.try_enter().unwrap();
        let (first, second, ()) = tokio::join!(bulkhead.enter(LIMIT / 2), bulkhead.enter(LIMIT), async {
            tokio::time::sleep(LIMIT / 2).await;
            drop(turn);
        });
        assert_eq!(usize::from(first.is_ok()) + usize::from(second.is_ok()), 1);
    }
}
