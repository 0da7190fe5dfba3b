//! Endpoints that are asked whether they are well.

use std::{num::NonZeroU16, time::Duration};

use bytes::Bytes;
use control_plane_model::{
    BackendOptions, Ejection, FailurePercentage, HealthCheck, HealthProbe, OutlierDetection, StatusRange,
};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::{Full, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::harness::{Answers, Proxy, answering, eventually, free_port, one_backend, spawn, upstream};

fn checked(probe: HealthProbe) -> BackendOptions {
    let health_check = HealthCheck {
        interval: Duration::from_millis(100),
        timeout: Duration::from_secs(5),
        jitter_percent: 0,
        healthy_threshold: 1,
        unhealthy_threshold: 2,
        port: None,
        probe,
    };
    BackendOptions { health_check: Some(health_check), panic_percent: 0, ..BackendOptions::default() }
}

fn http_probe(path: &str, statuses: Vec<StatusRange>) -> HealthProbe {
    HealthProbe::Http { path: path.into(), host: Some(HeaderValue::from_static("health.example")), statuses }
}

fn healthy(proxy: &Proxy) -> usize {
    let view = proxy.backend_view("one");
    view["endpoints"].as_array().unwrap().iter().filter(|endpoint| endpoint["is_healthy"] == true).count()
}

async fn until_healthy(proxy: &Proxy, count: usize) {
    eventually(|| (healthy(proxy) == count).then_some(())).await;
}

#[tokio::test]
async fn an_endpoint_whose_checks_fail_gets_no_requests_until_they_pass() {
    let ((first, good), (second, bad)) = (answering().await, answering().await);
    let proxy = Proxy::start(one_backend(&[first, second])).await;
    bad.set(503);
    proxy.protect("one", checked(http_probe("/healthz", Vec::new()))).await;
    until_healthy(&proxy, 1).await;
    for _ in 0..20 {
        assert_eq!(proxy.get("/").await.status(), StatusCode::OK);
    }
    let metric = r#"backend_unhealthy_endpoints{backend="test/one/80"} 1"#;
    assert_eq!(proxy.metrics("backend_unhealthy_endpoints"), [metric]);
    good.set(503);
    until_healthy(&proxy, 0).await;
    assert_eq!(proxy.get("/").await.headers()["x-nebula-reason"], "no_healthy_endpoints");
    bad.set(200);
    until_healthy(&proxy, 1).await;
    assert_eq!(proxy.get("/").await.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_check_asks_for_the_path_and_the_host_and_takes_the_statuses_that_the_policy_names() {
    let address = upstream(|request| async move {
        let asked = request.uri().path() == "/ready" && request.headers()["host"] == "health.example";
        Response::builder().status(if asked { 418 } else { 200 }).body(Full::default()).unwrap()
    })
    .await;
    let proxy = Proxy::start(one_backend(&[address])).await;
    proxy.protect("one", checked(http_probe("/ready", vec![StatusRange { first: 400, last: 499 }]))).await;
    // Two intervals in which it could have been found unhealthy.
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(healthy(&proxy), 1);
    proxy.protect("one", checked(http_probe("/other", vec![StatusRange { first: 400, last: 499 }]))).await;
    until_healthy(&proxy, 0).await;
}

#[tokio::test]
async fn an_endpoint_that_takes_no_connection_is_unhealthy_on_the_port_that_is_asked() {
    let (address, _) = answering().await;
    let proxy = Proxy::start(one_backend(&[address])).await;
    let mut options = checked(HealthProbe::Tcp);
    let dead = NonZeroU16::new(free_port().get()).unwrap();
    if let Some(check) = &mut options.health_check {
        check.port = Some(dead);
    }
    proxy.protect("one", options).await;
    until_healthy(&proxy, 0).await;
    proxy.protect("one", checked(HealthProbe::Tcp)).await;
    assert_eq!(healthy(&proxy), 1, "another check knows nothing bad of it");
}

/// A gRPC server whose health service answers with this message.
async fn grpc_health(message: &'static [u8]) -> std::net::SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            spawn(async move {
                let service =
                    hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| async move {
                        assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
                        let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]);
                        let frames = [Frame::data(Bytes::from_static(message)), Frame::trailers(trailers)];
                        let frames = frames.map(Ok::<_, std::convert::Infallible>);
                        let body = StreamBody::new(futures::stream::iter(frames));
                        Ok::<_, std::convert::Infallible>(Response::new(body))
                    });
                let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                drop(server.serve_connection(TokioIo::new(stream), service).await);
            });
        }
    });
    address
}

#[tokio::test]
async fn a_grpc_endpoint_is_healthy_while_it_says_that_it_serves() {
    let serving = grpc_health(&[0, 0, 0, 0, 2, 8, 1]).await;
    let not_serving = grpc_health(&[0, 0, 0, 0, 2, 8, 2]).await;
    let proxy = Proxy::start(one_backend(&[serving, not_serving])).await;
    proxy.protect("one", checked(HealthProbe::Grpc { service: "shop.Cart".into() })).await;
    until_healthy(&proxy, 1).await;
    let view = proxy.backend_view("one");
    let sick: Vec<_> = view["endpoints"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|endpoint| endpoint["is_healthy"] == false)
        .map(|endpoint| endpoint["address"].clone())
        .collect();
    assert_eq!(sick, [not_serving.to_string()]);
}

#[tokio::test]
async fn an_endpoint_whose_rate_of_failures_is_too_high_is_ejected_when_the_interval_ends() {
    let ((first, good), (second, bad)): ((_, Answers), (_, Answers)) = (answering().await, answering().await);
    let proxy = Proxy::start(one_backend(&[first, second])).await;
    bad.set(500);
    let base = Duration::from_hours(1);
    let outliers = OutlierDetection {
        interval: Duration::from_secs(1),
        ejection: Ejection { base, maximum: base, jitter_percent: 0, max_percent: 50, at_least_one: false },
        consecutive_5xx: None,
        consecutive_gateway_errors: None,
        consecutive_local_failures: None,
        success_rate: None,
        failure_percentage: Some(FailurePercentage { minimum_endpoints: 1, minimum_calls: 5, percent: 80 }),
    };
    proxy.protect("one", BackendOptions { outliers: Some(outliers), ..BackendOptions::default() }).await;
    let ejected = || {
        let view = proxy.backend_view("one");
        let endpoints = view["endpoints"].as_array().unwrap();
        endpoints.iter().any(|endpoint| !endpoint["ejected_for_seconds"].is_null())
    };
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while !ejected() {
        proxy.get("/").await;
        assert!(tokio::time::Instant::now() < deadline);
    }
    let before = (good.count(), bad.count());
    for _ in 0..20 {
        assert_eq!(proxy.get("/").await.status(), StatusCode::OK);
    }
    assert_eq!((good.count(), bad.count()), (before.0 + 20, before.1));
}
