//! The token bucket as GCRA, the generic cell rate algorithm of ITU-T I.371: a bucket is one number, the theoretical
//! arrival time, at which it will be full again.
//!
//! Invariant: admitted units never exceed the burst plus the rate times the time passed, whatever the order of calls,
//! as long as nothing is refunded late (see [`Bucket::refund`](crate::Bucket::refund)). Rounding is against the client.

use std::time::Duration;

/// The longest period, the longest time to refill a burst, and the longest debt beyond it: 366 days.
pub const LONGEST: Duration = Duration::from_hours(366 * 24);

/// How many units a client may use: `rate` in each `per` on average, `burst` at once after a quiet time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limit {
    rate: u64,
    per: Duration,
    burst: u64,
    /// The time in which one unit comes back.
    interval: Ticks,
    /// The time in which an empty bucket becomes full.
    refill: Ticks,
}

/// Why a limit cannot be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// Nothing would ever pass.
    #[error("the rate is 0")]
    ZeroRate,
    /// See the message.
    #[error("the period is 0")]
    ZeroPeriod,
    /// Nothing would ever pass.
    #[error("the burst is 0")]
    ZeroBurst,
    /// See [`LONGEST`].
    #[error("the period is longer than 366 days")]
    PeriodTooLong,
    /// See the message.
    #[error("the rate is above one unit per nanosecond")]
    TooFast,
    /// See [`LONGEST`].
    #[error("the burst takes longer than 366 days to refill at this rate")]
    RefillTooLong,
}

impl Limit {
    /// `rate` units in each `per`, which is at most [`LONGEST`]; at most one unit a nanosecond. `burst` is the size of the
    /// bucket in units and must refill within [`LONGEST`].
    ///
    /// The time for one unit is rounded up to 1/64 ns, so the limit kept is below the limit asked for by at most 0.002 %
    /// up to a million units a second, and 1.6 % at the fastest.
    pub const fn new(rate: u64, per: Duration, burst: u64) -> Result<Self, LimitError> {
        if rate == 0 {
            return Err(LimitError::ZeroRate);
        }
        if per.is_zero() {
            return Err(LimitError::ZeroPeriod);
        }
        if burst == 0 {
            return Err(LimitError::ZeroBurst);
        }
        if per.as_nanos() > LONGEST.as_nanos() {
            return Err(LimitError::PeriodTooLong);
        }
        let per_ticks = Ticks::saturating_from(per).0;
        if per_ticks / Ticks::PER_NANOSECOND < rate {
            return Err(LimitError::TooFast);
        }
        let interval = per_ticks.div_ceil(rate);
        match interval.checked_mul(burst) {
            Some(refill) if refill <= Ticks::saturating_from(LONGEST).0 => {
                Ok(Self { rate, per, burst, interval: Ticks(interval), refill: Ticks(refill) })
            }
            _ => Err(LimitError::RefillTooLong),
        }
    }

    /// Units in each [`Self::per`].
    pub const fn rate(&self) -> u64 {
        self.rate
    }

    /// The period of [`Self::rate`].
    pub const fn per(&self) -> Duration {
        self.per
    }

    /// Units that a full bucket holds.
    pub const fn burst(&self) -> u64 {
        self.burst
    }

    /// The time in which so many units come back.
    pub(crate) fn time_for(&self, units: u64) -> Duration {
        Ticks(self.interval.0.saturating_mul(units)).to_duration()
    }

    /// What a bucket says to `cost` units, and its arrival time afterwards if they are taken.
    #[inline]
    pub(crate) fn take(&self, arrival: Ticks, cost: u64, now: Ticks) -> (Decision, Option<Ticks>) {
        let owed = arrival.0.saturating_sub(now.0);
        let verdict = if cost == 0 {
            Verdict::Allowed
        } else if cost > self.burst {
            Verdict::CostAboveBurst
        } else {
            // A cost within the burst is at most `refill`, so the product is exact.
            let owed_after = owed.saturating_add(self.interval.0.saturating_mul(cost));
            if owed_after <= self.refill.0 {
                return (self.decision(Verdict::Allowed, owed_after), Some(Ticks(now.0.saturating_add(owed_after))));
            }
            Verdict::RetryAfter(Ticks(owed_after - self.refill.0).to_duration())
        };
        (self.decision(verdict, owed), None)
    }

    /// What a bucket says to `cost` units that it keeps.
    pub(crate) fn peek(&self, arrival: Ticks, cost: u64, now: Ticks) -> Decision {
        let (decision, _) = self.take(arrival, cost, now);
        self.decision(decision.verdict, arrival.0.saturating_sub(now.0))
    }

