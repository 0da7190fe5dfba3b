//! A process's part of a limit whose bucket is in a shared store: units taken from the store before they are needed, so that
//! a request does not wait for it. Only decides: the caller asks the store and passes its answers in.
//!
//! Invariants: a slice never holds more than its size, and gives no more than it was granted. So the processes together
//! never admit more than the store granted, and in any stretch of time at most the size times the processes more than the
//! store's bucket would have. What is lost, by an answer that comes too late or a lease that ends, was charged for and is
//! not admitted.

use std::time::Duration;

/// How a slice is filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SliceSettings {
    size: u64,
    lease: Duration,
    patience: Duration,
}

/// Why a slice cannot work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SliceError {
    /// Nothing would ever pass.
    #[error("the size of the slice is 0")]
    ZeroSize,
    /// Nothing would ever pass.
    #[error("the lease is 0")]
    ZeroLease,
    /// Every request would ask the store again.
    #[error("the time to wait for an answer is 0")]
    ZeroPatience,
}

impl SliceSettings {
    /// `size` in units, the most that is held; `lease` the time after which units that were not used are dropped; `patience`
    /// the time to wait for an answer, and between two questions when the store does not answer. All of them above 0.
    pub const fn new(size: u64, lease: Duration, patience: Duration) -> Result<Self, SliceError> {
        if size == 0 {
            return Err(SliceError::ZeroSize);
        }
        if lease.is_zero() {
            return Err(SliceError::ZeroLease);
        }
        if patience.is_zero() {
            return Err(SliceError::ZeroPatience);
        }
        Ok(Self { size, lease, patience })
    }
}

/// The slice of one bucket. Empty at first.
///
/// `now` is the time since an origin that all calls for this slice share. The store's clock does not matter.
#[derive(Debug)]
pub struct Slice {
    settings: SliceSettings,
    units: u64,
    /// When [`Self::units`] are dropped.
    expires: Duration,
    /// The question under way, and until when to wait for its answer.
    asked: Option<(AskId, Duration)>,
    /// Until when the store has nothing.
    refused_until: Duration,
    last: AskId,
}

/// Which question an answer belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AskId(u64);

/// A question to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// To be passed back with the answer.
    pub id: AskId,
    /// How many units to take from the store's bucket: all, or as many as it has.
    pub units: u64,
}

/// What the store said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// So many units, at least 1, were taken from its bucket.
    Granted(u64),
    /// It has none before this time is over.
    Refused(Duration),
}

/// What a slice says to a cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SliceVerdict {
    /// It was taken.
    Allowed,
    /// The slice has not enough, and the store may have: wait for its answer, or decide without it.
    Short,
    /// The store had none either; it may have after this time.
    RetryAfter(Duration),
    /// More than a slice ever holds: ask the store for this request alone.
    CostAboveSize,
}

impl Slice {
    /// An empty slice.
    pub fn new(settings: SliceSettings) -> Self {
        Self {
            settings,
            units: 0,
            expires: Duration::ZERO,
            asked: None,
            refused_until: Duration::ZERO,
            last: AskId::default(),
        }
    }

    /// Takes `cost` units, or none. Call [`Self::ask`] afterwards, whatever it said.
    pub fn take(&mut self, cost: u64, now: Duration) -> SliceVerdict {
        if cost > self.settings.size {
            return SliceVerdict::CostAboveSize;
        }
        self.drop_expired(now);
        match self.units.checked_sub(cost) {
            Some(left) => {
                self.units = left;
                SliceVerdict::Allowed
            }
            None if now < self.refused_until => SliceVerdict::RetryAfter(self.refused_until.saturating_sub(now)),
            None => SliceVerdict::Short,
        }
    }

    /// What to ask the store now, if anything: when at most half of the slice is left, one question at a time. A question
    /// that failed needs no answer; the next one is due when the patience is over.
    pub fn ask(&mut self, now: Duration) -> Option<Ask> {
        self.drop_expired(now);
        let is_waiting = self.asked.is_some_and(|(_, until)| now < until);
        if self.units > self.settings.size / 2 || is_waiting || now < self.refused_until {
            return None;
        }
        let id = AskId(self.last.0.wrapping_add(1));
        self.last = id;
        self.asked = Some((id, now.saturating_add(self.settings.patience)));
        Some(Ask { id, units: self.settings.size - self.units })
    }

    /// Takes in the store's answer. One that is not to the last question is ignored, and what it granted is lost.
    pub fn answer(&mut self, id: AskId, answer: Answer, now: Duration) {
        if self.asked.is_none_or(|(asked, _)| asked != id) {
            return;
        }
        self.asked = None;
        self.drop_expired(now);
        match answer {
            Answer::Granted(units) => {
                self.units = self.units.saturating_add(units).min(self.settings.size);
                self.expires = now.saturating_add(self.settings.lease);
            }
            Answer::Refused(time) => self.refused_until = now.saturating_add(time),
        }
    }

    /// Empties the slice, for a process that ends: the units to give back to the store.
    pub fn give_back(&mut self, now: Duration) -> u64 {
        self.drop_expired(now);
        std::mem::take(&mut self.units)
    }

