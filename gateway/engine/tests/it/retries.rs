//! What is tried again, and what is not.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use control_plane_model::{
    BackendOptions, BackendTimeouts, BreakerWindow, CircuitBreaker, Failures, HalfOpen, LocalFailure, OpenTime,
    Retries, RetryBudget, StatusRange,
};
use gateway_engine::BreakerCommand;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use tokio::io::AsyncReadExt as _;

use crate::harness::{Proxy, answering, backend_key, collect, eventually, one_backend, spawn, upstream};

fn retries(limit: u32) -> Retries {
    Retries {
        limit,
        failures: BTreeSet::from([LocalFailure::Connect, LocalFailure::Reset, LocalFailure::Timeout]),
        statuses: vec![StatusRange { first: 503, last: 503 }],
        grpc_codes: BTreeSet::new(),
        any_method: false,
        backoff_base: Duration::from_millis(1),
        backoff_max: Duration::from_millis(1),
        max_body: 1024,
        budget: None,
    }
}

fn options(retries: Retries) -> BackendOptions {
    BackendOptions { retries: Some(retries), ..BackendOptions::default() }
}

fn breaker() -> CircuitBreaker {
    CircuitBreaker {
        window: BreakerWindow::Calls(10),
        minimum_calls: 10,
        failure_percent: 100,
        slow_calls: None,
        consecutive_failures: Some(2),
        open: OpenTime {
            duration: Duration::from_hours(1),
            factor: 1,
            maximum: Duration::from_hours(1),
            jitter_percent: 0,
        },
        half_open: HalfOpen { probes: 1, successes: 1, max_duration: Duration::from_secs(1) },
        ramp: Duration::ZERO,
        failures: Failures::default(),
    }
}

/// A backend that answers 503 so many times, and then with the length of the request's body.
async fn failing_first(times: usize) -> (std::net::SocketAddr, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    let address = upstream(move |request| {
        let counted = counted.clone();
        async move {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let status = if counted.fetch_add(1, Ordering::SeqCst) < times { 503 } else { 200 };
            Response::builder().status(status).body(Full::from(body.len().to_string())).unwrap()
        }
    })
    .await;
    (address, count)
}

async fn send(proxy: &Proxy, method: Method, body: Vec<u8>) -> Response<Bytes> {
    let request = Request::builder().method(method).uri("/").header("host", "test.example").body(Full::from(body));
    collect(proxy.client().await.send_request(request.unwrap()).await.unwrap()).await
}

