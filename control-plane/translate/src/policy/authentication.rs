//! AuthenticationPolicy.

use std::{collections::BTreeMap, sync::Arc};

use aws_lc_rs::digest::{SHA256, digest};
use control_plane_model::{
    ApiKey, ApiKeys, AuthenticationSettings, Basic, ClaimToHeader, InvalidHash, Leveled, ListEncoding, ObjectName,
    PasswordHash, ProofSettings, ProviderUse, TextEncoding, TokenSource,
};
use crds::authentication_policy::{self as resource, AuthenticationPolicySpec};
use http::{HeaderName, HeaderValue};

use super::{
    identity_provider::{audiences, claim, duration, provider, texts},
    rate_limit::mode,
    referents::Referents,
};
use crate::route::values;

/// Most entries of a map, and most elements of a list, of one policy.
const MAX: usize = 32;
/// Shortest and longest API key, in bytes: what is shorter could be found from its digest.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 20..=512;
/// Most API keys of one list.
const MAX_KEYS: usize = 10_000;
/// The entry of a Secret that holds users.
const HTPASSWD: &str = ".htpasswd";
/// Longest name of a user, in bytes.
const MAX_NAME: usize = 72;
/// Headers that hold credentials or are not the client's to begin with: no claim is written there.
const RESERVED: &[&str] = &["authorization", "cookie", "dpop", "proxy-authorization", "set-cookie"];

pub(super) fn translate(
    namespace: &str,
    spec: &AuthenticationPolicySpec,
    referents: &mut Referents<'_>,
) -> Result<Leveled<AuthenticationSettings>, String> {
    let own = settings(namespace, &spec.settings(), referents).map_err(|error| format!("spec.{error}"))?;
    let overrides = spec.overrides.as_ref().map(|overrides| settings(namespace, overrides, referents)).transpose();
    Ok(Leveled { settings: own, overrides: overrides.map_err(|error| format!("spec.overrides.{error}"))? })
}

fn settings(
    namespace: &str,
    settings: &resource::AuthenticationSettings,
    referents: &mut Referents<'_>,
) -> Result<AuthenticationSettings, String> {
    let is_visible = |text: &str| text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
    if settings.realm.as_deref().is_some_and(|realm| realm.is_empty() || !is_visible(realm)) {
        return Err("realm is empty, or has other than visible ASCII and spaces".to_owned());
    }
    let mut strip_headers = Vec::new();
    for (index, name) in settings.strip_headers.iter().enumerate() {
        strip_headers.push(values::changeable_header(name).map_err(|error| format!("stripHeaders[{index}]: {error}"))?);
    }
    Ok(AuthenticationSettings {
        disabled: settings.disabled,
        mode: settings.mode.map(mode),
        allow_anonymous: settings.allow_anonymous,
        realm: settings.realm.as_deref().map(Arc::from),
        providers: named("providers", &settings.providers, |used| provider_use(namespace, used, referents))?,
        api_keys: named("apiKeys", &settings.api_keys, |list| api_keys(namespace, list, referents))?,
        basic: settings.basic.as_ref().map(|spec| basic(namespace, spec, referents)).transpose()?,
        proofs: settings.proofs.as_ref().map(proofs).transpose()?,
        strip_headers: AuthenticationSettings::sorted(strip_headers),
    })
}

fn named<T, M>(
    field: &str,
    entries: &BTreeMap<String, T>,
    mut convert: impl FnMut(&T) -> Result<M, String>,
) -> Result<BTreeMap<Arc<str>, M>, String> {
    if entries.len() > AuthenticationSettings::MAX_PROVIDERS {
        let most = AuthenticationSettings::MAX_PROVIDERS;
        return Err(format!("{field} has {} entries, {most} at most", entries.len()));
    }
    let mut converted = BTreeMap::new();
    for (name, entry) in entries {
        let entry = convert(entry).map_err(|error| format!("{field}.{name}.{error}"))?;
        converted.insert(Arc::from(name.as_str()), entry);
    }
    Ok(converted)
}

