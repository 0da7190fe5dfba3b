//! Settings of a BackendPolicy as JSON. Times are in seconds.

use std::{collections::BTreeSet, time::Duration};

use control_plane_model::{
    BackendSettings, BackendTimeouts, Balance, BreakerWindow, CircuitBreaker, Fallback, HashKey, HealthCheck,
    HealthProbe, LocalFailure, OutlierDetection, Retries, StatusRange,
};
use serde_json::{Value, json};

use super::policy::present;

/// What a policy says; parts that it does not have are left out.
pub(super) fn settings(settings: &BackendSettings) -> Value {
    let limits = settings.limits.map(
        |limits| json!({ "max": limits.max, "pending": limits.pending, "max_wait_seconds": seconds(limits.max_wait) }),
    );
    let adaptive = settings.adaptive.map(|limit| {
        json!({
            "min": limit.min,
            "max": limit.max,
            "initial": limit.initial,
            "window_seconds": seconds(limit.window),
        })
    });
    present([
        ("limits", limits),
        ("adaptive", adaptive),
        ("breaker", settings.breaker.as_ref().map(breaker)),
        ("outliers", settings.outliers.as_ref().map(outliers)),
        ("health_check", settings.health_check.as_ref().map(health_check)),
        ("panic_percent", Some(settings.panic_percent.into())),
        ("balance", Some(balance(&settings.balance))),
        ("retries", settings.retries.as_ref().map(retries)),
        ("timeouts", Some(timeouts(settings.timeouts))),
        ("fallback", settings.fallback.as_ref().map(fallback)),
    ])
}

fn breaker(breaker: &CircuitBreaker) -> Value {
    let window = match breaker.window {
        BreakerWindow::Calls(size) => json!({ "requests": size }),
        BreakerWindow::Time(length) => json!({ "seconds": seconds(length) }),
    };
    let slow =
        breaker.slow_calls.map(|slow| json!({ "threshold_seconds": seconds(slow.threshold), "percent": slow.percent }));
    json!({
        "window": window,
        "minimum_requests": breaker.minimum_calls,
        "failure_percent": breaker.failure_percent,
        "slow": slow,
        "consecutive_failures": breaker.consecutive_failures,
        "open": {
            "seconds": seconds(breaker.open.duration),
            "factor": breaker.open.factor,
            "maximum_seconds": seconds(breaker.open.maximum),
            "jitter_percent": breaker.open.jitter_percent,
        },
        "half_open": {
            "probes": breaker.half_open.probes,
            "successes": breaker.half_open.successes,
            "maximum_seconds": seconds(breaker.half_open.max_duration),
        },
        "ramp_seconds": seconds(breaker.ramp),
        "failures": {
            "statuses": ranges(&breaker.failures.statuses),
            "grpc_codes": codes(&breaker.failures.grpc_codes),
        },
    })
}

fn outliers(outliers: &OutlierDetection) -> Value {
    let ejection = &outliers.ejection;
    present([
        ("interval_seconds", Some(seconds(outliers.interval).into())),
        ("consecutive_5xx", outliers.consecutive_5xx.map(Value::from)),
        ("consecutive_gateway_errors", outliers.consecutive_gateway_errors.map(Value::from)),
        ("consecutive_local_failures", outliers.consecutive_local_failures.map(Value::from)),
        (
            "success_rate",
            outliers.success_rate.map(|rate| {
                json!({
                    "minimum_endpoints": rate.minimum_endpoints,
                    "minimum_requests": rate.minimum_calls,
                    "deviations": rate.deviations,
                })
            }),
        ),
        (
            "failure_percentage",
            outliers.failure_percentage.map(|rate| {
                json!({
                    "minimum_endpoints": rate.minimum_endpoints,
                    "minimum_requests": rate.minimum_calls,
                    "percent": rate.percent,
                })
            }),
        ),
        (
            "ejection",
            Some(json!({
                "seconds": seconds(ejection.base),
                "maximum_seconds": seconds(ejection.maximum),
                "jitter_percent": ejection.jitter_percent,
                "max_percent": ejection.max_percent,
                "at_least_one": ejection.at_least_one,
            })),
        ),
    ])
}

fn health_check(check: &HealthCheck) -> Value {
    let probe = match &check.probe {
        HealthProbe::Tcp => json!({ "tcp": {} }),
        HealthProbe::Http { path, host, statuses } => {
            let host = host.as_ref().map(|host| String::from_utf8_lossy(host.as_bytes()).into_owned());
            json!({ "http": { "path": path, "host": host, "statuses": ranges(statuses) } })
        }
        HealthProbe::Grpc { service } => json!({ "grpc": { "service": service } }),
    };
    json!({
        "interval_seconds": seconds(check.interval),
        "timeout_seconds": seconds(check.timeout),
        "jitter_percent": check.jitter_percent,
        "healthy_threshold": check.healthy_threshold,
        "unhealthy_threshold": check.unhealthy_threshold,
        "port": check.port,
        "probe": probe,
    })
}

fn balance(balance: &Balance) -> Value {
    let hashed = |key: &HashKey| match key {
        HashKey::Address => json!("address"),
        HashKey::Header(name) => json!({ "header": name.as_str() }),
        HashKey::Cookie(name) => json!({ "cookie": name }),
    };
    match balance {
        Balance::PeakEwma => json!("peak_ewma"),
        Balance::LeastRequest => json!("least_request"),
        Balance::RoundRobin => json!("round_robin"),
        Balance::RingHash(key) => json!({ "ring_hash": hashed(key) }),
        Balance::Maglev(key) => json!({ "maglev": hashed(key) }),
    }
}

fn retries(retries: &Retries) -> Value {
    let failure = |failure: &LocalFailure| match failure {
        LocalFailure::Connect => "connect",
        LocalFailure::Reset => "reset",
        LocalFailure::Timeout => "timeout",
    };
    let budget = retries.budget.map(|budget| {
        json!({
            "percent": budget.percent,
            "window_seconds": seconds(budget.window),
            "minimum": budget.minimum,
        })
    });
    json!({
        "limit": retries.limit,
        "failures": retries.failures.iter().map(failure).collect::<Vec<_>>(),
        "statuses": ranges(&retries.statuses),
        "grpc_codes": codes(&retries.grpc_codes),
        "any_method": retries.any_method,
        "backoff_seconds": [seconds(retries.backoff_base), seconds(retries.backoff_max)],
        "max_body": retries.max_body,
        "budget": budget,
    })
}

fn timeouts(timeouts: BackendTimeouts) -> Value {
    let limit = |limit: Option<Duration>| limit.map(|limit| seconds(limit).into());
    present([
        ("connect_seconds", limit(timeouts.connect)),
        ("response_seconds", limit(timeouts.response)),
        ("attempt_seconds", limit(timeouts.attempt)),
        ("idle_seconds", limit(timeouts.idle)),
    ])
}

/// Without the body, which may be long.
fn fallback(fallback: &Fallback) -> Value {
    let Fallback::Response(response) = fallback;
    json!({ "response": { "status": response.status.as_u16(), "body_bytes": response.body.len() } })
}

fn ranges(ranges: &[StatusRange]) -> Value {
    ranges.iter().map(|range| format!("{}-{}", range.first, range.last)).collect()
}

fn codes(codes: &BTreeSet<u8>) -> Value {
    codes.iter().copied().map(Value::from).collect()
}

fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}
