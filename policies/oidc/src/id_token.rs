//! What an ID token must say beyond what every token must (OpenID Connect Core 1.0 sections 3.1.3.7 and 12.2). Signature, `iss`,
//! `aud` and times are checked where keys are; here is what ties the token to this login.

use aws_lc_rs::digest;
use serde_json::{Map, Value};

use crate::{Secret, UnixTime, base64url, same, session::Session};

/// The hash that goes with the algorithm of a signature (section 3.1.3.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hash {
    /// RS256, ES256, PS256.
    Sha256,
    /// RS384, ES384, PS384.
    Sha384,
    /// RS512, ES512, PS512, EdDSA with Ed25519.
    Sha512,
}

/// What is known of a login.
#[derive(Clone, Copy, Debug)]
pub struct IdTokenRules<'a> {
    /// The client that asked.
    pub client_id: &'a str,
    /// What it asked with.
    pub nonce: &'a Secret,
    /// The access token that came with it.
    pub access_token: &'a Secret,
    /// By what the token is signed.
    pub hash: Hash,
    /// Now, and by how much the provider's clock may differ.
    pub now: UnixTime,
    /// See [`Self::now`]. Seconds.
    pub leeway: u64,
    /// Longest time since the person showed who they are, where the settings name one. Seconds.
    pub max_age: Option<u64>,
}

/// Why an ID token is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdTokenError {
    /// A claim is of another type.
    #[error("a claim of the ID token is malformed")]
    Malformed,
    /// No `sub`, or one of more than 255 bytes.
    #[error("the ID token names no subject")]
    Subject,
    /// Another `nonce`, or none: it was issued for another login.
    #[error("the ID token is of another login: its nonce differs")]
    Nonce,
    /// Issued for several, or for another client.
    #[error("the ID token was issued for another client")]
    AuthorizedParty,
    /// The access token is not the one that was issued with it.
    #[error("the ID token does not belong to the access token")]
    AccessTokenHash,
    /// The person showed who they are too long ago, or the token does not say when.
    #[error("the authentication is older than max_age")]
    TooOld,
    /// A renewed one names another person, issuer or time of login.
    #[error("the renewed ID token is of another session")]
    OtherSession,
}

/// Checks the claims of an ID token whose signature was checked.
///
/// # Errors: [`IdTokenError`].
pub fn check_id_token(claims: &Map<String, Value>, rules: &IdTokenRules<'_>) -> Result<(), IdTokenError> {
    subject(claims)?;
    let nonce = text(claims, "nonce")?.ok_or(IdTokenError::Nonce)?;
    if !same(nonce, rules.nonce.expose()) {
        return Err(IdTokenError::Nonce);
    }
    authorized_party(claims, rules.client_id)?;
    if let Some(hash) = text(claims, "at_hash")?
        && !same(hash, &half_hash(rules.hash, rules.access_token.expose()))
    {
        return Err(IdTokenError::AccessTokenHash);
    }
    if let Some(max_age) = rules.max_age {
        let at = claims.get("auth_time").and_then(Value::as_u64).ok_or(IdTokenError::TooOld)?;
        if at.saturating_add(max_age).saturating_add(rules.leeway) < rules.now.0 {
            return Err(IdTokenError::TooOld);
        }
    }
    Ok(())
}

/// Checks the claims of an ID token that came with renewed tokens: it must be of the same person (section 12.2).
///
/// # Errors: [`IdTokenError`].
pub fn check_renewed_id_token(
    claims: &Map<String, Value>,
    session: &Session,
    client_id: &str,
) -> Result<(), IdTokenError> {
    let is_same = |name: &str| match (claims.get(name), session.claims.get(name)) {
        // It need not repeat them.
        (None, _) => true,
        (Some(new), Some(old)) => new == old,
        (Some(_), None) => false,
    };
    if subject(claims)? != &*session.subject || text(claims, "iss")? != Some(&session.issuer) {
        return Err(IdTokenError::OtherSession);
    }
    if !["nonce", "auth_time"].into_iter().all(is_same) {
        return Err(IdTokenError::OtherSession);
    }
    authorized_party(claims, client_id)
}

