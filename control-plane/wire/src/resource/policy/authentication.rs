//! Settings of an AuthenticationPolicy, with the identity providers that it names.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::Bytes;
use control_plane_model::{
    ApiKey, ApiKeys, Audiences, AuthenticationSettings, Basic, ClaimToHeader, HttpsUrl, IdentityProvider, InvalidHash,
    JwtRules, KeyLocation, KeySource, ListEncoding, ObjectName, PasswordHash, ProofSettings, ProviderUse, RemoteKeys,
    SigningAlgorithm, TextEncoding, TokenSource,
};
use http::HeaderName;
use rustls_pki_types::CertificateDer;

use super::{entries, mode_from_wire, mode_to_wire, name};
use crate::{
    proto::{self, audiences, credential_source::Source, jwt_rules::Keys, remote_keys::Location},
    resource::{
        duration::{duration_from_wire, duration_to_wire},
        error::{Field as _, InvalidResource, distinct, each, each_of_some, required},
        matching::header_name,
    },
};

pub(super) fn to_wire(settings: &AuthenticationSettings) -> proto::AuthenticationSettings {
    proto::AuthenticationSettings {
        disabled: settings.disabled,
        mode: mode_to_wire(settings.mode),
        allow_anonymous: settings.allow_anonymous,
        realm: settings.realm.as_deref().map(str::to_owned),
        providers: settings.providers.iter().map(use_to_wire).collect(),
        api_keys: settings.api_keys.iter().map(keys_to_wire).collect(),
        basic: settings.basic.as_ref().map(basic_to_wire),
        proofs: settings.proofs.map(|proofs| proto::ProofSettings {
            required: proofs.required,
            max_age: Some(duration_to_wire(proofs.max_age)),
        }),
        strip_headers: settings.strip_headers.iter().map(ToString::to_string).collect(),
    }
}

pub(super) fn from_wire(wire: proto::AuthenticationSettings) -> Result<AuthenticationSettings, InvalidResource> {
    let strip_headers: Vec<HeaderName> = each(wire.strip_headers, "strip_headers", |name| header_name(&name))?;
    for (index, pair) in strip_headers.windows(2).enumerate() {
        if let [before, after] = pair
            && before.as_str() >= after.as_str()
        {
            return Err(InvalidResource::new("is not sorted, or repeats an earlier element"))
                .element("strip_headers", index + 1);
        }
    }
    Ok(AuthenticationSettings {
        disabled: wire.disabled,
        mode: mode_from_wire(wire.mode).field("mode")?,
        allow_anonymous: wire.allow_anonymous,
        realm: wire.realm.map(realm_from_wire).transpose().field("realm")?,
        providers: entries(wire.providers, "providers", |mut wire| {
            Ok((name(std::mem::take(&mut wire.name)).field("name")?, use_from_wire(wire)?))
        })?,
        api_keys: entries(wire.api_keys, "api_keys", |mut wire| {
            Ok((name(std::mem::take(&mut wire.name)).field("name")?, keys_from_wire(wire)?))
        })?,
        basic: wire.basic.map(basic_from_wire).transpose().field("basic")?,
        proofs: wire.proofs.map(proofs_from_wire).transpose().field("proofs")?,
        strip_headers,
    })
}

fn realm_from_wire(realm: String) -> Result<Arc<str>, InvalidResource> {
    if realm.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) {
        name(realm)
    } else {
        Err(InvalidResource::new("has other than visible ASCII and spaces"))
    }
}

fn proofs_from_wire(wire: proto::ProofSettings) -> Result<ProofSettings, InvalidResource> {
    let max_age = duration(wire.max_age).field("max_age")?;
    let [shortest, longest] = ProofSettings::MAX_AGE;
    if (shortest..=longest).contains(&max_age) {
        Ok(ProofSettings { required: wire.required, max_age })
    } else {
        Err(InvalidResource::new(format_args!("{max_age:?} is not 1 second to 5 minutes"))).field("max_age")
    }
}

