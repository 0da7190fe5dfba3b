//! Answers that the engine gives by itself: one table from reason to status, and one way to write them for whoever asks.
//!
//! Invariant: every local reply carries `x-request-id` and `x-nebula-reason`, and none may be cached.

mod reason;

use std::{borrow::Cow, time::Duration};

use bytes::Bytes;
use control_plane_model::{FallbackResponse, PolicyKey};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Version, header};
pub use reason::{Connection, GrpcStatus, Reason};

use crate::strict::X_REQUEST_ID;

/// The page that explains every reason; the reason's word is the anchor.
pub const ERRORS_PAGE: &str = "https://nebula.dev/docs/errors";
/// The field that carries a reason's word.
pub const X_NEBULA_REASON: HeaderName = HeaderName::from_static("x-nebula-reason");

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// An answer of the engine's own.
#[derive(Clone, Debug)]
pub struct LocalReply {
    reason: Reason,
    detail: Option<Cow<'static, str>>,
    /// Boxed, as few replies have any.
    headers: Option<Box<HeaderMap>>,
    /// Members of the problem document beside its own.
    members: Option<Box<serde_json::Map<String, serde_json::Value>>>,
    /// The policy because of which; boxed for the same reason.
    policy: Option<Box<PolicyKey>>,
    /// Boxed for the same reason.
    response: Option<Box<FallbackResponse>>,
}

/// What the form of a reply depends on.
#[derive(Clone, Debug)]
pub struct ReplyContext {
    /// How the body is written.
    pub form: Form,
    /// Of the request.
    pub request_id: HeaderValue,
    /// A HEAD request's reply has no body.
    pub head_only: bool,
    /// Of the request: HTTP/1 is told when the connection closes.
    pub version: Version,
}

/// How a reply is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `application/problem+json` (RFC 9457).
    Problem,
    /// A page for people.
    Html,
    /// HTTP 200 with `grpc-status` and no body ("Trailers-Only").
    Grpc,
    /// The same for a gRPC-Web client. Its request is plain HTTP, over any version, to backends that speak gRPC-Web themselves.
    GrpcWeb,
}

impl Form {
    /// What the client prefers: gRPC for a gRPC request, HTML when `Accept` names it with a higher weight than JSON
    /// (as browsers do), else a problem document.
    pub fn of(headers: &HeaderMap) -> Self {
        match grpc_flavour(headers) {
            Some(b'-') => return Self::GrpcWeb,
            Some(_) => return Self::Grpc,
            None => {}
        }
        let mut html = 0;
        let mut json = 0;
        for value in headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()) {
            for range in value.split(',') {
                let mut parts = range.split(';');
                let kind = parts.next().unwrap_or_default().trim();
                let weight = parts.find_map(|parameter| weight(parameter.trim())).unwrap_or(1000);
                match () {
                    () if kind.eq_ignore_ascii_case("text/html") => html = weight,
                    () if kind.eq_ignore_ascii_case("application/problem+json")
                        || kind.eq_ignore_ascii_case("application/json") =>
                    {
                        json = json.max(weight);
                    }
                    () => {}
                }
            }
        }
        if html > json { Self::Html } else { Self::Problem }
    }
}

/// A `q` parameter in thousandths (RFC 9110 §12.4.2).
fn weight(parameter: &str) -> Option<u16> {
    let value = parameter.strip_prefix("q=").or_else(|| parameter.strip_prefix("Q="))?;
    let (whole, fraction) = value.split_once('.').unwrap_or((value, ""));
    let fraction = format!("{fraction:0<3.3}").parse::<u16>().ok()?;
    whole.parse::<u16>().ok().map(|whole| whole.min(1) * 1000 + fraction).map(|weight| weight.min(1000))
}

/// What follows `application/grpc` in the content type: `-` for gRPC-Web, `;` also where nothing does.
fn grpc_flavour(headers: &HeaderMap) -> Option<u8> {
    let value = headers.get(header::CONTENT_TYPE)?.as_bytes();
    let (start, rest) = value.split_at_checked(b"application/grpc".len())?;
    let next = rest.first().copied().unwrap_or(b';');
    let is_web = || rest.get(..4).is_some_and(|web| web.eq_ignore_ascii_case(b"-web"));
    let is_known = matches!(next, b'+' | b';' | b' ') || next == b'-' && is_web();
    (start.eq_ignore_ascii_case(b"application/grpc") && is_known).then_some(next)
}

impl ReplyContext {
    /// For the request with this head. Compute it before the head is sent on.
    pub fn new(method: &Method, version: Version, headers: &HeaderMap, request_id: HeaderValue) -> Self {
        Self { form: Form::of(headers), request_id, head_only: method == Method::HEAD, version }
    }
}

impl From<Reason> for LocalReply {
    fn from(reason: Reason) -> Self {
        Self { reason, detail: None, headers: None, members: None, policy: None, response: None }
    }
}