fn provider_use(
    namespace: &str,
    used: &resource::ProviderUse,
    referents: &mut Referents<'_>,
) -> Result<ProviderUse, String> {
    let name = ObjectName::new(namespace, used.provider_ref.name.as_str());
    let provider = provider(&name, referents).map_err(|error| format!("providerRef: {error}"))?;
    let mut claims_to_headers: Vec<ClaimToHeader> = Vec::new();
    if used.claims_to_headers.len() > MAX {
        return Err(format!("claimsToHeaders has {} elements, {MAX} at most", used.claims_to_headers.len()));
    }
    for (index, claim) in used.claims_to_headers.iter().enumerate() {
        let claim = claim_to_header(claim).map_err(|error| format!("claimsToHeaders[{index}].{error}"))?;
        if claims_to_headers.iter().any(|other| other.header == claim.header) {
            return Err(format!("claimsToHeaders[{index}].header: another claim is written to {}", claim.header));
        }
        claims_to_headers.push(claim);
    }
    Ok(ProviderUse {
        provider: Arc::new(provider),
        source: used.source.as_ref().map_or(Ok(TokenSource::Authorization), source)?,
        forward_token: used.forward_token.unwrap_or(true),
        audiences: audiences("audiences", &used.audiences)?,
        required_scopes: scopes(&used.required_scopes)?,
        claims_to_headers,
    })
}

/// Scopes as RFC 6749 section 3.3 has them.
fn scopes(list: &[String]) -> Result<Vec<Arc<str>>, String> {
    let scopes = texts("requiredScopes", list)?;
    let is_scope = |scope: &str| scope.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\');
    match scopes.iter().position(|scope| !is_scope(scope)) {
        None => Ok(scopes),
        Some(index) => Err(format!("requiredScopes[{index}] has a character that no scope has")),
    }
}

fn claim_to_header(spec: &resource::ClaimToHeader) -> Result<ClaimToHeader, String> {
    Ok(ClaimToHeader {
        claim: claim("claim", &spec.claim)?,
        header: own_header("header", &spec.header)?,
        text: match spec.encoding.unwrap_or_default() {
            resource::TextEncoding::Plain => TextEncoding::Plain,
            resource::TextEncoding::Base64Url => TextEncoding::Base64Url,
        },
        list: match spec.lists.unwrap_or_default() {
            resource::ListEncoding::Comma => ListEncoding::Comma,
            resource::ListEncoding::Json => ListEncoding::Json,
        },
    })
}

/// A header that the gateway may write for the backend.
fn own_header(field: &str, name: &str) -> Result<HeaderName, String> {
    let header = values::changeable_header(name).map_err(|error| format!("{field}: {error}"))?;
    if RESERVED.contains(&header.as_str()) {
        return Err(format!("{field}: {header} is for credentials"));
    }
    Ok(header)
}

fn source(source: &resource::CredentialSource) -> Result<TokenSource, String> {
    match (&source.header, &source.cookie, &source.query_param) {
        (Some(name), None, None) => {
            let header = values::changeable_header(name).map_err(|error| format!("source.header: {error}"))?;
            match header.as_str() {
                "authorization" => Err("source.header: leave source out for Authorization".to_owned()),
                "cookie" => Err("source.header: name the cookie in source.cookie".to_owned()),
                _ => Ok(TokenSource::Header(header)),
            }
        }
        // A cookie's name is a token, as a header's is (RFC 6265 section 4.1.1), but compared exactly.
        (None, Some(name), None) if HeaderName::from_bytes(name.as_bytes()).is_ok() => {
            Ok(TokenSource::Cookie(name.as_str().into()))
        }
        (None, None, Some(name)) if !name.is_empty() => Ok(TokenSource::Query(name.as_str().into())),
        (None, Some(_), None) => Err("source.cookie is not the name of a cookie".to_owned()),
        (None, None, Some(_)) => Err("source.queryParam is empty".to_owned()),
        _ => Err("source: give one of header, cookie and queryParam".to_owned()),
    }
}

