//! Any valid AuthenticationPolicy, and what is refused in one.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use control_plane_model::{
    ApiKey, ApiKeys, Audiences, AuthenticationSettings, Basic, ClaimToHeader, HttpsUrl, IdentityProvider, JwtRules,
    KeyLocation, KeySource, ListEncoding, PasswordHash, ProofSettings, ProviderUse, RemoteKeys, SigningAlgorithm,
    TextEncoding, TokenSource,
};
use control_plane_wire::proto::{self, credential_source::Source, jwt_rules::Keys, remote_keys::Location};
use proptest::{
    collection::{btree_map, btree_set, vec},
    option::of,
    prelude::*,
    sample::select,
};
use rustls_pki_types::CertificateDer;

use crate::{
    invalid::{UNKNOWN, refused},
    policies::mode,
    strategies::{duration, header_name, object_name, text},
};

const POLICY: &str = "policy/authentication/shop/cart";
const SETTINGS: &str = "authentication.settings";

fn name() -> impl Strategy<Value = Arc<str>> {
    text("\\PC{1,8}")
}

fn source() -> impl Strategy<Value = TokenSource> {
    prop_oneof![
        header_name().prop_map(TokenSource::Header),
        name().prop_map(TokenSource::Cookie),
        name().prop_map(TokenSource::Query),
    ]
}

fn audiences() -> impl Strategy<Value = Audiences> {
    prop_oneof![Just(Audiences::Waived), vec(name(), 1..3).prop_map(Audiences::AnyOf)]
}

fn remote_keys() -> impl Strategy<Value = RemoteKeys> {
    let url = || "https://[a-z]{1,8}(:8443)?/[a-z]{0,8}".prop_map(|text| text.parse::<HttpsUrl>().unwrap());
    let location = prop_oneof![
        url().prop_map(KeyLocation::Url),
        (url(), name()).prop_map(|(url, issuer)| KeyLocation::Discovery { url, issuer }),
    ];
    let certificate = vec(any::<u8>(), 1..8).prop_map(CertificateDer::from);
    let authorities = of(vec(certificate, 1..3).prop_map(Arc::from));
    (location, authorities, 60..=86_400_u64, 0..=604_800_u64).prop_map(|(location, authorities, refresh, stale)| {
        RemoteKeys::new(location, authorities, Duration::from_secs(refresh), Duration::from_secs(stale)).unwrap()
    })
}

fn provider() -> impl Strategy<Value = Arc<IdentityProvider>> {
    let keys = prop_oneof![
        name().prop_map(KeySource::Inline),
        remote_keys().prop_map(|remote| KeySource::Remote(Arc::new(remote))),
    ];
    let algorithms: BTreeSet<SigningAlgorithm> = SigningAlgorithm::ALL.into();
    let algorithms = btree_set(select(algorithms.into_iter().collect::<Vec<_>>()), 1..4);
    let rules =
        (keys, audiences(), algorithms, vec(name(), 0..3), duration(), of(duration()), any::<u32>(), vec(name(), 0..3));
    let rules = rules.prop_map(
        |(keys, audiences, algorithms, token_types, leeway, max_lifetime, max_token_bytes, required_claims)| JwtRules {
            keys,
            audiences,
            algorithms,
            token_types,
            leeway,
            max_lifetime,
            max_token_bytes,
            required_claims,
        },
    );
    (object_name(), name(), rules).prop_map(|(name, issuer, jwt)| Arc::new(IdentityProvider { name, issuer, jwt }))
}

fn provider_use() -> impl Strategy<Value = ProviderUse> {
    let text = select(vec![TextEncoding::Plain, TextEncoding::Base64Url]);
    let list = select(vec![ListEncoding::Comma, ListEncoding::Json]);
    let claim = (name(), header_name(), text, list).prop_map(|(claim, header, text, list)| ClaimToHeader {
        claim,
        header,
        text,
        list,
    });
    let source = prop_oneof![Just(TokenSource::Authorization), source()];
    let all = (provider(), source, any::<bool>(), of(audiences()), vec(name(), 0..3), vec(claim, 0..3));
    all.prop_map(|(provider, source, forward_token, audiences, required_scopes, claims_to_headers)| ProviderUse {
        provider,
        source,
        forward_token,
        audiences,
        required_scopes,
        claims_to_headers,
    })
}

