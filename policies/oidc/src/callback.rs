//! The provider's answer at the callback (RFC 6749 section 4.1.2) with its issuer (RFC 9207).
//!
//! Invariant: an answer counts only for an attempt of the same browser, of the same provider, begun within ten minutes. A
//! parameter that is there twice refuses it.

use crate::{Secret, form::form_decode, metadata::ProviderMetadata, same, transaction::Transaction};

/// Longest query of a callback, in bytes.
pub const MAX_CALLBACK_BYTES: usize = 8 * 1024;
/// Most parameters of it.
const MAX_PARAMETERS: usize = 16;

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Callback {
    /// `state`, as it came.
    pub state: Secret,
    issuer: Option<String>,
    answer: Result<Secret, CallbackError>,
}

/// A code that may be redeemed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Code(pub Secret);

/// Why there is no code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallbackError {
    /// Not an answer of a provider: too long, a parameter twice, no state, neither code nor error, or both.
    #[error("the request is no answer of an identity provider")]
    Malformed,
    /// The answer is of another provider, or does not say of which though it should.
    #[error("the answer is not of the identity provider that the login was begun with")]
    OtherIssuer,
    /// The person or the provider said no.
    #[error("the identity provider refused the login")]
    Denied,
    /// The provider wants something that the flow does not do, such as an interaction with `prompt=none`, or the request was wrong.
    #[error("the identity provider refused the request as {0}")]
    Refused(&'static str),
    /// The provider is out of order.
    #[error("the identity provider is not available")]
    Unavailable,
}

impl Callback {
    /// Reads the query of a callback.
    ///
    /// # Errors: [`CallbackError::Malformed`].
    pub fn parse(query: &str) -> Result<Self, CallbackError> {
        let malformed = CallbackError::Malformed;
        if query.len() > MAX_CALLBACK_BYTES {
            return Err(malformed);
        }
        let pairs = form_decode(query, MAX_PARAMETERS).ok_or(CallbackError::Malformed)?;
        let mut state = None;
        let mut issuer = None;
        let mut code = None;
        let mut error = None;
        for (name, value) in pairs {
            let place = match &*name {
                "state" => &mut state,
                "iss" => &mut issuer,
                "code" => &mut code,
                "error" => &mut error,
                _ => continue,
            };
            if place.replace(value).is_some() {
                return Err(malformed);
            }
        }
        let answer = match (code, error) {
            (Some(code), None) if !code.is_empty() => Ok(Secret::from(code)),
            (None, Some(error)) => Err(refusal(&error)),
            _ => return Err(malformed),
        };
        let state = state.filter(|state| !state.is_empty()).ok_or(malformed)?;
        Ok(Self { state: Secret::from(state), issuer, answer })
    }

    /// The code, if the answer is to `transaction` and of the provider that `metadata` are of.
    ///
    /// # Errors: [`CallbackError`], never [`CallbackError::Malformed`].
    pub fn check(self, transaction: &Transaction, metadata: &ProviderMetadata) -> Result<Code, CallbackError> {
        let own = &*metadata.issuer;
        let is_own = match &self.issuer {
            Some(issuer) => issuer == own,
            None => !metadata.names_issuer_in_answers,
        };
        let is_begun_here = *transaction.issuer == *own && same(self.state.expose(), transaction.state.expose());
        if !is_own || !is_begun_here {
            return Err(CallbackError::OtherIssuer);
        }
        self.answer.map(Code)
    }
}

/// RFC 6749 section 4.1.2.1, OpenID Connect Core section 3.1.2.6. What is in no list has no name: a client could write it.
fn refusal(error: &str) -> CallbackError {
    const KNOWN: &[&str] = &[
        "invalid_request",
        "unauthorized_client",
        "unsupported_response_type",
        "invalid_scope",
        "invalid_target",
        "interaction_required",
        "login_required",
        "account_selection_required",
        "consent_required",
        "invalid_request_uri",
        "invalid_request_object",
        "request_not_supported",
        "request_uri_not_supported",
        "registration_not_supported",
    ];
    match error {
        "access_denied" => CallbackError::Denied,
        "server_error" | "temporarily_unavailable" => CallbackError::Unavailable,
        other => CallbackError::Refused(KNOWN.iter().find(|known| **known == other).unwrap_or(&"an unknown error")),
    }
}
