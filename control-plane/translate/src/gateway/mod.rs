//! Everything about Gateways that does not depend on routes: classes, settings, addresses, ListenerSets, listeners.
//! Computed as a whole: there are few Gateways, and each change of one is rare.

mod config;
mod conflict;
mod listener;
mod log_filter;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    num::NonZeroU16,
    sync::Arc,
};

use control_plane_model::{Certificate, CertificateKey, GatewayKey, ObjectName};
use crds::{
    gateway_api::{Gateway, GatewayClass, ListenerFromNamespaces, ListenerSet},
    gateway_config::GatewayConfigSpec,
};

pub(crate) use config::check as check_config;
pub(crate) use listener::ListenerState;

use crate::{
    Deployment, DeploymentSpec, Mode, Options,
    certificate::Certificates,
    inputs::{GATEWAY_GROUP, Inputs},
    selector::{Namespaces, Selector},
    status::Condition,
};

/// What there is of Gateways at one moment.
#[derive(Default)]
pub(crate) struct Topology {
    pub(crate) classes: BTreeMap<ObjectName, ClassState>,
    pub(crate) gateways: BTreeMap<GatewayKey, GatewayState>,
    pub(crate) listener_sets: BTreeMap<ObjectName, ListenerSetState>,
    pub(crate) certificates: BTreeMap<CertificateKey, Arc<Certificate>>,
    /// Secrets that a listener names, whether they exist or not.
    pub(crate) secrets: BTreeSet<ObjectName>,
}

/// A GatewayClass of ours.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ClassState {
    pub(crate) generation: i64,
    pub(crate) accepted: Condition,
    settings: GatewayConfigSpec,
}

/// What makes a Gateway ours.
enum Class {
    Ours(Box<ClassState>),
    /// Its class is gone while proxies of ours run for it. A class may be deleted by mistake, or for a moment by a tool that
    /// makes it anew, and all its Gateways would be down at once: they go on until the class names another controller.
    /// The provisioner's objects tell that the Gateway was ours, so that nothing has to be remembered.
    Missing,
}

/// A Gateway of ours.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct GatewayState {
    pub(crate) generation: i64,
    pub(crate) accepted: Condition,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) settings: GatewayConfigSpec,
    /// Its own listeners.
    pub(crate) listeners: Vec<ListenerState>,
    /// ListenerSets that name it and are accepted.
    pub(crate) attached_sets: usize,
}

/// A ListenerSet that names a Gateway of ours.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ListenerSetState {
    pub(crate) gateway: GatewayKey,
    pub(crate) generation: i64,
    pub(crate) accepted: Condition,
    /// Its listeners; none where the Gateway does not let it in.
    pub(crate) listeners: Vec<ListenerState>,
}

impl Topology {
    /// Computes it from nothing.
    pub(crate) fn new(inputs: &Inputs, options: &Options, certificates: &mut Certificates) -> Self {
        let mut topology = Self { classes: classes(inputs, options), ..Self::default() };
        let sets = sets_by_gateway(inputs);
        for (name, gateway) in &inputs.gateways {
            let key = GatewayKey(name.clone());
            let Some(class) = topology.class_of(&key, gateway, inputs, options) else { continue };
            let mut builder = listener::Builder { inputs, certificates, topology: &mut topology };
            let build = GatewayBuild { key: &key, gateway, class: &class, inputs, options };
            let (state, set_states) = build.run(sets.get(&key).map(Vec::as_slice).unwrap_or_default(), &mut builder);
            topology.gateways.insert(key, state);
            topology.listener_sets.extend(set_states);
        }
        topology
    }

    fn class_of(&self, key: &GatewayKey, gateway: &Gateway, inputs: &Inputs, options: &Options) -> Option<Class> {
        if options.mode == Mode::Standalone && inputs.classes.is_empty() {
            let accepted = Condition::yes("Accepted", "Accepted");
            let settings = GatewayConfigSpec::default();
            return Some(Class::Ours(Box::new(ClassState { generation: 0, accepted, settings })));
        }
        let ours = self.classes.get(&ObjectName::new("", gateway.spec.gateway_class_name.as_str()));
        ours.cloned()
            .map(|class| Class::Ours(Box::new(class)))
            .or_else(|| inputs.is_orphaned(key).then_some(Class::Missing))
    }

