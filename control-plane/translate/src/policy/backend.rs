//! BackendPolicy. The ranges are the model's; here are the defaults, and what text means.

use std::{collections::BTreeSet, num::NonZeroU16, time::Duration};

use control_plane_model::{
    AdaptiveLimit, BackendOptions, BackendSettings, BackendTimeouts, Balance, BreakerWindow, CircuitBreaker,
    ConcurrencyLimits, Ejection, FailurePercentage, Failures, Fallback, FallbackResponse, HalfOpen, HashKey,
    HealthCheck, HealthProbe, LocalFailure, OpenTime, OutlierDetection, Retries, RetryBudget, SlowCalls, StatusRange,
    SuccessRate,
};
use crds::backend_policy::{self as resource, BackendPolicySpec, GrpcCode, HashType, LoadBalancingType};
use http::{HeaderValue, StatusCode};

use crate::route::values;

pub(super) fn translate(spec: &BackendPolicySpec) -> Result<BackendSettings, String> {
    let options = options(spec).map_err(|error| format!("spec.{error}"))?;
    BackendSettings::new(options).map_err(|error| format!("spec.{error}"))
}

fn options(spec: &BackendPolicySpec) -> Result<BackendOptions, String> {
    Ok(BackendOptions {
        limits: spec.limits.as_ref().map(limits).transpose()?,
        adaptive: spec.adaptive_concurrency.as_ref().map(adaptive).transpose()?,
        breaker: spec.circuit_breaker.as_ref().map(breaker).transpose()?,
        outliers: spec.outlier_detection.as_ref().map(outliers).transpose()?,
        health_check: spec.health_check.as_ref().map(health_check).transpose()?,
        panic_percent: percent("panicThreshold", spec.panic_threshold, BackendOptions::DEFAULT_PANIC_PERCENT)?,
        balance: spec.load_balancing.as_ref().map_or_else(|| Ok(Balance::default()), balance)?,
        retries: spec.retries.as_ref().map(retries).transpose()?,
        timeouts: spec.timeouts.as_ref().map_or_else(|| Ok(BackendTimeouts::default()), timeouts)?,
        fallback: spec.fallback.as_ref().map(fallback).transpose()?,
    })
}

fn limits(limits: &resource::Limits) -> Result<ConcurrencyLimits, String> {
    Ok(ConcurrencyLimits {
        max: number("limits.maxRequests", Some(limits.max_requests), 0)?,
        pending: number("limits.maxPending", limits.max_pending, 0)?,
        max_wait: time("limits.maxWait", limits.max_wait.as_deref(), Duration::from_secs(1))?,
    })
}

fn adaptive(limit: &resource::AdaptiveConcurrency) -> Result<AdaptiveLimit, String> {
    let min = number("adaptiveConcurrency.min", limit.min, 5)?;
    let max = number("adaptiveConcurrency.max", limit.max, 200.max(min))?;
    Ok(AdaptiveLimit {
        min,
        max,
        initial: number("adaptiveConcurrency.initial", limit.initial, 20.min(max).max(min))?,
        window: time("adaptiveConcurrency.window", limit.window.as_deref(), Duration::from_secs(1))?,
    })
}

fn breaker(breaker: &resource::CircuitBreaker) -> Result<CircuitBreaker, String> {
    let window = match breaker.window.as_ref().map(|window| (window.requests, window.duration.as_deref())) {
        None => BreakerWindow::Calls(100),
        Some((Some(requests), None)) => {
            BreakerWindow::Calls(number("circuitBreaker.window.requests", Some(requests), 0)?)
        }
        Some((None, Some(length))) => {
            BreakerWindow::Time(time("circuitBreaker.window.duration", Some(length), Duration::ZERO)?)
        }
        Some(_) => return Err("circuitBreaker.window: want requests or duration".to_owned()),
    };
    let minimum = match window {
        BreakerWindow::Calls(size) => size.min(20),
        BreakerWindow::Time(_) => 20,
    };
    let slow_calls = breaker.slow.as_ref().map(|slow| {
        Ok::<_, String>(SlowCalls {
            threshold: time("circuitBreaker.slow.threshold", Some(&slow.threshold), Duration::ZERO)?,
            percent: percent("circuitBreaker.slow.percent", slow.percent, 80)?,
        })
    });
    let consecutive = breaker.consecutive_failures;
    Ok(CircuitBreaker {
        window,
        minimum_calls: number("circuitBreaker.minimumRequests", breaker.minimum_requests, minimum)?,
        failure_percent: percent("circuitBreaker.failurePercent", breaker.failure_percent, 50)?,
        slow_calls: slow_calls.transpose()?,
        consecutive_failures: optional("circuitBreaker.consecutiveFailures", consecutive)?,
        open: open(&breaker.open.clone().unwrap_or_default())?,
        half_open: half_open(&breaker.half_open.clone().unwrap_or_default())?,
        ramp: time("circuitBreaker.ramp", breaker.ramp.as_deref(), Duration::from_secs(10))?,
        failures: breaker.failures.as_ref().map_or_else(|| Ok(Failures::default()), failures)?,
    })
}

