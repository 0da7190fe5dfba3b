//! Policies as JSON.

use control_plane_model::{
    ConcurrencyLimit, KeyPart, Leveled, Missing, Mode, PolicySpec, Quota, RateLimit, RateLimitSettings,
};
use serde_json::{Map, Value, json};

/// What a policy says; fields that it leaves to others are left out.
pub(super) fn spec(spec: &PolicySpec) -> Value {
    match spec {
        PolicySpec::Invalid => json!({ "invalid": true }),
        PolicySpec::RateLimit(levels) => leveled(levels, rate_limit),
        PolicySpec::Client(settings) => super::client_policy::settings(settings),
    }
}

fn leveled<S>(levels: &Leveled<S>, settings: impl Fn(&S) -> Value) -> Value {
    let mut value = settings(&levels.settings);
    if let (Some(overrides), Value::Object(fields)) = (&levels.overrides, &mut value) {
        fields.insert("overrides".to_owned(), settings(overrides));
    }
    value
}

/// An object of those fields that have a value.
pub(super) fn present<const N: usize>(fields: [(&str, Option<Value>); N]) -> Value {
    let present = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    present.collect::<Map<_, _>>().into()
}

fn mode(mode: Mode) -> Value {
    match mode {
        Mode::Enforce => "Enforce".into(),
        Mode::Report => "Report".into(),
    }
}

fn rate_limit(settings: &RateLimitSettings) -> Value {
    let limits: Map<_, _> = settings.limits.iter().map(|(name, found)| (name.to_string(), limit(found))).collect();
    let concurrency: Map<_, _> =
        settings.concurrency.iter().map(|(name, limit)| (name.to_string(), concurrent(limit))).collect();
    present([
        ("disabled", settings.disabled.map(Value::from)),
        ("mode", settings.mode.map(mode)),
        ("limits", (!limits.is_empty()).then(|| limits.into())),
        ("concurrency", (!concurrency.is_empty()).then(|| concurrency.into())),
        ("headers", settings.headers.map(Value::from)),
        ("max_keys", settings.max_keys.map(|keys| keys.get().into())),
    ])
}

fn limit(limit: &RateLimit) -> Value {
    let tiers = limit.tiers.as_ref().map(|tiers| {
        let quotas: Map<_, _> = tiers.quotas.iter().map(|(value, found)| (value.to_string(), quota(*found))).collect();
        json!({ "claim": tiers.claim, "quotas": quotas })
    });
    present([("quota", Some(quota(limit.quota))), ("key", Some(key(&limit.key))), ("tiers", tiers)])
}

fn quota(quota: Quota) -> Value {
    json!({ "rate": quota.rate, "per_seconds": quota.per.as_secs_f64(), "burst": quota.burst })
}

fn concurrent(limit: &ConcurrencyLimit) -> Value {
    json!({ "limit": limit.limit, "key": key(&limit.key) })
}

fn key(parts: &[KeyPart]) -> Value {
    parts.iter().map(part).collect()
}

fn part(part: &KeyPart) -> Value {
    let named = |kind: &str, name: &str, missing: &Missing| {
        let missing = match missing {
            Missing::Address => "address",
            Missing::Shared => "shared",
            Missing::Skip => "skip",
        };
        json!({ "type": kind, "name": name, "missing": missing })
    };
    match part {
        KeyPart::Address { ipv4_prefix, ipv6_prefix } => {
            json!({ "type": "address", "ipv4_prefix": ipv4_prefix, "ipv6_prefix": ipv6_prefix })
        }
        KeyPart::Header(name, missing) => named("header", name.as_str(), missing),
        KeyPart::Cookie(name, missing) => named("cookie", name, missing),
        KeyPart::Query(name, missing) => named("query", name, missing),
        KeyPart::Claim(name, missing) => named("claim", name, missing),
        KeyPart::Host => json!({ "type": "host" }),
        KeyPart::Route => json!({ "type": "route" }),
        KeyPart::Shared => json!({ "type": "shared" }),
    }
}
