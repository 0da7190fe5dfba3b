//! Rules of an HTTPRoute.

use control_plane_model::{
    Filter, ObjectName, PathMatch, QueryMatch, RouteMatch, Rule, RuleAction, Timeouts, WeightedBackend,
};
use crds::gateway_api::{
    HTTPBackendRef, HTTPMethod, HTTPQueryParamMatch, HTTPRouteMatch, HTTPRouteRule, HTTPRouteSpec, HTTPRouteTimeouts,
    QueryParamMatchType,
};
use http::Method;

use super::{Context, RuleProblem, Rules, backend, filters, filters::Place, values};
use crate::inputs::Referrer;

/// Every rule of `spec`; one that matches everything where there is none.
pub(super) fn rules(spec: &HTTPRouteSpec, name: &ObjectName, context: &Context<'_>) -> Rules {
    let mut rules = Rules::default();
    let default = [HTTPRouteRule::default()];
    for rule in spec.rules.as_deref().filter(|rules| !rules.is_empty()).unwrap_or(&default) {
        push(&mut rules, rule, name, context);
    }
    rules
}

fn push(rules: &mut Rules, rule: &HTTPRouteRule, route: &ObjectName, context: &Context<'_>) {
    let index = rules.total;
    let (matches, problem) = route_matches(rule.matches.as_deref());
    let paths: Vec<PathMatch> = matches.iter().map(|found| found.path.clone()).collect();
    let filters = filters::http(rule.filters.as_deref(), Place::Rule, &paths);
    let backends = backends(rules, rule.backend_refs.as_deref().unwrap_or_default(), &paths, route, context);
    let timeouts = rule.timeouts.as_ref().map_or(Ok(Timeouts::default()), timeouts);
    if rule.retry.is_some() {
        rules.notes.push(format!("rules[{index}].retry has no effect: it is not supported yet"));
    }
    if rule.session_persistence.is_some() {
        rules.notes.push(format!("rules[{index}].sessionPersistence has no effect: it is not supported yet"));
    }
    let mut problem = problem.map(RuleProblem::unsupported);
    let mut note = |found: RuleProblem| problem = problem.take().or(Some(found));
    let filters = filters.unwrap_or_else(|found| {
        note(found);
        Vec::new()
    });
    let backends = backends.unwrap_or_else(|found| {
        note(found);
        Vec::new()
    });
    let timeouts = timeouts.unwrap_or_else(|message| {
        note(RuleProblem::unsupported(message));
        Timeouts::default()
    });
    let redirects = filters.iter().any(|filter| matches!(filter, Filter::RequestRedirect(_)));
    if redirects && !backends.is_empty() {
        note(RuleProblem::unsupported("filter RequestRedirect excludes backendRefs"));
    }
    let name = rule.name.as_deref().map(Into::into);
    rules.push(
        Rule { name, matches, filters, action: RuleAction::Forward(backends), timeouts, policies: Vec::new() },
        problem,
    );
}

/// The matches that can be read, and the first problem of those that cannot.
fn route_matches(matches: Option<&[HTTPRouteMatch]>) -> (Vec<RouteMatch>, Option<String>) {
    let default = [HTTPRouteMatch::default()];
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

fn route_match(found: &HTTPRouteMatch) -> Result<RouteMatch, String> {
    Ok(RouteMatch {
        path: values::path_match(found.path.as_ref())?,
        method: found.method.map(method),
        headers: values::header_matches(found.headers.as_deref())?,
        query: query_matches(found.query_params.as_deref())?,
    })
}

fn method(method: HTTPMethod) -> Method {
    match method {
        HTTPMethod::Get => Method::GET,
        HTTPMethod::Head => Method::HEAD,
        HTTPMethod::Post => Method::POST,
        HTTPMethod::Put => Method::PUT,
        HTTPMethod::Delete => Method::DELETE,
        HTTPMethod::Connect => Method::CONNECT,
        HTTPMethod::Options => Method::OPTIONS,
        HTTPMethod::Trace => Method::TRACE,
        HTTPMethod::Patch => Method::PATCH,
    }
}

/// Of several for one name only the first counts (`HTTPQueryParamMatch.name`).
fn query_matches(parameters: Option<&[HTTPQueryParamMatch]>) -> Result<Vec<QueryMatch>, String> {
    let mut matches: Vec<QueryMatch> = Vec::new();
    for parameter in parameters.unwrap_or_default() {
        if !matches.iter().any(|other| *other.name == *parameter.name) {
            let is_regex = parameter.r#type == Some(QueryParamMatchType::RegularExpression);
            let value = values::value_match(&parameter.value, is_regex)?;
            matches.push(QueryMatch { name: parameter.name.as_str().into(), value });
        }
    }
    Ok(matches)
}

fn timeouts(timeouts: &HTTPRouteTimeouts) -> Result<Timeouts, String> {
    let read = |field: &str, text: Option<&String>| match text {
        Some(text) => values::duration(text).map_err(|message| format!("timeouts.{field}: {message}")),
        None => Ok(None),
    };
    let request = read("request", timeouts.request.as_ref())?;
    let backend_request = read("backendRequest", timeouts.backend_request.as_ref())?;
    if let (Some(whole), Some(attempt)) = (request, backend_request)
        && attempt > whole
    {
        return Err("timeouts.backendRequest is longer than timeouts.request".to_owned());
    }
    Ok(Timeouts { request, backend_request })
}

fn backends(
    rules: &mut Rules,
    references: &[HTTPBackendRef],
    paths: &[PathMatch],
    route: &ObjectName,
    context: &Context<'_>,
) -> Result<Vec<WeightedBackend>, RuleProblem> {
    let rule = rules.total;
    let referrer = Referrer { kind: "HTTPRoute", namespace: &route.namespace };
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
        let filters = filters::http(entry.filters.as_deref(), Place::BackendRef, paths);
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
