//! Token buckets by key, in a table of fixed size.
//!
//! A key has one set of [`WAYS`] slots, found by half of its hash, and in it a slot with the other half. A slot is an
//! arrival time: a bucket whose arrival time has passed is full, which is the same as no bucket, and its slot is free.
//! Where none is free, a new key takes the slot of the bucket that would be full soonest (the metric is
//! [`Buckets::evictions`]), which forgets the least, and in effect the one used least recently.
//!
//! Invariants: memory is fixed when the table is made, and nothing is allocated later. A decision locks one set, for some
//! nanoseconds, and never two unless [`take_all`](crate::take_all) does, in the order of their addresses. In a set time
//! does not run back: an earlier `now` than the last counts as the last. Without evictions a key never gets more than its
//! burst and its rate.
//!
//! # A flood of keys
//!
//! Ten million keys that nobody has seen take no memory: they pass through the slots that the table has. A key in use that
//! owes time (is not full) is forgotten only when each other bucket in its set owes at least as much. So, with the same
//! limit for all keys of a table:
//!
//! - An exhausted key stays refused unless the six others in its set are exhausted as well. Nobody can find keys of one set
//!   without the seed: it takes some capacity-times-burst units, within the time in which a burst refills, to have a table
//!   forget exhausted keys.
//! - Keys of a flood with one request each owe little, so they take one another's slots. They make the table forget a key
//!   that owes more than one request only where all seven of a set are such keys, and then the one that owes least.
//! - All that is ever admitted above the limits is at most the sum of what each eviction forgot, which is never more than a
//!   burst and a debt. Whoever can make up keys has as many full buckets for nothing.
//! - A flood slower than half the capacity in the time for one unit to come back evicts almost nothing: its slots are free
//!   again.
//!
//! Limits that refill in an hour owe more than limits that refill in a second. Give each rule a table of its own where one
//! rule must not forget for the sake of another.

use std::{
    num::NonZeroUsize,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use parking_lot::{Mutex, MutexGuard};

use crate::{Decision, Key, Limit, limit::Ticks};

/// Slots of a set: with the lock and the time they fill 128 bytes.
pub const WAYS: usize = 7;

/// Buckets by key. Shared by threads; one table may serve keys with different limits (tiers).
///
/// `now` is the time since an origin that all calls share, at most seven years ago; after that, time stands still.
///
/// Two keys share a bucket if all 64 bits of their fingerprints and their sets agree: for n keys and s sets the odds that
/// any two do are n² / (s · 2^65); for ten million keys in a table for a million 2 · 10^-11.
#[derive(Debug)]
pub struct Buckets {
    sets: Box<[Set]>,
    evictions: AtomicU64,
}

/// Two cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Set(Mutex<Entries>);

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Entries {
    slots: [Slot; WAYS],
    /// The latest time that a caller passed in.
    latest: Ticks,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    /// 0 in a slot never used; a key with that fingerprint is at home in such a slot like in its own.
    fingerprint: u64,
    arrival: Ticks,
}

/// Whether a bucket that was not full had to make room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Eviction {
    None,
    NotFull,
}

impl Buckets {
    /// A table for at least `max_keys` buckets that are not full, rounded up to a multiple of [`WAYS`]; some 18.3 bytes each.
    /// Allocates all of it.
    ///
    /// Keys do not spread evenly. With half as many keys in use as there are slots, 1.2 % of them find their set full; with
    /// a quarter 0.03 %.
    pub fn new(max_keys: NonZeroUsize) -> Self {
        let sets = (0..max_keys.get().div_ceil(WAYS)).map(|_| Set::default()).collect();
        Self { sets, evictions: AtomicU64::new(0) }
    }

    /// Slots of the table.
    pub fn capacity(&self) -> usize {
        self.sets.len() * WAYS
    }

    /// Takes `cost` units, or none. A cost of 0 passes even in debt; a refused cost takes no slot.
    pub fn take(&self, key: Key, limit: &Limit, cost: u64, now: Duration) -> Decision {
        let (decision, eviction) = self.set(key).lock().take(key.fingerprint(), limit, cost, Ticks::at(now));
        self.count(eviction);
        decision
    }

