//! Filters against the words and tables of the Gateway API, and the cases of its conformance suite.

use std::{sync::Arc, time::Duration};

use control_plane_model::{
    Filter, HeaderModifier, PathRewrite, RedirectScheme, RequestRedirect as RedirectSpec, UrlRewrite as RewriteSpec,
};
use gateway_engine::{
    filter::{AttemptHead, Chain, InvalidFilter, Received, RequestContext, ResponseHead, Verdict},
    notes::Notes,
    strict::Scheme,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header, request};

use super::Filters;

fn received(scheme: Scheme, port: u16, uri: &str, prefix: Option<usize>) -> Received {
    Received {
        method: Method::GET,
        scheme,
        host: "client.example".into(),
        uri: uri.parse().unwrap(),
        listener_port: port,
        peer: "192.0.2.1:4711".parse().unwrap(),
        matched_prefix: prefix,
    }
}

fn attempt(filters: &[Filter], received: &Received, fields: &[(&'static str, &'static str)]) -> request::Parts {
    let mut request = Request::builder().uri(received.uri.clone()).header(header::HOST, &*received.host);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let mut parts = request.body(()).unwrap().into_parts().0;
    Chain::<Filters>::compile(filters).unwrap().on_attempt(&mut AttemptHead::new(received, &mut parts));
    parts
}

/// The redirect's status and location.
async fn redirect(spec: RedirectSpec, received: &Received) -> (u16, String) {
    let chain = Chain::<Filters>::compile(&[Filter::RequestRedirect(spec)]).unwrap();
    let (label, mut headers, mut notes) = (Arc::from("x"), HeaderMap::new(), Notes::default());
    let place = (&label, &label);
    let mut context = RequestContext::new(received, &mut headers, place, Duration::ZERO, &mut notes);
    match chain.on_request(&mut context).await {
        Verdict::Respond(response) => {
            let location = response.headers()[header::LOCATION].to_str().unwrap().to_owned();
            assert!(response.body().is_empty());
            (response.status().as_u16(), location)
        }
        other => panic!("{other:?}"),
    }
}

fn to(scheme: Option<RedirectScheme>, hostname: Option<&str>, port: Option<u16>) -> RedirectSpec {
    RedirectSpec {
        scheme,
        hostname: hostname.map(Into::into),
        path: None,
        port: port.map(|port| port.try_into().unwrap()),
        status: StatusCode::FOUND,
    }
}

/// The tables of `HTTPRouteRedirectPortAndScheme`, `HTTPRouteRedirectPort` and `HTTPRouteRedirectScheme`.
#[tokio::test]
async fn a_redirects_port_follows_from_scheme_port_and_listener() {
    use RedirectScheme as To;
    use Scheme as From;
    for (from, listener, scheme, port, location) in [
        (From::Http, 80, None, None, "http://example.org/a"),
        (From::Http, 80, None, Some(80), "http://example.org/a"),
        (From::Http, 80, None, Some(8080), "http://example.org:8080/a"),
        (From::Http, 80, Some(To::Https), None, "https://example.org/a"),
        (From::Http, 80, Some(To::Https), Some(443), "https://example.org/a"),
        (From::Http, 80, Some(To::Https), Some(8443), "https://example.org:8443/a"),
        (From::Http, 8080, None, None, "http://example.org:8080/a"),
        (From::Http, 8080, None, Some(80), "http://example.org/a"),
        (From::Http, 8080, Some(To::Https), None, "https://example.org/a"),
        (From::Http, 8080, Some(To::Http), None, "http://example.org/a"),
        (From::Https, 443, None, None, "https://example.org/a"),
        (From::Https, 443, None, Some(443), "https://example.org/a"),
        (From::Https, 443, None, Some(8443), "https://example.org:8443/a"),
        (From::Https, 443, Some(To::Http), None, "http://example.org/a"),
        (From::Https, 443, Some(To::Http), Some(80), "http://example.org/a"),
        (From::Https, 443, Some(To::Http), Some(8080), "http://example.org:8080/a"),
        (From::Https, 443, Some(To::Http), Some(443), "http://example.org:443/a"),
    ] {
        let received = received(from, listener, "/a", None);
        let answer = redirect(to(scheme, Some("example.org"), port), &received).await;
        assert_eq!(answer, (302, location.to_owned()), "{from:?} {listener} {scheme:?} {port:?}");
    }
}