    /// Every listener, of Gateways and of ListenerSets.
    pub(crate) fn listeners(&self) -> impl Iterator<Item = &ListenerState> {
        let own = self.gateways.values().flat_map(|gateway| &gateway.listeners);
        own.chain(self.listener_sets.values().flat_map(|set| &set.listeners))
    }

    /// What the provisioner is to run.
    pub(crate) fn deployments(&self, inputs: &Inputs) -> BTreeMap<GatewayKey, Deployment> {
        let deployment = |(key, state): (&GatewayKey, &GatewayState)| {
            let gateway = inputs.gateways.get(&key.0)?;
            let deployment = if state.accepted.status {
                Deployment::Wanted(Box::new(self.deployment(key, state, gateway)))
            } else {
                Deployment::Held { uid: gateway.metadata.uid.clone().unwrap_or_default() }
            };
            Some((key.clone(), deployment))
        };
        self.gateways.iter().filter_map(deployment).collect()
    }

    fn deployment(&self, key: &GatewayKey, state: &GatewayState, gateway: &Gateway) -> DeploymentSpec {
        let served = self.listeners().filter(|listener| listener.key.gateway == *key && listener.accepted.status);
        let ports: BTreeSet<NonZeroU16> = served.filter_map(|listener| listener.port).collect();
        let infrastructure = gateway.spec.infrastructure.as_ref();
        DeploymentSpec {
            gateway: key.clone(),
            uid: gateway.metadata.uid.clone().unwrap_or_default(),
            ports: ports.into_iter().collect(),
            labels: infrastructure.and_then(|settings| settings.labels.clone()).unwrap_or_default(),
            annotations: infrastructure.and_then(|settings| settings.annotations.clone()).unwrap_or_default(),
            addresses: state.addresses.clone(),
            settings: state.settings.clone(),
        }
    }
}

fn classes(inputs: &Inputs, options: &Options) -> BTreeMap<ObjectName, ClassState> {
    let ours = inputs.classes.iter().filter(|(_, class)| class.spec.controller_name == options.controller_name);
    ours.map(|(name, class)| (name.clone(), class_state(class, inputs))).collect()
}

fn class_state(class: &GatewayClass, inputs: &Inputs) -> ClassState {
    let generation = class.metadata.generation.unwrap_or_default();
    let settings = class.spec.parameters_ref.as_ref().map_or_else(
        || Ok(GatewayConfigSpec::default()),
        |reference| {
            let namespace = reference.namespace.as_deref().ok_or("parametersRef has no namespace")?;
            config::resolve(&reference.group, &reference.kind, namespace, &reference.name, inputs)
        },
    );
    match settings {
        Ok(settings) => ClassState { generation, accepted: Condition::yes("Accepted", "Accepted"), settings },
        Err(message) => {
            let accepted = Condition::no("Accepted", "InvalidParameters", message);
            ClassState { generation, accepted, settings: GatewayConfigSpec::default() }
        }
    }
}

/// ListenerSets by the Gateway that they name, in order of precedence: the older first, then by name.
fn sets_by_gateway(inputs: &Inputs) -> BTreeMap<GatewayKey, Vec<(&ObjectName, &ListenerSet)>> {
    let mut sets: BTreeMap<GatewayKey, Vec<(&ObjectName, &ListenerSet)>> = BTreeMap::new();
    for (name, set) in &inputs.listener_sets {
        if let Some(gateway) = parent_gateway(name, set) {
            sets.entry(gateway).or_default().push((name, set));
        }
    }
    for sets in sets.values_mut() {
        sets.sort_by_key(|(_, set)| set.metadata.creation_timestamp.as_ref().map(|time| time.0));
    }
    sets
}

