//! Proofs that have served, so that none serves twice (RFC 9449 section 11.1).
//!
//! Invariant: of two calls with one proof at most one is told that it is the first, as long as fewer proofs than there is
//! room for are fresh at a time. Where there are more, the one that is stale soonest is forgotten: whoever fills the memory
//! needs as many accepted tokens and signatures. Never grows.

use parking_lot::Mutex;

use crate::proof::Proof;
use crate::verifier::UnixTime;

/// Most proofs of one memory.
pub const MAX_REPLAY_ENTRIES: usize = 1 << 20;
/// Proofs under one lock.
const WAYS: usize = 16;

/// Proofs that have served. Takes some 56 bytes for each that it has room for, from the start.
pub struct ReplayMemory {
    sets: Box<[Mutex<[Option<Entry>; WAYS]>]>,
}

#[derive(Clone, Copy)]
struct Entry {
    id: [u8; 32],
    /// The first second in which it would be refused as stale.
    until: u64,
}

impl ReplayMemory {
    /// Room for at least `entries` proofs, 1 to [`MAX_REPLAY_ENTRIES`], rounded up to sixteen times a power of two.
    pub fn new(entries: usize) -> Self {
        let sets = entries.clamp(1, MAX_REPLAY_ENTRIES).div_ceil(WAYS).next_power_of_two();
        Self { sets: std::iter::repeat_with(Mutex::default).take(sets).collect() }
    }

    /// Whether `proof` serves for the first time; it is remembered until it is stale.
    pub fn is_first(&self, proof: &Proof, now: UnixTime) -> bool {
        // A hash that its sender cannot steer but by trying: any bytes of it will do.
        let [a, b, c, d, ..] = proof.id;
        let index = u32::from_le_bytes([a, b, c, d]) as usize & (self.sets.len() - 1);
        let Some(set) = self.sets.get(index) else { return false };
        let mut set = set.lock();
        if set.iter().flatten().any(|entry| entry.id == proof.id) {
            return false;
        }
        let rank = |place: &Option<Entry>| place.filter(|entry| entry.until > now.0).map(|entry| entry.until);
        if let Some(place) = set.iter_mut().min_by_key(|place| rank(place)) {
            *place = Some(Entry { id: proof.id, until: proof.until.0 });
        }
        true
    }
}

impl std::fmt::Debug for ReplayMemory {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "ReplayMemory({} entries)", self.sets.len() * WAYS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proof(id: u8, until: u64) -> Proof {
        Proof { thumbprint: [0; 32], id: [id; 32], until: UnixTime(until) }
    }

    #[test]
    fn a_proof_serves_once_and_another_one_too() {
        let memory = ReplayMemory::new(64);
        assert!(memory.is_first(&proof(1, 60), UnixTime(0)));
        assert!(!memory.is_first(&proof(1, 60), UnixTime(59)));
        assert!(memory.is_first(&proof(2, 60), UnixTime(0)));
    }

    #[test]
    fn a_full_memory_forgets_stale_proofs_first_and_then_the_one_that_is_stale_soonest() {
        let memory = ReplayMemory::new(1);
        for id in 0..16 {
            assert!(memory.is_first(&proof(id, 100 + u64::from(id)), UnixTime(0)));
        }
        assert!(memory.is_first(&proof(16, 200), UnixTime(101)));
        assert!((1..=16).all(|id| !memory.is_first(&proof(id, 0), UnixTime(101))));
        assert!(memory.is_first(&proof(17, 300), UnixTime(50)));
        assert!(!memory.is_first(&proof(2, 0), UnixTime(50)));
        assert!(memory.is_first(&proof(1, 101), UnixTime(50)));
    }
}
