//! Routes: where they attach, what their rules become, and what is said about both.
//!
//! Invariant: [`translate`] depends on nothing but the route, the policies on it, the parents and the Services that its outcome
//! names, the ReferenceGrants of their namespaces and the labels of its own namespace. Whoever changes one of those translates it again.

mod attach;
pub(crate) mod backend;
mod filters;
mod grpc;
mod http;
pub(crate) mod values;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use control_plane_model::{
    BackendKey, BackendTarget, HostPattern, ListenerKey, ObjectName, Route, RouteKey, RouteKind, Rule, RuleAction,
    Unavailable,
};
use crds::gateway_api::ParentReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

pub(crate) use attach::{Parent, ParentVerdict};

use crate::{Mode, gateway::Topology, inputs::Inputs, policy::Target, status::Condition};
use backend::RefProblem;

/// What a route is translated from.
pub(crate) struct Context<'a> {
    pub(crate) inputs: &'a Inputs,
    pub(crate) topology: &'a Topology,
    pub(crate) mode: Mode,
}

/// What became of a route.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Outcome {
    pub(crate) generation: i64,
    /// What the proxies get; `None` where no listener takes it, or no rule is left.
    pub(crate) route: Option<Arc<Route>>,
    /// Every parent that it names, ours or not.
    pub(crate) parents: BTreeSet<Parent>,
    /// Every Service that it names, there or not.
    pub(crate) services: BTreeSet<ObjectName>,
    /// Listeners whose `attachedRoutes` it counts for.
    pub(crate) attached: BTreeSet<ListenerKey>,
    /// One for each parentRef that names a Gateway of ours or a ListenerSet of it.
    pub(crate) verdicts: Vec<ParentVerdict>,
    /// Names of its rules.
    pub(crate) rule_names: BTreeSet<Arc<str>>,
    /// `ResolvedRefs`, the same for every parent.
    pub(crate) resolved: Condition,
    /// `PartiallyInvalid`, where some rules are invalid and some are not.
    pub(crate) partially_invalid: Option<Condition>,
}

impl Outcome {
    /// The backends that its rules use, each once.
    pub(crate) fn backends(&self) -> BTreeSet<&BackendKey> {
        self.route.iter().flat_map(|route| crate::scope::backends(route)).collect()
    }
}

/// Why a rule cannot be honoured.
#[derive(Clone, Debug, PartialEq)]
struct RuleProblem {
    reason: &'static str,
    message: String,
}

impl RuleProblem {
    fn unsupported(message: impl Into<String>) -> Self {
        Self { reason: "UnsupportedValue", message: message.into() }
    }
}

/// The rules of a route, and everything that is wrong with them.
#[derive(Default)]
struct Rules {
    list: Vec<Rule>,
    total: usize,
    /// By index of the rule.
    invalid: BTreeMap<usize, RuleProblem>,
    references: Vec<(String, RefProblem)>,
    notes: Vec<String>,
    services: BTreeSet<ObjectName>,
}

impl Rules {
    /// Adds a rule. A rule with a problem answers 500 for the matches that could be read; one without such is dropped.
    fn push(&mut self, rule: Rule, problem: Option<RuleProblem>) {
        let index = self.total;
        self.total += 1;
        let Some(problem) = problem else { return self.list.push(rule) };
        self.invalid.insert(index, problem);
        if !rule.matches.is_empty() {
            let action = RuleAction::Fail(Unavailable::UnsupportedValue);
            self.list.push(Rule { action, filters: Vec::new(), ..rule });
        }
    }

    fn target(&mut self, place: String, resolved: Result<BackendKey, RefProblem>) -> BackendTarget {
        let (target, problem) = backend::target(resolved);
        self.references.extend(problem.map(|problem| (place, problem)));
        target
    }

    fn resolved(&self) -> Condition {
        let Some((_, first)) = self.references.first() else {
            return Condition::yes("ResolvedRefs", "ResolvedRefs");
        };
        let messages: Vec<String> =
            self.references.iter().map(|(place, problem)| format!("{place}: {}", problem.message)).collect();
        Condition::no("ResolvedRefs", first.reason(), messages.join("; "))
    }

