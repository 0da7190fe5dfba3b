//! Header modifiers (`HTTPHeaderFilter`), of requests for each attempt and of responses.
//! Invariant: no field that frames a message or belongs to the gateway can be named; that is checked when compiling.

use control_plane_model::HeaderModifier;
use gateway_engine::{
    filter::{AttemptHead, Headers, HttpFilter, InvalidFilter, ResponseHead, Stage},
    strict::is_protected,
};

/// Changes fields before the backend sees them.
#[derive(Clone, Debug)]
pub struct RequestHeaderModifier(HeaderModifier);

/// Changes fields before the client sees them.
#[derive(Clone, Debug)]
pub struct ResponseHeaderModifier(HeaderModifier);

impl RequestHeaderModifier {
    /// # Errors: [`InvalidFilter::ProtectedHeader`].
    pub fn new(spec: &HeaderModifier) -> Result<Self, InvalidFilter> {
        checked(spec).map(Self)
    }
}

impl ResponseHeaderModifier {
    /// # Errors: [`InvalidFilter::ProtectedHeader`].
    pub fn new(spec: &HeaderModifier) -> Result<Self, InvalidFilter> {
        checked(spec).map(Self)
    }
}

fn checked(spec: &HeaderModifier) -> Result<HeaderModifier, InvalidFilter> {
    let names = spec.set.iter().chain(&spec.add).map(|(name, _)| name).chain(&spec.remove);
    match names.into_iter().find(|name| is_protected(name)) {
        Some(name) => Err(InvalidFilter::ProtectedHeader(name.clone())),
        None => Ok(spec.clone()),
    }
}

/// Set, add, remove, in this order.
fn apply(spec: &HeaderModifier, mut headers: Headers<'_>) {
    // No name is protected, so that none of these can be refused.
    for (name, value) in &spec.set {
        let _ = headers.set(name, value.clone());
    }
    for (name, value) in &spec.add {
        let _ = headers.add(name, value.clone());
    }
    for name in &spec.remove {
        let _ = headers.remove(name);
    }
}

impl HttpFilter for RequestHeaderModifier {
    fn stage(&self) -> Stage {
        Stage::Transform
    }

    fn on_attempt(&self, attempt: &mut AttemptHead<'_>) {
        apply(&self.0, attempt.headers());
    }
}

impl HttpFilter for ResponseHeaderModifier {
    fn stage(&self) -> Stage {
        Stage::Transform
    }

    fn on_response(&self, response: &mut ResponseHead<'_>) {
        apply(&self.0, response.headers());
    }
}
