//! Several buckets at once: all of them give, or none does.
//!
//! Invariant: one atomic step. The sets of all buckets are locked in the order of their addresses, so calls of several
//! threads come out as if made one after another: nothing is admitted above a limit, and nothing is refused that would
//! pass in that order. Nothing but arithmetic is done while they are locked.

use std::time::Duration;

use parking_lot::MutexGuard;

use crate::{
    Buckets, Decision, Key, Limit, Verdict,
    buckets::{Entries, Eviction, Set},
    limit::Ticks,
};

/// The most buckets that one call takes from: what a chain of Gateway, listener, route and rule may ask for together.
pub const MAX_CLAIMS: usize = 24;

/// A cost for one bucket.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// The table of the bucket.
    pub buckets: &'a Buckets,
    /// Whose bucket it is. Two claims on one bucket add up.
    pub key: Key,
    /// The limit it keeps.
    pub limit: Limit,
    /// In units. 0 always passes.
    pub cost: u64,
}

/// More than [`MAX_CLAIMS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} buckets at once, and {MAX_CLAIMS} at most")]
pub struct TooManyClaims(pub usize);

/// What all buckets together said.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    verdict: Verdict,
    decisions: [Option<Decision>; MAX_CLAIMS],
}

impl Taken {
    /// The severest of the verdicts: `Allowed` where all costs were taken; else none was, and the same claims pass after
    /// the longest of the waits.
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// What each bucket said for itself, in the order of the claims. Where nothing was taken, `remaining` is what there is
    /// without the cost.
    pub fn decisions(&self) -> impl Iterator<Item = &Decision> {
        self.decisions.iter().flatten()
    }
}

/// Takes every cost, or none.
pub fn take_all(claims: &[Claim<'_>], now: Duration) -> Result<Taken, TooManyClaims> {
    if claims.len() > MAX_CLAIMS {
        return Err(TooManyClaims(claims.len()));
    }
    let now = Ticks::at(now);
    let mut held = lock(claims);
    let mut decisions = [None; MAX_CLAIMS];
    let mut evictions = [Eviction::None; MAX_CLAIMS];
    for Held { address, entries, .. } in held.iter_mut().flatten() {
        let places = decisions.iter_mut().zip(&mut evictions);
        let of_set = claims.iter().zip(places).filter(|(claim, _)| address_of(set_of(claim)) == *address);
        for (claim, (decision, eviction)) in of_set {
            let (said, made_room) = entries.take(claim.key.fingerprint(), &claim.limit, claim.cost, now);
            (*decision, *eviction) = (Some(said), made_room);
        }
    }
    let verdict = decisions.iter().flatten().map(|decision| decision.verdict).max().unwrap_or_default();
    if verdict == Verdict::Allowed {
        for (claim, eviction) in claims.iter().zip(evictions) {
            claim.buckets.count(eviction);
        }
    } else {
        for Held { address, entries, before } in held.iter_mut().flatten() {
            **entries = *before;
            let of_set = claims.iter().zip(&mut decisions).filter(|(claim, _)| address_of(set_of(claim)) == *address);
            for (claim, decision) in of_set {
                *decision = Some(entries.peek(claim.key.fingerprint(), &claim.limit, claim.cost, now));
            }
        }
    }
    Ok(Taken { verdict, decisions })
}

/// A set that is locked.
struct Held<'a> {
    address: usize,
    entries: MutexGuard<'a, Entries>,
    /// As it was found.
    before: Entries,
}

/// Each set once, in the order of addresses.
fn lock<'a>(claims: &[Claim<'a>]) -> [Option<Held<'a>>; MAX_CLAIMS] {
    let mut held: [Option<Held<'a>>; MAX_CLAIMS] = Default::default();
    let mut last = 0;
    for place in &mut held {
        let later = claims.iter().map(set_of).filter(|set| address_of(set) > last);
        let Some(set) = later.min_by_key(|set| address_of(set)) else { break };
        last = address_of(set);
        let entries = set.lock();
        *place = Some(Held { address: last, before: *entries, entries });
    }
    held
}

fn set_of<'a>(claim: &Claim<'a>) -> &'a Set {
    claim.buckets.set(claim.key)
}

fn address_of(set: &Set) -> usize {
    std::ptr::from_ref(set).addr()
}

#[cfg(test)]
mod tests {
    use std::{num::NonZeroUsize, thread};

    use proptest::prelude::*;

    use super::*;
    use crate::{Bucket, KeyBuilder, KeySeed};

    fn key(number: usize) -> Key {
        KeyBuilder::new(&KeySeed::new([7; 16])).constant(&number.to_string()).finish()
    }

    fn table(max_keys: usize) -> Buckets {
        Buckets::new(NonZeroUsize::new(max_keys).unwrap())
    }

    fn per_second(rate: u64, burst: u64) -> Limit {
        Limit::new(rate, Duration::from_secs(1), burst).unwrap()
    }

    const NOW: Duration = Duration::from_secs(5);

