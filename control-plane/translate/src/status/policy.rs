//! Statuses of policies: an entry for each Gateway, or Service, that a policy acts on (GEP-713, "ancestors").

use std::collections::{BTreeMap, BTreeSet};

use control_plane_model::{
    GatewayKey, ListenerKey, ObjectName, Policy, PolicyKey, PolicyKind, ResourceKey, RouteKey, sources,
};
use serde_json::{Value, json};

use super::{Condition, client_policy, conditions_json};
use crate::{
    gateway::{ListenerState, Topology},
    inputs::{GATEWAY_GROUP, Inputs},
    policy::{PolicyEntry, Target},
    route::Outcome,
};

/// The most entries of a status, as the Gateway API has it (`PolicyStatus.ancestors`).
const MAX_ANCESTORS: usize = 16;

/// What a policy's status needs beside the policy.
pub(crate) struct PolicyFacts<'a> {
    pub(crate) controller_name: &'a str,
    pub(crate) inputs: &'a Inputs,
    pub(crate) topology: &'a Topology,
    pub(crate) routes: &'a BTreeMap<RouteKey, Outcome>,
}

/// What an entry is about: a Gateway of ours, a Service, or a target that is not there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Ancestor {
    Gateway(GatewayKey),
    Service(ObjectName),
    Missing {
        kind: &'static str,
        name: ObjectName,
    },
    /// By its place in `targetRefs`: nothing that the policy can be attached to.
    Unfit(usize),
}

/// What was found for one entry.
#[derive(Default)]
struct Findings {
    /// Whether it counts on a target.
    counts: bool,
    /// Targets that are missing or unfit.
    missing: Vec<String>,
    /// Targets on which an older policy counts.
    conflicts: Vec<String>,
    /// Fields that a less specific policy overrides.
    overridden: BTreeSet<String>,
    /// What only a ClientPolicy has.
    client: client_policy::Found,
}

/// `status` of a policy.
pub(crate) fn policy(key: &PolicyKey, entry: &PolicyEntry, facts: &PolicyFacts<'_>) -> Value {
    let mut ancestors: BTreeMap<Ancestor, Findings> = BTreeMap::new();
    for (index, target) in entry.targets.iter().enumerate() {
        match target {
            Ok(target) => facts.look(key, target, &mut ancestors),
            Err(message) => {
                let message = format!("spec.targetRefs[{index}]: {message}");
                ancestors.entry(Ancestor::Unfit(index)).or_default().missing.push(message);
            }
        }
    }
    let generation = entry.object.metadata().generation.unwrap_or_default();
    let entries = ancestors.iter().take(MAX_ANCESTORS).map(|(ancestor, findings)| {
        json!({
            "ancestorRef": reference(ancestor, entry),
            "controllerName": facts.controller_name,
            "conditions": conditions_json(&facts.conditions(key, entry, ancestor, findings), generation),
        })
    });
    json!({"ancestors": entries.collect::<Vec<Value>>()})
}

fn reference(ancestor: &Ancestor, entry: &PolicyEntry) -> Value {
    let reference = |group: &str, kind: &str, name: &ObjectName| json!({"group": group, "kind": kind, "namespace": &*name.namespace, "name": &*name.name});
    let of = |kind: &str, name: &ObjectName| reference(GATEWAY_GROUP, kind, name);
    match ancestor {
        Ancestor::Gateway(key) => of("Gateway", &key.0),
        Ancestor::Service(name) => reference("", "Service", name),
        Ancestor::Missing { kind, name } => of(kind, name),
        Ancestor::Unfit(index) => entry.object.target_refs().get(*index).map_or(
            Value::Null,
            |reference| json!({"group": reference.group, "kind": reference.kind, "name": reference.name}),
        ),
    }
}

