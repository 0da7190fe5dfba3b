//! Cluster mode: a control plane over TLS, its loss and its return, and a proxy that asks for what is not its own.

use std::{net::SocketAddr, process::Command, sync::Arc, time::Duration};

use control_plane_model::{
    AccessLog, AttachedHost, Attachment, Backend, BackendKey, BackendProtocol, BackendTarget, Delta, Endpoint,
    Endpoints, GatewayKey, HostPattern, Listener, ListenerKey, ListenerProtocol, ObjectName, PathMatch, Resource,
    Route, RouteKey, RouteKind, RouteMatch, Rule, RuleAction, Timeouts, WeightedBackend,
};
use control_plane_wire::{AuthenticationError, Authenticator, DiscoveryService, Hub, ProxyIdentity, server};
use kit_process::{
    drain::{self, DrainTrigger},
    tasks::Tasks,
};
use kit_testing::free_port;
use nix::sys::signal::Signal;
use rustls::{
    crypto::aws_lc_rs,
    sign::{CertifiedKey, SingleCertAndKey},
};
use rustls_pki_types::PrivateKeyDer;
use tokio::net::TcpListener;

use crate::harness::{DEADLINE, Folder, Gateway, eventually, says, try_get};

fn gateway_key() -> GatewayKey {
    GatewayKey(ObjectName::new("infra", "edge"))
}

fn listener_key() -> ListenerKey {
    ListenerKey { gateway: gateway_key(), listener_set: None, name: "http".into() }
}

/// A Gateway with one listener on port 8080.
fn gateway() -> Vec<Resource> {
    let gateway = control_plane_model::Gateway {
        key: gateway_key(),
        access_log: AccessLog::Json,
        tracing: None,
        policies: Vec::new(),
    };
    let listener = Listener {
        key: listener_key(),
        addresses: Vec::new(),
        port: 8080.try_into().unwrap(),
        protocol: ListenerProtocol::Http,
        hostname: HostPattern::Any,
        policies: Vec::new(),
    };
    vec![Resource::Gateway(Arc::new(gateway)), Resource::Listener(Arc::new(listener))]
}

/// A route below `path` to a backend of the same name at `address`.
fn route(name: &str, path: &str, address: SocketAddr) -> Vec<Resource> {
    let backend = BackendKey { service: ObjectName::new("shop", name), port: 80.try_into().unwrap() };
    let target = BackendTarget::Backend(backend.clone());
    let rule = Rule {
        name: None,
        matches: vec![RouteMatch {
            path: PathMatch::Prefix(path.into()),
            method: None,
            headers: Vec::new(),
            query: Vec::new(),
        }],
        filters: Vec::new(),
        action: RuleAction::Forward(vec![WeightedBackend { weight: 1, target, filters: Vec::new() }]),
        timeouts: Timeouts::default(),
        policies: Vec::new(),
    };
    let host = AttachedHost { served: HostPattern::Any, declared: HostPattern::Any };
    let route = Route {
        key: RouteKey { kind: RouteKind::Http, name: ObjectName::new("shop", name) },
        created: 0,
        attachments: vec![Attachment { listener: listener_key(), hosts: vec![host] }],
        rules: vec![rule],
        policies: Vec::new(),
    };
    vec![
        Resource::Backend(Arc::new(Backend {
            key: backend.clone(),
            protocol: BackendProtocol::Http1,
            policies: Vec::new(),
        })),
        Resource::Endpoints(Arc::new(Endpoints { key: backend, endpoints: vec![Endpoint { address }] })),
        Resource::Route(Arc::new(route)),
    ]
}

/// Every token is the one of a proxy of `infra/<token>`.
struct Tokens;

impl Authenticator for Tokens {
    async fn authenticate(&self, token: &str) -> Result<ProxyIdentity, AuthenticationError> {
        Ok(ProxyIdentity { gateway: GatewayKey(ObjectName::new("infra", token)), pod: format!("{token}-0") })
    }
}

/// A certificate for 127.0.0.1 and the files that a proxy needs.
struct Trust {
    files: Folder,
    resolver: Arc<SingleCertAndKey>,
}

impl Trust {
    fn new(token: &str) -> Self {
        let certified = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
        let key = aws_lc_rs::sign::any_supported_type(&key).unwrap();
        let key = CertifiedKey::new(vec![certified.cert.der().clone()], key);
        let files = Folder::with([("ca.crt", certified.cert.pem()), ("token", token.to_owned())]);
        Self { files, resolver: Arc::new(key.into()) }
    }
}

struct Plane {
    trigger: DrainTrigger,
    tasks: Tasks,
}

impl Plane {
    async fn start(address: SocketAddr, hub: &Hub, trust: &Trust) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let (trigger, drain) = drain::channel();
        let tasks = Tasks::new(drain.clone());
        let service = DiscoveryService::new(hub.clone(), Tokens, drain.clone());
        let resolver = trust.resolver.clone();
        tasks.spawn("plane", async move { server::serve(listener, resolver, service, drain).await.unwrap() });
        Self { trigger, tasks }
    }

    async fn stop(self) {
        self.trigger.start();
        assert!(self.tasks.finished(DEADLINE).await);
    }
}

fn hub(objects: Vec<Resource>) -> Hub {
    let hub = Hub::new();
    publish(&hub, objects);
    hub.mark_synced();
    hub
}

fn publish(hub: &Hub, upserted: Vec<Resource>) {
    hub.publish(&Delta { upserted, removed: Vec::new() });
}

/// A gateway process for `infra/edge` that follows the control plane at `plane`.
fn follower(plane: SocketAddr, trust: &Trust) -> Gateway {
    follower_on(free_port(), plane, trust)
}

