//! Policies, and the keys by which other objects name them.

mod authentication;
mod backend;
mod client;
mod rate_limit;
mod request_validation;

use std::{collections::BTreeMap, sync::Arc};

use control_plane_model::{Leveled, Mode, Policy, PolicyKey, PolicyKind, PolicySpec, ResourceKey};

use super::error::{Field as _, InvalidResource, each, required};
use crate::proto::{self, policy::Spec};

pub(super) fn to_wire(policy: &Policy) -> proto::Policy {
    let spec = match &policy.spec {
        PolicySpec::Invalid => Spec::Invalid(proto::InvalidPolicy {}),
        PolicySpec::Authentication(levels) => Spec::Authentication(proto::AuthenticationPolicy {
            settings: Some(authentication::to_wire(&levels.settings)),
            overrides: levels.overrides.as_ref().map(authentication::to_wire),
        }),
        PolicySpec::RateLimit(levels) => Spec::RateLimit(proto::RateLimitPolicy {
            settings: Some(rate_limit::to_wire(&levels.settings)),
            overrides: levels.overrides.as_ref().map(rate_limit::to_wire),
        }),
        PolicySpec::Backend(settings) => Spec::Backend(backend::to_wire(settings)),
        PolicySpec::RequestValidation(levels) => Spec::RequestValidation(proto::RequestValidationPolicy {
            settings: Some(request_validation::to_wire(&levels.settings)),
            overrides: levels.overrides.as_ref().map(request_validation::to_wire),
        }),
        PolicySpec::Client(settings) => Spec::Client(client::to_wire(settings)),
    };
    proto::Policy { spec: Some(spec) }
}

pub(super) fn from_wire(key: PolicyKey, wire: proto::Policy) -> Result<Policy, InvalidResource> {
    let spec = match (required(wire.spec).field("spec")?, key.kind) {
        (Spec::Invalid(_), _) => PolicySpec::Invalid,
        (Spec::RateLimit(wire), PolicyKind::RateLimit) => {
            PolicySpec::RateLimit(leveled(wire.settings, wire.overrides, rate_limit::from_wire).field("rate_limit")?)
        }
        (Spec::Authentication(wire), PolicyKind::Authentication) => {
            let levels = leveled(wire.settings, wire.overrides, authentication::from_wire);
            PolicySpec::Authentication(levels.field("authentication")?)
        }
        (Spec::Backend(wire), PolicyKind::Backend) => {
            PolicySpec::Backend(Box::new(backend::from_wire(wire).field("backend")?))
        }
        (Spec::RequestValidation(wire), PolicyKind::RequestValidation) => {
            let levels = leveled(wire.settings, wire.overrides, request_validation::from_wire);
            PolicySpec::RequestValidation(levels.field("request_validation")?)
        }
        (Spec::Client(wire), PolicyKind::Client) => PolicySpec::Client(client::from_wire(wire).field("client")?),
        (_, _) => return Err(InvalidResource::new("is of another kind than its key")).field("spec"),
    };
    Ok(Policy { key, spec })
}

fn leveled<W, S>(
    settings: Option<W>,
    overrides: Option<W>,
    convert: impl Fn(W) -> Result<S, InvalidResource>,
) -> Result<Leveled<S>, InvalidResource> {
    let settings = convert(required(settings).field("settings")?).field("settings")?;
    Ok(Leveled { settings, overrides: overrides.map(convert).transpose().field("overrides")? })
}

/// The keys of the policies on an object.
pub(super) fn keys_to_wire(keys: &[PolicyKey]) -> Vec<String> {
    keys.iter().map(|key| ResourceKey::Policy(key.clone()).to_string()).collect()
}

/// The keys in `policies`.
pub(super) fn keys_from_wire(wire: Vec<String>) -> Result<Vec<PolicyKey>, InvalidResource> {
    let keys = each(wire, "policies", |text| match text.parse() {
        Ok(ResourceKey::Policy(key)) => Ok(key),
        _ => Err(InvalidResource::new(format_args!("{text:?} is not the key of a policy"))),
    })?;
    for (index, pair) in keys.windows(2).enumerate() {
        if let [before, after] = pair
            && before.kind >= after.kind
        {
            return Err(InvalidResource::new("is not sorted, or is a second one of its kind"))
                .element("policies", index + 1);
        }
    }
    Ok(keys)
}

fn mode_to_wire(mode: Option<Mode>) -> i32 {
    let mode = match mode {
        None => proto::PolicyMode::Unspecified,
        Some(Mode::Enforce) => proto::PolicyMode::Enforce,
        Some(Mode::Report) => proto::PolicyMode::Report,
    };
    mode.into()
}

fn mode_from_wire(mode: i32) -> Result<Option<Mode>, InvalidResource> {
    match proto::PolicyMode::try_from(mode) {
        Ok(proto::PolicyMode::Unspecified) => Ok(None),
        Ok(proto::PolicyMode::Enforce) => Ok(Some(Mode::Enforce)),
        Ok(proto::PolicyMode::Report) => Ok(Some(Mode::Report)),
        Err(_) => Err(InvalidResource::unknown()),
    }
}

/// Named entries, each name once.
fn entries<W, K: Ord, V>(
    wire: Vec<W>,
    name: &str,
    convert: impl Fn(W) -> Result<(K, V), InvalidResource>,
) -> Result<BTreeMap<K, V>, InvalidResource> {
    let mut map = BTreeMap::new();
    for (index, entry) in wire.into_iter().enumerate() {
        let (key, value) = convert(entry).element(name, index)?;
        if map.insert(key, value).is_some() {
            return Err(InvalidResource::new("repeats an earlier element")).element(name, index);
        }
    }
    Ok(map)
}

/// A text that is not empty.
fn name(text: String) -> Result<Arc<str>, InvalidResource> {
    if text.is_empty() { Err(InvalidResource::new("is empty")) } else { Ok(text.into()) }
}
