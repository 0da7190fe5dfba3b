//! What protects a backend and those who call it: circuit breaker, concurrency limits, retry budget, ejection of
//! outliers, active health checks.
//!
//! Invariants: no clock and no random source of its own, the caller passes both in. Time is a `Duration` since any
//! monotonic origin that all calls on one value share. Randomness is a `u32` drawn evenly from all its values. Every
//! value of a spec type is valid: its constructor says what is not. State is shared by the cores, behind atomics or one
//! short lock; no callback runs under that lock.

mod adaptive;
mod breaker;
mod concurrency;
mod health;
mod outcome;
mod outlier;
mod range;
mod retry_budget;

pub use adaptive::{AdaptiveConcurrency, AdaptivePermit, AdaptiveSpec, LimitReached};
pub use breaker::{
    Breaker, BreakerSpec, Cause, Forced, HalfOpenSpec, OpenSpec, Permit, Refused, SlowCallSpec, Snapshot, State,
    Transition, WindowSpec,
};
pub use concurrency::{Concurrency, ConcurrencySpec, Full, InFlight, Pending, QueueFull};
pub use health::{Check, Health, HealthSpec, HealthState};
pub use outcome::{Classifier, Ending, GrpcCode, InvalidStatusRange, LocalError, Outcome, StatusSet};
pub use outlier::{
    Ejection, EjectionCause, EjectionSpec, EndpointOutcome, EndpointOutliers, FailurePercentageSpec, LocalOrigin,
    OutlierDetector, OutlierSpec, SuccessRateSpec, is_panic,
};
pub use range::OutOfRange;
pub use retry_budget::{BudgetSpent, RetryBudget, RetryBudgetSpec};
