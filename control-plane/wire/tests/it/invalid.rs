//! What breaks an invariant of the model is refused with the path of the field.

use control_plane_wire::{proto::*, resource};
use prost::Message;

/// Asserts that `body` is refused as an object named `key`, with exactly this error.
#[track_caller]
pub fn refused(key: &str, body: &impl Message, error: &str) {
    let refused = resource::decode(&key.parse().unwrap(), &body.encode_to_vec().into()).unwrap_err();
    assert_eq!(refused.to_string(), error);
}

const ROUTE: &str = "route/http/shop/cart";
const LISTENER: &str = "listener/infra/edge/http";
const CERTIFICATE: &str = "certificate/infra/tls";

fn valid_match() -> RouteMatch {
    let path = Some(path_match::Path::Prefix("/".into()));
    RouteMatch { path: Some(PathMatch { path }), ..RouteMatch::default() }
}

fn valid_rule() -> Rule {
    Rule { matches: vec![valid_match()], action: Some(rule::Action::Forward(Forward::default())), ..Rule::default() }
}

fn with_rule(rule: Rule) -> Route {
    Route { rules: vec![valid_rule(), rule], ..Route::default() }
}

fn with_match(matching: RouteMatch) -> Route {
    with_rule(Rule { matches: vec![matching], ..valid_rule() })
}

fn with_path(path: path_match::Path) -> Route {
    with_match(RouteMatch { path: Some(PathMatch { path: Some(path) }), ..RouteMatch::default() })
}

fn with_filter(filter: filter::Filter) -> Route {
    with_rule(Rule { filters: vec![Filter { filter: Some(filter) }], ..valid_rule() })
}

fn with_backend(backend: WeightedBackend) -> Route {
    let forward = Forward { backends: vec![backend] };
    with_rule(Rule { action: Some(rule::Action::Forward(forward)), ..valid_rule() })
}

fn exact(text: &str) -> ValueMatch {
    ValueMatch { value: Some(value_match::Value::Exact(text.into())) }
}

pub const UNKNOWN: &str = "is missing, or not known to this version";

#[test]
fn the_valid_parts_of_these_tests_are_valid() {
    let route = with_backend(WeightedBackend {
        target: Some(weighted_backend::Target::Backend("backend/shop/cart/80".into())),
        ..WeightedBackend::default()
    });
    resource::decode(&ROUTE.parse().unwrap(), &route.encode_to_vec().into()).unwrap();
}

#[test]
fn gateways() {
    let key = "gateway/infra/edge";
    refused(key, &Gateway::default(), &format!("access_log: {UNKNOWN}"));
    refused(key, &Gateway { access_log: 9, ..Gateway::default() }, &format!("access_log: {UNKNOWN}"));
    let tracing = |endpoint: &str, sampling| Gateway {
        access_log: AccessLog::Json.into(),
        tracing: Some(Tracing { endpoint: endpoint.into(), sampling }),
        ..Gateway::default()
    };
    refused(key, &tracing("http://otel:4317", 1.5), "tracing.sampling: sampling ratio 1.5 is not between 0 and 1");
    refused(key, &tracing("http://otel:4317", f64::NAN), "tracing.sampling: sampling ratio NaN is not between 0 and 1");
    refused(key, &tracing("otel:4317", 0.5), "tracing.endpoint: is not an absolute URL");
    refused(key, &tracing("http://o tel", 0.5), "tracing.endpoint: invalid uri character");
}

#[test]
fn certificates() {
    let key = Some(certificate::PrivateKey::Pkcs8(b"key"[..].into()));
    let chain = vec![b"leaf"[..].into()];
    refused(CERTIFICATE, &Certificate { chain: Vec::new(), private_key: key.clone() }, "chain: is empty");
    let hole = vec![b"leaf"[..].into(), b""[..].into()];
    refused(CERTIFICATE, &Certificate { chain: hole, private_key: key }, "chain[1]: is empty");
    let keyless = Certificate { chain: chain.clone(), private_key: None };
    refused(CERTIFICATE, &keyless, &format!("private_key: {UNKNOWN}"));
    for (private_key, name) in [
        (certificate::PrivateKey::Pkcs8(b""[..].into()), "pkcs8"),
        (certificate::PrivateKey::Pkcs1(b""[..].into()), "pkcs1"),
        (certificate::PrivateKey::Sec1(b""[..].into()), "sec1"),
    ] {
        let empty = Certificate { chain: chain.clone(), private_key: Some(private_key) };
        refused(CERTIFICATE, &empty, &format!("{name}: is empty"));
    }
}

