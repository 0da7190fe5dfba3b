//! Why a token is refused. Closed, so that it can be a metric's label.

/// The first rule that a token breaks. What comes first is cheap, so that forgeries are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Reason {
    /// Longer than the policy allows.
    #[error("the token is too long")]
    TooLarge,
    /// Not three parts of strict base64url (RFC 7515 section 7.1). An encrypted token (JWE) has five.
    #[error("the token is not a JWS in compact form")]
    Malformed,
    /// The header is not a JSON object, or a member that is read has the wrong type.
    #[error("the token's header is malformed")]
    MalformedHeader,
    /// A member name stands twice in one object of the header or the claims.
    #[error("a member stands twice")]
    DuplicateMember,
    /// `alg` is `none` (RFC 8725 section 3.2).
    #[error("the token is not signed")]
    Unsigned,
    /// `alg` is not one of the policy's (RFC 8725 section 3.1).
    #[error("the token's algorithm is not allowed")]
    AlgorithmNotAllowed,
    /// The header has `crit`; no extension is known here (RFC 7515 section 4.1.11).
    #[error("the token needs an extension that is not supported")]
    CriticalExtension,
    /// `typ` is not one of the policy's (RFC 8725 section 3.11).
    #[error("the token's type is not accepted")]
    TypeNotAccepted,
    /// No key has the token's `kid`. The one reason to fetch the key set again. (Where an issuer writes no `kid`, a new
    /// key shows as [`Reason::BadSignature`]: only fetching from time to time finds it.)
    #[error("the token's key is unknown")]
    UnknownKey,
    /// The token has no `kid`, and more keys fit than are tried.
    #[error("the token names no key")]
    MissingKeyId,
    /// The key that the token names is for another algorithm.
    #[error("the token's key is for another algorithm")]
    KeyAlgorithmMismatch,
    /// No key that was tried made the signature.
    #[error("the signature is wrong")]
    BadSignature,
    /// The claims are not a JSON object, or a registered claim has the wrong type (RFC 7519 section 4.1).
    #[error("the token's claims are malformed")]
    MalformedClaims,
    /// `iss` is absent or none of the policy's (RFC 8725 section 3.8).
    #[error("the issuer is wrong")]
    WrongIssuer,
    /// `aud` is absent or names none of the policy's (RFC 8725 section 3.9).
    #[error("the audience is wrong")]
    WrongAudience,
    /// `exp` is absent, and the policy does not waive it.
    #[error("the token has no expiry")]
    MissingExpiry,
    /// `exp` has come.
    #[error("the token has expired")]
    Expired,
    /// `nbf` has not come.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// `iat` is in the future, or after `exp`.
    #[error("the token's time of issue is wrong")]
    WrongIssueTime,
    /// More time between `iat` (or now, where that is absent) and `exp` than the policy allows.
    #[error("the token lives too long")]
    LifetimeTooLong,
    /// A claim that the policy requires is absent or null.
    #[error("a required claim is missing")]
    MissingClaim,
}

impl Reason {
    /// Every reason, for a metric that starts at zero.
    pub const ALL: [Self; 21] = [
        Self::TooLarge,
        Self::Malformed,
        Self::MalformedHeader,
        Self::DuplicateMember,
        Self::Unsigned,
        Self::AlgorithmNotAllowed,
        Self::CriticalExtension,
        Self::TypeNotAccepted,
        Self::UnknownKey,
        Self::MissingKeyId,
        Self::KeyAlgorithmMismatch,
        Self::BadSignature,
        Self::MalformedClaims,
        Self::WrongIssuer,
        Self::WrongAudience,
        Self::MissingExpiry,
        Self::Expired,
        Self::NotYetValid,
        Self::WrongIssueTime,
        Self::LifetimeTooLong,
        Self::MissingClaim,
    ];

    /// A stable name in snake case, for metrics and logs. The message is one for `error_description`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::Malformed => "malformed",
            Self::MalformedHeader => "malformed_header",
            Self::DuplicateMember => "duplicate_member",
            Self::Unsigned => "unsigned",
            Self::AlgorithmNotAllowed => "algorithm_not_allowed",
            Self::CriticalExtension => "critical_extension",
            Self::TypeNotAccepted => "type_not_accepted",
            Self::UnknownKey => "unknown_key",
            Self::MissingKeyId => "missing_key_id",
            Self::KeyAlgorithmMismatch => "key_algorithm_mismatch",
            Self::BadSignature => "bad_signature",
            Self::MalformedClaims => "malformed_claims",
            Self::WrongIssuer => "wrong_issuer",
            Self::WrongAudience => "wrong_audience",
            Self::MissingExpiry => "missing_expiry",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::WrongIssueTime => "wrong_issue_time",
            Self::LifetimeTooLong => "lifetime_too_long",
            Self::MissingClaim => "missing_claim",
        }
    }
}
