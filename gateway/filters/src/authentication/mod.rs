//! Authentication: who sends a request, told to later stages and to the backend, or a refusal that says what to bring.
//!
//! Invariants: what clients send in a field that a policy owns never reaches the backend, also where the policy lets them in
//! without credentials, only reports, or is switched off. Where nobody can tell who a client is, it is refused (503), never let in.

mod api_key;
mod decision;
mod keys;
mod owned;
mod password;
mod provider;
mod refusal;
mod source;
mod state;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use control_plane_model::policy::{AuthenticationSettings, TokenSource};
use gateway_engine::{
    filter::{AttemptHead, Headers, HttpFilter, RequestContext, Stage, Verdict},
    local_reply::{LocalReply, Reason},
};
use http::{HeaderName, HeaderValue, Uri, header, uri::PathAndQuery};

pub use self::{
    api_key::InvalidApiKeys, decision::InvalidMethods, keys::KeySetState, provider::InvalidProvider, state::State,
};
use self::{
    decision::{Accepted, Methods, Shown},
    owned::OwnedHeaders,
    refusal::Refusal,
};

/// When a client may try again that nobody could check, in seconds.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("5");

/// Why a policy cannot be honoured.
#[derive(Debug, thiserror::Error)]
pub enum InvalidAuthentication {
    /// What it takes.
    #[error(transparent)]
    Methods(#[from] InvalidMethods),
    /// It owns, or takes credentials from, a field that no filter may change.
    #[error("header {0} cannot be changed by a filter")]
    ProtectedHeader(HeaderName),
}

/// The policies of one chain, ready to be asked.
#[derive(Debug)]
pub struct Authentication {
    methods: Methods,
    owned: OwnedHeaders,
    allow_anonymous: bool,
    state: Arc<State>,
}

impl Authentication {
    /// Does what `settings` say, with what `state` keeps.
    ///
    /// # Errors: [`InvalidAuthentication`].
    pub fn new(settings: &AuthenticationSettings, state: &Arc<State>) -> Result<Self, InvalidAuthentication> {
        let methods = Methods::new(settings, state)?;
        let claims = methods.providers.iter().flat_map(provider::Provider::headers);
        let clients = methods.api_keys.iter().filter_map(|list| list.client_header.as_ref());
        let users = methods.users.iter().filter_map(|users| users.user_header.as_ref());
        let owned = OwnedHeaders::new(settings.strip_headers.iter().chain(claims).chain(clients).chain(users))
            .map_err(InvalidAuthentication::ProtectedHeader)?;
        let read = methods.sources.iter().filter_map(|source| match source {
            TokenSource::Header(name) => Some(name),
            _ => None,
        });
        OwnedHeaders::new(read).map_err(InvalidAuthentication::ProtectedHeader)?;
        let allow_anonymous = settings.allow_anonymous.unwrap_or(false);
        Ok(Self { methods, owned, allow_anonymous, state: state.clone() })
    }

    /// Makes of a request's fields what the backend gets: without what only the gateway may say, and with what the token says.
    /// Credentials that were not accepted, and those that the backend is not to have, are taken out.
    fn tell(&self, accepted: Option<&Accepted<'_>>, headers: &mut Headers<'_>) {
        for source in &self.methods.sources {
            if accepted.and_then(Accepted::forwarded) != Some(source) {
                source::remove(source, self.methods.schemes, headers);
            }
        }
        if headers.all().get(header::AUTHORIZATION).is_none() {
            // A proof is of no use without its token.
            let _ = headers.remove(&decision::DPOP);
        }
        self.owned.strip(headers);
        if let Some(accepted) = accepted {
            accepted.write(headers);
        }
    }

    fn reply(&self, refusal: &Refusal<'_>) -> LocalReply {
        let reason = match refusal {
            Refusal::Missing => Reason::CredentialsMissing,
            Refusal::Unreadable(_) => Reason::CredentialsMalformed,
            Refusal::UnknownKey
            | Refusal::WrongPassword
            | Refusal::Token(..)
            | Refusal::Proof(_)
            | Refusal::NotPossessed(..) => Reason::CredentialsRefused,
            Refusal::InsufficientScope(..) => Reason::InsufficientScope,
            Refusal::Unavailable => Reason::IdentityProviderUnavailable,
            Refusal::Busy => Reason::AuthenticationBusy,
        };
        let mut reply = LocalReply::from(reason).with_detail(refusal.detail());
        if matches!(refusal, Refusal::Unavailable | Refusal::Busy) {
            reply = reply.with_header(header::RETRY_AFTER, RETRY_AFTER);
        }
        for challenge in self.methods.challenges.values(refusal) {
            reply = reply.with_header(header::WWW_AUTHENTICATE, challenge);
        }
        reply
    }

    /// Path and query for the backend, where a parameter has to go: no token is passed on there, as servers log it.
    fn without_tokens(&self, uri: &Uri) -> Option<PathAndQuery> {
        let parameters = self.methods.sources.iter().filter_map(|source| match source {
            TokenSource::Query(name) => Some(&**name),
            _ => None,
        });
        let names: Vec<&str> = parameters.collect();
        if names.is_empty() { None } else { source::without_parameters(uri, &names) }
    }
}

impl HttpFilter for Authentication {
    fn stage(&self) -> Stage {
        Stage::Authentication
    }

    /// Cancel-safe: only a wait for keys is dropped.
    async fn on_request(&self, request: &mut RequestContext<'_>) -> Verdict {
        let received = request.received;
        let headers = request.headers();
        let shown =
            Shown { method: &received.method, scheme: received.scheme, uri: &received.uri, headers: headers.all() };
        match self.methods.decide(shown, &self.state).await {
            Ok(Some(accepted)) => self.tell(Some(&accepted), &mut request.headers()),
            Ok(None) if self.allow_anonymous => self.tell(None, &mut request.headers()),
            Ok(None) => return Verdict::Reply(self.reply(&Refusal::Missing)),
            Err(refusal) => return Verdict::Reply(self.reply(&refusal)),
        }
        Verdict::Continue
    }

    fn on_attempt(&self, attempt: &mut AttemptHead<'_>) {
        if let Some(target) = self.without_tokens(attempt.uri()) {
            attempt.set_path_and_query(target);
        }
    }
}