#[tokio::test]
async fn an_answer_that_the_policy_names_is_tried_again_up_to_the_limit() {
    let (address, count) = failing_first(2).await;
    let proxy = Proxy::start(one_backend(&[address])).await;
    proxy.protect("one", options(retries(1))).await;
    assert_eq!(proxy.get("/").await.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(count.load(Ordering::SeqCst), 2);
    assert_eq!(proxy.get("/").await.status(), StatusCode::OK);
    assert_eq!(proxy.log.lines(1).await[0]["attempts"], 2);
    let made = r#"backend_retries_total{backend="test/one/80",outcome="made"} 1"#;
    assert_eq!(proxy.metrics("backend_retries"), [made]);
}

#[tokio::test]
async fn a_method_that_is_not_idempotent_is_not_tried_again_unless_the_policy_says_so() {
    let (address, count) = failing_first(100).await;
    let proxy = Proxy::start(one_backend(&[address])).await;
    proxy.protect("one", options(retries(1))).await;
    send(&proxy, Method::POST, Vec::new()).await;
    assert_eq!(count.load(Ordering::SeqCst), 1);
    proxy.protect("one", options(Retries { any_method: true, ..retries(1) })).await;
    send(&proxy, Method::POST, Vec::new()).await;
    assert_eq!(count.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_small_body_is_sent_again_whole_and_a_large_one_is_sent_once() {
    let (address, count) = failing_first(1).await;
    let proxy = Proxy::start(one_backend(&[address])).await;
    proxy.protect("one", options(retries(1))).await;
    let response = send(&proxy, Method::PUT, vec![b'x'; 1024]).await;
    assert_eq!((response.status(), &response.body()[..]), (StatusCode::OK, &b"1024"[..]));
    count.store(0, Ordering::SeqCst);
    let response = send(&proxy, Method::PUT, vec![b'x'; 1025]).await;
    assert_eq!((response.status(), &response.body()[..]), (StatusCode::SERVICE_UNAVAILABLE, &b"1025"[..]));
    assert_eq!(count.load(Ordering::SeqCst), 1);
    assert_eq!(proxy.log.lines(2).await[0]["request_bytes"], 1024, "each byte counts once");
}

#[tokio::test]
async fn a_body_of_unknown_length_that_turns_out_too_long_is_sent_once_and_whole() {
    let (address, count) = failing_first(1).await;
    let proxy = Proxy::start(one_backend(&[address])).await;
    proxy.protect("one", options(retries(1))).await;
    let mut client = proxy.connect().await;
    let piece = format!("200\r\n{}\r\n", "x".repeat(0x200));
    let head = "PUT / HTTP/1.1\r\nhost: test.example\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n";
    let request = format!("{head}{}0\r\n\r\n", piece.repeat(5));
    tokio::io::AsyncWriteExt::write_all(&mut client, request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 503") && answer.ends_with("2560"), "{answer}");
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_client_request_counts_once_whatever_its_attempts() {
    let (address, answers) = answering().await;
    answers.set(503);
    let proxy = Proxy::start(one_backend(&[address])).await;
    proxy.protect("one", BackendOptions { breaker: Some(breaker()), ..options(retries(1)) }).await;
    proxy.get("/").await;
    let failures = || proxy.backend_view("one")["state"]["breaker"]["failures"].as_u64().unwrap();
    eventually(|| (failures() == 1).then_some(())).await;
    assert_eq!(answers.count(), 2, "two attempts, one call");
}

#[tokio::test]
async fn a_breaker_that_opens_ends_the_retries_of_calls_under_way() {
    let (home, count) = (Arc::new(std::sync::OnceLock::<Arc<Proxy>>::new()), Arc::new(AtomicUsize::new(0)));
    let (opens, counted) = (home.clone(), count.clone());
    let address = upstream(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        opens.get().unwrap().engine.force_breaker(&backend_key("one"), BreakerCommand::Open).unwrap();
        async { Response::builder().status(503).body(Full::default()).unwrap() }
    })
    .await;
    let proxy = Arc::new(Proxy::start(one_backend(&[address])).await);
    home.set(proxy.clone()).ok().unwrap();
    proxy.protect("one", BackendOptions { breaker: Some(breaker()), ..options(retries(10)) }).await;
    assert_eq!(proxy.get("/").await.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn retries_stay_within_their_budget() {
    let (address, answers) = answering().await;
    answers.set(503);
    let proxy = Proxy::start(one_backend(&[address])).await;
    let budget = RetryBudget { percent: 0, window: Duration::from_hours(1), minimum: 3 };
    proxy.protect("one", options(Retries { budget: Some(budget), ..retries(1) })).await;
    for _ in 0..10 {
        assert_eq!(proxy.get("/").await.status(), StatusCode::SERVICE_UNAVAILABLE);
    }
    assert_eq!(answers.count(), 13);
    assert_eq!(proxy.backend_view("one")["state"]["retries_left"], 0);
    assert_eq!(proxy.metrics("backend_retries").len(), 2);
}

#[tokio::test]
async fn a_connection_that_is_reset_is_tried_again_elsewhere() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let resets = listener.local_addr().unwrap();
    spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            drop(stream.read(&mut [0; 64]).await);
        }
    });
    let (address, answers) = answering().await;
    let proxy = Proxy::start(one_backend(&[resets, address])).await;
    proxy.protect("one", options(retries(1))).await;
    for _ in 0..20 {
        assert_eq!(proxy.get("/").await.status(), StatusCode::OK);
    }
    assert_eq!(answers.count(), 20);
}

#[tokio::test]
async fn a_backend_that_is_too_slow_for_its_policy_is_given_up_and_tried_again() {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    let address = upstream(move |_| {
        let is_first = counted.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            if is_first {
                std::future::pending::<()>().await;
            }
            Response::new(Full::from("answer"))
        }
    })
    .await;
    let proxy = Proxy::start(one_backend(&[address])).await;
    let timeouts = BackendTimeouts { response: Some(Duration::from_millis(100)), ..BackendTimeouts::default() };
    proxy.protect("one", BackendOptions { timeouts, ..options(retries(1)) }).await;
    assert_eq!(proxy.get("/").await.status(), StatusCode::OK);
    count.store(0, Ordering::SeqCst);
    proxy.protect("one", BackendOptions { timeouts, ..BackendOptions::default() }).await;
    assert_eq!(proxy.get("/").await.headers()["x-nebula-reason"], "upstream_timeout");
}
