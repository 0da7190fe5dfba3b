//! Request validation (RequestValidationPolicy): parameters and body by JSON Schema or an OpenAPI document.
//!
//! Invariants: the bytes that were checked are the bytes that are forwarded; nothing is fetched; an answer holds names and
//! pointers of the request, never its values. A body that takes long to check, for its size or its schema, is checked on a
//! thread of its own, as many at once as the machine has cores, so that it does not hold up the worker's other connections.

use std::{sync::Arc, thread};

use bytes::Bytes;
use control_plane_model::{Inherited as _, Mode, Policy, PolicyKey, Settings as _, ValidationSettings, merged};
use gateway_engine::{
    filter::{BodyProblem, HttpFilter, InvalidPolicy, RequestContext, Stage, Verdict},
    local_reply::{LocalReply, Reason},
};
use http::{HeaderMap, HeaderValue, Method, header};
use policy_schema::{
    Violations,
    problem::{Problem, ProblemError},
    settings::{Cache, Checks, Refusal, body_headers},
};
use tokio::sync::Semaphore;

/// Bodies up to this are checked at once: reading them takes some 0.4 ms at the most (`policies/schema/examples/cost.rs`).
const INLINE_BYTES: usize = 32 << 10;
/// Steps that a schema may take at once.
const INLINE_STEPS: usize = 50_000;
/// Errors that a client is told of.
const ERRORS: usize = 16;

/// What validation keeps while the configuration changes.
#[derive(Debug)]
pub struct State {
    cache: Cache,
    /// Bodies that may be checked on threads of their own at one time.
    threads: Arc<Semaphore>,
}

impl Default for State {
    fn default() -> Self {
        let cores = thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
        Self { cache: Cache::default(), threads: Arc::new(Semaphore::new(cores)) }
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub struct RequestValidation {
    policy: PolicyKey,
    mode: Mode,
    checks: Arc<Checks>,
    threads: Arc<Semaphore>,
}

/// The filter that `levels` ask for, where a RequestValidationPolicy is among them and not every request passes.
///
/// # Errors: [`InvalidPolicy`] for a schema or a document that is none.
pub fn compile(levels: &[Arc<Policy>], state: &State) -> Result<Option<RequestValidation>, InvalidPolicy> {
    let Some(most_specific) = levels.iter().rev().find(|policy| ValidationSettings::of(&policy.spec).is_some()) else {
        return Ok(None);
    };
    let most_specific = &most_specific.key;
    let merged = merged::<ValidationSettings>(levels.iter().map(|policy| &**policy));
    if merged.settings.is_disabled() {
        return Ok(None);
    }
    let checks = Checks::compile(&merged.settings, &state.cache).map_err(|error| {
        let source = merged.sources.iter().find(|(path, _)| error.field.starts_with(path.as_str()));
        let policy = source.map_or(most_specific, |(_, policy)| policy);
        InvalidPolicy { policy: policy.clone(), message: error.to_string() }
    })?;
    let filter = RequestValidation {
        policy: PolicyKey::clone(most_specific),
        mode: merged.settings.mode(),
        checks: Arc::new(checks),
        threads: state.threads.clone(),
    };
    Ok((!filter.checks.is_empty()).then_some(filter))
}

impl RequestValidation {
    async fn check(&self, request: &mut RequestContext<'_>) -> Result<(), Failure> {
        let received = request.received;
        let (method, path, query) = (&received.method, received.uri.path(), received.uri.query());
        let checks = &self.checks;
        let headers = request.header_map();
        checks.head(method, path, query, headers).map_err(|refusal| self.refused(refusal))?;
        let body = checks.body(method, path, headers, request.has_body()).map_err(|refusal| self.refused(refusal))?;
        if !body.needs_bytes() {
            return match checks.max_bytes() {
                Some(most) => Ok(request.limit_body(most)?),
                None => Ok(()),
            };
        }
        if headers
            .get_all(header::CONTENT_ENCODING)
            .iter()
            .any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"))
        {
            return Err(coded().into());
        }
        let kept = body_headers(headers);
        let bytes = request.body(checks.checked_bytes()).await?;
        Ok(self.check_body(method, path, kept, bytes).await?)
    }

    /// Checks a body that has come, on this thread or on one of its own.
    async fn check_body(
        &self,
        method: &Method,
        path: &str,
        headers: HeaderMap,
        bytes: Bytes,
    ) -> Result<(), LocalReply> {
        if bytes.len() <= INLINE_BYTES {
            match check_bytes(&self.checks, method, path, &headers, &bytes, INLINE_STEPS) {
                Err(Refusal::Invalid(violations)) if violations.is_limit() => {}
                checked => return checked.map_err(|refusal| self.refused(refusal)),
            }
        }
        let Ok(permit) = self.threads.clone().acquire_owned().await else { return Err(Reason::Internal.into()) };
        let (checks, method, path) = (self.checks.clone(), method.clone(), path.to_owned());
        let task = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            check_bytes(&checks, &method, &path, &headers, &bytes, usize::MAX)
        });
        // Where the client goes away meanwhile, the thread ends what it has begun: it is bounded by the schema's limits.
        task.await.map_err(|_| LocalReply::from(Reason::Internal))?.map_err(|refusal| self.refused(refusal))
    }

