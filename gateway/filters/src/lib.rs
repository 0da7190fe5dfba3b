//! The filters that gateway and sidecar have in common, one a file, as one closed enum.
//!
//! Invariant: order comes from [`Stage`] alone. Each filter is compiled once, checked then, and cannot fail later.

mod header_modifier;
mod path;
pub mod rate_limit;
mod request_redirect;
mod url_rewrite;
pub mod validation;

use std::sync::Arc;

use control_plane_model::{Filter, HostPattern, Policy};
use gateway_engine::filter::{
    AttemptHead, FilterSet, HttpFilter, InvalidFilter, InvalidPolicy, RequestContext, ResponseHead, Stage, Verdict,
};
use http::HeaderValue;

pub use self::{
    header_modifier::{RequestHeaderModifier, ResponseHeaderModifier},
    rate_limit::RateLimit,
    request_redirect::RequestRedirect,
    url_rewrite::UrlRewrite,
    validation::RequestValidation,
};

/// Every filter of this crate.
#[derive(Clone, Debug)]
pub enum Filters {
    /// Changes what the backend sees.
    RequestHeaderModifier(RequestHeaderModifier),
    /// Changes what the client sees.
    ResponseHeaderModifier(ResponseHeaderModifier),
    /// Refuses what is above a limit.
    RateLimit(RateLimit),
    /// Refuses what does not satisfy a schema.
    RequestValidation(RequestValidation),
    /// Answers with a redirect.
    RequestRedirect(RequestRedirect),
    /// Changes host and path for the backend.
    UrlRewrite(UrlRewrite),
}

/// What the filters of a process keep while the configuration changes.
#[derive(Default)]
pub struct State {
    /// Buckets and counts.
    pub rate_limit: rate_limit::State,
    /// Compiled schemas, and the threads that judge by them.
    pub validation: validation::State,
}

impl FilterSet for Filters {
    type State = State;

    fn compile(spec: &Filter) -> Result<Self, InvalidFilter> {
        match spec {
            Filter::RequestHeaderModifier(spec) => RequestHeaderModifier::new(spec).map(Self::RequestHeaderModifier),
            Filter::ResponseHeaderModifier(spec) => ResponseHeaderModifier::new(spec).map(Self::ResponseHeaderModifier),
            Filter::RequestRedirect(spec) => RequestRedirect::new(spec).map(Self::RequestRedirect),
            Filter::UrlRewrite(spec) => UrlRewrite::new(spec).map(Self::UrlRewrite),
        }
    }

    fn compile_policies(levels: &[Arc<Policy>], state: &Arc<State>) -> Result<Vec<Self>, InvalidPolicy> {
        let limits = rate_limit::compile(levels, &state.rate_limit)?;
        let validation = validation::compile(levels, &state.validation)?;
        let limits = limits.into_iter().map(Self::RateLimit);
        Ok(limits.chain(validation.map(Self::RequestValidation)).collect())
    }
}

/// Calls the same method of whichever filter it is.
macro_rules! each {
    ($self:ident, $filter:ident => $call:expr) => {
        match $self {
            Self::RequestHeaderModifier($filter) => $call,
            Self::ResponseHeaderModifier($filter) => $call,
            Self::RateLimit($filter) => $call,
            Self::RequestValidation($filter) => $call,
            Self::RequestRedirect($filter) => $call,
            Self::UrlRewrite($filter) => $call,
        }
    };
}

impl HttpFilter for Filters {
    fn stage(&self) -> Stage {
        each!(self, filter => filter.stage())
    }

    async fn on_request(&self, request: &mut RequestContext<'_>) -> Verdict {
        each!(self, filter => filter.on_request(request).await)
    }

    fn on_attempt(&self, attempt: &mut AttemptHead<'_>) {
        each!(self, filter => filter.on_attempt(attempt));
    }

    fn on_response(&self, response: &mut ResponseHead<'_>) {
        each!(self, filter => filter.on_response(response));
    }
}

/// A host that a filter writes, without port.
fn host(text: &str) -> Result<HeaderValue, InvalidFilter> {
    let invalid = || InvalidFilter::Host(text.to_owned());
    match HostPattern::parse(text) {
        Ok(HostPattern::Exact(host)) => HeaderValue::from_str(&host).map_err(|_| invalid()),
        _ => Err(invalid()),
    }
}

#[cfg(test)]
mod tests;
