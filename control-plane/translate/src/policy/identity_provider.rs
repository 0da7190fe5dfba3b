//! IdentityProvider, as the policies that name it carry it.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use control_plane_model::{
    Audiences, HttpsUrl, IdentityProvider, JwtRules, KeyLocation, KeySource, ObjectName, RemoteKeys, SigningAlgorithm,
};
use crds::identity_provider::{self as resource, EntryReference};
use policy_jose::{Algorithm, Algorithms, ClaimPath, KeySet, MAX_LEEWAY, MAX_LIST, MAX_TOKEN_BYTES};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};

use super::referents::Referents;
use crate::route::values;

/// Most certificates of authorities of one provider.
const MAX_AUTHORITIES: usize = 64;

/// The provider `name`.
///
/// # Errors: the text for the user, the field's path first.
pub(super) fn provider(name: &ObjectName, referents: &mut Referents<'_>) -> Result<IdentityProvider, String> {
    let object = referents.provider(name)?;
    let within = |error: String| format!("IdentityProvider {name}: spec.{error}");
    let issuer: Arc<str> = text("issuer", &object.spec.issuer).map_err(within)?;
    let jwt = jwt(name, &object.spec, &issuer, referents).map_err(within)?;
    Ok(IdentityProvider { name: name.clone(), issuer, jwt })
}

fn jwt(
    name: &ObjectName,
    spec: &resource::IdentityProviderSpec,
    issuer: &Arc<str>,
    referents: &mut Referents<'_>,
) -> Result<JwtRules, String> {
    let jwt = &spec.jwt;
    let algorithms = algorithms(&jwt.algorithms);
    let audiences = audiences("jwt.audiences", &jwt.audiences)?;
    let audiences = match (audiences, jwt.any_audience.unwrap_or(false)) {
        (Some(audiences), false) => audiences,
        (None, true) => Audiences::Waived,
        (Some(_), true) => return Err("jwt.anyAudience: jwt.audiences are given too".to_owned()),
        (None, false) => {
            return Err(
                "jwt.audiences is empty; with jwt.anyAudience: true tokens for other services are taken".to_owned()
            );
        }
    };
    let leeway = duration("jwt.leeway", jwt.leeway.as_deref())?.unwrap_or(JwtRules::DEFAULT_LEEWAY);
    if leeway > MAX_LEEWAY {
        return Err(format!("jwt.leeway is more than {} s", MAX_LEEWAY.as_secs()));
    }
    let max_lifetime = duration("jwt.maxLifetime", jwt.max_lifetime.as_deref())?;
    if max_lifetime.is_some_and(|longest| longest.as_secs() == 0) {
        return Err("jwt.maxLifetime is less than a second".to_owned());
    }
    let bytes = jwt.max_token_bytes.map(u32::try_from);
    let max_token_bytes = match bytes {
        None => JwtRules::DEFAULT_MAX_TOKEN_BYTES,
        Some(Ok(bytes)) if (256..=MAX_TOKEN_BYTES).contains(&(bytes as usize)) => bytes,
        Some(_) => return Err(format!("jwt.maxTokenBytes is not 256 to {MAX_TOKEN_BYTES}")),
    };
    Ok(JwtRules {
        keys: keys(name, spec, issuer, &algorithms, referents)?,
        audiences,
        algorithms,
        token_types: texts("jwt.tokenTypes", &jwt.token_types)?,
        leeway,
        max_lifetime,
        max_token_bytes,
        required_claims: claims("jwt.requiredClaims", &jwt.required_claims)?,
    })
}

fn keys(
    name: &ObjectName,
    spec: &resource::IdentityProviderSpec,
    issuer: &Arc<str>,
    algorithms: &BTreeSet<SigningAlgorithm>,
    referents: &mut Referents<'_>,
) -> Result<KeySource, String> {
    let none = resource::KeySource::default();
    let keys = spec.jwt.keys.as_ref().unwrap_or(&none);
    let location = match (&keys.url, &keys.inline, &keys.config_map_ref) {
        (None, None, None) => {
            let url = HttpsUrl::discovery(issuer).map_err(|error| format!("issuer: {error}, or give jwt.keys"))?;
            KeyLocation::Discovery { url, issuer: issuer.clone() }
        }
        (Some(url), None, None) => KeyLocation::Url(url.parse().map_err(|error| format!("jwt.keys.url: {error}"))?),
        (None, Some(inline), None) => return key_set("jwt.keys.inline", inline, algorithms),
        (None, None, Some(reference)) => {
            let text = entry("jwt.keys.configMapRef", name, reference, referents)?;
            return key_set("jwt.keys.configMapRef", text, algorithms);
        }
        _ => return Err("jwt.keys: give one of url, inline and configMapRef".to_owned()),
    };
    let refresh = duration("jwt.keys.refreshInterval", keys.refresh_interval.as_deref())?;
    let stale_if_error = match keys.stale_if_error.as_deref() {
        None => RemoteKeys::DEFAULT_STALE,
        given => duration("jwt.keys.staleIfError", given)?.unwrap_or_default(),
    };
    let authorities = authorities(name, spec, referents)?;
    RemoteKeys::new(location, authorities, refresh.unwrap_or(RemoteKeys::DEFAULT_REFRESH), stale_if_error)
        .map(|remote| KeySource::Remote(Arc::new(remote)))
        .map_err(|error| format!("jwt.keys: {error}"))
}

