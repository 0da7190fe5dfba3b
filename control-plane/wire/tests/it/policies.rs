//! Any valid policy, and what is refused in one.

use std::num::NonZeroU32;

use control_plane_model::{
    ConcurrencyLimit, KeyPart, Leveled, Missing, Mode, Policy, PolicyKey, PolicyKind, PolicySpec, Quota, RateLimit,
    RateLimitSettings, Tiers,
};
use control_plane_wire::proto;
use proptest::{
    collection::{btree_map, vec},
    option::of,
    prelude::*,
};

mod validation;

use crate::{
    authentication, backend_policies, client_policies as client,
    invalid::{UNKNOWN, refused},
    strategies::{duration, header_name, object_name, text},
};

const POLICY: &str = "policy/rate-limit/shop/cart";

/// Keys as an object lists them.
pub fn keys() -> impl Strategy<Value = Vec<PolicyKey>> {
    let one = |kind| of(object_name()).prop_map(move |name| name.map(|name| PolicyKey { kind, name }));
    let kinds: Vec<_> = PolicyKind::ALL.iter().copied().map(one).collect();
    kinds.prop_map(|keys| keys.into_iter().flatten().collect())
}

pub fn policy() -> impl Strategy<Value = Policy> {
    let kind = prop::sample::select(PolicyKind::ALL.to_vec());
    let spec = prop_oneof![
        1 => kind.prop_map(|kind| (kind, PolicySpec::Invalid)),
        9 => leveled(rate_limit_settings()).prop_map(|levels| (PolicyKind::RateLimit, PolicySpec::RateLimit(levels))),
        9 => leveled(authentication::settings())
            .prop_map(|levels| (PolicyKind::Authentication, PolicySpec::Authentication(levels))),
        9 => leveled(validation::settings())
            .prop_map(|levels| (PolicyKind::RequestValidation, PolicySpec::RequestValidation(levels))),
        9 => backend_policies::settings()
            .prop_map(|settings| (PolicyKind::Backend, PolicySpec::Backend(Box::new(settings)))),
        9 => client::settings().prop_map(|settings| (PolicyKind::Client, PolicySpec::Client(settings))),
    ];
    (object_name(), spec.boxed()).prop_map(|(name, (kind, spec))| Policy { key: PolicyKey { kind, name }, spec })
}

fn leveled<S: std::fmt::Debug>(settings: BoxedStrategy<S>) -> impl Strategy<Value = Leveled<S>> {
    (settings.clone(), of(settings)).prop_map(|(settings, overrides)| Leveled { settings, overrides })
}

pub fn mode() -> impl Strategy<Value = Mode> {
    prop_oneof![Just(Mode::Enforce), Just(Mode::Report)]
}

fn number() -> impl Strategy<Value = NonZeroU32> {
    (1..=u32::MAX).prop_map(|number| NonZeroU32::new(number).unwrap())
}

fn quota() -> impl Strategy<Value = Quota> {
    (number(), duration(), number()).prop_map(|(rate, per, burst)| Quota { rate, per, burst })
}

fn key_part() -> impl Strategy<Value = KeyPart> {
    let missing = || prop_oneof![Just(Missing::Address), Just(Missing::Shared), Just(Missing::Skip)];
    let named = move || (text("\\PC{1,8}"), missing());
    prop_oneof![
        (0..=32_u8, 0..=128_u8).prop_map(|(ipv4_prefix, ipv6_prefix)| KeyPart::Address { ipv4_prefix, ipv6_prefix }),
        (header_name(), missing()).prop_map(|(name, missing)| KeyPart::Header(name, missing)),
        named().prop_map(|(name, missing)| KeyPart::Cookie(name, missing)),
        named().prop_map(|(name, missing)| KeyPart::Query(name, missing)),
        named().prop_map(|(name, missing)| KeyPart::Claim(name, missing)),
        Just(KeyPart::Host),
        Just(KeyPart::Route),
        Just(KeyPart::Shared),
    ]
}

fn rate_limit_settings() -> BoxedStrategy<RateLimitSettings> {
    let tiers = (text("\\PC{1,8}"), btree_map(text("\\PC{0,8}"), quota(), 1..3))
        .prop_map(|(claim, quotas)| Tiers { claim, quotas });
    let limit =
        (quota(), vec(key_part(), 0..3), of(tiers)).prop_map(|(quota, key, tiers)| RateLimit { quota, key, tiers });
    let concurrency = (number(), vec(key_part(), 0..3)).prop_map(|(limit, key)| ConcurrencyLimit { limit, key });
    let limits = btree_map(text("[a-z]{1,8}"), limit, 0..3);
    let concurrency = btree_map(text("[a-z]{1,8}"), concurrency, 0..3);
    let all = (of(any::<bool>()), of(mode()), limits, concurrency, of(any::<bool>()), of(number()));
    all.prop_map(|(disabled, mode, limits, concurrency, headers, max_keys)| RateLimitSettings {
        disabled,
        mode,
        limits,
        concurrency,
        headers,
        max_keys,
    })
    .boxed()
}

