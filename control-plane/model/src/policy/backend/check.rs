//! The ranges of a BackendPolicy's fields.

use std::{fmt::Display, ops::RangeInclusive, time::Duration};

use super::{
    AdaptiveLimit, BackendOptions, BackendTimeouts, Balance, BreakerWindow, CircuitBreaker, ConcurrencyLimits,
    Fallback, FallbackResponse, HashKey, HealthCheck, HealthProbe, OutlierDetection, Retries, StatusRange,
};

/// A field of a BackendPolicy is outside its range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} must be {allowed}")]
pub struct InvalidBackendSettings {
    /// The field's path in the custom resource, from `spec`.
    pub field: String,
    /// What would be accepted, for people.
    pub allowed: String,
}

type Checked = Result<(), InvalidBackendSettings>;

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);
const CALLS: RangeInclusive<u32> = 1..=10_000;
const PERCENT: RangeInclusive<u8> = 1..=100;
const JITTER: RangeInclusive<u8> = 0..=50;
/// Status ranges that one list may have.
const MAX_RANGES: usize = 16;
const MAX_FALLBACK_BODY: usize = 64 << 10;

pub(super) fn options(options: &BackendOptions) -> Checked {
    let BackendOptions {
        limits,
        adaptive,
        breaker,
        outliers,
        health_check,
        panic_percent,
        balance,
        retries,
        timeouts,
        fallback,
    } = options;
    limits.as_ref().map_or(Ok(()), concurrency)?;
    adaptive.as_ref().map_or(Ok(()), adaptive_limit)?;
    breaker.as_ref().map_or(Ok(()), circuit_breaker)?;
    outliers.as_ref().map_or(Ok(()), outlier_detection)?;
    health_check.as_ref().map_or(Ok(()), check_health)?;
    number("panicThreshold", *panic_percent, 0..=100)?;
    check_balance(balance)?;
    retries.as_ref().map_or(Ok(()), check_retries)?;
    check_timeouts(timeouts)?;
    match fallback {
        Some(Fallback::Response(response)) => fallback_response(response),
        None => Ok(()),
    }
}

fn concurrency(limits: &ConcurrencyLimits) -> Checked {
    number("limits.maxRequests", limits.max, 1..=1_000_000)?;
    number("limits.maxPending", limits.pending, 0..=100_000)?;
    time("limits.maxWait", limits.max_wait, MILLISECOND..=MINUTE)
}

fn adaptive_limit(limit: &AdaptiveLimit) -> Checked {
    const MOST: u32 = 100_000;
    number("adaptiveConcurrency.min", limit.min, 1..=MOST)?;
    number("adaptiveConcurrency.max", limit.max, limit.min..=MOST)?;
    number("adaptiveConcurrency.initial", limit.initial, limit.min..=limit.max)?;
    time("adaptiveConcurrency.window", limit.window, MILLISECOND..=MINUTE)
}

fn circuit_breaker(breaker: &CircuitBreaker) -> Checked {
    let most = match breaker.window {
        BreakerWindow::Calls(size) => {
            number("circuitBreaker.window.requests", size, CALLS)?;
            size
        }
        BreakerWindow::Time(length) => {
            time("circuitBreaker.window.duration", length, SECOND..=HOUR)?;
            *CALLS.end()
        }
    };
    number("circuitBreaker.minimumRequests", breaker.minimum_calls, 1..=most)?;
    number("circuitBreaker.failurePercent", breaker.failure_percent, PERCENT)?;
    if let Some(slow) = &breaker.slow_calls {
        time("circuitBreaker.slow.threshold", slow.threshold, MILLISECOND..=HOUR)?;
        number("circuitBreaker.slow.percent", slow.percent, PERCENT)?;
    }
    if let Some(count) = breaker.consecutive_failures {
        number("circuitBreaker.consecutiveFailures", count, CALLS)?;
    }
    let open = &breaker.open;
    time("circuitBreaker.open.duration", open.duration, MILLISECOND..=HOUR)?;
    number("circuitBreaker.open.factor", open.factor, 1..=10)?;
    time("circuitBreaker.open.maximum", open.maximum, open.duration..=DAY)?;
    number("circuitBreaker.open.jitterPercent", open.jitter_percent, JITTER)?;
    let half_open = &breaker.half_open;
    number("circuitBreaker.halfOpen.probes", half_open.probes, 1..=100)?;
    number("circuitBreaker.halfOpen.successes", half_open.successes, 1..=100)?;
    time("circuitBreaker.halfOpen.maxDuration", half_open.max_duration, MILLISECOND..=HOUR)?;
    time("circuitBreaker.ramp", breaker.ramp, Duration::ZERO..=HOUR)?;
    statuses("circuitBreaker.failures.statuses", &breaker.failures.statuses)?;
    grpc_codes("circuitBreaker.failures.grpcCodes", &breaker.failures.grpc_codes)
}

