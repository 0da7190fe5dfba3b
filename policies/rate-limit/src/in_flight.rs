//! A limit on requests in flight by key. Token buckets do not bound slow requests; this does.
//!
//! Invariants: a key never has more permits than the limit that it asked with. Only keys with a permit take memory, and at
//! most so many keys as the caller allows. A call locks one of 64 maps for some nanoseconds.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::{BuildHasherDefault, Hasher},
    num::{NonZeroU32, NonZeroUsize},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;

use crate::Key;

const SHARDS: usize = 64;

/// Requests in flight by key, shared by threads.
#[derive(Debug)]
pub struct InFlight {
    shards: [Shard; SHARDS],
    keys: AtomicUsize,
    max_keys: NonZeroUsize,
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard(Mutex<HashMap<Key, u32, BuildHasherDefault<KeyHasher>>>);

/// Why there is no permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InFlightRefusal {
    /// The key has as many requests in flight as its limit.
    #[error("{0} requests are in flight, which is the limit")]
    LimitReached(NonZeroU32),
    /// A key that has none in flight would be one key too many.
    #[error("{0} keys have requests in flight, and more are not counted")]
    TooManyKeys(NonZeroUsize),
}

/// A request in flight, until it is dropped.
#[derive(Debug)]
#[must_use = "dropping it ends the request"]
pub struct Permit {
    owner: Arc<InFlight>,
    key: Key,
    in_flight: u32,
}

impl InFlight {
    /// `max_keys` bounds the keys with a request in flight. Choose at least the requests that the process has in flight at
    /// most: then no request is refused for it. Memory grows with the most keys that there were at once, some 50 bytes each.
    pub fn new(max_keys: NonZeroUsize) -> Self {
        Self { shards: std::array::from_fn(|_| Shard::default()), keys: AtomicUsize::new(0), max_keys }
    }

    /// A permit, if the key has fewer than `limit`. Requests with one key may ask with different limits.
    pub fn acquire(self: &Arc<Self>, key: Key, limit: NonZeroU32) -> Result<Permit, InFlightRefusal> {
        let in_flight = match self.shard(key).0.lock().entry(key) {
            Entry::Occupied(entry) if *entry.get() >= limit.get() => return Err(InFlightRefusal::LimitReached(limit)),
            Entry::Occupied(mut entry) => {
                *entry.get_mut() += 1;
                *entry.get()
            }
            Entry::Vacant(entry) => {
                if self.keys.fetch_add(1, Ordering::Relaxed) >= self.max_keys.get() {
                    self.keys.fetch_sub(1, Ordering::Relaxed);
                    return Err(InFlightRefusal::TooManyKeys(self.max_keys));
                }
                *entry.insert(1)
            }
        };
        Ok(Permit { owner: Arc::clone(self), key, in_flight })
    }

    /// How many requests of the key are in flight.
    pub fn in_flight(&self, key: Key) -> u32 {
        self.shard(key).0.lock().get(&key).copied().unwrap_or(0)
    }

    /// How many keys have a request in flight, for a gauge.
    pub fn keys(&self) -> usize {
        self.keys.load(Ordering::Relaxed)
    }

    fn release(&self, key: Key) {
        if let Entry::Occupied(mut entry) = self.shard(key).0.lock().entry(key) {
            if *entry.get() > 1 {
                *entry.get_mut() -= 1;
            } else {
                entry.remove();
                self.keys.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    fn shard(&self, key: Key) -> &Shard {
        #[expect(clippy::cast_possible_truncation, reason = "the remainder of 64")]
        #[expect(clippy::indexing_slicing, reason = "a remainder of the length")]
        &self.shards[(key.place() % SHARDS as u64) as usize]
    }
}

impl Permit {
    /// How many requests of the key were in flight when this one began, with it.
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.owner.release(self.key);
    }
}

/// Keys are hashes already.
#[derive(Debug, Default)]
struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn write(&mut self, bytes: &[u8]) {
        // Not called for a `Key`.
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "half of the bits are enough")]
    fn write_u128(&mut self, key: u128) {
        self.0 = key as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::atomic::AtomicU32, thread};

    use super::*;
    use crate::{KeyBuilder, KeySeed};

    fn key(number: u32) -> Key {
        KeyBuilder::new(&KeySeed::new([7; 16])).constant(&number.to_string()).finish()
    }

    fn table(max_keys: usize) -> Arc<InFlight> {
        Arc::new(InFlight::new(NonZeroUsize::new(max_keys).unwrap()))
    }

    fn limit(limit: u32) -> NonZeroU32 {
        NonZeroU32::new(limit).unwrap()
    }

    #[test]
    fn a_key_at_its_limit_is_refused_until_a_permit_is_dropped() {
        let in_flight = table(10);
        let first = in_flight.acquire(key(1), limit(2)).unwrap();
        let second = in_flight.acquire(key(1), limit(2)).unwrap();
        assert_eq!((first.in_flight(), second.in_flight()), (1, 2));
        assert_eq!(in_flight.acquire(key(1), limit(2)).unwrap_err(), InFlightRefusal::LimitReached(limit(2)));
        assert!(in_flight.acquire(key(2), limit(2)).is_ok(), "another key");
        drop(first);
        assert!(in_flight.acquire(key(1), limit(2)).is_ok());
    }

    #[test]
    fn a_key_without_requests_in_flight_takes_no_place() {
        let in_flight = table(2);
        let permits = [in_flight.acquire(key(1), limit(1)).unwrap(), in_flight.acquire(key(2), limit(1)).unwrap()];
        assert_eq!(
            in_flight.acquire(key(3), limit(1)).unwrap_err(),
            InFlightRefusal::TooManyKeys(NonZeroUsize::new(2).unwrap())
        );
        assert_eq!(in_flight.keys(), 2);
        drop(permits);
        assert_eq!((in_flight.keys(), in_flight.in_flight(key(1))), (0, 0));
        assert!(in_flight.acquire(key(3), limit(1)).is_ok());
    }

    #[test]
    fn threads_together_never_have_more_permits_than_the_limit() {
        let in_flight = table(10);
        let held = AtomicU32::new(0);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..5000 {
                        if let Ok(permit) = in_flight.acquire(key(1), limit(3)) {
                            assert!(held.fetch_add(1, Ordering::SeqCst) < 3);
                            held.fetch_sub(1, Ordering::SeqCst);
                            drop(permit);
                        }
                    }
                });
            }
        });
        assert_eq!((in_flight.keys(), in_flight.in_flight(key(1))), (0, 0));
    }
}
