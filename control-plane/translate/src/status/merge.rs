//! Merges the status that we want into the status that an object has.
//! Invariant: what others wrote (other controllers' parents, condition types that are not ours) comes out as it went in;
//! a condition's `lastTransitionTime` changes only with its `status`; no change gives `None`, so nothing is written.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::{Kind, StatusUpdate};

/// Condition types that we own on an object or in its `listeners`, which means: that we remove when we no longer set them.
const OBJECT_CONDITIONS: &[&str] =
    &["Accepted", "Programmed", "ResolvedRefs", "SupportedVersion", "Conflicted", "OverlappingTLSConfig"];
/// Fields of a status that we write whole.
const OBJECT_FIELDS: &[&str] = &["addresses", "attachedListenerSets", "listeners", "supportedFeatures"];
/// Condition types that we own in an entry of a route's `parents`.
const PARENT_CONDITIONS: &[&str] =
    &["Accepted", "ResolvedRefs", "PartiallyInvalid", super::PROXY_PROGRAMMED, super::POLICIES];
/// Condition types that we own in an entry of a policy's `ancestors`.
const ANCESTOR_CONDITIONS: &[&str] = &["Accepted", "Programmed", "Overridden", "Conflicted"];

/// The complete `status` to write, or `None` where `current` says it already.
///
/// `current` is the object's `status`, null where it has none. `controller` is our controllerName; entries of `parents`
/// and `ancestors` with another one are not ours. `now` is the time of transition of what changes, in whole seconds.
pub fn merge_status(
    kind: Kind,
    current: &Value,
    ours: &StatusUpdate,
    controller: &str,
    now: Timestamp,
) -> Option<Value> {
    let now = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let merge = Merge { controller, now: &now };
    let empty = Map::new();
    let before = current.as_object().unwrap_or(&empty);
    let wanted = ours.status.as_object().unwrap_or(&empty);
    let mut status = before.clone();
    match kind {
        Kind::HttpRoute | Kind::GrpcRoute => merge.entries(&mut status, wanted, &PARENTS),
        _ if kind == Kind::BackendTlsPolicy || kind.policy().is_some() => {
            merge.entries(&mut status, wanted, &ANCESTORS);
        }
        _ if ours.status.is_null() => merge.withdraw(&mut status),
        _ => merge.object(&mut status, wanted, before),
    }
    (&status != before).then_some(Value::Object(status))
}

/// A list in a status whose entries belong to several controllers.
struct Entries {
    list: &'static str,
    /// The field that tells what an entry is about.
    reference: &'static str,
    /// Condition types that we own.
    conditions: &'static [&'static str],
}

const PARENTS: Entries = Entries { list: "parents", reference: "parentRef", conditions: PARENT_CONDITIONS };
const ANCESTORS: Entries = Entries { list: "ancestors", reference: "ancestorRef", conditions: ANCESTOR_CONDITIONS };

struct Merge<'a> {
    controller: &'a str,
    now: &'a str,
}

