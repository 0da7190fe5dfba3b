//! Policies as JSON.

use std::{collections::BTreeMap, sync::Arc};

use control_plane_model::{
    self as model, ConcurrencyLimit, Effective, Inherited, KeyPart, Leveled, Missing, Mode, Policy, PolicyKey,
    PolicyKind, PolicySpec, Quota, RateLimit, RateLimitSettings, ValidationSettings,
    validation::{Content, InvalidStatus, Numbers, Otherwise, Parameter, ParameterPlace, SchemaSource},
};
use serde_json::{Map, Value, json};

use super::{authentication, backend, client_policy};

/// What a policy says; fields that it leaves to others are left out.
pub(super) fn spec(spec: &PolicySpec) -> Value {
    match spec {
        PolicySpec::Invalid => json!({ "invalid": true }),
        PolicySpec::RateLimit(levels) => leveled(levels, rate_limit),
        PolicySpec::Authentication(levels) => leveled(levels, authentication::settings),
        PolicySpec::Backend(settings) => backend::settings(settings),
        PolicySpec::Client(settings) => client_policy::settings(settings),
        PolicySpec::RequestValidation(levels) => leveled(levels, request_validation),
    }
}

/// What several policies of one kind come to.
pub(super) struct Merged {
    pub(super) settings: Value,
    pub(super) disabled: bool,
    /// The policy that each field is from.
    pub(super) sources: BTreeMap<String, PolicyKey>,
}

/// Merges those of `chain` that are of `kind`, the least specific first.
pub(super) fn merged(kind: PolicyKind, chain: &[Arc<Policy>]) -> Merged {
    match kind {
        PolicyKind::RateLimit => of_chain(chain, rate_limit),
        PolicyKind::Authentication => of_chain(chain, authentication::settings),
        PolicyKind::RequestValidation => of_chain(chain, request_validation),
        PolicyKind::Client => {
            let Effective { settings, sources } = model::effective_client(chain.iter().map(|policy| &**policy));
            Merged { disabled: false, settings: client_policy::settings(&settings), sources }
        }
        // It is attached to Services, and on none of them merged.
        PolicyKind::Backend => Merged { settings: Value::Null, disabled: false, sources: BTreeMap::new() },
    }
}

fn of_chain<S: Inherited>(chain: &[Arc<Policy>], json: impl Fn(&S) -> Value) -> Merged {
    let Effective { settings, sources } = model::merged::<S>(chain.iter().map(|policy| &**policy));
    Merged { disabled: settings.is_disabled(), settings: json(&settings), sources }
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

pub(super) fn mode(mode: Mode) -> Value {
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

fn request_validation(settings: &ValidationSettings) -> Value {
    let content: Map<_, _> =
        settings.body.content.iter().map(|(media, found)| (media.to_string(), body_content(found))).collect();
    let parameters: Map<_, _> =
        settings.parameters.iter().map(|(key, found)| (key.to_string(), parameter(found))).collect();
    let openapi = settings.openapi.as_ref().map(|openapi| {
        json!({
            "document_bytes": openapi.document.as_str().len(),
            "base_path": openapi.base_path,
            "unmatched": otherwise(openapi.unmatched),
        })
    });
    present([
        ("disabled", settings.disabled.map(Value::from)),
        ("mode", settings.mode.map(mode)),
        (
            "status",
            settings.status.map(|status| match status {
                InvalidStatus::BadRequest => 400.into(),
                InvalidStatus::UnprocessableContent => 422.into(),
            }),
        ),
        ("unknown_media_types", settings.unknown_media_types.map(otherwise)),
        ("unknown_query", settings.unknown_query.map(otherwise)),
        ("max_depth", settings.max_depth.map(Value::from)),
        (
            "numbers",
            settings.numbers.map(|numbers| match numbers {
                Numbers::Exact => "exact".into(),
                Numbers::Nearest => "nearest".into(),
            }),
        ),
        ("body_required", settings.body.required.map(Value::from)),
        ("max_bytes", settings.body.max_bytes.map(|bytes| bytes.get().into())),
        ("content", (!content.is_empty()).then(|| content.into())),
        ("parameters", (!parameters.is_empty()).then(|| parameters.into())),
        ("openapi", openapi),
    ])
}

fn otherwise(otherwise: Otherwise) -> Value {
    match otherwise {
        Otherwise::Reject => "reject".into(),
        Otherwise::Pass => "pass".into(),
    }
}

/// Schemas and documents may be large: their sizes will do.
fn schema(source: &SchemaSource) -> Value {
    json!({ "bytes": source.schema.as_str().len(), "resources": source.resources.keys().collect::<Vec<_>>() })
}

fn body_content(content: &Content) -> Value {
    match content {
        Content::Unchecked => json!({ "unchecked": true }),
        Content::Checked(source) => json!({ "schema": source.as_deref().map(schema) }),
    }
}

fn parameter(parameter: &Parameter) -> Value {
    let place = match parameter.place {
        ParameterPlace::Query => "query",
        ParameterPlace::Header => "header",
        ParameterPlace::Cookie => "cookie",
    };
    let schema = parameter.schema.as_deref().map(schema);
    json!({ "in": place, "name": parameter.name, "required": parameter.required, "schema": schema })
}
