//! Ranges that the constructors of specs check, and the few sums that every part needs.

use std::ops::RangeInclusive;
use std::time::Duration;

/// A field of a spec has a value it may not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} must be {allowed}")]
pub struct OutOfRange {
    /// The field's path inside the spec, such as `halfOpen.probes`.
    pub field: &'static str,
    /// What would be accepted, for people.
    pub allowed: String,
}

pub(crate) const HOUR: Duration = Duration::from_hours(1);
pub(crate) const MILLISECOND: Duration = Duration::from_millis(1);

/// `value`, where `allowed` contains it.
pub(crate) fn within<T: PartialOrd + std::fmt::Debug>(
    field: &'static str,
    value: T,
    allowed: RangeInclusive<T>,
) -> Result<T, OutOfRange> {
    if allowed.contains(&value) {
        Ok(value)
    } else {
        Err(OutOfRange { field, allowed: format!("{:?} to {:?}", allowed.start(), allowed.end()) })
    }
}

/// Evenly from [0, 1).
pub(crate) fn fraction(random: u32) -> f64 {
    f64::from(random) / (f64::from(u32::MAX) + 1.0)
}

/// `duration` or up to `percent` of it less.
pub(crate) fn shortened(duration: Duration, percent: u8, random: u32) -> Duration {
    duration.mul_f64(1.0 - fraction(random) * f64::from(percent.min(100)) / 100.0)
}

/// Whether `part` is at least `percent` of `whole`, without rounding.
pub(crate) fn reaches(part: u32, whole: u32, percent: u8) -> bool {
    u64::from(part) * 100 >= u64::from(whole) * u64::from(percent)
}

/// Nanoseconds since the origin, to keep in an atomic.
pub(crate) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_value_names_its_field_and_its_range() {
        let error = within("open.duration", Duration::ZERO, MILLISECOND..=HOUR).unwrap_err();
        assert_eq!(error.to_string(), "open.duration must be 1ms to 3600s");
    }

    #[test]
    fn jitter_shortens_by_at_most_its_share() {
        let whole = Duration::from_secs(10);
        assert_eq!(shortened(whole, 20, 0), whole);
        let shortest = shortened(whole, 20, u32::MAX);
        assert!(shortest >= Duration::from_secs(8) && shortest < Duration::from_millis(8001), "{shortest:?}");
    }
}
