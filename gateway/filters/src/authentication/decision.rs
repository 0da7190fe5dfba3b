//! Who sends a request: credentials found, token checked, possession shown, scopes looked at.
//!
//! Invariants: a request with credentials is never taken for one without; of several places the first that has credentials
//! decides alone. What a token says chooses among the policy's providers and nothing else.

use std::sync::Arc;

use control_plane_model::{AuthenticationSettings, ProofSettings, TokenSource};
use gateway_engine::{filter::Headers, notes::Identity, strict};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};
use policy_jose::{
    Algorithms, BindingReason, InvalidChallenge, InvalidProofRules, Possession, Proof, ProofReason, ProofRules,
    ProvenRequest, Reason, Scheme, Verified, check_binding, claimed_issuer, proof,
};

use serde_json::Value;

use super::{
    api_key::{ApiKeys, InvalidApiKeys},
    password::{Checked, Login, Users},
    provider::{InvalidProvider, Provider, TokenRefusal},
    refusal::{Challenges, Refusal},
    source::{self, Presented, Schemes},
    state::State,
};

pub(super) const DPOP: HeaderName = HeaderName::from_static("dpop");

/// What a request shows.
#[derive(Clone, Copy)]
pub(super) struct Shown<'a> {
    pub(super) method: &'a Method,
    pub(super) scheme: strict::Scheme,
    pub(super) uri: &'a Uri,
    pub(super) headers: &'a HeaderMap,
}

/// A client that is known, and by what.
#[derive(Debug)]
pub(super) enum Accepted<'a> {
    /// A provider's token.
    Token(&'a Provider, Arc<Verified>),
    /// A key of a list, with whose it is.
    Key(&'a ApiKeys, &'a Arc<str>),
    /// A user with a password.
    User(&'a Users, &'a Arc<str>),
}

impl Accepted<'_> {
    /// What later stages are told.
    pub(super) fn identity(&self) -> Identity {
        match self {
            Self::Token(provider, verified) => Identity {
                issuer: provider.issuer.clone(),
                subject: verified.claims.subject().unwrap_or_default().into(),
                claims: verified.claims.shared(),
            },
            Self::Key(list, client) => named(list.name.clone(), client),
            Self::User(_, name) => named("basic".into(), name),
        }
    }

    /// Where its credentials are, if the backend may have them.
    pub(super) fn forwarded(&self) -> Option<&TokenSource> {
        match self {
            Self::Token(provider, _) => provider.forward_token.then_some(&provider.source),
            Self::Key(list, _) => list.forward_key.then_some(&list.source),
            Self::User(users, _) => users.forward_password.then_some(&TokenSource::Authorization),
        }
    }

    /// Tells the backend who it is.
    pub(super) fn write(&self, headers: &mut Headers<'_>) {
        let (header, name) = match self {
            Self::Token(provider, verified) => return provider.write_claims(&verified.claims, headers),
            Self::Key(list, client) => (&list.client_header, client),
            Self::User(users, name) => (&users.user_header, name),
        };
        if let (Some(header), Ok(value)) = (header, HeaderValue::from_str(name)) {
            // It is not protected.
            let _ = headers.set(header, value);
        }
    }
}

/// An identity of which no more than a name is known.
fn named(issuer: Arc<str>, subject: &Arc<str>) -> Identity {
    let claims = [("sub".to_owned(), Value::from(&**subject))].into_iter().collect();
    Identity { issuer, subject: subject.clone(), claims: Arc::new(claims) }
}

/// The credentials that a policy takes.
#[derive(Debug)]
pub(super) struct Methods {
    pub(super) providers: Vec<Provider>,
    pub(super) api_keys: Vec<ApiKeys>,
    pub(super) users: Option<Users>,
    pub(super) schemes: Schemes,
    /// Each once: `Authorization` first, those of API keys last.
    pub(super) sources: Vec<TokenSource>,
    pub(super) challenges: Challenges,
    needs_proof: bool,
    proofs: ProofRules,
}

