//! Bulkhead: a limit on calls at the same time, and on those that wait for their turn. Waiting itself is the caller's.
//!
//! Source: Envoy's `circuit_breakers.thresholds` (`max_requests`, `max_pending_requests`), resilience4j's semaphore
//! `Bulkhead`. Invariant: the counts never pass their limits, not even for a moment; one atomic each.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::range::{OutOfRange, within};

/// The limits of one bulkhead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConcurrencySpec {
    max: u32,
    pending: u32,
}

impl ConcurrencySpec {
    /// At most `max` calls at once (1 to 1000000); none may wait.
    pub fn new(max: u32) -> Result<Self, OutOfRange> {
        Ok(Self { max: within("limits.max", max, 1..=1_000_000)?, pending: 0 })
    }

    /// Lets `pending` more wait (0 to 1000000).
    pub fn with_pending(self, pending: u32) -> Result<Self, OutOfRange> {
        Ok(Self { pending: within("limits.pending", pending, 0..=1_000_000)?, ..self })
    }

    /// How many may wait.
    pub fn pending(&self) -> u32 {
        self.pending
    }
}

/// As many calls are under way as may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{max} calls are in flight, which is the limit")]
pub struct Full {
    /// The limit.
    pub max: u32,
}

/// As many calls wait as may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{max} calls wait, which is the limit")]
pub struct QueueFull {
    /// The limit; 0 where none may wait.
    pub max: u32,
}

/// The counts of one backend or endpoint, shared by all its callers.
#[derive(Debug)]
pub struct Concurrency {
    spec: ConcurrencySpec,
    in_flight: AtomicU32,
    pending: AtomicU32,
}

impl Concurrency {
    /// Nothing under way.
    pub fn new(spec: ConcurrencySpec) -> Arc<Self> {
        Arc::new(Self { spec, in_flight: AtomicU32::new(0), pending: AtomicU32::new(0) })
    }

    /// What it was made with.
    pub fn spec(&self) -> ConcurrencySpec {
        self.spec
    }

    /// Begins a call.
    ///
    /// # Errors: the limit is reached; the caller may try [`Concurrency::try_wait`].
    pub fn try_acquire(self: &Arc<Self>) -> Result<InFlight, Full> {
        let max = self.spec.max;
        if take(&self.in_flight, max) { Ok(InFlight(Arc::clone(self))) } else { Err(Full { max }) }
    }

    /// Begins to wait. The caller drops the value when its call begins or is given up.
    ///
    /// # Errors: too many wait already.
    pub fn try_wait(self: &Arc<Self>) -> Result<Pending, QueueFull> {
        let max = self.spec.pending;
        if take(&self.pending, max) { Ok(Pending(Arc::clone(self))) } else { Err(QueueFull { max }) }
    }

    /// Calls under way.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Calls that wait.
    pub fn pending(&self) -> u32 {
        self.pending.load(Ordering::Relaxed)
    }
}

/// One call under way, until it is dropped.
#[must_use = "dropping it ends the call"]
#[derive(Debug)]
pub struct InFlight(Arc<Concurrency>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Release);
    }
}

/// One call that waits, until it is dropped.
#[must_use = "dropping it ends the wait"]
#[derive(Debug)]
pub struct Pending(Arc<Concurrency>);

impl Drop for Pending {
    fn drop(&mut self) {
        self.0.pending.fetch_sub(1, Ordering::Release);
    }
}

/// Adds one unless that would pass `max`.
pub(crate) fn take(count: &AtomicU32, max: u32) -> bool {
    count.try_update(Ordering::Acquire, Ordering::Relaxed, |count| (count < max).then(|| count + 1)).is_ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::AtomicU32;

    use super::*;

    #[test]
    fn a_dropped_call_makes_room_for_another() {
        let limit = Concurrency::new(ConcurrencySpec::new(2).unwrap());
        let first = limit.try_acquire().unwrap();
        let _second = limit.try_acquire().unwrap();
        assert_eq!(limit.try_acquire().unwrap_err(), Full { max: 2 });
        drop(first);
        assert!(limit.try_acquire().is_ok());
    }

    #[test]
    fn those_who_wait_are_bounded_too() {
        let limit = Concurrency::new(ConcurrencySpec::new(1).unwrap().with_pending(1).unwrap());
        let waiting = limit.try_wait().unwrap();
        assert_eq!((limit.in_flight(), limit.pending()), (0, 1));
        assert_eq!(limit.try_wait().unwrap_err(), QueueFull { max: 1 });
        drop(waiting);
        assert_eq!(limit.pending(), 0);
    }

    #[test]
    fn without_pending_nobody_waits() {
        let limit = Concurrency::new(ConcurrencySpec::new(1).unwrap());
        assert_eq!(limit.try_wait().unwrap_err(), QueueFull { max: 0 });
    }

    #[test]
    fn many_threads_never_pass_the_limit_and_leave_nothing_behind() {
        const MAX: u32 = 5;
        let limit = Concurrency::new(ConcurrencySpec::new(MAX).unwrap());
        let (inside, most, start) = (AtomicU32::new(0), AtomicU32::new(0), Barrier::new(32));
        std::thread::scope(|scope| {
            for _ in 0..32 {
                scope.spawn(|| {
                    start.wait();
                    for _ in 0..2000 {
                        if let Ok(_call) = limit.try_acquire() {
                            most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                            std::thread::yield_now();
                            inside.fetch_sub(1, Ordering::SeqCst);
                        }
                    }
                });
            }
        });
        assert!((1..=MAX).contains(&most.into_inner()));
        assert_eq!(limit.in_flight(), 0);
    }
}
