//! Maglev hashing: a table in which every endpoint has the same number of places, to within one; a key belongs to the
//! endpoint at its place. One look-up, an even split, and few keys move that need not.
//!
//! Source: D. Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer" (NSDI 2016), section 3.4.
//! Invariant: depends on the list of endpoints alone, so every proxy with the same list agrees.

use std::{hash::Hasher as _, net::SocketAddr};

use siphasher::sip::SipHasher13;

/// Sizes of tables: primes. The first with 100 places an endpoint is taken, or the last.
const SIZES: [u32; 4] = [2_039, 16_381, 65_537, 655_373];
const PLACES_AN_ENDPOINT: u32 = 100;

/// The table of one set of endpoints: 4 bytes a place, 8 KiB for up to 20 endpoints, 2.5 MiB for more than 655. Endpoints
/// beyond the last size get no keys.
#[derive(Clone, Debug)]
pub struct Maglev {
    /// Indexes of endpoints; empty where there are none.
    table: Box<[u32]>,
}

impl Maglev {
    /// The table of `endpoints`, each of which has the same share.
    pub fn new(endpoints: &[SocketAddr]) -> Self {
        let count = u32::try_from(endpoints.len()).unwrap_or(u32::MAX);
        if count == 0 {
            return Self { table: Box::default() };
        }
        let wanted = count.saturating_mul(PLACES_AN_ENDPOINT);
        let size = SIZES.into_iter().find(|size| *size >= wanted).unwrap_or(655_373);
        let mut preferences: Vec<Preference> = endpoints.iter().map(|address| Preference::of(address, size)).collect();
        let mut table: Vec<Option<u32>> = (0..size).map(|_| None).collect();
        let mut free = size;
        while free > 0 {
            for (index, preference) in (0u32..).zip(&mut preferences) {
                if free == 0 {
                    break;
                }
                let place = preference.next_free(&table);
                if let Some(slot) = table.get_mut(place) {
                    *slot = Some(index);
                    free -= 1;
                }
            }
        }
        Self { table: table.into_iter().flatten().collect() }
    }

    /// The endpoints for `key`, by index, with repeats: the first one, then those that take its place while it cannot
    /// serve. Goes through the table once.
    pub fn candidates<'a>(&'a self, key: &[u8]) -> impl Iterator<Item = usize> + use<'a> {
        let size = self.table.len();
        let start = usize::try_from(hash(b"key", key)).unwrap_or(usize::MAX).checked_rem(size).unwrap_or(0);
        let (before, from) = self.table.split_at_checked(start).unwrap_or_default();
        from.iter().chain(before).filter_map(|index| usize::try_from(*index).ok())
    }
}

/// The order in which an endpoint wants places: every one once, as the size is prime.
struct Preference {
    next: u32,
    skip: u32,
    size: u32,
}

impl Preference {
    fn of(address: &SocketAddr, size: u32) -> Self {
        let name = address.to_string();
        let below = |hash: u64, limit: u32| u32::try_from(hash % u64::from(limit)).unwrap_or(0);
        Self {
            next: below(hash(b"offset", name.as_bytes()), size),
            skip: below(hash(b"skip", name.as_bytes()), size - 1) + 1,
            size,
        }
    }

    /// The next wanted place that nobody has. There must be one.
    fn next_free(&mut self, table: &[Option<u32>]) -> usize {
        loop {
            let place = self.next as usize;
            // At most twice a prime below a million: no overflow.
            self.next = (self.next + self.skip) % self.size;
            if table.get(place).is_none_or(Option::is_none) {
                return place;
            }
        }
    }
}

fn hash(purpose: &[u8], bytes: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(0, 0);
    hasher.write(purpose);
    hasher.write(bytes);
    hasher.finish()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn addresses(count: u8) -> Vec<SocketAddr> {
        (0..count).map(|number| SocketAddr::from(([10, 0, 0, number], 8080))).collect()
    }

    pub(crate) fn keys(count: usize) -> Vec<Vec<u8>> {
        (0..count).map(|number| format!("user-{number}").into_bytes()).collect()
    }

    /// How many of 10,000 keys each of `count` endpoints has.
    pub(crate) fn shares(count: usize, pick: impl Fn(&[u8]) -> usize) -> Vec<usize> {
        let mut shares = vec![0; count];
        for key in keys(10_000) {
            shares[pick(&key)] += 1;
        }
        shares
    }

    /// Of 10,000 keys those that move: of endpoints other than `gone`, and all.
    pub(crate) fn moved(
        gone: usize,
        before: impl Fn(&[u8]) -> usize,
        after: impl Fn(&[u8]) -> usize,
    ) -> (usize, usize) {
        let keys = keys(10_000);
        let moved: Vec<_> = keys.iter().map(|key| (before(key), after(key))).filter(|(old, new)| old != new).collect();
        (moved.iter().filter(|(old, _)| *old != gone).count(), moved.len())
    }

    #[test]
    fn every_endpoint_has_as_many_places_to_within_one() {
        for count in [1u8, 3, 7, 20, 200] {
            let table = Maglev::new(&addresses(count)).table;
            let mut places = vec![0usize; count.into()];
            table.iter().for_each(|index| places[*index as usize] += 1);
            let (least, most) = (places.iter().min().unwrap(), places.iter().max().unwrap());
            assert!(most - least <= 1, "{count}: {least} to {most}");
            assert!(SIZES.contains(&u32::try_from(table.len()).unwrap()));
        }
    }

    #[test]
    fn an_endpoint_that_goes_moves_few_keys_of_the_others() {
        let (before, after) = (Maglev::new(&addresses(10)), Maglev::new(&addresses(9)));
        let first = |table: &Maglev, key: &[u8]| table.candidates(key).next().unwrap();
        let (of_others, all) = moved(9, |key| first(&before, key), |key| first(&after, key));
        assert!(of_others < 500, "{of_others} of 10,000");
        assert!((800..1700).contains(&all), "{all} of 10,000");
    }

    #[test]
    fn the_next_candidates_reach_every_endpoint() {
        let table = Maglev::new(&addresses(5));
        let reached: std::collections::BTreeSet<_> = table.candidates(b"key").collect();
        assert_eq!(reached.len(), 5);
        assert_eq!(table.candidates(b"key").count(), 2_039);
    }

    #[test]
    fn without_endpoints_there_is_no_candidate() {
        assert_eq!(Maglev::new(&[]).candidates(b"key").next(), None);
    }
}
