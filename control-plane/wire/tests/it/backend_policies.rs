//! Any valid BackendPolicy, and what is refused in one.

use std::{collections::BTreeSet, num::NonZeroU16, time::Duration};

use control_plane_model::{
    AdaptiveLimit, BackendOptions, BackendSettings, BackendTimeouts, Balance, BreakerWindow, CircuitBreaker,
    ConcurrencyLimits, Ejection, FailurePercentage, Failures, Fallback, FallbackResponse, HalfOpen, HashKey,
    HealthCheck, HealthProbe, LocalFailure, OpenTime, OutlierDetection, Retries, RetryBudget, SlowCalls, StatusRange,
    SuccessRate,
};
use control_plane_wire::proto;
use http::{HeaderValue, StatusCode};
use proptest::{
    collection::{btree_set, vec},
    option::of,
    prelude::*,
};

use crate::{
    invalid::{UNKNOWN, refused},
    strategies::{header_name, text},
};

const POLICY: &str = "policy/backend/shop/cart";

/// From `least` milliseconds to an hour.
fn time(least: u64) -> impl Strategy<Value = Duration> {
    (least..=3_600_000).prop_map(Duration::from_millis)
}

/// Two times, the lower one first.
fn times() -> impl Strategy<Value = (Duration, Duration)> {
    (time(1), time(1)).prop_map(|(one, other)| (one.min(other), one.max(other)))
}

fn calls() -> std::ops::RangeInclusive<u32> {
    1..=10_000
}

fn ranges() -> impl Strategy<Value = Vec<StatusRange>> {
    let range = (100..=599_u16, 100..=599_u16)
        .prop_map(|(one, other)| StatusRange { first: one.min(other), last: one.max(other) });
    vec(range, 0..3)
}

fn codes() -> impl Strategy<Value = BTreeSet<u8>> {
    btree_set(0..=16_u8, 0..4)
}

fn header_value() -> impl Strategy<Value = HeaderValue> {
    "[ -~]{1,12}".prop_map(|text| HeaderValue::from_str(&text).unwrap())
}

fn breaker() -> BoxedStrategy<CircuitBreaker> {
    let window = prop_oneof![
        calls().prop_map(|size| (BreakerWindow::Calls(size), size)),
        time(1000).prop_map(|length| (BreakerWindow::Time(length), 10_000)),
    ];
    let window = window.prop_flat_map(|(window, most)| (Just(window), 1..=most));
    let slow = (time(1), 1..=100_u8).prop_map(|(threshold, percent)| SlowCalls { threshold, percent });
    let open = (times(), 1..=10_u32, 0..=50_u8).prop_map(|((duration, maximum), factor, jitter_percent)| OpenTime {
        duration,
        factor,
        maximum,
        jitter_percent,
    });
    let half_open = (1..=100_u32, 1..=100_u32, time(1)).prop_map(|(probes, successes, max_duration)| HalfOpen {
        probes,
        successes,
        max_duration,
    });
    let failures = (ranges(), codes()).prop_map(|(statuses, grpc_codes)| Failures { statuses, grpc_codes });
    (window, 1..=100_u8, of(slow), of(calls()), open, half_open, time(0), failures)
        .prop_map(
            |(
                (window, minimum_calls),
                failure_percent,
                slow_calls,
                consecutive_failures,
                open,
                half_open,
                ramp,
                failures,
            )| {
                CircuitBreaker {
                    window,
                    minimum_calls,
                    failure_percent,
                    slow_calls,
                    consecutive_failures,
                    open,
                    half_open,
                    ramp,
                    failures,
                }
            },
        )
        .boxed()
}

fn outliers() -> BoxedStrategy<OutlierDetection> {
    let ejection = (times(), 0..=50_u8, 0..=100_u8, any::<bool>()).prop_map(
        |((base, maximum), jitter_percent, max_percent, at_least_one)| Ejection {
            base,
            maximum,
            jitter_percent,
            max_percent,
            at_least_one,
        },
    );
    let success_rate = (calls(), calls(), calls()).prop_map(|(minimum_endpoints, minimum_calls, deviations)| {
        SuccessRate { minimum_endpoints, minimum_calls, deviations }
    });
    let percentage = (calls(), calls(), 1..=100_u8).prop_map(|(minimum_endpoints, minimum_calls, percent)| {
        FailurePercentage { minimum_endpoints, minimum_calls, percent }
    });
    let in_a_row = (of(calls()), of(calls()), of(calls()));
    (time(1000), ejection, in_a_row, of(success_rate), of(percentage))
        .prop_map(|(interval, ejection, in_a_row, success_rate, failure_percentage)| OutlierDetection {
            interval,
            ejection,
            consecutive_5xx: in_a_row.0,
            consecutive_gateway_errors: in_a_row.1,
            consecutive_local_failures: in_a_row.2,
            success_rate,
            failure_percentage,
        })
        .boxed()
}

