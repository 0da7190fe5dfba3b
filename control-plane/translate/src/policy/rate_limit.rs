//! RateLimitPolicy.

use std::{collections::BTreeMap, num::NonZeroU32, sync::Arc};

use control_plane_model::{
    ConcurrencyLimit, KeyPart, Leveled, Missing, Mode, Quota, RateLimit, RateLimitSettings, Tiers,
};
use crds::{
    policy,
    rate_limit_policy::{self as resource, KeyPartType, OnMissing, RateLimitHeaders, RateLimitPolicySpec},
};
use policy_rate_limit::Limit;

use crate::route::values;

/// The most limits, and the most concurrency limits, of one policy.
const MAX_LIMITS: usize = 4;
/// The most parts of a key.
const MAX_PARTS: usize = 8;

pub(super) fn translate(spec: &RateLimitPolicySpec) -> Result<Leveled<RateLimitSettings>, String> {
    let overrides = spec.overrides.as_ref().map(settings).transpose();
    Ok(Leveled {
        settings: settings(&spec.settings()).map_err(|error| format!("spec.{error}"))?,
        overrides: overrides.map_err(|error| format!("spec.overrides.{error}"))?,
    })
}

fn settings(settings: &resource::RateLimitSettings) -> Result<RateLimitSettings, String> {
    let max_keys = settings.max_keys.map(|keys| {
        let number = u32::try_from(keys).ok().filter(|keys| (1000..=10_000_000).contains(keys));
        number.and_then(NonZeroU32::new).ok_or_else(|| format!("maxKeys is {keys}, want 1000 to 10000000"))
    });
    Ok(RateLimitSettings {
        disabled: settings.disabled,
        mode: settings.mode.map(mode),
        limits: named(&settings.limits, "limits", limit)?,
        concurrency: named(&settings.concurrency, "concurrency", concurrency)?,
        headers: settings.headers.map(|headers| headers == RateLimitHeaders::Standard),
        max_keys: max_keys.transpose()?,
    })
}

pub(super) fn mode(mode: policy::Mode) -> Mode {
    match mode {
        policy::Mode::Enforce => Mode::Enforce,
        policy::Mode::Report => Mode::Report,
    }
}

/// Entries whose names clients are told: small letters, digits and dashes.
fn named<T, M>(
    entries: &BTreeMap<String, T>,
    field: &str,
    convert: impl Fn(&T) -> Result<M, String>,
) -> Result<BTreeMap<Arc<str>, M>, String> {
    if entries.len() > MAX_LIMITS {
        return Err(format!("{field} has {} entries, {MAX_LIMITS} at most", entries.len()));
    }
    let convert = |(name, entry): (&String, &T)| {
        let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if name.is_empty() || name.len() > 63 || !name.bytes().all(is_plain) {
            return Err(format!("{field}: the name {name:?} is not 1 to 63 of a-z, 0-9 and -"));
        }
        Ok((Arc::from(name.as_str()), convert(entry).map_err(|error| format!("{field}.{name}.{error}"))?))
    };
    entries.iter().map(convert).collect()
}

fn limit(limit: &resource::RateLimit) -> Result<RateLimit, String> {
    let own = resource::Quota { rate: limit.rate, per: limit.per.clone(), burst: limit.burst };
    Ok(RateLimit { quota: quota(&own)?, key: key(&limit.key)?, tiers: limit.tiers.as_ref().map(tiers).transpose()? })
}

fn quota(quota: &resource::Quota) -> Result<Quota, String> {
    let number = |field: &str, number: i32| {
        let number_above_0 = u32::try_from(number).ok().and_then(NonZeroU32::new);
        number_above_0.ok_or_else(|| format!("{field} is {number}, want 1 or more"))
    };
    let rate = number("rate", quota.rate)?;
    let per = values::duration(&quota.per).map_err(|error| format!("per: {error}"))?;
    let per = per.ok_or_else(|| "per is 0, want a duration such as 1s".to_owned())?;
    let burst = quota.burst.map_or(Ok(rate), |burst| number("burst", burst))?;
    Limit::new(rate.get().into(), per, burst.get().into()).map_err(|error| format!("rate: {error}"))?;
    Ok(Quota { rate, per, burst })
}

