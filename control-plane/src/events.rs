//! Kubernetes Events on Gateways and routes when a condition turns False, and when it is True again; and on a Gateway
//! whose proxies the API server does not let us run.
//!
//! Written by the leader after the status itself. Invariant: never holds up a status write: the queue has a bound, the
//! rate has one, and what is over either is counted and dropped (the status still says it).

use std::sync::Arc;

use control_plane_model::GatewayKey;
use control_plane_translate::PROXY_PROGRAMMED;
use k8s_openapi::api::core::v1::ObjectReference;
use kit_process::tasks::Tasks;
use kube::{
    Client,
    api::{ApiResource, DynamicObject},
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use serde_json::Value;
use tokio::sync::mpsc;

use crate::{
    kubernetes::{describe, limited},
    metrics::Metrics,
    pace::Pace,
};

const QUEUE: usize = 256;
/// Events a second in the long run.
const RATE: u32 = 5;
/// Events at once after a quiet time.
const BURST: u32 = 50;
/// Longest note that the API takes, bytes.
const NOTE_LIMIT: usize = 1024;

/// A condition that changed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Transition {
    /// Listener or parent; empty for the object itself.
    section: String,
    condition: String,
    holds: bool,
    reason: String,
    message: String,
}

struct Pending {
    reference: ObjectReference,
    event: Event,
}

/// Takes events; clones feed the same queue.
#[derive(Clone)]
pub struct Events {
    sender: mpsc::Sender<Pending>,
    pace: Arc<Pace>,
    metrics: Metrics,
}

impl Events {
    /// Starts the task that writes events, reported as `controller` by the replica `replica`.
    pub fn start(client: Client, controller: &str, replica: &str, metrics: Metrics, tasks: &Tasks) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let reporter = Reporter { controller: controller.to_owned(), instance: Some(replica.to_owned()) };
        let recorder = Recorder::new(client, reporter);
        let drain = tasks.drain().clone();
        let counted = metrics.clone();
        tasks.spawn("events", async move {
            tokio::select! {
                () = write(receiver, recorder, counted) => {}
                () = drain.signaled() => {}
            }
        });
        Self { sender, pace: Arc::new(Pace::new(RATE, BURST)), metrics }
    }

    /// Tells of what turned between two statuses of `object`. Never waits.
    pub fn status_changed(
        &self,
        resource: &ApiResource,
        object: &DynamicObject,
        before: &Value,
        after: &Value,
        controller: &str,
    ) {
        for transition in transitions(before, after, controller) {
            let reference = ObjectReference {
                api_version: Some(resource.api_version.clone()),
                kind: Some(resource.kind.clone()),
                namespace: object.metadata.namespace.clone(),
                name: object.metadata.name.clone(),
                uid: object.metadata.uid.clone(),
                ..ObjectReference::default()
            };
            self.send(Pending { reference, event: event(transition) });
        }
    }

    /// Tells that the proxies of a Gateway cannot be run, with the API server's reason. Never waits.
    pub fn provisioning_failed(&self, gateway: &GatewayKey, uid: &str, why: &str) {
        let reference = ObjectReference {
            api_version: Some("gateway.networking.k8s.io/v1".to_owned()),
            kind: Some("Gateway".to_owned()),
            namespace: Some(gateway.0.namespace.to_string()),
            name: Some(gateway.0.name.to_string()),
            uid: Some(uid.to_owned()),
            ..ObjectReference::default()
        };
        let mut note = format!("the proxies cannot be run as the Gateway says: {why}");
        note.truncate(note.floor_char_boundary(NOTE_LIMIT));
        let event = Event {
            type_: EventType::Warning,
            reason: "ProvisioningFailed".to_owned(),
            note: Some(note),
            action: "Provision".to_owned(),
            secondary: None,
        };
        self.send(Pending { reference, event });
    }

    fn send(&self, pending: Pending) {
        if !self.pace.try_now() || self.sender.try_send(pending).is_err() {
            self.metrics.event("dropped");
        }
    }
}

async fn write(mut receiver: mpsc::Receiver<Pending>, recorder: Recorder, metrics: Metrics) {
    while let Some(Pending { reference, event }) = receiver.recv().await {
        match limited(recorder.publish(&event, &reference)).await {
            Ok(()) => metrics.event("written"),
            Err(error) => {
                metrics.event("failed");
                tracing::debug!(error = describe(&error), "event not written");
            }
        }
    }
}

