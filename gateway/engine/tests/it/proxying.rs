//! What a client sees of the engine: requests, configuration that changes under it, failures, drain.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use control_plane_model::{BackendProtocol, Delta, ResourceKey, Timeouts};
use gateway_engine::limits::Limits;
use http::{Response, StatusCode, Version};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::Notify,
};

use crate::harness::{
    Proxy, backend, backend_key, collect, eventually, free_port, listener_key, request, route, rule, saying, spawn,
    upstream,
};

fn one_backend(address: SocketAddr) -> Vec<control_plane_model::Resource> {
    let mut objects = backend("one", BackendProtocol::Http1, &[address]).to_vec();
    objects.push(route("all", vec![rule("/", &[("one", 1)])]));
    objects
}

#[tokio::test]
async fn a_request_reaches_its_backend_and_is_logged() {
    let address = upstream(|request| async move {
        let seen = format!("{} {:?} {:?}", request.uri(), request.version(), request.headers().get("x-forwarded-for"));
        Response::new(Full::from(seen))
    })
    .await;
    let proxy = Proxy::start(one_backend(address)).await;
    let response = proxy.get("/a//b/../c?q=1").await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.body(), "/a/c?q=1 HTTP/1.1 Some(\"127.0.0.1\")");
    let line = proxy.log.lines(1).await.remove(0);
    assert_eq!((&line["status"], &line["path"]), (&200.into(), &"/a/c".into()));
    assert_eq!((&line["route"], &line["backend"]), (&"http/test/all".into(), &"test/one/80".into()));
}