fn duration(wire: Option<proto::Duration>) -> Result<Duration, InvalidResource> {
    required(wire).and_then(duration_from_wire)
}

fn texts_to_wire(texts: &[Arc<str>]) -> Vec<String> {
    texts.iter().map(ToString::to_string).collect()
}

fn use_to_wire((name, used): (&Arc<str>, &ProviderUse)) -> proto::ProviderUse {
    let claim = |claim: &ClaimToHeader| proto::ClaimToHeader {
        claim: claim.claim.to_string(),
        header: claim.header.to_string(),
        text: match claim.text {
            TextEncoding::Plain => proto::TextEncoding::Plain.into(),
            TextEncoding::Base64Url => proto::TextEncoding::Base64url.into(),
        },
        list: match claim.list {
            ListEncoding::Comma => proto::ListEncoding::Comma.into(),
            ListEncoding::Json => proto::ListEncoding::Json.into(),
        },
    };
    proto::ProviderUse {
        name: name.to_string(),
        provider: Some(provider_to_wire(&used.provider)),
        source: Some(source_to_wire(&used.source)),
        forward_token: used.forward_token,
        audiences: used.audiences.as_ref().map(audiences_to_wire),
        required_scopes: texts_to_wire(&used.required_scopes),
        claims_to_headers: used.claims_to_headers.iter().map(claim).collect(),
    }
}

fn use_from_wire(wire: proto::ProviderUse) -> Result<ProviderUse, InvalidResource> {
    let provider = required(wire.provider).and_then(provider_from_wire).field("provider")?;
    Ok(ProviderUse {
        provider: Arc::new(provider),
        source: source_from_wire(wire.source).field("source")?,
        forward_token: wire.forward_token,
        audiences: wire.audiences.map(audiences_from_wire).transpose().field("audiences")?,
        required_scopes: each(wire.required_scopes, "required_scopes", name)?,
        claims_to_headers: each(wire.claims_to_headers, "claims_to_headers", claim_from_wire)?,
    })
}

fn claim_from_wire(wire: proto::ClaimToHeader) -> Result<ClaimToHeader, InvalidResource> {
    let text = match proto::TextEncoding::try_from(wire.text) {
        Ok(proto::TextEncoding::Plain) => TextEncoding::Plain,
        Ok(proto::TextEncoding::Base64url) => TextEncoding::Base64Url,
        Ok(proto::TextEncoding::Unspecified) | Err(_) => return Err(InvalidResource::unknown()).field("text"),
    };
    let list = match proto::ListEncoding::try_from(wire.list) {
        Ok(proto::ListEncoding::Comma) => ListEncoding::Comma,
        Ok(proto::ListEncoding::Json) => ListEncoding::Json,
        Ok(proto::ListEncoding::Unspecified) | Err(_) => return Err(InvalidResource::unknown()).field("list"),
    };
    let header = header_name(&wire.header).field("header")?;
    Ok(ClaimToHeader { claim: name(wire.claim).field("claim")?, header, text, list })
}

fn source_to_wire(source: &TokenSource) -> proto::CredentialSource {
    let source = match source {
        TokenSource::Authorization => Source::Authorization(proto::AuthorizationField {}),
        TokenSource::Header(name) => Source::Header(name.to_string()),
        TokenSource::Cookie(name) => Source::Cookie(name.to_string()),
        TokenSource::Query(name) => Source::Query(name.to_string()),
    };
    proto::CredentialSource { source: Some(source) }
}

fn source_from_wire(wire: Option<proto::CredentialSource>) -> Result<TokenSource, InvalidResource> {
    Ok(match required(wire.and_then(|wire| wire.source))? {
        Source::Authorization(_) => TokenSource::Authorization,
        Source::Header(text) => TokenSource::Header(header_name(&text).field("header")?),
        Source::Cookie(text) => TokenSource::Cookie(name(text).field("cookie")?),
        Source::Query(text) => TokenSource::Query(name(text).field("query")?),
    })
}

