//! Tokens that were accepted a moment ago, so that the same token is not checked for each request: a lookup costs a
//! fraction of a microsecond, a signature tens.
//!
//! Invariant: an entry is found only under the policy and the keys that accepted it, and before its token's `exp`.
//! Holds no token's text. Never allocates on a lookup.
//!
//! An entry's key is SipHash-2-4 with 128 bits over policy, keys and token, under a secret seed; nothing else of the
//! token is compared. To pass as another token one would have to forge a tag of that MAC, without ever seeing one: 2^-128
//! a try. (Best known differential: 2^-236.3; Dobraunig, Mendel, Schläffer 2014.) SHA-256 would need no seed, and costs
//! two to three times as much for a token of 700 bytes; SipHash-1-3 costs half, and is made for tables, not for this.
//!
//! Refused tokens are not kept. An attacker varies them at no cost, so they would only push each other out; and an
//! unknown key may be known a moment later.

use std::hash::Hasher as _;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use siphasher::sip128::{Hasher128 as _, SipHasher24};

use crate::key::sha256;
use crate::key_set::KeySet;
use crate::reason::Reason;
use crate::verifier::{UnixTime, Verified, Verifier};

/// Most entries of one cache.
pub const MAX_CACHE_ENTRIES: usize = 1 << 20;
/// Longest time that an entry may be used.
pub const MAX_CACHE_TIME: Duration = Duration::from_hours(1);
/// Entries under one lock. A new one takes the place of an expired one, or else of the one used longest ago.
const WAYS: usize = 8;

/// Why a cache is not built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCache {
    /// 0 or more than [`MAX_CACHE_ENTRIES`].
    #[error("a cache has 1 to {MAX_CACHE_ENTRIES} entries")]
    Entries,
    /// Less than a second or more than [`MAX_CACHE_TIME`].
    #[error("an entry is used for 1 to {} seconds", MAX_CACHE_TIME.as_secs())]
    Time,
}

/// A policy with the keys of its issuers. To edit the one or to rotate the others is to build a new pair, which finds no
/// entry of the old one; a pair equal to an earlier one finds them.
#[derive(Clone, Debug)]
pub struct BoundVerifier {
    verifier: Arc<Verifier>,
    keys: Arc<KeySet>,
    fingerprint: [u8; 32],
}

impl BoundVerifier {
    /// Costs two blocks of SHA-256; once for each change of either.
    pub fn new(verifier: Arc<Verifier>, keys: Arc<KeySet>) -> Self {
        let fingerprint = sha256([*verifier.fingerprint(), *keys.fingerprint()].as_flattened());
        Self { verifier, keys, fingerprint }
    }

    /// The policy.
    pub fn verifier(&self) -> &Verifier {
        &self.verifier
    }

    /// The keys.
    pub fn keys(&self) -> &KeySet {
        &self.keys
    }
}

/// Whether the cache had the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// It had.
    Hit,
    /// The token was checked.
    Miss,
}

/// Accepted tokens. May be shared by all threads, or each may have its own: a lock guards eight
/// entries and is held while they are looked at. It takes some 50 bytes for each entry from the start, and the claims'
/// own for each that is used.
pub struct TokenCache {
    seed: [u8; 16],
    longest: u64,
    sets: Box<[Mutex<Set>]>,
}

#[derive(Default)]
struct Set {
    /// Counts lookups, to know which entry was used longest ago.
    turn: u64,
    entries: [Option<Entry>; WAYS],
}

struct Entry {
    tag: u128,
    verified: Arc<Verified>,
    /// The first second in which it is not used.
    until: u64,
    used: u64,
}

impl TokenCache {
    /// At least `entries`, rounded up to eight times a power of two. An entry is used until its token's `exp`, and for
    /// `longest` at most; whole seconds count. `seed` is secret and random, and made anew for each process.
    ///
    /// # Errors
    /// See [`InvalidCache`].
    pub fn new(entries: usize, longest: Duration, seed: [u8; 16]) -> Result<Self, InvalidCache> {
        if !(1..=MAX_CACHE_ENTRIES).contains(&entries) {
            return Err(InvalidCache::Entries);
        }
        if longest.as_secs() == 0 || longest > MAX_CACHE_TIME {
            return Err(InvalidCache::Time);
        }
        Ok(Self::with(entries, longest.as_secs(), seed))
    }

    /// For a whole process: 32,768 entries, used for five minutes at most. See [`Self::new`] for the seed.
    pub fn usual(seed: [u8; 16]) -> Self {
        Self::with(32 * 1024, 5 * 60, seed)
    }

    fn with(entries: usize, longest: u64, seed: [u8; 16]) -> Self {
        let sets = entries.div_ceil(WAYS).next_power_of_two();
        let sets = std::iter::repeat_with(Mutex::default).take(sets).collect();
        Self { seed, longest, sets }
    }

    /// [`Verifier::verify`], spared where the same token was accepted under the same policy and keys not long ago.
    ///
    /// # Errors
    /// As [`Verifier::verify`].
    pub fn verify(&self, bound: &BoundVerifier, token: &str, now: UnixTime) -> Result<(Arc<Verified>, Lookup), Reason> {
        // What the policy would refuse for its length is not hashed either.
        if token.len() > bound.verifier.spec().max_token_bytes {
            return Err(Reason::TooLarge);
        }
        let tag = self.tag(bound, token);
        if let Some(verified) = self.get(tag, now) {
            return Ok((verified, Lookup::Hit));
        }
        let verified = Arc::new(bound.verifier.verify(token, &bound.keys, now)?);
        self.insert(tag, &verified, now);
        Ok((verified, Lookup::Miss))
    }

    fn tag(&self, bound: &BoundVerifier, token: &str) -> u128 {
        let mut hasher = SipHasher24::new_with_key(&self.seed);
        hasher.write(&bound.fingerprint);
        hasher.write(token.as_bytes());
        hasher.finish128().into()
    }

    fn set(&self, tag: u128) -> Option<&Mutex<Set>> {
        // Any bits of the tag will do.
        self.sets.get(tag as usize & (self.sets.len() - 1))
    }

    fn get(&self, tag: u128, now: UnixTime) -> Option<Arc<Verified>> {
        let mut set = self.set(tag)?.lock();
        set.turn += 1;
        let turn = set.turn;
        let entry = set.entries.iter_mut().flatten().find(|entry| entry.tag == tag && now.0 < entry.until)?;
        entry.used = turn;
        Some(Arc::clone(&entry.verified))
    }

    fn insert(&self, tag: u128, verified: &Arc<Verified>, now: UnixTime) {
        let until = now.0.saturating_add(self.longest);
        let until = verified.expiry.map_or(until, |expiry| until.min(expiry.0));
        // Within the leeway after its expiry a token is checked each time.
        if until <= now.0 {
            return;
        }
        let Some(set) = self.set(tag) else { return };
        let mut set = set.lock();
        let entry = Entry { tag, verified: Arc::clone(verified), until, used: set.turn };
        let rank = |place: &Option<Entry>| match place {
            Some(other) if other.tag == tag => (0, 0),
            Some(other) if other.until > now.0 => (2, other.used),
            _ => (1, 0),
        };
        if let Some(place) = set.entries.iter_mut().min_by_key(|place| rank(place)) {
            *place = Some(entry);
        }
    }

    /// Entries that `now` would find. Looks at all of them, under one lock after another: for a metric, not a request.
    pub fn entries(&self, now: UnixTime) -> usize {
        let live = |set: &Mutex<Set>| set.lock().entries.iter().flatten().filter(|entry| now.0 < entry.until).count();
        self.sets.iter().map(live).sum()
    }
}
