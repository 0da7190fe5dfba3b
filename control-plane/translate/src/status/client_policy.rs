//! What a ClientPolicy's status says beside what every policy's does: settings that do not hold together with those of the
//! Gateway's policy, and listeners that share a socket, where a client may have to be judged before it is known which of
//! them it wants.

use std::collections::BTreeSet;

use control_plane_model::{
    ClientLimits, ClientSettings, ClientTimeouts, ListenerKey, PolicyKey, ProxyProtocol, effective_client,
};

use crate::{
    gateway::{ListenerState, Topology},
    inputs::Inputs,
};

/// What is found at the listeners of one Gateway.
#[derive(Default)]
pub(super) struct Found {
    /// Listeners that answer 500, and why.
    pub(super) contradictions: BTreeSet<String>,
    /// Ports on which listeners differ.
    pub(super) shared: BTreeSet<String>,
}

impl Found {
    /// Adds what was found at other listeners.
    pub(super) fn add(&mut self, other: Self) {
        self.contradictions.extend(other.contradictions);
        self.shared.extend(other.shared);
    }
}

/// Looks at `listeners`, on which the policy `key` counts.
pub(super) fn look(key: &PolicyKey, listeners: &[&ListenerKey], inputs: &Inputs, topology: &Topology) -> Found {
    let mut found = Found::default();
    for listener in listeners {
        let chain = inputs.policies.chain(listener, None, None);
        // The most specific one is told; the others may be good for other listeners.
        if chain.iter().rfind(|other| other.kind == key.kind) != Some(key) {
            continue;
        }
        let settings = effective(listener, inputs);
        found.shared.extend(shared(listener, &settings, inputs, topology));
        if let Some(error) = settings.complete().contradiction() {
            found.contradictions.insert(format!("listener {} with what holds above it: {error}", listener.name));
        }
    }
    found
}

fn effective(listener: &ListenerKey, inputs: &Inputs) -> ClientSettings {
    let chain = inputs.policies.chain(listener, None, None);
    let policies: Vec<_> = chain.iter().filter_map(|key| inputs.policies.model(key)).collect();
    effective_client(&policies).settings
}

/// A note where other listeners of the same port have other settings of those that count before a listener is chosen.
fn shared(listener: &ListenerKey, settings: &ClientSettings, inputs: &Inputs, topology: &Topology) -> Option<String> {
    let listeners = || {
        let own = topology.gateways.get(&listener.gateway).map(|state| state.listeners.as_slice());
        let sets = topology.listener_sets.values().filter(|set| set.gateway == listener.gateway);
        own.into_iter().chain(sets.map(|set| set.listeners.as_slice())).flatten().filter(|state| state.model.is_some())
    };
    let port = listeners().find(|state| state.key == *listener)?.port?;
    let differs = |state: &&ListenerState| {
        state.port == Some(port)
            && state.key != *listener
            && of_socket(&effective(&state.key, inputs)) != of_socket(settings)
    };
    let other = listeners().find(differs)?;
    let other = &other.key.name;
    Some(format!(
        "port {port} is shared with listener {other}: until a listener is chosen, the strictest of both holds"
    ))
}

type OfSocket<'a> = (&'a ClientTimeouts, &'a ClientLimits, Option<&'a ProxyProtocol>);

fn of_socket(settings: &ClientSettings) -> OfSocket<'_> {
    let proxy = settings.proxy_protocol.as_ref().filter(|proxy| **proxy != ProxyProtocol::Disabled);
    (&settings.timeouts, &settings.limits, proxy)
}
