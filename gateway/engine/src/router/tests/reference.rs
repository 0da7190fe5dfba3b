//! The index against a walk over every match, over random routes, edits and requests.

use std::{cmp::Reverse, collections::BTreeMap};

use proptest::{prelude::*, sample::select};

use super::*;

const HOSTS: [&str; 5] = ["", "*.example.com", "*.a.example.com", "a.example.com", "b.a.example.com"];

fn specificity(pattern: &HostPattern) -> (u8, Reverse<usize>) {
    match pattern {
        HostPattern::Exact(host) => (0, Reverse(host.len())),
        HostPattern::Wildcard(suffix) => (1, Reverse(suffix.len())),
        HostPattern::Any => (2, Reverse(0)),
    }
}

fn holds(wanted: &RouteMatch, request: &Request) -> bool {
    let path = match &wanted.path {
        PathMatch::Exact(path) => **path == *request.path,
        PathMatch::Prefix(prefix) => {
            let elements = |path: &str| path.split('/').map(str::to_owned).collect::<Vec<_>>();
            let (prefix, path) = (elements(prefix.trim_end_matches('/')), elements(&request.path));
            path.starts_with(&prefix)
        }
        PathMatch::Regex(regex) => regex.is_match(&request.path),
        PathMatch::Grpc { .. } => unreachable!("only HTTPRoutes here"),
    };
    let parameter = |name: &str| request.query.split('&').find_map(|pair| pair.strip_prefix(&format!("{name}=")));
    path && wanted.method.as_ref().is_none_or(|method| *method == request.method)
        && wanted.headers.iter().all(|header| {
            request.headers.get(&header.name).is_some_and(|value| header.value.matches(value.to_str().unwrap()))
        })
        && wanted.query.iter().all(|query| parameter(&query.name).is_some_and(|value| query.value.matches(value)))
}

/// Sorts every match that holds by the whole precedence and takes the first.
fn walk(routes: &BTreeMap<RouteKey, Arc<Route>>, request: &Request) -> Option<String> {
    let mut found = Vec::new();
    for route in routes.values() {
        for host in &route.attachments[0].hosts {
            for (rule, matches) in route.rules.iter().map(|rule| &rule.matches).enumerate() {
                for (index, wanted) in matches.iter().enumerate() {
                    if !host.served.matches(&request.host) || !holds(wanted, request) {
                        continue;
                    }
                    let path = match &wanted.path {
                        PathMatch::Exact(_) => (0, Reverse(0)),
                        PathMatch::Regex(regex) => (1, Reverse(regex.as_str().len())),
                        PathMatch::Prefix(prefix) => (2, Reverse(prefix.trim_end_matches('/').len())),
                        PathMatch::Grpc { .. } => unreachable!("only HTTPRoutes here"),
                    };
                    let conditions =
                        (wanted.method.is_none(), Reverse(wanted.headers.len()), Reverse(wanted.query.len()));
                    let hosts = (specificity(&host.served), specificity(&host.declared));
                    let name = route.key.name.to_string();
                    let text = format!("{}#{rule}", route.key.name.name);
                    found.push(((hosts, path, conditions, route.created, name, rule, index), text));
                }
            }
        }
    }
    found.sort();
    found.into_iter().next().map(|(_, text)| text)
}

fn any_match() -> impl Strategy<Value = RouteMatch> {
    let path = select(vec![
        "exact /",
        "exact /a",
        "exact /a/b",
        "exact /a/",
        "prefix /",
        "prefix /a",
        "prefix /a/b",
        "prefix /b",
        "regex /a.*",
        "regex /.*",
        "regex /a/[ab]",
    ]);
    let method = select(vec!["", " GET", " POST"]);
    let headers = select(vec!["", " h:x-a=1", " h:x-b=2", " h:x-a=1 h:x-b=~[0-9]"]);
    let query = select(vec!["", " q:p=1", " q:p=~.* q:r=2"]);
    (path, method, headers, query)
        .prop_map(|(path, method, headers, query)| wanted(&format!("{path}{method}{headers}{query}")))
}

fn any_route() -> impl Strategy<Value = Arc<Route>> {
    let name = select(vec!["a/one", "a-b/two", "a/three", "b/four", "b/five", "c/six"]);
    let hosts = prop::sample::subsequence(HOSTS.to_vec(), 1..=2);
    let matches = prop::collection::vec(prop::collection::vec(any_match(), 1..3), 1..4);
    (name, 0..3i64, hosts, matches, any::<bool>()).prop_map(|(name, created, hosts, rules, wide)| {
        // What a route declares serves the same host or a wider one.
        let hosts: Vec<(&str, &str)> = hosts.into_iter().map(|host| (host, if wide { "" } else { host })).collect();
        route(name, created, "http", &hosts, rules)
    })
}

fn any_request() -> impl Strategy<Value = Request> {
    let host = select(vec!["example.com", "x.example.com", "a.example.com", "b.a.example.com", "c.b.a.example.com"]);
    let path = select(vec!["/", "/a", "/a/", "/a/b", "/a/b/c", "/ab", "/b", "/b/a"]);
    let method = select(vec!["GET", "POST", "PUT"]);
    let query = select(vec!["", "?p=1", "?p=1&r=2", "?r=2&p=3"]);
    let fields = select(vec![&[][..], &[("x-a", "1")], &[("x-b", "2")], &[("x-a", "1"), ("x-b", "2")]]);
    (method, host, path, query, fields)
        .prop_map(|(method, host, path, query, fields)| request(&format!("{method} {host}{path}{query}"), fields))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn the_index_finds_what_a_walk_over_all_matches_finds(
        edits in prop::collection::vec((any_route(), prop::bool::weighted(0.3)), 1..12),
        requests in prop::collection::vec(any_request(), 24),
    ) {
        let (mut router, mut routes) = (Router::new(), BTreeMap::new());
        router.upsert_listener(listener("http", ""));
        for (route, removes) in edits {
            if removes {
                router.remove_route(&route.key);
                routes.remove(&route.key);
            } else {
                upsert(&mut router, &route);
                routes.insert(route.key.clone(), route);
            }
        }
        for request in &requests {
            let found = find(&router, request).map(|(rule, _)| rule);
            prop_assert_eq!(found, walk(&routes, request), "{} {}{}?{}", request.method, request.host, request.path, request.query);
        }
    }
}