fn outlier_detection(outliers: &OutlierDetection) -> Checked {
    time("outlierDetection.interval", outliers.interval, SECOND..=HOUR)?;
    let ejection = &outliers.ejection;
    time("outlierDetection.baseEjectionTime", ejection.base, MILLISECOND..=HOUR)?;
    time("outlierDetection.maxEjectionTime", ejection.maximum, ejection.base..=DAY)?;
    number("outlierDetection.jitterPercent", ejection.jitter_percent, JITTER)?;
    number("outlierDetection.maxEjectionPercent", ejection.max_percent, 0..=100)?;
    for (field, count) in [
        ("outlierDetection.consecutive5xx", outliers.consecutive_5xx),
        ("outlierDetection.consecutiveGatewayErrors", outliers.consecutive_gateway_errors),
        ("outlierDetection.consecutiveLocalFailures", outliers.consecutive_local_failures),
    ] {
        if let Some(count) = count {
            number(field, count, CALLS)?;
        }
    }
    if let Some(rate) = &outliers.success_rate {
        number("outlierDetection.successRate.minimumEndpoints", rate.minimum_endpoints, CALLS)?;
        number("outlierDetection.successRate.minimumRequests", rate.minimum_calls, CALLS)?;
        number("outlierDetection.successRate.deviations", rate.deviations, CALLS)?;
    }
    if let Some(rate) = &outliers.failure_percentage {
        number("outlierDetection.failurePercentage.minimumEndpoints", rate.minimum_endpoints, CALLS)?;
        number("outlierDetection.failurePercentage.minimumRequests", rate.minimum_calls, CALLS)?;
        number("outlierDetection.failurePercentage.percent", rate.percent, PERCENT)?;
    }
    Ok(())
}

fn check_health(check: &HealthCheck) -> Checked {
    time("healthCheck.interval", check.interval, Duration::from_millis(100)..=HOUR)?;
    time("healthCheck.timeout", check.timeout, Duration::from_millis(10)..=MINUTE)?;
    number("healthCheck.jitterPercent", check.jitter_percent, JITTER)?;
    number("healthCheck.healthyThreshold", check.healthy_threshold, 1..=100)?;
    number("healthCheck.unhealthyThreshold", check.unhealthy_threshold, 1..=100)?;
    match &check.probe {
        HealthProbe::Tcp => Ok(()),
        HealthProbe::Http { path, statuses: good, .. } => {
            let is_target = path.parse::<http::uri::PathAndQuery>().is_ok();
            ensure(path.starts_with('/') && is_target, "healthCheck.http.path", "a path that begins with /")?;
            statuses("healthCheck.http.statuses", good)
        }
        HealthProbe::Grpc { service } => {
            ensure(service.len() <= 253, "healthCheck.grpc.service", "at most 253 bytes long")
        }
    }
}

fn check_balance(balance: &Balance) -> Checked {
    match balance {
        Balance::RingHash(HashKey::Cookie(name)) | Balance::Maglev(HashKey::Cookie(name)) => {
            let is_token = http::HeaderName::from_bytes(name.as_bytes()).is_ok();
            ensure(is_token && name.len() <= 253, "loadBalancing.hash.name", "the name of a cookie")
        }
        _ => Ok(()),
    }
}

fn check_retries(retries: &Retries) -> Checked {
    number("retries.limit", retries.limit, 1..=10)?;
    statuses("retries.when.statuses", &retries.statuses)?;
    grpc_codes("retries.when.grpcCodes", &retries.grpc_codes)?;
    let has_condition = !(retries.failures.is_empty() && retries.statuses.is_empty() && retries.grpc_codes.is_empty());
    ensure(has_condition, "retries.when", "something: failures, statuses or grpcCodes")?;
    time("retries.backoff.base", retries.backoff_base, MILLISECOND..=MINUTE)?;
    time("retries.backoff.max", retries.backoff_max, retries.backoff_base..=Duration::from_mins(5))?;
    number("retries.maxBodyBytes", retries.max_body, 0..=1 << 20)?;
    if let Some(budget) = &retries.budget {
        number("retries.budget.percent", budget.percent, 0..=100)?;
        time("retries.budget.window", budget.window, SECOND..=HOUR)?;
        number("retries.budget.minimum", budget.minimum, 0..=100_000)?;
    }
    Ok(())
}

fn check_timeouts(timeouts: &BackendTimeouts) -> Checked {
    for (field, value, most) in [
        ("timeouts.connect", timeouts.connect, MINUTE),
        ("timeouts.response", timeouts.response, HOUR),
        ("timeouts.attempt", timeouts.attempt, DAY),
        ("timeouts.idle", timeouts.idle, DAY),
    ] {
        if let Some(value) = value {
            time(field, value, MILLISECOND..=most)?;
        }
    }
    Ok(())
}

fn fallback_response(response: &FallbackResponse) -> Checked {
    let status = response.status.as_u16();
    number("fallback.response.status", status, 200..=599)?;
    let may_have_body = !matches!(status, 204 | 205 | 304);
    ensure(may_have_body || response.body.is_empty(), "fallback.response.body", "empty with this status")?;
    ensure(response.body.len() <= MAX_FALLBACK_BODY, "fallback.response.body", "at most 64 KiB long")
}