fn open(open: &resource::Open) -> Result<OpenTime, String> {
    let duration = time("circuitBreaker.open.duration", open.duration.as_deref(), Duration::from_secs(5))?;
    let maximum = Duration::from_mins(1).max(duration);
    Ok(OpenTime {
        duration,
        factor: number("circuitBreaker.open.factor", open.factor, 2)?,
        maximum: time("circuitBreaker.open.maximum", open.maximum.as_deref(), maximum)?,
        jitter_percent: percent("circuitBreaker.open.jitterPercent", open.jitter_percent, 20)?,
    })
}

fn half_open(half_open: &resource::HalfOpen) -> Result<HalfOpen, String> {
    let max_duration = half_open.max_duration.as_deref();
    Ok(HalfOpen {
        probes: number("circuitBreaker.halfOpen.probes", half_open.probes, 3)?,
        successes: number("circuitBreaker.halfOpen.successes", half_open.successes, 3)?,
        max_duration: time("circuitBreaker.halfOpen.maxDuration", max_duration, Duration::from_secs(30))?,
    })
}

fn failures(failures: &resource::Failures) -> Result<Failures, String> {
    Ok(Failures {
        statuses: statuses("circuitBreaker.failures.statuses", &failures.statuses)?,
        grpc_codes: failures.grpc_codes.iter().map(|code| grpc_code(*code)).collect(),
    })
}

fn outliers(outliers: &resource::OutlierDetection) -> Result<OutlierDetection, String> {
    let base =
        time("outlierDetection.baseEjectionTime", outliers.base_ejection_time.as_deref(), Duration::from_secs(30))?;
    let maximum = Duration::from_mins(5).max(base);
    let ejection = Ejection {
        base,
        maximum: time("outlierDetection.maxEjectionTime", outliers.max_ejection_time.as_deref(), maximum)?,
        jitter_percent: percent("outlierDetection.jitterPercent", outliers.jitter_percent, 10)?,
        max_percent: percent("outlierDetection.maxEjectionPercent", outliers.max_ejection_percent, 50)?,
        at_least_one: outliers.always_eject_one.unwrap_or(false),
    };
    let success_rate = outliers.success_rate.as_ref().map(|rate| {
        Ok::<_, String>(SuccessRate {
            minimum_endpoints: number("outlierDetection.successRate.minimumEndpoints", rate.minimum_endpoints, 5)?,
            minimum_calls: number("outlierDetection.successRate.minimumRequests", rate.minimum_requests, 100)?,
            deviations: number("outlierDetection.successRate.deviations", rate.deviations, 1900)?,
        })
    });
    let failure_percentage = outliers.failure_percentage.as_ref().map(|rate| {
        let field = "outlierDetection.failurePercentage";
        Ok::<_, String>(FailurePercentage {
            minimum_endpoints: number(&format!("{field}.minimumEndpoints"), rate.minimum_endpoints, 1)?,
            minimum_calls: number(&format!("{field}.minimumRequests"), rate.minimum_requests, 50)?,
            percent: percent(&format!("{field}.percent"), rate.percent, 85)?,
        })
    });
    let gateway_errors = outliers.consecutive_gateway_errors;
    let mut detection = OutlierDetection {
        interval: time("outlierDetection.interval", outliers.interval.as_deref(), Duration::from_secs(10))?,
        ejection,
        consecutive_5xx: optional("outlierDetection.consecutive5xx", outliers.consecutive_5xx)?,
        consecutive_gateway_errors: optional("outlierDetection.consecutiveGatewayErrors", gateway_errors)?,
        consecutive_local_failures: optional(
            "outlierDetection.consecutiveLocalFailures",
            outliers.consecutive_local_failures,
        )?,
        success_rate: success_rate.transpose()?,
        failure_percentage: failure_percentage.transpose()?,
    };
    let ejects = detection.consecutive_5xx.is_some()
        || detection.consecutive_gateway_errors.is_some()
        || detection.consecutive_local_failures.is_some()
        || detection.success_rate.is_some()
        || detection.failure_percentage.is_some();
    if !ejects {
        detection.consecutive_5xx = Some(5);
    }
    Ok(detection)
}

