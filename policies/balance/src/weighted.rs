//! Smooth weighted round robin (nginx's algorithm): a full round gives each choice exactly its weight, and heavy
//! choices are spread out instead of coming in a row.

/// The state of one weighted set. The weights stay with the caller, who passes the same ones each time.
#[derive(Clone, Debug, Default)]
pub struct SmoothWeighted {
    current: Vec<i64>,
}

impl SmoothWeighted {
    /// The index of the next choice; `None` where every weight is 0 or there are none.
    ///
    /// A set whose length changed begins anew.
    pub fn pick(&mut self, weights: &[u32]) -> Option<usize> {
        if self.current.len() != weights.len() {
            self.current = vec![0; weights.len()];
        }
        let mut total = 0;
        let mut best: Option<(usize, i64)> = None;
        for (index, (current, weight)) in self.current.iter_mut().zip(weights).enumerate() {
            let weight = i64::from(*weight);
            total += weight;
            *current += weight;
            if weight > 0 && best.is_none_or(|(_, most)| *current > most) {
                best = Some((index, *current));
            }
        }
        let (index, _) = best?;
        if let Some(current) = self.current.get_mut(index) {
            *current -= total;
        }
        Some(index)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_is_picked_where_no_choice_has_weight() {
        assert_eq!(SmoothWeighted::default().pick(&[]), None);
        assert_eq!(SmoothWeighted::default().pick(&[0, 0]), None);
    }

    #[test]
    fn a_choice_without_weight_is_never_picked() {
        let mut state = SmoothWeighted::default();
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
            let mut state = SmoothWeighted::default();
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
        fn of_two_choices_each_stays_within_one_pick_of_its_share(left in 1u32..100, right in 1u32..100, picks in 1u32..500) {
            let mut state = SmoothWeighted::default();
            let mut taken = 0;
            for done in 1..=picks {
                taken += u32::from(state.pick(&[left, right]) == Some(0));
                let share = f64::from(done) * f64::from(left) / f64::from(left + right);
                prop_assert!((f64::from(taken) - share).abs() <= 1.0 + 1e-9);
            }
        }
    }
}