fn audiences_to_wire(audiences: &Audiences) -> proto::Audiences {
    let audiences = match audiences {
        Audiences::AnyOf(list) => audiences::Audiences::AnyOf(proto::AudienceList { audiences: texts_to_wire(list) }),
        Audiences::Waived => audiences::Audiences::Waived(proto::AnyAudience {}),
    };
    proto::Audiences { audiences: Some(audiences) }
}

fn audiences_from_wire(wire: proto::Audiences) -> Result<Audiences, InvalidResource> {
    Ok(match required(wire.audiences)? {
        audiences::Audiences::AnyOf(wire) => {
            Audiences::AnyOf(each_of_some(wire.audiences, "audiences", name).field("any_of")?)
        }
        audiences::Audiences::Waived(_) => Audiences::Waived,
    })
}

fn provider_to_wire(provider: &IdentityProvider) -> proto::IdentityProvider {
    let jwt = &provider.jwt;
    let keys = match &jwt.keys {
        KeySource::Inline(text) => Keys::Inline(text.to_string()),
        KeySource::Remote(remote) => Keys::Remote(remote_to_wire(remote)),
    };
    let jwt = proto::JwtRules {
        keys: Some(keys),
        audiences: Some(audiences_to_wire(&jwt.audiences)),
        algorithms: jwt.algorithms.iter().map(|algorithm| algorithm.as_str().to_owned()).collect(),
        token_types: texts_to_wire(&jwt.token_types),
        leeway: Some(duration_to_wire(jwt.leeway)),
        max_lifetime: jwt.max_lifetime.map(duration_to_wire),
        max_token_bytes: jwt.max_token_bytes,
        required_claims: texts_to_wire(&jwt.required_claims),
    };
    proto::IdentityProvider {
        namespace: provider.name.namespace.to_string(),
        name: provider.name.name.to_string(),
        issuer: provider.issuer.to_string(),
        jwt: Some(jwt),
    }
}

fn provider_from_wire(wire: proto::IdentityProvider) -> Result<IdentityProvider, InvalidResource> {
    let object = ObjectName::new(name(wire.namespace).field("namespace")?, name(wire.name).field("name")?);
    let issuer = name(wire.issuer).field("issuer")?;
    Ok(IdentityProvider { name: object, issuer, jwt: required(wire.jwt).and_then(jwt_from_wire).field("jwt")? })
}

fn jwt_from_wire(wire: proto::JwtRules) -> Result<JwtRules, InvalidResource> {
    let keys = match required(wire.keys).field("keys")? {
        Keys::Inline(text) => KeySource::Inline(name(text).field("inline")?),
        Keys::Remote(wire) => KeySource::Remote(Arc::new(remote_from_wire(wire).field("remote")?)),
    };
    let algorithms: Vec<SigningAlgorithm> = each_of_some(wire.algorithms, "algorithms", |name| {
        SigningAlgorithm::from_name(&name).ok_or_else(InvalidResource::unknown)
    })?;
    distinct(&algorithms, "algorithms", |algorithm| *algorithm)?;
    Ok(JwtRules {
        keys,
        audiences: required(wire.audiences).and_then(audiences_from_wire).field("audiences")?,
        algorithms: algorithms.into_iter().collect::<BTreeSet<_>>(),
        token_types: each(wire.token_types, "token_types", name)?,
        leeway: duration(wire.leeway).field("leeway")?,
        max_lifetime: wire.max_lifetime.map(duration_from_wire).transpose().field("max_lifetime")?,
        max_token_bytes: wire.max_token_bytes,
        required_claims: each(wire.required_claims, "required_claims", name)?,
    })
}

