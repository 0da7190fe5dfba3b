use super::*;

const INTERVAL: Duration = Duration::from_secs(10);

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn ejection(max_percent: u8) -> EjectionSpec {
    EjectionSpec::new(at(30), at(100), 0, max_percent).unwrap()
}

fn spec(max_percent: u8) -> OutlierSpec {
    OutlierSpec::new(INTERVAL, ejection(max_percent), LocalOrigin::AsGatewayError).unwrap()
}

struct Backend {
    detector: OutlierDetector,
    endpoints: Vec<EndpointOutliers>,
}

impl Backend {
    fn new(spec: OutlierSpec, count: usize) -> Self {
        let endpoints = (0..count).map(|_| EndpointOutliers::default()).collect();
        Self { detector: OutlierDetector::new(spec), endpoints }
    }

    fn record(&self, index: usize, outcome: EndpointOutcome, now: Duration) -> Option<Ejection> {
        self.detector.record(&self.endpoints[index], outcome, || &self.endpoints, now, 0)
    }

    /// Answers of one interval, of which `failures` are bad.
    fn answers(&self, index: usize, calls: u32, failures: u32, now: Duration) {
        for call in 0..calls {
            let outcome = if call < failures { EndpointOutcome::ServerError } else { EndpointOutcome::Success };
            assert_eq!(self.record(index, outcome, now), None);
        }
    }

    fn sweep(&self, now: Duration) -> Vec<(usize, Ejection)> {
        self.detector.sweep(&self.endpoints.iter().collect::<Vec<_>>(), now, || 0)
    }

    fn ejected(&self, now: Duration) -> usize {
        self.endpoints.iter().filter(|endpoint| endpoint.is_ejected(now)).count()
    }
}

use EndpointOutcome::{GatewayError, LocalOrigin as Local, ServerError, Success};

/// The causes that a run of outcomes at one of two endpoints brings about, by the place in the run.
fn run(spec: OutlierSpec, outcomes: &[EndpointOutcome]) -> Vec<(usize, EjectionCause)> {
    let backend = Backend::new(spec, 2);
    let causes = outcomes.iter().enumerate();
    causes.filter_map(|(index, outcome)| Some((index, backend.record(0, *outcome, at(0))?.cause))).collect()
}

#[test]
fn failures_in_a_row_eject() {
    let only_5xx = spec(50).with_consecutive_5xx(3).unwrap();
    assert_eq!(run(only_5xx.clone(), &[ServerError, GatewayError, Local]), [(2, EjectionCause::Consecutive5xx)]);
    assert_eq!(run(only_5xx, &[ServerError, ServerError, Success, ServerError, ServerError]), []);
}

#[test]
fn other_server_errors_interrupt_gateway_errors() {
    let gateway = spec(50).with_consecutive_gateway_errors(2).unwrap();
    assert_eq!(run(gateway.clone(), &[GatewayError, ServerError, GatewayError]), []);
    assert_eq!(run(gateway, &[GatewayError, Local]), [(1, EjectionCause::ConsecutiveGatewayErrors)]);
}

#[test]
fn split_local_errors_count_by_themselves() {
    let split = OutlierSpec::new(INTERVAL, ejection(50), LocalOrigin::Split(2)).unwrap();
    let split = split.with_consecutive_5xx(2).unwrap();
    assert_eq!(run(split.clone(), &[ServerError, Local, Success, Local]), []);
    assert_eq!(run(split.clone(), &[Local, Local]), [(1, EjectionCause::ConsecutiveLocalOrigin)]);
    assert_eq!(run(split, &[ServerError, Local, ServerError]), [(2, EjectionCause::Consecutive5xx)]);
}

#[test]
fn an_endpoint_comes_back_by_time_alone() {
    let backend = Backend::new(spec(50).with_consecutive_5xx(1).unwrap(), 2);
    let ejection = backend.record(0, ServerError, at(5)).unwrap();
    assert_eq!(ejection, Ejection { cause: EjectionCause::Consecutive5xx, until: at(35), number: 1 });
    assert!(backend.endpoints[0].is_ejected(at(34)));
    assert_eq!(backend.endpoints[0].ejected_until(at(34)), Some(at(35)));
    assert!(!backend.endpoints[0].is_ejected(at(35)));
}

