//! Settings of a BackendPolicy. Ranges are the model's to check, in the words of the custom resource.

use std::{collections::BTreeSet, num::NonZeroU16, time::Duration};

use control_plane_model::{
    AdaptiveLimit, BackendOptions, BackendSettings, BackendTimeouts, Balance, BreakerWindow, CircuitBreaker,
    ConcurrencyLimits, Ejection, FailurePercentage, Failures, Fallback, FallbackResponse, HalfOpen, HashKey,
    HealthCheck, HealthProbe, LocalFailure, OpenTime, OutlierDetection, Retries, RetryBudget, SlowCalls, StatusRange,
    SuccessRate,
};
use http::{HeaderValue, StatusCode};

use crate::{
    proto::{
        self, balance::Kind as BalanceKind, circuit_breaker::Window, fallback::Kind, hash_key::Key, health_check::Probe,
    },
    resource::{
        duration::{duration_from_wire, duration_to_wire},
        error::{Field as _, InvalidResource, each, required},
        matching::header_name,
    },
};

pub(super) fn to_wire(settings: &BackendSettings) -> proto::BackendPolicy {
    let timeouts = &settings.timeouts;
    proto::BackendPolicy {
        limits: settings.limits.map(|limits| proto::ConcurrencyLimits {
            max: limits.max,
            pending: limits.pending,
            max_wait: Some(duration_to_wire(limits.max_wait)),
        }),
        adaptive: settings.adaptive.map(|limit| proto::AdaptiveLimit {
            min: limit.min,
            max: limit.max,
            initial: limit.initial,
            window: Some(duration_to_wire(limit.window)),
        }),
        breaker: settings.breaker.as_ref().map(breaker_to_wire),
        outliers: settings.outliers.as_ref().map(outliers_to_wire),
        health_check: settings.health_check.as_ref().map(health_check_to_wire),
        panic_percent: settings.panic_percent.into(),
        balance: Some(balance_to_wire(&settings.balance)),
        retries: settings.retries.as_ref().map(retries_to_wire),
        timeouts: Some(proto::BackendTimeouts {
            connect: timeouts.connect.map(duration_to_wire),
            response: timeouts.response.map(duration_to_wire),
            attempt: timeouts.attempt.map(duration_to_wire),
            idle: timeouts.idle.map(duration_to_wire),
        }),
        fallback: settings.fallback.as_ref().map(fallback_to_wire),
    }
}

pub(super) fn from_wire(wire: proto::BackendPolicy) -> Result<BackendSettings, InvalidResource> {
    let options = BackendOptions {
        limits: wire.limits.map(limits_from_wire).transpose().field("limits")?,
        adaptive: wire.adaptive.map(adaptive_from_wire).transpose().field("adaptive")?,
        breaker: wire.breaker.map(breaker_from_wire).transpose().field("breaker")?,
        outliers: wire.outliers.map(outliers_from_wire).transpose().field("outliers")?,
        health_check: wire.health_check.map(health_check_from_wire).transpose().field("health_check")?,
        panic_percent: percent(wire.panic_percent).field("panic_percent")?,
        balance: balance_from_wire(wire.balance).field("balance")?,
        retries: wire.retries.map(retries_from_wire).transpose().field("retries")?,
        timeouts: timeouts_from_wire(required(wire.timeouts).field("timeouts")?).field("timeouts")?,
        fallback: wire.fallback.map(fallback_from_wire).transpose().field("fallback")?,
    };
    BackendSettings::new(options).map_err(InvalidResource::new)
}

fn limits_from_wire(wire: proto::ConcurrencyLimits) -> Result<ConcurrencyLimits, InvalidResource> {
    Ok(ConcurrencyLimits { max: wire.max, pending: wire.pending, max_wait: time(wire.max_wait).field("max_wait")? })
}

fn adaptive_from_wire(wire: proto::AdaptiveLimit) -> Result<AdaptiveLimit, InvalidResource> {
    let window = time(wire.window).field("window")?;
    Ok(AdaptiveLimit { min: wire.min, max: wire.max, initial: wire.initial, window })
}