impl PolicyFacts<'_> {
    /// Adds what there is to say about one target.
    fn look(&self, key: &PolicyKey, target: &Target, ancestors: &mut BTreeMap<Ancestor, Findings>) {
        let (found, missing) = self.ancestors_of(target);
        if let Some((ancestor, message)) = missing {
            return ancestors.entry(ancestor).or_default().missing.push(message);
        }
        let winner = self.inputs.policies.winner(target, key.kind);
        let older = winner.filter(|winner| winner != key);
        for ancestor in found {
            let overridden = match &ancestor {
                Ancestor::Gateway(gateway) => self.overridden(key, target, gateway),
                Ancestor::Service(_) | Ancestor::Missing { .. } | Ancestor::Unfit(_) => BTreeSet::new(),
            };
            let client = match &ancestor {
                Ancestor::Gateway(gateway) if key.kind == PolicyKind::Client => {
                    client_policy::look(key, &self.listeners_of(target, gateway), self.inputs, self.topology)
                }
                _ => client_policy::Found::default(),
            };
            let findings = ancestors.entry(ancestor).or_default();
            if let Some(older) = &older {
                let (kind, name) = (older.kind.resource_kind(), &older.name);
                findings.conflicts.push(format!("on {target} {kind} {name} counts, which is older or first by name"));
            } else {
                findings.counts = true;
                findings.overridden.extend(overridden);
                findings.client.add(client);
            }
        }
    }

    /// What the entries for `target` are about, or what is not there.
    fn ancestors_of(&self, target: &Target) -> (Vec<Ancestor>, Option<(Ancestor, String)>) {
        let (Target::Service(name) | Target::ServicePort(name, _)) = target else {
            let (gateways, missing) = self.gateways_of(target);
            return (gateways.into_iter().map(Ancestor::Gateway).collect(), missing);
        };
        let missing = |what: String| (Vec::new(), Some((Ancestor::Service(name.clone()), what)));
        let Some(service) = self.inputs.services.get(name) else {
            return missing(format!("Service {name} does not exist"));
        };
        let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
        let is_meant = |wanted: &str| {
            ports.iter().any(|port| port.name.as_deref() == Some(wanted) || port.port.to_string() == wanted)
        };
        match target {
            Target::ServicePort(_, port) if !is_meant(port) => missing(format!("there is no {target}")),
            _ => (vec![Ancestor::Service(name.clone())], None),
        }
    }

    /// The Gateways of ours whose requests meet `target`, or what is not there. A target of another controller has neither.
    fn gateways_of(&self, target: &Target) -> (BTreeSet<GatewayKey>, Option<(Ancestor, String)>) {
        let none = || (BTreeSet::new(), None);
        let missing = |kind: &'static str, name: &ObjectName, what: String| {
            (BTreeSet::new(), Some((Ancestor::Missing { kind, name: name.clone() }, what)))
        };
        let has =
            |listeners: &[ListenerState], name: &str| listeners.iter().any(|listener| *listener.key.name == *name);
        match target {
            Target::Service(_) | Target::ServicePort(..) => none(),
            Target::Gateway(key) | Target::GatewayListener(key, _) => {
                let Some(state) = self.topology.gateways.get(key) else {
                    let is_strange = self.inputs.gateways.contains_key(&key.0);
                    return if is_strange {
                        none()
                    } else {
                        missing("Gateway", &key.0, format!("{target} does not exist"))
                    };
                };
                match target {
                    Target::GatewayListener(_, name) if !has(&state.listeners, name) => {
                        missing("Gateway", &key.0, format!("there is no {target}"))
                    }
                    _ => ([key.clone()].into(), None),
                }
            }
            Target::ListenerSet(name) | Target::SetListener(name, _) => {
                let Some(state) = self.topology.listener_sets.get(name) else {
                    let is_strange = self.inputs.listener_sets.contains_key(name);
                    return if is_strange {
                        none()
                    } else {
                        missing("ListenerSet", name, format!("{target} does not exist"))
                    };
                };
                match target {
                    Target::SetListener(_, listener) if !has(&state.listeners, listener) => {
                        missing("ListenerSet", name, format!("there is no {target}"))
                    }
                    _ => ([state.gateway.clone()].into(), None),
                }
            }
            Target::Route(route) | Target::Rule(route, _) => {
                let kind = crate::translator::route_kind(route.kind).as_str();
                let Some(outcome) = self.routes.get(route) else {
                    return missing(kind, &route.name, format!("{target} does not exist"));
                };
                match target {
                    Target::Rule(_, rule) if !outcome.rule_names.contains(rule) => {
                        missing(kind, &route.name, format!("there is no {target}"))
                    }
                    _ => (outcome.verdicts.iter().map(|verdict| verdict.gateway.clone()).collect(), None),
                }
            }
        }
    }

    /// Fields of the policy on `target` that a less specific one overrides, as `field by policy`.
    fn overridden(&self, key: &PolicyKey, target: &Target, gateway: &GatewayKey) -> BTreeSet<String> {
        let (route, rule) = match target {
            Target::Gateway(_) | Target::Service(_) | Target::ServicePort(..) => return BTreeSet::new(),
            Target::Route(route) => (Some(route), None),
            Target::Rule(route, rule) => (Some(route), Some(&**rule)),
            Target::GatewayListener(..) | Target::ListenerSet(_) | Target::SetListener(..) => (None, None),
        };
        let Some(own) = self.inputs.policies.model(key) else { return BTreeSet::new() };
        let fields = own.spec.fields();
        let mut overridden = BTreeSet::new();
        for listener in self.listeners_of(target, gateway) {
            let chain = self.inputs.policies.chain(listener, route, rule);
            let policies: Vec<Policy> = chain.iter().filter_map(|key| self.inputs.policies.model(key)).collect();
            for (field, source) in sources(key.kind, &policies) {
                if source != *key && fields.contains(&field) {
                    overridden.insert(format!("{field} by {}", source.name));
                }
            }
        }
        overridden
    }

    /// The listeners of `gateway` by which requests come to `target`.
    fn listeners_of<'a>(&'a self, target: &'a Target, gateway: &'a GatewayKey) -> Vec<&'a ListenerKey> {
        let of_set = |set: &ObjectName| self.topology.listener_sets.get(set).map(|state| state.listeners.as_slice());
        let of_gateway = |key: &GatewayKey| self.topology.gateways.get(key).map(|state| state.listeners.as_slice());
        let (states, name) = match target {
            Target::Route(route) | Target::Rule(route, _) => {
                let attached = self.routes.get(route).into_iter().flat_map(|outcome| &outcome.attached);
                return attached.filter(|listener| listener.gateway == *gateway).collect();
            }
            Target::Service(_) | Target::ServicePort(..) => (None, None),
            Target::Gateway(key) => (of_gateway(key), None),
            Target::GatewayListener(key, name) => (of_gateway(key), Some(name)),
            Target::ListenerSet(set) => (of_set(set), None),
            Target::SetListener(set, name) => (of_set(set), Some(name)),
        };
        let keys = states.unwrap_or_default().iter().map(|state| &state.key);
        keys.filter(|key| name.is_none_or(|name| key.name == *name)).collect()
    }

    fn conditions(
        &self,
        key: &PolicyKey,
        entry: &PolicyEntry,
        ancestor: &Ancestor,
        findings: &Findings,
    ) -> Vec<Condition> {
        let accepted = accepted(entry, ancestor, findings);
        let is_accepted = accepted.status;
        let mut conditions = vec![accepted];
        let resource = ResourceKey::Policy(key.clone());
        let refused = match ancestor {
            Ancestor::Gateway(gateway) => {
                Some(self.inputs.reports.get(gateway).and_then(|refused| refused.get(&resource)))
            }
            // Proxies of any Gateway may use the Service.
            Ancestor::Service(_) => Some(self.inputs.reports.values().find_map(|refused| refused.get(&resource))),
            Ancestor::Missing { .. } | Ancestor::Unfit(_) => None,
        };
        if let Some(refused) = refused.filter(|_| is_accepted) {
            conditions.push(match refused {
                Some(text) => {
                    let message = format!("refused by a proxy, so that its targets get 500: {text}");
                    Condition::no("Programmed", "RefusedByProxy", message)
                }
                None => Condition::yes("Programmed", "Programmed"),
            });
        }
        if !findings.overridden.is_empty() {
            let fields: Vec<&str> = findings.overridden.iter().map(String::as_str).collect();
            conditions.push(Condition::yes("Overridden", "Overridden").saying(fields.join(", ")));
        }
        if !findings.conflicts.is_empty() {
            conditions.push(Condition::yes("Conflicted", "Conflicted").saying(findings.conflicts.join("; ")));
        }
        conditions
    }
}

fn accepted(entry: &PolicyEntry, ancestor: &Ancestor, findings: &Findings) -> Condition {
    let no = |reason: &'static str, message: String| Condition::no("Accepted", reason, message);
    match &entry.spec {
        Err(message) => no("Invalid", format!("{message}: its targets get 500 until it is corrected")),
        Ok(_) if !findings.client.contradictions.is_empty() => {
            let contradictions: Vec<&str> = findings.client.contradictions.iter().map(String::as_str).collect();
            no("Invalid", format!("{}: it gets 500 until it is corrected", contradictions.join("; ")))
        }
        Ok(_) if findings.counts => {
            let notes = findings.missing.iter().chain(&findings.client.shared);
            let notes: Vec<&str> = notes.map(String::as_str).collect();
            Condition::yes("Accepted", "Accepted").saying(notes.join("; "))
        }
        Ok(_) if !findings.conflicts.is_empty() => no("Conflicted", findings.conflicts.join("; ")),
        Ok(_) if matches!(ancestor, Ancestor::Unfit(_)) => no("Invalid", findings.missing.join("; ")),
        Ok(_) => no("TargetNotFound", findings.missing.join("; ")),
    }
}