fn wire(settings: proto::RateLimitSettings) -> proto::Policy {
    let policy = proto::RateLimitPolicy { settings: Some(settings), overrides: None };
    proto::Policy { spec: Some(proto::policy::Spec::RateLimit(policy)) }
}

fn valid_limit() -> proto::RateLimit {
    let per = Some(proto::Duration { seconds: 1, nanoseconds: 0 });
    proto::RateLimit {
        name: "a".into(),
        quota: Some(proto::Quota { rate: 1, per, burst: 1 }),
        ..proto::RateLimit::default()
    }
}

fn with_limit(limit: proto::RateLimit) -> proto::Policy {
    wire(proto::RateLimitSettings { limits: vec![limit], ..proto::RateLimitSettings::default() })
}

#[test]
fn a_policy_that_says_nothing_or_too_much_is_refused() {
    refused(POLICY, &proto::Policy { spec: None }, &format!("spec: {UNKNOWN}"));
    let empty = proto::Policy { spec: Some(proto::policy::Spec::RateLimit(proto::RateLimitPolicy::default())) };
    refused(POLICY, &empty, &format!("rate_limit.settings: {UNKNOWN}"));
    let settings = |mode| wire(proto::RateLimitSettings { mode, ..proto::RateLimitSettings::default() });
    refused(POLICY, &settings(9), &format!("rate_limit.settings.mode: {UNKNOWN}"));
    let max_keys = wire(proto::RateLimitSettings { max_keys: Some(0), ..proto::RateLimitSettings::default() });
    refused(POLICY, &max_keys, "rate_limit.settings.max_keys: is 0");
}

#[test]
fn a_limit_that_cannot_be_kept_is_refused_by_its_field() {
    let limits = "rate_limit.settings.limits";
    let twice = wire(proto::RateLimitSettings {
        limits: vec![valid_limit(), valid_limit()],
        ..proto::RateLimitSettings::default()
    });
    refused(POLICY, &twice, &format!("{limits}[1]: repeats an earlier element"));
    let unnamed = proto::RateLimit { name: String::new(), ..valid_limit() };
    refused(POLICY, &with_limit(unnamed), &format!("{limits}[0].name: is empty"));
    let no_quota = proto::RateLimit { quota: None, ..valid_limit() };
    refused(POLICY, &with_limit(no_quota), &format!("{limits}[0].quota: {UNKNOWN}"));
    let part = |part| proto::RateLimit { key: vec![proto::KeyPart { part }], ..valid_limit() };
    refused(POLICY, &with_limit(part(None)), &format!("{limits}[0].key[0]: {UNKNOWN}"));
    let address = proto::key_part::Part::Address(proto::AddressPart { ipv4_prefix: 33, ipv6_prefix: 0 });
    refused(
        POLICY,
        &with_limit(part(Some(address))),
        &format!("{limits}[0].key[0].address.ipv4_prefix: 33 is above 32"),
    );
    let header = proto::key_part::Part::Header(proto::NamedPart { name: "x y".into(), missing: 1 });
    refused(
        POLICY,
        &with_limit(part(Some(header))),
        &format!("{limits}[0].key[0].header.name: \"x y\": invalid HTTP header name"),
    );
    let tiers =
        proto::RateLimit { tiers: Some(proto::Tiers { claim: "plan".into(), quotas: Vec::new() }), ..valid_limit() };
    refused(POLICY, &with_limit(tiers), &format!("{limits}[0].tiers.quotas: is empty"));
}

#[test]
fn keys_of_policies_are_sorted_and_one_of_a_kind() {
    let gateway = |policies: &[&str]| proto::Gateway {
        access_log: proto::AccessLog::Json.into(),
        policies: policies.iter().map(|key| (*key).to_owned()).collect(),
        ..proto::Gateway::default()
    };
    const GATEWAY: &str = "gateway/infra/edge";
    refused(GATEWAY, &gateway(&["rate-limit/a/b"]), "policies[0]: \"rate-limit/a/b\" is not the key of a policy");
    refused(
        GATEWAY,
        &gateway(&["policy/rate-limit/a/b", "policy/rate-limit/a/c"]),
        "policies[1]: is not sorted, or is a second one of its kind",
    );
}
