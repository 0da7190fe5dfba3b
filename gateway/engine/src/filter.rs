//! What a filter is: three moments, one stage, and heads it may edit without breaking what the engine owns.
//!
//! The engine is generic over a [`FilterSet`]; a binary brings a closed enum of them. Order is [`Stage`]'s, never the
//! user's. Invariant: through [`Headers`] no filter can touch a field that frames a message, names the host, or is the
//! gateway's own.

use std::{borrow::Cow, fmt, future::Future, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use control_plane_model::{self as model, Mode, PolicyKey};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header, request, response, uri::PathAndQuery};

pub use crate::client_body::{BodyProblem, Buffers, ClientBody};
use crate::{
    local_reply::LocalReply,
    notes::{Decision, Notes},
    router::query_parameter,
    strict::{Scheme, is_protected},
};

/// When a filter acts, among all filters of a request. Earlier variants act first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Cross-origin checks, so that a preflight needs no credentials.
    Cors,
    /// Limits by the client's address, before anything is spent on it.
    SourceRateLimit,
    /// Who the client is.
    Authentication,
    /// A decision asked from another service.
    ExternalAuthorisation,
    /// What the client may do.
    Authorisation,
    /// Limits by identity.
    RateLimit,
    /// The size of the body.
    BodyLimit,
    /// The shape of the body.
    Validation,
    /// Header modifiers.
    Transform,
    /// Answers that send the client elsewhere.
    Redirect,
    /// Copies to other backends.
    Mirror,
    /// Host and path as the backend sees them.
    Rewrite,
    /// Injected delays and errors.
    Fault,
}

/// The request as it was received, in canonical form. It never changes: matching, logs and redirects read it.
#[derive(Clone, Debug)]
pub struct Received {
    /// The method.
    pub method: Method,
    /// The scheme of the connection.
    pub scheme: Scheme,
    /// Lower case, no port, no trailing dot; IPv6 in brackets.
    pub host: Box<str>,
    /// Path and query, origin-form.
    pub uri: Uri,
    /// The listener's port as the Gateway names it.
    pub listener_port: u16,
    /// The client's address.
    pub peer: SocketAddr,
    /// How many bytes of the path the rule's `PathPrefix` matched; `None` for every other kind of match.
    pub matched_prefix: Option<usize>,
}

impl Received {
    /// The value of the first query parameter `name`, decoded.
    pub fn query_parameter(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        query_parameter(self.uri.query()?, name)
    }
}

/// The value of the first cookie `name` (RFC 6265 §4.2.1).
pub fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    let pairs = headers.get_all(header::COOKIE).iter().flat_map(|field| field.as_bytes().split(|byte| *byte == b';'));
    pairs.map(<[u8]>::trim_ascii).find_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

/// What a filter decides.
#[derive(Debug)]
pub enum Verdict {
    /// Go on with the next filter.
    Continue,
    /// Answer from the table of local replies.
    Reply(LocalReply),
    /// Answer with this, as a redirect does.
    Respond(http::Response<Bytes>),
}

/// The moments of a filter. A moment that it does not need keeps its default, which does nothing.
pub trait HttpFilter: Send + Sync {
    /// Its place in the order.
    fn stage(&self) -> Stage;

    /// Once for each request, before a backend is chosen. Only for filters of a rule.
    ///
    /// Must be cancel-safe: the client may go away at any await.
    fn on_request(&self, request: &mut RequestContext<'_>) -> impl Future<Output = Verdict> + Send {
        let _ = request;
        std::future::ready(Verdict::Continue)
    }

    /// For each attempt, once the backend is chosen: the rule's filters, then the backend reference's.
    fn on_attempt(&self, attempt: &mut AttemptHead<'_>) {
        let _ = attempt;
    }

    /// Once for each response of a backend: the backend reference's filters, then the rule's.
    fn on_response(&self, response: &mut ResponseHead<'_>) {
        let _ = response;
    }
}

/// A binary's closed set of filters.
pub trait FilterSet: HttpFilter + Sized + 'static {
    /// What its filters share and keep while the configuration changes: the buckets of limits, for example. There is one
    /// for the process.
    type State: Default + Send + Sync + 'static;

    /// Makes the filter that `spec` describes.
    ///
    /// # Errors: [`InvalidFilter`] where it cannot be honoured; its rule then answers 500 `invalid_filter`.
    fn compile(spec: &model::Filter) -> Result<Self, InvalidFilter>;

    /// Makes the filters that a chain of policies asks for. `levels` are of every kind, of each kind the least specific
    /// first, and none is invalid.
    ///
    /// # Errors: [`InvalidPolicy`] where they cannot be honoured; what they are attached to then answers 500.
    fn compile_policies(levels: &[Arc<model::Policy>], state: &Arc<Self::State>) -> Result<Vec<Self>, InvalidPolicy>;
}

