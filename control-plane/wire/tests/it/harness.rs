//! A control plane and proxies in this process, over loopback; and peers of both that do as they are told.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use control_plane_model::{Delta, ResourceKey, Snapshot};
use control_plane_wire::{
    AuthenticationError, Authenticator, ClientOptions, Connection, DeltaSink, DiscoveryService, Hub, ProxyIdentity,
    Refused, client,
    proto::{self, proxy_message::Message},
    server,
};
use kit_process::{
    drain::{self, DrainTrigger},
    tasks::Tasks,
};
use tempfile::TempDir;
use tokio::{
    net::TcpListener,
    sync::{Notify, Semaphore, mpsc},
    time::{Instant, sleep},
};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming, transport::Channel};

use crate::objects::gateway_key;

/// How long anything may take in these tests.
pub const DEADLINE: Duration = Duration::from_mins(1);

/// Waits until `condition` holds.
pub async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
        sleep(Duration::from_millis(2)).await;
    }
}

/// Knows tokens of the form `gateway` (a proxy of that gateway), unless it is told to be unavailable.
#[derive(Clone, Debug, Default)]
pub struct Tokens {
    pub asked: Arc<AtomicUsize>,
    pub unavailable: Arc<AtomicBool>,
}

impl Authenticator for Tokens {
    async fn authenticate(&self, token: &str) -> Result<ProxyIdentity, AuthenticationError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if self.unavailable.load(Ordering::SeqCst) {
            return Err(AuthenticationError::Unavailable("the API server does not answer".into()));
        }
        match token {
            "edge" | "inner" => Ok(ProxyIdentity { gateway: gateway_key(token), pod: format!("{token}-0") }),
            _ => Err(AuthenticationError::Invalid("not a token of a proxy".into())),
        }
    }
}

/// A control plane.
pub struct Plane {
    pub address: SocketAddr,
    pub tokens: Tokens,
    trigger: DrainTrigger,
    tasks: Tasks,
}

impl Plane {
    pub async fn start(hub: &Hub) -> Self {
        Self::start_with(hub, |service| service).await
    }

    /// With another limit.
    pub async fn start_with(hub: &Hub, set: impl FnOnce(DiscoveryService<Tokens>) -> DiscoveryService<Tokens>) -> Self {
        Self::listen(hub, "127.0.0.1:0".parse().unwrap(), set).await
    }

    pub async fn start_at(hub: &Hub, address: SocketAddr, max_age: Duration) -> Self {
        Self::listen(hub, address, |service| service.with_max_age(max_age)).await
    }

    async fn listen(
        hub: &Hub,
        address: SocketAddr,
        set: impl FnOnce(DiscoveryService<Tokens>) -> DiscoveryService<Tokens>,
    ) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (trigger, drain) = drain::channel();
        let tasks = Tasks::new(drain.clone());
        let tokens = Tokens::default();
        let service = set(DiscoveryService::new(hub.clone(), tokens.clone(), drain.clone()));
        tasks.spawn("plane", async move { server::serve_plain(listener, service, drain).await.unwrap() });
        Self { address, tokens, trigger, tasks }
    }

    /// Drains; returns once the port is free.
    pub async fn stop(self) {
        self.trigger.start();
        assert!(self.tasks.finished(DEADLINE).await && self.tasks.is_healthy());
    }
}

/// Records what a proxy is told.
pub struct Recorder {
    pub held: Mutex<Snapshot>,
    pub deltas: Mutex<Vec<Delta>>,
    pub connections: Mutex<Vec<Connection>>,
    pub synced: AtomicUsize,
    pub refuse: Mutex<BTreeMap<ResourceKey, String>>,
    /// One permit is used up by each delta.
    pub gate: Semaphore,
    /// Asks for what is refused once more.
    pub again: Notify,
}

