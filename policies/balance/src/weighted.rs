//! Weighted turns: at every moment each choice has had its share of all picks to within less than one, and a full round
//! gives each exactly its weight.
//!
//! Source: R. Tijdeman, "The chairman assignment problem" (1980), whose bound is 1 - 1/(2n - 2) for n choices. Smooth
//! weighted round robin, as in nginx, does not keep within one for four choices and more.

/// The state of one weighted set. The weights stay with the caller, who passes the same ones each time.
#[derive(Clone, Debug, Default)]
pub struct WeightedTurns {
    /// What each choice is owed, in picks times the sum of weights. The sum is 0 between picks.
    owed: Vec<i64>,
}

impl WeightedTurns {
    /// The index of the next choice; `None` where every weight is 0 or there are none.
    ///
    /// A set whose length changed begins anew.
    pub fn pick(&mut self, weights: &[u32]) -> Option<usize> {
        if self.owed.len() != weights.len() {
            self.owed = vec![0; weights.len()];
        }
        let total: i64 = weights.iter().copied().map(i64::from).sum();
        let choices = weights.iter().filter(|weight| **weight > 0).count();
        let scale = i64::try_from(2 * choices).ok()?.saturating_sub(2);
        let mut best: Option<Candidate> = None;
        for (index, (owed, weight)) in self.owed.iter_mut().zip(weights).enumerate() {
            *owed += i64::from(*weight);
            if *weight == 0 {
                continue;
            }
            let slack = i128::from(scale - 1) * i128::from(total) - i128::from(scale) * i128::from(*owed);
            let is_due = i128::from(scale) * i128::from(*owed) >= i128::from(total);
            let candidate = Candidate { index, is_due, slack, weight: (*weight).into() };
            if best.as_ref().is_none_or(|best| candidate.comes_before(best)) {
                best = Some(candidate);
            }
        }
        let index = best?.index;
        if let Some(owed) = self.owed.get_mut(index) {
            *owed -= total;
        }
        Some(index)
    }
}

/// A choice that may come next.
struct Candidate {
    index: usize,
    /// Whether it is owed at least 1/(2n - 2) of a pick: only then picking it keeps the bound.
    is_due: bool,
    /// How much more it may be owed before it would exceed the bound, times 2n - 2.
    slack: i128,
    weight: i128,
}

impl Candidate {
    /// One that is due comes before one that is not; among them the one that would exceed the bound first.
    fn comes_before(&self, other: &Self) -> bool {
        if self.is_due == other.is_due { self.slack * other.weight < other.slack * self.weight } else { self.is_due }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_is_picked_where_no_choice_has_weight() {
        assert_eq!(WeightedTurns::default().pick(&[]), None);
        assert_eq!(WeightedTurns::default().pick(&[0, 0]), None);
    }

    #[test]
    fn a_choice_without_weight_is_never_picked() {
        let mut state = WeightedTurns::default();
        assert!((0..100).all(|_| state.pick(&[0, 3, 1]) != Some(0)));
    }

    proptest! {
        #[test]
        fn every_full_round_gives_each_choice_exactly_its_weight(
            weights in prop::collection::vec(0u32..50, 1..6),
            rounds in 1u32..4,
        ) {
            let total: u32 = weights.iter().sum();
            prop_assume!(total > 0);
            let mut state = WeightedTurns::default();
            let mut counts = vec![0u32; weights.len()];
            for round in 1..=rounds {
                for _ in 0..total {
                    counts[state.pick(&weights).unwrap()] += 1;
                }
                let shares: Vec<u32> = weights.iter().map(|weight| weight * round).collect();
                prop_assert_eq!(&counts, &shares);
            }
        }

        #[test]
        fn each_choice_is_always_within_less_than_one_pick_of_its_share(
            weights in prop::collection::vec(prop_oneof![0u32..4, 0u32..120, 1u32..1_000_000], 2..17),
            picks in 1u32..600,
        ) {
            let total: u64 = weights.iter().copied().map(u64::from).sum();
            prop_assume!(total > 0);
            let mut state = WeightedTurns::default();
            let mut counts = vec![0u64; weights.len()];
            for done in 1..=u64::from(picks) {
                counts[state.pick(&weights).unwrap()] += 1;
                for (count, weight) in counts.iter().zip(&weights) {
                    // Scaled by the sum of weights, so that nothing is rounded.
                    let distance = (count * total).abs_diff(done * u64::from(*weight));
                    prop_assert!(distance < total, "after {done}: {counts:?} of {weights:?}");
                }
            }
        }
    }

    #[test]
    fn heavy_and_light_choices_together_keep_their_shares() {
        // Where smooth weighted round robin is more than one pick off.
        for weights in [&[100, 10, 1, 100][..], &[1, 90, 90, 1, 10]] {
            let total: u64 = weights.iter().copied().map(u64::from).sum();
            let mut state = WeightedTurns::default();
            let mut counts = vec![0u64; weights.len()];
            for done in 1..=total {
                counts[state.pick(weights).unwrap()] += 1;
                for (count, weight) in counts.iter().zip(weights) {
                    assert!((count * total).abs_diff(done * u64::from(*weight)) < total, "{done} {counts:?}");
                }
            }
            assert!(counts.iter().zip(weights).all(|(count, weight)| *count == u64::from(*weight)));
        }
    }
}