fn breaker_to_wire(breaker: &CircuitBreaker) -> proto::CircuitBreaker {
    proto::CircuitBreaker {
        window: Some(match breaker.window {
            BreakerWindow::Calls(size) => Window::WindowRequests(size),
            BreakerWindow::Time(length) => Window::WindowTime(duration_to_wire(length)),
        }),
        minimum_requests: breaker.minimum_calls,
        failure_percent: breaker.failure_percent.into(),
        slow: breaker.slow_calls.map(|slow| proto::SlowCalls {
            threshold: Some(duration_to_wire(slow.threshold)),
            percent: slow.percent.into(),
        }),
        consecutive_failures: breaker.consecutive_failures,
        open: Some(proto::OpenTime {
            duration: Some(duration_to_wire(breaker.open.duration)),
            factor: breaker.open.factor,
            maximum: Some(duration_to_wire(breaker.open.maximum)),
            jitter_percent: breaker.open.jitter_percent.into(),
        }),
        half_open: Some(proto::HalfOpen {
            probes: breaker.half_open.probes,
            successes: breaker.half_open.successes,
            max_duration: Some(duration_to_wire(breaker.half_open.max_duration)),
        }),
        ramp: Some(duration_to_wire(breaker.ramp)),
        failure_statuses: ranges_to_wire(&breaker.failures.statuses),
        failure_grpc_codes: codes_to_wire(&breaker.failures.grpc_codes),
    }
}

fn breaker_from_wire(wire: proto::CircuitBreaker) -> Result<CircuitBreaker, InvalidResource> {
    let window = match required(wire.window).field("window")? {
        Window::WindowRequests(size) => BreakerWindow::Calls(size),
        Window::WindowTime(length) => BreakerWindow::Time(duration_from_wire(length).field("window_time")?),
    };
    let slow = |wire: proto::SlowCalls| {
        let threshold = time(wire.threshold).field("threshold")?;
        Ok(SlowCalls { threshold, percent: percent(wire.percent).field("percent")? })
    };
    let half_open = |wire: Option<proto::HalfOpen>| {
        let wire = required(wire)?;
        let max_duration = time(wire.max_duration).field("max_duration")?;
        Ok(HalfOpen { probes: wire.probes, successes: wire.successes, max_duration })
    };
    Ok(CircuitBreaker {
        window,
        minimum_calls: wire.minimum_requests,
        failure_percent: percent(wire.failure_percent).field("failure_percent")?,
        slow_calls: wire.slow.map(slow).transpose().field("slow")?,
        consecutive_failures: wire.consecutive_failures,
        open: open_from_wire(wire.open).field("open")?,
        half_open: half_open(wire.half_open).field("half_open")?,
        ramp: time(wire.ramp).field("ramp")?,
        failures: Failures {
            statuses: each(wire.failure_statuses, "failure_statuses", range_from_wire)?,
            grpc_codes: codes_from_wire(wire.failure_grpc_codes, "failure_grpc_codes")?,
        },
    })
}

fn open_from_wire(wire: Option<proto::OpenTime>) -> Result<OpenTime, InvalidResource> {
    let wire = required(wire)?;
    Ok(OpenTime {
        duration: time(wire.duration).field("duration")?,
        factor: wire.factor,
        maximum: time(wire.maximum).field("maximum")?,
        jitter_percent: percent(wire.jitter_percent).field("jitter_percent")?,
    })
}

fn outliers_to_wire(outliers: &OutlierDetection) -> proto::OutlierDetection {
    proto::OutlierDetection {
        interval: Some(duration_to_wire(outliers.interval)),
        base_ejection: Some(duration_to_wire(outliers.ejection.base)),
        max_ejection: Some(duration_to_wire(outliers.ejection.maximum)),
        jitter_percent: outliers.ejection.jitter_percent.into(),
        max_ejection_percent: outliers.ejection.max_percent.into(),
        at_least_one: outliers.ejection.at_least_one,
        consecutive_5xx: outliers.consecutive_5xx,
        consecutive_gateway_errors: outliers.consecutive_gateway_errors,
        consecutive_local_failures: outliers.consecutive_local_failures,
        success_rate: outliers.success_rate.map(|rate| proto::SuccessRate {
            minimum_endpoints: rate.minimum_endpoints,
            minimum_requests: rate.minimum_calls,
            deviations: rate.deviations,
        }),
        failure_percentage: outliers.failure_percentage.map(|rate| proto::FailurePercentage {
            minimum_endpoints: rate.minimum_endpoints,
            minimum_requests: rate.minimum_calls,
            percent: rate.percent.into(),
        }),
    }
}

