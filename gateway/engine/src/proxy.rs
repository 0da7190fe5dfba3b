//! One request on its way: strictness, route, filters, endpoint, upstream, response.
//!
//! Invariants: a request sees one configuration (it is loaded once, to find the rule, and the rule holds the rest).
//! Whatever fails is answered from the table of local replies; a panic answers 500 and ends nothing else.

use std::{borrow::Cow, panic::AssertUnwindSafe, sync::Arc};

use control_plane_model::{BackendProtocol, RouteKind};
use futures::FutureExt as _;
use http::{HeaderMap, HeaderValue, Request, Response, Uri, Version, header, request::Parts, uri::PathAndQuery};
use hyper::{body::Incoming, upgrade::OnUpgrade};
use rand::RngExt as _;
use tokio::time::Instant;

use crate::{
    attempts::Attempts,
    body::{RequestBody, ResponseBody},
    client_body::ClientBody,
    compile::{Action, CompiledRule, Target},
    connection::Downstream,
    exchange::Completion,
    filter::{AttemptHead, Chain, FilterSet, Received, RequestContext, ResponseHead, Verdict},
    local_reply::{Form, LocalReply, Reason, ReplyContext},
    policies::Compiled,
    router::RequestView,
    strict::{self, Canonical, Origin, Upgrade},
    telemetry::TraceDecision,
    tunnel::Tunnel,
    upstream::{Lease, PickKey, Protocol},
};

/// Serves one request of a client.
pub(crate) async fn serve<F: FilterSet>(
    downstream: Arc<Downstream<F>>,
    request: Request<Incoming>,
) -> Response<ResponseBody> {
    let shared = &downstream.worker.shared;
    let (mut parts, incoming) = request.into_parts();
    let request_id = strict::request_id(&mut parts.headers, downstream.worker.rng.lock().random());
    let context = ReplyContext::new(&parts.method, parts.version, &parts.headers, request_id.clone());
    let busy = downstream.progress.request();
    let (client, peer) = (downstream.client.clone(), downstream.peer.clone());
    // On the heap, as it goes from hand to hand.
    let mut completion = Box::new(Completion::begin(&parts, request_id, client, peer, &shared.telemetry, busy));
    let decision = shared.telemetry.tracing.begin(&parts.headers, || downstream.worker.rng.lock().random());
    if let TraceDecision::Sampled(span) = decision {
        completion.span = Some(span);
    }
    let is_grpc = context.form == Form::Grpc;
    let forwarding = forward(&downstream, &mut parts, incoming, is_grpc, &mut completion);
    let forwarded = AssertUnwindSafe(forwarding).catch_unwind().await;
    let outcome = forwarded.unwrap_or_else(|_| {
        tracing::error!("a request panicked; it was answered with 500");
        Err(Reason::Internal.into())
    });
    let added = completion.notes.take_response();
    let mut response = match outcome {
        Ok(Answer::Backend(response, lease)) => {
            completion.answered(response.status());
            let idle = completion.response_idle.unwrap_or(shared.limits.response_body_idle_timeout);
            response.map(|incoming| ResponseBody::upstream(incoming, lease, idle, completion))
        }
        Ok(Answer::Filter(mut response)) => {
            completion.answered(response.status());
            response.headers_mut().insert(strict::X_REQUEST_ID, context.request_id.clone());
            response.map(|bytes| ResponseBody::local(bytes, completion))
        }
        Ok(Answer::Upgraded(response, tunnel)) => {
            completion.answered(response.status());
            tunnel.start(downstream.clone(), completion);
            response.map(|()| ResponseBody::empty())
        }
        Err(reply) => {
            // Most that is refused never looked the configuration up.
            completion.is_logged = shared.config.load().is_access_logged();
            let response = reply.render(&context);
            completion.replied(response.status(), &reply);
            response.map(|bytes| ResponseBody::local(bytes, completion))
        }
    };
    for (name, value) in added {
        response.headers_mut().append(name, value);
    }
    let status = response.status();
    if downstream.progress.is_used_up() {
        retire(&downstream, context.version, response.headers_mut());
    }
    downstream.guard.answered(status, response.headers_mut());
    response
}