fn api_keys() -> impl Strategy<Value = ApiKeys> {
    let keys = btree_map(any::<[u8; 32]>(), name(), 0..3);
    let keys = keys.prop_map(|keys| keys.into_iter().map(|(digest, client)| ApiKey { client, digest }).collect());
    (source(), any::<bool>(), of(header_name()), keys).prop_map(|(source, forward_key, client_header, keys)| ApiKeys {
        source,
        forward_key,
        client_header,
        keys,
    })
}

fn basic() -> impl Strategy<Value = Basic> {
    let hash = "\\$2b\\$(0[4-9]|1[0-2])\\$[./A-Za-z0-9]{53}".prop_map(|text| text.parse::<PasswordHash>().unwrap());
    (btree_map(name(), hash, 0..3), any::<bool>(), of(header_name()))
        .prop_map(|(users, forward_password, user_header)| Basic { users, forward_password, user_header })
}

pub fn settings() -> BoxedStrategy<AuthenticationSettings> {
    let proofs = (any::<bool>(), 1..=300_u64)
        .prop_map(|(required, seconds)| ProofSettings { required, max_age: Duration::from_secs(seconds) });
    let all = (
        of(any::<bool>()),
        of(mode()),
        of(any::<bool>()),
        of(text("[ -~]{1,8}")),
        btree_map(text("[a-z]{1,8}"), provider_use(), 0..3),
        btree_map(text("[a-z]{1,8}"), api_keys(), 0..3),
        of(basic()),
        of(proofs),
        vec(header_name(), 0..3),
    );
    all.prop_map(|(disabled, mode, allow_anonymous, realm, providers, api_keys, basic, proofs, strip_headers)| {
        AuthenticationSettings {
            disabled,
            mode,
            allow_anonymous,
            realm,
            providers,
            api_keys,
            basic,
            proofs,
            strip_headers: AuthenticationSettings::sorted(strip_headers),
        }
    })
    .boxed()
}

fn wire(settings: proto::AuthenticationSettings) -> proto::Policy {
    let policy = proto::AuthenticationPolicy { settings: Some(settings), overrides: None };
    proto::Policy { spec: Some(proto::policy::Spec::Authentication(policy)) }
}

#[expect(clippy::unnecessary_wraps, reason = "as the fields that it fills are optional")]
fn source_of(source: Source) -> Option<proto::CredentialSource> {
    Some(proto::CredentialSource { source: Some(source) })
}

#[expect(clippy::unnecessary_wraps, reason = "as the fields that it fills are optional")]
fn any_audience() -> Option<proto::Audiences> {
    Some(proto::Audiences { audiences: Some(proto::audiences::Audiences::Waived(proto::AnyAudience {})) })
}

#[expect(clippy::unnecessary_wraps, reason = "as the fields that it fills are optional")]
fn seconds(seconds: u64) -> Option<proto::Duration> {
    Some(proto::Duration { seconds, nanoseconds: 0 })
}

fn valid_rules() -> proto::JwtRules {
    proto::JwtRules {
        keys: Some(Keys::Inline("{}".into())),
        audiences: any_audience(),
        algorithms: vec!["ES256".into()],
        leeway: seconds(1),
        ..proto::JwtRules::default()
    }
}

fn with_rules(rules: proto::JwtRules) -> proto::Policy {
    let provider = proto::IdentityProvider {
        namespace: "shop".into(),
        name: "id".into(),
        issuer: "https://id.example".into(),
        jwt: Some(rules),
    };
    let used = proto::ProviderUse {
        name: "a".into(),
        provider: Some(provider),
        source: source_of(Source::Authorization(proto::AuthorizationField {})),
        ..proto::ProviderUse::default()
    };
    wire(proto::AuthenticationSettings { providers: vec![used], ..proto::AuthenticationSettings::default() })
}

#[test]
fn a_policy_of_another_kind_than_its_key_says_is_refused() {
    let empty = wire(proto::AuthenticationSettings::default());
    refused("policy/rate-limit/shop/cart", &empty, "spec: is of another kind than its key");
}