fn health_check(check: &resource::HealthCheck) -> Result<HealthCheck, String> {
    let probe = match (&check.http, &check.tcp, &check.grpc) {
        (Some(http), None, None) => {
            let host = http.host.as_deref().map(values::header_value).transpose();
            HealthProbe::Http {
                path: http.path.as_deref().unwrap_or("/").into(),
                host: host.map_err(|error| format!("healthCheck.http.host: {error}"))?,
                statuses: statuses("healthCheck.http.statuses", &http.statuses)?,
            }
        }
        (None, Some(_), None) => HealthProbe::Tcp,
        (None, None, Some(grpc)) => HealthProbe::Grpc { service: grpc.service.as_deref().unwrap_or_default().into() },
        _ => return Err("healthCheck: want one of http, tcp and grpc".to_owned()),
    };
    let port = check.port.map(|port| {
        let number = u16::try_from(port).ok().and_then(NonZeroU16::new);
        number.ok_or_else(|| format!("healthCheck.port is {port}, want 1 to 65535"))
    });
    Ok(HealthCheck {
        interval: time("healthCheck.interval", check.interval.as_deref(), Duration::from_secs(10))?,
        timeout: time("healthCheck.timeout", check.timeout.as_deref(), Duration::from_secs(1))?,
        jitter_percent: percent("healthCheck.jitterPercent", check.jitter_percent, 10)?,
        healthy_threshold: number("healthCheck.healthyThreshold", check.healthy_threshold, 2)?,
        unhealthy_threshold: number("healthCheck.unhealthyThreshold", check.unhealthy_threshold, 3)?,
        port: port.transpose()?,
        probe,
    })
}

fn balance(balancing: &resource::LoadBalancing) -> Result<Balance, String> {
    let key = || {
        let hash = balancing.hash.as_ref().ok_or("loadBalancing.hash is missing: RingHash and Maglev need it")?;
        hash_key(hash)
    };
    let balance = match balancing.kind {
        LoadBalancingType::RingHash => return key().map(Balance::RingHash),
        LoadBalancingType::Maglev => return key().map(Balance::Maglev),
        LoadBalancingType::PeakEwma => Balance::PeakEwma,
        LoadBalancingType::LeastRequest => Balance::LeastRequest,
        LoadBalancingType::RoundRobin => Balance::RoundRobin,
    };
    if balancing.hash.is_some() {
        return Err("loadBalancing.hash is for RingHash and Maglev".to_owned());
    }
    Ok(balance)
}

fn hash_key(hash: &resource::Hash) -> Result<HashKey, String> {
    match (hash.kind, hash.name.as_deref()) {
        (HashType::Address, None) => Ok(HashKey::Address),
        (HashType::Header, Some(name)) => {
            let name = values::header_name(name);
            name.map(HashKey::Header).map_err(|error| format!("loadBalancing.hash.name: {error}"))
        }
        (HashType::Cookie, Some(name)) => Ok(HashKey::Cookie(name.into())),
        (HashType::Address, Some(_)) => Err("loadBalancing.hash.name is for Header and Cookie".to_owned()),
        (HashType::Header | HashType::Cookie, None) => Err("loadBalancing.hash.name is missing".to_owned()),
    }
}

