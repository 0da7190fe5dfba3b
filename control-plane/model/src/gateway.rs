//! Settings of all proxies of one Gateway, from its `GatewayConfig`.

use crate::{GatewayKey, PolicyKey};

/// What one Gateway's proxies have in common.
#[derive(Clone, Debug, PartialEq)]
pub struct Gateway {
    /// The Gateway.
    pub key: GatewayKey,
    /// Whether each request is written to the access log.
    pub access_log: AccessLog,
    /// Where traces go; `None` for nowhere. `traceparent` is passed on either way.
    pub tracing: Option<Tracing>,
    /// For everything that it serves; at most one of a kind, sorted.
    pub policies: Vec<PolicyKey>,
}

/// Whether requests are logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessLog {
    /// One JSON line a request.
    Json,
    /// Nothing.
    Off,
}

/// OpenTelemetry traces.
#[derive(Clone, Debug, PartialEq)]
pub struct Tracing {
    /// The OTLP/gRPC collector: `http://collector:4317`.
    pub endpoint: String,
    /// The share of requests without a `traceparent` that begin a trace.
    pub sampling: SamplingRatio,
}

/// A share of requests, from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct SamplingRatio(f64);

/// A sampling ratio out of range.
#[derive(Debug, thiserror::Error, PartialEq)]
#[error("sampling ratio {0} is not between 0 and 1")]
pub struct InvalidSampling(pub f64);

impl SamplingRatio {
    /// # Errors: [`InvalidSampling`] for a value below 0, above 1, or not a number.
    pub fn new(ratio: f64) -> Result<Self, InvalidSampling> {
        if (0.0..=1.0).contains(&ratio) { Ok(Self(ratio)) } else { Err(InvalidSampling(ratio)) }
    }

    /// The ratio, 0 to 1.
    pub fn get(self) -> f64 {
        self.0
    }
}
