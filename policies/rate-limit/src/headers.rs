//! What a client is told: the fields `RateLimit-Policy` and `RateLimit` of draft-ietf-httpapi-ratelimit-headers-11 (May
//! 2026), as Lists of Structured Fields (RFC 9651), and the seconds of `Retry-After` (RFC 9110 §10.2.3).
//!
//! Invariant: times are rounded up and units down, so that a client that does as it is told is not refused for it.

use std::{
    fmt::{self, Write as _},
    num::NonZeroU32,
    time::Duration,
};

use crate::{Decision, Limit, Verdict};

/// The greatest Integer of Structured Fields (RFC 9651 §3.3.1).
const MAX_INTEGER: u64 = 999_999_999_999_999;

/// The name of a quota policy, by which a client finds the limit of a policy. A String of Structured Fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyName(String);

/// A name with a character outside of visible ASCII and space, which a String of Structured Fields cannot hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a policy name is made of visible ASCII characters and spaces: {0:?}")]
pub struct InvalidPolicyName(pub String);

impl PolicyName {
    /// `name` of 0x20 to 0x7e (RFC 9651 §3.3.3).
    pub fn new(name: &str) -> Result<Self, InvalidPolicyName> {
        if name.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            Ok(Self(name.to_owned()))
        } else {
            Err(InvalidPolicyName(name.to_owned()))
        }
    }

    /// As the client sees it, for the member `violated-policies` of the problem type `quota-exceeded` (§5.1 of the draft).
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Quoted and escaped (RFC 9651 §4.1.6).
impl fmt::Display for PolicyName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_char('"')?;
        for character in self.0.chars() {
            if matches!(character, '"' | '\\') {
                formatter.write_char('\\')?;
            }
            formatter.write_char(character)?;
        }
        formatter.write_char('"')
    }
}

/// What a quota counts (§3.1.2 of the draft).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QuotaUnit {
    /// Requests, which is what a client assumes where no unit is named.
    #[default]
    Requests,
    /// Bytes of content.
    ContentBytes,
}

/// An item of `RateLimit-Policy` (§3.1 of the draft).
#[derive(Clone, Copy, Debug)]
pub enum Policy<'a> {
    /// So many units in a window.
    Quota {
        /// Its name, as in `RateLimit`.
        name: &'a PolicyName,
        /// What is limited.
        limit: Limit,
        /// What it counts.
        unit: QuotaUnit,
    },
    /// So many requests at once.
    Concurrency {
        /// Its name, as in `RateLimit`.
        name: &'a PolicyName,
        /// Requests in flight.
        limit: NonZeroU32,
    },
}

/// As in the field: `"name";q=100;w=60`. `q` is the rate and `w` its period; where the period is not in whole seconds, it is
/// rounded up, and `q` is what the rate gives in it. The burst is not told, as the draft has no word for it.
impl fmt::Display for Policy<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Quota { name, limit, unit } => {
                let window = seconds_up(limit.per()).max(1);
                write!(formatter, "{name};q={}", quota(limit, window))?;
                match unit {
                    QuotaUnit::Requests => {}
                    QuotaUnit::ContentBytes => formatter.write_str(";qu=\"content-bytes\"")?,
                }
                write!(formatter, ";w={window}")
            }
            Self::Concurrency { name, limit } => write!(formatter, "{name};q={limit};qu=\"concurrent-requests\""),
        }
    }
}

/// The value of `RateLimit-Policy`. It is the same for all responses of a rule: make it once. The field is not sent where
/// there is no policy: then the text is empty.
pub fn policies<'a>(items: impl IntoIterator<Item = Policy<'a>>) -> String {
    list(items)
}

/// An item of `RateLimit` (§4.1 of the draft).
#[derive(Clone, Copy, Debug)]
pub struct ServiceLimit<'a> {
    /// The name of its policy.
    pub name: &'a PolicyName,
    /// What the decision kept.
    pub limit: Limit,
    /// What was said to the request.
    pub decision: Decision,
}

