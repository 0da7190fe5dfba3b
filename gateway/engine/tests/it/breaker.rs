//! A backend's circuit breaker, as its clients and its operator see it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use control_plane_model::{
    BackendOptions, BackendProtocol, BackendSettings, BackendTimeouts, BreakerWindow, CircuitBreaker, Failures,
    HalfOpen, OpenTime, PolicySpec, StatusRange,
};
use gateway_engine::BreakerCommand;
use http::{HeaderMap, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::{Notify, mpsc},
};
use tokio_stream::wrappers::ReceiverStream;

use crate::harness::{
    self, Answers, Proxy, answering, backend, backend_key, eventually, one_backend, policy, request, route, rule,
    spawn, upstream,
};

const HOUR: Duration = Duration::from_hours(1);

/// Opens after three failures in a row, for `open`; one good probe closes it.
fn breaker(open: Duration) -> CircuitBreaker {
    CircuitBreaker {
        window: BreakerWindow::Calls(100),
        minimum_calls: 100,
        failure_percent: 50,
        slow_calls: None,
        consecutive_failures: Some(3),
        open: OpenTime { duration: open, factor: 1, maximum: open, jitter_percent: 0 },
        half_open: HalfOpen { probes: 1, successes: 1, max_duration: Duration::from_secs(30) },
        ramp: Duration::ZERO,
        failures: Failures::default(),
    }
}

fn options(breaker: CircuitBreaker) -> BackendOptions {
    BackendOptions { breaker: Some(breaker), ..BackendOptions::default() }
}

async fn protected(breaker: CircuitBreaker) -> (Proxy, Answers) {
    let (address, answers) = answering().await;
    let proxy = Proxy::start(one_backend(&[address])).await;
    proxy.protect("one", options(breaker)).await;
    (proxy, answers)
}

fn state(proxy: &Proxy) -> String {
    proxy.backend_view("one")["state"]["breaker"]["state"].as_str().unwrap().to_owned()
}

/// A number of the breaker's view.
fn count(proxy: &Proxy, name: &str) -> u64 {
    proxy.backend_view("one")["state"]["breaker"][name].as_u64().unwrap()
}

async fn fail_three_times(proxy: &Proxy, answers: &Answers) {
    answers.set(500);
    for _ in 0..3 {
        assert_eq!(proxy.get("/").await.status(), StatusCode::INTERNAL_SERVER_ERROR);
    }
    // A call counts once its client has the last byte, or a moment later.
    eventually(|| (state(proxy) == "open").then_some(())).await;
}