/// Why a policy cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InvalidMethods {
    /// A provider.
    #[error("providers.{name}: {source}")]
    Provider {
        /// Its name in the policy.
        name: Arc<str>,
        /// What is wrong with it.
        source: InvalidProvider,
    },
    /// A list of API keys.
    #[error("apiKeys.{name}: {source}")]
    ApiKeys {
        /// Its name in the policy.
        name: Arc<str>,
        /// What is wrong with it.
        source: InvalidApiKeys,
    },
    /// A list of API keys in the place of something else.
    #[error("apiKeys.{0}: another list or a provider takes its credentials from the same place")]
    SharedSource(Arc<str>),
    /// The realm.
    #[error("realm: {0}")]
    Realm(#[from] InvalidChallenge),
    /// The rules for proofs.
    #[error("proofs: {0}")]
    Proofs(#[from] InvalidProofRules),
}

impl Methods {
    pub(super) fn new(settings: &AuthenticationSettings, state: &State) -> Result<Self, InvalidMethods> {
        let mut providers = Vec::new();
        for (name, spec) in &settings.providers {
            let provider = Provider::new(spec, state);
            providers.push(provider.map_err(|source| InvalidMethods::Provider { name: name.clone(), source })?);
        }
        let mut sources: Vec<TokenSource> = Vec::new();
        for provider in &providers {
            if !sources.contains(&provider.source) {
                sources.push(provider.source.clone());
            }
        }
        let schemes =
            Schemes { tokens: sources.contains(&TokenSource::Authorization), basic: settings.basic.is_some() };
        if schemes.basic && !schemes.tokens {
            sources.push(TokenSource::Authorization);
        }
        sources.sort_by_key(|source| *source != TokenSource::Authorization);
        let mut api_keys = Vec::new();
        for (name, spec) in &settings.api_keys {
            let list = ApiKeys::new(name, spec);
            let list = list.map_err(|source| InvalidMethods::ApiKeys { name: name.clone(), source })?;
            if sources.contains(&list.source) {
                return Err(InvalidMethods::SharedSource(name.clone()));
            }
            sources.push(list.source.clone());
            api_keys.push(list);
        }
        let rules = settings.proofs.unwrap_or(ProofSettings::DEFAULT);
        let proofs = ProofRules::new(Algorithms::ASYMMETRIC, rules.max_age, PROOF_LEEWAY)?;
        let takes_tokens = !providers.is_empty();
        let challenges = Challenges::new(
            settings.realm.as_deref(),
            Algorithms::ASYMMETRIC,
            takes_tokens && !rules.required,
            takes_tokens && settings.proofs.is_some(),
            schemes.basic,
        )?;
        let users = settings.basic.as_ref().map(Users::new);
        Ok(Self { providers, api_keys, users, schemes, sources, challenges, needs_proof: rules.required, proofs })
    }

    /// Who sends the request; `None` where it has no credentials. May wait for keys, see [`super::keys`]. Cancel-safe.
    pub(super) async fn decide<'a>(
        &'a self,
        shown: Shown<'_>,
        state: &State,
    ) -> Result<Option<Accepted<'a>>, Refusal<'a>> {
        let Some((source, presented)) = self.presented(shown)? else { return Ok(None) };
        let (scheme, token) = match presented {
            Presented::Token(scheme, token) => (scheme, token),
            Presented::Login(login) => return self.login(login, state).await.map(Some),
        };
        match self.api_keys.iter().find(|list| list.source == *source) {
            Some(list) => match list.client(&token) {
                Some(client) => Ok(Some(Accepted::Key(list, client))),
                None => Err(Refusal::UnknownKey),
            },
            None => self.token(source, (scheme, &token), shown, state).await.map(Some),
        }
    }

    async fn login<'a>(&'a self, login: Login, state: &State) -> Result<Accepted<'a>, Refusal<'a>> {
        let users = self.users.as_ref().ok_or(Refusal::WrongPassword)?;
        match users.check(login, state.passwords(), state.unix_time()).await {
            (Checked::Right, Some(name)) => Ok(Accepted::User(users, name)),
            (Checked::Busy, _) => Err(Refusal::Busy),
            _ => Err(Refusal::WrongPassword),
        }
    }

    /// Whose token it is, if whoever sent it may use it.
    async fn token<'a>(
        &'a self,
        source: &TokenSource,
        (scheme, token): (Scheme, &str),
        shown: Shown<'_>,
        state: &State,
    ) -> Result<Accepted<'a>, Refusal<'a>> {
        let (provider, verified) = self.verify(source, (scheme, token), state).await?;
        let proof = match scheme {
            Scheme::Bearer if self.needs_proof => {
                return Err(Refusal::NotPossessed(scheme, BindingReason::ProofRequired));
            }
            Scheme::Bearer => None,
            Scheme::Dpop => Some(self.check_proof(shown, token, state).map_err(Refusal::Proof)?),
        };
        let possession = Possession { scheme, proof: proof.as_ref(), certificate: None };
        check_binding(&verified.claims, possession).map_err(|reason| Refusal::NotPossessed(scheme, reason))?;
        // Only now: a proof for a token that is refused anyway does not use up room.
        if proof.is_some_and(|proof| !state.proofs().is_first(&proof, state.unix_time())) {
            return Err(Refusal::Proof(ProofReason::Replayed));
        }
        let required = &provider.required_scopes;
        if !verified.claims.has_scopes(required.iter().map(String::as_str)) {
            return Err(Refusal::InsufficientScope(scheme, required));
        }
        Ok(Accepted::Token(provider, verified))
    }

    /// The credentials at the first source that has any.
    fn presented<'a>(&self, shown: Shown<'a>) -> Result<Option<(&TokenSource, Presented<'a>)>, Refusal<'static>> {
        for source in &self.sources {
            let found = source::find(source, self.schemes, shown.headers, shown.uri).map_err(Refusal::Unreadable)?;
            if let Some(presented) = found {
                return Ok(Some((source, presented)));
            }
        }
        Ok(None)
    }

    /// Checks the token with the providers whose tokens are at `source`; where there are several, with those of its issuer.
    async fn verify<'a>(
        &'a self,
        source: &TokenSource,
        (scheme, token): (Scheme, &str),
        state: &State,
    ) -> Result<(&'a Provider, Arc<Verified>), Refusal<'a>> {
        let refused = |reason| Refusal::Token(scheme, reason);
        let mut candidates: Vec<&Provider> =
            self.providers.iter().filter(|provider| provider.source == *source).collect();
        if candidates.len() > 1 {
            let issuer = claimed_issuer(token).map_err(refused)?;
            candidates.retain(|provider| *provider.issuer == *issuer);
        }
        let mut refusal = None;
        for provider in candidates {
            match provider.verify(token, state).await {
                Ok(verified) => return Ok((provider, verified)),
                // Another one may take it; what nobody can tell outweighs what one of them says.
                Err(TokenRefusal::Unavailable) => refusal = Some(Refusal::Unavailable),
                Err(TokenRefusal::Token(reason)) => refusal = refusal.or(Some(refused(reason))),
            }
        }
        Err(refusal.unwrap_or(refused(Reason::WrongIssuer)))
    }

    fn check_proof(&self, shown: Shown<'_>, token: &str, state: &State) -> Result<Proof, ProofReason> {
        let proof = proof(shown.headers.get_all(DPOP).into_iter().map(HeaderValue::as_bytes))?;
        // A request without a host has been refused long before.
        let host = shown.headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        let target = format!("{}://{host}{}", shown.scheme.as_str(), shown.uri.path());
        let request = ProvenRequest { method: shown.method.as_str(), target: &target, token, nonces: &[] };
        self.proofs.check(proof, request, state.unix_time())
    }
}

/// By how much a client's clock may be ahead.
const PROOF_LEEWAY: std::time::Duration = std::time::Duration::from_secs(30);
