//! When roots are made, which of them signs, and when they go. Pure: the caller supplies the time.
//!
//! A root is valid for a year. After two thirds of it a second root joins the bundle, and signs a day later, when every
//! proxy has the bundle that holds it. The first root stays in the bundle until it expires, because a replica may
//! still serve with a certificate that it signed.
//! Invariant: what [`signer`] picks has been in the bundle for [`ACTIVATION`], or is the only root there is.

use std::time::Duration;

/// How long a root is valid.
pub const ROOT_LIFETIME: Duration = Duration::from_hours(365 * 24);
/// How long a root is in the bundle before it signs.
pub const ACTIVATION: Duration = Duration::from_hours(24);
/// How long a serving certificate is valid at most; a new one is made at half of it.
pub const LEAF_LIFETIME: Duration = Duration::from_hours(7 * 24);
/// How far before now a certificate begins to be valid, for peers whose clocks are behind.
pub const CLOCK_SKEW: Duration = Duration::from_mins(5);

/// When a certificate is valid, in seconds since 1970, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Validity {
    /// Valid from here,
    pub not_before: u64,
    /// to here.
    pub not_after: u64,
}

impl Validity {
    /// From a little before `now` until `lifetime` after it.
    pub fn starting(now: u64, lifetime: Duration) -> Self {
        Self { not_before: now.saturating_sub(CLOCK_SKEW.as_secs()), not_after: now + lifetime.as_secs() }
    }

    /// Whether the certificate can be used at `now`.
    pub fn holds(self, now: u64) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }

    /// The moment after which a successor should exist.
    fn two_thirds(self) -> u64 {
        self.not_before + self.not_after.saturating_sub(self.not_before) / 3 * 2
    }

    /// The moment at which half of the time is over.
    pub fn half(self) -> u64 {
        self.not_before + self.not_after.saturating_sub(self.not_before) / 2
    }
}

/// What is to be done about the stored roots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing.
    Keep,
    /// Store one more root; those that have expired go with the same write.
    Add,
}

/// Decides about the roots that are stored at `now`.
pub fn plan(now: u64, stored: &[Validity]) -> Action {
    let youthful = |root: &&Validity| root.holds(now) && now < root.two_thirds();
    if stored.iter().any(|root| youthful(&root)) { Action::Keep } else { Action::Add }
}

/// Which of the `stored` roots signs at `now`; `None` when none is valid.
pub fn signer(now: u64, stored: &[Validity]) -> Option<usize> {
    let valid = || stored.iter().enumerate().filter(|(_, root)| root.holds(now));
    let active = valid().filter(|(_, root)| root.not_before + ACTIVATION.as_secs() <= now);
    let newest_active = active.max_by_key(|(_, root)| root.not_before);
    newest_active.or_else(|| valid().min_by_key(|(_, root)| root.not_before)).map(|(index, _)| index)
}

/// How long a serving certificate made at `now` is valid under a root of `root` validity: never longer than the root.
pub fn leaf_validity(now: u64, root: Validity) -> Validity {
    let wanted = Validity::starting(now, LEAF_LIFETIME);
    Validity { not_before: wanted.not_before.max(root.not_before), not_after: wanted.not_after.min(root.not_after) }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use kit_process::clock::{Clock as _, ManualClock};

    use super::*;

    const DAY: Duration = Duration::from_hours(24);

    fn clock() -> ManualClock {
        ManualClock::new(UNIX_EPOCH + Duration::from_hours(500_000))
    }

    #[test]
    fn the_first_root_is_made_at_once_and_signs_at_once() {
        let now = clock().unix_seconds();
        assert_eq!(plan(now, &[]), Action::Add);
        assert_eq!(signer(now, &[Validity::starting(now, ROOT_LIFETIME)]), Some(0));
    }

    #[test]
    fn a_second_root_joins_after_two_thirds_and_signs_a_day_later() {
        let clock = clock();
        let mut roots = vec![Validity::starting(clock.unix_seconds(), ROOT_LIFETIME)];
        clock.advance(DAY * 240);
        assert_eq!(plan(clock.unix_seconds(), &roots), Action::Keep);
        clock.advance(DAY * 4);
        assert_eq!(plan(clock.unix_seconds(), &roots), Action::Add);
        roots.push(Validity::starting(clock.unix_seconds(), ROOT_LIFETIME));
        assert_eq!(plan(clock.unix_seconds(), &roots), Action::Keep);
        assert_eq!(signer(clock.unix_seconds(), &roots), Some(0));
        clock.advance(DAY);
        assert_eq!(signer(clock.unix_seconds(), &roots), Some(1));
    }

    #[test]
    fn an_expired_root_never_signs_and_is_replaced() {
        let clock = clock();
        let roots = [Validity::starting(clock.unix_seconds(), ROOT_LIFETIME)];
        clock.advance(DAY * 366);
        assert_eq!(signer(clock.unix_seconds(), &roots), None);
        assert_eq!(plan(clock.unix_seconds(), &roots), Action::Add);
    }

    #[test]
    fn a_serving_certificate_ends_with_its_root_at_the_latest() {
        let now = clock().unix_seconds();
        let root = Validity { not_before: now - 1000, not_after: now + 3600 };
        assert_eq!(leaf_validity(now, root).not_after, now + 3600);
        let young = Validity::starting(now, ROOT_LIFETIME);
        assert_eq!(leaf_validity(now, young).not_after, now + LEAF_LIFETIME.as_secs());
    }
}
