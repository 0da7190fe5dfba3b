//! The token in a request (RFC 6750 section 2.1, RFC 9449 section 7.1) and the challenge in an answer (RFC 6750 section
//! 3, RFC 9728 section 5.1).

use std::fmt::Write as _;

use crate::algorithm::{Algorithm, Algorithms};
use crate::binding::BindingReason;
use crate::proof::ProofReason;
use crate::reason::Reason;

/// How a token is presented.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Whoever holds the token may use it.
    Bearer,
    /// The request carries a proof of possession besides.
    Dpop,
}

impl Scheme {
    /// The name of the scheme; it is compared without regard to case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bearer => "Bearer",
            Self::Dpop => "DPoP",
        }
    }
}

/// A token as it was presented, not yet checked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Credentials<'a> {
    /// See [`Scheme`].
    pub scheme: Scheme,
    /// One token68 (RFC 9110 section 11.2).
    pub token: &'a str,
}

/// Shows no token: it is a secret.
impl std::fmt::Debug for Credentials<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Credentials").field("scheme", &self.scheme).finish_non_exhaustive()
    }
}

/// Why a request has no token that can be checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum CredentialsError {
    /// More than one `Authorization`: two servers could read two of them.
    #[error("the request has more than one Authorization header")]
    Several,
    /// The scheme has no token after it, or what follows is not one token68.
    #[error("the credentials are malformed")]
    Malformed,
}

impl CredentialsError {
    /// A stable name in snake case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Several => "several_credentials",
            Self::Malformed => "malformed_credentials",
        }
    }
}

/// The token among the values of a request's `Authorization` headers. `None` where there is no such header, or one of
/// another scheme such as `Basic`: the answer is then a challenge without an error.
///
/// # Errors
/// See [`CredentialsError`]; the answer is [`Problem::InvalidRequest`].
pub fn credentials<'a>(
    values: impl IntoIterator<Item = &'a [u8]>,
) -> Result<Option<Credentials<'a>>, CredentialsError> {
    let mut values = values.into_iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(CredentialsError::Several);
    }
    let value = value.trim_ascii();
    let end = value.iter().position(|byte| *byte == b' ').unwrap_or(value.len());
    let (name, rest) = value.split_at_checked(end).unwrap_or((value, &[]));
    let scheme = [Scheme::Bearer, Scheme::Dpop].into_iter();
    let mut scheme = scheme.filter(|scheme| name.eq_ignore_ascii_case(scheme.name().as_bytes()));
    let Some(scheme) = scheme.next() else { return Ok(None) };
    let token = std::str::from_utf8(rest).map_err(|_| CredentialsError::Malformed)?.trim_start_matches(' ');
    if is_token68(token) { Ok(Some(Credentials { scheme, token })) } else { Err(CredentialsError::Malformed) }
}

fn is_token68(text: &str) -> bool {
    let body = text.trim_end_matches('=');
    !body.is_empty() && body.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte))
}

/// What is wrong with a request, in the terms of RFC 6750 section 3.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem<'a> {
    /// No token. RFC 6750 wants no error then.
    MissingToken,
    /// The credentials cannot be read.
    InvalidRequest(CredentialsError),
    /// The token is refused.
    InvalidToken(Reason),
    /// The proof of possession is refused (RFC 9449 section 7.1).
    InvalidProof(ProofReason),
    /// Whoever sent the token did not show what it is bound to.
    NotPossessed(BindingReason),
    /// The token is good, but lacks one of these scopes.
    InsufficientScope(&'a [String]),
}

impl Problem<'_> {
    /// The status of the answer (RFC 6750 section 3.1).
    pub const fn status(self) -> u16 {
        match self {
            Self::InvalidRequest(_) => 400,
            Self::MissingToken | Self::InvalidToken(_) | Self::InvalidProof(_) | Self::NotPossessed(_) => 401,
            Self::InsufficientScope(_) => 403,
        }
    }

    /// The value of `error`.
    pub const fn error(self) -> Option<&'static str> {
        match self {
            Self::MissingToken => None,
            Self::InvalidRequest(_) => Some("invalid_request"),
            Self::InvalidToken(_) | Self::NotPossessed(_) => Some("invalid_token"),
            Self::InvalidProof(ProofReason::WrongNonce) => Some("use_dpop_nonce"),
            Self::InvalidProof(_) => Some("invalid_dpop_proof"),
            Self::InsufficientScope(_) => Some("insufficient_scope"),
        }
    }
}

/// The fixed parameters of a challenge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    scheme: Scheme,
    /// With a comma before each but the first.
    fixed: String,
}

/// A parameter has other than visible ASCII and spaces, or is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a parameter of a challenge must be visible ASCII")]
pub struct InvalidChallenge;

