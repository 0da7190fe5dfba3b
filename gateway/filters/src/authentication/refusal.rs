//! Why a request is refused, and how it is told so (RFC 6750 section 3, RFC 9449 section 7.1).

use std::borrow::Cow;

use http::HeaderValue;
use policy_jose::{
    Algorithms, BindingReason, Challenge, CredentialsError, InvalidChallenge, Problem, ProofReason, Reason, Scheme,
};

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal<'a> {
    /// No credentials at all.
    Missing,
    /// They cannot be read, or stand twice.
    Unreadable(CredentialsError),
    /// Nobody has this API key.
    UnknownKey,
    /// Nobody has this name and password.
    WrongPassword,
    /// Too many passwords wait to be checked.
    Busy,
    /// The token is not good.
    Token(Scheme, Reason),
    /// The proof of possession is not good.
    Proof(ProofReason),
    /// The token is another client's.
    NotPossessed(Scheme, BindingReason),
    /// The token lacks one of these scopes.
    InsufficientScope(Scheme, &'a [String]),
    /// Nobody can tell now.
    Unavailable,
}

impl Refusal<'_> {
    /// In a few words, for whoever sent the request. Says nothing that the request chose.
    pub(super) fn detail(&self) -> Cow<'static, str> {
        match self {
            Self::Missing => "The request has no credentials.".into(),
            Self::Unreadable(reason) => sentence(reason),
            Self::UnknownKey => "The API key is not known.".into(),
            Self::WrongPassword => "Name or password is wrong.".into(),
            Self::Busy => "Too many passwords are being checked; try again.".into(),
            Self::Token(_, reason) => sentence(reason),
            Self::Proof(reason) => sentence(reason),
            Self::NotPossessed(_, reason) => sentence(reason),
            Self::InsufficientScope(..) => "The token lacks a scope that is needed here.".into(),
            Self::Unavailable => "The identity provider cannot be reached; try again.".into(),
        }
    }
}

fn sentence(reason: &dyn std::fmt::Display) -> Cow<'static, str> {
    let text = reason.to_string();
    let mut characters = text.chars();
    let first = characters.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(characters).chain(['.']).collect::<String>().into()
}

/// What `Basic` names as the protection space, which it must, where the policy names none.
const DEFAULT_REALM: &str = "gateway";

/// The challenges of one policy.
#[derive(Clone, Debug)]
pub(super) struct Challenges {
    bearer: Challenge,
    proof: Challenge,
    /// Which of them a client without credentials is shown.
    shows_bearer: bool,
    shows_proof: bool,
    /// Where names and passwords are taken (RFC 7617 section 2).
    basic: Option<String>,
}

impl Challenges {
    /// # Errors: [`InvalidChallenge`] for a realm that no header can carry.
    pub(super) fn new(
        realm: Option<&str>,
        proof_algorithms: Algorithms,
        shows_bearer: bool,
        shows_proof: bool,
        shows_basic: bool,
    ) -> Result<Self, InvalidChallenge> {
        let proof = Challenge::new(Scheme::Dpop, realm, None)?.with_proof_algorithms(proof_algorithms);
        let bearer = Challenge::new(Scheme::Bearer, realm, None)?;
        let escaped = realm.unwrap_or(DEFAULT_REALM).replace('\\', "\\\\").replace('"', "\\\"");
        let basic = shows_basic.then(|| format!("Basic realm=\"{escaped}\", charset=\"UTF-8\""));
        Ok(Self { bearer, proof, shows_bearer, shows_proof, basic })
    }

    /// The values of `WWW-Authenticate` for `refusal`.
    pub(super) fn values(&self, refusal: &Refusal<'_>) -> Vec<HeaderValue> {
        let values: Vec<String> = match refusal {
            Refusal::Unavailable | Refusal::Busy => Vec::new(),
            // There is no scheme for keys; what else would be taken is told.
            Refusal::Missing | Refusal::UnknownKey | Refusal::WrongPassword => {
                let all = [(self.shows_bearer, &self.bearer), (self.shows_proof, &self.proof)];
                let shown = all.into_iter().filter(|(is_shown, _)| *is_shown);
                let shown = shown.map(|(_, challenge)| challenge.value(Problem::MissingToken));
                shown.chain(self.basic.clone()).collect()
            }
            Refusal::Unreadable(error) => vec![self.bearer.value(Problem::InvalidRequest(*error))],
            Refusal::Token(scheme, reason) => vec![self.of(*scheme).value(Problem::InvalidToken(*reason))],
            Refusal::Proof(reason) => vec![self.proof.value(Problem::InvalidProof(*reason))],
            // What is missing is the proof, so the scheme to use is told as well.
            Refusal::NotPossessed(Scheme::Bearer, BindingReason::ProofRequired) => {
                vec![self.proof.value(Problem::NotPossessed(BindingReason::ProofRequired))]
            }
            Refusal::NotPossessed(scheme, reason) => vec![self.of(*scheme).value(Problem::NotPossessed(*reason))],
            Refusal::InsufficientScope(scheme, scopes) => {
                vec![self.of(*scheme).value(Problem::InsufficientScope(scopes))]
            }
        };
        // Visible ASCII, all of them.
        values.into_iter().filter_map(|value| HeaderValue::try_from(value).ok()).collect()
    }

    fn of(&self, scheme: Scheme) -> &Challenge {
        match scheme {
            Scheme::Bearer => &self.bearer,
            Scheme::Dpop => &self.proof,
        }
    }
}