#[tokio::test]
async fn a_backend_that_fails_is_left_alone_and_clients_are_told_until_when() {
    let (proxy, answers) = protected(breaker(HOUR)).await;
    fail_three_times(&proxy, &answers).await;
    let response = proxy.get("/").await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers()["x-nebula-reason"], "circuit_open");
    let wait: u64 = response.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((3500..=3600).contains(&wait), "{wait}");
    assert_eq!(answers.count(), 3);
    let labels = r#"backend="test/one/80""#;
    let open = format!(r#"backend_breaker_state{{{labels},state="open"}} 1"#);
    assert_eq!(proxy.metrics("backend_breaker_state"), [open]);
    assert_eq!(proxy.metrics("backend_breaker_openings"), [format!("backend_breaker_openings_total{{{labels}}} 1")]);
    let refused = format!(r#"backend_refused_total{{{labels},reason="circuit_open"}} 1"#);
    assert_eq!(proxy.metrics("backend_refused"), [refused]);
}

#[tokio::test]
async fn a_good_probe_lets_the_traffic_back() {
    let (proxy, answers) = protected(breaker(Duration::from_millis(50))).await;
    fail_three_times(&proxy, &answers).await;
    answers.set(200);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while proxy.get("/").await.status() != StatusCode::OK {
        assert!(tokio::time::Instant::now() < deadline);
    }
    eventually(|| (state(&proxy) == "closed").then_some(())).await;
    assert_eq!(proxy.get("/").await.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_half_open_breaker_lets_exactly_its_probes_through() {
    let (release, came) = (Arc::new(Notify::new()), Arc::new(std::sync::atomic::AtomicUsize::new(0)));
    let (waits, counted) = (release.clone(), came.clone());
    let address = upstream(move |request| {
        let (waits, counted) = (waits.clone(), counted.clone());
        async move {
            if request.uri().path() == "/fail" {
                return Response::builder().status(500).body(Full::default()).unwrap();
            }
            counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            waits.notified().await;
            Response::new(Full::from("probe"))
        }
    })
    .await;
    let proxy = Proxy::start(one_backend(&[address])).await;
    let half_open = HalfOpen { probes: 5, successes: 5, max_duration: Duration::from_secs(30) };
    proxy.protect("one", options(CircuitBreaker { half_open, ..breaker(Duration::from_millis(1)) })).await;
    for _ in 0..3 {
        proxy.get("/fail").await;
    }
    eventually(|| (count(&proxy, "openings") == 1).then_some(())).await;
    // Long enough for the 1 ms of the open state, which starts no earlier than the third answer.
    tokio::time::sleep(Duration::from_millis(5)).await;
    let refusals = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let proxy = Arc::new(proxy);
    for _ in 0..200 {
        let (proxy, refusals) = (proxy.clone(), refusals.clone());
        spawn(async move {
            if proxy.get("/").await.status() == StatusCode::SERVICE_UNAVAILABLE {
                refusals.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            }
        });
    }
    eventually(|| (refusals.load(std::sync::atomic::Ordering::SeqCst) == 195).then_some(())).await;
    // All have been decided on, so no more can come than these.
    eventually(|| (came.load(std::sync::atomic::Ordering::SeqCst) == 5).then_some(())).await;
    (0..5).for_each(|_| release.notify_one());
    eventually(|| (state(&proxy) == "closed").then_some(())).await;
}

#[tokio::test]
async fn an_operator_overrules_the_breaker_and_gives_it_back() {
    let (proxy, answers) = protected(breaker(HOUR)).await;
    proxy.engine.force_breaker(&backend_key("one"), BreakerCommand::Open).unwrap();
    let response = proxy.get("/").await;
    assert_eq!(response.headers()["x-nebula-reason"], "circuit_open");
    assert!(!response.headers().contains_key("retry-after"), "nobody knows how long");
    proxy.engine.force_breaker(&backend_key("one"), BreakerCommand::Closed).unwrap();
    answers.set(500);
    for _ in 0..10 {
        assert_eq!(proxy.get("/").await.status(), StatusCode::INTERNAL_SERVER_ERROR);
    }
    assert_eq!(state(&proxy), "forced_closed");
    proxy.engine.force_breaker(&backend_key("one"), BreakerCommand::Auto).unwrap();
    assert_eq!(state(&proxy), "closed");
    fail_three_times(&proxy, &answers).await;
    let error = proxy.engine.force_breaker(&backend_key("two"), BreakerCommand::Open).unwrap_err();
    assert_eq!(error.to_string(), "there is no backend test/two/80");
}

#[tokio::test]
async fn a_breaker_outlives_a_change_that_is_not_its_own() {
    let (proxy, answers) = protected(breaker(HOUR)).await;
    fail_three_times(&proxy, &answers).await;
    let timeouts = BackendTimeouts { idle: Some(HOUR), ..BackendTimeouts::default() };
    proxy.protect("one", BackendOptions { timeouts, ..options(breaker(HOUR)) }).await;
    assert_eq!(proxy.get("/").await.headers()["x-nebula-reason"], "circuit_open");
    proxy.protect("one", options(CircuitBreaker { consecutive_failures: Some(4), ..breaker(HOUR) })).await;
    assert_eq!(proxy.get("/").await.status(), StatusCode::INTERNAL_SERVER_ERROR);
}

#[tokio::test]
async fn what_counts_as_a_failure_is_the_policys_to_say() {
    let failures = Failures { statuses: vec![StatusRange { first: 429, last: 429 }], ..Failures::default() };
    let (proxy, answers) = protected(CircuitBreaker { failures, ..breaker(HOUR) }).await;
    answers.set(500);
    for _ in 0..5 {
        proxy.get("/").await;
    }
    eventually(|| (count(&proxy, "requests") == 5).then_some(())).await;
    assert_eq!(count(&proxy, "failures"), 0);
    answers.set(429);
    for _ in 0..3 {
        proxy.get("/").await;
    }
    eventually(|| (state(&proxy) == "open").then_some(())).await;
}

#[tokio::test]
async fn a_backend_that_refuses_connections_fails_a_call_once_whatever_its_attempts() {
    let dead = std::net::SocketAddr::from(([127, 0, 0, 1], crate::harness::free_port().get()));
    let proxy = Proxy::start(one_backend(&[dead])).await;
    proxy.protect("one", options(breaker(HOUR))).await;
    for _ in 0..3 {
        assert_eq!(proxy.get("/").await.headers()["x-nebula-reason"], "upstream_connect_failed");
    }
    eventually(|| (state(&proxy) == "open").then_some(())).await;
    assert_eq!(count(&proxy, "failures"), 3);
    assert_eq!(proxy.log.lines(1).await[0]["attempts"], 3);
}

/// A response that the test feeds, frame by frame.
type Feed = mpsc::Sender<Result<Frame<Bytes>, std::io::Error>>;

/// An upstream whose responses are streams, one for each request.
async fn streaming() -> (std::net::SocketAddr, mpsc::Receiver<Feed>) {
    let (opened, streams) = mpsc::channel(16);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let opened = opened.clone();
            spawn(async move {
                let service = hyper::service::service_fn(move |_| {
                    let opened = opened.clone();
                    async move {
                        let (sender, body) = mpsc::channel(4);
                        opened.send(sender).await.unwrap();
                        Ok::<_, std::convert::Infallible>(Response::new(StreamBody::new(ReceiverStream::new(body))))
                    }
                });
                let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                drop(server.serve_connection(TokioIo::new(stream), service).await);
            });
        }
    });
    (address, streams)
}

