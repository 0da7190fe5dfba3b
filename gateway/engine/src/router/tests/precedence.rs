use super::*;

/// A router with one listener for every host and these routes, the first the oldest.
fn router(routes: &[(&str, &[&str])]) -> Router<String> {
    let mut router = Router::new();
    router.upsert_listener(listener("http", ""));
    for (index, (name, rules)) in routes.iter().enumerate() {
        let rules = rules.iter().map(|rule| rule.split(" | ").map(wanted).collect()).collect();
        upsert(&mut router, &route(name, i64::try_from(index).unwrap(), "http", &[("", "")], rules));
    }
    router
}

#[test]
fn of_two_matches_the_more_specific_wins_whatever_the_order() {
    let fields = [("x-a", "1"), ("x-b", "2")];
    for (better, worse) in [
        ("exact /a/b", "regex /a/.*"),
        ("exact /a/b", "prefix /a/b"),
        ("exact /a/b POST", "exact /a/b"),
        ("regex /a/.*", "prefix /a/b"),
        ("regex /a/.{1}", "regex /a/.*"),
        ("prefix /a/b", "prefix /a POST h:x-a=1 q:p=1"),
        ("prefix /a", "prefix / POST"),
        ("prefix /a POST", "prefix /a h:x-a=1 h:x-b=2"),
        ("prefix /a h:x-a=1 h:x-b=2", "prefix /a h:x-a=1 q:p=1 q:r=2"),
        ("prefix /a h:x-a=1", "prefix /a q:p=1 q:r=2"),
        ("prefix /a q:p=1 q:r=2", "prefix /a q:p=1"),
        ("prefix /a q:p=1", "prefix /a"),
    ] {
        for routes in [[("x", &[better][..]), ("y", &[worse][..])], [("y", &[worse][..]), ("x", &[better][..])]] {
            let found = winner(&router(&routes), "POST h/a/b?p=1&r=2", &fields);
            assert_eq!(found.as_deref(), Some("x#0"), "{better} before {worse}");
        }
    }
}

#[test]
fn a_tie_goes_to_the_older_route_then_the_name_then_the_first_rule() {
    let rules = |texts: &[&str]| texts.iter().map(|text| vec![wanted(text)]).collect::<Vec<_>>();
    let mut router = Router::new();
    router.upsert_listener(listener("http", ""));
    for (name, created) in [("b/young", 9), ("a/old", 1), ("a-b/a", 1), ("z/oldest", 0)] {
        upsert(&mut router, &route(name, created, "http", &[("", "")], rules(&["prefix /a", "prefix /a"])));
    }
    // By bytes of `namespace/name`, `a-b/a` comes before `a/old`.
    for expected in ["oldest#0", "a#0", "old#0", "young#0"] {
        assert_eq!(winner(&router, "GET h/a", &[]).as_deref(), Some(expected));
        let key =
            router.routes.keys().find(|key| expected.starts_with(&format!("{}#", key.name.name))).unwrap().clone();
        router.remove_route(&key);
    }
    assert_eq!(winner(&router, "GET h/a", &[]), None);
}

#[test]
fn a_prefix_matches_whole_elements() {
    let router = router(&[("x", &["prefix /foo", "prefix /foo/bar/ | prefix /z"])]);
    for (path, expected) in [
        ("/foo", Some(("x#0", Some(4)))),
        ("/foo/", Some(("x#0", Some(4)))),
        ("/foo/baz", Some(("x#0", Some(4)))),
        ("/foobar", None),
        ("/foo/bar", Some(("x#1", Some(8)))),
        ("/foo/bar/x/y", Some(("x#1", Some(8)))),
        ("/foo/barx", Some(("x#0", Some(4)))),
        ("/z/", Some(("x#1", Some(2)))),
        ("/", None),
    ] {
        let found = find(&router, &request(&format!("GET h{path}"), &[]));
        assert_eq!(found.as_ref().map(|(rule, prefix)| (rule.as_str(), *prefix)), expected, "{path}");
    }
}

