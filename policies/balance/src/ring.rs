//! Ring hash: a key belongs to the endpoint that comes next on a ring on which every endpoint has 160 places, so that an
//! endpoint that comes or goes moves its own share of the keys alone.
//!
//! Source: D. Karger et al., "Consistent Hashing and Random Trees" (1997), as nginx does it (`hash ... consistent`);
//! `pingora-ketama` is the ring. Invariant: depends on the set of endpoints alone, so every proxy agrees.

use std::{collections::HashMap, net::SocketAddr};

use pingora_ketama::{Bucket, Continuum};

/// A ring's places are numbered with 16 bits.
const MOST_ENDPOINTS: usize = u16::MAX as usize;

/// The ring of one set of endpoints. Endpoints beyond 65,535 get no keys.
pub struct HashRing {
    continuum: Continuum,
    indexes: HashMap<SocketAddr, usize>,
}

impl HashRing {
    /// The ring of `endpoints`, each of which has the same share.
    pub fn new(endpoints: &[SocketAddr]) -> Self {
        let endpoints = endpoints.get(..MOST_ENDPOINTS).unwrap_or(endpoints);
        let buckets: Vec<_> = endpoints.iter().map(|address| Bucket::new(*address, 1)).collect();
        let indexes = endpoints.iter().enumerate().map(|(index, address)| (*address, index)).collect();
        Self { continuum: Continuum::new(&buckets), indexes }
    }

    /// The endpoints for `key`, by index, with repeats and without an end: the first one, then those that take its place
    /// while it cannot serve. Empty where there are no endpoints.
    pub fn candidates<'a>(&'a self, key: &[u8]) -> impl Iterator<Item = usize> + use<'a> {
        self.continuum.node_iter(key).filter_map(|address| self.indexes.get(address).copied())
    }
}

impl std::fmt::Debug for HashRing {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "HashRing({} endpoints)", self.indexes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::maglev::tests::{addresses, keys, moved, shares};

    #[test]
    fn every_endpoint_has_about_its_share() {
        let ring = HashRing::new(&addresses(10));
        let shares = shares(10, |key| ring.candidates(key).next().unwrap());
        assert!(shares.iter().all(|count| (600..1500).contains(count)), "{shares:?}");
    }

    #[test]
    fn an_endpoint_that_goes_moves_its_own_keys_alone() {
        let (all, fewer) = (addresses(10), addresses(9));
        let (before, after) = (HashRing::new(&all), HashRing::new(&fewer));
        let first = |ring: &HashRing, key: &[u8]| ring.candidates(key).next().unwrap();
        let (of_others, _) = moved(9, |key| first(&before, key), |key| first(&after, key));
        assert_eq!(of_others, 0);
    }

    #[test]
    fn the_next_candidates_reach_every_endpoint() {
        let ring = HashRing::new(&addresses(5));
        let reached: std::collections::BTreeSet<_> = ring.candidates(&keys(1)[0]).take(5 * 160).collect();
        assert_eq!(reached.len(), 5);
    }

    #[test]
    fn without_endpoints_there_is_no_candidate() {
        assert_eq!(HashRing::new(&[]).candidates(b"key").next(), None);
    }
}
