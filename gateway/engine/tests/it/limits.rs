//! How many requests at once a backend gets, and those that wait.

use std::{sync::Arc, time::Duration};

use control_plane_model::{AdaptiveLimit, BackendOptions, ConcurrencyLimits, Fallback, FallbackResponse};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::Notify,
};

use crate::harness::{Proxy, eventually, one_backend, request, spawn, upstream};

fn limited(max: u32, pending: u32, max_wait: Duration) -> BackendOptions {
    BackendOptions { limits: Some(ConcurrencyLimits { max, pending, max_wait }), ..BackendOptions::default() }
}

/// A backend that answers when the test says so.
async fn waiting() -> (std::net::SocketAddr, Arc<Notify>) {
    let release = Arc::new(Notify::new());
    let waits = release.clone();
    let address = upstream(move |_| {
        let waits = waits.clone();
        async move {
            waits.notified().await;
            Response::new(Full::from("answer"))
        }
    })
    .await;
    (address, release)
}

fn shown(proxy: &Proxy, name: &str) -> u64 {
    proxy.backend_view("one")["state"]["limits"][name].as_u64().unwrap()
}

/// Sends a request in the background; its status comes through the channel.
fn send(proxy: &Arc<Proxy>) -> tokio::sync::oneshot::Receiver<StatusCode> {
    let (sender, status) = tokio::sync::oneshot::channel();
    let proxy = proxy.clone();
    spawn(async move {
        let _ = sender.send(proxy.get("/").await.status());
    });
    status
}

#[tokio::test]
async fn what_is_above_the_limit_is_refused_and_what_ends_makes_room() {
    let (address, release) = waiting().await;
    let proxy = Arc::new(Proxy::start(one_backend(&[address])).await);
    proxy.protect("one", limited(2, 0, Duration::from_secs(1))).await;
    let (first, second) = (send(&proxy), send(&proxy));
    eventually(|| (shown(&proxy, "in_flight") == 2).then_some(())).await;
    let refused = proxy.get("/").await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.headers()["x-nebula-reason"], "backend_at_limit");
    (0..2).for_each(|_| release.notify_one());
    assert_eq!((first.await.unwrap(), second.await.unwrap()), (StatusCode::OK, StatusCode::OK));
    eventually(|| (shown(&proxy, "in_flight") == 0).then_some(())).await;
}

#[tokio::test]
async fn a_request_that_may_wait_has_its_turn_and_no_more_wait_than_may() {
    let (address, release) = waiting().await;
    let proxy = Arc::new(Proxy::start(one_backend(&[address])).await);
    proxy.protect("one", limited(1, 1, Duration::from_secs(30))).await;
    let first = send(&proxy);
    eventually(|| (shown(&proxy, "in_flight") == 1).then_some(())).await;
    let second = send(&proxy);
    eventually(|| (shown(&proxy, "pending") == 1).then_some(())).await;
    assert_eq!(proxy.get("/").await.headers()["x-nebula-reason"], "too_many_pending");
    release.notify_one();
    assert_eq!(first.await.unwrap(), StatusCode::OK);
    release.notify_one();
    assert_eq!(second.await.unwrap(), StatusCode::OK);
}

#[tokio::test]
async fn a_request_waits_no_longer_than_it_may() {
    let (address, _release) = waiting().await;
    let proxy = Arc::new(Proxy::start(one_backend(&[address])).await);
    proxy.protect("one", limited(1, 1, Duration::from_millis(20))).await;
    let _first = send(&proxy);
    eventually(|| (shown(&proxy, "in_flight") == 1).then_some(())).await;
    assert_eq!(proxy.get("/").await.headers()["x-nebula-reason"], "backend_at_limit");
    assert_eq!(shown(&proxy, "pending"), 0);
}

#[tokio::test]
async fn an_upgraded_connection_holds_its_place_until_it_ends() {
    let address = upstream(|mut request| async move {
        if request.headers().contains_key("upgrade") {
            spawn(async move {
                let mut io = TokioIo::new(hyper::upgrade::on(&mut request).await.unwrap());
                // Until the other side closes.
                drop(io.read_to_end(&mut Vec::new()).await);
            });
            let answer = Response::builder().status(101).header("connection", "upgrade").header("upgrade", "echo");
            return answer.body(Full::default()).unwrap();
        }
        Response::new(Full::from("answer"))
    })
    .await;
    let proxy = Proxy::start(one_backend(&[address])).await;
    proxy.protect("one", limited(1, 0, Duration::from_secs(1))).await;
    let mut client = proxy.connect().await;
    let head = b"GET / HTTP/1.1\r\nhost: test.example\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
    client.write_all(head).await.unwrap();
    let mut answer = [0; 12];
    client.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 101");
    assert_eq!(proxy.get("/").await.headers()["x-nebula-reason"], "backend_at_limit");
    drop(client);
    eventually(|| (shown(&proxy, "in_flight") == 0).then_some(())).await;
    assert_eq!(proxy.get("/").await.status(), StatusCode::OK);
}

#[tokio::test]
async fn an_adaptive_limit_refuses_what_is_above_it() {
    let (address, release) = waiting().await;
    let proxy = Arc::new(Proxy::start(one_backend(&[address])).await);
    let adaptive = AdaptiveLimit { min: 1, max: 10, initial: 1, window: Duration::from_secs(1) };
    proxy.protect("one", BackendOptions { adaptive: Some(adaptive), ..BackendOptions::default() }).await;
    let first = send(&proxy);
    let in_flight = || proxy.backend_view("one")["state"]["adaptive"]["in_flight"].as_u64().unwrap();
    eventually(|| (in_flight() == 1).then_some(())).await;
    assert_eq!(proxy.get("/").await.headers()["x-nebula-reason"], "adaptive_limit");
    release.notify_one();
    assert_eq!(first.await.unwrap(), StatusCode::OK);
}

#[tokio::test]
async fn clients_get_the_fallback_in_place_of_an_answer() {
    let (address, _release) = waiting().await;
    let proxy = Arc::new(Proxy::start(one_backend(&[address])).await);
    let fallback = FallbackResponse {
        status: StatusCode::OK,
        content_type: HeaderValue::from_static("application/json"),
        body: b"[]".as_slice().into(),
    };
    let fallback = Some(Fallback::Response(fallback));
    proxy.protect("one", BackendOptions { fallback, ..limited(1, 0, Duration::from_secs(1)) }).await;
    let _first = send(&proxy);
    eventually(|| (shown(&proxy, "in_flight") == 1).then_some(())).await;
    let response = proxy.get("/").await;
    assert_eq!((response.status(), &response.body()[..]), (StatusCode::OK, &b"[]"[..]));
    assert_eq!(response.headers()["content-type"], "application/json");
    assert_eq!(response.headers()["x-nebula-reason"], "backend_at_limit");
    let mut client = proxy.client().await;
    let mut call = request("/shop.Cart/Get");
    call.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    let response = client.send_request(call).await.unwrap();
    assert_eq!(response.headers()["grpc-status"], "14", "a gRPC client could not read it");
}