impl Merge<'_> {
    /// Fields of ours replace those that are there, but for conditions, which are merged by type.
    fn object(&self, status: &mut Map<String, Value>, wanted: &Map<String, Value>, before: &Map<String, Value>) {
        for (field, value) in wanted {
            let merged = match field.as_str() {
                "conditions" => self.conditions(before.get(field), Some(value), OBJECT_CONDITIONS),
                "listeners" => self.listeners(before.get(field), value),
                _ => value.clone(),
            };
            status.insert(field.clone(), merged);
        }
    }

    /// Takes what is ours away. Without conditions the field goes too: the schema's default, all Unknown, takes its place.
    fn withdraw(&self, status: &mut Map<String, Value>) {
        let foreign = self.conditions(status.get("conditions"), None, OBJECT_CONDITIONS);
        if array(Some(&foreign)).is_empty() {
            status.remove("conditions");
        } else {
            status.insert("conditions".to_owned(), foreign);
        }
        status.retain(|field, _| !OBJECT_FIELDS.contains(&field.as_str()));
    }

    fn listeners(&self, before: Option<&Value>, wanted: &Value) -> Value {
        let known = array(before);
        let merged = array(Some(wanted)).iter().map(|listener| {
            let same_name = known.iter().find(|other| other.get("name") == listener.get("name"));
            self.with_conditions(listener, same_name, OBJECT_CONDITIONS)
        });
        merged.collect()
    }

    /// `parents` or `ancestors`: ours are told by the controller and the reference.
    fn entries(&self, status: &mut Map<String, Value>, wanted: &Map<String, Value>, entries: &Entries) {
        let Entries { list, reference, conditions } = *entries;
        let before = array(status.get(list)).to_vec();
        let wanted = array(wanted.get(list));
        let is_ours = |entry: &Value| entry.get("controllerName").and_then(Value::as_str) == Some(self.controller);
        let same = |entry: &Value, other: &Value| entry.get(reference) == other.get(reference);
        let mut merged: Vec<Value> = Vec::with_capacity(before.len().max(wanted.len()));
        for entry in &before {
            if !is_ours(entry) {
                merged.push(entry.clone());
            } else if let Some(update) = wanted.iter().find(|update| same(entry, update))
                && !merged.iter().any(|done| is_ours(done) && same(done, update))
            {
                merged.push(self.with_conditions(update, Some(entry), conditions));
            }
        }
        for update in wanted {
            if !merged.iter().any(|done| is_ours(done) && same(done, update)) {
                merged.push(self.with_conditions(update, None, conditions));
            }
        }
        if !merged.is_empty() || !before.is_empty() {
            status.insert(list.to_owned(), Value::Array(merged));
        }
    }

    fn with_conditions(&self, entry: &Value, before: Option<&Value>, owned: &[&str]) -> Value {
        let mut entry = entry.clone();
        if let Value::Object(fields) = &mut entry {
            let conditions =
                self.conditions(before.and_then(|before| before.get("conditions")), fields.get("conditions"), owned);
            fields.insert("conditions".to_owned(), conditions);
        }
        entry
    }

    fn conditions(&self, before: Option<&Value>, wanted: Option<&Value>, owned: &[&str]) -> Value {
        let wanted = array(wanted);
        let kind = |condition: &Value| condition.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
        let mut merged: Vec<Value> = Vec::with_capacity(wanted.len());
        for condition in array(before) {
            let name = kind(condition);
            if let Some(update) = wanted.iter().find(|update| kind(update) == name) {
                merged.push(self.condition(update, Some(condition)));
            } else if !owned.contains(&name.as_str()) {
                merged.push(condition.clone());
            }
        }
        for update in wanted {
            if !merged.iter().any(|done| kind(done) == kind(update)) {
                merged.push(self.condition(update, None));
            }
        }
        Value::Array(merged)
    }

    fn condition(&self, update: &Value, before: Option<&Value>) -> Value {
        let since = before
            .filter(|before| before.get("status") == update.get("status"))
            .and_then(|before| before.get("lastTransitionTime"))
            .cloned()
            .unwrap_or_else(|| json!(self.now));
        let mut condition = update.clone();
        if let Value::Object(fields) = &mut condition {
            fields.insert("lastTransitionTime".to_owned(), since);
        }
        condition
    }
}