    /// The arrival time after a cost that is due in any case. Never before `arrival`.
    pub(crate) fn charge(&self, arrival: Ticks, cost: u64, now: Ticks) -> Ticks {
        let deepest = now.0.saturating_add(self.refill.0).saturating_add(Ticks::saturating_from(LONGEST).0);
        let due = arrival.0.max(now.0).saturating_add(self.interval.0.saturating_mul(cost));
        Ticks(due.min(deepest).max(arrival.0))
    }

    /// The arrival time after units come back. A bucket does not become more than full: see [`Self::take`].
    pub(crate) fn refund(&self, arrival: Ticks, cost: u64) -> Ticks {
        Ticks(arrival.0.saturating_sub(self.interval.0.saturating_mul(cost)))
    }

    fn decision(&self, verdict: Verdict, owed: u64) -> Decision {
        Decision {
            verdict,
            remaining: self.refill.0.saturating_sub(owed) / self.interval.0,
            full_after: Ticks(owed).to_duration(),
        }
    }
}

/// What a bucket says to a cost, and how it stands afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether the cost passes.
    pub verdict: Verdict,
    /// Whole units that would pass now; after the cost where it was taken.
    pub remaining: u64,
    /// Time until the bucket is full, if nothing more is taken.
    pub full_after: Duration,
}

impl Decision {
    /// Whether the cost passes.
    pub fn is_allowed(&self) -> bool {
        self.verdict == Verdict::Allowed
    }
}

/// Ordered from mild to severe, so that the greatest of several is the one to answer with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// The cost passes.
    #[default]
    Allowed,
    /// The same cost passes after this time, to the nanosecond, if nobody else takes in between.
    RetryAfter(Duration),
    /// The cost is above the burst: it never passes.
    CostAboveBurst,
}

/// 1/64 of a nanosecond, since the origin or as a length. 64 bits hold 9 years.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Ticks(pub(crate) u64);

impl Ticks {
    const PER_NANOSECOND: u64 = 64;
    /// Leaves room for a burst and a debt: 7 years.
    const LATEST: u64 = u64::MAX - 2 * Self::saturating_from(LONGEST).0;

    #[expect(clippy::cast_possible_truncation, reason = "compared with u64::MAX first")]
    const fn saturating_from(length: Duration) -> Self {
        let ticks = length.as_nanos() * Self::PER_NANOSECOND as u128;
        Self(if ticks > u64::MAX as u128 { u64::MAX } else { ticks as u64 })
    }

    /// A time that a caller passed in. Seven years after the origin time stands still, and buckets stay as they are.
    #[inline]
    pub(crate) fn at(now: Duration) -> Self {
        Self(Self::saturating_from(now).0.min(Self::LATEST))
    }

    /// Rounded up.
    fn to_duration(self) -> Duration {
        Duration::from_nanos(self.0.div_ceil(Self::PER_NANOSECOND))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn limits_that_cannot_be_kept_are_refused() {
        let year = LONGEST.as_secs();
        for (rate, per, burst, error) in [
            (0, SECOND, 1, LimitError::ZeroRate),
            (1, Duration::ZERO, 1, LimitError::ZeroPeriod),
            (1, SECOND, 0, LimitError::ZeroBurst),
            (1, LONGEST + Duration::from_nanos(1), 1, LimitError::PeriodTooLong),
            (1_000_000_001, SECOND, 1, LimitError::TooFast),
            (u64::MAX, LONGEST, 1, LimitError::TooFast),
            (1, SECOND, year + 1, LimitError::RefillTooLong),
            (1, SECOND, u64::MAX, LimitError::RefillTooLong),
        ] {
            assert_eq!(Limit::new(rate, per, burst), Err(error), "{rate} in {per:?}, burst {burst}");
        }
        for (rate, per, burst) in
            [(1, LONGEST, 1), (1_000_000_000, SECOND, 1), (1, SECOND, year), (1, Duration::from_nanos(1), 1)]
        {
            assert!(Limit::new(rate, per, burst).is_ok(), "{rate} in {per:?}, burst {burst}");
        }
    }

    #[test]
    fn after_seven_years_time_stands_still_and_nothing_overflows() {
        let limit = Limit::new(1, LONGEST, 1).unwrap();
        let late = Ticks::at(Duration::MAX);
        let (decision, arrival) = limit.take(Ticks::default(), 1, late);
        assert!(decision.is_allowed());
        let arrival = limit.charge(arrival.unwrap(), u64::MAX, late);
        assert!(arrival.0 < u64::MAX || late.0 == Ticks::LATEST);
        assert!(matches!(limit.peek(arrival, 1, late).verdict, Verdict::RetryAfter(time) if time >= LONGEST));
    }

    #[test]
    fn the_severest_verdict_is_the_greatest() {
        let retry = Verdict::RetryAfter(SECOND);
        assert!(Verdict::Allowed < retry && retry < Verdict::RetryAfter(2 * SECOND) && retry < Verdict::CostAboveBurst);
    }
}