impl Challenge {
    /// `realm` (RFC 9110 section 11.5) and the URL of the protected resource's metadata (RFC 9728), where there are any.
    ///
    /// # Errors
    /// [`InvalidChallenge`].
    pub fn new(scheme: Scheme, realm: Option<&str>, resource_metadata: Option<&str>) -> Result<Self, InvalidChallenge> {
        let mut fixed = String::new();
        for (name, value) in [("realm", realm), ("resource_metadata", resource_metadata)] {
            let Some(value) = value else { continue };
            if value.is_empty() || !value.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) {
                return Err(InvalidChallenge);
            }
            parameter(&mut fixed, name, value);
        }
        Ok(Self { scheme, fixed })
    }

    /// Adds `algs`, the algorithms of proofs (RFC 9449 section 7.1).
    #[must_use]
    pub fn with_proof_algorithms(mut self, algorithms: Algorithms) -> Self {
        let names: Vec<&str> = algorithms.iter().map(Algorithm::name).collect();
        parameter(&mut self.fixed, "algs", &names.join(" "));
        self
    }

    /// The value of `WWW-Authenticate`, in visible ASCII. Says nothing that the request chose.
    pub fn value(&self, problem: Problem<'_>) -> String {
        let mut parameters = self.fixed.clone();
        if let Some(error) = problem.error() {
            parameter(&mut parameters, "error", error);
        }
        match problem {
            Problem::MissingToken => {}
            Problem::InvalidRequest(error) => parameter(&mut parameters, "error_description", &error.to_string()),
            Problem::InvalidToken(reason) => parameter(&mut parameters, "error_description", &reason.to_string()),
            Problem::InvalidProof(reason) => parameter(&mut parameters, "error_description", &reason.to_string()),
            Problem::NotPossessed(reason) => parameter(&mut parameters, "error_description", &reason.to_string()),
            Problem::InsufficientScope(scopes) => {
                // RFC 6749 section 3.3 leaves out quotes and backslashes, so none is lost that a token could have.
                let is_scope = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
                let scopes = scopes.iter().map(String::as_str).filter(|scope| scope.bytes().all(is_scope));
                parameter(&mut parameters, "scope", &scopes.collect::<Vec<_>>().join(" "));
            }
        }
        if parameters.is_empty() {
            self.scheme.name().to_owned()
        } else {
            format!("{} {parameters}", self.scheme.name())
        }
    }
}

fn parameter(output: &mut String, name: &str, value: &str) {
    let separator = if output.is_empty() { "" } else { ", " };
    let value = value.replace('\\', "\\\\").replace('"', "\\\"");
    // Writing to a String cannot fail.
    let _ = write!(output, "{separator}{name}=\"{value}\"");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(value: &str) -> Result<Option<(Scheme, &str)>, CredentialsError> {
        credentials([value.as_bytes()]).map(|found| found.map(|found| (found.scheme, found.token)))
    }

    #[test]
    fn one_token_is_found_whatever_the_case_of_the_scheme() {
        assert_eq!(read("Bearer a.b-c_d~e+f/g=="), Ok(Some((Scheme::Bearer, "a.b-c_d~e+f/g=="))));
        assert_eq!(read("bEARER   a"), Ok(Some((Scheme::Bearer, "a"))));
        assert_eq!(read("dpop a"), Ok(Some((Scheme::Dpop, "a"))));
        for other in ["Basic YTpi", "", "Bearerx a", "Negotiate"] {
            assert_eq!(read(other), Ok(None), "{other}");
        }
        assert_eq!(credentials([]), Ok(None));
    }

    #[test]
    fn what_is_not_one_token_is_refused() {
        for value in [
            "Bearer",
            "Bearer ",
            "Bearer a b",
            "Bearer a, Bearer b",
            "Bearer =",
            "Bearer a=b",
            "Bearer \ta",
            "Bearer é",
        ] {
            assert_eq!(read(value), Err(CredentialsError::Malformed), "{value}");
        }
        assert_eq!(credentials([&b"Bearer \xff"[..]]), Err(CredentialsError::Malformed));
        assert_eq!(credentials([&b"Bearer a"[..], b"Bearer a"]), Err(CredentialsError::Several));
        assert_eq!(credentials([&b"Basic a"[..], b"Bearer a"]), Err(CredentialsError::Several));
    }

    #[test]
    fn a_challenge_says_what_rfc_6750_asks_for() {
        let challenge = Challenge::new(Scheme::Bearer, Some("a \"b\""), Some("https://a/b")).unwrap();
        let fixed = r#"Bearer realm="a \"b\"", resource_metadata="https://a/b""#;
        assert_eq!(challenge.value(Problem::MissingToken), fixed);
        assert_eq!(
            challenge.value(Problem::InvalidToken(Reason::Expired)),
            format!(r#"{fixed}, error="invalid_token", error_description="the token has expired""#)
        );
        let bare = Challenge::new(Scheme::Dpop, None, None).unwrap();
        assert_eq!(bare.value(Problem::MissingToken), "DPoP");
        let algorithms = [Algorithm::Es256, Algorithm::EdDsa].into_iter().collect();
        let proofs = bare.clone().with_proof_algorithms(algorithms);
        assert_eq!(
            proofs.value(Problem::InvalidProof(ProofReason::WrongNonce)),
            r#"DPoP algs="ES256 EdDSA", error="use_dpop_nonce", error_description="the proof lacks the nonce""#
        );
        let unbound = Problem::NotPossessed(BindingReason::NotBound);
        assert_eq!((unbound.status(), unbound.error()), (401, Some("invalid_token")));
        assert_eq!(Problem::InvalidProof(ProofReason::Stale).error(), Some("invalid_dpop_proof"));
        let scopes = ["read".to_owned(), "wri\"te\r\n".to_owned(), "admin".to_owned()];
        let problem = Problem::InsufficientScope(&scopes);
        assert_eq!(bare.value(problem), r#"DPoP error="insufficient_scope", scope="read admin""#);
        assert_eq!((problem.status(), Problem::MissingToken.status()), (403, 401));
        assert_eq!(Problem::InvalidRequest(CredentialsError::Several).status(), 400);
        assert_eq!(Challenge::new(Scheme::Bearer, Some("a\r\nb"), None), Err(InvalidChallenge));
    }

    proptest! {
        #[test]
        fn no_value_makes_it_panic(value in prop::collection::vec(any::<u8>(), 0..64), prefix in "(Bearer |DPoP |)") {
            let value = [prefix.as_bytes(), &value].concat();
            if let Ok(Some(found)) = credentials([value.as_slice()]) {
                prop_assert!(is_token68(found.token));
            }
        }
    }
}
