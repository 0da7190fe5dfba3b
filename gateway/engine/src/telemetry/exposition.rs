//! How objects' metrics are written. What has counted nothing is left out.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeMetric as _, MetricEncoder, NoLabelSet},
    metrics::MetricType,
};

use super::objects::{
    BREAKER_STATES, BackendMetrics, CODE_CLASSES, DownstreamProtocol, EJECTION_CAUSES, ListenerMetrics, PortMetrics,
    REFUSALS, RouteMetrics, TlsFailure,
};

/// Writes one counter, unless it counted nothing.
fn counter(family: &mut MetricEncoder<'_>, labels: &[(&str, &str)], count: &AtomicU64) -> fmt::Result {
    match count.load(Ordering::Relaxed) {
        0 => Ok(()),
        count => family.encode_family(&labels)?.encode_counter::<NoLabelSet, u64, u64>(&count, None),
    }
}

pub(super) fn routes(encoder: &mut DescriptorEncoder<'_>, routes: &[Arc<RouteMetrics>]) -> fmt::Result {
    let help = "Requests answered, by route and class of status code";
    let mut family = encoder.encode_descriptor("http_requests", help, None, MetricType::Counter)?;
    for route in routes {
        for (class, count) in CODE_CLASSES.iter().zip(&route.requests) {
            counter(&mut family, &[("route", &route.label), ("code_class", class)], count)?;
        }
    }
    Ok(())
}

pub(super) fn listeners(encoder: &mut DescriptorEncoder<'_>, listeners: &[Arc<ListenerMetrics>]) -> fmt::Result {
    let help = "Time from a request's head received to its response's last byte sent; sampled requests (traced) apart";
    let mut family = encoder.encode_descriptor("http_request_duration_seconds", help, None, MetricType::Histogram)?;
    for listener in listeners {
        let label = listener.label.as_str();
        if listener.durations.count() > 0 {
            listener.durations.encode(family.encode_family(&[("listener", label), ("traced", "false")])?)?;
        }
        if listener.traced_count.load(Ordering::Relaxed) > 0 {
            listener.traced.encode(family.encode_family(&[("listener", label), ("traced", "true")])?)?;
        }
    }
    let help = "Bytes of request bodies received";
    let mut family = encoder.encode_descriptor("http_request_body_bytes", help, None, MetricType::Counter)?;
    for listener in listeners {
        counter(&mut family, &[("listener", &listener.label)], &listener.request_bytes)?;
    }
    let help = "Bytes of response bodies sent";
    let mut family = encoder.encode_descriptor("http_response_body_bytes", help, None, MetricType::Counter)?;
    for listener in listeners {
        counter(&mut family, &[("listener", &listener.label)], &listener.response_bytes)?;
    }
    Ok(())
}

pub(super) fn backends(encoder: &mut DescriptorEncoder<'_>, backends: &[Arc<BackendMetrics>]) -> fmt::Result {
    let help = "Time from a request's head sent to a backend to its response's head received, for each attempt";
    let name = "http_upstream_request_duration_seconds";
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
    for backend in backends.iter().filter(|backend| backend.durations.count() > 0) {
        backend.durations.encode(family.encode_family(&[("backend", backend.label.as_str())])?)?;
    }
    let help = "Connections to a backend that could not be made";
    let mut family = encoder.encode_descriptor("upstream_connect_failures", help, None, MetricType::Counter)?;
    for backend in backends {
        counter(&mut family, &[("backend", &backend.label)], &backend.connect_failures)?;
    }
    policies(encoder, backends)
}

