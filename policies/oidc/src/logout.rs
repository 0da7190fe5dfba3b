//! The three ways out: RP-Initiated, Front-Channel and Back-Channel Logout 1.0 of OpenID Connect.

use serde_json::{Map, Value};

use crate::{
    Secret, UnixTime,
    form::{form_decode, form_encode, with_parameters},
};

/// The event of a logout token.
const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";
/// Longest `jti`, `sid` and `sub`.
const MAX_TEXT: usize = 255;
/// Longest time since a logout token was issued, in seconds, before the difference of the clocks.
const MAX_AGE: u64 = 600;

/// Whose sessions end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogoutToken {
    /// The provider.
    pub issuer: Box<str>,
    /// `sub`: all sessions of this person, or of them the one with [`Self::sid`].
    pub subject: Option<Box<str>>,
    /// `sid`.
    pub sid: Option<Box<str>>,
}

/// Why a logout token is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogoutError {
    /// A claim is of another type, or too long.
    #[error("a claim of the logout token is missing, too long or malformed")]
    Malformed,
    /// The event of a logout is missing.
    #[error("the token is none of a logout")]
    NoLogout,
    /// It has a nonce: it may be an ID token.
    #[error("a logout token has no nonce")]
    Nonce,
    /// It names neither subject nor session.
    #[error("the logout token names nobody")]
    Nobody,
    /// Too old, or of a time to come.
    #[error("the logout token was not issued just now")]
    Time,
}

/// Reads the claims of a logout token whose signature, `iss`, `aud`, `exp` and `typ` were checked (Back-Channel Logout 1.0 section 2.6),
/// with its `jti` and when that may be forgotten. Whether it came before, the caller knows.
///
/// # Errors: [`LogoutError`].
pub fn check_logout_token(
    claims: &Map<String, Value>,
    now: UnixTime,
    leeway: u64,
) -> Result<(LogoutToken, String, UnixTime), LogoutError> {
    let text = |name: &str| match claims.get(name) {
        None => Ok(None),
        Some(Value::String(text)) if (1..=MAX_TEXT).contains(&text.len()) => Ok(Some(text.as_str())),
        Some(_) => Err(LogoutError::Malformed),
    };
    let events = claims.get("events").and_then(Value::as_object).ok_or(LogoutError::NoLogout)?;
    if !events.get(EVENT).is_some_and(Value::is_object) {
        return Err(LogoutError::NoLogout);
    }
    if claims.contains_key("nonce") {
        return Err(LogoutError::Nonce);
    }
    let (subject, sid) = (text("sub")?, text("sid")?);
    if subject.is_none() && sid.is_none() {
        return Err(LogoutError::Nobody);
    }
    let id = text("jti")?.ok_or(LogoutError::Malformed)?;
    let issued = claims.get("iat").and_then(Value::as_u64).ok_or(LogoutError::Malformed)?;
    let oldest = now.0.saturating_sub(leeway + MAX_AGE);
    if issued < oldest || issued > now.0.saturating_add(leeway) {
        return Err(LogoutError::Time);
    }
    let issuer = claims.get("iss").and_then(Value::as_str).ok_or(LogoutError::Malformed)?;
    let token = LogoutToken { issuer: issuer.into(), subject: subject.map(Into::into), sid: sid.map(Into::into) };
    // From then on it is too old.
    let forgotten = UnixTime(issued.saturating_add(leeway + MAX_AGE + 1));
    Ok((token, id.to_owned(), forgotten))
}

/// What a request at the front-channel logout path names: `iss` and `sid`, both (Front-Channel Logout 1.0 section 2). Without
/// them nobody could tell whose session is meant. `None` where it is not of `issuer`.
pub fn front_channel_logout(query: &str, issuer: &str) -> Option<LogoutToken> {
    if query.len() > 2048 {
        return None;
    }
    let pairs = form_decode(query, 16)?;
    let one = |name: &str| {
        let mut values = pairs.iter().filter(|(own, _)| own == name).map(|(_, value)| value.as_str());
        values.next().filter(|value| values.next().is_none() && (1..=MAX_TEXT).contains(&value.len()))
    };
    let sid = one("sid")?;
    (one("iss")? == issuer).then(|| LogoutToken { issuer: issuer.into(), subject: None, sid: Some(sid.into()) })
}