fn first() -> Frame<Bytes> {
    Frame::data(Bytes::from_static(b"first"))
}

#[tokio::test]
async fn a_stream_counts_at_its_close() {
    let (address, mut streams) = streaming().await;
    let proxy = Proxy::start(one_backend(&[address])).await;
    proxy.protect("one", options(breaker(HOUR))).await;
    let mut client = proxy.client().await;
    let response = client.send_request(request("/")).await.unwrap();
    let stream = streams.recv().await.unwrap();
    stream.send(Ok(first())).await.unwrap();
    assert_eq!(count(&proxy, "requests"), 0);
    drop(stream);
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "first");
    eventually(|| (count(&proxy, "requests") == 1).then_some(())).await;
    assert_eq!(count(&proxy, "failures"), 0);
}

#[tokio::test]
async fn a_stream_that_breaks_off_is_a_failure() {
    let (address, mut streams) = streaming().await;
    let proxy = Proxy::start(one_backend(&[address])).await;
    proxy.protect("one", options(breaker(HOUR))).await;
    let mut client = proxy.client().await;
    let response = client.send_request(request("/")).await.unwrap();
    let stream = streams.recv().await.unwrap();
    stream.send(Ok(first())).await.unwrap();
    stream.send(Err(std::io::Error::other("as planned"))).await.unwrap();
    assert!(response.into_body().collect().await.is_err());
    eventually(|| (count(&proxy, "failures") == 1).then_some(())).await;
}

#[tokio::test]
async fn a_client_that_leaves_says_nothing_of_the_backend() {
    let (address, mut streams) = streaming().await;
    let proxy = Proxy::start(one_backend(&[address])).await;
    proxy.protect("one", options(breaker(HOUR))).await;
    let mut client = proxy.connect().await;
    client.write_all(b"GET / HTTP/1.1\r\nhost: test.example\r\n\r\n").await.unwrap();
    let stream = streams.recv().await.unwrap();
    stream.send(Ok(first())).await.unwrap();
    client.read_u8().await.unwrap();
    drop(client);
    proxy.log.lines(1).await;
    assert_eq!((count(&proxy, "requests"), state(&proxy)), (0, "closed".to_owned()));
}

#[tokio::test]
async fn a_grpc_call_counts_by_the_status_in_its_trailers() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            spawn(async move {
                let service = hyper::service::service_fn(|_| async {
                    let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), "14".parse().unwrap())]);
                    let frames = [Frame::data(Bytes::from_static(b"message")), Frame::trailers(trailers)];
                    let frames = frames.map(Ok::<_, std::convert::Infallible>);
                    let body = StreamBody::new(futures::stream::iter(frames));
                    Ok::<_, std::convert::Infallible>(Response::new(body))
                });
                let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                drop(server.serve_connection(TokioIo::new(stream), service).await);
            });
        }
    });
    let mut objects = backend("one", BackendProtocol::H2c, &[address]).to_vec();
    objects.push(route("all", vec![rule("/", &[("one", 1)])]));
    let proxy = Proxy::start(objects).await;
    let spec = PolicySpec::Backend(Box::new(BackendSettings::new(options(breaker(HOUR))).unwrap()));
    assert_eq!(proxy.upsert([policy("one", spec), harness::protected("one", BackendProtocol::H2c)]).await, []);
    let io = TokioIo::new(proxy.connect().await);
    let (mut client, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    spawn(async move { drop(connection.await) });
    for _ in 0..3 {
        let call = http::Request::post("http://test.example/shop.Cart/Get")
            .header("content-type", "application/grpc")
            .body(Full::<Bytes>::default())
            .unwrap();
        let response = client.send_request(call).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        drop(response.into_body().collect().await.unwrap());
    }
    eventually(|| (state(&proxy) == "open").then_some(())).await;
}
