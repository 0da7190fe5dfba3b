//! Policies: what is asked of requests beside where they go.

mod backend;

pub use backend::{
    AdaptiveLimit, BackendOptions, BackendSettings, BackendTimeouts, Balance, BreakerWindow, CircuitBreaker,
    ConcurrencyLimits, Ejection, FailurePercentage, Failures, Fallback, FallbackResponse, HalfOpen, HashKey,
    HealthCheck, HealthProbe, InvalidBackendSettings, LocalFailure, OpenTime, OutlierDetection, Retries, RetryBudget,
    SlowCalls, StatusRange, SuccessRate,
};