#[test]
fn each_ejection_is_longer_up_to_the_maximum_and_good_intervals_forgive() {
    let backend = Backend::new(spec(50).with_consecutive_5xx(1).unwrap(), 2);
    let mut now = at(0);
    let mut length = || {
        let ejection = backend.record(0, ServerError, now).unwrap();
        let length = ejection.until.saturating_sub(now);
        now = ejection.until;
        length
    };
    assert_eq!([length(), length(), length(), length(), length()], [30, 60, 90, 100, 100].map(at));
    assert_eq!(backend.endpoints[0].ejections(), 4);
    (0..3).for_each(|_| assert_eq!(backend.sweep(now), []));
    assert_eq!(backend.endpoints[0].ejections(), 1);
    assert_eq!(backend.record(0, ServerError, now).unwrap().until, now + at(60));
}

#[test]
fn an_interval_within_an_ejection_forgives_nothing() {
    let backend = Backend::new(spec(50).with_consecutive_5xx(1).unwrap(), 2);
    backend.record(0, ServerError, at(0)).unwrap();
    backend.sweep(at(10));
    assert_eq!(backend.endpoints[0].ejections(), 1);
}

#[test]
fn outcomes_while_ejected_say_nothing() {
    let backend = Backend::new(spec(50).with_consecutive_5xx(2).unwrap(), 2);
    assert_eq!((0..5).filter_map(|_| backend.record(0, ServerError, at(0))).count(), 1);
    assert_eq!(backend.record(0, ServerError, at(30)), None);
    assert!(backend.record(0, ServerError, at(30)).is_some());
}

#[test]
fn an_endpoint_that_comes_back_begins_to_count_anew() {
    let spec = spec(50).with_consecutive_5xx(3).unwrap().with_consecutive_gateway_errors(4).unwrap();
    let backend = Backend::new(spec, 2);
    assert_eq!((0..3).filter_map(|_| backend.record(0, GatewayError, at(0))).count(), 1);
    assert_eq!(backend.record(0, GatewayError, at(30)), None);
}

#[test]
fn no_more_than_the_share_is_ejected() {
    for (max_percent, count, expected) in [(0, 10, 0), (10, 10, 1), (10, 9, 0), (50, 3, 1), (34, 3, 1), (100, 3, 3)] {
        let backend = Backend::new(spec(max_percent).with_consecutive_5xx(1).unwrap(), count);
        (0..count).for_each(|index| _ = backend.record(index, ServerError, at(0)));
        assert_eq!(backend.ejected(at(0)), expected, "{max_percent} % of {count}");
    }
}

#[test]
fn one_may_be_ejected_where_the_spec_says_so() {
    let ejection = ejection(0).with_at_least_one();
    let spec = OutlierSpec::new(INTERVAL, ejection, LocalOrigin::AsGatewayError).unwrap();
    let backend = Backend::new(spec.with_consecutive_5xx(1).unwrap(), 3);
    (0..3).for_each(|index| _ = backend.record(index, ServerError, at(0)));
    assert_eq!(backend.ejected(at(0)), 1);
}

#[test]
fn threads_together_keep_the_share() {
    let backend = Backend::new(spec(30).with_consecutive_5xx(1).unwrap(), 40);
    std::thread::scope(|scope| {
        for index in 0..40 {
            let backend = &backend;
            scope.spawn(move || backend.record(index, ServerError, at(0)));
        }
    });
    assert_eq!(backend.ejected(at(0)), 12);
}

#[test]
fn the_share_of_failures_ejects_at_its_threshold_and_the_worst_first() {
    let percentage = FailurePercentageSpec::new(3, 50, 40).unwrap();
    let backend = Backend::new(spec(50).with_failure_percentage(percentage), 4);
    backend.answers(0, 100, 40, at(1));
    backend.answers(1, 100, 39, at(1));
    backend.answers(2, 49, 49, at(1));
    backend.answers(3, 50, 50, at(1));
    let ejected: Vec<usize> = backend.sweep(at(10)).into_iter().map(|(index, _)| index).collect();
    assert_eq!(ejected, [3, 0], "the third had too few calls");
    assert_eq!(backend.sweep(at(20)), [], "the next interval begins at nothing");
}