fn statuses(field: &str, ranges: &[StatusRange]) -> Checked {
    ensure(ranges.len() <= MAX_RANGES, field, "at most 16 ranges")?;
    let is_range = |range: &StatusRange| range.first >= 100 && range.last <= 599 && range.first <= range.last;
    ensure(ranges.iter().all(is_range), field, "ranges within 100 to 599, the lower status first")
}

fn grpc_codes(field: &str, codes: &std::collections::BTreeSet<u8>) -> Checked {
    ensure(codes.iter().all(|code| *code <= 16), field, "gRPC status codes, 0 to 16")
}

fn number<T: PartialOrd + Display>(field: &str, value: T, allowed: RangeInclusive<T>) -> Checked {
    if allowed.contains(&value) {
        return Ok(());
    }
    Err(invalid(field, format!("{} to {}, and is {value}", allowed.start(), allowed.end())))
}

fn time(field: &str, value: Duration, allowed: RangeInclusive<Duration>) -> Checked {
    if allowed.contains(&value) {
        return Ok(());
    }
    Err(invalid(field, format!("{:?} to {:?}, and is {value:?}", allowed.start(), allowed.end())))
}

fn ensure(holds: bool, field: &str, allowed: &str) -> Checked {
    if holds { Ok(()) } else { Err(invalid(field, allowed.to_owned())) }
}

fn invalid(field: &str, allowed: String) -> InvalidBackendSettings {
    InvalidBackendSettings { field: field.to_owned(), allowed }
}

#[cfg(test)]
mod tests {
    use super::super::*;

    fn field(options: BackendOptions) -> String {
        BackendSettings::new(options).map_or_else(|error| error.field, |_| String::new())
    }

    fn breaker() -> CircuitBreaker {
        CircuitBreaker {
            window: BreakerWindow::Calls(10),
            minimum_calls: 10,
            failure_percent: 50,
            slow_calls: None,
            consecutive_failures: None,
            open: OpenTime {
                duration: Duration::from_secs(1),
                factor: 2,
                maximum: Duration::from_mins(1),
                jitter_percent: 0,
            },
            half_open: HalfOpen { probes: 1, successes: 1, max_duration: Duration::from_secs(10) },
            ramp: Duration::ZERO,
            failures: Failures::default(),
        }
    }

    #[test]
    fn nothing_set_is_valid() {
        assert_eq!(field(BackendOptions::default()), "");
    }

    #[test]
    fn a_value_outside_its_range_is_named_by_its_path() {
        let with = |change: &dyn Fn(&mut CircuitBreaker)| {
            let mut breaker = breaker();
            change(&mut breaker);
            field(BackendOptions { breaker: Some(breaker), ..BackendOptions::default() })
        };
        assert_eq!(with(&|_| {}), "");
        assert_eq!(with(&|breaker| breaker.minimum_calls = 11), "circuitBreaker.minimumRequests");
        assert_eq!(with(&|breaker| breaker.failure_percent = 0), "circuitBreaker.failurePercent");
        assert_eq!(with(&|breaker| breaker.open.maximum = Duration::ZERO), "circuitBreaker.open.maximum");
        assert_eq!(with(&|breaker| breaker.half_open.probes = 101), "circuitBreaker.halfOpen.probes");
        let reversed = StatusRange { first: 504, last: 500 };
        assert_eq!(with(&|breaker| breaker.failures.statuses = vec![reversed]), "circuitBreaker.failures.statuses");
        assert_eq!(
            with(&|breaker| breaker.failures.grpc_codes = BTreeSet::from([17])),
            "circuitBreaker.failures.grpcCodes"
        );
    }

    #[test]
    fn retries_need_a_condition() {
        let retries = Retries {
            limit: 1,
            failures: BTreeSet::new(),
            statuses: Vec::new(),
            grpc_codes: BTreeSet::new(),
            any_method: false,
            backoff_base: Duration::from_millis(25),
            backoff_max: Duration::from_millis(250),
            max_body: 0,
            budget: None,
        };
        assert_eq!(field(BackendOptions { retries: Some(retries), ..BackendOptions::default() }), "retries.when");
    }

    #[test]
    fn a_message_says_what_would_be_accepted() {
        let limits = ConcurrencyLimits { max: 0, pending: 0, max_wait: Duration::from_secs(1) };
        let error = BackendSettings::new(BackendOptions { limits: Some(limits), ..BackendOptions::default() });
        assert_eq!(error.unwrap_err().to_string(), "limits.maxRequests must be 1 to 1000000, and is 0");
    }

    #[test]
    fn a_status_without_a_body_has_none() {
        let response = |status: StatusCode, body: &[u8]| {
            let content_type = HeaderValue::from_static("text/plain");
            let response = FallbackResponse { status, content_type, body: body.into() };
            field(BackendOptions { fallback: Some(Fallback::Response(response)), ..BackendOptions::default() })
        };
        assert_eq!(response(StatusCode::OK, b"x"), "");
        assert_eq!(response(StatusCode::NO_CONTENT, b""), "");
        assert_eq!(response(StatusCode::NO_CONTENT, b"x"), "fallback.response.body");
        assert_eq!(response(StatusCode::CONTINUE, b""), "fallback.response.status");
    }
}
