//! Proof of possession (DPoP, RFC 9449 section 4.3). The proof brings its key along; what makes the key worth anything is
//! the token that names its thumbprint ([`crate::check_binding`]).
//! Does not remember proofs: a caller that wants each to serve once (section 11.1) asks [`crate::ReplayMemory`].

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::Value;

use crate::algorithm::{Algorithm, Algorithms};
use crate::base64url;
use crate::compact::Compact;
use crate::key::{Key, Material, sha256};
use crate::reason::Reason;
use crate::verifier::{UnixTime, date};

/// Longest proof that is read, in bytes.
pub const MAX_PROOF_BYTES: usize = 8 * 1024;
/// Largest age that rules may allow.
pub const MAX_PROOF_AGE: Duration = Duration::from_mins(5);

/// What a proof must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProofRules {
    algorithms: Algorithms,
    max_age: u64,
    leeway: u64,
}

/// Why rules are not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidProofRules {
    /// None, or HMAC among them: a proof is by a key that nobody else has.
    #[error("a proof needs asymmetric algorithms")]
    Algorithms,
    /// Less than a second or more than [`MAX_PROOF_AGE`], of the age or the leeway.
    #[error("a proof is of at most {} seconds", MAX_PROOF_AGE.as_secs())]
    Age,
}

/// The request that a proof is for.
#[derive(Clone, Copy, Debug)]
pub struct ProvenRequest<'a> {
    /// Compared exactly.
    pub method: &'a str,
    /// The URL as the client knows it: scheme, authority and path. Query and fragment do not count.
    pub target: &'a str,
    /// The access token as it stands after `DPoP`.
    pub token: &'a str,
    /// Nonces that are accepted now (section 9). Empty: none is asked for.
    pub nonces: &'a [&'a str],
}

/// A proof that was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proof {
    /// SHA-256 thumbprint of its key (RFC 7638).
    pub thumbprint: [u8; 32],
    /// SHA-256 over the thumbprint and `jti`: the same for the same proof only.
    pub id: [u8; 32],
    /// From then on it is refused as stale.
    pub until: UnixTime,
}

/// Why a proof is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ProofReason {
    /// No header `DPoP`.
    #[error("the request has no proof")]
    Missing,
    /// More than one (check 1 of section 4.3).
    #[error("the request has more than one proof")]
    Several,
    /// Not a JWS of at most [`MAX_PROOF_BYTES`], a member twice, or an extension that must be understood.
    #[error("the proof is malformed")]
    Malformed,
    /// `typ` is not `dpop+jwt`.
    #[error("the proof's type is wrong")]
    WrongType,
    /// `alg` is none of the rules'.
    #[error("the proof's algorithm is not allowed")]
    AlgorithmNotAllowed,
    /// `jwk` is absent, malformed, too weak, private, or not for the algorithm.
    #[error("the proof's key cannot be used")]
    UnusableKey,
    /// The key did not make the signature.
    #[error("the proof's signature is wrong")]
    BadSignature,
    /// `jti`, `htm`, `htu`, `iat` or `ath` is absent or has the wrong type.
    #[error("the proof's claims are malformed")]
    MalformedClaims,
    /// `htm` is another method.
    #[error("the proof is for another method")]
    WrongMethod,
    /// `htu` is another URL.
    #[error("the proof is for another URL")]
    WrongTarget,
    /// `iat` is too long ago or in the future.
    #[error("the proof is not of now")]
    Stale,
    /// `ath` is not the hash of the token.
    #[error("the proof is for another token")]
    WrongToken,
    /// `nonce` is absent or none of those accepted. The answer brings one along in `DPoP-Nonce`.
    #[error("the proof lacks the nonce")]
    WrongNonce,
    /// It served before ([`crate::ReplayMemory`]).
    #[error("the proof was used before")]
    Replayed,
}

impl ProofReason {
    /// A stable name in snake case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Several => "several",
            Self::Malformed => "malformed",
            Self::WrongType => "wrong_type",
            Self::AlgorithmNotAllowed => "algorithm_not_allowed",
            Self::UnusableKey => "unusable_key",
            Self::BadSignature => "bad_signature",
            Self::MalformedClaims => "malformed_claims",
            Self::WrongMethod => "wrong_method",
            Self::WrongTarget => "wrong_target",
            Self::Stale => "stale",
            Self::WrongToken => "wrong_token",
            Self::WrongNonce => "wrong_nonce",
            Self::Replayed => "replayed",
        }
    }
}

/// The proof among the values of a request's `DPoP` headers.
///
/// # Errors
/// [`ProofReason::Missing`], [`ProofReason::Several`], [`ProofReason::Malformed`].
pub fn proof<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> Result<&'a str, ProofReason> {
    let mut values = values.into_iter();
    let value = values.next().ok_or(ProofReason::Missing)?;
    if values.next().is_some() {
        return Err(ProofReason::Several);
    }
    std::str::from_utf8(value.trim_ascii()).map_err(|_| ProofReason::Malformed)
}

impl ProofRules {
    /// A proof is taken until `max_age` after its `iat`, and from `leeway` before it; whole seconds count.
    ///
    /// # Errors
    /// See [`InvalidProofRules`].
    pub fn new(algorithms: Algorithms, max_age: Duration, leeway: Duration) -> Result<Self, InvalidProofRules> {
        if algorithms.is_empty() || algorithms.intersection(Algorithms::ASYMMETRIC) != algorithms {
            return Err(InvalidProofRules::Algorithms);
        }
        if max_age.as_secs() == 0 || max_age > MAX_PROOF_AGE || leeway > MAX_PROOF_AGE {
            return Err(InvalidProofRules::Age);
        }
        Ok(Self { algorithms, max_age: max_age.as_secs(), leeway: leeway.as_secs() })
    }