#[tokio::test]
async fn requests_on_one_connection_share_one_upstream_connection() {
    let peers: Arc<std::sync::Mutex<Vec<SocketAddr>>> = Arc::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = peers.clone();
    spawn(async move {
        while let Ok((stream, peer)) = listener.accept().await {
            seen.lock().unwrap().push(peer);
            let service = hyper::service::service_fn(|_| async {
                Ok::<_, std::convert::Infallible>(Response::new(Full::<Bytes>::from("x")))
            });
            spawn(async move {
                drop(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
            });
        }
    });
    let proxy = Proxy::start(one_backend(address)).await;
    let mut client = proxy.client().await;
    for _ in 0..20 {
        client.ready().await.unwrap();
        let response = collect(client.send_request(request("/")).await.unwrap()).await;
        assert_eq!(response.status(), StatusCode::OK);
    }
    assert_eq!(peers.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn weights_are_kept_exactly_over_a_full_round() {
    let (left, right) = (saying("left").await, saying("right").await);
    let mut objects = backend("left", BackendProtocol::Http1, &[left]).to_vec();
    objects.extend(backend("right", BackendProtocol::Http1, &[right]));
    objects.push(route("all", vec![rule("/", &[("left", 3), ("right", 1)])]));
    let proxy = Proxy::start(objects).await;
    let mut client = proxy.client().await;
    let mut counts: BTreeMap<Bytes, u32> = BTreeMap::new();
    for _ in 0..40 {
        client.ready().await.unwrap();
        let response = collect(client.send_request(request("/")).await.unwrap()).await;
        *counts.entry(response.into_body()).or_default() += 1;
    }
    assert_eq!(counts, BTreeMap::from([("left".into(), 30), ("right".into(), 10)]));
}

#[tokio::test]
async fn what_is_missing_is_answered_as_the_api_says() {
    let mut objects = backend("empty", BackendProtocol::Http1, &[]).to_vec();
    objects.push(route(
        "all",
        vec![rule("/empty", &[("empty", 1)]), rule("/unknown", &[("unknown", 1)]), rule("/none", &[])],
    ));
    let proxy = Proxy::start(objects).await;
    for (path, status, reason) in [
        ("/empty", StatusCode::SERVICE_UNAVAILABLE, "no_endpoints"),
        ("/unknown", StatusCode::INTERNAL_SERVER_ERROR, "backend_not_found"),
        ("/none", StatusCode::INTERNAL_SERVER_ERROR, "no_backend"),
        ("/elsewhere", StatusCode::NOT_FOUND, "no_route"),
    ] {
        let response = proxy.get(path).await;
        assert_eq!((response.status(), &response.headers()["x-nebula-reason"]), (status, &reason.parse().unwrap()));
        assert!(response.headers().contains_key("x-request-id"));
    }
}

#[tokio::test]
async fn an_endpoint_that_refuses_is_left_for_one_that_answers() {
    let dead = SocketAddr::from(([127, 0, 0, 1], free_port().get()));
    let alive = saying("alive").await;
    let mut objects = backend("one", BackendProtocol::Http1, &[dead, alive]).to_vec();
    objects.push(route("all", vec![rule("/", &[("one", 1)])]));
    let proxy = Proxy::start(objects).await;
    for _ in 0..20 {
        assert_eq!(proxy.get("/").await.body(), "alive");
    }
}

#[tokio::test]
async fn a_backend_that_does_not_answer_is_given_up_after_the_rules_limit() {
    let address = upstream(|_| std::future::pending()).await;
    let mut objects = backend("one", BackendProtocol::Http1, &[address]).to_vec();
    let short = Some(Duration::from_millis(50));
    let mut attempt = rule("/attempt", &[("one", 1)]);
    attempt.timeouts = Timeouts { request: None, backend_request: short };
    let mut whole = rule("/whole", &[("one", 1)]);
    whole.timeouts = Timeouts { request: short, backend_request: None };
    objects.push(route("all", vec![attempt, whole]));
    let proxy = Proxy::start(objects).await;
    for (path, reason) in [("/attempt", "upstream_timeout"), ("/whole", "deadline_exceeded")] {
        let response = proxy.get(path).await;
        assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
        assert_eq!(response.headers()["x-nebula-reason"], reason);
    }
}

#[tokio::test]
async fn http2_with_prior_knowledge_works_on_both_sides_and_trailers_pass() {
    let address = upstream(|request| async move {
        assert_eq!(request.version(), Version::HTTP_2);
        let trailers = request.into_body().collect().await.unwrap().trailers().cloned();
        Response::new(Full::from(format!("{:?}", trailers.unwrap()["x-last"])))
    })
    .await;
    let mut objects = backend("one", BackendProtocol::H2c, &[address]).to_vec();
    objects.push(route("all", vec![rule("/", &[("one", 1)])]));
    let proxy = Proxy::start(objects).await;
    let io = TokioIo::new(proxy.connect().await);
    let (mut client, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    spawn(async move { drop(connection.await) });
    let trailers = http::HeaderMap::from_iter([("x-last".parse().unwrap(), "end".parse().unwrap())]);
    let body = Full::new(Bytes::from("data")).with_trailers(std::future::ready(Some(Ok(trailers))));
    let request = http::Request::post("http://test.example/").body(body).unwrap();
    let response = collect(client.send_request(request).await.unwrap()).await;
    assert_eq!(response.body(), "\"end\"");
}

#[tokio::test]
async fn a_tunnel_carries_bytes_both_ways_after_101() {
    let address = upstream(|mut request| async move {
        if request.headers().get("upgrade").is_none_or(|token| token != "echo") {
            return Response::builder().status(400).body(Full::default()).unwrap();
        }
        let upgrade = hyper::upgrade::on(&mut request);
        spawn(async move {
            let mut io = TokioIo::new(upgrade.await.unwrap());
            let mut buffer = [0; 64];
            while let Ok(count @ 1..) = io.read(&mut buffer).await {
                io.write_all(&buffer[..count]).await.unwrap();
            }
        });
        let switch = Response::builder().status(101).header("connection", "upgrade").header("upgrade", "echo");
        switch.body(Full::default()).unwrap()
    })
    .await;
    let proxy = Proxy::start(one_backend(address)).await;
    let mut client = proxy.connect().await;
    let head = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
    client.write_all(head).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(client.read_u8().await.unwrap());
    }
    assert!(answer.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&answer));
    client.write_all(b"ping").await.unwrap();
    let mut echo = [0; 4];
    client.read_exact(&mut echo).await.unwrap();
    assert_eq!(&echo, b"ping");
}

#[tokio::test]
async fn a_route_that_changes_takes_no_request_with_it() {
    let (old, new) = (saying("old").await, saying("new").await);
    let mut objects = backend("old", BackendProtocol::Http1, &[old]).to_vec();
    objects.extend(backend("new", BackendProtocol::Http1, &[new]));
    objects.push(route("all", vec![rule("/", &[("old", 1)])]));
    let proxy = Arc::new(Proxy::start(objects).await);
    let done = Arc::new(AtomicUsize::new(0));
    let (editor, edits) = (proxy.clone(), done.clone());
    spawn(async move {
        for round in 0..100 {
            let target = if round % 2 == 0 { "new" } else { "old" };
            assert_eq!(editor.upsert([route("all", vec![rule("/", &[(target, 1)])])]).await, []);
            edits.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
        }
    });
    let mut client = proxy.client().await;
    let end = tokio::time::Instant::now() + Duration::from_mins(1);
    while done.load(Ordering::Relaxed) < 100 {
        assert!(tokio::time::Instant::now() < end, "the editor stands still");
        client.ready().await.unwrap();
        let response = collect(client.send_request(request("/")).await.unwrap()).await;
        assert_eq!(response.status(), StatusCode::OK);
    }
    assert_eq!(proxy.get("/").await.body(), "old");
}

#[tokio::test]
async fn a_listener_comes_and_goes_while_the_engine_runs() {
    let proxy = Proxy::start(one_backend(saying("here").await)).await;
    assert_eq!(proxy.get("/").await.body(), "here");
    let removed = vec![ResourceKey::Listener(listener_key())];
    assert_eq!(proxy.engine.apply(Delta { upserted: Vec::new(), removed }).await, []);
    let address = ("127.0.0.1", proxy.port.get());
    let connects = |address| std::net::TcpStream::connect(address).is_ok();
    eventually(|| (!connects(address)).then_some(())).await;
    let listener = crate::harness::listener(proxy.port, control_plane_model::ListenerProtocol::Http);
    assert_eq!(proxy.upsert([listener]).await, []);
    assert_eq!(proxy.get("/").await.body(), "here");
}

#[tokio::test]
async fn a_port_that_is_taken_is_refused_by_name() {
    let proxy = Proxy::start(one_backend(saying("here").await)).await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().try_into().unwrap();
    let refused = proxy.upsert([crate::harness::listener(port, control_plane_model::ListenerProtocol::Http)]).await;
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].key, ResourceKey::Listener(listener_key()));
    assert!(refused[0].error.contains(&format!("port {port} cannot be opened")), "{}", refused[0].error);
    drop(taken);
    assert_eq!(proxy.engine.apply(Delta::default()).await, [], "it is tried again");
}