fn tiers(tiers: &resource::Tiers) -> Result<Tiers, String> {
    if tiers.claim.is_empty() {
        return Err("tiers.claim is empty".to_owned());
    }
    if tiers.quotas.is_empty() {
        return Err("tiers.quotas is empty".to_owned());
    }
    let quotas = tiers.quotas.iter().map(|(value, found)| {
        Ok((Arc::from(value.as_str()), quota(found).map_err(|error| format!("tiers.quotas.{value}.{error}"))?))
    });
    Ok(Tiers { claim: tiers.claim.as_str().into(), quotas: quotas.collect::<Result<_, String>>()? })
}

fn concurrency(limit: &resource::ConcurrencyLimit) -> Result<ConcurrencyLimit, String> {
    let number = u32::try_from(limit.limit).ok().and_then(NonZeroU32::new);
    let number = number.ok_or_else(|| format!("limit is {}, want 1 or more", limit.limit))?;
    Ok(ConcurrencyLimit { limit: number, key: key(&limit.key)? })
}

fn key(parts: &[resource::KeyPart]) -> Result<Vec<KeyPart>, String> {
    if parts.len() > MAX_PARTS {
        return Err(format!("key has {} parts, {MAX_PARTS} at most", parts.len()));
    }
    let convert =
        |(index, found): (usize, &resource::KeyPart)| part(found).map_err(|error| format!("key[{index}].{error}"));
    parts.iter().enumerate().map(convert).collect()
}

fn part(part: &resource::KeyPart) -> Result<KeyPart, String> {
    let missing = match part.on_missing.unwrap_or_default() {
        OnMissing::Address => Missing::Address,
        OnMissing::Shared => Missing::Shared,
        OnMissing::Skip => Missing::Skip,
    };
    let name = || part.name.as_deref().filter(|name| !name.is_empty()).ok_or_else(|| "name is missing".to_owned());
    let is_named =
        matches!(part.kind, KeyPartType::Header | KeyPartType::Cookie | KeyPartType::QueryParam | KeyPartType::Claim);
    if !is_named && (part.name.is_some() || part.on_missing.is_some()) {
        return Err("name and onMissing are for Header, Cookie, QueryParam and Claim".to_owned());
    }
    if part.kind != KeyPartType::Address && (part.ipv4_prefix.is_some() || part.ipv6_prefix.is_some()) {
        return Err("ipv4Prefix and ipv6Prefix are for Address".to_owned());
    }
    Ok(match part.kind {
        KeyPartType::Address => KeyPart::Address {
            ipv4_prefix: prefix("ipv4Prefix", part.ipv4_prefix, 32, 32)?,
            ipv6_prefix: prefix("ipv6Prefix", part.ipv6_prefix, 64, 128)?,
        },
        KeyPartType::Header => {
            KeyPart::Header(values::header_name(name()?).map_err(|error| format!("name: {error}"))?, missing)
        }
        KeyPartType::Cookie => KeyPart::Cookie(name()?.into(), missing),
        KeyPartType::QueryParam => KeyPart::Query(name()?.into(), missing),
        KeyPartType::Claim => KeyPart::Claim(name()?.into(), missing),
        KeyPartType::Host => KeyPart::Host,
        KeyPartType::Route => KeyPart::Route,
        KeyPartType::Shared => KeyPart::Shared,
    })
}

fn prefix(field: &str, bits: Option<i32>, default: u8, most: u8) -> Result<u8, String> {
    let Some(bits) = bits else { return Ok(default) };
    let prefix = u8::try_from(bits).ok().filter(|bits| *bits <= most);
    prefix.ok_or_else(|| format!("{field} is {bits}, want 0 to {most}"))
}