fn retries(retries: &resource::Retries) -> Result<Retries, String> {
    let backoff = retries.backoff.clone().unwrap_or_default();
    let base = time("retries.backoff.base", backoff.base.as_deref(), Duration::from_millis(25))?;
    let longest = Duration::from_millis(250).max(base);
    let budget = retries.budget.clone().unwrap_or_default();
    Ok(Retries {
        limit: number("retries.limit", retries.limit, 2)?,
        failures: retries.when.failures.iter().map(|failure| local_failure(*failure)).collect(),
        statuses: statuses("retries.when.statuses", &retries.when.statuses)?,
        grpc_codes: retries.when.grpc_codes.iter().map(|code| grpc_code(*code)).collect::<BTreeSet<_>>(),
        any_method: retries.methods == Some(resource::RetryMethods::Any),
        backoff_base: base,
        backoff_max: time("retries.backoff.max", backoff.max.as_deref(), longest)?,
        max_body: number("retries.maxBodyBytes", retries.max_body_bytes, 64 << 10)?,
        budget: Some(RetryBudget {
            percent: percent("retries.budget.percent", budget.percent, 20)?,
            window: time("retries.budget.window", budget.window.as_deref(), Duration::from_secs(10))?,
            minimum: number("retries.budget.minimum", budget.minimum, 10)?,
        }),
    })
}

fn timeouts(timeouts: &resource::Timeouts) -> Result<BackendTimeouts, String> {
    let limit = |field: &str, text: &Option<String>| {
        text.as_deref().map(|text| time(&format!("timeouts.{field}"), Some(text), Duration::ZERO)).transpose()
    };
    Ok(BackendTimeouts {
        connect: limit("connect", &timeouts.connect)?,
        response: limit("response", &timeouts.response)?,
        attempt: limit("attempt", &timeouts.attempt)?,
        idle: limit("idle", &timeouts.idle)?,
    })
}

fn fallback(fallback: &resource::Fallback) -> Result<Fallback, String> {
    let response = &fallback.response;
    let status = response.status.unwrap_or(503);
    let known = u16::try_from(status).ok().and_then(|status| StatusCode::from_u16(status).ok());
    let kind = response.content_type.as_deref().unwrap_or("text/plain; charset=utf-8");
    Ok(Fallback::Response(FallbackResponse {
        status: known.ok_or_else(|| format!("fallback.response.status is {status}, want 200 to 599"))?,
        content_type: HeaderValue::from_str(kind)
            .map_err(|_| format!("fallback.response.contentType: {kind:?} cannot stand in a header"))?,
        body: response.body.as_deref().unwrap_or_default().as_bytes().into(),
    }))
}

fn statuses(field: &str, texts: &[String]) -> Result<Vec<StatusRange>, String> {
    let range = |(index, text): (usize, &String)| {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (first.parse(), last.parse()) {
            (Ok(first), Ok(last)) => Ok(StatusRange { first, last }),
            _ => Err(format!("{field}[{index}] is {text:?}, want a status such as 503 or a range such as 500-599")),
        }
    };
    texts.iter().enumerate().map(range).collect()
}

fn grpc_code(code: GrpcCode) -> u8 {
    match code {
        GrpcCode::Ok => 0,
        GrpcCode::Cancelled => 1,
        GrpcCode::Unknown => 2,
        GrpcCode::InvalidArgument => 3,
        GrpcCode::DeadlineExceeded => 4,
        GrpcCode::NotFound => 5,
        GrpcCode::AlreadyExists => 6,
        GrpcCode::PermissionDenied => 7,
        GrpcCode::ResourceExhausted => 8,
        GrpcCode::FailedPrecondition => 9,
        GrpcCode::Aborted => 10,
        GrpcCode::OutOfRange => 11,
        GrpcCode::Unimplemented => 12,
        GrpcCode::Internal => 13,
        GrpcCode::Unavailable => 14,
        GrpcCode::DataLoss => 15,
        GrpcCode::Unauthenticated => 16,
    }
}

fn local_failure(failure: resource::LocalFailure) -> LocalFailure {
    match failure {
        resource::LocalFailure::Connect => LocalFailure::Connect,
        resource::LocalFailure::Reset => LocalFailure::Reset,
        resource::LocalFailure::Timeout => LocalFailure::Timeout,
    }
}

/// What is not negative; the model has the range.
fn number(field: &str, value: Option<i32>, default: u32) -> Result<u32, String> {
    let Some(value) = value else { return Ok(default) };
    u32::try_from(value).map_err(|_| format!("{field} is {value}, want no less than 0"))
}

fn optional(field: &str, value: Option<i32>) -> Result<Option<u32>, String> {
    value.map(|value| number(field, Some(value), 0)).transpose()
}

fn percent(field: &str, value: Option<i32>, default: u8) -> Result<u8, String> {
    let Some(value) = value else { return Ok(default) };
    u8::try_from(value).map_err(|_| format!("{field} is {value}, want 0 to 100"))
}

