//! What a token must be to be accepted: RFC 7519 section 7.2 with the rules of RFC 8725, for access tokens also RFC 9068.
//! Invariant: nothing that a token says chooses a key's source or an algorithm beyond the policy's list; `jwk`, `jku`,
//! `x5u` and `x5c` are never read. Claims are parsed only after the signature has been checked.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::algorithm::{Algorithm, Algorithms};
use crate::claims::{ClaimPath, Claims};
use crate::compact::{Compact, normal_type};
use crate::key::{Key, sha256};
use crate::key_set::{Candidates, KeySet};
use crate::reason::Reason;

/// Largest clock skew that a policy may allow.
pub const MAX_LEEWAY: Duration = Duration::from_mins(5);
/// Longest token that a policy may allow, in bytes.
pub const MAX_TOKEN_BYTES: usize = 64 * 1024;
/// Longest list of issuers, audiences, types or required claims.
pub const MAX_LIST: usize = 64;
/// Numeric dates from here on (2^53) are no dates.
const MAX_DATE: f64 = 9_007_199_254_740_992.0;

/// Whole seconds since 1970-01-01T00:00:00Z, leap seconds left out (RFC 7519 section 2, NumericDate).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixTime(pub u64);

/// Which `aud` a token must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Audiences {
    /// At least one of these, compared exactly. 1 to [`MAX_LIST`].
    AnyOf(Vec<String>),
    /// Not checked: a token for another service is accepted too. Somebody has to ask for it.
    Waived,
}

/// Which `typ` a token must have. Compared without regard to case, and to a leading `application/` (RFC 7515 section
/// 4.1.9).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenTypes {
    /// None, `JWT` or `at+jwt`. Refuses what an issuer signs for other ends, such as `logout+jwt` and `secevent+jwt`.
    Usual,
    /// One of these; absent is refused. `["at+jwt"]` accepts access tokens of RFC 9068 only. 1 to [`MAX_LIST`].
    OneOf(Vec<String>),
}

/// Whether a token must have `exp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// It must.
    Required,
    /// One without lives for ever. One that is there counts all the same.
    Waived,
}

/// A policy as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifierSpec {
    /// `iss` must be one of these, compared exactly. 1 to [`MAX_LIST`]. Any key of the set may sign for any of them:
    /// issuers that do not trust each other have a policy and a key set each.
    pub issuers: Vec<String>,
    /// See [`Audiences`].
    pub audiences: Audiences,
    /// What `alg` may be; not empty.
    pub algorithms: Algorithms,
    /// See [`TokenTypes`].
    pub types: TokenTypes,
    /// See [`Expiry`].
    pub expiry: Expiry,
    /// By how much the issuer's clock may differ; whole seconds count. At most [`MAX_LEEWAY`].
    pub leeway: Duration,
    /// Claims that must be there and not be null. At most [`MAX_LIST`].
    pub required_claims: Vec<ClaimPath>,
    /// 1 to [`MAX_TOKEN_BYTES`].
    pub max_token_bytes: usize,
    /// Longest time from `iat` to `exp`, without leeway; at least a second. `None`: any.
    pub max_lifetime: Option<Duration>,
}

impl VerifierSpec {
    /// One issuer and one audience, asymmetric algorithms, the usual types, `exp` required, 30 s of leeway, tokens of at
    /// most 16 KiB.
    pub fn new(issuer: &str, audience: &str) -> Self {
        Self {
            issuers: vec![issuer.to_owned()],
            audiences: Audiences::AnyOf(vec![audience.to_owned()]),
            algorithms: Algorithms::ASYMMETRIC,
            types: TokenTypes::Usual,
            expiry: Expiry::Required,
            leeway: Duration::from_secs(30),
            required_claims: Vec::new(),
            max_token_bytes: 16 * 1024,
            max_lifetime: None,
        }
    }
}

/// Why a policy is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidVerifier {
    /// No issuer, too many, or an empty one.
    #[error("there must be 1 to {MAX_LIST} issuers, none of them empty")]
    Issuers,
    /// No audience, too many, or an empty one.
    #[error("there must be 1 to {MAX_LIST} audiences, none of them empty, or they must be waived")]
    Audiences,
    /// No algorithm.
    #[error("there must be an algorithm")]
    Algorithms,
    /// No type, too many, or an empty one.
    #[error("there must be 1 to {MAX_LIST} types, none of them empty")]
    Types,
    /// More than [`MAX_LEEWAY`].
    #[error("the leeway must be at most {} seconds", MAX_LEEWAY.as_secs())]
    Leeway,
    /// Too many.
    #[error("there may be at most {MAX_LIST} required claims")]
    RequiredClaims,
    /// 0 or more than [`MAX_TOKEN_BYTES`].
    #[error("the longest token must be of 1 to {MAX_TOKEN_BYTES} bytes")]
    TokenBytes,
    /// Less than a second.
    #[error("the longest lifetime must be at least a second")]
    Lifetime,
}

