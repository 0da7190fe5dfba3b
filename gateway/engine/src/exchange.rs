//! A request from its head received to its response's last byte: what is learnt of it on the way, and where that goes
//! when it ends.
//!
//! Invariant: every request whose head was received is counted, logged and traced exactly once, however it ends.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use http::{HeaderValue, Method, StatusCode, Uri, Version, header, request::Parts};
use tokio::time::Instant;

use crate::{
    body::{BodyError, Upload},
    compile::{ListenerRuntime, RouteRuntime},
    local_reply::LocalReply,
    notes::{Decision, Notes},
    telemetry::{ActiveRequest, ActiveSpan, Observation, Record, Telemetry},
    upstream::{BackendSlot, Call, Endpoint},
    watchdog::RequestGuard,
};

/// What nginx logs for a client that went away before its response: not a status that is ever sent.
const CLIENT_CLOSED: u16 = 499;

/// A request that its client gives up sooner was hardly meant.
const AT_ONCE: Duration = Duration::from_secs(1);
/// The longest method that is kept; no standard one has more than 17 letters.
const MAX_METHOD: usize = 32;

/// Where a request comes from, made once for its connection.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) address: SocketAddr,
    pub(crate) text: Arc<str>,
}

impl From<SocketAddr> for Client {
    fn from(address: SocketAddr) -> Self {
        // A port that nobody told is not shown.
        let text = if address.port() == 0 { address.ip().to_string() } else { address.to_string() };
        Self { address, text: text.into() }
    }
}

/// What is known so far of a request. Dropping it ends the request's account.
pub(crate) struct Completion {
    pub(crate) started: Instant,
    pub(crate) request_id: HeaderValue,
    pub(crate) response_bytes: u64,
    pub(crate) upload: Arc<Upload>,
    pub(crate) attempts: u32,
    pub(crate) upstream_duration: Option<Duration>,
    /// When the attempt that brought the response must have ended, its body included.
    pub(crate) attempt_deadline: Option<Instant>,
    /// Between two pieces of the response's body, where the backend's policy says so.
    pub(crate) response_idle: Option<Duration>,
    pub(crate) listener: Option<Arc<ListenerRuntime>>,
    pub(crate) route: Option<Arc<RouteRuntime>>,
    pub(crate) rule: Option<Arc<str>>,
    pub(crate) backend: Option<Arc<BackendSlot>>,
    pub(crate) endpoint: Option<Arc<Endpoint>>,
    /// Of a request to a backend with a policy, from when it is admitted.
    pub(crate) call: Option<Call>,
    pub(crate) span: Option<ActiveSpan>,
    pub(crate) notes: Notes,
    pub(crate) is_logged: bool,
    method: Method,
    version: Version,
    host: Box<str>,
    /// `None` until it is canonical.
    uri: Option<Uri>,
    user_agent: Option<HeaderValue>,
    client: Client,
    /// Who connects, where that is somebody else.
    peer: Option<Client>,
    status: Option<StatusCode>,
    flag: Option<&'static str>,
    has_ended: bool,
    telemetry: Arc<Telemetry>,
    _active: ActiveRequest,
    busy: RequestGuard,
}

impl Completion {
    /// Begins the account of the request with this head, which came from `client`, by the connection of `peer` where that is
    /// somebody else.
    pub(crate) fn begin(
        parts: &Parts,
        request_id: HeaderValue,
        client: Client,
        peer: Option<Client>,
        telemetry: &Arc<Telemetry>,
        busy: RequestGuard,
    ) -> Self {
        Self {
            started: Instant::now(),
            request_id,
            response_bytes: 0,
            upload: Arc::default(),
            attempts: 0,
            upstream_duration: None,
            attempt_deadline: None,
            response_idle: None,
            listener: None,
            route: None,
            rule: None,
            backend: None,
            endpoint: None,
            call: None,
            span: None,
            notes: Notes::default(),
            is_logged: true,
            method: short(&parts.method),
            version: parts.version,
            host: Box::default(),
            uri: None,
            user_agent: parts.headers.get(header::USER_AGENT).cloned(),
            client,
            peer,
            status: None,
            flag: None,
            has_ended: false,
            telemetry: telemetry.clone(),
            _active: telemetry.metrics.request_started(),
            busy,
        }
    }

    /// Notes the canonical host and target.
    pub(crate) fn canonical(&mut self, host: &str, uri: &Uri) {
        self.host = host.into();
        self.uri = Some(uri.clone());
    }

    /// Notes that a trusted proxy asks for `client`.
    pub(crate) fn forwarded_for(&mut self, client: Client) {
        let before = std::mem::replace(&mut self.client, client);
        self.peer.get_or_insert(before);
    }

