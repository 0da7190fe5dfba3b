//! A running engine with one listener, and upstreams whose behaviour a test chooses.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    future::Future,
    net::{Ipv4Addr, SocketAddr},
    num::{NonZeroU16, NonZeroUsize},
    sync::{
        Arc,
        atomic::{AtomicU16, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use control_plane_model::{
    AttachedHost, Attachment, Backend, BackendKey, BackendOptions, BackendProtocol, BackendSettings, BackendTarget,
    Delta, Endpoint, Endpoints, GatewayKey, HostPattern, Listener, ListenerKey, ListenerProtocol, ObjectName,
    PathMatch, Policy, PolicyKey, PolicyKind, PolicySpec, Resource, Route, RouteKey, RouteKind, RouteMatch, Rule,
    RuleAction, Timeouts, WeightedBackend,
};
use gateway_engine::{
    Engine, EngineOptions, Refused,
    filter::FilterSet,
    limits::Limits,
    telemetry::{AccessLog, Metrics, Telemetry, Tracing},
};
use gateway_filters::Filters;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use kit_process::{clock::SystemClock, drain, tasks::Tasks};
use prometheus_client::registry::Registry;
use tokio::net::{TcpListener, TcpStream};

/// A port that nobody listens on.
pub fn free_port() -> NonZeroU16 {
    NonZeroU16::new(kit_testing::free_port()).unwrap()
}

/// An engine that listens on one port of loopback.
pub struct Proxy<F: FilterSet = Filters> {
    pub engine: Arc<Engine<F>>,
    pub port: NonZeroU16,
    pub log: SharedLog,
    registry: Registry,
    _trigger: drain::DrainTrigger,
}

/// What the access log wrote.
#[derive(Clone, Default)]
pub struct SharedLog(Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for SharedLog {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl SharedLog {
    /// The first `count` lines, once there are that many.
    pub async fn lines(&self, count: usize) -> Vec<serde_json::Value> {
        eventually(|| {
            let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
            let lines: Vec<_> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            (lines.len() >= count).then_some(lines)
        })
        .await
    }
}

/// Asks again and again, for ten seconds at most.
pub async fn eventually<T>(mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(tokio::time::Instant::now() < deadline, "did not happen within ten seconds");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub fn listener_key() -> ListenerKey {
    ListenerKey { gateway: GatewayKey(ObjectName::new("test", "edge")), listener_set: None, name: "http".into() }
}

pub fn backend_key(name: &str) -> BackendKey {
    BackendKey { service: ObjectName::new("test", name), port: NonZeroU16::new(80).unwrap() }
}

/// A backend with these endpoints.
pub fn backend(name: &str, protocol: BackendProtocol, addresses: &[SocketAddr]) -> [Resource; 2] {
    let key = backend_key(name);
    let endpoints = addresses.iter().map(|address| Endpoint { address: *address }).collect();
    [
        Resource::Backend(Arc::new(Backend { key: key.clone(), protocol, policies: Vec::new() })),
        Resource::Endpoints(Arc::new(Endpoints { key, endpoints })),
    ]
}

/// The policy of the backend `name`.
pub fn policy(name: &str, spec: PolicySpec) -> Resource {
    Resource::Policy(Arc::new(Policy { key: policy_key(name), spec }))
}

pub fn policy_key(name: &str) -> PolicyKey {
    PolicyKey { kind: PolicyKind::Backend, name: ObjectName::new("test", name) }
}

/// The backend `name`, with its policy.
pub fn protected(name: &str, protocol: BackendProtocol) -> Resource {
    Resource::Backend(Arc::new(Backend { key: backend_key(name), protocol, policies: vec![policy_key(name)] }))
}

/// A rule for every path below `prefix`, to `backends` by weight.
pub fn rule(prefix: &str, backends: &[(&str, u32)]) -> Rule {
    let path = PathMatch::Prefix(prefix.into());
    let weighted = |(name, weight): &(&str, u32)| WeightedBackend {
        weight: *weight,
        target: BackendTarget::Backend(backend_key(name)),
        filters: Vec::new(),
    };
    Rule {
        name: None,
        matches: vec![RouteMatch { path, method: None, headers: Vec::new(), query: Vec::new() }],
        filters: Vec::new(),
        action: RuleAction::Forward(backends.iter().map(weighted).collect()),
        timeouts: Timeouts::default(),
        policies: Vec::new(),
    }
}

/// A route on the listener, for every host.
pub fn route(name: &str, rules: Vec<Rule>) -> Resource {
    let host = AttachedHost { served: HostPattern::Any, declared: HostPattern::Any };
    Resource::Route(Arc::new(Route {
        key: RouteKey { kind: RouteKind::Http, name: ObjectName::new("test", name) },
        created: 0,
        attachments: vec![Attachment { listener: listener_key(), hosts: vec![host] }],
        rules,
        policies: Vec::new(),
    }))
}

pub fn listener(port: NonZeroU16, protocol: ListenerProtocol) -> Resource {
    Resource::Listener(Arc::new(Listener {
        key: listener_key(),
        addresses: vec![Ipv4Addr::LOCALHOST.into()],
        port,
        protocol,
        hostname: HostPattern::Any,
        policies: Vec::new(),
    }))
}

impl Proxy {
    /// Starts an engine with a plain listener and these objects; none may be refused.
    pub async fn start(objects: impl IntoIterator<Item = Resource>) -> Self {
        Self::start_with(Limits::default(), objects).await
    }

    pub async fn start_with(limits: Limits, objects: impl IntoIterator<Item = Resource>) -> Self {
        Self::start_filtering(limits, objects).await
    }

    /// Starts an engine without a listener, with a port for one.
    pub async fn start_closed(objects: impl IntoIterator<Item = Resource>) -> Self {
        let proxy = Self::start_empty(Limits::default());
        assert_eq!(proxy.upsert(objects).await, []);
        proxy
    }
}

impl<F: FilterSet> Proxy<F> {
    /// As [`Proxy::start_with`], with another set of filters.
    pub async fn start_filtering(limits: Limits, objects: impl IntoIterator<Item = Resource>) -> Self {
        let proxy = Self::start_empty(limits);
        let objects = [listener(proxy.port, ListenerProtocol::Http)].into_iter().chain(objects);
        assert_eq!(proxy.upsert(objects).await, []);
        proxy
    }

    fn start_empty(limits: Limits) -> Self {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        let log = SharedLog::default();
        let access_log = AccessLog::start(Box::new(log.clone()), 1 << 20, metrics.access_log()).unwrap();
        let (trigger, watch) = drain::channel();
        let drained = watch.clone();
        let tracing = Tracing::start(&Tasks::new(watch), "test", "test/edge".to_owned(), metrics.traces());
        let options = EngineOptions {
            workers: NonZeroUsize::new(2).unwrap(),
            limits,
            port_map: BTreeMap::new(),
            crypto: Arc::new(rustls::crypto::aws_lc_rs::default_provider()),
        };
        let telemetry = Telemetry::new(metrics, access_log, tracing, &SystemClock);
        let engine = Arc::new(Engine::start(options, telemetry).unwrap());
        let watched = engine.clone();
        spawn(async move { watched.watch_backends(drained).await });
        Self { engine, port: free_port(), log, registry, _trigger: trigger }
    }

    pub async fn upsert(&self, objects: impl IntoIterator<Item = Resource>) -> Vec<Refused> {
        self.engine.apply(Delta { upserted: objects.into_iter().collect(), removed: Vec::new() }).await
    }

    /// Sets the policy of the backend `name`, which speaks HTTP/1.1.
    pub async fn protect(&self, name: &str, options: BackendOptions) {
        let settings = BackendSettings::new(options).unwrap();
        let spec = PolicySpec::Backend(Box::new(settings));
        assert_eq!(self.upsert([policy(name, spec), protected(name, BackendProtocol::Http1)]).await, []);
    }

    /// What the admin port shows of the backend `name`.
    pub fn backend_view(&self, name: &str) -> serde_json::Value {
        self.engine.backends()[backend_key(name).to_string()].clone()
    }

    /// The lines of the metrics that begin with `prefix`.
    pub fn metrics(&self, prefix: &str) -> Vec<String> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        text.lines().filter(|line| line.starts_with(prefix)).map(str::to_owned).collect()
    }

    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect((Ipv4Addr::LOCALHOST, self.port.get())).await.unwrap()
    }

    /// An HTTP/1.1 connection.
    pub async fn client(&self) -> hyper::client::conn::http1::SendRequest<Full<Bytes>> {
        let (sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(self.connect().await)).await.unwrap();
        spawn(async move { drop(connection.with_upgrades().await) });
        sender
    }

    /// Sends one request on a connection of its own and reads the whole answer.
    pub async fn get(&self, path: &str) -> Response<Bytes> {
        let mut client = self.client().await;
        collect(client.send_request(request(path)).await.unwrap()).await
    }
}

pub fn request(path: &str) -> Request<Full<Bytes>> {
    Request::get(path).header("host", "test.example").body(Full::default()).unwrap()
}

pub async fn collect(response: Response<Incoming>) -> Response<Bytes> {
    let (parts, body) = response.into_parts();
    Response::from_parts(parts, body.collect().await.unwrap().to_bytes())
}

/// Runs a test's own background work.
#[expect(clippy::disallowed_methods, reason = "a test's runtime ends its tasks")]
pub fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(task);
}

/// An upstream that answers HTTP/1.1 and HTTP/2 by `answer`; returns its address.
pub async fn upstream<A, R>(answer: A) -> SocketAddr
where
    A: Fn(Request<Incoming>) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = answer.clone();
            spawn(async move {
                let service = service_fn(move |request| {
                    let answer = answer.clone();
                    async move { Ok::<_, Infallible>(answer(request).await) }
                });
                let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                drop(server.serve_connection_with_upgrades(TokioIo::new(stream), service).await);
            });
        }
    });
    address
}

