//! Settings of a RateLimitPolicy.

use std::{num::NonZeroU32, sync::Arc};

use control_plane_model::{ConcurrencyLimit, KeyPart, Missing, Quota, RateLimit, RateLimitSettings, Tiers};

use super::{entries, mode_from_wire, mode_to_wire, name};
use crate::{
    proto::{self, key_part::Part},
    resource::{
        duration::{duration_from_wire, duration_to_wire},
        error::{Field as _, InvalidResource, each, required},
        matching::header_name,
    },
};

pub(super) fn to_wire(settings: &RateLimitSettings) -> proto::RateLimitSettings {
    let limit = |(name, limit): (&Arc<str>, &RateLimit)| proto::RateLimit {
        name: name.to_string(),
        quota: Some(quota_to_wire(limit.quota)),
        key: limit.key.iter().map(part_to_wire).collect(),
        tiers: limit.tiers.as_ref().map(tiers_to_wire),
    };
    let concurrency = |(name, limit): (&Arc<str>, &ConcurrencyLimit)| proto::ConcurrencyLimit {
        name: name.to_string(),
        limit: limit.limit.get(),
        key: limit.key.iter().map(part_to_wire).collect(),
    };
    proto::RateLimitSettings {
        disabled: settings.disabled,
        mode: mode_to_wire(settings.mode),
        limits: settings.limits.iter().map(limit).collect(),
        concurrency: settings.concurrency.iter().map(concurrency).collect(),
        headers: settings.headers,
        max_keys: settings.max_keys.map(NonZeroU32::get),
    }
}

pub(super) fn from_wire(wire: proto::RateLimitSettings) -> Result<RateLimitSettings, InvalidResource> {
    Ok(RateLimitSettings {
        disabled: wire.disabled,
        mode: mode_from_wire(wire.mode).field("mode")?,
        limits: entries(wire.limits, "limits", |wire| {
            let quota = quota_from_wire(wire.quota).field("quota")?;
            let key = each(wire.key, "key", part_from_wire)?;
            let tiers = wire.tiers.map(tiers_from_wire).transpose().field("tiers")?;
            Ok((name(wire.name).field("name")?, RateLimit { quota, key, tiers }))
        })?,
        concurrency: entries(wire.concurrency, "concurrency", |wire| {
            let limit = number(wire.limit).field("limit")?;
            let key = each(wire.key, "key", part_from_wire)?;
            Ok((name(wire.name).field("name")?, ConcurrencyLimit { limit, key }))
        })?,
        headers: wire.headers,
        max_keys: wire.max_keys.map(number).transpose().field("max_keys")?,
    })
}

fn number(number: u32) -> Result<NonZeroU32, InvalidResource> {
    NonZeroU32::new(number).ok_or_else(|| InvalidResource::new("is 0"))
}

fn quota_to_wire(quota: Quota) -> proto::Quota {
    proto::Quota { rate: quota.rate.get(), per: Some(duration_to_wire(quota.per)), burst: quota.burst.get() }
}

fn quota_from_wire(wire: Option<proto::Quota>) -> Result<Quota, InvalidResource> {
    let wire = required(wire)?;
    let per = duration_from_wire(required(wire.per).field("per")?).field("per")?;
    Ok(Quota { rate: number(wire.rate).field("rate")?, per, burst: number(wire.burst).field("burst")? })
}

fn tiers_to_wire(tiers: &Tiers) -> proto::Tiers {
    let tier = |(value, quota): (&Arc<str>, &Quota)| proto::Tier {
        value: value.to_string(),
        quota: Some(quota_to_wire(*quota)),
    };
    proto::Tiers { claim: tiers.claim.to_string(), quotas: tiers.quotas.iter().map(tier).collect() }
}

fn tiers_from_wire(wire: proto::Tiers) -> Result<Tiers, InvalidResource> {
    let quotas = entries(wire.quotas, "quotas", |wire| {
        Ok((Arc::from(wire.value), quota_from_wire(wire.quota).field("quota")?))
    })?;
    if quotas.is_empty() {
        return Err(InvalidResource::new("is empty")).field("quotas");
    }
    Ok(Tiers { claim: name(wire.claim).field("claim")?, quotas })
}

fn part_to_wire(part: &KeyPart) -> proto::KeyPart {
    let named = |name: &str, missing: Missing| proto::NamedPart {
        name: name.to_owned(),
        missing: missing_to_wire(missing).into(),
    };
    let part = match part {
        KeyPart::Address { ipv4_prefix, ipv6_prefix } => Part::Address(proto::AddressPart {
            ipv4_prefix: u32::from(*ipv4_prefix),
            ipv6_prefix: u32::from(*ipv6_prefix),
        }),
        KeyPart::Header(name, missing) => Part::Header(named(name.as_str(), *missing)),
        KeyPart::Cookie(name, missing) => Part::Cookie(named(name, *missing)),
        KeyPart::Query(name, missing) => Part::Query(named(name, *missing)),
        KeyPart::Claim(name, missing) => Part::Claim(named(name, *missing)),
        KeyPart::Host => Part::Host(proto::EmptyPart {}),
        KeyPart::Route => Part::Route(proto::EmptyPart {}),
        KeyPart::Shared => Part::Shared(proto::EmptyPart {}),
    };
    proto::KeyPart { part: Some(part) }
}

fn part_from_wire(wire: proto::KeyPart) -> Result<KeyPart, InvalidResource> {
    let named = |wire: proto::NamedPart| {
        Ok((name(wire.name).field("name")?, missing_from_wire(wire.missing).field("missing")?))
    };
    Ok(match required(wire.part)? {
        Part::Address(wire) => KeyPart::Address {
            ipv4_prefix: prefix(wire.ipv4_prefix, 32).field("ipv4_prefix").field("address")?,
            ipv6_prefix: prefix(wire.ipv6_prefix, 128).field("ipv6_prefix").field("address")?,
        },
        Part::Header(wire) => {
            let (name, missing) = named(wire).field("header")?;
            KeyPart::Header(header_name(&name).field("name").field("header")?, missing)
        }
        Part::Cookie(wire) => named(wire).field("cookie").map(|(name, missing)| KeyPart::Cookie(name, missing))?,
        Part::Query(wire) => named(wire).field("query").map(|(name, missing)| KeyPart::Query(name, missing))?,
        Part::Claim(wire) => named(wire).field("claim").map(|(name, missing)| KeyPart::Claim(name, missing))?,
        Part::Host(_) => KeyPart::Host,
        Part::Route(_) => KeyPart::Route,
        Part::Shared(_) => KeyPart::Shared,
    })
}

fn prefix(bits: u32, most: u8) -> Result<u8, InvalidResource> {
    let prefix = u8::try_from(bits).ok().filter(|bits| *bits <= most);
    prefix.ok_or_else(|| InvalidResource::new(format_args!("{bits} is above {most}")))
}

fn missing_to_wire(missing: Missing) -> proto::Missing {
    match missing {
        Missing::Address => proto::Missing::Address,
        Missing::Shared => proto::Missing::Shared,
        Missing::Skip => proto::Missing::Skip,
    }
}

fn missing_from_wire(missing: i32) -> Result<Missing, InvalidResource> {
    match proto::Missing::try_from(missing) {
        Ok(proto::Missing::Address) => Ok(Missing::Address),
        Ok(proto::Missing::Shared) => Ok(Missing::Shared),
        Ok(proto::Missing::Skip) => Ok(Missing::Skip),
        Ok(proto::Missing::Unspecified) | Err(_) => Err(InvalidResource::unknown()),
    }
}