    /// Accepts or refuses a proof. Costs the parsing of a key and one check of a signature; nothing of it can be cached,
    /// because each request has its own.
    ///
    /// # Errors
    /// The first rule that the proof breaks.
    pub fn check(&self, proof: &str, request: ProvenRequest<'_>, now: UnixTime) -> Result<Proof, ProofReason> {
        let proof = Compact::parse(proof, MAX_PROOF_BYTES).map_err(|_| ProofReason::Malformed)?;
        let thumbprint = self.check_signature(&proof)?;
        let claims = proof.claims().map_err(|reason| match reason {
            Reason::MalformedClaims => ProofReason::MalformedClaims,
            _ => ProofReason::Malformed,
        })?;
        let text = |name: &str| claims.get(name).and_then(Value::as_str).ok_or(ProofReason::MalformedClaims);
        if text("htm")? != request.method {
            return Err(ProofReason::WrongMethod);
        }
        let target = normal_target(text("htu")?);
        if target.is_none() || target != normal_target(request.target) {
            return Err(ProofReason::WrongTarget);
        }
        let issued = date(&claims, "iat", f64::floor).map_err(|_| ProofReason::MalformedClaims)?;
        let issued = issued.ok_or(ProofReason::MalformedClaims)?;
        let until = issued.saturating_add(self.max_age);
        if until <= now.0 || issued > now.0.saturating_add(self.leeway) {
            return Err(ProofReason::Stale);
        }
        if text("ath")? != base64url::encode(&sha256(request.token.as_bytes())) {
            return Err(ProofReason::WrongToken);
        }
        let nonce = claims.get("nonce").and_then(Value::as_str);
        if !request.nonces.is_empty() && !nonce.is_some_and(|nonce| request.nonces.contains(&nonce)) {
            return Err(ProofReason::WrongNonce);
        }
        let id = sha256(&[&thumbprint, text("jti")?.as_bytes()].concat());
        Ok(Proof { thumbprint, id, until: UnixTime(until) })
    }

    /// The thumbprint of the key that signed.
    fn check_signature(&self, proof: &Compact<'_>) -> Result<[u8; 32], ProofReason> {
        let text = |name| proof.text(name).map_err(|_| ProofReason::Malformed);
        if proof.kind().map_err(|_| ProofReason::Malformed)?.as_deref() != Some("dpop+jwt") {
            return Err(ProofReason::WrongType);
        }
        let algorithm = text("alg")?.and_then(Algorithm::from_name);
        let algorithm = algorithm.filter(|algorithm| self.algorithms.contains(*algorithm));
        let algorithm = algorithm.ok_or(ProofReason::AlgorithmNotAllowed)?;
        if proof.header.contains_key("crit") {
            return Err(ProofReason::Malformed);
        }
        let jwk = proof.header.get("jwk").and_then(Value::as_object).ok_or(ProofReason::UnusableKey)?;
        let material = Material::from_jwk(jwk).map_err(|_| ProofReason::UnusableKey)?;
        let only = [algorithm].into_iter().collect();
        let key = Key::new(None, &material, only).map_err(|_| ProofReason::UnusableKey)?;
        if key.verifies(algorithm, proof.signed, &proof.signature) {
            Ok(material.thumbprint())
        } else {
            Err(ProofReason::BadSignature)
        }
    }
}

/// A URL without query and fragment, in the normal form of RFC 3986 sections 6.2.2 and 6.2.3. Dot segments stay as they
/// are: a gateway has resolved its own, and one in a proof then differs. `None` where it is not `http` or `https`.
fn normal_target(url: &str) -> Option<String> {
    let url = url.split(['?', '#']).next()?;
    let (scheme, rest) = url.split_once("://")?;
    let scheme = scheme.to_ascii_lowercase();
    let default_port = match scheme.as_str() {
        "https" => ":443",
        "http" => ":80",
        _ => return None,
    };
    let (authority, path) = rest.split_at_checked(rest.find('/').unwrap_or(rest.len()))?;
    let authority = authority.to_ascii_lowercase();
    let authority = authority.strip_suffix(default_port).or(authority.strip_suffix(':')).unwrap_or(&authority);
    if authority.is_empty() || authority.contains('@') {
        return None;
    }
    let path = if path.is_empty() { "/".to_owned() } else { normal_path(path) };
    Some(format!("{scheme}://{authority}{path}"))
}

/// Percent-encoded characters that need not be are written plain, the others with upper-case digits.
fn normal_path(path: &str) -> String {
    let mut pieces = path.split('%');
    let mut output = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let digits = piece.get(..2).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let code = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match (code, piece.get(2..)) {
            (Some(code), Some(rest)) if code.is_ascii_alphanumeric() || b"-._~".contains(&code) => {
                output.push(char::from(code));
                output.push_str(rest);
            }
            (Some(code), Some(rest)) => {
                // Writing to a String cannot fail.
                let _ = write!(output, "%{code:02X}");
                output.push_str(rest);
            }
            _ => {
                output.push('%');
                output.push_str(piece);
            }
        }
    }
    output
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_has_one_form() {
        for (url, form) in [
            ("https://API.example:443/a?b#c", Some("https://api.example/a")),
            ("HTTP://a:80", Some("http://a/")),
            ("http://a:443/", Some("http://a:443/")),
            ("https://[::1]:8443/%7euser%2fb%", Some("https://[::1]:8443/~user%2Fb%")),
            ("https://a/%é", Some("https://a/%é")),
            ("https://user@a/", None),
            ("ftp://a/", None),
            ("https:///a", None),
            ("/a", None),
        ] {
            assert_eq!(normal_target(url).as_deref(), form, "{url}");
        }
    }
}
