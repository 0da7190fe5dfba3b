//! Which listeners take a route (Gateway API: `parentRefs`, `allowedRoutes`, hostname intersection).

use std::collections::{BTreeMap, BTreeSet};

use control_plane_model::{AttachedHost, Attachment, GatewayKey, HostPattern, ListenerKey, ObjectName, RouteKind};
use crds::gateway_api::ParentReference;
use serde_json::{Value, json};

use super::{Common, Context};
use crate::{gateway::ListenerState, inputs::GATEWAY_GROUP, status::Condition};

/// A parent that a route names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Parent {
    Gateway(GatewayKey),
    ListenerSet(ObjectName),
}

/// What is said about one parentRef.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ParentVerdict {
    /// The reference as it stands in `status.parents[].parentRef`.
    pub(crate) reference: Value,
    /// The Gateway behind it.
    pub(crate) gateway: GatewayKey,
    pub(crate) accepted: Condition,
}

/// Where a route is attached.
pub(super) struct Attached {
    pub(super) parents: BTreeSet<Parent>,
    pub(super) attachments: Vec<Attachment>,
    pub(super) verdicts: Vec<ParentVerdict>,
}

/// Attaches a route that serves `hosts`. `accepted` is what its rules alone say.
pub(super) fn attach(
    common: &Common<'_>,
    hosts: &[HostPattern],
    accepted: &Condition,
    context: &Context<'_>,
) -> Attached {
    let mut attached = Attached { parents: BTreeSet::new(), attachments: Vec::new(), verdicts: Vec::new() };
    let mut found: BTreeMap<ListenerKey, Vec<AttachedHost>> = BTreeMap::new();
    for reference in common.parents {
        let Some(parent) = parent(reference, &common.key.name.namespace) else { continue };
        attached.parents.insert(parent.clone());
        let Some(candidates) = Candidates::of(&parent, context) else { continue };
        let verdict = candidates.choose(reference, common, hosts, context);
        let condition = match verdict {
            Ok(listeners) => {
                found.extend(listeners);
                accepted.clone()
            }
            // Its hostnames could not be read: that is the reason, wherever it would attach.
            Err(_) if hosts.is_empty() => accepted.clone(),
            Err(refusal) => refusal,
        };
        attached.verdicts.push(ParentVerdict {
            reference: echo(reference),
            gateway: candidates.gateway,
            accepted: condition,
        });
    }
    attached.attachments = found.into_iter().map(|(listener, hosts)| Attachment { listener, hosts }).collect();
    attached
}

fn parent(reference: &ParentReference, namespace: &str) -> Option<Parent> {
    if reference.group.as_deref().is_some_and(|group| group != GATEWAY_GROUP) {
        return None;
    }
    let name = ObjectName::new(reference.namespace.as_deref().unwrap_or(namespace), reference.name.as_str());
    match reference.kind.as_deref().unwrap_or("Gateway") {
        "Gateway" => Some(Parent::Gateway(GatewayKey(name))),
        "ListenerSet" => Some(Parent::ListenerSet(name)),
        _ => None,
    }
}

/// The reference as the user wrote it, with the group and kind that the API server fills in.
fn echo(reference: &ParentReference) -> Value {
    let mut echo = json!({
        "group": reference.group.as_deref().unwrap_or(GATEWAY_GROUP),
        "kind": reference.kind.as_deref().unwrap_or("Gateway"),
        "name": reference.name,
    });
    if let Value::Object(fields) = &mut echo {
        let optional = [
            ("namespace", reference.namespace.as_deref().map(Value::from)),
            ("sectionName", reference.section_name.as_deref().map(Value::from)),
            ("port", reference.port.map(Value::from)),
        ];
        fields.extend(optional.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
    }
    echo
}

/// The listeners of a parent of ours.
struct Candidates<'a> {
    gateway: GatewayKey,
    /// How the parent is called in messages.
    name: String,
    listeners: &'a [ListenerState],
    /// Why the parent as a whole takes no route.
    refusal: Option<&'a Condition>,
}