    /// What [`Self::take`] would say; takes nothing.
    pub fn peek(&self, key: Key, limit: &Limit, cost: u64, now: Duration) -> Decision {
        self.set(key).lock().peek(key.fingerprint(), limit, cost, Ticks::at(now))
    }

    /// Takes a cost that is known only afterwards: see [`Bucket::charge`](crate::Bucket::charge).
    pub fn charge(&self, key: Key, limit: &Limit, cost: u64, now: Duration) {
        let eviction = self.set(key).lock().charge(key.fingerprint(), limit, cost, Ticks::at(now));
        self.count(eviction);
    }

    /// Gives back units that were taken: see [`Bucket::refund`](crate::Bucket::refund). Nothing to do for a key that was
    /// forgotten.
    pub fn refund(&self, key: Key, limit: &Limit, cost: u64) {
        self.set(key).lock().refund(key.fingerprint(), limit, cost);
    }

    /// How many buckets that were not full were forgotten since the start, to make room. Grows where the table is too small
    /// or keys are being made up.
    pub fn evictions(&self) -> u64 {
        self.evictions.load(Ordering::Relaxed)
    }

    /// How many buckets are not full. Looks at every slot, so it is for a gauge that is read now and then.
    pub fn in_use(&self, now: Duration) -> usize {
        let now = Ticks::at(now);
        self.sets.iter().map(|set| set.lock().slots.iter().filter(|slot| slot.arrival > now).count()).sum()
    }

    pub(crate) fn set(&self, key: Key) -> &Set {
        // The upper half of place * sets: even, without a division, and below the number of sets.
        let index = (u128::from(key.place()) * self.sets.len() as u128) >> 64;
        #[expect(clippy::cast_possible_truncation, reason = "less than the number of sets, which is a usize")]
        #[expect(clippy::indexing_slicing, reason = "a 64-bit number times n, shifted by 64, is below n, and n > 0")]
        &self.sets[index as usize]
    }