#[test]
fn a_match_is_held_against_the_canonical_path() {
    let router = router(&[("x", &["exact /%7euser", "prefix //a//b%2dc", "exact /a%c3%a4"])]);
    for (path, expected) in [("/~user", "x#0"), ("/a/b-c/d", "x#1"), ("/a%C3%A4", "x#2")] {
        assert_eq!(winner(&router, &format!("GET h{path}"), &[]).as_deref(), Some(expected), "{path}");
    }
}

#[test]
fn conditions_hold_for_joined_headers_and_decoded_parameters() {
    let router = router(&[(
        "x",
        &[
            "prefix / h:x-list=a,b",
            "prefix / h:cookie=~.*b=2.*",
            "prefix / q:a%26b=never",
            "prefix / q:name=two+words",
            "prefix / q:na~me=~a.b",
        ],
    )]);
    for (query, fields, expected) in [
        ("", &[("x-list", "a"), ("x-list", "b")][..], Some("x#0")),
        ("", &[("x-list", "a")], None),
        ("", &[("x-list", "a,b")], Some("x#0")),
        ("", &[("cookie", "a=1"), ("cookie", "b=2")], Some("x#1")),
        ("?name=two%2Bwords", &[], Some("x#3")),
        ("?name=two+words", &[], None),
        ("?name=first&name=two%2bwords", &[], None),
        ("?n%61%7Eme=a%20b", &[], Some("x#4")),
        ("?na~me=a+b", &[], Some("x#4")),
        ("?na~me=a%ffb", &[], None),
        ("?na~me=axb&other", &[], Some("x#4")),
        ("?na~me", &[], None),
    ] {
        assert_eq!(winner(&router, &format!("GET h/{query}"), fields).as_deref(), expected, "{query} {fields:?}");
    }
}

#[test]
fn a_value_that_is_no_text_matches_nothing() {
    let router = router(&[("x", &["prefix / h:x-a=~.*"])]);
    let mut request = request("GET h/", &[]);
    request.headers.append("x-a", HeaderValue::from_bytes(b"\xff").unwrap());
    assert_eq!(find(&router, &request), None);
    request.headers.insert("x-a", HeaderValue::from_static("ok"));
    request.headers.append("x-a", HeaderValue::from_bytes(b"\xff").unwrap());
    assert_eq!(find(&router, &request), None);
}

#[test]
fn grpc_ranks_by_service_then_method_then_headers() {
    let grpc = ("content-type", "application/grpc");
    for (better, worse) in [
        ("grpc a.Long/m", "grpc a.Long/-"),
        ("grpc a.Long/-", "grpc -/method"),
        ("grpc -/method", "grpc -/-"),
        ("grpc a.Long/-", "grpc -/- h:x-a=1"),
        ("grpc a.Long/m", "grpc a.Long/~m.* h:x-a=1"),
        ("grpc a.Long/~m.*", "grpc a.Long/- h:x-a=1"),
        ("grpc a.Long/- h:x-a=1", "grpc a.Long/-"),
        ("grpc -/~m.*", "grpc -/-"),
        ("grpc ~a.*/m", "grpc -/m"),
    ] {
        let method = if better.contains("method") { "method" } else { "m" };
        for routes in [[("x", &[better][..]), ("y", &[worse][..])], [("y", &[worse][..]), ("x", &[better][..])]] {
            let found = winner(&router(&routes), &format!("POST h/a.Long/{method}"), &[grpc, ("x-a", "1")]);
            assert_eq!(found.as_deref(), Some("x#0"), "{better} before {worse}");
        }
    }
}