#[test]
fn listeners() {
    let valid = || Listener { port: 80, protocol: Some(listener::Protocol::Http(PlainHttp {})), ..Listener::default() };
    refused(LISTENER, &Listener { port: 0, ..valid() }, "port: 0 is not between 1 and 65535");
    refused(LISTENER, &Listener { port: 65536, ..valid() }, "port: 65536 is not between 1 and 65535");
    refused(LISTENER, &Listener { protocol: None, ..valid() }, &format!("protocol: {UNKNOWN}"));
    let addresses = vec!["127.0.0.1".into(), "localhost".into()];
    refused(LISTENER, &Listener { addresses, ..valid() }, "addresses[1]: invalid IP address syntax");
    refused(
        LISTENER,
        &Listener { hostname: "a_b".into(), ..valid() },
        "hostname: \"a_b\" is not a host name: want labels of a-z, 0-9 and '-', at most 253 characters, '*.' only in front",
    );
    let https = |certificates| Listener {
        protocol: Some(listener::Protocol::Https(TlsTermination { certificates })),
        ..valid()
    };
    refused(LISTENER, &https(Vec::new()), "https.certificates: is empty");
    refused(
        LISTENER,
        &https(vec!["route/http/a/b".into()]),
        "https.certificates[0]: \"route/http/a/b\" is not the key of a certificate",
    );
}

#[test]
fn backends_and_endpoints() {
    let key = "backend/shop/cart/80";
    refused(key, &Backend::default(), &format!("protocol: {UNKNOWN}"));
    refused(key, &Backend { protocol: 77, ..Backend::default() }, &format!("protocol: {UNKNOWN}"));
    let key = "endpoints/shop/cart/80";
    let endpoints = |addresses: &[&str]| Endpoints {
        endpoints: addresses.iter().map(|address| Endpoint { address: (*address).into() }).collect(),
    };
    refused(key, &endpoints(&["10.0.0.1:80", "10.0.0.2"]), "endpoints[1].address: invalid socket address syntax");
    refused(key, &endpoints(&["10.0.0.2:80", "10.0.0.1:80"]), "endpoints[1]: is not sorted, or is repeated");
    refused(key, &endpoints(&["10.0.0.1:80", "10.0.0.1:80"]), "endpoints[1]: is not sorted, or is repeated");
}

#[test]
fn attachments() {
    let attachment = |listener: &str, served: &[&str]| Route {
        attachments: vec![Attachment {
            listener: listener.into(),
            hosts: served
                .iter()
                .map(|served| AttachedHost { served: (*served).into(), declared: String::new() })
                .collect(),
        }],
        ..Route::default()
    };
    refused(ROUTE, &attachment(LISTENER, &[]), "attachments[0].hosts: is empty");
    refused(ROUTE, &attachment(LISTENER, &["a", "b", "a"]), "attachments[0].hosts[2]: repeats an earlier element");
    refused(ROUTE, &attachment("http", &["a"]), "attachments[0].listener: \"http\" is not the key of a listener");
    let route = Route {
        attachments: vec![Attachment {
            listener: LISTENER.into(),
            hosts: vec![AttachedHost { served: String::new(), declared: "*".into() }],
        }],
        ..Route::default()
    };
    refused(
        ROUTE,
        &route,
        "attachments[0].hosts[0].declared: \"*\" is not a host name: want labels of a-z, 0-9 and '-', \
         at most 253 characters, '*.' only in front",
    );
}