fn outliers_from_wire(wire: proto::OutlierDetection) -> Result<OutlierDetection, InvalidResource> {
    let ejection = Ejection {
        base: time(wire.base_ejection).field("base_ejection")?,
        maximum: time(wire.max_ejection).field("max_ejection")?,
        jitter_percent: percent(wire.jitter_percent).field("jitter_percent")?,
        max_percent: percent(wire.max_ejection_percent).field("max_ejection_percent")?,
        at_least_one: wire.at_least_one,
    };
    let failure_percentage = wire.failure_percentage.map(|rate| {
        let (minimum_endpoints, minimum_calls) = (rate.minimum_endpoints, rate.minimum_requests);
        Ok(FailurePercentage { minimum_endpoints, minimum_calls, percent: percent(rate.percent).field("percent")? })
    });
    Ok(OutlierDetection {
        interval: time(wire.interval).field("interval")?,
        ejection,
        consecutive_5xx: wire.consecutive_5xx,
        consecutive_gateway_errors: wire.consecutive_gateway_errors,
        consecutive_local_failures: wire.consecutive_local_failures,
        success_rate: wire.success_rate.map(|rate| SuccessRate {
            minimum_endpoints: rate.minimum_endpoints,
            minimum_calls: rate.minimum_requests,
            deviations: rate.deviations,
        }),
        failure_percentage: failure_percentage.transpose().field("failure_percentage")?,
    })
}

fn health_check_to_wire(check: &HealthCheck) -> proto::HealthCheck {
    proto::HealthCheck {
        interval: Some(duration_to_wire(check.interval)),
        timeout: Some(duration_to_wire(check.timeout)),
        jitter_percent: check.jitter_percent.into(),
        healthy_threshold: check.healthy_threshold,
        unhealthy_threshold: check.unhealthy_threshold,
        port: check.port.map(|port| port.get().into()),
        probe: Some(match &check.probe {
            HealthProbe::Tcp => Probe::Tcp(proto::TcpProbe {}),
            HealthProbe::Http { path, host, statuses } => Probe::Http(proto::HttpProbe {
                path: path.to_string(),
                host: host.as_ref().map(|host| host.as_bytes().to_vec().into()),
                statuses: ranges_to_wire(statuses),
            }),
            HealthProbe::Grpc { service } => Probe::Grpc(proto::GrpcProbe { service: service.to_string() }),
        }),
    }
}

fn health_check_from_wire(wire: proto::HealthCheck) -> Result<HealthCheck, InvalidResource> {
    let probe = match required(wire.probe).field("probe")? {
        Probe::Tcp(_) => HealthProbe::Tcp,
        Probe::Http(wire) => HealthProbe::Http {
            path: wire.path.into(),
            host: wire.host.map(|host| header_value(&host)).transpose().field("host").field("http")?,
            statuses: each(wire.statuses, "statuses", range_from_wire).field("http")?,
        },
        Probe::Grpc(wire) => HealthProbe::Grpc { service: wire.service.into() },
    };
    let port = |port: u32| {
        let number = u16::try_from(port).ok().and_then(NonZeroU16::new);
        number.ok_or_else(|| InvalidResource::new(format_args!("{port} is not a port")))
    };
    Ok(HealthCheck {
        interval: time(wire.interval).field("interval")?,
        timeout: time(wire.timeout).field("timeout")?,
        jitter_percent: percent(wire.jitter_percent).field("jitter_percent")?,
        healthy_threshold: wire.healthy_threshold,
        unhealthy_threshold: wire.unhealthy_threshold,
        port: wire.port.map(port).transpose().field("port")?,
        probe,
    })
}