fn health_check() -> BoxedStrategy<HealthCheck> {
    let probe = prop_oneof![
        Just(HealthProbe::Tcp),
        (text("/[a-z]{0,8}"), of(header_value()), ranges()).prop_map(|(path, host, statuses)| HealthProbe::Http {
            path,
            host,
            statuses
        }),
        text("\\PC{0,8}").prop_map(|service| HealthProbe::Grpc { service }),
    ];
    let port = (1..=u16::MAX).prop_map(|port| NonZeroU16::new(port).unwrap());
    let thresholds = (1..=100_u32, 1..=100_u32);
    (time(100), 10..=60_000_u64, 0..=50_u8, thresholds, of(port), probe)
        .prop_map(|(interval, timeout, jitter_percent, thresholds, port, probe)| HealthCheck {
            interval,
            timeout: Duration::from_millis(timeout),
            jitter_percent,
            healthy_threshold: thresholds.0,
            unhealthy_threshold: thresholds.1,
            port,
            probe,
        })
        .boxed()
}

fn balance() -> impl Strategy<Value = Balance> {
    let key = || {
        prop_oneof![
            Just(HashKey::Address),
            header_name().prop_map(HashKey::Header),
            text("[a-z]{1,8}").prop_map(HashKey::Cookie),
        ]
    };
    prop_oneof![
        Just(Balance::PeakEwma),
        Just(Balance::LeastRequest),
        Just(Balance::RoundRobin),
        key().prop_map(Balance::RingHash),
        key().prop_map(Balance::Maglev),
    ]
}

fn retries() -> BoxedStrategy<Retries> {
    let failure = prop_oneof![Just(LocalFailure::Connect), Just(LocalFailure::Reset), Just(LocalFailure::Timeout)];
    let budget = (0..=100_u8, time(1000), 0..=100_000_u32).prop_map(|(percent, window, minimum)| RetryBudget {
        percent,
        window,
        minimum,
    });
    let on = (btree_set(failure, 1..3), ranges(), codes());
    let backoff = (1..=60_000_u64, 0..=240_000_u64);
    (1..=10_u32, on, any::<bool>(), backoff, 0..=1_048_576_u32, of(budget))
        .prop_map(|(limit, (failures, statuses, grpc_codes), any_method, (base, more), max_body, budget)| Retries {
            limit,
            failures,
            statuses,
            grpc_codes,
            any_method,
            backoff_base: Duration::from_millis(base),
            backoff_max: Duration::from_millis(base + more),
            max_body,
            budget,
        })
        .boxed()
}

fn fallback() -> impl Strategy<Value = Fallback> {
    (400..=599_u16, header_value(), vec(any::<u8>(), 0..20)).prop_map(|(status, content_type, body)| {
        let status = StatusCode::from_u16(status).unwrap();
        Fallback::Response(FallbackResponse { status, content_type, body: body.into() })
    })
}

pub fn settings() -> BoxedStrategy<BackendSettings> {
    let limits = (1..=1_000_000_u32, 0..=100_000_u32, 1..=60_000_u64)
        .prop_map(|(max, pending, wait)| ConcurrencyLimits { max, pending, max_wait: Duration::from_millis(wait) });
    let adaptive = (1..=1000_u32, 0..=1000_u32, 0..=1000_u32, 1..=60_000_u64).prop_map(|(min, more, most, window)| {
        let (initial, max) = (min + more, min + more + most);
        AdaptiveLimit { min, max, initial, window: Duration::from_millis(window) }
    });
    let timeouts =
        (of(1..=60_000_u64), of(time(1)), of(time(1)), of(time(1))).prop_map(|(connect, response, attempt, idle)| {
            BackendTimeouts { connect: connect.map(Duration::from_millis), response, attempt, idle }
        });
    let limits = (of(limits), of(adaptive));
    let health = (of(outliers()), of(health_check()), 0..=100_u8);
    (limits, of(breaker()), health, balance(), of(retries()), timeouts, of(fallback()))
        .prop_map(
            |(
                (limits, adaptive),
                breaker,
                (outliers, health_check, panic_percent),
                balance,
                retries,
                timeouts,
                fallback,
            )| {
                let options = BackendOptions {
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
                };
                BackendSettings::new(options).unwrap()
            },
        )
        .boxed()
}

