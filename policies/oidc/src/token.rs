//! The token endpoint's texts: what is asked (RFC 6749 sections 4.1.3 and 6, RFC 7636, RFC 7009), how the client shows who it is
//! (section 2.3), and what the answer says.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;

use crate::{
    Secret,
    form::{encode_value, form_encode},
};

/// Longest answer of a token endpoint, in bytes.
pub const MAX_TOKEN_ANSWER_BYTES: usize = 256 * 1024;
/// Longest time that a token counts for.
const MAX_LIFETIME: u64 = 10 * 365 * 24 * 3600;

/// How a client shows who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClientAuthentication {
    /// `client_secret_basic`.
    Basic,
    /// `client_secret_post`.
    Post,
}

/// A form, and the fields that go with it. It has no `Debug` form: all of it is secret.
#[derive(Clone)]
pub struct TokenRequest {
    /// `application/x-www-form-urlencoded`.
    pub body: String,
    /// The value of `Authorization`, where the client shows its secret there.
    pub authorization: Option<String>,
}

impl TokenRequest {
    /// Redeems a code.
    pub fn code(
        client: (&str, Option<(&Secret, ClientAuthentication)>),
        code: &Secret,
        verifier: &Secret,
        redirect_uri: &str,
    ) -> Self {
        let parameters = [
            ("grant_type", "authorization_code"),
            ("code", code.expose()),
            ("redirect_uri", redirect_uri),
            ("code_verifier", verifier.expose()),
        ];
        Self::new(client, &parameters)
    }

    /// Renews tokens.
    pub fn refresh(client: (&str, Option<(&Secret, ClientAuthentication)>), token: &Secret) -> Self {
        Self::new(client, &[("grant_type", "refresh_token"), ("refresh_token", token.expose())])
    }

    /// Revokes a refresh token, and with it what was issued for it.
    pub fn revoke(client: (&str, Option<(&Secret, ClientAuthentication)>), token: &Secret) -> Self {
        Self::new(client, &[("token", token.expose()), ("token_type_hint", "refresh_token")])
    }

    fn new((id, secret): (&str, Option<(&Secret, ClientAuthentication)>), parameters: &[(&str, &str)]) -> Self {
        let mut pairs = parameters.to_vec();
        let mut authorization = None;
        match secret {
            Some((secret, ClientAuthentication::Basic)) => {
                let pair = format!("{}:{}", encode_value(id), encode_value(secret.expose()));
                authorization = Some(format!("Basic {}", STANDARD.encode(pair)));
            }
            Some((secret, ClientAuthentication::Post)) => {
                pairs.extend([("client_id", id), ("client_secret", secret.expose())]);
            }
            // A public client: PKCE alone ties the code to it.
            None => pairs.push(("client_id", id)),
        }
        Self { body: form_encode(pairs), authorization }
    }
}

/// The tokens of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenSet {
    /// Of type Bearer.
    pub access_token: Secret,
    /// For how long it counts, if the provider says.
    pub expires_in: Option<Duration>,
    /// What renews it. After a renewal without one the older goes on.
    pub refresh_token: Option<Secret>,
    /// There after a login; its signature is not checked yet.
    pub id_token: Option<Secret>,
}

/// Why there are no tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// `invalid_grant`: the code or the refresh token is spent, revoked or of another client.
    #[error("the identity provider does not take the code or refresh token (invalid_grant)")]
    InvalidGrant,
    /// It does not take the client: its secret is wrong, or it may not do this. The settings are to be corrected.
    #[error("the identity provider refuses the client with status {status}; check client id, secret and grant types")]
    Client {
        /// Of its answer.
        status: u16,
    },
    /// It is out of order, or asks to come back later.
    #[error("the identity provider answered with status {status}")]
    Unavailable {
        /// Of its answer.
        status: u16,
    },
    /// Not an answer of a token endpoint.
    #[error("the identity provider's answer is not one of a token endpoint")]
    Malformed,
}

#[derive(Deserialize)]
struct Answer {
    access_token: String,
    token_type: String,
    expires_in: Option<Seconds>,
    refresh_token: Option<String>,
    id_token: Option<String>,
}

/// Some providers write numbers as text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Seconds {
    Number(f64),
    Text(String),
}

#[derive(Deserialize)]
struct Problem {
    error: String,
}