fn proofs(proofs: &resource::Proofs) -> Result<ProofSettings, String> {
    let default = ProofSettings::DEFAULT;
    let max_age = match proofs.max_age.as_deref() {
        None => default.max_age,
        given => duration("proofs.maxAge", given)?.unwrap_or_default(),
    };
    let [shortest, longest] = ProofSettings::MAX_AGE;
    if !(shortest..=longest).contains(&max_age) {
        return Err("proofs.maxAge is not 1s to 5m".to_owned());
    }
    Ok(ProofSettings { required: proofs.required.unwrap_or(default.required), max_age })
}

fn api_keys(namespace: &str, list: &resource::ApiKeys, referents: &mut Referents<'_>) -> Result<ApiKeys, String> {
    let mut keys: BTreeMap<[u8; 32], Arc<str>> = BTreeMap::new();
    for (index, reference) in list.secret_refs.iter().enumerate() {
        let field = format!("secretRefs[{index}]");
        let name = ObjectName::new(namespace, reference.name.as_str());
        let entries = referents.credentials(&name).map_err(|error| format!("{field}: {error}"))?;
        for (client, key) in entries {
            let key = key.trim_ascii();
            if !KEY_BYTES.contains(&key.len()) || !key.iter().all(u8::is_ascii_graphic) {
                let (least, most) = (KEY_BYTES.start(), KEY_BYTES.end());
                return Err(format!(
                    "{field}: the key of {client} in Secret {name} is not {least} to {most} of visible ASCII"
                ));
            }
            let digest = digest(&SHA256, key);
            let digest: [u8; 32] = digest.as_ref().try_into().map_err(|_| "digest of another size".to_owned())?;
            if let Some(other) = keys.insert(digest, client.into()) {
                return Err(format!("{field}: {other} and {client} have the same key"));
            }
        }
    }
    if keys.len() > MAX_KEYS {
        return Err(format!("secretRefs hold {} keys, {MAX_KEYS} at most", keys.len()));
    }
    let client_header = list.client_header.as_deref().map(|name| own_header("clientHeader", name));
    Ok(ApiKeys {
        source: list.source.as_ref().map_or(Ok(TokenSource::Header(HeaderName::from_static("x-api-key"))), source)?,
        forward_key: list.forward_key.unwrap_or(false),
        client_header: client_header.transpose()?,
        keys: keys.into_iter().map(|(digest, client)| ApiKey { client, digest }).collect(),
    })
}

fn basic(namespace: &str, spec: &resource::Basic, referents: &mut Referents<'_>) -> Result<Basic, String> {
    let name = ObjectName::new(namespace, spec.secret_ref.name.as_str());
    let within = |error: String| format!("basic.secretRef: {error}");
    let entries = referents.credentials(&name).map_err(within)?;
    let text = entries.get(HTPASSWD).and_then(|bytes| std::str::from_utf8(bytes).ok());
    let text = text.ok_or_else(|| within(format!("Secret {name} has no entry {HTPASSWD:?} that is text")))?;
    let mut users = BTreeMap::new();
    let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
    for (number, line) in lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
        let wrong = |error: &str| within(format!("line {number} of {HTPASSWD} in Secret {name}: {error}"));
        let (user, hash) = line.split_once(':').ok_or_else(|| wrong("want name:hash"))?;
        if !(1..=MAX_NAME).contains(&user.len()) || HeaderValue::from_str(user).is_err() {
            return Err(wrong("the name is empty, too long, or has a character that no header can carry"));
        }
        let hash: PasswordHash = hash.parse().map_err(|error: InvalidHash| wrong(&error.to_string()))?;
        if users.insert(Arc::from(user), hash).is_some() {
            return Err(wrong("the name stands twice"));
        }
    }
    if users.len() > MAX_KEYS {
        return Err(within(format!("Secret {name} has {} users, {MAX_KEYS} at most", users.len())));
    }
    Ok(Basic {
        users,
        forward_password: spec.forward_password.unwrap_or(false),
        user_header: spec.user_header.as_deref().map(|name| own_header("basic.userHeader", name)).transpose()?,
    })
}