/// Policies that cannot be honoured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct InvalidPolicy {
    /// The policy that is to blame.
    pub policy: PolicyKey,
    /// What is wrong with it.
    pub message: String,
}

/// A filter that cannot be honoured as it is written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidFilter {
    /// It changes a field that frames the message or that the gateway owns.
    #[error("header {0} cannot be changed by a filter")]
    ProtectedHeader(HeaderName),
    /// A path that cannot stand in a request.
    #[error("{0:?} is not a path")]
    Path(String),
    /// A host that cannot stand in a request.
    #[error("{0:?} is not a host name")]
    Host(String),
    /// Not a redirect.
    #[error("{0} is not a redirect status")]
    Status(StatusCode),
}

/// A request before its backend is chosen.
pub struct RequestContext<'a> {
    /// The request as it was received.
    pub received: &'a Received,
    /// The route that takes it, and the rule of the route, as logs name them.
    pub route: &'a Arc<str>,
    /// See [`Self::route`].
    pub rule: &'a Arc<str>,
    /// When it was received: the time since the engine's start, the same clock for every worker.
    pub now: Duration,
    /// What filters leave for those after them, for the response and for the log.
    pub notes: &'a mut Notes,
    headers: &'a mut HeaderMap,
    body: Option<(&'a mut ClientBody, &'a Buffers)>,
}

impl<'a> RequestContext<'a> {
    /// The request `received`, whose fields so far are `headers`, on its way to `rule` of `route`, without a body.
    pub fn new(
        received: &'a Received,
        headers: &'a mut HeaderMap,
        (route, rule): (&'a Arc<str>, &'a Arc<str>),
        now: Duration,
        notes: &'a mut Notes,
    ) -> Self {
        Self { received, route, rule, now, notes, headers, body: None }
    }

    /// The same with `body`, which is held in `buffers` where a filter asks for it.
    #[must_use]
    pub fn with_body(mut self, body: &'a mut ClientBody, buffers: &'a Buffers) -> Self {
        self.body = Some((body, buffers));
        self
    }

    /// Its fields.
    pub fn headers(&mut self) -> Headers<'_> {
        Headers(self.headers)
    }

    /// Its fields, to read.
    pub fn header_map(&self) -> &HeaderMap {
        self.headers
    }

    /// What a policy that would refuse the request with `reply` does: refuses it, or says so and lets it pass.
    pub fn refuse(&mut self, policy: &PolicyKey, mode: Mode, reply: LocalReply) -> Verdict {
        let reported = mode == Mode::Report;
        self.notes.decided(Decision { policy: policy.clone(), reason: reply.reason(), reported });
        if reported { Verdict::Continue } else { Verdict::Reply(reply) }
    }

    /// Whether it has a body: one of unknown length may still turn out to be empty.
    pub fn has_body(&self) -> bool {
        self.body.as_ref().is_some_and(|(body, _)| body.may_have_bytes())
    }

    /// Refuses a body of more than `most` bytes: at once where it announces more, else in the middle of it.
    ///
    /// # Errors: [`BodyProblem::TooLarge`].
    pub fn limit_body(&mut self, most: u64) -> Result<(), BodyProblem> {
        self.body.as_mut().map_or(Ok(()), |(body, _)| body.limit(most))
    }

    /// The whole body, of `limit` bytes at the most, when it has come. These bytes are what the backend gets. They may be
    /// asked for again. A client that waits for `100 Continue` gets it now.
    ///
    /// Not cancel-safe: dropping the future before its end gives the body up, and the request fails.
    ///
    /// # Errors: [`BodyProblem`], for most of which the client gets the local reply that it converts to.
    pub async fn body(&mut self, limit: usize) -> Result<Bytes, BodyProblem> {
        match &mut self.body {
            None => Ok(Bytes::new()),
            // On the heap, as few requests have it and all would grow by it.
            Some((body, buffers)) => Box::pin(body.read(limit, buffers)).await,
        }
    }
}

/// One attempt's head: what this backend will see.
pub struct AttemptHead<'a> {
    /// The request as it was received.
    pub received: &'a Received,
    parts: &'a mut request::Parts,
}

impl<'a> AttemptHead<'a> {
    /// The attempt whose head is `parts`, in origin-form with a `Host` field.
    pub fn new(received: &'a Received, parts: &'a mut request::Parts) -> Self {
        Self { received, parts }
    }

