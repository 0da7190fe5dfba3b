//! One identity provider as a policy uses it: its rules, its keys as they are now, and what its tokens tell the backend.

use std::{collections::BTreeSet, sync::Arc};

use arc_swap::ArcSwapOption;
use control_plane_model::{
    self as model, ClaimToHeader, IdentityProvider, KeySource, ListEncoding, ProviderUse, SigningAlgorithm, TokenSource,
};
use gateway_engine::filter::Headers;
use http::{HeaderName, HeaderValue};
use policy_jose::{
    Algorithm, Algorithms, Audiences, BoundVerifier, ClaimPath, Claims, Expiry, HeaderEncoding, InvalidPath,
    InvalidVerifier, KeySet, KeySetError, Reason, TextEncoding, TokenTypes, Verified, Verifier, VerifierSpec,
};

use super::{
    keys::{Keeper, Missed},
    state::State,
};

/// Why a provider cannot be used as it is described.
#[derive(Debug, thiserror::Error)]
pub enum InvalidProvider {
    /// Its rules for tokens.
    #[error(transparent)]
    Rules(#[from] InvalidVerifier),
    /// A path of a claim.
    #[error("claim {claim:?}: {source}")]
    Claim {
        /// As it is written.
        claim: String,
        /// What is wrong with it.
        source: InvalidPath,
    },
    /// Its keys.
    #[error(transparent)]
    Keys(#[from] KeySetError),
}

/// Why a token is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenRefusal {
    /// It is not good.
    Token(Reason),
    /// There are no keys to tell.
    Unavailable,
}

/// A provider and a policy's way with it.
#[derive(Debug)]
pub(super) struct Provider {
    pub(super) issuer: Arc<str>,
    pub(super) source: TokenSource,
    pub(super) forward_token: bool,
    pub(super) required_scopes: Vec<String>,
    claims: Vec<ClaimHeader>,
    verifier: Arc<Verifier>,
    keys: Keys,
    /// The verifier with the keys that it was last used with.
    bound: ArcSwapOption<(Arc<KeySet>, BoundVerifier)>,
}

#[derive(Debug)]
enum Keys {
    Fixed(Arc<KeySet>),
    Fetched(Arc<Keeper>),
}

#[derive(Debug)]
struct ClaimHeader {
    path: ClaimPath,
    header: HeaderName,
    encoding: HeaderEncoding,
}

impl Provider {
    pub(super) fn new(spec: &ProviderUse, state: &State) -> Result<Self, InvalidProvider> {
        let IdentityProvider { issuer, jwt, .. } = &*spec.provider;
        let keys = match &jwt.keys {
            KeySource::Inline(text) => {
                Keys::Fixed(Arc::new(KeySet::parse(text.as_bytes(), algorithms(&jwt.algorithms))?))
            }
            KeySource::Remote(remote) => Keys::Fetched(state.keys.keeper(remote, &jwt.algorithms)),
        };
        Ok(Self {
            issuer: issuer.clone(),
            source: spec.source.clone(),
            forward_token: spec.forward_token && !matches!(spec.source, TokenSource::Query(_)),
            required_scopes: spec.required_scopes.iter().map(ToString::to_string).collect(),
            claims: spec.claims_to_headers.iter().map(ClaimHeader::new).collect::<Result<_, _>>()?,
            verifier: Arc::new(verifier(spec)?),
            keys,
            bound: ArcSwapOption::empty(),
        })
    }

    /// Accepts or refuses a token of this provider. May wait for keys, see [`super::keys`].
    pub(super) async fn verify(&self, token: &str, state: &State) -> Result<Arc<Verified>, TokenRefusal> {
        let keys = match &self.keys {
            Keys::Fixed(keys) => keys.clone(),
            Keys::Fetched(keeper) => state.keys.keys(keeper).await.ok_or(TokenRefusal::Unavailable)?,
        };
        let refusal = match self.check(token, &keys, state) {
            Ok(verified) => return Ok(verified),
            Err(refusal) => refusal,
        };
        let (Reason::UnknownKey, Keys::Fetched(keeper)) = (refusal, &self.keys) else {
            return Err(TokenRefusal::Token(refusal));
        };
        match state.keys.keys_after_miss(keeper, &keys).await {
            Missed::Unavailable => Err(TokenRefusal::Unavailable),
            Missed::Current(same) if Arc::ptr_eq(&same, &keys) => Err(TokenRefusal::Token(refusal)),
            Missed::Current(newer) => self.check(token, &newer, state).map_err(TokenRefusal::Token),
        }
    }