#[test]
fn rules() {
    refused(ROUTE, &with_rule(Rule { matches: Vec::new(), ..valid_rule() }), "rules[1].matches: is empty");
    refused(ROUTE, &with_rule(Rule { action: None, ..valid_rule() }), &format!("rules[1].action: {UNKNOWN}"));
    for reason in [0, 99] {
        let action = Some(rule::Action::Fail(reason));
        refused(ROUTE, &with_rule(Rule { action, ..valid_rule() }), &format!("rules[1].fail: {UNKNOWN}"));
    }
    let long = Some(Duration { seconds: 1, nanoseconds: 1_000_000_000 });
    for (timeouts, name) in [
        (Timeouts { request: long, backend_request: None }, "request"),
        (Timeouts { request: None, backend_request: long }, "backend_request"),
    ] {
        refused(
            ROUTE,
            &with_rule(Rule { timeouts: Some(timeouts), ..valid_rule() }),
            &format!("rules[1].timeouts.{name}.nanoseconds: 1000000000 is a second or more"),
        );
    }
}

#[test]
fn weighted_backends() {
    let at = "rules[1].forward.backends[0]";
    let target = Some(weighted_backend::Target::Backend("backend/shop/cart/80".into()));
    refused(
        ROUTE,
        &with_backend(WeightedBackend { weight: 1_000_001, target, filters: Vec::new() }),
        &format!("{at}.weight: 1000001 is above 1000000"),
    );
    refused(ROUTE, &with_backend(WeightedBackend::default()), &format!("{at}.target: {UNKNOWN}"));
    let target = Some(weighted_backend::Target::Backend("endpoints/shop/cart/80".into()));
    refused(
        ROUTE,
        &with_backend(WeightedBackend { weight: 1, target, filters: Vec::new() }),
        &format!("{at}.backend: \"endpoints/shop/cart/80\" is not the key of a backend"),
    );
    let target = Some(weighted_backend::Target::Invalid(0));
    refused(
        ROUTE,
        &with_backend(WeightedBackend { weight: 1, target, filters: Vec::new() }),
        &format!("{at}.invalid: {UNKNOWN}"),
    );
    let target = Some(weighted_backend::Target::Invalid(1));
    refused(
        ROUTE,
        &with_backend(WeightedBackend { weight: 1, target, filters: vec![Filter { filter: None }] }),
        &format!("{at}.filters[0]: {UNKNOWN}"),
    );
}

#[test]
fn paths() {
    let at = "rules[1].matches[0].path";
    refused(ROUTE, &with_match(RouteMatch::default()), &format!("{at}: {UNKNOWN}"));
    let empty = RouteMatch { path: Some(PathMatch { path: None }), ..RouteMatch::default() };
    refused(ROUTE, &with_match(empty), &format!("{at}: {UNKNOWN}"));
    let exact_path = path_match::Path::Exact("cart".into());
    refused(ROUTE, &with_path(exact_path), &format!("{at}.exact: \"cart\" does not begin with '/'"));
    let prefix = path_match::Path::Prefix(String::new());
    refused(ROUTE, &with_path(prefix), &format!("{at}.prefix: \"\" does not begin with '/'"));
    let prefix = path_match::Path::Prefix("/cart/".into());
    refused(ROUTE, &with_path(prefix), &format!("{at}.prefix: \"/cart/\" ends with '/'"));
    let regex = resource::decode(
        &ROUTE.parse().unwrap(),
        &with_path(path_match::Path::Regex("(".into())).encode_to_vec().into(),
    );
    assert_eq!(regex.unwrap_err().field, format!("{at}.regex"));
    let nothing = Some(ValueMatch { value: None });
    for (grpc, name) in [
        (GrpcMethod { service: nothing.clone(), method: Some(exact("Get")) }, "service"),
        (GrpcMethod { service: None, method: nothing.clone() }, "method"),
    ] {
        refused(ROUTE, &with_path(path_match::Path::Grpc(grpc)), &format!("{at}.grpc.{name}: {UNKNOWN}"));
    }
}

