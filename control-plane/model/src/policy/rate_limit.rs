//! How much a client may ask for: token buckets, and requests in flight.

use std::{collections::BTreeMap, num::NonZeroU32, sync::Arc, time::Duration};

use http::HeaderName;

use super::{
    Mode, Settings,
    merge::{map, scalar},
};

/// The settings of a RateLimitPolicy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RateLimitSettings {
    /// Whether it is switched off.
    pub disabled: Option<bool>,
    /// What is done with a request above a limit.
    pub mode: Option<Mode>,
    /// Token buckets by name; a request needs a token of each.
    pub limits: BTreeMap<Arc<str>, RateLimit>,
    /// Requests in flight by name.
    pub concurrency: BTreeMap<Arc<str>, ConcurrencyLimit>,
    /// Whether responses tell how much is left (`RateLimit`, `RateLimit-Policy`).
    pub headers: Option<bool>,
    /// How many keys each limit keeps a bucket for.
    pub max_keys: Option<NonZeroU32>,
}

impl RateLimitSettings {
    /// [`Self::max_keys`] where nothing says otherwise.
    pub const DEFAULT_MAX_KEYS: NonZeroU32 = NonZeroU32::new(100_000).unwrap();
}

impl Settings for RateLimitSettings {
    fn lay(&mut self, over: &Self, took: &mut dyn FnMut(String)) {
        scalar(&mut self.disabled, over.disabled.as_ref(), "disabled", took);
        scalar(&mut self.mode, over.mode.as_ref(), "mode", took);
        map(&mut self.limits, &over.limits, "limits", took);
        map(&mut self.concurrency, &over.concurrency, "concurrency", took);
        scalar(&mut self.headers, over.headers.as_ref(), "headers", took);
        scalar(&mut self.max_keys, over.max_keys.as_ref(), "maxKeys", took);
    }

    fn is_disabled(&self) -> bool {
        self.disabled.unwrap_or(false)
    }

    fn mode(&self) -> Mode {
        self.mode.unwrap_or_default()
    }
}

/// One token bucket for each key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// How much.
    pub quota: Quota,
    /// What has a bucket of its own; the client's address where it is empty.
    pub key: Vec<KeyPart>,
    /// Other quotas for some clients.
    pub tiers: Option<Tiers>,
}

/// `rate` tokens in each `per`, `burst` of them at once after a quiet time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Tokens.
    pub rate: NonZeroU32,
    /// The time in which they come back.
    pub per: Duration,
    /// The size of the bucket.
    pub burst: NonZeroU32,
}

/// Quotas by the value of a claim. A client without the claim, or with another value, has the limit's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tiers {
    /// Path of the claim, names separated by dots.
    pub claim: Arc<str>,
    /// By value.
    pub quotas: BTreeMap<Arc<str>, Quota>,
}

/// A part of what has a bucket of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyPart {
    /// The client's address, grouped by so many leading bits.
    Address {
        /// 0 to 32.
        ipv4_prefix: u8,
        /// 0 to 128.
        ipv6_prefix: u8,
    },
    /// The value of a header.
    Header(HeaderName, Missing),
    /// The value of a cookie.
    Cookie(Arc<str>, Missing),
    /// The value of a query parameter.
    Query(Arc<str>, Missing),
    /// The value of a claim of the client's verified identity; a path of names separated by dots.
    Claim(Arc<str>, Missing),
    /// The host of the request.
    Host,
    /// The route.
    Route,
    /// Nothing: what all requests have in common.
    Shared,
}

/// What stands for a part that a request lacks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Missing {
    /// The client's address.
    #[default]
    Address,
    /// One bucket for all requests that lack it.
    Shared,
    /// The limit does not count the request.
    Skip,
}

/// A limit of requests in flight for each key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConcurrencyLimit {
    /// How many.
    pub limit: NonZeroU32,
    /// What has a count of its own; the client's address where it is empty.
    pub key: Vec<KeyPart>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Leveled, ObjectName, PolicyKey, PolicyKind, effective};

    fn key(name: &str) -> PolicyKey {
        PolicyKey { kind: PolicyKind::RateLimit, name: ObjectName::new("a", name) }
    }

    fn limit(rate: u32) -> RateLimit {
        let rate = NonZeroU32::new(rate).unwrap();
        RateLimit { quota: Quota { rate, per: Duration::from_secs(1), burst: rate }, key: Vec::new(), tiers: None }
    }

    fn settings(limits: &[(&str, u32)]) -> RateLimitSettings {
        let limits = limits.iter().map(|(name, rate)| (Arc::from(*name), limit(*rate))).collect();
        RateLimitSettings { limits, ..RateLimitSettings::default() }
    }

    #[test]
    fn the_more_specific_level_wins_field_by_field() {
        let gateway = Leveled {
            settings: RateLimitSettings { headers: Some(false), ..settings(&[("a", 1), ("b", 1)]) },
            overrides: None,
        };
        let route = Leveled { settings: settings(&[("b", 2), ("c", 2)]), overrides: None };
        let merged = effective([(&key("gateway"), &gateway), (&key("route"), &route)].into_iter());
        assert_eq!(
            merged.settings,
            RateLimitSettings { headers: Some(false), ..settings(&[("a", 1), ("b", 2), ("c", 2)]) }
        );
        let sources: Vec<(&str, &str)> =
            merged.sources.iter().map(|(path, policy)| (path.as_str(), &*policy.name.name)).collect();
        assert_eq!(
            sources,
            [("headers", "gateway"), ("limits.a", "gateway"), ("limits.b", "route"), ("limits.c", "route")]
        );
    }

    #[test]
    fn an_override_wins_over_what_is_below_and_the_least_specific_one_over_the_others() {
        let off = RateLimitSettings { disabled: Some(true), ..settings(&[("a", 9)]) };
        let gateway = Leveled {
            settings: settings(&[("a", 1)]),
            overrides: Some(RateLimitSettings { disabled: Some(false), ..settings(&[("b", 3)]) }),
        };
        let listener = Leveled { settings: settings(&[]), overrides: Some(settings(&[("b", 4), ("d", 4)])) };
        let route = Leveled { settings: off, overrides: None };
        let (gateway_key, listener_key, route_key) = (key("gateway"), key("listener"), key("route"));
        let levels = [(&gateway_key, &gateway), (&listener_key, &listener), (&route_key, &route)];
        let merged = effective(levels.into_iter());
        assert!(!merged.settings.is_disabled());
        let rate = |name: &str| merged.settings.limits.get(name).map(|limit| limit.quota.rate.get());
        assert_eq!([rate("a"), rate("b"), rate("d")], [Some(9), Some(3), Some(4)]);
        assert_eq!(merged.sources.get("limits.b"), Some(&gateway_key));
    }
}