    #[test]
    fn where_one_bucket_refuses_the_others_keep_what_they_have() {
        let buckets = table(100);
        let claim =
            |number, burst, cost| Claim { buckets: &buckets, key: key(number), limit: per_second(1, burst), cost };
        let claims = [claim(1, 10, 2), claim(2, 2, 2), claim(3, 10, 1)];
        assert_eq!(take_all(&claims, NOW).unwrap().verdict(), Verdict::Allowed);
        let refused = take_all(&claims, NOW).unwrap();
        assert_eq!(refused.verdict(), Verdict::RetryAfter(Duration::from_secs(2)));
        let verdicts: Vec<_> = refused.decisions().map(|decision| (decision.verdict, decision.remaining)).collect();
        assert_eq!(
            verdicts,
            [(Verdict::Allowed, 8), (Verdict::RetryAfter(Duration::from_secs(2)), 0), (Verdict::Allowed, 9)]
        );
        assert_eq!(buckets.peek(key(1), &per_second(1, 10), 1, NOW).remaining, 8);
        assert_eq!(buckets.peek(key(3), &per_second(1, 10), 1, NOW).remaining, 9);
    }

    #[test]
    fn a_refused_newcomer_evicts_nobody() {
        let (buckets, other) = (table(1), table(1));
        let limit = per_second(1, 10);
        for number in 0..7 {
            buckets.take(key(number), &limit, 3, NOW);
        }
        let claims = [
            Claim { buckets: &buckets, key: key(100), limit, cost: 1 },
            Claim { buckets: &other, key: key(100), limit, cost: 11 },
        ];
        assert_eq!(take_all(&claims, NOW).unwrap().verdict(), Verdict::CostAboveBurst);
        assert_eq!(buckets.evictions(), 0);
        assert!((0..7).all(|number| buckets.peek(key(number), &limit, 1, NOW).remaining == 7));
    }

    #[test]
    fn two_claims_on_one_bucket_add_up() {
        let buckets = table(100);
        let claim = Claim { buckets: &buckets, key: key(1), limit: per_second(1, 3), cost: 2 };
        assert_eq!(take_all(&[claim, claim], NOW).unwrap().verdict(), Verdict::RetryAfter(Duration::from_secs(1)));
        assert_eq!(buckets.peek(key(1), &claim.limit, 1, NOW).remaining, 3);
    }

    #[test]
    fn no_claims_pass_and_too_many_are_an_error() {
        let buckets = table(100);
        let claim = Claim { buckets: &buckets, key: key(1), limit: per_second(1, 100), cost: 1 };
        assert_eq!(take_all(&[], NOW).unwrap().verdict(), Verdict::Allowed);
        assert_eq!(take_all(&[claim; MAX_CLAIMS], NOW).unwrap().decisions().count(), MAX_CLAIMS);
        let too_many = take_all(&[claim; MAX_CLAIMS + 1], NOW);
        assert_eq!(too_many.unwrap_err(), TooManyClaims(MAX_CLAIMS + 1));
    }

    #[test]
    fn threads_that_take_from_overlapping_buckets_in_any_order_are_exact() {
        // Time stands still, so that the tokens are a fixed number: what is taken in twos and ones comes out even.
        let buckets = table(1000);
        let limit = per_second(1, 3000);
        let claim = |number| Claim { buckets: &buckets, key: key(number), limit, cost: 1 };
        let counts: Vec<[u64; 3]> = thread::scope(|scope| {
            let run = || {
                let mut admitted = [0; 3];
                for _ in 0..3000 {
                    for (first, second) in [(0, 1), (2, 1), (2, 0), (1, 0)] {
                        let taken = take_all(&[claim(first), claim(second)], NOW).unwrap();
                        if taken.verdict() == Verdict::Allowed {
                            admitted[first] += 1;
                            admitted[second] += 1;
                        }
                    }
                }
                admitted
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(run)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let mut left = 0;
        for number in 0..3 {
            let admitted: u64 = counts.iter().map(|counts| counts[number]).sum();
            let remaining = buckets.peek(key(number), &limit, 1, NOW).remaining;
            assert_eq!(admitted + remaining, 3000, "key {number}: all or none");
            left += usize::from(remaining > 0);
        }
        assert!(left <= 1, "every pair was asked for until one of it was empty");
    }

    proptest! {
        #[test]
        fn all_or_none_is_what_buckets_say_one_by_one(
            limits in prop::collection::vec((1u64..1000, 1u64..10), 4),
            calls in prop::collection::vec((0u64..10_000_000, prop::collection::vec((0usize..4, 0u64..4), 0..4)), 1..100),
        ) {
            let buckets = table(1000);
            let limits: Vec<Limit> = limits.iter().map(|(rate, burst)| per_second(*rate, *burst)).collect();
            let oracle: Vec<Bucket> = limits.iter().map(|_| Bucket::default()).collect();
            let mut now = Duration::ZERO;
            for (wait, mut parts) in calls {
                now += Duration::from_nanos(wait);
                parts.sort_unstable();
                parts.dedup_by_key(|part| part.0);
                let claims: Vec<Claim<'_>> = parts
                    .iter()
                    .map(|(number, cost)| {
                        Claim { buckets: &buckets, key: key(*number), limit: limits[*number], cost: *cost }
                    })
                    .collect();
                let taken = take_all(&claims, now).unwrap();
                let all = parts.iter().all(|(number, cost)| oracle[*number].peek(&limits[*number], *cost, now).is_allowed());
                prop_assert_eq!(taken.verdict() == Verdict::Allowed, all);
                let expected: Vec<Decision> = parts
                    .iter()
                    .map(|(number, cost)| {
                        let (bucket, limit) = (&oracle[*number], &limits[*number]);
                        if all { bucket.take(limit, *cost, now) } else { bucket.peek(limit, *cost, now) }
                    })
                    .collect();
                prop_assert_eq!(taken.decisions().copied().collect::<Vec<_>>(), expected);
            }
        }
    }
}