/// Ends a connection that has had as many requests as it may, once those under way are answered.
fn retire<F: FilterSet>(downstream: &Downstream<F>, version: Version, headers: &mut HeaderMap) {
    if version >= Version::HTTP_2 {
        downstream.progress.retire();
    } else if !headers.contains_key(header::UPGRADE) {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
}

/// How a request is answered, unless by a local reply.
enum Answer {
    /// With a backend's response.
    Backend(Response<Incoming>, Lease),
    /// With what a filter made, as a redirect.
    Filter(Response<bytes::Bytes>),
    /// With a backend's 101, and bytes in both directions from then on.
    Upgraded(Response<()>, Tunnel),
}

/// Brings the head into canonical form, finds its rule and runs that.
async fn forward<F: FilterSet>(
    downstream: &Downstream<F>,
    parts: &mut Parts,
    incoming: Incoming,
    is_grpc: bool,
    completion: &mut Completion,
) -> Result<Answer, LocalReply> {
    if let Some(reason) = downstream.guard.refused(&parts.method) {
        return Err(reason.into());
    }
    let shared = &downstream.worker.shared;
    let client_upgrade = parts.extensions.remove::<OnUpgrade>();
    let connection = strict::Connection { scheme: downstream.scheme };
    let canonical = strict::canonicalise(parts, &connection, &downstream.limits)?;
    completion.canonical(&canonical.host, &parts.uri);

    let found = find_rule(downstream, parts, &canonical, is_grpc, completion)?;
    let Found { rule, policies, matched_prefix, origin } = found;
    let received = Received {
        method: parts.method.clone(),
        scheme: origin.as_ref().and_then(|origin| origin.scheme).unwrap_or(downstream.scheme),
        host: canonical.host,
        uri: parts.uri.clone(),
        listener_port: downstream.bind.port.get(),
        peer: origin.as_ref().map_or(downstream.client.address, |origin| origin.client),
        matched_prefix,
    };
    let deadline = rule.timeouts.request.map(|limit| Instant::now() + limit);
    let none = Chain::default();
    let policies = match policies.as_deref() {
        None => &none,
        Some(Ok(policies)) => policies,
        Some(Err(reply)) => return Err(reply.clone()),
    };
    let listener = completion.listener.as_ref().map(|listener| &*listener.client.limits);
    let mut body = ClientBody::new(incoming, listener.unwrap_or(&downstream.limits), completion.upload.clone());
    let run = async {
        let now = completion.started.saturating_duration_since(shared.started);
        let place = (&rule.route.label, &rule.label);
        let context = RequestContext::new(&received, &mut parts.headers, place, now, &mut completion.notes);
        let mut context = context.with_body(&mut body, &shared.buffers);
        match rule.filters.on_request_after(policies, &mut context).await {
            Verdict::Continue => {}
            Verdict::Reply(reply) => return Err(reply),
            Verdict::Respond(response) => return Ok(Answer::Filter(response)),
        }
        let target = choose_target(&rule, downstream)?;
        let origin = origin.as_deref();
        let exchange =
            Exchange { downstream, rule: &rule, policies, target, received: &received, origin, is_grpc, deadline };
        exchange.run(parts, body, canonical.upgrade, client_upgrade, completion).await
    };
    match deadline {
        None => run.await,
        Some(deadline) => {
            tokio::time::timeout_at(deadline, run).await.unwrap_or_else(|_| Err(Reason::DeadlineExceeded.into()))
        }
    }
}

/// What the configuration says about a request.
struct Found<F> {
    rule: Arc<CompiledRule<F>>,
    /// `None` where there is no policy.
    policies: Option<Arc<Compiled<F>>>,
    matched_prefix: Option<usize>,
    /// What trusted proxies say about the request.
    origin: Option<Box<Origin>>,
}

/// Looks the request up in the configuration of this moment.
fn find_rule<F: FilterSet>(
    downstream: &Downstream<F>,
    parts: &Parts,
    canonical: &Canonical,
    is_grpc: bool,
    completion: &mut Completion,
) -> Result<Found<F>, LocalReply> {
    let config = downstream.worker.shared.config.load();
    completion.is_logged = config.is_access_logged();
    let (table, listener) = config.listener(downstream.bind, downstream.handshake.as_ref(), &canonical.host)?;
    completion.listener = listener.cloned();
    let client = listener.map(|listener| &listener.client);
    if client.is_some_and(|client| !client.speaks(parts.version)) {
        return Err(Reason::ProtocolDisabled.into());
    }
    let origin = client.and_then(|client| client.address()).zip(canonical.forwarding.as_deref());
    let origin = origin.map(|(policy, forwarding)| forwarding.resolve(policy, downstream.client.address));
    let origin = origin.transpose()?.flatten().map(Box::new);
    if let Some(origin) = &origin {
        completion.forwarded_for(origin.client.into());
    }
    let view = RequestView {
        host: &canonical.host,
        path: parts.uri.path(),
        query: parts.uri.query().unwrap_or_default(),
        method: &parts.method,
        headers: &parts.headers,
        is_grpc,
    };
    let matched = table.find(&view).ok_or(Reason::NoRoute)?;
    let rule = matched.rule.clone();
    completion.route = Some(rule.route.clone());
    completion.rule = Some(rule.label.clone());
    let policies = rule.policies.of(table.key());
    Ok(Found { rule, policies, matched_prefix: matched.prefix, origin })
}

fn choose_target<'a, F: FilterSet>(
    rule: &'a CompiledRule<F>,
    downstream: &Downstream<F>,
) -> Result<&'a Target<F>, LocalReply> {
    match &rule.action {
        Action::Fail(reason) => Err((*reason).into()),
        Action::Forward(split) => split.pick(downstream.worker.id).ok_or_else(|| Reason::NoBackend.into()),
    }
}

