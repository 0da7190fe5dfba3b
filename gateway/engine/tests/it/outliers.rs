//! Endpoints that fail while others do not.

use std::time::Duration;

use control_plane_model::{BackendOptions, Ejection, OutlierDetection};
use http::StatusCode;

use crate::harness::{Answers, Proxy, answering, eventually, one_backend};

/// Ejects for an hour after three failures in a row, up to `max_percent` of the endpoints.
fn ejecting(max_percent: u8, panic_percent: u8) -> BackendOptions {
    let base = Duration::from_hours(1);
    let outliers = OutlierDetection {
        interval: Duration::from_secs(10),
        ejection: Ejection { base, maximum: base, jitter_percent: 0, max_percent, at_least_one: false },
        consecutive_5xx: Some(3),
        consecutive_gateway_errors: None,
        consecutive_local_failures: None,
        success_rate: None,
        failure_percentage: None,
    };
    BackendOptions { outliers: Some(outliers), panic_percent, ..BackendOptions::default() }
}

fn ejected(proxy: &Proxy) -> usize {
    let view = proxy.backend_view("one");
    let endpoints = view["endpoints"].as_array().unwrap();
    endpoints.iter().filter(|endpoint| !endpoint["ejected_for_seconds"].is_null()).count()
}

async fn two_endpoints(options: BackendOptions) -> (Proxy, Answers, Answers) {
    let ((first, good), (second, bad)) = (answering().await, answering().await);
    let proxy = Proxy::start(one_backend(&[first, second])).await;
    proxy.protect("one", options).await;
    (proxy, good, bad)
}

/// Asks until so many are ejected.
async fn ask_until_ejected(proxy: &Proxy, count: usize) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while ejected(proxy) < count {
        proxy.get("/").await;
        assert!(tokio::time::Instant::now() < deadline);
    }
}

#[tokio::test]
async fn an_endpoint_that_fails_gets_no_requests_and_the_others_do() {
    let (proxy, good, bad) = two_endpoints(ejecting(50, 50)).await;
    bad.set(500);
    ask_until_ejected(&proxy, 1).await;
    let (good_before, bad_before) = (good.count(), bad.count());
    for _ in 0..50 {
        assert_eq!(proxy.get("/").await.status(), StatusCode::OK);
    }
    assert_eq!((good.count() - good_before, bad.count() - bad_before), (50, 0));
    let metric = r#"backend_ejections_total{backend="test/one/80",cause="consecutive_5xx"} 1"#;
    assert_eq!(proxy.metrics("backend_ejections"), [metric]);
}

#[tokio::test]
async fn no_more_endpoints_are_ejected_than_may_be() {
    let (proxy, good, bad) = two_endpoints(ejecting(50, 0)).await;
    good.set(500);
    bad.set(500);
    ask_until_ejected(&proxy, 1).await;
    for _ in 0..20 {
        assert_eq!(proxy.get("/").await.status(), StatusCode::INTERNAL_SERVER_ERROR);
    }
    assert_eq!(ejected(&proxy), 1);
}

#[tokio::test]
async fn where_too_few_are_left_all_get_requests() {
    let (proxy, good, bad) = two_endpoints(ejecting(100, 50)).await;
    good.set(500);
    bad.set(500);
    ask_until_ejected(&proxy, 2).await;
    good.set(200);
    bad.set(200);
    for _ in 0..20 {
        assert_eq!(proxy.get("/").await.status(), StatusCode::OK);
    }
    assert_eq!(ejected(&proxy), 2);
}

#[tokio::test]
async fn without_a_panic_threshold_a_backend_with_no_good_endpoint_answers_503() {
    let (proxy, good, bad) = two_endpoints(ejecting(100, 0)).await;
    good.set(500);
    bad.set(500);
    ask_until_ejected(&proxy, 2).await;
    let response = proxy.get("/").await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers()["x-nebula-reason"], "no_healthy_endpoints");
}

#[tokio::test]
async fn ejections_outlive_a_change_that_is_not_their_own_and_end_with_their_policy() {
    let (proxy, _good, bad) = two_endpoints(ejecting(50, 50)).await;
    bad.set(500);
    ask_until_ejected(&proxy, 1).await;
    proxy.protect("one", ejecting(50, 10)).await;
    assert_eq!(ejected(&proxy), 1);
    proxy.protect("one", ejecting(60, 10)).await;
    assert_eq!(ejected(&proxy), 0);
    eventually(|| (ejected(&proxy) == 0).then_some(())).await;
}