impl DeltaSink for Recorder {
    async fn apply(&self, delta: Delta) -> Vec<Refused> {
        self.gate.acquire().await.unwrap().forget();
        let refuse = self.refuse.lock().unwrap().clone();
        let mut taken = delta.clone();
        taken.upserted.retain(|object| !refuse.contains_key(&object.key()));
        self.held.lock().unwrap().apply(&taken);
        let keys: Vec<_> = delta.upserted.iter().map(control_plane_model::Resource::key).collect();
        self.deltas.lock().unwrap().push(delta);
        let refused =
            |key: ResourceKey| refuse.get(&key).map(|error| Refused { key: key.clone(), error: error.clone() });
        keys.into_iter().filter_map(refused).collect()
    }

    async fn retry(&self) {
        self.again.notified().await;
    }

    fn synced(&self) {
        self.synced.fetch_add(1, Ordering::SeqCst);
    }

    fn connection(&self, state: Connection) {
        self.connections.lock().unwrap().push(state);
    }
}

/// A proxy's client with a recording sink.
pub struct Proxy {
    pub sink: Arc<Recorder>,
    pub directory: TempDir,
    trigger: DrainTrigger,
    tasks: Tasks,
}

impl Proxy {
    /// Of gateway `edge`, with its token.
    pub fn start(address: SocketAddr) -> Self {
        Self::start_with(&format!("http://{address}"), "edge", "edge", None, Semaphore::MAX_PERMITS)
    }

    pub fn start_with(endpoint: &str, gateway: &str, token: &str, ca_file: Option<PathBuf>, permits: usize) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let token_file = directory.path().join("token");
        // As the kubelet writes it; a trailing newline is an editor's.
        std::fs::write(&token_file, format!("{token}\n")).unwrap();
        let options = ClientOptions {
            endpoint: endpoint.parse().unwrap(),
            ca_file,
            token_file,
            gateway: gateway_key(gateway),
            proxy: format!("{gateway}-0"),
        };
        let sink = Arc::new(Recorder {
            held: Mutex::default(),
            deltas: Mutex::default(),
            connections: Mutex::default(),
            synced: AtomicUsize::new(0),
            refuse: Mutex::default(),
            again: Notify::new(),
            gate: Semaphore::new(permits),
        });
        let (trigger, drain) = drain::channel();
        let tasks = Tasks::new(drain.clone());
        tasks.spawn("proxy", client::run(options, sink.clone(), drain));
        Self { sink, directory, trigger, tasks }
    }

    pub async fn synced(&self, times: usize) {
        eventually("synced", || self.sink.synced.load(Ordering::SeqCst) >= times).await;
    }

    pub async fn holds(&self, expected: &Snapshot) {
        eventually("the proxy holds what it should", || *self.sink.held.lock().unwrap() == *expected).await;
    }

    pub fn deltas(&self) -> Vec<Delta> {
        self.sink.deltas.lock().unwrap().clone()
    }

    pub fn deltas_count(&self) -> usize {
        self.sink.deltas.lock().unwrap().len()
    }

    /// Errors of lost streams so far.
    pub fn losses(&self) -> Vec<String> {
        let connections = self.sink.connections.lock().unwrap();
        let lost = connections.iter().filter_map(|state| match state {
            Connection::Lost { error } => Some(error.clone()),
            Connection::Connected => None,
        });
        lost.collect()
    }

    pub async fn loses(&self, times: usize) -> String {
        eventually("the stream is lost", || self.losses().len() >= times).await;
        self.losses().pop().unwrap()
    }

    pub async fn stop(self) {
        self.trigger.start();
        assert!(self.tasks.finished(DEADLINE).await && self.tasks.is_healthy());
    }
}

/// A control plane that sends what a test tells it to.
pub struct FakePlane {
    pub address: SocketAddr,
    streams: mpsc::Receiver<FakeStream>,
    _trigger: DrainTrigger,
}

/// One stream of a [`FakePlane`]; dropping it ends the stream.
pub struct FakeStream {
    pub messages: Streaming<proto::ProxyMessage>,
    pub updates: mpsc::Sender<Result<proto::Update, Status>>,
}

struct FakeService(mpsc::Sender<FakeStream>);

#[tonic::async_trait]
impl proto::discovery_server::Discovery for FakeService {
    type StreamStream = ReceiverStream<Result<proto::Update, Status>>;