#[tokio::test]
async fn a_redirect_keeps_what_it_does_not_name() {
    let received = received(Scheme::Http, 8080, "/a/b?c=%20d", Some(2));
    let status = |status: StatusCode| RedirectSpec { status, ..to(None, None, None) };
    for code in [301, 302, 303, 307, 308] {
        let answer = redirect(status(StatusCode::from_u16(code).unwrap()), &received).await;
        assert_eq!(answer, (code, "http://client.example:8080/a/b?c=%20d".to_owned()));
    }
    let refused = Chain::<Filters>::compile(&[Filter::RequestRedirect(status(StatusCode::OK))]);
    assert_eq!(refused.unwrap_err(), InvalidFilter::Status(StatusCode::OK));
}

/// `HTTPRouteRedirectPath`.
#[tokio::test]
async fn a_redirects_path_is_replaced_as_a_rewrites_is() {
    for (uri, prefix, path, location) in [
        ("/original-prefix/lemon", 16, PathRewrite::Prefix("/replacement-prefix".into()), "/replacement-prefix/lemon"),
        ("/full/path/original", 5, PathRewrite::Full("/full-path-replacement".into()), "/full-path-replacement"),
        ("/path-and-host?q=1", 14, PathRewrite::Prefix("/replacement-prefix".into()), "/replacement-prefix?q=1"),
    ] {
        let spec = RedirectSpec { path: Some(path), ..to(None, Some("example.org"), None) };
        let (_, found) = redirect(spec, &received(Scheme::Http, 80, uri, Some(prefix))).await;
        assert_eq!(found, format!("http://example.org{location}"), "{uri}");
    }
}

fn rewrite(hostname: Option<&str>, path: Option<PathRewrite>) -> Filter {
    Filter::UrlRewrite(RewriteSpec { hostname: hostname.map(Into::into), path })
}

/// The table of `HTTPPathModifier.replacePrefixMatch`. A prefix is matched without its closing slash.
#[test]
fn a_prefix_is_replaced_by_whole_elements() {
    for (uri, prefix, replacement, path) in [
        ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
        ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
        ("/foo", "/foo", "/xyz", "/xyz"),
        ("/foo/", "/foo", "/xyz", "/xyz/"),
        ("/foo/bar", "/foo", "", "/bar"),
        ("/foo/", "/foo", "", "/"),
        ("/foo", "/foo", "", "/"),
        ("/foo/", "/foo", "/", "/"),
        ("/foo", "/foo", "/", "/"),
        ("/foo/bar?a=/foo", "/foo", "/x/y", "/x/y/bar?a=/foo"),
        // The prefix `/`.
        ("/foo", "", "/xyz", "/xyz/foo"),
        ("/", "", "/xyz", "/xyz/"),
        ("/foo", "", "/", "/foo"),
        // `HTTPRouteRewritePath`.
        ("/prefix/one/two", "/prefix/one", "/one", "/one/two"),
        ("/strip-prefix/three", "/strip-prefix", "/", "/three"),
        ("/strip-prefix", "/strip-prefix", "/", "/"),
    ] {
        let received = received(Scheme::Http, 80, uri, Some(prefix.len()));
        let parts = attempt(&[rewrite(None, Some(PathRewrite::Prefix(replacement.into())))], &received, &[]);
        assert_eq!(parts.uri, path, "{uri} {prefix} {replacement}");
        assert_eq!(parts.headers[header::HOST], "client.example");
    }
}

#[test]
fn a_whole_path_and_a_host_are_replaced_and_the_query_stays() {
    let received = received(Scheme::Http, 80, "/full/one/two?q=%2f", Some(5));
    let filter = rewrite(Some("one.example.org"), Some(PathRewrite::Full("/one".into())));
    let parts = attempt(&[filter], &received, &[]);
    assert_eq!(
        (parts.uri.to_string().as_str(), &parts.headers[header::HOST]),
        ("/one?q=%2f", &HeaderValue::from_static("one.example.org"))
    );
    assert_eq!(&*received.host, "client.example");
}

#[test]
fn of_two_rewrites_the_backends_starts_from_the_clients_path() {
    let received = received(Scheme::Http, 80, "/a/b", Some(2));
    let mut parts = attempt(&[rewrite(None, Some(PathRewrite::Prefix("/rule".into())))], &received, &[]);
    let backend = Chain::<Filters>::compile(&[rewrite(None, Some(PathRewrite::Prefix("/backend".into())))]).unwrap();
    backend.on_attempt(&mut AttemptHead::new(&received, &mut parts));
    assert_eq!(parts.uri, "/backend/b");
}