/// A request whose rule and target are known.
struct Exchange<'a, F: FilterSet> {
    downstream: &'a Downstream<F>,
    rule: &'a CompiledRule<F>,
    policies: &'a Chain<F>,
    target: &'a Target<F>,
    received: &'a Received,
    origin: Option<&'a Origin>,
    is_grpc: bool,
    /// When the client must have its answer.
    deadline: Option<Instant>,
}

impl<F: FilterSet> Exchange<'_, F> {
    async fn run(
        &self,
        parts: &mut Parts,
        body: ClientBody,
        upgrade: Option<Upgrade>,
        client_upgrade: Option<OnUpgrade>,
        completion: &mut Completion,
    ) -> Result<Answer, LocalReply> {
        let slot = self.target.backend.as_ref().map_err(|reason| *reason)?;
        completion.backend = Some(slot.clone());
        let settings = slot.settings().ok_or(Reason::BackendNotFound)?;
        let wants_http2 = self.is_grpc || self.rule.route.kind == RouteKind::Grpc;
        let protocol = match settings.protocol {
            BackendProtocol::H2c => Protocol::Http2,
            BackendProtocol::Http1 if wants_http2 => Protocol::Http2,
            BackendProtocol::Http1 => Protocol::Http1,
        };
        // HTTP/2 has no such upgrade; the request goes on without it, as RFC 9110 section 7.8 allows.
        let upgrade = upgrade.filter(|_| protocol == Protocol::Http1);

        let policy = slot.policy()?;
        let policy = policy.as_ref();
        if let Some(policy) = policy {
            completion.response_idle = policy.settings.timeouts.idle;
            let random = self.downstream.worker.rng.lock().random();
            completion.call = Some(policy.admit(random).await.map_err(|reply| policy.or_fallback(reply))?);
        }
        let attempts = Attempts {
            downstream: self.downstream,
            slot,
            policy: policy.map(Arc::as_ref),
            key: policy
                .and_then(|policy| PickKey::of(&policy.settings.balance, &parts.headers, self.received.peer.ip())),
            protocol,
            is_grpc: self.is_grpc,
            limit: self.rule.timeouts.backend_request,
            deadline: self.deadline,
        };
        let kept = policy.map_or(0, |policy| policy.kept_of(&parts.method));
        let request = self.backend_request(parts, body, protocol, upgrade.as_ref(), kept, completion)?;
        let sent = attempts.send(request, completion).await;
        let (response, lease) = sent.map_err(|reply| match policy {
            Some(policy) => policy.or_fallback(reply),
            None => reply,
        })?;
        self.answer(response, lease, upgrade, client_upgrade)
    }

    /// The request as the backend gets it, with up to `kept` bytes of its body kept to be sent again. On the heap, as it
    /// goes from hand to hand.
    fn backend_request(
        &self,
        parts: &mut Parts,
        body: ClientBody,
        protocol: Protocol,
        upgrade: Option<&Upgrade>,
        kept: usize,
        completion: &Completion,
    ) -> Result<Box<Request<RequestBody>>, LocalReply> {
        let mut head = self.attempt_head(parts, completion);
        self.on_attempt(&mut head);
        finish_head(&mut head, protocol, upgrade)?;
        let body = body.forward(kept)?;
        Ok(Box::new(Request::from_parts(head, body)))
    }

    /// The head for the backend, with what the gateway tells it about the client.
    fn attempt_head(&self, parts: &mut Parts, completion: &Completion) -> Parts {
        let mut head = Request::new(()).into_parts().0;
        head.method = parts.method.clone();
        head.uri = parts.uri.clone();
        head.headers = std::mem::take(&mut parts.headers);
        let (client, asked_for) = match self.origin {
            None => (Cow::Borrowed(&self.downstream.forwarded_for), None),
            Some(origin) => (Cow::Owned(strict::forwarded_for(origin.client)), origin.host.as_ref()),
        };
        strict::forwarding_headers(&mut head.headers, &client, self.received.scheme, asked_for);
        if let Some(span) = &completion.span {
            span.inject(&mut head.headers);
        }
        head
    }

    /// Brings the backend's response into the form that the client gets.
    fn answer(
        &self,
        response: Response<Incoming>,
        lease: Lease,
        upgrade: Option<Upgrade>,
        client_upgrade: Option<OnUpgrade>,
    ) -> Result<Answer, LocalReply> {
        if response.status() == http::StatusCode::SWITCHING_PROTOCOLS {
            let (Some(upgrade), Some(client)) = (upgrade, client_upgrade) else {
                return Err(Reason::UpgradeRefused.into());
            };
            return self.switch(response, lease, &upgrade, client);
        }
        let (mut parts, body) = response.into_parts();
        strict::clean_response(&mut parts.headers);
        self.on_response(&mut parts);
        // An endpoint that was asked to switch and did not is not trusted to agree on where the next request begins.
        let lease = if upgrade.is_some() { lease.without_reuse() } else { lease };
        Ok(Answer::Backend(Response::from_parts(parts, body), lease))
    }

    fn switch(
        &self,
        mut response: Response<Incoming>,
        lease: Lease,
        upgrade: &Upgrade,
        client: OnUpgrade,
    ) -> Result<Answer, LocalReply> {
        let token = upgrade.token();
        let switched = response.headers().get(header::UPGRADE);
        if !switched.is_some_and(|switched| switched.as_bytes().eq_ignore_ascii_case(token.as_bytes())) {
            return Err(Reason::UpgradeRefused.into());
        }
        let backend = hyper::upgrade::on(&mut response);
        let (mut parts, _) = response.into_parts();
        strict::clean_response(&mut parts.headers);
        self.on_response(&mut parts);
        parts.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        parts.headers.insert(header::UPGRADE, token);
        let tunnel = Tunnel { client, backend, lease: lease.without_reuse() };
        Ok(Answer::Upgraded(Response::from_parts(parts, ()), tunnel))
    }

    fn on_attempt(&self, head: &mut Parts) {
        let mut head = AttemptHead::new(self.received, head);
        self.policies.on_attempt(&mut head);
        self.rule.filters.on_attempt(&mut head);
        self.target.filters.on_attempt(&mut head);
    }

    fn on_response(&self, parts: &mut http::response::Parts) {
        parts.version = Version::HTTP_11;
        let mut head = ResponseHead::new(parts);
        self.target.filters.on_response(&mut head);
        self.rule.filters.on_response(&mut head);
        self.policies.on_response(&mut head);
    }
}

/// The last touches for the protocol that the endpoint speaks.
fn finish_head(head: &mut Parts, protocol: Protocol, upgrade: Option<&Upgrade>) -> Result<(), LocalReply> {
    match protocol {
        Protocol::Http1 => {
            head.version = Version::HTTP_11;
            if let Some(upgrade) = upgrade {
                head.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
                head.headers.insert(header::UPGRADE, upgrade.token());
            }
        }
        Protocol::Http2 => {
            head.version = Version::HTTP_2;
            let host = head.headers.remove(header::HOST).ok_or(Reason::Internal)?;
            let path = head.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
            head.uri = Uri::builder()
                .scheme("http")
                .authority(host.as_bytes())
                .path_and_query(path)
                .build()
                .map_err(|_| Reason::Internal)?;
        }
    }
    Ok(())
}