fn array(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use control_plane_model::ObjectName;

    use super::*;

    const NOW: &str = "2026-11-23T10:00:00Z";

    fn merge(kind: Kind, current: Value, ours: Value) -> Option<Value> {
        let ours = StatusUpdate { kind, name: ObjectName::new("a", "b"), generation: 2, status: ours };
        merge_status(kind, &current, &ours, "nebula.dev/gateway-controller", NOW.parse().unwrap())
    }

    fn condition(kind: &str, status: &str, since: &str) -> Value {
        json!({"type": kind, "status": status, "reason": "R", "message": "", "observedGeneration": 2,
            "lastTransitionTime": since})
    }

    fn wanted(kind: &str, status: &str) -> Value {
        json!({"type": kind, "status": status, "reason": "R", "message": "", "observedGeneration": 2})
    }

    #[test]
    fn a_condition_keeps_its_time_until_its_status_changes() {
        let current = json!({"conditions": [condition("Accepted", "True", "2020-01-01T00:00:00Z"),
            condition("Programmed", "False", "2020-01-01T00:00:00Z")]});
        let ours = json!({"conditions": [wanted("Accepted", "True"), wanted("Programmed", "True")]});
        let merged = merge(Kind::Gateway, current, ours).unwrap();
        assert_eq!(merged["conditions"][0]["lastTransitionTime"], "2020-01-01T00:00:00Z");
        assert_eq!(merged["conditions"][1]["lastTransitionTime"], NOW);
    }

    #[test]
    fn nothing_is_written_when_nothing_changes() {
        let ours = json!({"conditions": [wanted("Accepted", "True")], "listeners":
            [{"name": "a", "attachedRoutes": 1, "supportedKinds": [], "conditions": [wanted("Programmed", "True")]}]});
        let first = merge(Kind::Gateway, Value::Null, ours.clone()).unwrap();
        assert_eq!(merge(Kind::Gateway, first, ours), None);
        assert_eq!(merge(Kind::HttpRoute, Value::Null, json!({"parents": []})), None);
    }

    #[test]
    fn foreign_conditions_stay_as_they_are_and_ours_that_no_longer_hold_go() {
        let foreign = json!({"type": "example.com/Seen", "status": "True", "reason": "X", "message": "m",
            "lastTransitionTime": "2001-01-01T00:00:00Z", "observedGeneration": 1});
        let current = json!({"conditions": [foreign, condition("SupportedVersion", "True", NOW)]});
        let merged = merge(Kind::GatewayClass, current, json!({"conditions": [wanted("Accepted", "True")]})).unwrap();
        assert_eq!(merged["conditions"], json!([foreign, condition("Accepted", "True", NOW)]));
    }

    #[test]
    fn what_is_ours_goes_with_the_object_that_no_longer_is_and_what_is_foreign_stays() {
        let ours = [condition("Accepted", "True", NOW), condition("Programmed", "True", NOW)];
        let current = json!({"addresses": [{"value": "192.0.2.1"}], "conditions": ours, "attachedListenerSets": 0,
            "listeners": [{"name": "a"}]});
        assert_eq!(merge(Kind::Gateway, current.clone(), Value::Null), Some(json!({})));

        let foreign = condition("example.com/Seen", "True", "2001-01-01T00:00:00Z");
        let mut mixed = current;
        mixed["conditions"].as_array_mut().unwrap().push(foreign.clone());
        let left = json!({"conditions": [foreign]});
        assert_eq!(merge(Kind::Gateway, mixed, Value::Null), Some(left.clone()));
        assert_eq!(merge(Kind::Gateway, left, Value::Null), None);
        assert_eq!(merge(Kind::Gateway, Value::Null, Value::Null), None);
    }

    #[test]
    fn parents_of_other_controllers_and_foreign_conditions_in_ours_stay() {
        let foreign = json!({"controllerName": "other", "parentRef": {"name": "gw"}, "conditions": []});
        let seen = condition("example.com/Seen", "True", "2001-01-01T00:00:00Z");
        let current = json!({"parents": [
            {"controllerName": "nebula.dev/gateway-controller", "parentRef": {"name": "gone"}, "conditions": []},
            foreign,
            {"controllerName": "nebula.dev/gateway-controller", "parentRef": {"name": "gw"}, "conditions": [seen]},
        ]});
        let ours = json!({"parents": [{"controllerName": "nebula.dev/gateway-controller", "parentRef": {"name": "gw"},
            "conditions": [wanted("Accepted", "True")]}]});
        let merged = merge(Kind::HttpRoute, current, ours).unwrap();
        assert_eq!(merged["parents"].as_array().unwrap().len(), 2);
        assert_eq!(merged["parents"][0], foreign);
        assert_eq!(merged["parents"][1]["conditions"], json!([seen, condition("Accepted", "True", NOW)]));
    }
}