/// A backend's answers, which a test changes while it runs.
#[derive(Clone)]
pub struct Answers(Arc<AtomicU16>, Arc<AtomicUsize>);

impl Answers {
    pub fn set(&self, status: u16) {
        self.0.store(status, Ordering::SeqCst);
    }

    /// Requests that came so far.
    pub fn count(&self) -> usize {
        self.1.load(Ordering::SeqCst)
    }
}

/// An upstream that answers everything with the status of the moment, 200 to begin with.
pub async fn answering() -> (SocketAddr, Answers) {
    let answers = Answers(Arc::new(AtomicU16::new(200)), Arc::default());
    let shown = answers.clone();
    let address = upstream(move |_| {
        shown.1.fetch_add(1, Ordering::SeqCst);
        let status = shown.0.load(Ordering::SeqCst);
        async move { Response::builder().status(status).body(Full::from("answer")).unwrap() }
    })
    .await;
    (address, answers)
}

/// One backend `one` behind a route for everything.
pub fn one_backend(addresses: &[SocketAddr]) -> Vec<Resource> {
    let mut objects = backend("one", BackendProtocol::Http1, addresses).to_vec();
    objects.push(route("all", vec![rule("/", &[("one", 1)])]));
    objects
}

/// An upstream that answers everything with `text`.
pub async fn saying(text: &'static str) -> SocketAddr {
    upstream(move |_| async move { Response::new(Full::from(text)) }).await
}
