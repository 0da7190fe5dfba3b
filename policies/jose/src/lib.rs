//! Signed tokens (JWS, RFC 7515; JWT, RFC 7519) as pure code: which keys an issuer has, whether a token is accepted, what
//! it says, and how that is told to an upstream or a client.
//!
//! Invariant: no IO, no clock and no source of randomness; keys, time and seeds are arguments. An algorithm is bound to a
//! key's type, and a token chooses neither (RFC 8725). What a token says is read only after its signature was checked.
//!
//! Not here: fetching key sets, encrypted tokens (JWE), opaque tokens (introspection), rules over claims.

mod algorithm;
mod authorization;
mod base64url;
mod binding;
mod cache;
mod claims;
mod compact;
mod header_value;
mod json;
mod key;
mod key_set;
mod proof;
mod reason;
mod replay;
mod verifier;

pub use algorithm::{Algorithm, Algorithms};
pub use authorization::{Challenge, Credentials, CredentialsError, InvalidChallenge, Problem, Scheme, credentials};
pub use binding::{BindingReason, Possession, check_binding};
pub use cache::{BoundVerifier, InvalidCache, Lookup, MAX_CACHE_ENTRIES, MAX_CACHE_TIME, TokenCache};
pub use claims::{ClaimPath, Claims, InvalidPath, MAX_PATH_BYTES, MAX_PATH_NAMES};
pub use header_value::{HeaderEncoding, ListEncoding, MAX_HEADER_VALUE_BYTES, TextEncoding, Unwritable};
pub use key::{KeyDefect, MAX_KID_BYTES, MAX_RSA_BITS, MIN_RSA_BITS};
pub use key_set::{KeySet, KeySetError, MAX_CANDIDATES, MAX_KEY_SET_BYTES, MAX_KEYS, SkippedKey};
pub use proof::{
    InvalidProofRules, MAX_PROOF_AGE, MAX_PROOF_BYTES, Proof, ProofReason, ProofRules, ProvenRequest, proof,
};
pub use reason::Reason;
pub use replay::{MAX_REPLAY_ENTRIES, ReplayMemory};
pub use verifier::{
    Audiences, Expiry, InvalidVerifier, MAX_LEEWAY, MAX_LIST, MAX_TOKEN_BYTES, TokenTypes, UnixTime, Verified,
    Verifier, VerifierSpec, claimed_issuer,
};