/// A token that was accepted.
#[derive(Clone, Debug, PartialEq)]
pub struct Verified {
    /// What the issuer says.
    pub claims: Claims,
    /// The header's `kid`. Bounded by the token's length; log it with care, its text is the issuer's.
    pub key_id: Option<Box<str>>,
    /// What it is signed with.
    pub algorithm: Algorithm,
    /// `exp`, without leeway, rounded down. `None` only where the policy waives it.
    pub expiry: Option<UnixTime>,
}

/// The `iss` that a token claims, to choose among policies, and for nothing else: it is not checked, and anybody can
/// write it. The policy that is chosen checks all of the token.
///
/// # Errors
/// Those of [`Reason`] up to the claims; [`Reason::WrongIssuer`] where there is no `iss`.
pub fn claimed_issuer(token: &str) -> Result<String, Reason> {
    let claims = Compact::parse(token, MAX_TOKEN_BYTES)?.claims()?;
    claims.get("iss").and_then(Value::as_str).map(str::to_owned).ok_or(Reason::WrongIssuer)
}

/// A policy that is checked and ready.
#[derive(Clone, Debug)]
pub struct Verifier {
    spec: VerifierSpec,
    /// Empty for [`TokenTypes::Usual`].
    types: Vec<String>,
    fingerprint: [u8; 32],
}

impl TryFrom<VerifierSpec> for Verifier {
    type Error = InvalidVerifier;

    fn try_from(spec: VerifierSpec) -> Result<Self, InvalidVerifier> {
        let is_list =
            |texts: &[String]| (1..=MAX_LIST).contains(&texts.len()) && texts.iter().all(|text| !text.is_empty());
        let rules = [
            (is_list(&spec.issuers), InvalidVerifier::Issuers),
            (!matches!(&spec.audiences, Audiences::AnyOf(texts) if !is_list(texts)), InvalidVerifier::Audiences),
            (!spec.algorithms.is_empty(), InvalidVerifier::Algorithms),
            (!matches!(&spec.types, TokenTypes::OneOf(types) if !is_list(types)), InvalidVerifier::Types),
            (spec.leeway <= MAX_LEEWAY, InvalidVerifier::Leeway),
            (spec.required_claims.len() <= MAX_LIST, InvalidVerifier::RequiredClaims),
            ((1..=MAX_TOKEN_BYTES).contains(&spec.max_token_bytes), InvalidVerifier::TokenBytes),
            (spec.max_lifetime.is_none_or(|longest| longest.as_secs() >= 1), InvalidVerifier::Lifetime),
        ];
        if let Some((_, error)) = rules.into_iter().find(|(holds, _)| !holds) {
            return Err(error);
        }
        let types = match &spec.types {
            TokenTypes::Usual => Vec::new(),
            TokenTypes::OneOf(types) => types.iter().map(|name| normal_type(name)).collect(),
        };
        // The derived form names every field and quotes every text, so two policies have one only if they are equal.
        let fingerprint = sha256(format!("{spec:?}").as_bytes());
        Ok(Self { spec, types, fingerprint })
    }
}

impl Verifier {
    /// Accepts or refuses a token, as it stands after `Bearer`. `keys` are those of the policy's issuers.
    ///
    /// Costs one check of a signature for each key that is tried ([`crate::MAX_CANDIDATES`] at most), and allocates;
    /// [`crate::TokenCache`] spares both.
    ///
    /// # Errors
    /// The first rule that the token breaks, in the order of [`Reason`].
    pub fn verify(&self, token: &str, keys: &KeySet, now: UnixTime) -> Result<Verified, Reason> {
        let token = Compact::parse(token, self.spec.max_token_bytes)?;
        let (key_id, algorithm) = self.check_header(&token)?;
        check_signature(keys, key_id.as_deref(), algorithm, &token)?;
        let claims = Claims::new(token.claims()?);
        let expiry = self.check_claims(&claims, now)?;
        Ok(Verified { claims, key_id, algorithm, expiry })
    }

    /// The policy.
    pub fn spec(&self) -> &VerifierSpec {
        &self.spec
    }

    /// SHA-256 over the policy.
    pub fn fingerprint(&self) -> &[u8; 32] {
        &self.fingerprint
    }

