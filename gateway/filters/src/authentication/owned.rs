//! Fields that only this gateway may set: those that claims are written to, and those that a policy names.
//!
//! Invariant: after [`OwnedHeaders::strip`] the request has none of them, in any spelling with `_` for `-`: many servers
//! hand both to an application under one name.

use std::collections::HashSet;

use gateway_engine::{filter::Headers, strict::is_protected};
use http::HeaderName;

/// The fields of one policy.
#[derive(Clone, Debug, Default)]
pub(super) struct OwnedHeaders {
    names: Vec<HeaderName>,
    /// With `-` for each `_`.
    normal: HashSet<Box<str>>,
    /// Whether one of the names has a `_`.
    has_underscore: bool,
}

impl OwnedHeaders {
    /// # Errors: the first name that no filter may change.
    pub(super) fn new<'a>(names: impl Iterator<Item = &'a HeaderName>) -> Result<Self, HeaderName> {
        let mut owned = Self::default();
        for name in names {
            if is_protected(name) {
                return Err(name.clone());
            }
            if owned.normal.insert(normal(name)) {
                owned.names.push(name.clone());
                owned.has_underscore |= name.as_str().contains('_');
            }
        }
        Ok(owned)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Whether the field is one of them, in any spelling.
    pub(super) fn contains(&self, name: &HeaderName) -> bool {
        self.normal.contains(&normal(name))
    }

    pub(super) fn strip(&self, headers: &mut Headers<'_>) {
        // Not one of these names is protected, so that none can be refused.
        for name in &self.names {
            let _ = headers.remove(name);
        }
        // Else the exact names were all.
        let is_spelled = || self.has_underscore || headers.all().keys().any(|name| name.as_str().contains('_'));
        if self.is_empty() || !is_spelled() {
            return;
        }
        let spelled: Vec<HeaderName> = headers.all().keys().filter(|name| self.contains(name)).cloned().collect();
        for name in spelled {
            let _ = headers.remove(&name);
        }
    }
}

fn normal(name: &HeaderName) -> Box<str> {
    name.as_str().replace('_', "-").into_boxed_str()
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use gateway_engine::{
        filter::{Received, RequestContext},
        notes::Notes,
        strict::Scheme,
    };
    use http::{HeaderMap, HeaderValue, Method};

    use super::*;

    fn left(owned: &[&'static str], sent: &[&'static str]) -> Vec<String> {
        let owned: Vec<HeaderName> = owned.iter().map(|name| HeaderName::from_static(name)).collect();
        let owned = OwnedHeaders::new(owned.iter()).unwrap();
        let mut headers: HeaderMap =
            sent.iter().map(|name| (HeaderName::from_static(name), HeaderValue::from_static("evil"))).collect();
        let received = Received {
            method: Method::GET,
            scheme: Scheme::Http,
            host: "a".into(),
            uri: "/".parse().unwrap(),
            listener_port: 80,
            peer: "192.0.2.1:4711".parse().unwrap(),
            matched_prefix: None,
        };
        let (label, mut notes) = (Arc::from("x"), Notes::default());
        let mut context = RequestContext::new(&received, &mut headers, (&label, &label), Duration::ZERO, &mut notes);
        owned.strip(&mut context.headers());
        let mut left: Vec<String> = headers.keys().map(|name| name.as_str().to_owned()).collect();
        left.sort();
        left
    }

    #[test]
    fn no_spelling_of_an_owned_field_is_left() {
        let sent = ["x-user-id", "x_user_id", "x-user_id", "x-user-idx", "x-user", "accept"];
        assert_eq!(left(&["x-user-id"], &sent), ["accept", "x-user", "x-user-idx"]);
        assert_eq!(left(&["x_user_id"], &sent), ["accept", "x-user", "x-user-idx"]);
        assert_eq!(left(&["x_user"], &["x-user", "accept"]), ["accept"]);
        assert_eq!(left(&[], &sent).len(), sent.len());
    }

    #[test]
    fn what_frames_a_message_cannot_be_owned() {
        for name in ["host", "content-length", "x-request-id", "x-nebula-reason"] {
            let name = HeaderName::from_static(name);
            assert_eq!(OwnedHeaders::new([&name].into_iter()).unwrap_err(), name);
        }
    }
}