#[test]
fn the_share_of_failures_waits_for_enough_endpoints() {
    let percentage = FailurePercentageSpec::new(3, 10, 40).unwrap();
    let backend = Backend::new(spec(50).with_failure_percentage(percentage), 3);
    backend.answers(0, 10, 10, at(1));
    backend.answers(1, 10, 0, at(1));
    assert_eq!(backend.sweep(at(10)), []);
}

#[test]
fn the_success_rate_ejects_what_is_far_below_the_others() {
    // Envoy's example has rates of 90, 96, 95, 99 and 50 %: the mean is 86, the deviation 18.2, the limit 51.3.
    let success_rate = SuccessRateSpec::new(5, 100, 1900).unwrap();
    let backend = Backend::new(spec(50).with_success_rate(success_rate), 5);
    for (index, failures) in [10, 4, 5, 1, 50].into_iter().enumerate() {
        backend.answers(index, 100, failures, at(1));
    }
    let ejected = backend.sweep(at(10));
    assert_eq!(ejected.len(), 1);
    assert_eq!((ejected[0].0, ejected[0].1.cause), (4, EjectionCause::SuccessRate));
}

#[test]
fn endpoints_that_fail_alike_are_no_outliers() {
    let success_rate = SuccessRateSpec::new(3, 10, 1900).unwrap();
    let backend = Backend::new(spec(50).with_success_rate(success_rate), 3);
    (0..3).for_each(|index| backend.answers(index, 100, 90, at(1)));
    assert_eq!(backend.sweep(at(10)), []);
}

#[test]
fn too_few_usable_endpoints_are_a_panic() {
    for (usable, all, threshold, expected) in
        [(5, 10, 50, false), (4, 10, 50, true), (0, 10, 0, false), (0, 10, 1, true), (0, 0, 50, false)]
    {
        assert_eq!(is_panic(usable, all, threshold), expected, "{usable} of {all} at {threshold} %");
    }
}

#[test]
fn endings_say_whose_fault_they_are() {
    use crate::outcome::{Ending, GrpcCode, LocalError};
    for (ending, expected) in [
        (Ending::Http(200), Some(Success)),
        (Ending::Http(429), Some(Success)),
        (Ending::Http(500), Some(ServerError)),
        (Ending::Http(501), Some(ServerError)),
        (Ending::Http(503), Some(GatewayError)),
        (Ending::Http(505), Some(ServerError)),
        (Ending::Grpc(GrpcCode::Unavailable), Some(GatewayError)),
        (Ending::Grpc(GrpcCode::Internal), Some(ServerError)),
        (Ending::Grpc(GrpcCode::NotFound), Some(Success)),
        (Ending::Grpc(GrpcCode::Cancelled), None),
        (Ending::Local(LocalError::ConnectFailed), Some(Local)),
        (Ending::Local(LocalError::Cancelled), None),
    ] {
        assert_eq!(EndpointOutcome::of(ending), expected, "{ending:?}");
    }
}

#[test]
fn a_bad_setting_is_named() {
    let error = OutlierSpec::new(INTERVAL, ejection(50), LocalOrigin::Split(0)).unwrap_err();
    assert_eq!(error.to_string(), "outlier.consecutiveLocalOriginFailures must be 1 to 10000");
    let error = EjectionSpec::new(at(30), at(29), 0, 10).unwrap_err();
    assert_eq!(error.to_string(), "outlier.maxEjectionTime must be 30s to 86400s");
}

#[test]
fn an_endpoint_that_is_reset_is_as_new() {
    let backend = Backend::new(spec(100).with_consecutive_5xx(2).unwrap(), 2);
    backend.record(0, ServerError, at(0));
    assert!(backend.record(0, ServerError, at(0)).is_some());
    backend.endpoints[0].reset();
    assert_eq!((backend.ejected(at(0)), backend.endpoints[0].ejections()), (0, 0));
    assert_eq!(backend.record(0, ServerError, at(0)), None);
    assert_eq!(backend.record(0, ServerError, at(0)).unwrap().number, 1);
}