#[test]
fn a_grpc_route_takes_grpc_alone() {
    let router = router(&[("x", &["grpc a.B/c", "grpc a.B/-", "grpc -/-"])]);
    let grpc = ("content-type", "application/grpc");
    for (path, fields, expected) in [
        ("/a.B/c", &[grpc][..], Some("x#0")),
        ("/a.B/d", &[grpc], Some("x#1")),
        ("/a.C/d", &[grpc], Some("x#2")),
        ("/a.B", &[grpc], None),
        ("/a.B/c", &[], None),
        ("/a.C/d", &[("content-type", "application/json")], None),
    ] {
        assert_eq!(winner(&router, &format!("POST h{path}"), fields).as_deref(), expected, "{path} {fields:?}");
    }
}

#[test]
fn a_more_specific_host_wins_and_falls_through_where_no_rule_matches() {
    let mut router = Router::new();
    router.upsert_listener(listener("http", ""));
    for (name, hostname, rule) in [
        ("any", "", "prefix / GET"),
        ("wide", "*.example.com", "prefix /wide | prefix /a"),
        ("narrow", "*.a.example.com", "prefix /narrow | prefix /a"),
        ("exact", "b.a.example.com", "prefix /exact | prefix /a"),
    ] {
        let rules = vec![rule.split(" | ").map(wanted).collect()];
        upsert(&mut router, &route(name, 0, "http", &[(hostname, hostname)], rules));
    }
    for (target, expected) in [
        ("b.a.example.com/a", Some("exact#0")),
        ("b.a.example.com/narrow", Some("narrow#0")),
        ("b.a.example.com/wide", Some("wide#0")),
        ("b.a.example.com/", Some("any#0")),
        ("c.a.example.com/a", Some("narrow#0")),
        ("c.b.a.example.com/a", Some("narrow#0")),
        ("a.example.com/a", Some("wide#0")),
        ("example.com/a", Some("any#0")),
        ("[::1]/a", Some("any#0")),
    ] {
        assert_eq!(winner(&router, &format!("GET {target}"), &[]).as_deref(), expected, "{target}");
    }
    assert_eq!(winner(&router, "POST example.com/a", &[]), None);
}

#[test]
fn among_routes_for_one_host_the_declared_hostname_ranks_before_path_and_age() {
    let mut router = Router::new();
    router.upsert_listener(listener("http", "a.example.com"));
    let served = "a.example.com";
    for (name, declared, created, rule) in [
        ("any", "", 0, "exact /a/b"),
        ("wide", "*.example.com", 1, "prefix /a/b"),
        ("exact", "a.example.com", 2, "prefix /a"),
    ] {
        upsert(&mut router, &route(name, created, "http", &[(served, declared)], vec![vec![wanted(rule)]]));
    }
    assert_eq!(winner(&router, "GET a.example.com/a/b", &[]).as_deref(), Some("exact#0"));
    router.remove_route(&RouteKey { kind: RouteKind::Http, name: ObjectName::new("shop", "exact") });
    assert_eq!(winner(&router, "GET a.example.com/a/b", &[]).as_deref(), Some("wide#0"));
    router.remove_route(&RouteKey { kind: RouteKind::Http, name: ObjectName::new("shop", "wide") });
    assert_eq!(winner(&router, "GET a.example.com/a/b", &[]).as_deref(), Some("any#0"));
}

#[test]
fn only_the_most_specific_listener_serves_a_host() {
    let mut router = Router::new();
    for (name, hostname) in [("any", ""), ("wide", "*.example.com"), ("exact", "a.example.com")] {
        router.upsert_listener(listener(name, hostname));
        let rule = vec![vec![wanted(&format!("prefix /{name}"))]];
        upsert(&mut router, &route(name, 0, name, &[(hostname, hostname)], rule));
    }
    for (target, expected) in [
        ("a.example.com/exact", Some("exact#0")),
        ("a.example.com/wide", None),
        ("a.example.com/any", None),
        ("b.example.com/wide", Some("wide#0")),
        ("b.example.com/any", None),
        ("example.com/any", Some("any#0")),
    ] {
        assert_eq!(winner(&router, &format!("GET {target}"), &[]).as_deref(), expected, "{target}");
    }
    router.remove_listener(&listener_key("exact"));
    assert_eq!(winner(&router, "GET a.example.com/wide", &[]).as_deref(), Some("wide#0"));
}