impl ServiceLimit<'_> {
    /// Seconds within which the client should use no more than what remains, parameter `t` (§4.1.2 of the draft).
    ///
    /// A bucket has no window that ends. After a request that passed it is the time in which what remains comes back, so
    /// that a client that spreads the one over the other keeps to the rate (the cap of §6 and §8.5). Where nothing remains,
    /// it is the time to the next unit. After a refusal it is the time after which the same request passes, as
    /// `Retry-After` should not be before the end of the window (§6).
    pub fn window(&self) -> u64 {
        let window = match self.decision.verdict {
            Verdict::RetryAfter(time) => time,
            Verdict::Allowed | Verdict::CostAboveBurst if self.decision.remaining > 0 => {
                self.limit.time_for(self.decision.remaining)
            }
            Verdict::Allowed | Verdict::CostAboveBurst => {
                self.decision.full_after.saturating_sub(self.limit.time_for(self.limit.burst() - 1))
            }
        };
        seconds_up(window)
    }
}

/// As in the field: `"name";r=50;t=30`.
impl fmt::Display for ServiceLimit<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{};r={};t={}", self.name, self.decision.remaining.min(MAX_INTEGER), self.window())
    }
}

/// The value of `RateLimit`. The field is not sent where there is no item: then the text is empty.
pub fn service_limits<'a>(items: impl IntoIterator<Item = ServiceLimit<'a>>) -> String {
    list(items)
}

/// The seconds of `Retry-After`, at least 1. `None` where there is nothing to wait for: the request passed, or it never
/// will.
pub fn retry_after(verdict: Verdict) -> Option<u64> {
    match verdict {
        Verdict::RetryAfter(time) => Some(seconds_up(time).max(1)),
        Verdict::Allowed | Verdict::CostAboveBurst => None,
    }
}

/// What the limit gives in so many seconds.
fn quota(limit: &Limit, seconds: u64) -> u64 {
    let units = u128::from(limit.rate()) * Duration::from_secs(seconds).as_nanos() / limit.per().as_nanos();
    u64::try_from(units).unwrap_or(u64::MAX).min(MAX_INTEGER)
}

fn seconds_up(time: Duration) -> u64 {
    time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0))
}