fn balance_to_wire(balance: &Balance) -> proto::Balance {
    proto::Balance {
        kind: Some(match balance {
            Balance::PeakEwma => BalanceKind::PeakEwma(proto::PeakEwma {}),
            Balance::LeastRequest => BalanceKind::LeastRequest(proto::LeastRequest {}),
            Balance::RoundRobin => BalanceKind::RoundRobin(proto::RoundRobin {}),
            Balance::RingHash(key) => BalanceKind::RingHash(hash_key_to_wire(key)),
            Balance::Maglev(key) => BalanceKind::Maglev(hash_key_to_wire(key)),
        }),
    }
}

fn balance_from_wire(wire: Option<proto::Balance>) -> Result<Balance, InvalidResource> {
    Ok(match required(required(wire)?.kind)? {
        BalanceKind::PeakEwma(_) => Balance::PeakEwma,
        BalanceKind::LeastRequest(_) => Balance::LeastRequest,
        BalanceKind::RoundRobin(_) => Balance::RoundRobin,
        BalanceKind::RingHash(key) => Balance::RingHash(hash_key_from_wire(key).field("ring_hash")?),
        BalanceKind::Maglev(key) => Balance::Maglev(hash_key_from_wire(key).field("maglev")?),
    })
}

fn hash_key_to_wire(key: &HashKey) -> proto::HashKey {
    proto::HashKey {
        key: Some(match key {
            HashKey::Address => Key::Address(proto::ClientAddress {}),
            HashKey::Header(name) => Key::Header(name.to_string()),
            HashKey::Cookie(name) => Key::Cookie(name.to_string()),
        }),
    }
}

fn hash_key_from_wire(wire: proto::HashKey) -> Result<HashKey, InvalidResource> {
    Ok(match required(wire.key)? {
        Key::Address(_) => HashKey::Address,
        Key::Header(name) => HashKey::Header(header_name(&name).field("header")?),
        Key::Cookie(name) => HashKey::Cookie(name.into()),
    })
}

fn retries_to_wire(retries: &Retries) -> proto::Retries {
    let failure = |failure: &LocalFailure| {
        let failure = match failure {
            LocalFailure::Connect => proto::LocalFailure::Connect,
            LocalFailure::Reset => proto::LocalFailure::Reset,
            LocalFailure::Timeout => proto::LocalFailure::Timeout,
        };
        failure.into()
    };
    proto::Retries {
        limit: retries.limit,
        failures: retries.failures.iter().map(failure).collect(),
        statuses: ranges_to_wire(&retries.statuses),
        grpc_codes: codes_to_wire(&retries.grpc_codes),
        any_method: retries.any_method,
        backoff_base: Some(duration_to_wire(retries.backoff_base)),
        backoff_max: Some(duration_to_wire(retries.backoff_max)),
        max_body: retries.max_body,
        budget: retries.budget.map(|budget| proto::RetryBudget {
            percent: budget.percent.into(),
            window: Some(duration_to_wire(budget.window)),
            minimum: budget.minimum,
        }),
    }
}

fn retries_from_wire(wire: proto::Retries) -> Result<Retries, InvalidResource> {
    let failures = each(wire.failures, "failures", |failure| match proto::LocalFailure::try_from(failure) {
        Ok(proto::LocalFailure::Connect) => Ok(LocalFailure::Connect),
        Ok(proto::LocalFailure::Reset) => Ok(LocalFailure::Reset),
        Ok(proto::LocalFailure::Timeout) => Ok(LocalFailure::Timeout),
        Ok(proto::LocalFailure::Unspecified) | Err(_) => Err(InvalidResource::unknown()),
    });
    let budget = |wire: proto::RetryBudget| {
        Ok(RetryBudget {
            percent: percent(wire.percent).field("percent")?,
            window: time(wire.window).field("window")?,
            minimum: wire.minimum,
        })
    };
    Ok(Retries {
        limit: wire.limit,
        failures: ordered(failures?, "failures")?,
        statuses: each(wire.statuses, "statuses", range_from_wire)?,
        grpc_codes: codes_from_wire(wire.grpc_codes, "grpc_codes")?,
        any_method: wire.any_method,
        backoff_base: time(wire.backoff_base).field("backoff_base")?,
        backoff_max: time(wire.backoff_max).field("backoff_max")?,
        max_body: wire.max_body,
        budget: wire.budget.map(budget).transpose().field("budget")?,
    })
}