    fn drop_expired(&mut self, now: Duration) {
        if now >= self.expires {
            self.units = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Bucket, Limit, Verdict};

    const fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn slice(size: u64) -> Slice {
        Slice::new(SliceSettings::new(size, millis(1000), millis(100)).unwrap())
    }

    fn filled(size: u64, now: Duration) -> Slice {
        let mut slice = slice(size);
        let ask = slice.ask(now).unwrap();
        slice.answer(ask.id, Answer::Granted(ask.units), now);
        slice
    }

    #[test]
    fn settings_of_nothing_are_refused() {
        assert_eq!(SliceSettings::new(0, millis(1), millis(1)), Err(SliceError::ZeroSize));
        assert_eq!(SliceSettings::new(1, millis(0), millis(1)), Err(SliceError::ZeroLease));
        assert_eq!(SliceSettings::new(1, millis(1), millis(0)), Err(SliceError::ZeroPatience));
    }

    #[test]
    fn an_empty_slice_asks_for_all_of_it_and_a_half_full_one_for_the_rest() {
        let mut slice = slice(10);
        assert_eq!(slice.take(1, millis(0)), SliceVerdict::Short);
        let ask = slice.ask(millis(0)).unwrap();
        assert_eq!((ask.units, slice.ask(millis(99))), (10, None), "one question at a time");
        slice.answer(ask.id, Answer::Granted(10), millis(50));
        assert_eq!(slice.take(4, millis(50)), SliceVerdict::Allowed);
        assert_eq!(slice.ask(millis(50)), None);
        assert_eq!(slice.take(2, millis(50)), SliceVerdict::Allowed);
        assert_eq!(slice.ask(millis(50)).unwrap().units, 6);
    }

    #[test]
    fn a_cost_above_the_size_is_not_for_the_slice() {
        assert_eq!(filled(10, millis(0)).take(11, millis(0)), SliceVerdict::CostAboveSize);
    }

    #[test]
    fn units_that_were_not_used_end_with_the_lease() {
        let mut slice = filled(10, millis(0));
        assert_eq!(slice.take(1, millis(999)), SliceVerdict::Allowed);
        assert_eq!(slice.take(1, millis(1000)), SliceVerdict::Short);
        assert_eq!(slice.ask(millis(1000)).unwrap().units, 10);
    }

    #[test]
    fn a_store_without_units_is_not_asked_before_it_has_some() {
        let mut slice = slice(10);
        let ask = slice.ask(millis(0)).unwrap();
        slice.answer(ask.id, Answer::Refused(millis(500)), millis(10));
        assert_eq!(slice.take(1, millis(110)), SliceVerdict::RetryAfter(millis(400)));
        assert_eq!(slice.ask(millis(509)), None);
        assert!(slice.ask(millis(510)).is_some());
    }

    #[test]
    fn an_answer_that_comes_after_the_next_question_is_lost() {
        let mut slice = slice(10);
        let first = slice.ask(millis(0)).unwrap();
        let second = slice.ask(millis(100)).unwrap();
        slice.answer(first.id, Answer::Granted(10), millis(101));
        assert_eq!(slice.take(1, millis(101)), SliceVerdict::Short);
        slice.answer(second.id, Answer::Granted(3), millis(102));
        slice.answer(second.id, Answer::Granted(3), millis(102));
        assert_eq!(slice.give_back(millis(103)), 3, "an answer counts once");
    }

    #[test]
    fn a_store_that_grants_more_than_was_asked_for_does_not_make_the_slice_greater() {
        let mut slice = slice(10);
        let ask = slice.ask(millis(0)).unwrap();
        slice.answer(ask.id, Answer::Granted(1000), millis(0));
        assert_eq!(slice.give_back(millis(0)), 10);
        assert_eq!(slice.give_back(millis(0)), 0);
    }

    proptest! {
        /// Several processes, one store, answers late or lost.
        #[test]
        fn in_any_stretch_of_time_at_most_a_slice_for_each_process_is_admitted_beyond_the_limit(
            rate in 1u64..2000,
            burst in 1u64..40,
            size in 1u64..20,
            steps in prop::collection::vec((0usize..3, 0u64..40, 0u64..4, 0usize..5), 1..200),
        ) {
            let limit = Limit::new(rate, Duration::from_secs(1), burst).unwrap();
            let store = Bucket::default();
            let mut slices = [slice(size), slice(size), slice(size)];
            let mut under_way: Vec<(usize, AskId, Answer)> = Vec::new();
            let mut admitted: Vec<(u64, u64)> = Vec::new();
            let mut now = 0;
            for (process, wait, cost, fate) in steps {
                now += wait;
                if slices[process].take(cost, millis(now)) == SliceVerdict::Allowed {
                    admitted.push((now, cost));
                }
                if let Some(ask) = slices[process].ask(millis(now)) {
                    let units = ask.units.min(store.peek(&limit, 0, millis(now)).remaining);
                    let answer = match store.take(&limit, units.max(1), millis(now)).verdict {
                        Verdict::Allowed => Answer::Granted(units),
                        Verdict::RetryAfter(time) => Answer::Refused(time),
                        Verdict::CostAboveBurst => unreachable!("at most what remains"),
                    };
                    under_way.push((process, ask.id, answer));
                }
                match fate {
                    0 => under_way.clear(),
                    1 => {}
                    _ => under_way
                        .drain(..)
                        .for_each(|(process, id, answer)| slices[process].answer(id, answer, millis(now))),
                }
            }
            for (start, (from, _)) in admitted.iter().enumerate() {
                let mut sum = 0;
                for (until, cost) in &admitted[start..] {
                    sum += cost;
                    prop_assert!(sum <= burst + rate * (until - from) / 1000 + 3 * size);
                }
            }
            // From the beginning, when every slice is empty, not one unit.
            let total: u64 = admitted.iter().map(|(_, cost)| cost).sum();
            prop_assert!(total <= burst + rate * now / 1000);
        }
    }
}