#[test]
fn a_prefix_rewrite_of_another_match_leaves_the_path() {
    let received = received(Scheme::Http, 80, "/a/b", None);
    assert_eq!(attempt(&[rewrite(None, Some(PathRewrite::Prefix("/x".into())))], &received, &[]).uri, "/a/b");
}

fn modifier(
    set: &[(&'static str, &'static str)],
    add: &[(&'static str, &'static str)],
    remove: &[&'static str],
) -> HeaderModifier {
    let pairs = |pairs: &[(&'static str, &'static str)]| {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    };
    HeaderModifier {
        set: pairs(set),
        add: pairs(add),
        remove: remove.iter().map(|name| HeaderName::from_static(name)).collect(),
    }
}

fn values(headers: &HeaderMap, name: &str) -> Vec<String> {
    headers.get_all(name).iter().map(|value| value.to_str().unwrap().to_owned()).collect()
}

#[test]
fn set_replaces_add_appends_remove_takes_every_value() {
    let spec = modifier(&[("x-set", "new")], &[("x-add", "two"), ("x-fresh", "1")], &["x-gone"]);
    let fields = [("x-set", "a"), ("x-set", "b"), ("x-add", "one"), ("x-gone", "a"), ("x-gone", "b"), ("x-stays", "s")];
    let check = |headers: &HeaderMap| {
        assert_eq!(values(headers, "x-set"), ["new"]);
        assert_eq!(values(headers, "x-add"), ["one", "two"]);
        assert_eq!(values(headers, "x-fresh"), ["1"]);
        assert_eq!(values(headers, "x-gone"), [""; 0]);
        assert_eq!(values(headers, "x-stays"), ["s"]);
    };
    let received = received(Scheme::Http, 80, "/", Some(0));
    check(&attempt(&[Filter::RequestHeaderModifier(spec.clone())], &received, &fields).headers);
    let mut response = Response::builder().status(204);
    for (name, value) in fields {
        response = response.header(name, value);
    }
    let mut parts = response.body(()).unwrap().into_parts().0;
    let chain = Chain::<Filters>::compile(&[Filter::ResponseHeaderModifier(spec)]).unwrap();
    chain.on_response(&mut ResponseHead::new(&mut parts));
    check(&parts.headers);
}

#[test]
fn each_modifier_touches_its_own_side_alone() {
    let spec = modifier(&[("x-set", "new")], &[], &[]);
    let received = received(Scheme::Http, 80, "/", Some(0));
    assert!(attempt(&[Filter::ResponseHeaderModifier(spec.clone())], &received, &[]).headers.get("x-set").is_none());
    let mut parts = Response::new(()).into_parts().0;
    let chain = Chain::<Filters>::compile(&[Filter::RequestHeaderModifier(spec)]).unwrap();
    chain.on_response(&mut ResponseHead::new(&mut parts));
    assert!(parts.headers.is_empty());
}

#[test]
fn what_cannot_be_honoured_does_not_compile() {
    let refused = |filter: Filter| Chain::<Filters>::compile(&[filter]).unwrap_err();
    for name in [
        "host",
        "content-length",
        "transfer-encoding",
        "connection",
        "upgrade",
        "te",
        "x-request-id",
        "x-nebula-reason",
    ] {
        let error = InvalidFilter::ProtectedHeader(HeaderName::from_static(name));
        for spec in
            [modifier(&[(name, "v")], &[], &[]), modifier(&[], &[(name, "v")], &[]), modifier(&[], &[], &[name])]
        {
            assert_eq!(refused(Filter::RequestHeaderModifier(spec.clone())), error);
            assert_eq!(refused(Filter::ResponseHeaderModifier(spec)), error);
        }
    }
    for path in ["/a?b", "/a#b", "/a b", "/ä"] {
        assert_eq!(refused(rewrite(None, Some(PathRewrite::Full(path.into())))), InvalidFilter::Path(path.to_owned()));
    }
    for host in ["", "*.example.org", "a b", "a:80"] {
        assert_eq!(refused(rewrite(Some(host), None)), InvalidFilter::Host(host.to_owned()));
    }
}

#[test]
fn filters_of_a_rule_act_in_the_order_of_stages() {
    let specs = [
        rewrite(Some("one.example.org"), None),
        Filter::RequestHeaderModifier(modifier(&[("x-set", "new")], &[], &[])),
    ];
    let received = received(Scheme::Http, 80, "/", Some(0));
    for specs in [specs.clone(), [specs[1].clone(), specs[0].clone()]] {
        let parts = attempt(&specs, &received, &[]);
        assert_eq!(parts.headers[header::HOST], "one.example.org");
        assert_eq!(parts.headers["x-set"], "new");
    }
}
