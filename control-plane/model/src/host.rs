//! Host names as the Gateway API matches them: exact, or one wildcard label in front (`Hostname`, GEP-1897 rules).

use std::{fmt, sync::Arc};

/// Which hosts a listener or a route serves. Always lower case, without port and without trailing dot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostPattern {
    /// Every host.
    Any,
    /// Every host that ends with this suffix, which begins with a dot: `.example.com`. Matches one label or more.
    Wildcard(Arc<str>),
    /// This host alone.
    Exact(Arc<str>),
}

/// A host name that the Gateway API does not allow.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is not a host name: want labels of a-z, 0-9 and '-', at most 253 characters, '*.' only in front")]
pub struct InvalidHost(pub String);

impl HostPattern {
    /// Parses `*.example.com` or `www.example.com`; an empty text means every host.
    ///
    /// # Errors: [`InvalidHost`] for anything that the CRD's pattern refuses.
    pub fn parse(text: &str) -> Result<Self, InvalidHost> {
        let host = text.to_ascii_lowercase();
        if host.is_empty() {
            return Ok(Self::Any);
        }
        let name = host.strip_prefix("*.").unwrap_or(&host);
        let label_is_valid = |label: &str| {
            !label.is_empty()
                && label.len() <= 63
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if host.len() > 253 || !name.split('.').all(label_is_valid) {
            return Err(InvalidHost(text.to_owned()));
        }
        Ok(match host.strip_prefix('*') {
            Some(suffix) => Self::Wildcard(suffix.into()),
            None => Self::Exact(host.into()),
        })
    }

    /// Whether `host` (lower case, no port) is served.
    pub fn matches(&self, host: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Wildcard(suffix) => host.len() > suffix.len() && host.ends_with(&**suffix),
            Self::Exact(name) => **name == *host,
        }
    }

    /// The hosts that both patterns serve, or `None` where they have none in common.
    pub fn intersect(&self, other: &Self) -> Option<Self> {
        match (self, other) {
            (Self::Any, pattern) | (pattern, Self::Any) => Some(pattern.clone()),
            (Self::Exact(host), pattern) | (pattern, Self::Exact(host)) => {
                pattern.matches(host).then(|| Self::Exact(host.clone()))
            }
            (Self::Wildcard(left), Self::Wildcard(right)) => {
                let (long, short) = if left.len() >= right.len() { (left, right) } else { (right, left) };
                long.ends_with(&**short).then(|| Self::Wildcard(long.clone()))
            }
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => Ok(()),
            Self::Wildcard(suffix) => write!(formatter, "*{suffix}"),
            Self::Exact(host) => formatter.write_str(host),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> HostPattern {
        HostPattern::parse(text).unwrap()
    }

    #[test]
    fn a_wildcard_matches_one_label_or_more_but_not_the_bare_domain() {
        let wildcard = pattern("*.example.com");
        assert!(wildcard.matches("a.example.com") && wildcard.matches("a.b.example.com"));
        assert!(!wildcard.matches("example.com") && !wildcard.matches("badexample.com"));
    }

    #[test]
    fn the_intersection_is_the_narrower_pattern() {
        for (left, right, both) in [
            ("*.example.com", "a.example.com", Some("a.example.com")),
            ("*.example.com", "*.a.example.com", Some("*.a.example.com")),
            ("", "*.example.com", Some("*.example.com")),
            ("a.example.com", "b.example.com", None),
            ("*.example.com", "*.example.org", None),
            ("*.example.com", "example.com", None),
        ] {
            assert_eq!(pattern(left).intersect(&pattern(right)), both.map(pattern), "{left} and {right}");
            assert_eq!(pattern(right).intersect(&pattern(left)), both.map(pattern), "{right} and {left}");
        }
    }

    #[test]
    fn what_the_crd_refuses_is_refused_here() {
        for text in ["*", "*.", "a..b", "-a.com", "a_b.com", "a.*.com", "a.com.", "a:80"] {
            assert!(HostPattern::parse(text).is_err(), "{text}");
        }
    }
}