impl<'a> Candidates<'a> {
    fn of(parent: &Parent, context: &Context<'a>) -> Option<Self> {
        match parent {
            Parent::Gateway(key) => {
                let state = context.topology.gateways.get(key)?;
                let name = format!("Gateway {key}");
                Some(Self { gateway: key.clone(), name, listeners: &state.listeners, refusal: None })
            }
            Parent::ListenerSet(name) => {
                let state = context.topology.listener_sets.get(name)?;
                let refusal = Some(&state.accepted).filter(|accepted| !accepted.status);
                let name = format!("ListenerSet {name}");
                Some(Self { gateway: state.gateway.clone(), name, listeners: &state.listeners, refusal })
            }
        }
    }

    /// The listeners that take the route, each with its hosts; never empty.
    fn choose(
        &self,
        reference: &ParentReference,
        common: &Common<'_>,
        hosts: &[HostPattern],
        context: &Context<'_>,
    ) -> Result<Vec<(ListenerKey, Vec<AttachedHost>)>, Condition> {
        let refuse = |reason: &'static str, message: String| Err(Condition::no("Accepted", reason, message));
        let named: Vec<&ListenerState> =
            self.listeners.iter().filter(|listener| is_named(listener, reference)).collect();
        if named.is_empty() {
            let because = self.refusal.map(|refusal| format!(": it is not accepted ({})", refusal.reason));
            let message =
                format!("no listener of {} has this sectionName and port{}", self.name, because.unwrap_or_default());
            return refuse("NoMatchingParent", message);
        }
        let kind = common.key.kind;
        let admits = |listener: &&&ListenerState| {
            listener.kinds.contains(&kind) && listener.namespaces.admit(&common.key.name.namespace, context.inputs)
        };
        let allowing: Vec<&ListenerState> = named.iter().filter(admits).copied().collect();
        if allowing.is_empty() {
            let kind = if kind == RouteKind::Http { "HTTPRoute" } else { "GRPCRoute" };
            let namespace = &common.key.name.namespace;
            let message = format!("allowedRoutes of {} admit no {kind} from namespace {namespace}", self.name);
            return refuse("NotAllowedByListeners", message);
        }
        let accepted: Vec<&ListenerState> = allowing.into_iter().filter(|listener| listener.accepted.status).collect();
        if accepted.is_empty() {
            return refuse(
                "NoMatchingParent",
                format!("the listeners of {} that allow it are not accepted", self.name),
            );
        }
        let served = accepted.into_iter().map(|listener| (listener.key.clone(), served(&listener.hostname, hosts)));
        let served: Vec<_> = served.filter(|(_, hosts)| !hosts.is_empty()).collect();
        if served.is_empty() {
            let message = format!("no hostname of the route is served by a listener of {} that allows it", self.name);
            return refuse("NoMatchingListenerHostname", message);
        }
        Ok(served)
    }
}

fn is_named(listener: &ListenerState, reference: &ParentReference) -> bool {
    reference.section_name.as_deref().is_none_or(|name| name.is_empty() || *name == *listener.key.name)
        && reference.port.is_none_or(|port| listener.port.is_some_and(|own| i32::from(own.get()) == port))
}

/// The hosts that a listener serves for a route. Of two declared hosts that serve the same the more specific one ranks it.
fn served(listener: &HostPattern, hosts: &[HostPattern]) -> Vec<AttachedHost> {
    let mut served: BTreeMap<HostPattern, HostPattern> = BTreeMap::new();
    for declared in hosts {
        if let Some(host) = listener.intersect(declared) {
            let entry = served.entry(host).or_insert_with(|| declared.clone());
            if specificity(declared) > specificity(entry) {
                *entry = declared.clone();
            }
        }
    }
    served.into_iter().map(|(served, declared)| AttachedHost { served, declared }).collect()
}

/// Exact before wildcard before any; among wildcards the longer suffix.
fn specificity(host: &HostPattern) -> (u8, usize) {
    match host {
        HostPattern::Any => (0, 0),
        HostPattern::Wildcard(suffix) => (1, suffix.len()),
        HostPattern::Exact(host) => (2, host.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(hosts: &[&str]) -> Vec<HostPattern> {
        hosts.iter().map(|host| HostPattern::parse(host).unwrap()).collect()
    }

    #[test]
    fn a_host_that_is_served_for_two_reasons_keeps_the_more_specific_one() {
        let listener = HostPattern::parse("www.example.com").unwrap();
        let hosts = served(&listener, &patterns(&["*.example.com", "www.example.com", "*.org"]));
        let www = HostPattern::parse("www.example.com").unwrap();
        assert_eq!(hosts, [AttachedHost { served: www.clone(), declared: www }]);
    }
}
