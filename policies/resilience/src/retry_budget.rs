//! Retry budget: retries may be a share of the calls of the last while, plus a few for those who call seldom. So retries
//! cannot multiply the load of a backend in trouble.
//!
//! Source: Finagle's `RetryBudget` (a leaky bucket over ten slots), Gateway API `retryConstraint` (GEP-3388).
//! Invariant: over the slots of a window, retries are at most the share of calls plus the minimum. A call costs one
//! atomic update; a retry takes a short lock, so that two cannot spend the same balance.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::range::{HOUR, MILLISECOND, OutOfRange, nanos, within};

const SLOTS: u32 = 10;
const SECOND: Duration = Duration::from_secs(1);

/// The settings of a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryBudgetSpec {
    percent: u8,
    window: Duration,
    /// Retries a window without any call.
    minimum: u32,
}

impl RetryBudgetSpec {
    /// Retries may be `percent` (0 to 100) of the calls of the last `window` (1 s to 1 h), and `count` (0 to 100000) each
    /// `interval` (1 ms to 1 h) beyond that, rounded down to a whole number of retries in a window.
    pub fn new(percent: u8, window: Duration, count: u32, interval: Duration) -> Result<Self, OutOfRange> {
        let percent = within("retryBudget.percent", percent, 0..=100)?;
        let window = within("retryBudget.window", window, SECOND..=HOUR)?;
        let count = within("retryBudget.minimum.count", count, 0..=100_000)?;
        let interval = within("retryBudget.minimum.interval", interval, MILLISECOND..=HOUR)?;
        let minimum = u128::from(count) * window.as_nanos() / interval.as_nanos().max(1);
        Ok(Self { percent, window, minimum: u32::try_from(minimum).unwrap_or(u32::MAX) })
    }
}

/// No retry may be made now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the retry budget is spent")]
pub struct BudgetSpent;

/// The budget of one backend, shared by all its callers.
#[derive(Debug)]
pub struct RetryBudget {
    spec: RetryBudgetSpec,
    calls: Slots,
    retries: Slots,
    /// Held while a retry compares and spends.
    spending: Mutex<()>,
}

impl RetryBudget {
    /// A budget with its minimum in it.
    pub fn new(spec: RetryBudgetSpec) -> Self {
        Self { spec, calls: Slots::default(), retries: Slots::default(), spending: Mutex::new(()) }
    }

    /// What it was made with.
    pub fn spec(&self) -> RetryBudgetSpec {
        self.spec
    }

    /// Counts a call of a client. Its retries are not counted here.
    pub fn deposit(&self, now: Duration) {
        self.calls.add(self.slot(now));
    }

    /// Asks to make a retry, and counts it.
    pub fn try_withdraw(&self, now: Duration) -> Result<(), BudgetSpent> {
        let slot = self.slot(now);
        let _spending = self.spending.lock();
        if self.balance_at(slot) == 0 {
            return Err(BudgetSpent);
        }
        self.retries.add(slot);
        Ok(())
    }

    /// Retries that may be made now.
    pub fn balance(&self, now: Duration) -> u64 {
        self.balance_at(self.slot(now))
    }

    fn balance_at(&self, slot: u32) -> u64 {
        let earned = self.calls.sum(slot) * u64::from(self.spec.percent) / 100;
        (earned + u64::from(self.spec.minimum)).saturating_sub(self.retries.sum(slot))
    }

    /// The number of the slot that `now` is in.
    fn slot(&self, now: Duration) -> u32 {
        let width = nanos(self.spec.window / SLOTS).max(1);
        u32::try_from(nanos(now) / width).unwrap_or(u32::MAX)
    }
}

/// A ring of counts. Each holds the number of its slot in the upper half, its count in the lower.
#[derive(Debug, Default)]
struct Slots([AtomicU64; SLOTS as usize]);

impl Slots {
    /// A slot that is older than what its place holds counts there.
    fn add(&self, slot: u32) {
        let Some(place) = self.0.get((slot % SLOTS) as usize) else { return };
        place.update(Ordering::Relaxed, Ordering::Relaxed, |held| {
            let (number, count) = split(held);
            if number < slot { join(slot, 1) } else { join(number, count.saturating_add(1)) }
        });
    }