fn remote_to_wire(remote: &RemoteKeys) -> proto::RemoteKeys {
    let location = match remote.location() {
        KeyLocation::Url(url) => Location::Url(url.to_string()),
        KeyLocation::Discovery { url, issuer } => {
            Location::Discovery(proto::KeyDiscovery { url: url.to_string(), issuer: issuer.to_string() })
        }
    };
    let authorities = remote.authorities().unwrap_or_default();
    proto::RemoteKeys {
        location: Some(location),
        authorities: authorities.iter().map(|der| Bytes::copy_from_slice(der)).collect(),
        refresh: Some(duration_to_wire(remote.refresh())),
        stale_if_error: Some(duration_to_wire(remote.stale_if_error())),
    }
}

fn remote_from_wire(wire: proto::RemoteKeys) -> Result<RemoteKeys, InvalidResource> {
    let url = |text: String| text.parse::<HttpsUrl>().map_err(InvalidResource::new);
    let location = match required(wire.location).field("location")? {
        Location::Url(text) => KeyLocation::Url(url(text).field("url")?),
        Location::Discovery(wire) => KeyLocation::Discovery {
            url: url(wire.url).field("url").field("discovery")?,
            issuer: name(wire.issuer).field("issuer").field("discovery")?,
        },
    };
    let authorities: Vec<CertificateDer<'static>> =
        wire.authorities.into_iter().map(|der| CertificateDer::from(Vec::from(der))).collect();
    let authorities = (!authorities.is_empty()).then(|| authorities.into());
    let refresh = duration(wire.refresh).field("refresh")?;
    let stale_if_error = duration(wire.stale_if_error).field("stale_if_error")?;
    RemoteKeys::new(location, authorities, refresh, stale_if_error).map_err(InvalidResource::new)
}

fn keys_to_wire((name, list): (&Arc<str>, &ApiKeys)) -> proto::ApiKeys {
    let key =
        |key: &ApiKey| proto::ApiKey { client: key.client.to_string(), digest: Bytes::copy_from_slice(&key.digest) };
    proto::ApiKeys {
        name: name.to_string(),
        source: Some(source_to_wire(&list.source)),
        forward_key: list.forward_key,
        client_header: list.client_header.as_ref().map(ToString::to_string),
        keys: list.keys.iter().map(key).collect(),
    }
}

fn keys_from_wire(wire: proto::ApiKeys) -> Result<ApiKeys, InvalidResource> {
    let source = match source_from_wire(wire.source).field("source")? {
        TokenSource::Authorization => return Err(InvalidResource::new("no key is taken from there")).field("source"),
        source => source,
    };
    let keys = each(wire.keys, "keys", |wire| {
        let digest = wire.digest.as_ref().try_into();
        let digest = digest.map_err(|_| InvalidResource::new("is not of 32 bytes")).field("digest")?;
        Ok(ApiKey { client: name(wire.client).field("client")?, digest })
    })?;
    distinct(&keys, "keys", |key| key.digest)?;
    let client_header = wire.client_header.as_deref().map(header_name).transpose().field("client_header")?;
    Ok(ApiKeys { source, forward_key: wire.forward_key, client_header, keys })
}

fn basic_to_wire(basic: &Basic) -> proto::BasicUsers {
    let user = |(name, hash): (&Arc<str>, &PasswordHash)| proto::BasicUser {
        name: name.to_string(),
        hash: hash.as_str().to_owned(),
    };
    proto::BasicUsers {
        users: basic.users.iter().map(user).collect(),
        forward_password: basic.forward_password,
        user_header: basic.user_header.as_ref().map(ToString::to_string),
    }
}

/// No reason given here quotes a hash.
fn basic_from_wire(wire: proto::BasicUsers) -> Result<Basic, InvalidResource> {
    let users = entries(wire.users, "users", |wire| {
        let hash: PasswordHash =
            wire.hash.parse().map_err(|error: InvalidHash| InvalidResource::new(error)).field("hash")?;
        Ok((name(wire.name).field("name")?, hash))
    })?;
    let user_header = wire.user_header.as_deref().map(header_name).transpose().field("user_header")?;
    Ok(Basic { users, forward_password: wire.forward_password, user_header })
}
