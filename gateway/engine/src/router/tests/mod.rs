//! The precedence of the Gateway API as tables, and the index against a walk over everything.

mod precedence;
mod reference;

use std::sync::Arc;

use control_plane_model::{
    AttachedHost, Attachment, GatewayKey, HeaderMatch, HostPattern, Listener, ListenerKey, ListenerProtocol,
    ObjectName, PathMatch, QueryMatch, Regex, Route, RouteKey, RouteKind, RouteMatch, Rule, RuleAction, Timeouts,
    ValueMatch,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::*;

fn host(text: &str) -> HostPattern {
    HostPattern::parse(text).unwrap()
}

fn listener_key(name: &str) -> ListenerKey {
    ListenerKey { gateway: GatewayKey(ObjectName::new("infra", "edge")), listener_set: None, name: name.into() }
}

fn listener(name: &str, hostname: &str) -> Arc<Listener> {
    Arc::new(Listener {
        key: listener_key(name),
        addresses: Vec::new(),
        port: 80.try_into().unwrap(),
        protocol: ListenerProtocol::Http,
        hostname: host(hostname),
        policies: Vec::new(),
    })
}

/// `GET /a`, `prefix /a`, `regex /a.*`, `grpc service/method` with `-` for any, then `h:name=value` and `q:name=value`;
/// a value that begins with `~` is a regular expression.
fn wanted(text: &str) -> RouteMatch {
    let value = |text: &str| match text.strip_prefix('~') {
        Some(pattern) => ValueMatch::Regex(Regex::new(pattern).unwrap()),
        None => ValueMatch::Exact(text.into()),
    };
    let mut matched =
        RouteMatch { path: PathMatch::Prefix("/".into()), method: None, headers: Vec::new(), query: Vec::new() };
    let mut words = text.split(' ').peekable();
    while let Some(word) = words.next() {
        match word {
            "exact" => matched.path = PathMatch::Exact(words.next().unwrap().into()),
            "prefix" => matched.path = PathMatch::Prefix(words.next().unwrap().into()),
            "regex" => matched.path = PathMatch::Regex(Regex::new(words.next().unwrap()).unwrap()),
            "grpc" => {
                let (service, method) = words.next().unwrap().split_once('/').unwrap();
                let name = |text: &str| (text != "-").then(|| value(text));
                matched.path = PathMatch::Grpc { service: name(service), method: name(method) };
            }
            condition if condition.starts_with("h:") => {
                let (name, text) = condition[2..].split_once('=').unwrap();
                matched.headers.push(HeaderMatch { name: HeaderName::try_from(name).unwrap(), value: value(text) });
            }
            condition if condition.starts_with("q:") => {
                let (name, text) = condition[2..].split_once('=').unwrap();
                matched.query.push(QueryMatch { name: name.into(), value: value(text) });
            }
            method => matched.method = Some(method.parse().unwrap()),
        }
    }
    matched
}

/// A route attached to `listener` for `hosts` (served, declared); each of `rules` is a list of matches.
fn route(name: &str, created: i64, listener: &str, hosts: &[(&str, &str)], rules: Vec<Vec<RouteMatch>>) -> Arc<Route> {
    let grpc = rules.iter().flatten().any(|wanted| matches!(wanted.path, PathMatch::Grpc { .. }));
    let (namespace, name) = name.split_once('/').unwrap_or(("shop", name));
    Arc::new(Route {
        key: RouteKey {
            kind: if grpc { RouteKind::Grpc } else { RouteKind::Http },
            name: ObjectName::new(namespace, name),
        },
        created,
        attachments: vec![Attachment {
            listener: listener_key(listener),
            hosts: hosts
                .iter()
                .map(|(served, declared)| AttachedHost { served: host(served), declared: host(declared) })
                .collect(),
        }],
        rules: rules
            .into_iter()
            .map(|matches| Rule {
                name: None,
                matches,
                filters: Vec::new(),
                action: RuleAction::Forward(Vec::new()),
                timeouts: Timeouts::default(),
                policies: Vec::new(),
            })
            .collect(),
        policies: Vec::new(),
    })
}

/// Attaches a route; a compiled rule is its name, `route#rule`.
fn upsert(router: &mut Router<String>, route: &Arc<Route>) {
    let name = route.key.name.clone();
    router.upsert_route(route.clone(), |rule| Arc::new(format!("{}#{rule}", name.name)));
}

/// `GET host/path?query` with `name: value` fields.
#[derive(Debug)]
struct Request {
    method: Method,
    host: String,
    path: String,
    query: String,
    headers: HeaderMap,
}

fn request(text: &str, fields: &[(&'static str, &'static str)]) -> Request {
    let (method, target) = text.split_once(' ').unwrap();
    let (host, path) = target.split_at(target.find('/').unwrap());
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(*name, HeaderValue::from_static(value));
    }
    Request {
        method: method.parse().unwrap(),
        host: host.to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        headers,
    }
}

impl Request {
    fn view(&self) -> RequestView<'_> {
        RequestView {
            host: &self.host,
            path: &self.path,
            query: &self.query,
            method: &self.method,
            headers: &self.headers,
            is_grpc: self.headers.get("content-type").is_some_and(|value| value == "application/grpc"),
        }
    }
}

fn bind() -> Bind {
    Bind { address: None, port: 80.try_into().unwrap() }
}

/// The rule that takes the request on port 80 without TLS, and the prefix's length.
fn find(router: &Router<String>, request: &Request) -> Option<(String, Option<usize>)> {
    match router.port(bind())?.serving(None, &request.host) {
        Served::Listener(table) => table.find(&request.view()).map(|found| (found.rule.to_string(), found.prefix)),
        Served::Misdirected | Served::Nobody => None,
    }
}

fn winner(router: &Router<String>, text: &str, fields: &[(&'static str, &'static str)]) -> Option<String> {
    find(router, &request(text, fields)).map(|(rule, _)| rule)
}
