use std::time::Duration;

use control_plane_model::{GatewayKey, ObjectName, RouteKind};
use http::StatusCode;
use opentelemetry::trace::TraceId;

use super::*;
use crate::telemetry::{DownstreamProtocol, Observation, TlsFailure};

fn route(number: usize) -> RouteKey {
    RouteKey { kind: RouteKind::Http, name: ObjectName::new("shop", format!("route-{number}")) }
}

fn backend(number: usize) -> BackendKey {
    BackendKey { service: ObjectName::new("shop", format!("backend-{number}")), port: 80.try_into().unwrap() }
}

fn listener() -> ListenerKey {
    ListenerKey { gateway: GatewayKey(ObjectName::new("infra", "edge")), listener_set: None, name: "http".into() }
}

fn exposition(registry: &Registry) -> String {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
    text
}

fn series(text: &str) -> usize {
    text.lines().filter(|line| !line.starts_with('#')).count()
}

fn observation(trace: Option<TraceId>) -> Observation {
    Observation { duration: Duration::from_millis(3), request_bytes: 0, response_bytes: 1024, trace }
}

#[test]
fn five_thousand_busy_routes_and_backends_stay_under_sixty_thousand_series() {
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let idle = series(&exposition(&registry));
    let routes: Vec<_> = (0..5000).map(|number| metrics.route(&route(number))).collect();
    let backends: Vec<_> = (0..5000).map(|number| metrics.backend(&backend(number))).collect();
    assert_eq!(series(&exposition(&registry)), idle, "what has no traffic has no series");
    for route in &routes {
        for status in [StatusCode::OK, StatusCode::FOUND, StatusCode::NOT_FOUND, StatusCode::BAD_GATEWAY] {
            route.observe(status);
        }
    }
    for backend in &backends {
        backend.observe(Duration::from_millis(1));
        metrics.attempt_failed(backend, ExchangeFailure::ConnectRefused);
    }
    metrics.listener(&listener()).observe(&observation(None));
    let total = series(&exposition(&registry));
    assert!((50_000..60_000).contains(&total), "{total}");
}

#[test]
fn a_route_that_goes_takes_its_series_along_and_one_that_is_compiled_again_keeps_them() {
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let (kept, gone) = (metrics.route(&route(1)), metrics.route(&route(2)));
    kept.observe(StatusCode::OK);
    gone.observe(StatusCode::OK);
    let again = metrics.route(&route(1));
    again.observe(StatusCode::OK);
    drop((kept, gone));
    let text = exposition(&registry);
    let line = r#"http_requests_total{route="http/shop/route-1",code_class="2xx"} 2"#;
    assert!(text.contains(line), "{text}");
    assert!(!text.contains("route-2"), "{text}");
    drop(again);
    metrics.route(&route(1)).observe(StatusCode::OK);
    assert!(!exposition(&registry).contains("route-1"), "a route that comes back begins at zero, and goes again");
}

#[test]
fn a_sampled_request_is_the_exemplar_of_its_bucket() {
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let listener = metrics.listener(&listener());
    listener.observe(&observation(None));
    listener.observe(&observation(Some(TraceId::from(0x00c0_ffee))));
    let text = exposition(&registry);
    let bucket = r#"http_request_duration_seconds_bucket{le="0.005",listener="infra/edge/http",traced="true"} 1"#;
    let exemplar = r#" # {trace_id="00000000000000000000000000c0ffee"} 0.003"#;
    assert!(text.contains(&format!("{bucket}{exemplar}")), "{text}");
    let count = r#"http_request_duration_seconds_count{listener="infra/edge/http",traced="false"} 1"#;
    assert!(text.contains(count), "{text}");
    assert!(text.contains(r#"http_response_body_bytes_total{listener="infra/edge/http"} 2048"#), "{text}");
}

#[test]
fn connections_are_active_while_they_live() {
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let port = metrics.port(8443);
    let connection = port.opened(DownstreamProtocol::Http2);
    port.tls_failed(TlsFailure::Timeout);
    let request = metrics.request_started();
    let text = exposition(&registry);
    for line in [
        r#"downstream_connections_active{port="8443",protocol="http2"} 1"#,
        r#"tls_handshake_failures_total{port="8443",reason="timeout"} 1"#,
        "http_requests_active 1",
    ] {
        assert!(text.contains(line), "{line} is not in {text}");
    }
    drop((connection, request));
    let text = exposition(&registry);
    for line in [
        r#"downstream_connections_active{port="8443",protocol="http2"} 0"#,
        r#"downstream_connections_total{port="8443",protocol="http2"} 1"#,
        "http_requests_active 0",
    ] {
        assert!(text.contains(line), "{line} is not in {text}");
    }
}

#[test]
fn what_the_process_counts_has_one_name_each() {
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    metrics.local_reply("no_route");
    metrics.attempt(PoolOutcome::Reused);
    metrics.unmatched().observe(StatusCode::NOT_FOUND);
    let now = UNIX_EPOCH + Duration::from_secs(1_795_426_205);
    metrics.config_applied(ConfigOutcome::Partial { refused: 3 }, now);
    let text = exposition(&registry);
    for line in [
        r#"http_local_replies_total{reason="no_route"} 1"#,
        r#"upstream_attempts_total{connection="reused"} 1"#,
        r#"upstream_attempt_failures_total{reason="reset"} 0"#,
        r#"http_requests_total{route="unmatched",code_class="4xx"} 1"#,
        r#"config_applies_total{outcome="partial"} 1"#,
        "config_objects_refused_total 3",
        "config_applied_timestamp_seconds 1795426205",
        "access_log_dropped_lines_total 0",
        "trace_failed_spans_total 0",
    ] {
        assert!(text.contains(line), "{line} is not in {text}");
    }
    let names: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    let unique: std::collections::BTreeSet<&str> = names.iter().copied().collect();
    assert_eq!(names.len(), unique.len());
}

#[test]
fn every_metric_is_described() {
    let description = include_str!("../../../../../docs/telemetry.md");
    let mut registry = Registry::default();
    let _metrics = Metrics::register(&mut registry);
    let text = exposition(&registry);
    let mut names = 0;
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').unwrap();
        let name = if kind == "counter" { format!("{name}_total") } else { name.to_owned() };
        assert!(description.contains(&format!("`{name}`")), "{name} is not in docs/telemetry.md");
        names += 1;
    }
    assert!(names > 20, "{names}");
}
