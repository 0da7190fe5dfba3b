//! Tokens that only their owner may use: `cnf` (RFC 7800) with the thumbprint of a key (`jkt`, RFC 9449 section 6.1) or of
//! a client certificate (`x5t#S256`, RFC 8705 section 3.1).
//! Invariant: a token with a `cnf` is never accepted without what it names, not even as a bearer token.

use serde_json::{Map, Value};

use crate::authorization::Scheme;
use crate::base64url;
use crate::claims::Claims;
use crate::key::sha256;
use crate::proof::Proof;

/// What a request shows besides the token.
#[derive(Clone, Copy, Debug)]
pub struct Possession<'a> {
    /// How the token was presented.
    pub scheme: Scheme,
    /// The proof, once it was accepted.
    pub proof: Option<&'a Proof>,
    /// The client's certificate in DER, of the connection that the request came on, and checked by TLS.
    pub certificate: Option<&'a [u8]>,
}

/// Why a token may not be used by whoever sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum BindingReason {
    /// `cnf` is no object, or a thumbprint is not the base64url of 32 bytes.
    #[error("the token's confirmation is malformed")]
    Malformed,
    /// `cnf` has neither `jkt` nor `x5t#S256`.
    #[error("the token's confirmation is not supported")]
    Unsupported,
    /// The scheme is `DPoP` and the token has no `jkt` (RFC 9449 section 7.1).
    #[error("the token is not bound to a key")]
    NotBound,
    /// The token has a `jkt`, and the scheme is `Bearer` or there is no proof (RFC 9449 section 7.2).
    #[error("the token needs a proof of possession")]
    ProofRequired,
    /// The proof is by another key.
    #[error("the proof is by another key")]
    WrongKey,
    /// The token has an `x5t#S256`, and the client has no certificate.
    #[error("the token needs a client certificate")]
    CertificateRequired,
    /// The client's certificate is another one.
    #[error("the client certificate is another one")]
    WrongCertificate,
}

impl BindingReason {
    /// A stable name in snake case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "confirmation_malformed",
            Self::Unsupported => "confirmation_unsupported",
            Self::NotBound => "not_bound",
            Self::ProofRequired => "proof_required",
            Self::WrongKey => "wrong_key",
            Self::CertificateRequired => "certificate_required",
            Self::WrongCertificate => "wrong_certificate",
        }
    }
}

/// Whether the request shows what the token is bound to. To be asked for each request: a cached token too.
///
/// # Errors
/// See [`BindingReason`].
pub fn check_binding(claims: &Claims, possession: Possession<'_>) -> Result<(), BindingReason> {
    let (key, certificate) = match claims.members().get("cnf") {
        None => (None, None),
        Some(confirmation) => {
            let confirmation = confirmation.as_object().ok_or(BindingReason::Malformed)?;
            let bound = (thumbprint(confirmation, "jkt")?, thumbprint(confirmation, "x5t#S256")?);
            if bound == (None, None) {
                return Err(BindingReason::Unsupported);
            }
            bound
        }
    };
    match (key, possession.scheme, possession.proof) {
        (None, Scheme::Bearer, _) => {}
        (None, Scheme::Dpop, _) => return Err(BindingReason::NotBound),
        (Some(key), Scheme::Dpop, Some(proof)) if proof.thumbprint == key => {}
        (Some(_), Scheme::Dpop, Some(_)) => return Err(BindingReason::WrongKey),
        (Some(_), _, _) => return Err(BindingReason::ProofRequired),
    }
    match (certificate, possession.certificate) {
        (None, _) => Ok(()),
        (Some(_), None) => Err(BindingReason::CertificateRequired),
        (Some(expected), Some(der)) if sha256(der) == expected => Ok(()),
        (Some(_), Some(_)) => Err(BindingReason::WrongCertificate),
    }
}

fn thumbprint(confirmation: &Map<String, Value>, name: &str) -> Result<Option<[u8; 32]>, BindingReason> {
    let Some(value) = confirmation.get(name) else { return Ok(None) };
    let bytes = value.as_str().and_then(base64url::decode).and_then(|bytes| bytes.try_into().ok());
    bytes.map(Some).ok_or(BindingReason::Malformed)
}