/// The table of the conformance test `HTTPRouteHTTPSListenerDetectMisdirectedRequests`.
#[test]
fn a_request_for_another_listener_than_the_handshakes_is_misdirected() {
    let mut router = Router::<String>::new();
    for (name, hostname) in [
        ("any", ""),
        ("second", "second-example.org"),
        ("wildcard", "*.wildcard.org"),
        ("fourth", "fourth-example.wildcard.org"),
    ] {
        router.upsert_listener(listener(name, hostname));
    }
    let port = router.port(bind()).unwrap();
    for (server_name, host, expected) in [
        ("example.org", "example.org", Some("any")),
        ("example.org", "second-example.org", None),
        ("example.org", "unknown-example.org", Some("any")),
        ("second-example.org", "second-example.org", Some("second")),
        ("second-example.org", "example.org", None),
        ("third-example.wildcard.org", "fith-example.wildcard.org", Some("wildcard")),
        ("third-example.wildcard.org", "fourth-example.wildcard.org", None),
        ("third-example.wildcard.org", "second-example.org", None),
        ("fourth-example.wildcard.org", "fourth-example.wildcard.org", Some("fourth")),
        ("fourth-example.wildcard.org", "fith-example.wildcard.org", None),
        ("unknown-example.org", "example.org", Some("any")),
    ] {
        let handshake = port.listener(Some(server_name)).unwrap().key().clone();
        let served = match port.serving(Some(&handshake), host) {
            Served::Listener(table) => Some(table.key().name.to_string()),
            Served::Misdirected => None,
            Served::Nobody => panic!("{host} is served"),
        };
        assert_eq!(served.as_deref(), expected, "{server_name} then {host}");
    }
    router.remove_listener(&listener_key("any"));
    let port = router.port(bind()).unwrap();
    assert!(port.listener(None).is_none() && port.listener(Some("example.org")).is_none());
    assert!(matches!(port.serving(Some(&listener_key("second")), "example.org"), Served::Nobody));
}

#[test]
fn a_configuration_in_use_does_not_change() {
    let mut router = router(&[("x", &["prefix /a"]), ("y", &["prefix /b"])]);
    let before = router.clone();
    let x = router.routes.keys().find(|key| &*key.name.name == "x").unwrap().clone();
    router.remove_route(&x);
    upsert(&mut router, &route("y", 1, "http", &[("", "")], vec![vec![wanted("prefix /c")]]));
    router.remove_listener(&listener_key("http"));
    router.upsert_listener(listener("http", "*.example.com"));
    assert_eq!(winner(&before, "GET h/a", &[]).as_deref(), Some("x#0"));
    assert_eq!(winner(&before, "GET h/b", &[]).as_deref(), Some("y#0"));
    assert_eq!(winner(&router, "GET h/a", &[]), None);
    assert_eq!(winner(&router, "GET x.example.com/c", &[]).as_deref(), Some("y#0"));
}

#[test]
fn a_route_may_come_before_its_listener_and_nothing_is_left_behind() {
    let mut router = Router::new();
    let route = route("x", 0, "http", &[("a.example.com", "a.example.com")], vec![vec![wanted("prefix /a")]]);
    upsert(&mut router, &route);
    assert!(router.port(bind()).is_none());
    router.upsert_listener(listener("http", ""));
    assert_eq!(winner(&router, "GET a.example.com/a", &[]).as_deref(), Some("x#0"));
    router.remove_listener(&listener_key("http"));
    assert_eq!(router.binds().count(), 0);
    router.remove_route(&route.key);
    assert!(router.tables.is_empty() && router.ports.is_empty() && router.routes.is_empty());
}