/// A JWK set of which at least one key can be used.
fn key_set(field: &str, text: &str, algorithms: &BTreeSet<SigningAlgorithm>) -> Result<KeySource, String> {
    let names = algorithms.iter().map(|algorithm| Algorithm::from_name(algorithm.as_str()));
    let algorithms: Algorithms = names.flatten().collect();
    KeySet::parse(text.as_bytes(), algorithms).map_err(|error| format!("{field}: {error}"))?;
    Ok(KeySource::Inline(text.into()))
}

fn authorities(
    name: &ObjectName,
    spec: &resource::IdentityProviderSpec,
    referents: &mut Referents<'_>,
) -> Result<Option<Arc<[CertificateDer<'static>]>>, String> {
    let none = resource::ProviderTls::default();
    let tls = spec.tls.as_ref().unwrap_or(&none);
    let (field, pem) = match (&tls.ca_certificates, &tls.ca_certificates_ref) {
        (None, None) => return Ok(None),
        (Some(pem), None) => ("tls.caCertificates", pem.as_str()),
        (None, Some(reference)) => {
            let field = "tls.caCertificatesRef";
            (field, entry(field, name, reference, referents)?)
        }
        (Some(_), Some(_)) => return Err("tls: give one of caCertificates and caCertificatesRef".to_owned()),
    };
    let certificates: Result<Vec<CertificateDer<'static>>, _> =
        CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let certificates = certificates.map_err(|error| format!("{field} is not PEM: {error}"))?;
    if !(1..=MAX_AUTHORITIES).contains(&certificates.len()) {
        return Err(format!("{field} has {} certificates, want 1 to {MAX_AUTHORITIES}", certificates.len()));
    }
    for (index, certificate) in certificates.iter().enumerate() {
        x509_parser::parse_x509_certificate(certificate)
            .map_err(|_| format!("{field}: certificate {index} is not an X.509 certificate"))?;
    }
    Ok(Some(certificates.into()))
}

fn entry<'a>(
    field: &str,
    provider: &ObjectName,
    reference: &EntryReference,
    referents: &mut Referents<'a>,
) -> Result<&'a str, String> {
    let name = ObjectName::new(provider.namespace.clone(), reference.name.as_str());
    referents.entry(&name, &reference.key).map_err(|error| format!("{field}: {error}"))
}

/// The algorithms of a list; all of them where it is empty.
fn algorithms(list: &[resource::SigningAlgorithm]) -> BTreeSet<SigningAlgorithm> {
    use resource::SigningAlgorithm as Resource;
    let convert = |algorithm: &Resource| match algorithm {
        Resource::Rs256 => SigningAlgorithm::Rs256,
        Resource::Rs384 => SigningAlgorithm::Rs384,
        Resource::Rs512 => SigningAlgorithm::Rs512,
        Resource::Ps256 => SigningAlgorithm::Ps256,
        Resource::Ps384 => SigningAlgorithm::Ps384,
        Resource::Ps512 => SigningAlgorithm::Ps512,
        Resource::Es256 => SigningAlgorithm::Es256,
        Resource::Es384 => SigningAlgorithm::Es384,
        Resource::Es512 => SigningAlgorithm::Es512,
        Resource::EdDsa => SigningAlgorithm::EdDsa,
    };
    if list.is_empty() { SigningAlgorithm::ALL.into() } else { list.iter().map(convert).collect() }
}

/// The audiences of a list, where it is not empty.
pub(super) fn audiences(field: &str, list: &[String]) -> Result<Option<Audiences>, String> {
    let list = texts(field, list)?;
    Ok((!list.is_empty()).then_some(Audiences::AnyOf(list)))
}

/// Texts that are not empty.
pub(super) fn texts(field: &str, list: &[String]) -> Result<Vec<Arc<str>>, String> {
    if list.len() > MAX_LIST {
        return Err(format!("{field} has {} elements, {MAX_LIST} at most", list.len()));
    }
    list.iter().enumerate().map(|(index, item)| text(&format!("{field}[{index}]"), item)).collect()
}

/// Paths of claims.
fn claims(field: &str, list: &[String]) -> Result<Vec<Arc<str>>, String> {
    let paths = texts(field, list)?;
    for (index, path) in paths.iter().enumerate() {
        claim(&format!("{field}[{index}]"), path)?;
    }
    Ok(paths)
}

/// A path of a claim.
pub(super) fn claim(field: &str, path: &str) -> Result<Arc<str>, String> {
    path.parse::<ClaimPath>().map_err(|error| format!("{field}: {error}"))?;
    Ok(path.into())
}

fn text(field: &str, text: &str) -> Result<Arc<str>, String> {
    if text.is_empty() { Err(format!("{field} is empty")) } else { Ok(text.into()) }
}

/// A duration, `None` where there is none or it is zero.
pub(super) fn duration(field: &str, text: Option<&str>) -> Result<Option<Duration>, String> {
    text.map_or(Ok(None), |text| values::duration(text).map_err(|error| format!("{field}: {error}")))
}
