//! Policies: what is asked of requests beside where they go.

mod authentication;

pub use authentication::{
    ApiKey, ApiKeys, Audiences, AuthenticationSettings, Basic, ClaimToHeader, HttpsUrl, IdentityProvider, InvalidHash,
    InvalidRemoteKeys, InvalidUrl, JwtRules, KeyLocation, KeySource, ListEncoding, PasswordHash, ProofSettings,
    ProviderUse, RemoteKeys, SigningAlgorithm, TextEncoding, TokenSource,
};