/// What the policies of backends have done. Of a breaker's states only the present one has a series.
fn policies(encoder: &mut DescriptorEncoder<'_>, backends: &[Arc<BackendMetrics>]) -> fmt::Result {
    let counts = || backends.iter().filter_map(|backend| Some((backend.label.as_str(), backend.policy.get()?)));
    let help = "1 for the state that a backend's circuit breaker is in";
    let mut family = encoder.encode_descriptor("backend_breaker_state", help, None, MetricType::Gauge)?;
    for (label, counts) in counts() {
        let place = usize::from(counts.breaker.load(Ordering::Relaxed)).checked_sub(1);
        if let Some(state) = place.and_then(|place| BREAKER_STATES.get(place)) {
            family.encode_family(&[("backend", label), ("state", state.as_str())])?.encode_gauge(&1i64)?;
        }
    }
    let help = "Times that a backend's circuit breaker opened";
    let mut family = encoder.encode_descriptor("backend_breaker_openings", help, None, MetricType::Counter)?;
    for (label, counts) in counts() {
        counter(&mut family, &[("backend", label)], &counts.openings)?;
    }
    let help = "Endpoints that health checks find unhealthy";
    let mut family = encoder.encode_descriptor("backend_unhealthy_endpoints", help, None, MetricType::Gauge)?;
    for (label, counts) in counts() {
        let unhealthy = counts.unhealthy.load(Ordering::Relaxed);
        family.encode_family(&[("backend", label)])?.encode_gauge(&unhealthy)?;
    }
    let help = "Endpoints that were ejected, by cause";
    let mut family = encoder.encode_descriptor("backend_ejections", help, None, MetricType::Counter)?;
    for (label, counts) in counts() {
        for (cause, count) in EJECTION_CAUSES.iter().zip(&counts.ejections) {
            counter(&mut family, &[("backend", label), ("cause", cause.as_str())], count)?;
        }
    }
    let help = "Requests that a backend's policy refused, by reason";
    let mut family = encoder.encode_descriptor("backend_refused", help, None, MetricType::Counter)?;
    for (label, counts) in counts() {
        for (reason, count) in REFUSALS.iter().zip(&counts.refused) {
            counter(&mut family, &[("backend", label), ("reason", reason.word())], count)?;
        }
    }
    let help = "Retries, and those that the budget did not allow";
    let mut family = encoder.encode_descriptor("backend_retries", help, None, MetricType::Counter)?;
    for (label, counts) in counts() {
        counter(&mut family, &[("backend", label), ("outcome", "made")], &counts.retries)?;
        counter(&mut family, &[("backend", label), ("outcome", "over_budget")], &counts.retries_over_budget)?;
    }
    Ok(())
}

pub(super) fn ports(encoder: &mut DescriptorEncoder<'_>, ports: &[Arc<PortMetrics>]) -> fmt::Result {
    let help = "Connections of clients";
    let mut family = encoder.encode_descriptor("downstream_connections", help, None, MetricType::Counter)?;
    for port in ports {
        for (protocol, count) in DownstreamProtocol::ALL.iter().zip(&port.opened) {
            counter(&mut family, &[("port", &port.label), ("protocol", protocol.as_str())], count)?;
        }
    }
    let help = "Connections of clients that are open";
    let mut family = encoder.encode_descriptor("downstream_connections_active", help, None, MetricType::Gauge)?;
    for port in ports {
        for (protocol, active) in DownstreamProtocol::ALL.iter().zip(&port.active) {
            let labels = [("port", port.label.as_str()), ("protocol", protocol.as_str())];
            family.encode_family(&labels)?.encode_gauge(&active.load(Ordering::Relaxed))?;
        }
    }
    let help = "Connections of clients that were closed at once, as there are as many as may be";
    let mut family = encoder.encode_descriptor("downstream_connections_refused", help, None, MetricType::Counter)?;
    for port in ports {
        counter(&mut family, &[("port", &port.label)], &port.refused)?;
    }
    let help = "TLS handshakes of clients that failed";
    let mut family = encoder.encode_descriptor("tls_handshake_failures", help, None, MetricType::Counter)?;
    for port in ports {
        for (reason, count) in TlsFailure::ALL.iter().zip(&port.tls_failures) {
            counter(&mut family, &[("port", &port.label), ("reason", reason.as_str())], count)?;
        }
    }
    Ok(())
}
