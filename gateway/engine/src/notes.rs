//! What the filters of one request leave for those after them, for its response and for its account.
//!
//! Invariant: a request whose filters leave nothing allocates nothing. What is held is dropped once the request has ended.

use std::{any::Any, fmt, sync::Arc};

use control_plane_model::PolicyKey;
use http::{HeaderName, HeaderValue};
use serde_json::{Map, Value};

use crate::local_reply::Reason;

/// The most decisions that are kept of one request; more than one policy of each kind never decides.
const MAX_DECISIONS: usize = 16;

/// Who a request comes from, as authentication has verified it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Identity {
    /// Who vouches for it: the `iss` of a token, or the policy's name for it.
    pub issuer: Arc<str>,
    /// Whom it names: the `sub` of a token, the id of an API key, the name of a user.
    pub subject: Arc<str>,
    /// Everything that is known of it.
    pub claims: Arc<Map<String, Value>>,
}

impl Identity {
    /// The claim at `path`, names separated by dots; a name with dots of its own comes first.
    pub fn claim(&self, path: &str) -> Option<&Value> {
        fn descend<'a>(object: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
            object.get(path).or_else(|| {
                path.match_indices('.').find_map(|(at, _)| {
                    let (name, rest) = (path.get(..at)?, path.get(at + 1..)?);
                    descend(object.get(name)?.as_object()?, rest)
                })
            })
        }
        descend(&self.claims, path)
    }
}

/// A policy's refusal, or what would have been one.
#[derive(Clone, Debug)]
pub struct Decision {
    /// The policy.
    pub policy: PolicyKey,
    /// Why.
    pub reason: Reason,
    /// Whether it was reported alone (`mode: Report`).
    pub reported: bool,
}

/// See the module.
#[derive(Default)]
pub struct Notes(Option<Box<Inner>>);

#[derive(Default)]
struct Inner {
    identity: Option<Arc<Identity>>,
    /// Not a map: few fields, which end up in the map of the response.
    response: Vec<(HeaderName, HeaderValue)>,
    held: Vec<Box<dyn Any + Send>>,
    decisions: Vec<Decision>,
}

impl fmt::Debug for Notes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Notes").field("decisions", &self.decisions()).finish_non_exhaustive()
    }
}

impl Notes {
    fn inner(&mut self) -> &mut Inner {
        self.0.get_or_insert_default()
    }

    /// Who the request comes from; `None` where nobody was authenticated.
    pub fn identity(&self) -> Option<&Arc<Identity>> {
        self.0.as_ref()?.identity.as_ref()
    }

    /// Says who the request comes from.
    pub fn authenticated(&mut self, identity: Arc<Identity>) {
        self.inner().identity = Some(identity);
    }

    /// Adds a field to the response, whoever makes that.
    pub fn respond_with(&mut self, name: HeaderName, value: HeaderValue) {
        self.inner().response.push((name, value));
    }

    /// Keeps `held` until the request has ended, which is with the last byte of its response.
    pub fn hold(&mut self, held: impl Any + Send) {
        self.inner().held.push(Box::new(held));
    }

    /// Notes a refusal, or what would have been one, for the access log, the metrics and the trace.
    pub fn decided(&mut self, decision: Decision) {
        let decisions = &mut self.inner().decisions;
        if decisions.len() < MAX_DECISIONS {
            decisions.push(decision);
        }
    }

    /// Every decision so far.
    pub fn decisions(&self) -> &[Decision] {
        self.0.as_ref().map_or(&[], |inner| &inner.decisions)
    }

    /// Takes the fields for the response.
    pub(crate) fn take_response(&mut self) -> Vec<(HeaderName, HeaderValue)> {
        self.0.as_mut().map_or_else(Vec::new, |inner| std::mem::take(&mut inner.response))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_claim_is_found_by_its_path_and_a_name_with_dots_comes_first() {
        let claims = json!({"plan": "pro", "a": {"b": {"c": 1}, "b.c": 2}, "https://x.example/roles": {"first": 3}});
        let identity = Identity { claims: Arc::new(claims.as_object().unwrap().clone()), ..Identity::default() };
        assert_eq!(identity.claim("plan"), Some(&json!("pro")));
        assert_eq!(identity.claim("a.b.c"), Some(&json!(2)));
        assert_eq!(identity.claim("https://x.example/roles.first"), Some(&json!(3)));
        assert_eq!(identity.claim("a.x"), None);
        assert_eq!(identity.claim("plan.x"), None);
    }
}