fn time(field: &str, text: Option<&str>, default: Duration) -> Result<Duration, String> {
    let Some(text) = text else { return Ok(default) };
    let duration = values::duration(text).map_err(|error| format!("{field}: {error}"))?;
    Ok(duration.unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(yaml: serde_json::Value) -> BackendPolicySpec {
        let mut spec = serde_json::json!({ "targetRefs": [{ "kind": "Service", "name": "cart" }] });
        spec.as_object_mut().unwrap().extend(yaml.as_object().unwrap().clone());
        serde_json::from_value(spec).unwrap()
    }

    #[test]
    fn every_part_has_defaults_that_are_valid() {
        let settings = translate(&spec(serde_json::json!({
            "limits": { "maxRequests": 10 },
            "adaptiveConcurrency": {},
            "circuitBreaker": {},
            "outlierDetection": {},
            "healthCheck": { "http": {} },
            "loadBalancing": { "type": "Maglev", "hash": { "type": "Cookie", "name": "session" } },
            "retries": { "when": { "failures": ["Connect"] } },
            "timeouts": {},
            "fallback": { "response": {} },
        })))
        .unwrap();
        assert_eq!(settings.outliers.as_ref().unwrap().consecutive_5xx, Some(5));
        assert_eq!(settings.breaker.as_ref().unwrap().window, BreakerWindow::Calls(100));
        assert_eq!(settings.balance, Balance::Maglev(HashKey::Cookie("session".into())));
        assert_eq!(translate(&spec(serde_json::json!({}))).unwrap(), BackendSettings::default());
    }

    #[test]
    fn a_default_follows_what_is_set_beside_it() {
        let settings = translate(&spec(serde_json::json!({
            "adaptiveConcurrency": { "min": 300 },
            "circuitBreaker": { "window": { "requests": 5 }, "open": { "duration": "10m" } },
            "outlierDetection": { "consecutiveGatewayErrors": 3, "baseEjectionTime": "30m" },
            "retries": { "when": { "statuses": ["503"] }, "backoff": { "base": "1s" } },
        })))
        .unwrap();
        let adaptive = settings.adaptive.unwrap();
        assert_eq!((adaptive.max, adaptive.initial), (300, 300));
        let breaker = settings.breaker.as_ref().unwrap();
        assert_eq!((breaker.minimum_calls, breaker.open.maximum), (5, Duration::from_mins(10)));
        let outliers = settings.outliers.as_ref().unwrap();
        assert_eq!((outliers.consecutive_5xx, outliers.ejection.maximum), (None, Duration::from_mins(30)));
        assert_eq!(settings.retries.as_ref().unwrap().backoff_max, Duration::from_secs(1));
    }

    #[test]
    fn what_is_wrong_is_named_by_its_path() {
        for (yaml, message) in [
            (
                serde_json::json!({ "limits": { "maxRequests": 0 } }),
                "spec.limits.maxRequests must be 1 to 1000000, and is 0",
            ),
            (
                serde_json::json!({ "circuitBreaker": { "failurePercent": 300 } }),
                "spec.circuitBreaker.failurePercent is 300, want 0 to 100",
            ),
            (
                serde_json::json!({ "circuitBreaker": { "window": {} } }),
                "spec.circuitBreaker.window: want requests or duration",
            ),
            (
                serde_json::json!({ "retries": { "when": { "statuses": ["5xx"] } } }),
                r#"spec.retries.when.statuses[0] is "5xx", want a status such as 503 or a range such as 500-599"#,
            ),
            (
                serde_json::json!({ "retries": { "when": {} } }),
                "spec.retries.when must be something: failures, statuses or grpcCodes",
            ),
            (serde_json::json!({ "healthCheck": {} }), "spec.healthCheck: want one of http, tcp and grpc"),
            (
                serde_json::json!({ "loadBalancing": { "type": "RingHash" } }),
                "spec.loadBalancing.hash is missing: RingHash and Maglev need it",
            ),
            (
                serde_json::json!({ "timeouts": { "connect": "2m" } }),
                "spec.timeouts.connect must be 1ms to 60s, and is 120s",
            ),
            (
                serde_json::json!({ "fallback": { "response": { "status": 99 } } }),
                "spec.fallback.response.status is 99, want 200 to 599",
            ),
        ] {
            assert_eq!(translate(&spec(yaml.clone())).unwrap_err(), message, "{yaml}");
        }
    }
}