#[test]
fn matches() {
    let at = "rules[1].matches[0]";
    let method = RouteMatch { method: Some("GET IT".into()), ..valid_match() };
    refused(ROUTE, &with_match(method), &format!("{at}.method: invalid HTTP method"));
    let headers = |names: &[&str]| RouteMatch {
        headers: names.iter().map(|name| HeaderMatch { name: (*name).into(), value: Some(exact("")) }).collect(),
        ..valid_match()
    };
    let bad_name = format!("{at}.headers[0].name: \"a b\": invalid HTTP header name");
    refused(ROUTE, &with_match(headers(&["a b"])), &bad_name);
    // Names are compared without regard to case (RFC 9110 §5.1).
    let repeated = format!("{at}.headers[1]: repeats an earlier element");
    refused(ROUTE, &with_match(headers(&["x-a", "X-A"])), &repeated);
    let no_value = RouteMatch { headers: vec![HeaderMatch { name: "a".into(), value: None }], ..valid_match() };
    refused(ROUTE, &with_match(no_value), &format!("{at}.headers[0].value: {UNKNOWN}"));
    let query = |names: &[&str]| RouteMatch {
        query: names.iter().map(|name| QueryMatch { name: (*name).into(), value: Some(exact("")) }).collect(),
        ..valid_match()
    };
    refused(ROUTE, &with_match(query(&[""])), &format!("{at}.query[0].name: is empty"));
    refused(ROUTE, &with_match(query(&["a", "a"])), &format!("{at}.query[1]: repeats an earlier element"));
    let no_value = RouteMatch { query: vec![QueryMatch { name: "a".into(), value: None }], ..valid_match() };
    refused(ROUTE, &with_match(no_value), &format!("{at}.query[0].value: {UNKNOWN}"));
}

#[test]
fn header_modifiers() {
    let header = |name: &str, value: &str| Header { name: name.into(), value: value.to_owned().into() };
    let modifiers = [
        (
            HeaderModifier { set: vec![header("a b", "")], ..HeaderModifier::default() },
            "set[0].name: \"a b\": invalid HTTP header name",
        ),
        (
            HeaderModifier { add: vec![header("a", "\r\n")], ..HeaderModifier::default() },
            "add[0].value: failed to parse header value",
        ),
        (
            HeaderModifier { remove: vec![String::new()], ..HeaderModifier::default() },
            "remove[0]: \"\": invalid HTTP header name",
        ),
    ];
    for (modifier, error) in modifiers {
        refused(
            ROUTE,
            &with_filter(filter::Filter::RequestHeaderModifier(modifier.clone())),
            &format!("rules[1].filters[0].request_header_modifier.{error}"),
        );
        refused(
            ROUTE,
            &with_filter(filter::Filter::ResponseHeaderModifier(modifier)),
            &format!("rules[1].filters[0].response_header_modifier.{error}"),
        );
    }
}

#[test]
fn redirects_and_rewrites() {
    let valid = || RequestRedirect { status: 302, ..RequestRedirect::default() };
    let host = "is not one host in lower case";
    for (redirect, error) in [
        (RequestRedirect { status: 200, ..valid() }, "status: 200 is not 301, 302, 303, 307 or 308".to_owned()),
        (RequestRedirect { scheme: 9, ..valid() }, format!("scheme: {UNKNOWN}")),
        (RequestRedirect { port: Some(0), ..valid() }, "port: 0 is not between 1 and 65535".to_owned()),
        (RequestRedirect { hostname: Some("*.a".into()), ..valid() }, format!("hostname: \"*.a\" {host}")),
        (RequestRedirect { path: Some(PathRewrite { path: None }), ..valid() }, format!("path: {UNKNOWN}")),
    ] {
        refused(
            ROUTE,
            &with_filter(filter::Filter::RequestRedirect(redirect)),
            &format!("rules[1].filters[0].request_redirect.{error}"),
        );
    }
    for (rewrite, error) in [
        (UrlRewrite { hostname: Some("A.example".into()), path: None }, format!("hostname: \"A.example\" {host}")),
        (UrlRewrite { hostname: None, path: Some(PathRewrite { path: None }) }, format!("path: {UNKNOWN}")),
    ] {
        refused(
            ROUTE,
            &with_filter(filter::Filter::UrlRewrite(rewrite)),
            &format!("rules[1].filters[0].url_rewrite.{error}"),
        );
    }
}

#[test]
fn a_body_of_another_kind_is_refused() {
    let error = resource::decode(&ROUTE.parse().unwrap(), &b"\xff\xff\xff"[..].into()).unwrap_err();
    assert_eq!((error.field.as_str(), error.reason.as_str()), ("", "is not a message of its kind"));
}