    /// `Accepted` as far as the rules decide it, and `PartiallyInvalid`.
    fn accepted(&self) -> (Condition, Option<Condition>) {
        let describe = |(index, problem): (&usize, &RuleProblem)| format!("rules[{index}]: {}", problem.message);
        let messages: Vec<String> = self.invalid.iter().map(describe).collect();
        let mut accepted = Condition::yes("Accepted", "Accepted").saying(self.notes.join("; "));
        let Some(first) = self.invalid.values().next() else { return (accepted, None) };
        if self.invalid.len() == self.total {
            accepted = Condition::no("Accepted", first.reason, messages.join("; "));
            return (accepted, None);
        }
        let dropped: Vec<String> = self.invalid.keys().map(ToString::to_string).collect();
        let message = format!(
            "Dropped Rule(s) {}: requests for those of their matches that can be read get 500: {}",
            dropped.join(", "),
            messages.join("; ")
        );
        let partially = Condition { kind: "PartiallyInvalid", status: true, reason: first.reason, message };
        (accepted, Some(partially))
    }
}

/// The parts of a route object that both kinds have.
struct Common<'a> {
    key: &'a RouteKey,
    metadata: &'a ObjectMeta,
    hostnames: &'a [String],
    parents: &'a [ParentReference],
}

/// Translates the route `key`; `None` where there is no such object.
pub(crate) fn translate(key: &RouteKey, context: &Context<'_>) -> Option<Outcome> {
    match key.kind {
        RouteKind::Http => {
            let route = context.inputs.http_routes.get(&key.name)?;
            let rules = http::rules(&route.spec, &key.name, context);
            let hostnames = route.spec.hostnames.as_deref().unwrap_or_default();
            let parents = route.spec.parent_refs.as_deref().unwrap_or_default();
            Some(outcome(&Common { key, metadata: &route.metadata, hostnames, parents }, rules, context))
        }
        RouteKind::Grpc => {
            let route = context.inputs.grpc_routes.get(&key.name)?;
            let rules = grpc::rules(&route.spec, &key.name, context);
            let hostnames = route.spec.hostnames.as_deref().unwrap_or_default();
            let parents = route.spec.parent_refs.as_deref().unwrap_or_default();
            Some(outcome(&Common { key, metadata: &route.metadata, hostnames, parents }, rules, context))
        }
    }
}

/// The policies of a rule are those that name it, by its name.
fn rules_with_policies(route: &RouteKey, rules: Vec<Rule>, context: &Context<'_>) -> Vec<Rule> {
    let with_policies = |rule: Rule| {
        let target = rule.name.clone().map(|name| Target::Rule(route.clone(), name));
        let policies = target.map_or_else(Vec::new, |target| context.inputs.policies.keys(&target));
        Rule { policies, ..rule }
    };
    rules.into_iter().map(with_policies).collect()
}

fn outcome(common: &Common<'_>, mut rules: Rules, context: &Context<'_>) -> Outcome {
    let hosts: Result<Vec<HostPattern>, _> = common.hostnames.iter().map(|host| HostPattern::parse(host)).collect();
    let (hosts, host_problem) = match hosts {
        Ok(hosts) if hosts.is_empty() => (vec![HostPattern::Any], None),
        Ok(hosts) => (hosts, None),
        Err(error) => (Vec::new(), Some(error.to_string())),
    };
    let (mut accepted, partially_invalid) = rules.accepted();
    if let Some(message) = host_problem {
        accepted = Condition::no("Accepted", "UnsupportedValue", format!("hostnames: {message}"));
    }
    let rule_names = rules.list.iter().filter_map(|rule| rule.name.clone()).collect();
    let attached = attach::attach(common, &hosts, &accepted, context);
    let listeners: BTreeSet<ListenerKey> =
        attached.attachments.iter().map(|attachment| attachment.listener.clone()).collect();
    let resolved = rules.resolved();
    let serves = !attached.attachments.is_empty() && !rules.list.is_empty();
    let route = serves.then(|| Route {
        key: common.key.clone(),
        created: common.metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second()),
        attachments: attached.attachments,
        rules: rules_with_policies(common.key, std::mem::take(&mut rules.list), context),
        policies: context.inputs.policies.keys(&Target::Route(common.key.clone())),
    });
    Outcome {
        generation: common.metadata.generation.unwrap_or_default(),
        route: route.map(Arc::new),
        parents: attached.parents,
        services: rules.services,
        attached: listeners,
        verdicts: attached.verdicts,
        rule_names,
        resolved,
        partially_invalid,
    }
}