impl LocalReply {
    /// Puts `detail` in place of the reason's sentence. It is shown to the client: no names of internals, no secrets.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Adds a field, such as `retry-after`.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.get_or_insert_default().append(name, value);
        self
    }

    /// Adds `retry-after`, in whole seconds, at least 1 (RFC 9110 section 10.2.3).
    #[must_use]
    pub fn with_retry_after(self, wait: Duration) -> Self {
        let seconds = wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0)).max(1);
        self.with_header(header::RETRY_AFTER, HeaderValue::from(seconds))
    }

    /// Puts `response` in place of the status and the document that tell of the reason, but for gRPC clients. The fields
    /// that name the reason stay.
    #[must_use]
    pub fn with_response(mut self, response: FallbackResponse) -> Self {
        self.response = Some(Box::new(response));
        self
    }

    /// Adds an extension member to the problem document (RFC 9457 §3.2); other forms of the reply leave it out. One of the
    /// document's own members stays as it is.
    #[must_use]
    pub fn with_member(mut self, name: &str, value: serde_json::Value) -> Self {
        self.members.get_or_insert_default().insert(name.to_owned(), value);
        self
    }

    /// Names the policy because of which, for the log: a client does not see it.
    #[must_use]
    pub fn by(mut self, policy: &PolicyKey) -> Self {
        self.policy = Some(Box::new(policy.clone()));
        self
    }

    /// The policy because of which.
    pub fn policy(&self) -> Option<&PolicyKey> {
        self.policy.as_deref()
    }

    /// Why.
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// Whether an HTTP/1 connection must close after it.
    pub fn closes_connection(&self) -> bool {
        self.reason.connection() == Connection::Close
    }

    /// Writes it for the client. Has `connection: close` where the connection must close and the version allows it.
    pub fn render(&self, context: &ReplyContext) -> Response<Bytes> {
        let detail = self.detail.as_deref().unwrap_or(self.reason.detail());
        let kind = HeaderValue::from_static;
        let (status, kind, body) = match (context.form, &self.response) {
            (Form::Grpc, _) => (StatusCode::OK, kind("application/grpc"), Bytes::new()),
            (Form::GrpcWeb, _) => (StatusCode::OK, kind("application/grpc-web+proto"), Bytes::new()),
            (_, Some(response)) => {
                (response.status, response.content_type.clone(), Bytes::copy_from_slice(&response.body))
            }
            (Form::Problem, None) => {
                (self.reason.status(), kind("application/problem+json"), self.problem(detail, context).into())
            }
            (Form::Html, None) => {
                (self.reason.status(), kind("text/html; charset=utf-8"), self.html(detail, context).into())
            }
        };
        let length = body.len();
        let mut response = Response::new(if context.head_only { Bytes::new() } else { body });
        *response.status_mut() = status;
        let headers = response.headers_mut();
        if let Some(added) = &self.headers {
            headers.extend(HeaderMap::clone(added));
        }
        headers.insert(header::CONTENT_TYPE, kind);
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(X_REQUEST_ID, context.request_id.clone());
        headers.insert(X_NEBULA_REASON, HeaderValue::from_static(self.reason.word()));
        if matches!(context.form, Form::Grpc | Form::GrpcWeb) {
            headers.insert(GRPC_STATUS, HeaderValue::from(self.reason.grpc_status() as u16));
            if let Ok(message) = HeaderValue::from_str(&percent_encode(detail)) {
                headers.insert(GRPC_MESSAGE, message);
            }
        } else {
            if status != StatusCode::NO_CONTENT {
                headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
            }
            headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        }
        if self.reason == Reason::ConnectRefused {
            headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
        }
        if self.closes_connection() && context.version < Version::HTTP_2 {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    fn problem(&self, detail: &str, context: &ReplyContext) -> Vec<u8> {
        let mut problem = serde_json::json!({
            "type": format!("{ERRORS_PAGE}#{}", self.reason.word()),
            "title": self.reason.title(),
            "status": self.reason.status().as_u16(),
            "detail": detail,
            "reason": self.reason.word(),
            "request_id": context.request_id.to_str().unwrap_or_default(),
        });
        if let (Some(members), Some(problem)) = (&self.members, problem.as_object_mut()) {
            for (name, value) in &**members {
                problem.entry(name.as_str()).or_insert_with(|| value.clone());
            }
        }
        let mut body = problem.to_string().into_bytes();
        body.push(b'\n');
        body
    }

    fn html(&self, detail: &str, context: &ReplyContext) -> Vec<u8> {
        let (status, title, word) = (self.reason.status().as_u16(), self.reason.title(), self.reason.word());
        let (detail, id) = (escape(detail), escape(context.request_id.to_str().unwrap_or_default()));
        format!(
            "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>{status} {title}</title>\n\
             <h1>{status} {title}</h1>\n<p>{detail}</p>\n\
             <p><a href=\"{ERRORS_PAGE}#{word}\">{word}</a> &middot; request {id}</p>\n</html>\n"
        )
        .into_bytes()
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// `grpc-message`: printable ASCII but `%` stands for itself (gRPC over HTTP/2, "Percent-Encoded").
fn percent_encode(text: &str) -> String {
    use std::fmt::Write as _;
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(char::from(byte)),
            _ => drop(write!(encoded, "%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests;
