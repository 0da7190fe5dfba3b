//! Rules of a GRPCRoute.

use control_plane_model::{ObjectName, PathMatch, RouteMatch, Rule, RuleAction, Timeouts, ValueMatch, WeightedBackend};
use crds::gateway_api::{
    GRPCBackendRef, GRPCMethodMatch, GRPCMethodMatchType, GRPCRouteMatch, GRPCRouteRule, GRPCRouteSpec,
};

use super::{Context, RuleProblem, Rules, backend, filters, values};
use crate::inputs::Referrer;

/// Every rule of `spec`.
pub(super) fn rules(spec: &GRPCRouteSpec, name: &ObjectName, context: &Context<'_>) -> Rules {
    let mut rules = Rules::default();
    for rule in spec.rules.iter().flatten() {
        push(&mut rules, rule, name, context);
    }
    rules
}

fn push(rules: &mut Rules, rule: &GRPCRouteRule, route: &ObjectName, context: &Context<'_>) {
    let index = rules.total;
    let (matches, problem) = route_matches(rule.matches.as_deref());
    let filters = filters::grpc(rule.filters.as_deref());
    let backends = backends(rules, rule.backend_refs.as_deref().unwrap_or_default(), route, context);
    if rule.session_persistence.is_some() {
        rules.notes.push(format!("rules[{index}].sessionPersistence has no effect: it is not supported yet"));
    }
    let problem = problem
        .map(RuleProblem::unsupported)
        .or_else(|| filters.as_ref().err().cloned())
        .or_else(|| backends.as_ref().err().cloned());
    let rule = Rule {
        name: rule.name.as_deref().map(Into::into),
        matches,
        filters: filters.unwrap_or_default(),
        action: RuleAction::Forward(backends.unwrap_or_default()),
        timeouts: Timeouts::default(),
        policies: Vec::new(),
    };
    rules.push(rule, problem);
}

fn route_matches(matches: Option<&[GRPCRouteMatch]>) -> (Vec<RouteMatch>, Option<String>) {
    let default = [GRPCRouteMatch::default()];
    let matches = matches.filter(|matches| !matches.is_empty()).unwrap_or(&default);
    let (mut read, mut problem) = (Vec::with_capacity(matches.len()), None);
    for (index, found) in matches.iter().enumerate() {
        match route_match(found) {
            Ok(found) => read.push(found),
            Err(message) => problem = problem.or(Some(format!("matches[{index}]: {message}"))),
        }
    }
    (read, problem)
}

fn route_match(found: &GRPCRouteMatch) -> Result<RouteMatch, String> {
    let path = found.method.as_ref().map_or(Ok(PathMatch::Grpc { service: None, method: None }), method_match)?;
    let headers = values::header_matches(found.headers.as_deref())?;
    Ok(RouteMatch { path, method: None, headers, query: Vec::new() })
}

fn method_match(found: &GRPCMethodMatch) -> Result<PathMatch, String> {
    let is_regex = found.r#type == Some(GRPCMethodMatchType::RegularExpression);
    let part = |name: &str, text: Option<&String>| -> Result<Option<ValueMatch>, String> {
        let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
        if !is_regex && text.contains('/') {
            return Err(format!("method.{name} {text:?} holds a '/'"));
        }
        values::value_match(text, is_regex).map(Some)
    };
    let (service, method) = (part("service", found.service.as_ref())?, part("method", found.method.as_ref())?);
    if service.is_none() && method.is_none() {
        return Err("method names neither service nor method".to_owned());
    }
    Ok(PathMatch::Grpc { service, method })
}

fn backends(
    rules: &mut Rules,
    references: &[GRPCBackendRef],
    route: &ObjectName,
    context: &Context<'_>,
) -> Result<Vec<WeightedBackend>, RuleProblem> {
    let rule = rules.total;
    let referrer = Referrer { kind: "GRPCRoute", namespace: &route.namespace };
    let mut backends = Vec::with_capacity(references.len());
    let mut problem = None;
    for (index, entry) in references.iter().enumerate() {
        let reference = backend::Reference {
            group: entry.group.as_deref(),
            kind: entry.kind.as_deref(),
            namespace: entry.namespace.as_deref(),
            name: &entry.name,
            port: entry.port,
        };
        let resolved = backend::resolve(&reference, &referrer, context, &mut rules.services);
        let target = rules.target(format!("rules[{rule}].backendRefs[{index}]"), resolved);
        let weight = backend::weight(entry.weight).map_err(RuleProblem::unsupported);
        let filters = filters::grpc(entry.filters.as_deref());
        match weight.and_then(|weight| Ok(WeightedBackend { weight, target, filters: filters? })) {
            Ok(backend) => backends.push(backend),
            Err(found) => {
                let message = format!("backendRefs[{index}]: {}", found.message);
                problem = problem.or(Some(RuleProblem { message, ..found }));
            }
        }
    }
    problem.map_or(Ok(backends), Err)
}