    fn sum(&self, slot: u32) -> u64 {
        let held = self.0.iter().map(|place| split(place.load(Ordering::Relaxed)));
        held.filter(|(number, _)| u64::from(*number) + u64::from(SLOTS) > u64::from(slot))
            .map(|(_, count)| u64::from(count))
            .sum()
    }
}

fn split(held: u64) -> (u32, u32) {
    #[expect(clippy::cast_possible_truncation, reason = "each half is taken on its own")]
    ((held >> 32) as u32, held as u32)
}

fn join(slot: u32, count: u32) -> u64 {
    u64::from(slot) << 32 | u64::from(count)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn budget(percent: u8, per_second: u32) -> RetryBudget {
        RetryBudget::new(RetryBudgetSpec::new(percent, at(10), per_second, at(1)).unwrap())
    }

    fn spend(budget: &RetryBudget, now: Duration) -> usize {
        std::iter::from_fn(|| budget.try_withdraw(now).ok()).take(10_000).count()
    }

    #[test]
    fn a_share_of_the_calls_may_be_retried() {
        let budget = budget(20, 0);
        assert_eq!(budget.try_withdraw(at(0)), Err(BudgetSpent));
        (0..100).for_each(|_| budget.deposit(at(1)));
        assert_eq!(spend(&budget, at(2)), 20);
    }

    #[test]
    fn the_minimum_is_there_without_a_call() {
        let budget = budget(20, 3);
        assert_eq!(spend(&budget, at(0)), 30);
        assert_eq!(spend(&budget, at(9)), 0);
        assert_eq!(spend(&budget, at(10)), 30);
    }

    #[test]
    fn a_minimum_of_less_than_one_a_second_is_kept() {
        let spec = RetryBudgetSpec::new(0, at(10), 1, at(5)).unwrap();
        assert_eq!(spend(&RetryBudget::new(spec), at(0)), 2);
    }

    #[test]
    fn calls_are_forgotten_after_the_window() {
        let budget = budget(50, 0);
        (0..10).for_each(|_| budget.deposit(at(0)));
        assert_eq!(budget.balance(at(9)), 5);
        assert_eq!(budget.balance(at(10)), 0);
    }

    #[test]
    fn threads_together_spend_no_more_than_there_is() {
        let budget = budget(10, 0);
        let spent: usize = std::thread::scope(|scope| {
            let deposits: Vec<_> =
                (0..8).map(|_| scope.spawn(|| (0..1000).for_each(|_| budget.deposit(at(5))))).collect();
            for thread in deposits {
                thread.join().unwrap();
            }
            let spenders: Vec<_> = (0..8).map(|_| scope.spawn(|| spend(&budget, at(5)))).collect();
            spenders.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(spent, 800);
    }

    #[test]
    fn two_threads_never_spend_the_same_retry() {
        let spec = RetryBudgetSpec::new(0, at(1), 1, at(1)).unwrap();
        let budgets: Vec<_> = (0..100_000).map(|_| RetryBudget::new(spec)).collect();
        let start = std::sync::Barrier::new(4);
        let spent: usize = std::thread::scope(|scope| {
            let spend_all = || {
                start.wait();
                budgets.iter().filter(|budget| budget.try_withdraw(at(0)).is_ok()).count()
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(spend_all)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(spent, budgets.len());
    }

    proptest! {
        #[test]
        fn the_balance_is_that_of_a_list_of_all_calls_and_retries(
            percent in 0u8..=100,
            minimum in 0u32..3,
            steps in prop::collection::vec((prop_oneof![0u64..200, 0u64..30_000], any::<bool>()), 0..300),
        ) {
            let budget = budget(percent, minimum);
            let (mut calls, mut retries, mut now): (Vec<u64>, Vec<u64>, u64) = (vec![], vec![], 0);
            for (gap, is_retry) in steps {
                now += gap;
                let recent = |times: &[u64]| times.iter().filter(|time| *time / 1000 + 10 > now / 1000).count() as u64;
                let earned = recent(&calls) * u64::from(percent) / 100 + u64::from(minimum) * 10;
                if is_retry {
                    let allowed = recent(&retries) < earned;
                    prop_assert_eq!(budget.try_withdraw(Duration::from_millis(now)).is_ok(), allowed);
                    if allowed {
                        retries.push(now);
                    }
                } else {
                    budget.deposit(Duration::from_millis(now));
                    calls.push(now);
                }
            }
        }
    }
}