    fn check(&self, token: &str, keys: &Arc<KeySet>, state: &State) -> Result<Arc<Verified>, Reason> {
        let now = state.unix_time();
        let bound = self.bound.load();
        let verified = if let Some(bound) = bound.as_ref().filter(|bound| Arc::ptr_eq(&bound.0, keys)) {
            state.tokens().verify(&bound.1, token, now)
        } else {
            let bound = BoundVerifier::new(self.verifier.clone(), keys.clone());
            let verified = state.tokens().verify(&bound, token, now);
            self.bound.store(Some(Arc::new((keys.clone(), bound))));
            verified
        };
        verified.map(|(verified, _)| verified)
    }

    /// Tells the backend what the token says. A claim that is absent, or that no header can carry, leaves its field out.
    pub(super) fn write_claims(&self, claims: &Claims, headers: &mut Headers<'_>) {
        for claim in &self.claims {
            let value = claims.get(&claim.path).and_then(|value| claim.encoding.write(value).ok());
            if let Some(value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
                // None of them is protected.
                let _ = headers.set(&claim.header, value);
            }
        }
    }
}

impl ClaimHeader {
    fn new(spec: &ClaimToHeader) -> Result<Self, InvalidProvider> {
        let text = match spec.text {
            model::TextEncoding::Plain => TextEncoding::Visible,
            model::TextEncoding::Base64Url => TextEncoding::Base64Url,
        };
        let list = match spec.list {
            ListEncoding::Comma => policy_jose::ListEncoding::Comma,
            ListEncoding::Json => policy_jose::ListEncoding::Json,
        };
        Ok(Self { path: path(&spec.claim)?, header: spec.header.clone(), encoding: HeaderEncoding { text, list } })
    }
}

fn path(text: &str) -> Result<ClaimPath, InvalidProvider> {
    text.parse().map_err(|source| InvalidProvider::Claim { claim: text.to_owned(), source })
}

fn verifier(spec: &ProviderUse) -> Result<Verifier, InvalidProvider> {
    let IdentityProvider { issuer, jwt, .. } = &*spec.provider;
    let texts = |list: &[Arc<str>]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    let audiences = match spec.audiences.as_ref().unwrap_or(&jwt.audiences) {
        model::Audiences::AnyOf(list) => Audiences::AnyOf(texts(list)),
        model::Audiences::Waived => Audiences::Waived,
    };
    let types = if jwt.token_types.is_empty() { TokenTypes::Usual } else { TokenTypes::OneOf(texts(&jwt.token_types)) };
    let spec = VerifierSpec {
        issuers: vec![issuer.to_string()],
        audiences,
        algorithms: algorithms(&jwt.algorithms),
        types,
        expiry: Expiry::Required,
        leeway: jwt.leeway,
        required_claims: jwt.required_claims.iter().map(|text| path(text)).collect::<Result<_, _>>()?,
        max_token_bytes: usize::try_from(jwt.max_token_bytes).unwrap_or(usize::MAX),
        max_lifetime: jwt.max_lifetime,
    };
    Ok(Verifier::try_from(spec)?)
}

/// The same algorithms, as the crate of decisions has them.
pub(super) fn algorithms(list: &BTreeSet<SigningAlgorithm>) -> Algorithms {
    list.iter().filter_map(|algorithm| Algorithm::from_name(algorithm.as_str())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_algorithm_of_the_model_has_its_counterpart() {
        let all: BTreeSet<SigningAlgorithm> = SigningAlgorithm::ALL.into_iter().collect();
        assert_eq!(algorithms(&all), Algorithms::ASYMMETRIC);
    }
}
