//! Which listeners of one Gateway cannot stand beside each other (Gateway API: distinct listeners, GEP-1713 for ListenerSets).
//!
//! Listeners come in groups by precedence: the Gateway's own, then those of its ListenerSets, the older set first. Within a group
//! all that conflict lose; against an earlier group the later loses. A listener of a protocol that is not served never
//! makes another one lose.

use std::collections::{BTreeMap, BTreeSet};

use control_plane_model::HostPattern;

use super::listener::{ListenerState, Speaks};
use crate::status::Condition;

#[derive(Default)]
struct Port {
    speaks: Option<Speaks>,
    hosts: BTreeSet<HostPattern>,
}

#[derive(Clone, Copy, PartialEq)]
enum Conflict {
    Protocol,
    Hostname,
}

/// Sets `Conflicted` of every listener, and `Accepted` to False where it is True.
pub(super) fn resolve(groups: &mut [&mut [ListenerState]]) {
    let mut taken: BTreeMap<u16, Port> = BTreeMap::new();
    for group in groups {
        let conflicts: Vec<Option<Conflict>> = group.iter().map(|listener| conflict(listener, group, &taken)).collect();
        for (listener, conflict) in group.iter_mut().zip(conflicts) {
            if let Some(conflict) = conflict {
                refuse(listener, conflict);
            } else if let (true, Some(number)) = (listener.accepted.status, listener.port) {
                let port = taken.entry(number.get()).or_default();
                port.speaks = Some(listener.speaks);
                port.hosts.insert(listener.hostname.clone());
            }
        }
    }
}

fn conflict(listener: &ListenerState, group: &[ListenerState], taken: &BTreeMap<u16, Port>) -> Option<Conflict> {
    let number = listener.port?;
    if let Some(port) = taken.get(&number.get()) {
        if port.speaks.is_some_and(|speaks| !speaks.can_share_port_with(listener.speaks)) {
            return Some(Conflict::Protocol);
        }
        if listener.accepted.status && port.hosts.contains(&listener.hostname) {
            return Some(Conflict::Hostname);
        }
    }
    if !listener.accepted.status {
        return None;
    }
    let mut peers = group.iter().filter(|other| {
        other.key != listener.key
            && other.port == listener.port
            && other.accepted.status
            && other.speaks.can_share_port_with(listener.speaks)
            && other.hostname == listener.hostname
    });
    if peers.next().is_some() {
        return Some(Conflict::Hostname);
    }
    let clashes = group.iter().any(|other| {
        other.key != listener.key
            && other.port == listener.port
            && other.accepted.status
            && !other.speaks.can_share_port_with(listener.speaks)
    });
    clashes.then_some(Conflict::Protocol)
}

/// Sets `OverlappingTLSConfig` of listeners that end TLS on one port for hosts in common: a client may send a request
/// for the one over a connection that it made to the other (GEP-3567).
pub(super) fn mark_overlaps(groups: &mut [&mut [ListenerState]]) {
    let ends_tls = |listener: &ListenerState| listener.speaks == Speaks::Https && listener.accepted.status;
    let all: Vec<_> = groups
        .iter()
        .flat_map(|group| group.iter())
        .filter(|listener| ends_tls(listener))
        .map(|listener| (listener.key.clone(), listener.port, listener.hostname.clone()))
        .collect();
    for listener in groups.iter_mut().flat_map(|group| group.iter_mut()).filter(|listener| ends_tls(listener)) {
        let others = all.iter().filter(|(key, port, hostname)| {
            *key != listener.key && *port == listener.port && hostname.intersect(&listener.hostname).is_some()
        });
        let names: Vec<&str> = others.map(|(key, ..)| &*key.name).collect();
        listener.overlapping = (!names.is_empty()).then(|| {
            let message = format!(
                "shares hosts with listener {} on this port; a request that comes over the other's connection gets 421",
                names.join(", ")
            );
            Condition { kind: "OverlappingTLSConfig", status: true, reason: "OverlappingHostnames", message }
        });
    }
}

fn refuse(listener: &mut ListenerState, conflict: Conflict) {
    let (reason, message) = match conflict {
        Conflict::Protocol => ("ProtocolConflict", "another listener speaks another protocol on this port"),
        Conflict::Hostname => ("HostnameConflict", "another listener has the same port, protocol and hostname"),
    };
    listener.accepted = Condition::no("Accepted", reason, message);
    listener.conflicted = Condition { kind: "Conflicted", status: true, reason, message: message.to_owned() };
}