#[tokio::test]
async fn a_drain_lets_a_request_finish_and_opens_no_new_connection() {
    let gate = Arc::new(Notify::new());
    let entered = Arc::new(Notify::new());
    let (inside, open) = (entered.clone(), gate.clone());
    let address = upstream(move |_| {
        let (inside, open) = (inside.clone(), open.clone());
        async move {
            inside.notify_one();
            open.notified().await;
            Response::new(Full::from("late"))
        }
    })
    .await;
    let proxy = Arc::new(Proxy::start(one_backend(address)).await);
    let idle = proxy.client().await;
    let mut client = proxy.client().await;
    let draining = proxy.clone();
    let response = async {
        let response = client.send_request(request("/")).await.unwrap();
        assert_eq!(response.headers().get("connection").unwrap(), "close");
        collect(response).await
    };
    let drain = async {
        entered.notified().await;
        let drained = draining.engine.drain(Duration::from_secs(10));
        let opened = async {
            eventually(|| std::net::TcpStream::connect(("127.0.0.1", draining.port.get())).is_err().then_some(()))
                .await;
            gate.notify_one();
        };
        tokio::join!(drained, opened).0
    };
    let (response, drained) = tokio::join!(response, drain);
    assert_eq!(response.body(), "late");
    assert!(drained);
    eventually(|| idle.is_closed().then_some(())).await;
}

#[tokio::test]
async fn a_client_that_is_too_slow_with_its_head_is_closed() {
    let limits = Limits { header_read_timeout: Duration::from_millis(500), ..Limits::default() };
    let proxy = Proxy::start_with(limits, one_backend(saying("x").await)).await;
    let mut client = proxy.connect().await;
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n").await.unwrap();
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(10), client.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "the connection stayed open");
}