/// The Gateway that a ListenerSet names, there or not; `None` where it names something else.
pub(crate) fn parent_gateway(name: &ObjectName, set: &ListenerSet) -> Option<GatewayKey> {
    let parent = &set.spec.parent_ref;
    let is_gateway = parent.group.as_deref().is_none_or(|group| group == GATEWAY_GROUP)
        && parent.kind.as_deref().is_none_or(|kind| kind == "Gateway");
    let namespace = parent.namespace.as_deref().unwrap_or(&name.namespace);
    is_gateway.then(|| GatewayKey(ObjectName::new(namespace, parent.name.as_str())))
}

/// Builds the state of one Gateway.
struct GatewayBuild<'a> {
    key: &'a GatewayKey,
    gateway: &'a Gateway,
    class: &'a Class,
    inputs: &'a Inputs,
    options: &'a Options,
}

type SetStates = Vec<(ObjectName, ListenerSetState)>;

impl GatewayBuild<'_> {
    fn run(
        &self,
        sets: &[(&ObjectName, &ListenerSet)],
        builder: &mut listener::Builder<'_>,
    ) -> (GatewayState, SetStates) {
        let mut own: Vec<ListenerState> = Vec::new();
        for spec in &self.gateway.spec.listeners {
            own.push(builder.build(self.key, None, spec, &self.gateway.spec));
        }
        let admitted = self.admitted();
        let mut states: SetStates = Vec::new();
        for (name, set) in sets {
            let mut state = ListenerSetState {
                gateway: self.key.clone(),
                generation: set.metadata.generation.unwrap_or_default(),
                accepted: Condition::yes("Accepted", "Accepted"),
                listeners: Vec::new(),
            };
            match &admitted {
                Ok(namespaces) if namespaces.admit(&name.namespace, self.inputs) => {
                    for spec in &set.spec.listeners {
                        state.listeners.push(builder.build(self.key, Some(name), spec, &self.gateway.spec));
                    }
                }
                Ok(_) => {
                    let message =
                        format!("spec.allowedListeners of Gateway {} does not admit this namespace", self.key);
                    state.accepted = Condition::no("Accepted", "NotAllowed", message);
                }
                Err(message) => state.accepted = Condition::no("Accepted", "NotAllowed", message.clone()),
            }
            states.push(((*name).clone(), state));
        }
        let mut groups: Vec<&mut [ListenerState]> = vec![&mut own];
        groups.extend(states.iter_mut().map(|(_, state)| state.listeners.as_mut_slice()));
        conflict::resolve(&mut groups);
        conflict::mark_overlaps(&mut groups);
        let addresses = self.addresses();
        let bound =
            if self.options.mode == Mode::Standalone { addresses.clone().unwrap_or_default() } else { Vec::new() };
        for listener in own.iter_mut().chain(states.iter_mut().flat_map(|(_, state)| &mut state.listeners)) {
            listener.finish(&bound);
        }
        let (accepted, settings) = self.accepted(&own, addresses.as_ref().err());
        for (_, state) in &mut states {
            judge_set(state, &accepted, self.key);
        }
        let attached_sets = states.iter().filter(|(_, state)| state.accepted.status).count();
        let generation = self.gateway.metadata.generation.unwrap_or_default();
        let addresses = addresses.unwrap_or_default();
        (GatewayState { generation, accepted, addresses, settings, listeners: own, attached_sets }, states)
    }

    /// Namespaces whose ListenerSets may join.
    fn admitted(&self) -> Result<Namespaces, String> {
        let allowed = self.gateway.spec.allowed_listeners.as_ref().and_then(|allowed| allowed.namespaces.as_ref());
        let Some(allowed) = allowed else { return Ok(Namespaces::None) };
        Ok(match allowed.from.unwrap_or(ListenerFromNamespaces::None) {
            ListenerFromNamespaces::None => Namespaces::None,
            ListenerFromNamespaces::All => Namespaces::All,
            ListenerFromNamespaces::Same => Namespaces::Only(self.key.0.namespace.clone()),
            ListenerFromNamespaces::Selector => {
                let selector = allowed.selector.as_ref().ok_or("spec.allowedListeners has no selector")?;
                Namespaces::Selected(Selector::new(selector)?)
            }
        })
    }

    /// The addresses that the Gateway asks for.
    fn addresses(&self) -> Result<Vec<IpAddr>, String> {
        let mut addresses = Vec::new();
        for address in self.gateway.spec.addresses.iter().flatten() {
            let kind = address.r#type.as_deref().unwrap_or("IPAddress");
            let value = address.value.as_deref().unwrap_or_default();
            if kind != "IPAddress" {
                return Err(format!("spec.addresses: type {kind:?} is not supported, want IPAddress"));
            }
            if !value.is_empty() {
                let address = value.parse();
                addresses.push(address.map_err(|_| format!("spec.addresses: {value:?} is not an IP address"))?);
            }
        }
        Ok(addresses)
    }

    fn accepted(&self, own: &[ListenerState], bad_address: Option<&String>) -> (Condition, GatewayConfigSpec) {
        let settings = self.settings();
        let condition = if matches!(self.class, Class::Missing) {
            Condition::no("Accepted", "GatewayClassNotFound", self.class_is_missing())
        } else if let Err(message) = &settings {
            Condition::no("Accepted", "InvalidParameters", message.clone())
        } else if let Some(message) = bad_address {
            Condition::no("Accepted", "UnsupportedAddress", message.clone())
        } else {
            judge_listeners(own)
        };
        let mut condition = condition;
        if self.gateway.spec.tls.as_ref().is_some_and(|tls| tls.backend.is_some()) && condition.message.is_empty() {
            condition = condition.saying("spec.tls.backend has no effect: TLS to backends is not supported yet");
        }
        (condition, settings.unwrap_or_default())
    }

    fn settings(&self) -> Result<GatewayConfigSpec, String> {
        let reference = self.gateway.spec.infrastructure.as_ref().and_then(|settings| settings.parameters_ref.as_ref());
        if let Some(reference) = reference {
            let namespace = &self.key.0.namespace;
            return config::resolve(&reference.group, &reference.kind, namespace, &reference.name, self.inputs);
        }
        match self.class {
            Class::Ours(class) if class.accepted.status => Ok(class.settings.clone()),
            Class::Ours(class) => {
                Err(format!("GatewayClass {}: {}", self.gateway.spec.gateway_class_name, class.accepted.message))
            }
            Class::Missing => Err(self.class_is_missing()),
        }
    }

    fn class_is_missing(&self) -> String {
        let class = &self.gateway.spec.gateway_class_name;
        format!("GatewayClass {class} does not exist: what runs is left as it is, nothing new is made")
    }
}