fn subject(claims: &Map<String, Value>) -> Result<&str, IdTokenError> {
    text(claims, "sub")?.filter(|subject| (1..=255).contains(&subject.len())).ok_or(IdTokenError::Subject)
}

/// Several audiences need `azp`, and whoever it is must be this client.
fn authorized_party(claims: &Map<String, Value>, client_id: &str) -> Result<(), IdTokenError> {
    let has_several = claims.get("aud").and_then(Value::as_array).is_some_and(|list| list.len() > 1);
    match text(claims, "azp")? {
        Some(party) if party == client_id => Ok(()),
        None if !has_several => Ok(()),
        _ => Err(IdTokenError::AuthorizedParty),
    }
}

pub(crate) fn text<'a>(claims: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, IdTokenError> {
    match claims.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(IdTokenError::Malformed),
    }
}

/// Base64url of the left half of a hash.
fn half_hash(hash: Hash, text: &str) -> String {
    let algorithm = match hash {
        Hash::Sha256 => &digest::SHA256,
        Hash::Sha384 => &digest::SHA384,
        Hash::Sha512 => &digest::SHA512,
    };
    let digest = digest::digest(algorithm, text.as_bytes());
    let (half, _) = digest.as_ref().split_at(digest.as_ref().len() / 2);
    base64url(half)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(change: impl FnOnce(&mut Map<String, Value>), max_age: Option<u64>) -> Result<(), IdTokenError> {
        let access_token = Secret::from("jHkWEdUXMU1BwAsC4vtUsZwnNvTIxEl0z9K3vx5KF0Y");
        let Value::Object(mut claims) = json!({
            "iss": "https://idp", "sub": "ada", "aud": "web", "nonce": "n",
            // OpenID Connect Core, appendix A.3.
            "at_hash": "77QmUPtjPfzWtF2AnpK9RQ",
        }) else {
            unreachable!()
        };
        change(&mut claims);
        let rules = IdTokenRules {
            client_id: "web",
            nonce: &Secret::from("n"),
            access_token: &access_token,
            hash: Hash::Sha256,
            now: UnixTime(1000),
            leeway: 30,
            max_age,
        };
        check_id_token(&claims, &rules)
    }

    fn with(name: &'static str, value: Value) -> Result<(), IdTokenError> {
        check(|claims| drop(claims.insert(name.to_owned(), value)), None)
    }

    #[test]
    fn an_id_token_belongs_to_its_login() {
        assert_eq!(check(|_| {}, None), Ok(()));
        assert_eq!(with("nonce", json!("other")), Err(IdTokenError::Nonce));
        assert_eq!(check(|claims| drop(claims.remove("nonce")), None), Err(IdTokenError::Nonce));
        assert_eq!(with("nonce", json!(["n"])), Err(IdTokenError::Malformed));
        assert_eq!(with("at_hash", json!("77QmUPtjPfzWtF2AnpK9RR")), Err(IdTokenError::AccessTokenHash));
        assert_eq!(check(|claims| drop(claims.remove("at_hash")), None), Ok(()));
        assert_eq!(with("sub", json!("")), Err(IdTokenError::Subject));
        assert_eq!(check(|claims| drop(claims.remove("sub")), None), Err(IdTokenError::Subject));
    }

    #[test]
    fn of_several_audiences_the_authorized_party_is_this_client() {
        assert_eq!(with("aud", json!(["web"])), Ok(()));
        assert_eq!(with("aud", json!(["web", "api"])), Err(IdTokenError::AuthorizedParty));
        assert_eq!(with("azp", json!("other")), Err(IdTokenError::AuthorizedParty));
        let both = |claims: &mut Map<String, Value>| {
            claims.insert("aud".into(), json!(["web", "api"]));
            claims.insert("azp".into(), json!("web"));
        };
        assert_eq!(check(both, None), Ok(()));
    }

    #[test]
    fn an_authentication_may_be_too_old_but_for_the_clocks_difference() {
        assert_eq!(check(|_| {}, Some(60)), Err(IdTokenError::TooOld));
        let at = |time: u64| check(|claims| drop(claims.insert("auth_time".into(), json!(time))), Some(60));
        assert_eq!(at(910), Ok(()));
        assert_eq!(at(909), Err(IdTokenError::TooOld));
        assert_eq!(at(u64::MAX), Ok(()));
    }
}
