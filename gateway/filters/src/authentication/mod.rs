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

use control_plane_model::{
    AuthenticationSettings, Effective, Inherited as _, Mode, Policy, PolicyKey, Settings as _, TokenSource, merged,
};
use gateway_engine::{
    filter::{AttemptHead, Headers, HttpFilter, InvalidPolicy, RequestContext, Stage, Verdict},
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

/// The policies of one chain, ready to be asked. Clones share it.
#[derive(Clone, Debug)]
pub struct Authentication(Arc<Compiled>);

#[derive(Debug)]
struct Compiled {
    /// `None` where it is switched off; what is protected stays protected.
    methods: Option<Methods>,
    owned: OwnedHeaders,
    allow_anonymous: bool,
    mode: Mode,
    /// The most specific policy of the chain.
    policy: PolicyKey,
    state: Arc<State>,
}

/// The filter that `levels` ask for, where an AuthenticationPolicy is among them.
///
/// # Errors: [`InvalidPolicy`] for keys, headers or claims that cannot be honoured.
pub fn compile(levels: &[Arc<Policy>], state: &Arc<State>) -> Result<Option<Authentication>, InvalidPolicy> {
    let is_meant = |policy: &&Arc<Policy>| AuthenticationSettings::of(&policy.spec).is_some();
    let Some(policy) = levels.iter().rev().find(is_meant).map(|policy| &policy.key) else { return Ok(None) };
    let merged = merged::<AuthenticationSettings>(levels.iter().map(|policy| &**policy));
    Authentication::new(policy, &merged, state).map(Some).map_err(|error| {
        let message = error.to_string();
        // `providers.name: …` is from the policy that has it.
        let field = message.split_once(": ").map_or("", |(field, _)| field);
        let policy = merged.sources.get(field).unwrap_or(policy).clone();
        InvalidPolicy { policy, message }
    })
}

impl Authentication {
    /// Does what `merged` says, with what `state` keeps. `policy` is the most specific one of the chain.
    ///
    /// # Errors: [`InvalidAuthentication`].
    fn new(
        policy: &PolicyKey,
        merged: &Effective<AuthenticationSettings>,
        state: &Arc<State>,
    ) -> Result<Self, InvalidAuthentication> {
        let settings = &merged.settings;
        let owned = OwnedHeaders::new(settings.strip_headers.iter().chain(settings.written_headers()))
            .map_err(InvalidAuthentication::ProtectedHeader)?;
        let methods = if settings.is_disabled() { None } else { Some(Methods::new(settings, state)?) };
        let sources = methods.iter().flat_map(|methods| &methods.sources);
        let read = sources.filter_map(|source| match source {
            TokenSource::Header(name) => Some(name),
            _ => None,
        });
        OwnedHeaders::new(read).map_err(InvalidAuthentication::ProtectedHeader)?;
        Ok(Self(Arc::new(Compiled {
            methods,
            owned,
            allow_anonymous: settings.allow_anonymous.unwrap_or(false),
            mode: settings.mode(),
            policy: policy.clone(),
            state: state.clone(),
        })))
    }
}

impl Compiled {
    /// Makes of a request's fields what the backend gets: without what only the gateway may say, and with what the credentials
    /// say. Those that were not accepted, and those that the backend is not to have, are taken out.
    fn tell(&self, methods: &Methods, accepted: Option<&Accepted<'_>>, headers: &mut Headers<'_>) {
        for source in &methods.sources {
            if accepted.and_then(Accepted::forwarded) != Some(source) {
                source::remove(source, methods.schemes, headers);
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

    /// Refuses, or in report mode lets pass without an identity, as if the policy were not there: the backend gets what the
    /// client sent, but for what is protected.
    fn refuse(&self, methods: &Methods, refusal: &Refusal<'_>, request: &mut RequestContext<'_>) -> Verdict {
        self.owned.strip(&mut request.headers());
        request.refuse(&self.policy, self.mode, reply(methods, refusal).by(&self.policy))
    }
}

fn reply(methods: &Methods, refusal: &Refusal<'_>) -> LocalReply {
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
    for challenge in methods.challenges.values(refusal) {
        reply = reply.with_header(header::WWW_AUTHENTICATE, challenge);
    }
    reply
}

/// Path and query for the backend, where a parameter has to go: no token is passed on there, as servers log it.
fn without_tokens(methods: &Methods, uri: &Uri) -> Option<PathAndQuery> {
    let parameters = methods.sources.iter().filter_map(|source| match source {
        TokenSource::Query(name) => Some(&**name),
        _ => None,
    });
    let names: Vec<&str> = parameters.collect();
    if names.is_empty() { None } else { source::without_parameters(uri, &names) }
}

impl HttpFilter for Authentication {
    fn stage(&self) -> Stage {
        Stage::Authentication
    }

    /// Cancel-safe: only a wait for keys is dropped, or for the check of a password.
    async fn on_request(&self, request: &mut RequestContext<'_>) -> Verdict {
        let compiled = &*self.0;
        let Some(methods) = &compiled.methods else {
            compiled.owned.strip(&mut request.headers());
            return Verdict::Continue;
        };
        let received = request.received;
        let shown = Shown {
            method: &received.method,
            scheme: received.scheme,
            uri: &received.uri,
            headers: request.header_map(),
        };
        match methods.decide(shown, &compiled.state).await {
            Ok(Some(accepted)) => {
                request.notes.authenticated(Arc::new(accepted.identity()));
                compiled.tell(methods, Some(&accepted), &mut request.headers());
            }
            Ok(None) if compiled.allow_anonymous => compiled.tell(methods, None, &mut request.headers()),
            Ok(None) => return compiled.refuse(methods, &Refusal::Missing, request),
            Err(refusal) => return compiled.refuse(methods, &refusal, request),
        }
        Verdict::Continue
    }

    fn on_attempt(&self, attempt: &mut AttemptHead<'_>) {
        let target = self.0.methods.as_ref().and_then(|methods| without_tokens(methods, attempt.uri()));
        if let Some(target) = target {
            attempt.set_path_and_query(target);
        }
    }
}