/// A Gateway is accepted while one of its own listeners is.
fn judge_listeners(own: &[ListenerState]) -> Condition {
    let refused: Vec<String> = own
        .iter()
        .filter(|listener| !listener.accepted.status)
        .map(|listener| format!("listener {} is not accepted: {}", listener.key.name, listener.accepted.message))
        .collect();
    if refused.is_empty() && !own.is_empty() {
        Condition::yes("Accepted", "Accepted")
    } else {
        let status = refused.len() < own.len();
        Condition { kind: "Accepted", status, reason: "ListenersNotValid", message: refused.join("; ") }
    }
}

fn judge_set(state: &mut ListenerSetState, gateway: &Condition, key: &GatewayKey) {
    if !state.accepted.status {
        return;
    }
    if !gateway.status {
        let message = format!("Gateway {key} is not accepted: {}", gateway.reason);
        state.accepted = Condition::no("Accepted", "ParentNotAccepted", message);
        return;
    }
    let refused: Vec<String> = state
        .listeners
        .iter()
        .filter(|listener| listener.model.is_none())
        .map(|listener| format!("listener {}: {}", listener.key.name, listener.complaint()))
        .collect();
    if !refused.is_empty() {
        let status = refused.len() < state.listeners.len();
        state.accepted =
            Condition { kind: "Accepted", status, reason: "ListenersNotValid", message: refused.join("; ") };
    }
}