fn list(items: impl IntoIterator<Item = impl fmt::Display>) -> String {
    let mut text = String::with_capacity(64);
    for item in items {
        let separator = if text.is_empty() { "" } else { ", " };
        // Writing to a `String` does not fail.
        let _ = write!(text, "{separator}{item}");
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Bucket;

    fn name(name: &str) -> PolicyName {
        PolicyName::new(name).unwrap()
    }

    fn limit(rate: u64, per: Duration, burst: u64) -> Limit {
        Limit::new(rate, per, burst).unwrap()
    }

    const MINUTE: Duration = Duration::from_mins(1);

    #[test]
    fn policies_are_written_as_in_the_draft() {
        let (burst, daily, bytes) = (name("burst"), name("daily"), name("bytes"));
        let requests = |name, limit| Policy::Quota { name, limit, unit: QuotaUnit::Requests };
        assert_eq!(
            policies([
                requests(&burst, limit(100, MINUTE, 10)),
                requests(&daily, limit(1000, Duration::from_hours(24), 1000))
            ]),
            r#""burst";q=100;w=60, "daily";q=1000;w=86400"#
        );
        let unit = QuotaUnit::ContentBytes;
        let limit = limit(65_535, Duration::from_secs(10), 1);
        assert_eq!(
            policies([Policy::Quota { name: &bytes, limit, unit }]),
            r#""bytes";q=65535;qu="content-bytes";w=10"#
        );
        let limit = NonZeroU32::new(5).unwrap();
        assert_eq!(policies([Policy::Concurrency { name: &burst, limit }]), r#""burst";q=5;qu="concurrent-requests""#);
        assert_eq!(policies([]), "");
    }

    #[test]
    fn a_window_has_whole_seconds_and_its_quota_keeps_to_the_rate() {
        let policy = |rate, millis| {
            let name = name("p");
            policies([Policy::Quota {
                name: &name,
                limit: limit(rate, Duration::from_millis(millis), 1),
                unit: QuotaUnit::Requests,
            }])
        };
        assert_eq!(policy(10, 100), r#""p";q=100;w=1"#);
        assert_eq!(policy(10, 1500), r#""p";q=13;w=2"#);
        assert_eq!(policy(1, 1500), r#""p";q=1;w=2"#);
    }

    #[test]
    fn names_are_quoted_and_escaped() {
        assert_eq!(name(r#"a "b" \c"#).to_string(), r#""a \"b\" \\c""#);
        for bad in ["ä", "a\nb", "\u{7f}", "a\0"] {
            assert_eq!(PolicyName::new(bad), Err(InvalidPolicyName(bad.to_owned())));
        }
    }

    fn told(bucket: &Bucket, limit: Limit, cost: u64, now: Duration) -> (String, Option<u64>) {
        let name = name("default");
        let decision = bucket.take(&limit, cost, now);
        (service_limits([ServiceLimit { name: &name, limit, decision }]), retry_after(decision.verdict))
    }

    #[test]
    fn what_remains_is_told_with_the_time_in_which_it_comes_back() {
        let (bucket, limit) = (Bucket::default(), limit(100, MINUTE, 100));
        assert_eq!(told(&bucket, limit, 50, MINUTE), (r#""default";r=50;t=30"#.to_owned(), None));
        assert_eq!(told(&bucket, limit, 49, MINUTE), (r#""default";r=1;t=1"#.to_owned(), None));
        assert_eq!(told(&bucket, limit, 1, MINUTE), (r#""default";r=0;t=1"#.to_owned(), None));
        assert_eq!(told(&bucket, limit, 10, MINUTE), (r#""default";r=0;t=6"#.to_owned(), Some(6)));
        assert_eq!(told(&bucket, limit, 101, MINUTE), (r#""default";r=0;t=1"#.to_owned(), None));
    }

    #[test]
    fn an_empty_bucket_is_told_with_the_time_to_the_next_unit() {
        let (bucket, limit) = (Bucket::default(), limit(1, MINUTE, 2));
        assert_eq!(told(&bucket, limit, 2, MINUTE), (r#""default";r=0;t=60"#.to_owned(), None));
        assert_eq!(told(&bucket, limit, 0, MINUTE + MINUTE / 2), (r#""default";r=0;t=30"#.to_owned(), None));
    }

    #[test]
    fn a_client_waits_for_a_second_at_least() {
        assert_eq!(retry_after(Verdict::RetryAfter(Duration::ZERO)), Some(1));
        assert_eq!(retry_after(Verdict::RetryAfter(Duration::from_millis(1001))), Some(2));
    }

    #[test]
    fn integers_end_where_those_of_structured_fields_do() {
        let limit = limit(1_000_000_000, Duration::from_secs(1), 3_000_000_000_000_000);
        let (text, _) = told(&Bucket::default(), limit, 1, MINUTE);
        assert!(text.starts_with(r#""default";r=999999999999999;"#), "{text}");
    }

    proptest! {
        #[test]
        fn whoever_spreads_what_remains_over_the_window_keeps_to_the_rate(
            rate in 1u64..100_000, seconds in 1u64..4000, burst in 1u64..1000, cost in 1u64..1000,
        ) {
            let limit = limit(rate, Duration::from_secs(seconds), burst);
            let name = name("p");
            let decision = Bucket::default().take(&limit, cost.min(burst), MINUTE);
            let told = ServiceLimit { name: &name, limit, decision };
            prop_assert!(decision.remaining * seconds <= told.window() * rate);
        }
    }
}