    pub(crate) fn count(&self, eviction: Eviction) {
        if eviction == Eviction::NotFull {
            self.evictions.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Set {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Entries> {
        self.0.lock()
    }
}

impl Entries {
    pub(crate) fn take(&mut self, fingerprint: u64, limit: &Limit, cost: u64, now: Ticks) -> (Decision, Eviction) {
        let now = self.advance(now);
        if let Some(slot) = self.slot(fingerprint) {
            let (decision, next) = limit.take(slot.arrival, cost, now);
            slot.arrival = next.unwrap_or(slot.arrival);
            return (decision, Eviction::None);
        }
        let (decision, next) = limit.take(Ticks::default(), cost, now);
        let eviction = next.map_or(Eviction::None, |arrival| self.insert(Slot { fingerprint, arrival }, now));
        (decision, eviction)
    }

    pub(crate) fn peek(&mut self, fingerprint: u64, limit: &Limit, cost: u64, now: Ticks) -> Decision {
        let now = self.advance(now);
        limit.peek(self.slot(fingerprint).map_or(Ticks::default(), |slot| slot.arrival), cost, now)
    }

    fn charge(&mut self, fingerprint: u64, limit: &Limit, cost: u64, now: Ticks) -> Eviction {
        let now = self.advance(now);
        if let Some(slot) = self.slot(fingerprint) {
            slot.arrival = limit.charge(slot.arrival, cost, now);
            return Eviction::None;
        }
        let arrival = limit.charge(Ticks::default(), cost, now);
        self.insert(Slot { fingerprint, arrival }, now)
    }

    fn refund(&mut self, fingerprint: u64, limit: &Limit, cost: u64) {
        if let Some(slot) = self.slot(fingerprint) {
            slot.arrival = limit.refund(slot.arrival, cost);
        }
    }

    fn advance(&mut self, now: Ticks) -> Ticks {
        self.latest = self.latest.max(now);
        self.latest
    }

    fn slot(&mut self, fingerprint: u64) -> Option<&mut Slot> {
        self.slots.iter_mut().find(|slot| slot.fingerprint == fingerprint)
    }

    /// Puts it in the place of the bucket that is full or will be soonest.
    fn insert(&mut self, new: Slot, now: Ticks) -> Eviction {
        let [first, others @ ..] = &mut self.slots;
        let soonest = others.iter_mut().fold(first, |a, b| if b.arrival < a.arrival { b } else { a });
        let eviction = if soonest.arrival > now { Eviction::NotFull } else { Eviction::None };
        *soonest = new;
        eviction
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, thread};

    use proptest::prelude::*;

    use super::*;
    use crate::{Bucket, KeyBuilder, KeySeed, Verdict};

    fn key(number: u64) -> Key {
        KeyBuilder::new(&KeySeed::new([7; 16])).constant(&number.to_string()).finish()
    }

    fn table(max_keys: usize) -> Buckets {
        Buckets::new(NonZeroUsize::new(max_keys).unwrap())
    }

    fn per_second(rate: u64, burst: u64) -> Limit {
        Limit::new(rate, Duration::from_secs(1), burst).unwrap()
    }

    const fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_set_fills_two_cache_lines() {
        assert_eq!((size_of::<Set>(), align_of::<Set>()), (128, 128));
    }

    #[test]
    fn each_key_has_a_bucket_of_its_own() {
        let (buckets, limit) = (table(100), per_second(1, 1));
        assert!(buckets.take(key(1), &limit, 1, millis(0)).is_allowed());
        assert!(buckets.take(key(2), &limit, 1, millis(0)).is_allowed());
        assert_eq!(buckets.take(key(1), &limit, 1, millis(400)).verdict, Verdict::RetryAfter(millis(600)));
        assert_eq!(buckets.in_use(millis(400)), 2);
        assert_eq!(buckets.in_use(millis(1000)), 0);
    }

    #[test]
    fn a_full_bucket_makes_room_without_being_missed() {
        let (buckets, limit) = (table(1), per_second(1, 1));
        assert_eq!(buckets.capacity(), WAYS);
        for round in 0..10 {
            for number in 0..7 {
                assert!(buckets.take(key(round * 7 + number), &limit, 1, Duration::from_secs(round)).is_allowed());
            }
        }
        assert_eq!(buckets.evictions(), 0);
    }

    #[test]
    fn where_no_bucket_is_full_the_one_that_owes_least_makes_room() {
        let (buckets, limit) = (table(1), per_second(1, 10));
        for number in 0..7 {
            buckets.take(key(number), &limit, number + 1, millis(0));
        }
        assert!(buckets.take(key(100), &limit, 5, millis(0)).is_allowed());
        assert_eq!(buckets.evictions(), 1);
        assert_eq!(buckets.peek(key(0), &limit, 1, millis(0)).remaining, 10, "forgotten");
        assert_eq!(buckets.peek(key(1), &limit, 1, millis(0)).remaining, 8, "kept");
    }

    #[test]
    fn what_is_refused_or_costs_nothing_takes_no_slot() {
        let (buckets, limit) = (table(1), per_second(1, 10));
        for number in 0..100 {
            assert_eq!(buckets.take(key(number), &limit, 11, millis(0)).verdict, Verdict::CostAboveBurst);
            assert!(buckets.take(key(number), &limit, 0, millis(0)).is_allowed());
            buckets.refund(key(number), &limit, 1);
        }
        assert_eq!(buckets.in_use(millis(0)), 0);
    }

    #[test]
    fn a_late_charge_and_a_refund_reach_the_key() {
        let (buckets, limit) = (table(100), per_second(10, 5));
        buckets.charge(key(1), &limit, 8, millis(0));
        assert_eq!(buckets.peek(key(1), &limit, 1, millis(0)).verdict, Verdict::RetryAfter(millis(400)));
        buckets.refund(key(1), &limit, 4);
        assert_eq!(buckets.peek(key(1), &limit, 1, millis(0)).remaining, 1);
    }

    #[test]
    fn an_earlier_time_than_the_last_does_not_bring_back_a_key_that_was_full_then() {
        // The bucket of key 0 is full at 1 s and makes room; at 0.5 s it would have been empty.
        let (buckets, limit) = (table(1), per_second(1, 1));
        assert!(buckets.take(key(0), &limit, 1, millis(0)).is_allowed());
        for number in 1..8 {
            buckets.take(key(number), &limit, 1, millis(1000));
        }
        assert!(buckets.take(key(0), &limit, 1, millis(500)).is_allowed(), "it is one second");
        assert!(!buckets.take(key(0), &limit, 1, millis(1500)).is_allowed());
    }

    #[test]
    fn threads_with_the_same_keys_never_pass_the_burst_and_the_rate() {
        let (buckets, limit) = (table(64), per_second(1_000_000, 100));
        let last = Duration::from_micros(500);
        let counts: Vec<Vec<u64>> = thread::scope(|scope| {
            let run = || {
                let mut admitted = vec![0; 8];
                for step in 0..4000 {
                    for number in 0..8u32 {
                        let now = last * step / 3999;
                        let decision = buckets.take(key(number.into()), &limit, 1, now);
                        admitted[number as usize] += u64::from(decision.is_allowed());
                    }
                }
                admitted
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(run)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        for number in 0..8 {
            let admitted: u64 = counts.iter().map(|counts| counts[number]).sum();
            assert!((590..=600).contains(&admitted), "{admitted}");
        }
        assert_eq!(buckets.evictions(), 0);
    }

    #[test]
    fn keys_with_one_request_each_take_one_slot_of_a_set_of_keys_that_owe_more() {
        let (buckets, limit) = (table(1), per_second(1, 10));
        for number in 0..7 {
            buckets.take(key(number), &limit, number + 3, millis(0));
        }
        for number in 100..1000 {
            assert!(buckets.take(key(number), &limit, 1, millis(number)).is_allowed());
        }
        let remaining = |number| buckets.peek(key(number), &limit, 1, millis(1000)).remaining;
        assert_eq!([0, 1, 2, 3, 4, 5, 6].map(remaining), [10, 7, 6, 5, 4, 3, 2], "the first was forgotten");
    }

    proptest! {
        #[test]
        fn a_table_with_room_decides_as_a_bucket_for_each_key(
            rate in 1u64..10_000,
            burst in 1u64..20,
            calls in prop::collection::vec((0u64..20, 0u64..50_000_000, 0u64..6, any::<bool>()), 1..200),
        ) {
            let limit = per_second(rate, burst);
            let buckets = table(10_000);
            let mut oracle: HashMap<u64, Bucket> = HashMap::new();
            let mut now = Duration::ZERO;
            for (number, wait, cost, is_late) in calls {
                now += Duration::from_nanos(wait);
                let bucket = oracle.entry(number).or_default();
                if is_late {
                    buckets.charge(key(number), &limit, cost, now);
                    bucket.charge(&limit, cost, now);
                } else {
                    let ours = buckets.take(key(number), &limit, cost, now);
                    prop_assert_eq!(ours, bucket.take(&limit, cost, now));
                }
            }
            prop_assert_eq!(buckets.evictions(), 0);
        }

        #[test]
        fn a_table_without_room_admits_above_the_limits_only_what_evictions_forgot(
            calls in prop::collection::vec((0u64..40, 0u64..100_000_000), 1..400),
        ) {
            // One set, one unit at a time: an eviction forgets at most what the newcomer's set owes least, here below
            // the burst.
            let limit = per_second(10, 3);
            let buckets = table(1);
            let mut admitted: u64 = 0;
            let mut strict: u64 = 0;
            let mut oracle: HashMap<u64, Bucket> = HashMap::new();
            let mut now = Duration::ZERO;
            for (number, wait) in calls {
                now += Duration::from_nanos(wait);
                admitted += u64::from(buckets.take(key(number), &limit, 1, now).is_allowed());
                strict += u64::from(oracle.entry(number).or_default().take(&limit, 1, now).is_allowed());
            }
            prop_assert!(admitted >= strict, "a table forgives, it never refuses more");
            prop_assert!(admitted <= strict + 3 * buckets.evictions());
        }
    }
}