impl TokenSet {
    /// Reads an answer.
    ///
    /// # Errors: [`TokenError`].
    pub fn parse(status: u16, body: &[u8]) -> Result<Self, TokenError> {
        match status {
            200 => Self::read(body).ok_or(TokenError::Malformed),
            400..=499 if status != 408 && status != 429 => {
                let problem = serde_json::from_slice::<Problem>(body).ok();
                let is_grant = problem.is_some_and(|problem| problem.error == "invalid_grant");
                Err(if is_grant { TokenError::InvalidGrant } else { TokenError::Client { status } })
            }
            _ => Err(TokenError::Unavailable { status }),
        }
    }

    fn read(body: &[u8]) -> Option<Self> {
        let answer: Answer = serde_json::from_slice(body).ok()?;
        // RFC 6750: what goes behind `Bearer` is visible ASCII.
        let is_text = |text: &String| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        if !answer.token_type.eq_ignore_ascii_case("bearer") || !is_text(&answer.access_token) {
            return None;
        }
        let expires_in = match answer.expires_in {
            None => None,
            Some(Seconds::Number(seconds)) => Some(seconds),
            Some(Seconds::Text(text)) => Some(text.parse().ok()?),
        };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a cast to u64 saturates, and is bounded"
        )]
        let expires_in = expires_in.map(|seconds: f64| Duration::from_secs((seconds as u64).min(MAX_LIFETIME)));
        let secret = |text: Option<String>| text.filter(|text| !text.is_empty()).map(Secret::from);
        Some(Self {
            access_token: Secret::from(answer.access_token),
            expires_in,
            refresh_token: secret(answer.refresh_token),
            id_token: secret(answer.id_token),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret() -> Secret {
        Secret::from("p:w d")
    }

    #[test]
    fn a_client_shows_its_secret_in_one_place() {
        let (code, verifier) = (Secret::from("c+d"), Secret::from("v"));
        let basic = TokenRequest::code(
            ("a b", Some((&secret(), ClientAuthentication::Basic))),
            &code,
            &verifier,
            "https://a/cb",
        );
        assert_eq!(
            basic.body,
            "grant_type=authorization_code&code=c%2Bd&redirect_uri=https%3A%2F%2Fa%2Fcb&code_verifier=v"
        );
        // RFC 6749 section 2.3.1: encoded as a form before it is encoded as Basic.
        assert_eq!(basic.authorization.unwrap(), format!("Basic {}", STANDARD.encode("a%20b:p%3Aw%20d")));
        let post = TokenRequest::refresh(("a", Some((&secret(), ClientAuthentication::Post))), &code);
        assert_eq!(post.body, "grant_type=refresh_token&refresh_token=c%2Bd&client_id=a&client_secret=p%3Aw%20d");
        assert!(post.authorization.is_none());
        assert_eq!(
            TokenRequest::revoke(("a", None), &code).body,
            "token=c%2Bd&token_type_hint=refresh_token&client_id=a"
        );
    }

    #[test]
    fn an_answer_is_tokens_or_says_whose_fault_it_is() {
        let good =
            TokenSet::parse(200, br#"{"access_token":"a","token_type":"bearer","expires_in":"60","id_token":"i"}"#)
                .unwrap();
        assert_eq!((good.expires_in, good.refresh_token), (Some(Duration::from_mins(1)), None));
        assert_eq!(format!("{:?}", good.access_token), "Secret");
        for (status, body, error) in [
            (400, r#"{"error":"invalid_grant"}"#, TokenError::InvalidGrant),
            (401, r#"{"error":"invalid_client"}"#, TokenError::Client { status: 401 }),
            (404, "", TokenError::Client { status: 404 }),
            (429, "", TokenError::Unavailable { status: 429 }),
            (302, "", TokenError::Unavailable { status: 302 }),
            (503, "", TokenError::Unavailable { status: 503 }),
            (200, "{}", TokenError::Malformed),
            (200, r#"{"access_token":"a b","token_type":"bearer"}"#, TokenError::Malformed),
            (200, r#"{"access_token":"a","token_type":"mac"}"#, TokenError::Malformed),
            (200, r#"{"access_token":"a","token_type":"bearer","expires_in":"soon"}"#, TokenError::Malformed),
        ] {
            assert_eq!(TokenSet::parse(status, body.as_bytes()), Err(error), "{status} {body}");
        }
        let odd = TokenSet::parse(200, br#"{"access_token":"a","token_type":"Bearer","expires_in":-5}"#).unwrap();
        assert_eq!(odd.expires_in, Some(Duration::ZERO));
    }
}