#[test]
fn rules_for_tokens_that_say_too_little_are_refused_by_their_field() {
    let jwt = format!("{SETTINGS}.providers[0].provider.jwt");
    for (rules, error) in [
        (proto::JwtRules { keys: None, ..valid_rules() }, format!("keys: {UNKNOWN}")),
        (proto::JwtRules { audiences: None, ..valid_rules() }, format!("audiences: {UNKNOWN}")),
        (proto::JwtRules { algorithms: Vec::new(), ..valid_rules() }, "algorithms: is empty".to_owned()),
        (proto::JwtRules { algorithms: vec!["HS256".into()], ..valid_rules() }, format!("algorithms[0]: {UNKNOWN}")),
        (proto::JwtRules { algorithms: vec!["none".into()], ..valid_rules() }, format!("algorithms[0]: {UNKNOWN}")),
        (proto::JwtRules { leeway: None, ..valid_rules() }, format!("leeway: {UNKNOWN}")),
    ] {
        refused(POLICY, &with_rules(rules), &format!("{jwt}.{error}"));
    }
    let list = proto::AudienceList { audiences: Vec::new() };
    let none = Some(proto::Audiences { audiences: Some(proto::audiences::Audiences::AnyOf(list)) });
    let rules = proto::JwtRules { audiences: none, ..valid_rules() };
    refused(POLICY, &with_rules(rules), &format!("{jwt}.audiences.any_of.audiences: is empty"));
}

#[test]
fn keys_that_cannot_be_fetched_safely_are_refused() {
    let remote = |location: &str, refresh, stale| {
        let remote = proto::RemoteKeys {
            location: Some(Location::Url(location.into())),
            authorities: Vec::new(),
            refresh: seconds(refresh),
            stale_if_error: seconds(stale),
        };
        with_rules(proto::JwtRules { keys: Some(Keys::Remote(remote)), ..valid_rules() })
    };
    let field = format!("{SETTINGS}.providers[0].provider.jwt.remote");
    let url = "want a URL that begins with https://, without user information and fragment";
    refused(POLICY, &remote("http://id.example/keys", 60, 60), &format!("{field}.url: {url}"));
    let interval = "the refresh interval must be 1 minute to 24 hours";
    refused(POLICY, &remote("https://id.example/keys", 1, 60), &format!("{field}: {interval}"));
}

#[test]
fn keys_and_passwords_that_cannot_be_checked_are_refused() {
    let key = |source: Source, digest: &[u8]| {
        let key = proto::ApiKey { client: "acme".into(), digest: digest.to_vec().into() };
        let list = proto::ApiKeys {
            name: "a".into(),
            source: source_of(source),
            keys: vec![key.clone(), key],
            ..proto::ApiKeys::default()
        };
        wire(proto::AuthenticationSettings { api_keys: vec![list], ..proto::AuthenticationSettings::default() })
    };
    let field = format!("{SETTINGS}.api_keys[0]");
    let header = || Source::Header("x-api-key".into());
    refused(POLICY, &key(header(), &[1; 31]), &format!("{field}.keys[0].digest: is not of 32 bytes"));
    refused(POLICY, &key(header(), &[1; 32]), &format!("{field}.keys[1]: repeats an earlier element"));
    let authorization = Source::Authorization(proto::AuthorizationField {});
    refused(POLICY, &key(authorization, &[1; 32]), &format!("{field}.source: no key is taken from there"));

    let user = proto::BasicUser { name: "bob".into(), hash: "secret".into() };
    assert!(!format!("{user:?}").contains("secret"));
    let users = proto::BasicUsers { users: vec![user], ..proto::BasicUsers::default() };
    let basic = wire(proto::AuthenticationSettings { basic: Some(users), ..proto::AuthenticationSettings::default() });
    let error = "want bcrypt ($2a$, $2b$, $2y$) with a cost of 4 to 12, or $argon2id$v=19$ with m=8 to 65536, t=1 to \
                 4, p=1 to 4";
    refused(POLICY, &basic, &format!("{SETTINGS}.basic.users[0].hash: {error}"));
}

#[test]
fn settings_out_of_their_range_are_refused() {
    let base = proto::AuthenticationSettings::default;
    let realm = wire(proto::AuthenticationSettings { realm: Some("a\nb".into()), ..base() });
    refused(POLICY, &realm, &format!("{SETTINGS}.realm: has other than visible ASCII and spaces"));
    let proofs = proto::ProofSettings { required: true, max_age: seconds(301) };
    let proofs = wire(proto::AuthenticationSettings { proofs: Some(proofs), ..base() });
    refused(POLICY, &proofs, &format!("{SETTINGS}.proofs.max_age: 301s is not 1 second to 5 minutes"));
    let names = |names: &[&str]| {
        let strip_headers = names.iter().map(|name| (*name).to_owned()).collect();
        wire(proto::AuthenticationSettings { strip_headers, ..base() })
    };
    let unsorted = format!("{SETTINGS}.strip_headers[1]: is not sorted, or repeats an earlier element");
    refused(POLICY, &names(&["x-b", "x-a"]), &unsorted);
    refused(POLICY, &names(&["x-a", "x-a"]), &unsorted);
}