    async fn stream(
        &self,
        request: Request<Streaming<proto::ProxyMessage>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let (updates, receiver) = mpsc::channel(16);
        let stream = FakeStream { messages: request.into_inner(), updates };
        self.0.send(stream).await.map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

impl FakePlane {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, streams) = mpsc::channel(16);
        let (trigger, drain) = drain::channel();
        let tasks = Tasks::new(drain.clone());
        tasks.spawn("fake plane", async move {
            let server = tonic::transport::Server::builder()
                .add_service(proto::discovery_server::DiscoveryServer::new(FakeService(sender)));
            let serve = server.serve_with_incoming(TcpListenerStream::new(listener));
            tokio::select! {
                served = serve => served.unwrap(),
                () = drain.signaled() => {}
            }
        });
        Self { address, streams, _trigger: trigger }
    }

    /// The next stream, with what its proxy said first.
    pub async fn accept(&mut self) -> (FakeStream, proto::Hello, HashMap<String, Vec<u8>>) {
        let (stream, hello, known) = self.greeted().await;
        (stream, hello, known.into_iter().map(|known| (known.key, known.version.to_vec())).collect())
    }

    /// The next stream, with how new its proxy said its objects are.
    pub async fn accept_revisions(&mut self) -> (FakeStream, HashMap<String, u64>) {
        let (stream, _, known) = self.greeted().await;
        (stream, known.into_iter().map(|known| (known.key, known.revision)).collect())
    }

    async fn greeted(&mut self) -> (FakeStream, proto::Hello, Vec<proto::KnownResource>) {
        let mut stream = self.streams.recv().await.unwrap();
        let Some(Message::Hello(hello)) = stream.read().await else { panic!("no Hello") };
        let mut known = Vec::new();
        loop {
            let Some(Message::Known(part)) = stream.read().await else { panic!("no Known") };
            known.extend(part.resources);
            if part.last {
                return (stream, hello, known);
            }
        }
    }
}

impl FakeStream {
    async fn read(&mut self) -> Option<Message> {
        self.messages.message().await.unwrap().and_then(|message| message.message)
    }

    pub async fn send(&self, update: proto::Update) {
        self.updates.send(Ok(update)).await.unwrap();
    }

    pub async fn ack(&mut self) -> proto::Ack {
        match self.read().await {
            Some(Message::Ack(ack)) => ack,
            other => panic!("not an Ack: {other:?}"),
        }
    }
}

/// A proxy that sends what a test tells it to.
pub struct FakeProxy {
    pub messages: mpsc::Sender<proto::ProxyMessage>,
    pub updates: Streaming<proto::Update>,
}

impl FakeProxy {
    /// Opens a stream with `authorization` and these first messages.
    pub async fn open(address: SocketAddr, authorization: Option<&str>, first: Vec<Message>) -> Result<Self, Status> {
        let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
        let mut client = proto::discovery_client::DiscoveryClient::new(channel);
        let (messages, receiver) = mpsc::channel(first.len() + 16);
        for message in first {
            messages.try_send(proto::ProxyMessage { message: Some(message) }).unwrap();
        }
        let mut request = Request::new(ReceiverStream::new(receiver));
        if let Some(value) = authorization {
            request.metadata_mut().insert("authorization", value.parse().unwrap());
        }
        let updates = client.stream(request).await?.into_inner();
        Ok(Self { messages, updates })
    }

    /// As a proxy of `edge` that has nothing yet.
    pub async fn greet(address: SocketAddr) -> Self {
        let first = vec![hello("edge"), Message::Known(proto::Known { resources: Vec::new(), last: true })];
        Self::open(address, Some("Bearer edge"), first).await.unwrap()
    }

    pub async fn acknowledge(&self, nonce: u64) {
        let message = Some(Message::Ack(proto::Ack { nonce, refused: Vec::new() }));
        self.messages.send(proto::ProxyMessage { message }).await.unwrap();
    }
}

pub fn hello(gateway: &str) -> Message {
    Message::Hello(proto::Hello { gateway: format!("infra/{gateway}"), ..proto::Hello::default() })
}
