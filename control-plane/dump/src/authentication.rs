//! Settings of an AuthenticationPolicy as JSON. Invariant: no digest of a key and no hash of a password is among it.

use control_plane_model::{
    ApiKeys, Audiences, AuthenticationSettings, Basic, ClaimToHeader, IdentityProvider, KeyLocation, KeySource,
    ListEncoding, ProviderUse, TextEncoding, TokenSource,
};
use serde_json::{Map, Value, json};

use super::policy::{mode, present};

pub(super) fn settings(settings: &AuthenticationSettings) -> Value {
    let providers: Map<_, _> =
        settings.providers.iter().map(|(name, used)| (name.to_string(), provider_use(used))).collect();
    let lists: Map<_, _> = settings.api_keys.iter().map(|(name, list)| (name.to_string(), api_keys(list))).collect();
    let proofs = settings
        .proofs
        .map(|proofs| json!({ "required": proofs.required, "max_age_seconds": proofs.max_age.as_secs() }));
    let stripped: Vec<&str> = settings.strip_headers.iter().map(http::HeaderName::as_str).collect();
    present([
        ("disabled", settings.disabled.map(Value::from)),
        ("mode", settings.mode.map(mode)),
        ("allow_anonymous", settings.allow_anonymous.map(Value::from)),
        ("realm", settings.realm.as_deref().map(Value::from)),
        ("providers", (!providers.is_empty()).then(|| providers.into())),
        ("api_keys", (!lists.is_empty()).then(|| lists.into())),
        ("basic", settings.basic.as_ref().map(basic)),
        ("proofs", proofs),
        ("strip_headers", (!stripped.is_empty()).then(|| stripped.into())),
    ])
}

fn provider_use(used: &ProviderUse) -> Value {
    json!({
        "provider": provider(&used.provider),
        "source": source(&used.source),
        "forward_token": used.forward_token,
        "audiences": used.audiences.as_ref().map(audiences),
        "required_scopes": used.required_scopes,
        "claims_to_headers": used.claims_to_headers.iter().map(claim).collect::<Vec<_>>(),
    })
}

fn claim(claim: &ClaimToHeader) -> Value {
    let text = match claim.text {
        TextEncoding::Plain => "plain",
        TextEncoding::Base64Url => "base64url",
    };
    let list = match claim.list {
        ListEncoding::Comma => "comma",
        ListEncoding::Json => "json",
    };
    json!({ "claim": claim.claim, "header": claim.header.as_str(), "text": text, "list": list })
}

fn provider(provider: &IdentityProvider) -> Value {
    let jwt = &provider.jwt;
    let keys = match &jwt.keys {
        // Public keys, but long.
        KeySource::Inline(text) => json!({ "inline_bytes": text.len() }),
        KeySource::Remote(remote) => json!({
            "url": match remote.location() {
                KeyLocation::Discovery { url, .. } | KeyLocation::Url(url) => url.to_string(),
            },
            "authorities": remote.authorities().map(<[_]>::len),
            "refresh_seconds": remote.refresh().as_secs(),
            "stale_if_error_seconds": remote.stale_if_error().as_secs(),
        }),
    };
    json!({
        "name": provider.name.to_string(),
        "issuer": provider.issuer,
        "keys": keys,
        "audiences": audiences(&jwt.audiences),
        "algorithms": jwt.algorithms.iter().map(|algorithm| algorithm.as_str()).collect::<Vec<_>>(),
        "token_types": jwt.token_types,
        "leeway_seconds": jwt.leeway.as_secs_f64(),
        "max_lifetime_seconds": jwt.max_lifetime.map(|longest| longest.as_secs_f64()),
        "max_token_bytes": jwt.max_token_bytes,
        "required_claims": jwt.required_claims,
    })
}

fn audiences(audiences: &Audiences) -> Value {
    match audiences {
        Audiences::AnyOf(list) => json!(list),
        Audiences::Waived => "any".into(),
    }
}

fn source(source: &TokenSource) -> Value {
    match source {
        TokenSource::Authorization => "authorization".into(),
        TokenSource::Header(name) => json!({ "header": name.as_str() }),
        TokenSource::Cookie(name) => json!({ "cookie": name }),
        TokenSource::Query(name) => json!({ "query": name }),
    }
}

fn api_keys(list: &ApiKeys) -> Value {
    json!({
        "source": source(&list.source),
        "forward_key": list.forward_key,
        "client_header": list.client_header.as_ref().map(http::HeaderName::as_str),
        "clients": list.keys.iter().map(|key| &key.client).collect::<Vec<_>>(),
    })
}

fn basic(basic: &Basic) -> Value {
    json!({
        "users": basic.users.keys().collect::<Vec<_>>(),
        "forward_password": basic.forward_password,
        "user_header": basic.user_header.as_ref().map(http::HeaderName::as_str),
    })
}