#[tokio::test]
async fn a_client_that_goes_away_takes_its_upstream_request_with_it() {
    let (entered, gone) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    struct OnDrop(Arc<Notify>);
    impl Drop for OnDrop {
        fn drop(&mut self) {
            self.0.notify_one();
        }
    }
    let (inside, left) = (entered.clone(), gone.clone());
    let address = upstream(move |_| {
        let (inside, left) = (inside.clone(), OnDrop(left.clone()));
        async move {
            let _left = left;
            inside.notify_one();
            std::future::pending().await
        }
    })
    .await;
    let proxy = Proxy::start(one_backend(address)).await;
    let mut client = proxy.connect().await;
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    entered.notified().await;
    drop(client);
    tokio::time::timeout(Duration::from_secs(10), gone.notified()).await.unwrap();
    let line = proxy.log.lines(1).await.remove(0);
    assert_eq!((&line["status"], &line["flag"]), (&499.into(), &"client_closed".into()));
}

#[tokio::test]
async fn an_endpoint_that_leaves_keeps_no_request() {
    let (one, two) = (saying("one").await, saying("two").await);
    let proxy = Proxy::start(one_backend(one)).await;
    assert_eq!(proxy.get("/").await.body(), "one");
    assert_eq!(proxy.upsert(backend("one", BackendProtocol::Http1, &[two])).await, []);
    assert_eq!(proxy.get("/").await.body(), "two");
    let removed = vec![ResourceKey::Endpoints(backend_key("one")), ResourceKey::Backend(backend_key("one"))];
    proxy.engine.apply(Delta { upserted: Vec::new(), removed }).await;
    assert_eq!(proxy.get("/").await.headers()["x-nebula-reason"], "backend_not_found");
}

#[tokio::test]
async fn the_dump_says_what_is_in_force() {
    let address = saying("here").await;
    let proxy = Proxy::start(one_backend(address)).await;
    let dump = proxy.engine.dump().await;
    assert_eq!(dump["listeners"][0]["is_open"], true);
    assert_eq!(dump["objects"]["endpoints/test/one/80"], serde_json::json!([address.to_string()]));
    let rule = &dump["objects"]["route/http/test/all"]["rules"][0];
    assert_eq!(rule["matches"][0]["path"], serde_json::json!({ "prefix": "/" }));
    assert_eq!((&rule["backends"][0]["backend"], &rule["backends"][0]["weight"]), (&"test/one/80".into(), &1.into()));
}

#[tokio::test]
async fn bytes_behind_a_request_to_upgrade_wait_for_the_101() {
    let (seen, gate) = (Arc::new(std::sync::Mutex::new(Vec::new())), Arc::new(Notify::new()));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (early, open) = (seen.clone(), gate.clone());
    spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        // The proxy has the bytes for long when this ends; what it passes on would be here at once.
        open.notified().await;
        let mut bytes = [0; 64];
        if let Ok(count) = stream.try_read(&mut bytes) {
            early.lock().unwrap().extend_from_slice(&bytes[..count]);
        }
        let switch = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
        stream.write_all(switch).await.unwrap();
        let count = stream.read(&mut bytes).await.unwrap();
        stream.write_all(&bytes[..count]).await.unwrap();
    });
    let mut objects = backend("one", BackendProtocol::Http1, &[address]).to_vec();
    objects.extend(backend("two", BackendProtocol::Http1, &[saying("two").await]));
    objects.push(route("all", vec![rule("/up", &[("one", 1)]), rule("/", &[("two", 1)])]));
    let proxy = Proxy::start(objects).await;
    let mut client = proxy.connect().await;
    let head = b"GET /up HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\nearly";
    client.write_all(head).await.unwrap();
    // Both workers answer later requests meanwhile, so they have looked at the first as well.
    for _ in 0..4 {
        assert_eq!(proxy.get("/").await.body(), "two");
    }
    gate.notify_one();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(client.read_u8().await.unwrap());
    }
    let mut echo = [0; 5];
    client.read_exact(&mut echo).await.unwrap();
    assert_eq!((&echo, seen.lock().unwrap().as_slice()), (b"early", &b""[..]));
}