fn event(transition: Transition) -> Event {
    let Transition { section, condition, holds, reason, message } = transition;
    let place = if section.is_empty() { String::new() } else { format!("{section}: ") };
    let mut note = format!("{place}{condition} is {}", if holds { "True" } else { "False" });
    if !message.is_empty() {
        note = format!("{note}: {message}");
    }
    note.truncate(note.floor_char_boundary(NOTE_LIMIT));
    Event {
        type_: if holds { EventType::Normal } else { EventType::Warning },
        reason,
        note: Some(note),
        action: condition,
        secondary: None,
    }
}

/// The conditions that turned False, or True after they were False, between two statuses.
fn transitions(before: &Value, after: &Value, controller: &str) -> Vec<Transition> {
    let mut found = Vec::new();
    compare(String::new(), before, after, &mut found);
    for (section, old, new) in sections(before, after, "listeners", "name", |_| true) {
        compare(format!("listener {}", text(&section)), old, new, &mut found);
    }
    let ours = |entry: &Value| entry.get("controllerName").and_then(Value::as_str) == Some(controller);
    for (section, old, new) in sections(before, after, "parents", "parentRef", ours) {
        let name = section.get("name").map(text).unwrap_or_default();
        let listener = section.get("sectionName").map(|listener| format!("/{}", text(listener))).unwrap_or_default();
        compare(format!("parent {name}{listener}"), old, new, &mut found);
    }
    found
}

/// The entries of a list in `after`, each with the entry of the same key in `before`.
fn sections<'a>(
    before: &'a Value,
    after: &'a Value,
    list: &str,
    key: &str,
    ours: impl Fn(&Value) -> bool,
) -> Vec<(Value, &'a Value, &'a Value)> {
    let entries = |status: &'a Value| status.get(list).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let mut found = Vec::new();
    for new in entries(after).iter().filter(|entry| ours(entry)) {
        let old = entries(before).iter().find(|old| ours(old) && old.get(key) == new.get(key)).unwrap_or(&Value::Null);
        found.push((new.get(key).cloned().unwrap_or_default(), old, new));
    }
    found
}

fn compare(section: String, before: &Value, after: &Value, found: &mut Vec<Transition>) {
    for condition in conditions(after) {
        let kind = field(condition, "type");
        if !["Accepted", "Programmed", "ResolvedRefs", PROXY_PROGRAMMED].contains(&kind) {
            continue;
        }
        let old =
            conditions(before).iter().find(|old| field(old, "type") == kind).map_or("", |old| field(old, "status"));
        let reason = field(condition, "reason");
        let holds = match (old, field(condition, "status")) {
            // What is only on its way is no news.
            ("" | "Unknown", "False") if reason == "Pending" || reason == "AddressNotAssigned" => continue,
            ("" | "Unknown" | "True", "False") => false,
            ("False", "True") => true,
            _ => continue,
        };
        found.push(Transition {
            section: section.clone(),
            condition: kind.to_owned(),
            holds,
            reason: reason.to_owned(),
            message: field(condition, "message").to_owned(),
        });
    }
}

fn conditions(status: &Value) -> &[Value] {
    status.get("conditions").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn field<'a>(condition: &'a Value, name: &str) -> &'a str {
    condition.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parents(entries: &[(&str, &str, &str)]) -> Value {
        let entry = |(controller, parent, resolved): &(&str, &str, &str)| {
            json!({"controllerName": controller, "parentRef": {"name": parent, "sectionName": "http"}, "conditions": [
                {"type": "ResolvedRefs", "status": resolved, "reason": "R", "message": "m"}]})
        };
        json!({"parents": entries.iter().map(entry).collect::<Vec<_>>()})
    }

    fn notes(before: &Value, after: &Value) -> Vec<String> {
        let found = transitions(before, after, "us").into_iter().map(event);
        found.map(|event| event.note.unwrap_or_default()).collect()
    }

    #[test]
    fn a_parent_that_turns_is_told_and_other_controllers_parents_are_not() {
        let good = parents(&[("us", "edge", "True"), ("them", "edge", "True")]);
        let bad = parents(&[("us", "edge", "False"), ("them", "edge", "False")]);
        assert_eq!(notes(&good, &bad), ["parent edge/http: ResolvedRefs is False: m"]);
        assert_eq!(notes(&bad, &good), ["parent edge/http: ResolvedRefs is True: m"]);
        assert!(notes(&bad, &bad).is_empty());
        assert!(notes(&Value::Null, &good).is_empty());
    }

    #[test]
    fn a_new_gateway_that_waits_for_its_address_is_no_news() {
        let status =
            |reason: &str| json!({"conditions": [{"type": "Programmed", "status": "False", "reason": reason}]});
        assert!(notes(&Value::Null, &status("Pending")).is_empty());
        assert_eq!(notes(&Value::Null, &status("Invalid")), ["Programmed is False"]);
    }
}