fn timeouts_from_wire(wire: proto::BackendTimeouts) -> Result<BackendTimeouts, InvalidResource> {
    Ok(BackendTimeouts {
        connect: wire.connect.map(duration_from_wire).transpose().field("connect")?,
        response: wire.response.map(duration_from_wire).transpose().field("response")?,
        attempt: wire.attempt.map(duration_from_wire).transpose().field("attempt")?,
        idle: wire.idle.map(duration_from_wire).transpose().field("idle")?,
    })
}

fn fallback_to_wire(fallback: &Fallback) -> proto::Fallback {
    let Fallback::Response(response) = fallback;
    proto::Fallback {
        kind: Some(Kind::Response(proto::FallbackResponse {
            status: response.status.as_u16().into(),
            content_type: response.content_type.as_bytes().to_vec().into(),
            body: response.body.to_vec().into(),
        })),
    }
}

fn fallback_from_wire(wire: proto::Fallback) -> Result<Fallback, InvalidResource> {
    let Kind::Response(wire) = required(wire.kind)?;
    let status = u16::try_from(wire.status).ok().and_then(|status| StatusCode::from_u16(status).ok());
    let status = status.ok_or_else(|| InvalidResource::new(format_args!("{} is not a status", wire.status)));
    Ok(Fallback::Response(FallbackResponse {
        status: status.field("status").field("response")?,
        content_type: header_value(&wire.content_type).field("content_type").field("response")?,
        body: wire.body.to_vec().into(),
    }))
}

fn time(wire: Option<proto::Duration>) -> Result<Duration, InvalidResource> {
    duration_from_wire(required(wire)?)
}

fn percent(number: u32) -> Result<u8, InvalidResource> {
    let percent = u8::try_from(number).ok().filter(|percent| *percent <= 100);
    percent.ok_or_else(|| InvalidResource::new(format_args!("{number} is above 100")))
}

fn header_value(bytes: &[u8]) -> Result<HeaderValue, InvalidResource> {
    HeaderValue::from_bytes(bytes).map_err(InvalidResource::new)
}

fn ranges_to_wire(ranges: &[StatusRange]) -> Vec<proto::StatusRange> {
    let range = |range: &StatusRange| proto::StatusRange { first: range.first.into(), last: range.last.into() };
    ranges.iter().map(range).collect()
}

fn range_from_wire(wire: proto::StatusRange) -> Result<StatusRange, InvalidResource> {
    let status =
        |status: u32| u16::try_from(status).map_err(|_| InvalidResource::new(format_args!("{status} is not a status")));
    Ok(StatusRange { first: status(wire.first).field("first")?, last: status(wire.last).field("last")? })
}

fn codes_to_wire(codes: &BTreeSet<u8>) -> Vec<u32> {
    codes.iter().copied().map(u32::from).collect()
}

fn codes_from_wire(wire: Vec<u32>, name: &str) -> Result<BTreeSet<u8>, InvalidResource> {
    let codes = each(wire, name, |code| {
        u8::try_from(code).map_err(|_| InvalidResource::new(format_args!("{code} is not a gRPC code")))
    });
    ordered(codes?, name)
}

/// Elements that are sorted, each once.
fn ordered<T: Ord + Copy>(elements: Vec<T>, name: &str) -> Result<BTreeSet<T>, InvalidResource> {
    for (index, pair) in elements.windows(2).enumerate() {
        if let [before, after] = pair
            && before >= after
        {
            return Err(InvalidResource::new("is not sorted, or repeats the one before")).element(name, index + 1);
        }
    }
    Ok(elements.into_iter().collect())
}