/// The same, with its listener on that port.
fn follower_on(http: u16, plane: SocketAddr, trust: &Trust) -> Gateway {
    let [admin, telemetry] = [(); 2].map(|()| free_port());
    let mut command = Command::new(env!("CARGO_BIN_EXE_gateway"));
    command
        .args(["--discovery", &format!("https://{plane}"), "--gateway", "infra/edge", "--workers", "2"])
        .arg("--token-file")
        .arg(trust.files.file("token"))
        .arg("--ca-file")
        .arg(trust.files.file("ca.crt"))
        .args(["--port-map", &format!("8080={http}"), "--drain-delay", "0s", "--log-format", "text"])
        .args(["--admin-address", &format!("127.0.0.1:{admin}")])
        .args(["--telemetry-address", &format!("127.0.0.1:{telemetry}")]);
    Gateway::spawn(command, [http, 0, admin, telemetry])
}

fn free_address() -> SocketAddr {
    ([127, 0, 0, 1], free_port()).into()
}

#[tokio::test]
async fn a_proxy_that_loses_its_control_plane_serves_on_and_follows_it_when_it_returns() {
    let (one, two) = (says("one").await, says("two").await);
    let (address, trust) = (free_address(), Trust::new("edge"));
    let mut gateway = follower(address, &trust);
    // Nothing to serve yet: alive, but not ready.
    eventually("alive", || async { try_get(gateway.telemetry, "/healthz").await.ok() }).await;
    assert_eq!(try_get(gateway.telemetry, "/readyz").await.unwrap().status, 503);

    let hub = hub([self::gateway(), route("r", "/", one)].concat());
    let plane = Plane::start(address, &hub, &trust).await;
    gateway.is_ready().await;
    assert_eq!(gateway.get("/").await.body, "one");

    plane.stop().await;
    eventually("the loss is told", || async {
        let problems = try_get(gateway.admin, "/problems").await.unwrap();
        problems.body.contains("control plane is away").then_some(())
    })
    .await;
    assert_eq!(gateway.get("/").await.body, "one");
    assert_eq!(try_get(gateway.telemetry, "/readyz").await.unwrap().status, 200);

    publish(&hub, route("r", "/", two));
    let _plane = Plane::start(address, &hub, &trust).await;
    eventually("follows", || async { (gateway.get("/").await.body == "two").then_some(()) }).await;
    assert_eq!(try_get(gateway.admin, "/problems").await.unwrap().body, "[]");

    gateway.signal(Signal::SIGTERM);
    assert_eq!(gateway.exit().await.code(), Some(0));
}

#[tokio::test]
async fn a_proxy_that_asks_for_another_gateway_gets_nothing() {
    let (address, trust) = (free_address(), Trust::new("other"));
    let hub = hub([self::gateway(), route("r", "/", says("one").await)].concat());
    let _plane = Plane::start(address, &hub, &trust).await;
    let gateway = follower(address, &trust);
    gateway.logged("discovery stream lost").await;
    let ready = try_get(gateway.telemetry, "/readyz").await.unwrap();
    assert_eq!(ready.status, 503);
    let config = try_get(gateway.admin, "/config").await.unwrap();
    assert!(!config.body.contains("infra/edge/http"), "{config:?}");
}

#[tokio::test]
async fn a_control_plane_that_another_authority_signed_is_not_believed() {
    let (address, trust, impostor) = (free_address(), Trust::new("edge"), Trust::new("edge"));
    let hub = hub([self::gateway(), route("r", "/", says("one").await)].concat());
    let _plane = Plane::start(address, &hub, &impostor).await;
    let gateway = follower(address, &trust);
    gateway.logged("discovery stream lost").await;
    assert_eq!(try_get(gateway.telemetry, "/readyz").await.unwrap().status, 503);
}

#[tokio::test]
async fn a_route_that_is_edited_again_and_again_fails_no_request() {
    let (one, two) = (says("one").await, says("two").await);
    let (address, trust) = (free_address(), Trust::new("edge"));
    let hub = hub([self::gateway(), route("one", "/", one)].concat());
    let _plane = Plane::start(address, &hub, &trust).await;
    let gateway = follower(address, &trust);
    gateway.is_ready().await;
    let mut slowest = Duration::ZERO;
    for round in 0..30 {
        let (target, text) = if round % 2 == 0 { (two, "two") } else { (one, "one") };
        let edited = tokio::time::Instant::now();
        publish(&hub, route("one", "/", target));
        eventually(text, || async {
            let answer = gateway.get("/").await;
            assert_eq!(answer.status, 200, "{answer:?}");
            (answer.body == text).then_some(())
        })
        .await;
        slowest = slowest.max(edited.elapsed());
    }
    println!("slowest of 30 edits over discovery: {} ms", slowest.as_millis());
}

#[tokio::test]
async fn a_port_that_was_taken_is_opened_once_it_is_free_and_the_control_plane_hears_of_both() {
    let (address, trust) = (free_address(), Trust::new("edge"));
    let hub = hub([self::gateway(), route("r", "/", says("one").await)].concat());
    let _plane = Plane::start(address, &hub, &trust).await;
    let port = free_port();
    let taken = TcpListener::bind(("0.0.0.0", port)).await.unwrap();
    let gateway = follower_on(port, address, &trust);
    let refused = |count: usize| {
        let hub = &hub;
        move || async move { hub.proxies().iter().any(|proxy| proxy.refused == count).then_some(()) }
    };
    eventually("the refusal", refused(1)).await;
    drop(taken);
    eventually("an answer", || async { try_get(gateway.http, "/").await.ok().filter(|answer| answer.body == "one") })
        .await;
    eventually("no refusal", refused(0)).await;
}