    fn check_header(&self, token: &Compact<'_>) -> Result<(Option<Box<str>>, Algorithm), Reason> {
        let name = token.text("alg")?.ok_or(Reason::MalformedHeader)?;
        if name.eq_ignore_ascii_case("none") {
            return Err(Reason::Unsigned);
        }
        let algorithm = Algorithm::from_name(name).filter(|algorithm| self.spec.algorithms.contains(*algorithm));
        let algorithm = algorithm.ok_or(Reason::AlgorithmNotAllowed)?;
        if token.header.contains_key("crit") {
            return Err(Reason::CriticalExtension);
        }
        let kind = token.kind()?;
        let accepted = match (&self.spec.types, kind.as_deref()) {
            (TokenTypes::Usual, kind) => matches!(kind, None | Some("jwt" | "at+jwt")),
            (TokenTypes::OneOf(_), None) => false,
            (TokenTypes::OneOf(_), Some(kind)) => self.types.iter().any(|own| own == kind),
        };
        if !accepted {
            return Err(Reason::TypeNotAccepted);
        }
        Ok((token.text("kid")?.map(Into::into), algorithm))
    }

    fn check_claims(&self, claims: &Claims, now: UnixTime) -> Result<Option<UnixTime>, Reason> {
        let members = claims.members();
        let issuer = match members.get("iss") {
            None => return Err(Reason::WrongIssuer),
            Some(issuer) => issuer.as_str().ok_or(Reason::MalformedClaims)?,
        };
        if !self.spec.issuers.iter().any(|own| own == issuer) {
            return Err(Reason::WrongIssuer);
        }
        self.check_audience(members.get("aud"))?;
        let expiry = self.check_times(members, now)?;
        let is_there = |path: &ClaimPath| claims.get(path).is_some_and(|value| !value.is_null());
        if !self.spec.required_claims.iter().all(is_there) {
            return Err(Reason::MissingClaim);
        }
        Ok(expiry)
    }

    fn check_audience(&self, claim: Option<&Value>) -> Result<(), Reason> {
        let named: Vec<&str> = match claim {
            None => Vec::new(),
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(several)) => {
                let texts: Option<Vec<&str>> = several.iter().map(Value::as_str).collect();
                texts.ok_or(Reason::MalformedClaims)?
            }
            Some(_) => return Err(Reason::MalformedClaims),
        };
        match &self.spec.audiences {
            Audiences::Waived => Ok(()),
            Audiences::AnyOf(own) if named.iter().any(|name| own.iter().any(|own| own == name)) => Ok(()),
            Audiences::AnyOf(_) => Err(Reason::WrongAudience),
        }
    }

    fn check_times(&self, members: &Map<String, Value>, now: UnixTime) -> Result<Option<UnixTime>, Reason> {
        // Rounded against the token: down for the end of its life, up for its start.
        let expires = date(members, "exp", f64::floor)?;
        let begins = date(members, "nbf", f64::ceil)?;
        let issued = date(members, "iat", f64::floor)?;
        let leeway = self.spec.leeway.as_secs();
        let (early, late) = (now.0.saturating_sub(leeway), now.0.saturating_add(leeway));
        match expires {
            None if self.spec.expiry == Expiry::Required => return Err(Reason::MissingExpiry),
            Some(expires) if expires <= early => return Err(Reason::Expired),
            _ => {}
        }
        if begins.is_some_and(|begins| begins > late) {
            return Err(Reason::NotYetValid);
        }
        let ends_before_issue = |issued| expires.is_some_and(|expires| expires < issued);
        if issued.is_some_and(|issued| issued > late || ends_before_issue(issued)) {
            return Err(Reason::WrongIssueTime);
        }
        if let (Some(longest), Some(expires)) = (self.spec.max_lifetime, expires)
            && expires.saturating_sub(issued.unwrap_or(now.0)) > longest.as_secs()
        {
            return Err(Reason::LifetimeTooLong);
        }
        Ok(expires.map(UnixTime))
    }
}

fn check_signature(
    keys: &KeySet,
    key_id: Option<&str>,
    algorithm: Algorithm,
    token: &Compact<'_>,
) -> Result<(), Reason> {
    let is_right = |key: &&Key| key.verifies(algorithm, token.signed, &token.signature);
    match keys.candidates(key_id, algorithm) {
        Candidates::Try { keys, .. } if keys.iter().any(is_right) => Ok(()),
        Candidates::Try { is_known: true, .. } => Err(Reason::BadSignature),
        Candidates::Try { is_known: false, .. } | Candidates::UnknownId => Err(Reason::UnknownKey),
        Candidates::OtherAlgorithm => Err(Reason::KeyAlgorithmMismatch),
        Candidates::TooMany => Err(Reason::MissingKeyId),
    }
}

/// A NumericDate in whole seconds. One before 1970 or after the year 285 million is malformed.
pub(crate) fn date(members: &Map<String, Value>, name: &str, round: fn(f64) -> f64) -> Result<Option<u64>, Reason> {
    let Some(value) = members.get(name) else { return Ok(None) };
    let seconds = round(value.as_f64().ok_or(Reason::MalformedClaims)?);
    if !(0.0..MAX_DATE).contains(&seconds) {
        return Err(Reason::MalformedClaims);
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole, and within 0 and 2^53")]
    let seconds = seconds as u64;
    Ok(Some(seconds))
}