    /// Notes that the engine answers by itself.
    pub(crate) fn replied(&mut self, status: StatusCode, reply: &LocalReply) {
        let reason = reply.reason();
        self.status = Some(status);
        self.flag = Some(reason.word());
        self.telemetry.metrics.local_reply(reason.word());
        let is_noted = self.notes.decisions().iter().any(|decision| !decision.reported);
        if let Some(policy) = reply.policy().filter(|_| !is_noted) {
            self.notes.decided(Decision { policy: policy.clone(), reason, reported: false });
        }
        if let Some(call) = &mut self.call {
            call.gave_up(reason);
        }
        self.close_call();
    }

    /// Counts the request in its backend's policy.
    fn close_call(&mut self) {
        let Some(call) = self.call.take() else { return };
        let (now, ending) = (Instant::now(), call.ending(self.has_ended));
        if let (Some(slot), Some(endpoint)) = (&self.backend, &self.endpoint) {
            slot.attempt_ended(call.resilience(), endpoint, ending, now, call.random());
        }
        call.finish(ending, now);
    }

    /// Notes the response's status.
    pub(crate) fn answered(&mut self, status: StatusCode) {
        self.status = Some(status);
    }

    /// Notes that the response's last byte was handed to the client's connection.
    pub(crate) fn body_ended(&mut self) {
        self.has_ended = true;
    }

    /// Notes that the response broke off.
    pub(crate) fn body_failed(&mut self, error: &BodyError) {
        self.has_ended = true;
        if let Some(call) = &mut self.call {
            call.broke(error);
        }
        self.flag = Some(match error {
            BodyError::Broken(_) | BodyError::TooLarge => "response_body_error",
            BodyError::Idle(_) | BodyError::Slow | BodyError::Late => "response_body_timeout",
        });
    }

    fn record(&self) -> Record<'_> {
        let duration = self.started.elapsed();
        let (status, flag) = match (self.status, self.has_ended) {
            (Some(status), true) => (status, self.flag),
            (Some(status), false) => (status, Some("client_closed")),
            (None, _) => {
                (StatusCode::from_u16(CLIENT_CLOSED).unwrap_or(StatusCode::BAD_REQUEST), Some("client_closed"))
            }
        };
        Record {
            time: self.telemetry.wall_clock(self.started),
            request_id: self.request_id.as_bytes().into(),
            method: self.method.as_str(),
            host: (&*self.host).into(),
            path: self.uri.as_ref().map_or("", Uri::path).into(),
            version: self.version,
            status,
            flag,
            listener: self.listener.as_ref().map(|listener| &*listener.label),
            route: self.route.as_ref().map(|route| &*route.label),
            rule: self.rule.as_deref(),
            backend: self.backend.as_ref().map(|backend| &*backend.label),
            endpoint: self.endpoint.as_ref().map(|endpoint| &*endpoint.label),
            attempts: self.attempts,
            request_bytes: self.upload.bytes(),
            response_bytes: self.response_bytes,
            duration,
            upstream_duration: self.upstream_duration,
            client: self.client.address,
            client_text: &self.client.text,
            peer: self.peer.as_ref().map(|peer| &*peer.text),
            user_agent: self.user_agent.as_ref().map(|agent| agent.as_bytes().into()),
            decisions: self.notes.decisions(),
            trace: None,
        }
    }
}

fn short(method: &Method) -> Method {
    let cut = method.as_str().get(..MAX_METHOD).and_then(|start| Method::from_bytes(start.as_bytes()).ok());
    cut.unwrap_or_else(|| method.clone())
}

impl Drop for Completion {
    fn drop(&mut self) {
        self.close_call();
        let span = self.span.take();
        let mut record = self.record();
        record.trace = span.as_ref().map(ActiveSpan::trace);
        if self.status.is_none() && record.duration < AT_ONCE {
            self.busy.given_up();
        }
        match &self.route {
            Some(route) => route.metrics.observe(record.status),
            None => self.telemetry.metrics.unmatched().observe(record.status),
        }
        for decision in record.decisions {
            self.telemetry.metrics.policy_decision(decision);
        }
        if let Some(listener) = &self.listener {
            listener.metrics.observe(&Observation {
                duration: record.duration,
                request_bytes: record.request_bytes,
                response_bytes: record.response_bytes,
                trace: record.trace,
            });
        }
        if self.is_logged {
            self.telemetry.access_log.log(&record);
        }
        if let Some(span) = span {
            span.finish(&record);
        }
    }
}