/// Where a browser is sent to end the provider's own session (RP-Initiated Logout 1.0 section 2). It comes back to
/// `return_uri`, where that is registered with the provider.
pub fn end_session_url(endpoint: &str, client_id: &str, hint: Option<&Secret>, return_uri: Option<&str>) -> String {
    let mut parameters = vec![("client_id", client_id)];
    parameters.extend(hint.map(|token| ("id_token_hint", token.expose())));
    parameters.extend(return_uri.map(|uri| ("post_logout_redirect_uri", uri)));
    with_parameters(endpoint, &form_encode(parameters))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: UnixTime = UnixTime(10_000);

    fn check(change: impl FnOnce(&mut Map<String, Value>)) -> Result<(LogoutToken, String, UnixTime), LogoutError> {
        let Value::Object(mut claims) = json!({
            "iss": "https://idp", "aud": "web", "iat": 10_000, "jti": "j", "sub": "ada", "sid": "1", "events": {EVENT: {}},
        }) else {
            unreachable!()
        };
        change(&mut claims);
        check_logout_token(&claims, NOW, 30)
    }

    #[test]
    fn a_logout_token_says_who_and_that_it_is_one() {
        let (token, id, _) = check(|_| {}).unwrap();
        assert_eq!((token.subject.as_deref(), token.sid.as_deref(), &*id), (Some("ada"), Some("1"), "j"));
        let refused =
            |name: &'static str, value: Value| check(|claims| drop(claims.insert(name.into(), value))).unwrap_err();
        let without = |name: &'static str| check(|claims| drop(claims.remove(name)));
        assert!(without("sid").is_ok() && without("sub").is_ok());
        let nobody = check(|claims| claims.retain(|name, _| name != "sub" && name != "sid"));
        assert_eq!(nobody, Err(LogoutError::Nobody));
        assert_eq!(refused("nonce", json!("n")), LogoutError::Nonce);
        assert_eq!(refused("nonce", Value::Null), LogoutError::Nonce);
        assert_eq!(without("events").unwrap_err(), LogoutError::NoLogout);
        assert_eq!(refused("events", json!({EVENT: true})), LogoutError::NoLogout);
        assert_eq!(refused("events", json!([EVENT])), LogoutError::NoLogout);
        assert_eq!(without("jti").unwrap_err(), LogoutError::Malformed);
        assert_eq!(refused("sid", json!(1)), LogoutError::Malformed);
        assert_eq!(refused("sub", json!("")), LogoutError::Malformed);
    }

    #[test]
    fn a_logout_token_is_of_now_and_its_id_is_known_for_as_long_as_it_counts() {
        let at = |issued: u64| check(|claims| drop(claims.insert("iat".into(), json!(issued))));
        assert_eq!(at(10_031).unwrap_err(), LogoutError::Time);
        assert!(at(10_030).is_ok());
        assert_eq!(at(9_369).unwrap_err(), LogoutError::Time);
        assert_eq!(at(9_370).unwrap().2, UnixTime(10_001), "known while it counts: until now, inclusive");
        assert_eq!(at(u64::MAX).unwrap_err(), LogoutError::Time);
    }

    #[test]
    fn a_front_channel_logout_names_provider_and_session() {
        let named = front_channel_logout("iss=https%3A%2F%2Fidp&sid=1", "https://idp").unwrap();
        assert_eq!(named.sid.as_deref(), Some("1"));
        for query in [
            "",
            "sid=1",
            "iss=https://idp",
            "iss=https://evil&sid=1",
            "iss=https://idp&sid=1&sid=2",
            "iss=https://idp&sid=",
        ] {
            assert_eq!(front_channel_logout(query, "https://idp"), None, "{query}");
        }
    }

    #[test]
    fn a_logout_at_the_provider_names_the_session() {
        let hint = Secret::from("i");
        assert_eq!(
            end_session_url("https://idp/end", "web", Some(&hint), Some("https://a/bye")),
            "https://idp/end?client_id=web&id_token_hint=i&post_logout_redirect_uri=https%3A%2F%2Fa%2Fbye"
        );
    }
}