fn wire(policy: proto::BackendPolicy) -> proto::Policy {
    proto::Policy { spec: Some(proto::policy::Spec::Backend(policy)) }
}

fn valid() -> proto::BackendPolicy {
    proto::BackendPolicy {
        balance: Some(proto::Balance { kind: Some(proto::balance::Kind::RoundRobin(proto::RoundRobin {})) }),
        timeouts: Some(proto::BackendTimeouts::default()),
        ..proto::BackendPolicy::default()
    }
}

fn milliseconds(count: u32) -> proto::Duration {
    proto::Duration { seconds: 0, nanoseconds: count * 1_000_000 }
}

#[test]
fn a_part_that_is_missing_or_unknown_is_refused_by_its_field() {
    refused(POLICY, &wire(proto::BackendPolicy::default()), &format!("backend.balance: {UNKNOWN}"));
    let no_timeouts = proto::BackendPolicy { timeouts: None, ..valid() };
    refused(POLICY, &wire(no_timeouts), &format!("backend.timeouts: {UNKNOWN}"));
    let no_window = proto::BackendPolicy { breaker: Some(proto::CircuitBreaker::default()), ..valid() };
    refused(POLICY, &wire(no_window), &format!("backend.breaker.window: {UNKNOWN}"));
    let no_probe = proto::BackendPolicy { health_check: Some(proto::HealthCheck::default()), ..valid() };
    refused(POLICY, &wire(no_probe), &format!("backend.health_check.probe: {UNKNOWN}"));
    let no_kind = proto::BackendPolicy { fallback: Some(proto::Fallback { kind: None }), ..valid() };
    refused(POLICY, &wire(no_kind), &format!("backend.fallback: {UNKNOWN}"));
    let retries = proto::Retries { failures: vec![9], ..proto::Retries::default() };
    let unknown = proto::BackendPolicy { retries: Some(retries), ..valid() };
    refused(POLICY, &wire(unknown), &format!("backend.retries.failures[0]: {UNKNOWN}"));
}

#[test]
fn a_value_outside_its_range_is_refused() {
    let limits = |max| {
        let limits = proto::ConcurrencyLimits { max, pending: 0, max_wait: Some(milliseconds(1)) };
        wire(proto::BackendPolicy { limits: Some(limits), ..valid() })
    };
    refused(POLICY, &limits(0), "backend: limits.maxRequests must be 1 to 1000000, and is 0");
    let panic = proto::BackendPolicy { panic_percent: 101, ..valid() };
    refused(POLICY, &wire(panic), "backend.panic_percent: 101 is above 100");
    let codes = proto::Retries { grpc_codes: vec![14, 14], ..proto::Retries::default() };
    let twice = proto::BackendPolicy { retries: Some(codes), ..valid() };
    refused(POLICY, &wire(twice), "backend.retries.grpc_codes[1]: is not sorted, or repeats the one before");
    let check = proto::HealthCheck {
        interval: Some(milliseconds(100)),
        timeout: Some(milliseconds(100)),
        port: Some(65_536),
        probe: Some(proto::health_check::Probe::Tcp(proto::TcpProbe {})),
        ..proto::HealthCheck::default()
    };
    let port = proto::BackendPolicy { health_check: Some(check), ..valid() };
    refused(POLICY, &wire(port), "backend.health_check.port: 65536 is not a port");
    let response = proto::FallbackResponse { status: 7, ..proto::FallbackResponse::default() };
    let kind = Some(proto::fallback::Kind::Response(response));
    let status = proto::BackendPolicy { fallback: Some(proto::Fallback { kind }), ..valid() };
    refused(POLICY, &wire(status), "backend.fallback.response.status: 7 is not a status");
}

#[test]
fn a_policy_of_another_kind_than_its_key_is_refused() {
    refused("policy/rate-limit/shop/cart", &wire(valid()), "spec: is of another kind than its key");
}
