//! Power of two choices: of two endpoints drawn at random the cheaper one.

use rand::{Rng, RngExt as _};

/// The index of the endpoint to use among `count`; `None` where there are none. `cost` is asked for at most two.
pub fn power_of_two_choices(count: usize, rng: &mut impl Rng, cost: impl Fn(usize) -> f64) -> Option<usize> {
    match count {
        0 => None,
        1 => Some(0),
        _ => {
            let first = rng.random_range(0..count);
            // Drawn from the others, so that the two differ.
            let second = (first + rng.random_range(1..count)) % count;
            Some(if cost(second) < cost(first) { second } else { first })
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng as _, rngs::SmallRng};

    use super::*;

    #[test]
    fn the_dearest_endpoint_is_never_picked() {
        let mut rng = SmallRng::seed_from_u64(1);
        let cost = |index: usize| if index == 2 { 9.0 } else { 1.0 };
        assert!((0..1000).all(|_| power_of_two_choices(4, &mut rng, cost) != Some(2)));
    }

    #[test]
    fn equal_endpoints_share_the_load() {
        let mut rng = SmallRng::seed_from_u64(1);
        let mut counts = [0; 4];
        for _ in 0..4000 {
            counts[power_of_two_choices(4, &mut rng, |_| 1.0).unwrap()] += 1;
        }
        assert!(counts.iter().all(|count| (800..1200).contains(count)), "{counts:?}");
    }
}