    fn refused(&self, refusal: Refusal) -> LocalReply {
        match refusal {
            Refusal::Invalid(violations) => invalid(&violations, &self.checks),
            Refusal::NoPath => Reason::OperationNotFound.into(),
            Refusal::NoMethod(methods) => {
                let names: Vec<&str> = methods.iter().map(Method::as_str).collect();
                let reply = LocalReply::from(Reason::MethodNotAllowed);
                match HeaderValue::from_str(&names.join(", ")) {
                    Ok(allow) => reply.with_header(header::ALLOW, allow),
                    Err(_) => reply,
                }
            }
        }
    }
}

/// Why a request does not go on.
enum Failure {
    /// The policy refuses it, or reports it.
    Refused(LocalReply),
    /// There is no whole request.
    Gone(LocalReply),
}

impl From<LocalReply> for Failure {
    fn from(reply: LocalReply) -> Self {
        Self::Refused(reply)
    }
}

impl From<BodyProblem> for Failure {
    fn from(problem: BodyProblem) -> Self {
        match problem {
            BodyProblem::Late | BodyProblem::Broken => Self::Gone(problem.into()),
            BodyProblem::TooLarge { .. } | BodyProblem::Memory | BodyProblem::Trailers => Self::Refused(problem.into()),
        }
    }
}

/// One of unknown length may have turned out to be empty.
fn check_bytes(
    checks: &Checks,
    method: &Method,
    path: &str,
    headers: &HeaderMap,
    bytes: &[u8],
    steps: usize,
) -> Result<(), Refusal> {
    let body = checks.body(method, path, headers, !bytes.is_empty())?;
    Ok(body.check(bytes, steps)?)
}

/// RFC 9110 §15.5.16: the answer says which codings would do.
fn coded() -> LocalReply {
    LocalReply::from(Reason::UnsupportedMediaType)
        .with_detail("A body with a Content-Encoding is not accepted here: send it as it is.")
        .with_header(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"))
}

fn invalid(violations: &Violations, checks: &Checks) -> LocalReply {
    let problem = Problem::new(violations, checks.status(), ERRORS);
    let reason = match problem.status {
        415 => Reason::UnsupportedMediaType,
        422 => Reason::RequestUnprocessable,
        _ => Reason::RequestInvalid,
    };
    let mut reply = LocalReply::from(reason).with_member("errors", problem.errors_json());
    if problem.more {
        reply = reply.with_member("more", true.into());
    }
    match problem.errors.first() {
        Some(first) => reply.with_detail(sentence(first)),
        None => reply,
    }
}

/// What people and gRPC clients read.
fn sentence(error: &ProblemError) -> String {
    let name = error.name.as_deref().map(|name| format!(" {name}")).unwrap_or_default();
    let pointer = if error.pointer == "#" { String::new() } else { format!(" at {}", error.pointer) };
    format!("The request does not satisfy the schema: {}{name}{pointer} {}.", error.place, error.detail)
}

impl HttpFilter for RequestValidation {
    fn stage(&self) -> Stage {
        Stage::Validation
    }

    async fn on_request(&self, request: &mut RequestContext<'_>) -> Verdict {
        // On the heap: every request's future would grow by it.
        match Box::pin(self.check(request)).await {
            Ok(()) => Verdict::Continue,
            Err(Failure::Gone(reply)) => Verdict::Reply(reply),
            Err(Failure::Refused(reply)) => request.refuse(&self.policy, self.mode, reply.by(&self.policy)),
        }
    }
}

#[cfg(test)]
mod tests;
