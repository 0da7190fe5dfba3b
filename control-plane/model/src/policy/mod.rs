//! Policies: what is asked of requests beside where they go.

mod authentication;

pub use authentication::{
    ApiKey, ApiKeys, Audiences, AuthenticationSettings, ClaimToHeader, HttpsUrl, IdentityProvider, InvalidRemoteKeys,
    InvalidUrl, JwtRules, KeyLocation, KeySource, ListEncoding, ProofSettings, ProviderUse, RemoteKeys,
    SigningAlgorithm, TextEncoding, TokenSource,
};
