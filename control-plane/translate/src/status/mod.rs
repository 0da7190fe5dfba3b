//! Statuses: conditions as we write them, and how they are merged into what an object has.

mod client_policy;
mod gateway;
mod merge;
mod policy;
mod route;

pub use gateway::SUPPORTED_FEATURES;
pub(crate) use gateway::{GatewayFacts, class, config, gateway, listener_set};
pub use merge::merge_status;
pub(crate) use policy::{PolicyFacts, policy};
pub(crate) use route::{RouteFacts, route};

use control_plane_model::ObjectName;
use serde_json::{Value, json};

use crate::Kind;

/// Condition of a route's parent that names the policies in force on the route.
pub const POLICIES: &str = "nebula.dev/Policies";
/// Condition of a route's parent, set to False while a proxy refuses the route.
pub const PROXY_PROGRAMMED: &str = "nebula.dev/Programmed";

/// The complete status entries of ours for one object. Conditions have no `lastTransitionTime`; [`merge_status`] adds it.
#[derive(Clone, Debug, PartialEq)]
pub struct StatusUpdate {
    /// The object's kind.
    pub kind: Kind,
    /// The object; namespace empty for kinds that have none.
    pub name: ObjectName,
    /// The `metadata.generation` that the status speaks of; 0 where the object has none.
    pub generation: i64,
    /// `status`, as JSON. Null: the object is no longer ours, and what we wrote into its status is to go.
    pub status: Value,
}

/// One condition that keeps an object from being served as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The object's kind.
    pub kind: Kind,
    /// The object.
    pub name: ObjectName,
    /// Where in the status: empty for the object, else the listener or parent.
    pub section: String,
    /// The condition's type, for example `ResolvedRefs`.
    pub condition: String,
    /// The condition's reason, for example `BackendNotFound`.
    pub reason: String,
    /// What is wrong and what to do about it.
    pub message: String,
}

impl Problem {
    /// Of an object that has no status of ours.
    pub(crate) fn of_stranger(kind: Kind, name: ObjectName, message: String) -> Self {
        let (condition, reason) = ("Accepted".to_owned(), "NoMatchingParent".to_owned());
        Self { kind, name, section: String::new(), condition, reason, message }
    }
}

/// A condition, but for its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Condition {
    pub(crate) kind: &'static str,
    pub(crate) status: bool,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

impl Condition {
    pub(crate) fn yes(kind: &'static str, reason: &'static str) -> Self {
        Self { kind, status: true, reason, message: String::new() }
    }

    pub(crate) fn no(kind: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Self { kind, status: false, reason, message: message.into() }
    }

    pub(crate) fn saying(mut self, message: impl Into<String>) -> Self {
        self.message = message.into();
        self
    }

    /// As it stands in a status. Messages are cut at the API's limit of 32,768 bytes.
    pub(crate) fn to_json(&self, generation: i64) -> Value {
        let mut message = self.message.as_str();
        if message.len() > 32_768 {
            message = message.get(..message.floor_char_boundary(32_768)).unwrap_or_default();
        }
        json!({
            "type": self.kind,
            "status": if self.status { "True" } else { "False" },
            "reason": self.reason,
            "message": message,
            "observedGeneration": generation,
        })
    }
}

pub(crate) fn conditions_json(conditions: &[Condition], generation: i64) -> Value {
    conditions.iter().map(|condition| condition.to_json(generation)).collect()
}

/// Every condition of `update` that is False, or `PartiallyInvalid`, but for `Conflicted`, which is good when it is False.
pub(crate) fn problems(update: &StatusUpdate) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut collect = |section: &str, holder: &Value| {
        for condition in holder.get("conditions").and_then(Value::as_array).into_iter().flatten() {
            let field = |name: &str| condition.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
            let kind = field("type");
            let bad_when = if matches!(kind.as_str(), "Conflicted" | "PartiallyInvalid") { "True" } else { "False" };
            if field("status") == bad_when {
                problems.push(Problem {
                    kind: update.kind,
                    name: update.name.clone(),
                    section: section.to_owned(),
                    condition: kind,
                    reason: field("reason"),
                    message: field("message"),
                });
            }
        }
    };
    collect("", &update.status);
    for listener in update.status.get("listeners").and_then(Value::as_array).into_iter().flatten() {
        collect(listener.get("name").and_then(Value::as_str).unwrap_or_default(), listener);
    }
    for parent in update.status.get("parents").and_then(Value::as_array).into_iter().flatten() {
        let reference = parent.get("parentRef");
        let field = |name: &str| reference.and_then(|reference| reference.get(name)?.as_str()).unwrap_or_default();
        collect(&format!("{} {}", field("kind"), field("name")), parent);
    }
    for ancestor in update.status.get("ancestors").and_then(Value::as_array).into_iter().flatten() {
        let reference = ancestor.get("ancestorRef");
        let field = |name: &str| reference.and_then(|reference| reference.get(name)?.as_str()).unwrap_or_default();
        collect(&format!("{} {}", field("kind"), field("name")), ancestor);
    }
    problems
}