    /// Its fields.
    pub fn headers(&mut self) -> Headers<'_> {
        Headers(&mut self.parts.headers)
    }

    /// Path and query so far.
    pub fn uri(&self) -> &Uri {
        &self.parts.uri
    }

    /// Puts `host` in place of the client's. It was checked when the filter was compiled.
    pub fn set_host(&mut self, host: HeaderValue) {
        self.parts.headers.insert(header::HOST, host);
    }

    /// Puts `path_and_query` in place of the client's.
    pub fn set_path_and_query(&mut self, path_and_query: PathAndQuery) {
        self.parts.uri = Uri::from(path_and_query);
    }
}

/// A backend's response before the client sees it.
pub struct ResponseHead<'a> {
    parts: &'a mut response::Parts,
}

impl<'a> ResponseHead<'a> {
    /// The response whose head is `parts`.
    pub fn new(parts: &'a mut response::Parts) -> Self {
        Self { parts }
    }

    /// Its status.
    pub fn status(&self) -> StatusCode {
        self.parts.status
    }

    /// Its fields.
    pub fn headers(&mut self) -> Headers<'_> {
        Headers(&mut self.parts.headers)
    }
}

/// Fields that a filter may read and, but for the protected ones, change.
pub struct Headers<'a>(&'a mut HeaderMap);

/// A field that no filter may change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("header {0} is protected")]
pub struct Protected(pub HeaderName);

impl Headers<'_> {
    /// All fields.
    pub fn all(&self) -> &HeaderMap {
        self.0
    }

    /// Puts one value in place of all of them.
    ///
    /// # Errors: [`Protected`]; nothing changes then.
    pub fn set(&mut self, name: &HeaderName, value: HeaderValue) -> Result<(), Protected> {
        Self::check(name)?;
        self.0.insert(name.clone(), value);
        Ok(())
    }

    /// Adds a value behind those that are there.
    ///
    /// # Errors: [`Protected`]; nothing changes then.
    pub fn add(&mut self, name: &HeaderName, value: HeaderValue) -> Result<(), Protected> {
        Self::check(name)?;
        self.0.append(name.clone(), value);
        Ok(())
    }

    /// Removes every value.
    ///
    /// # Errors: [`Protected`]; nothing changes then.
    pub fn remove(&mut self, name: &HeaderName) -> Result<(), Protected> {
        Self::check(name)?;
        self.0.remove(name);
        Ok(())
    }

    fn check(name: &HeaderName) -> Result<(), Protected> {
        if is_protected(name) { Err(Protected(name.clone())) } else { Ok(()) }
    }
}

/// Filters of one rule or one backend reference, in the order of their stages.
pub struct Chain<F>(Box<[F]>);

impl<F> Default for Chain<F> {
    fn default() -> Self {
        Self(Box::default())
    }
}

impl<F: FilterSet> Chain<F> {
    /// Compiles `specs`. Filters of one stage keep the user's order.
    ///
    /// # Errors: the first [`InvalidFilter`].
    pub fn compile(specs: &[model::Filter]) -> Result<Self, InvalidFilter> {
        specs.iter().map(F::compile).collect::<Result<Vec<F>, _>>().map(Self::new)
    }

    /// Of `filters`, in the order of their stages.
    pub(crate) fn new(mut filters: Vec<F>) -> Self {
        filters.sort_by_key(HttpFilter::stage);
        Self(filters.into())
    }

    /// Whether it does nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Runs every filter's `on_request` until one answers.
    pub async fn on_request(&self, request: &mut RequestContext<'_>) -> Verdict {
        Self::run_on_request(&self.0, &[], request).await
    }

    /// Runs the filters of both as one chain, until one answers. Of one stage, those of `policies` come first.
    pub(crate) async fn on_request_after(&self, policies: &Self, request: &mut RequestContext<'_>) -> Verdict {
        Self::run_on_request(&policies.0, &self.0, request).await
    }

    async fn run_on_request(mut first: &[F], mut second: &[F], request: &mut RequestContext<'_>) -> Verdict {
        loop {
            let (filter, rest) = match (first.split_first(), second.split_first()) {
                (Some((one, _)), Some((other, rest))) if other.stage() < one.stage() => (other, (first, rest)),
                (Some((one, rest)), _) => (one, (rest, second)),
                (None, Some((other, rest))) => (other, (first, rest)),
                (None, None) => return Verdict::Continue,
            };
            (first, second) = rest;
            match filter.on_request(request).await {
                Verdict::Continue => {}
                answer => return answer,
            }
        }
    }

    /// Runs every filter's `on_attempt`.
    pub fn on_attempt(&self, attempt: &mut AttemptHead<'_>) {
        for filter in &self.0 {
            filter.on_attempt(attempt);
        }
    }

    /// Runs every filter's `on_response`.
    pub fn on_response(&self, response: &mut ResponseHead<'_>) {
        for filter in &self.0 {
            filter.on_response(response);
        }
    }
}

impl<F> fmt::Debug for Chain<F> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Chain({} filters)", self.0.len())
    }
}
