//! Request heads as hyper hands them over, and what becomes of them.

use http::Request;

use super::*;

/// A head: `METHOD target`, then `name: value` lines.
fn head(version: Version, text: &str) -> Parts {
    let mut lines = text.lines();
    let (method, target) = lines.next().unwrap().split_once(' ').unwrap();
    let mut request = Request::builder().version(version).method(method).uri(target);
    for line in lines {
        let (name, value) = line.split_once(": ").unwrap();
        request = request.header(name, value);
    }
    request.body(()).unwrap().into_parts().0
}

fn checked(version: Version, text: &str) -> Result<(Parts, Canonical), Reason> {
    let mut parts = head(version, text);
    let connection = Connection { scheme: Scheme::Http };
    canonicalise(&mut parts, &connection, &Limits::default()).map(|canonical| (parts, canonical))
}

fn fields(parts: &Parts) -> Vec<String> {
    parts.headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect()
}

#[test]
fn target_and_host_get_one_form() {
    use Version as V;
    for (version, text, uri, host, port, field) in [
        (V::HTTP_11, "GET /a?b=%2f\nhost: H", "/a?b=%2f", "h", None, "h"),
        (V::HTTP_11, "GET /a/./b//%63?q\nhost: h:80", "/a/b/c?q", "h", None, "h"),
        (V::HTTP_11, "GET /\nhost: h.:8080", "/", "h", Some(8080), "h:8080"),
        (V::HTTP_11, "GET http://H:80/a/../b?c\nhost: h.", "/b?c", "h", None, "h"),
        (V::HTTP_11, "GET http://h\nhost: H", "/", "h", None, "h"),
        (V::HTTP_10, "GET http://h/a", "/a", "h", None, "h"),
        (V::HTTP_11, "OPTIONS *\nhost: h", "*", "h", None, "h"),
        (V::HTTP_2, "GET https://h:443/a", "/a", "h", Some(443), "h:443"),
        (V::HTTP_2, "GET https://[::1]:8443/a\nhost: [0::1]:8443", "/a", "[::1]", Some(8443), "[::1]:8443"),
        (V::HTTP_2, "GET /a\nhost: h", "/a", "h", None, "h"),
    ] {
        let (parts, canonical) = checked(version, text).unwrap();
        assert_eq!((parts.uri.to_string().as_str(), &*canonical.host, canonical.port), (uri, host, port), "{text}");
        assert_eq!(parts.headers[header::HOST], field, "{text}");
        assert_eq!(parts.headers.get_all(header::HOST).iter().count(), 1);
    }
}

#[test]
fn what_is_ambiguous_is_refused() {
    use Version as V;
    for (version, text, reason) in [
        (V::HTTP_11, "GET /", Reason::MissingHost),
        (V::HTTP_10, "GET /", Reason::MissingHost),
        (V::HTTP_2, "GET /", Reason::MissingHost),
        (V::HTTP_11, "GET http://h/", Reason::MissingHost),
        (V::HTTP_11, "GET /\nhost: h\nhost: h", Reason::DuplicateHost),
        (V::HTTP_11, "GET /\nhost: ", Reason::InvalidHost),
        (V::HTTP_11, "GET /\nhost: u@h", Reason::InvalidHost),
        (V::HTTP_11, "GET /\nhost: h, i", Reason::InvalidHost),
        (V::HTTP_11, "GET /\nhost: h/", Reason::InvalidHost),
        (V::HTTP_11, "GET http://u@h/\nhost: h", Reason::InvalidHost),
        (V::HTTP_11, "GET http://h/\nhost: i", Reason::HostMismatch),
        (V::HTTP_11, "GET http://h:81/\nhost: h:82", Reason::HostMismatch),
        (V::HTTP_11, "GET http://h/\nhost: h:443", Reason::HostMismatch),
        (V::HTTP_2, "GET http://h/\nhost: i", Reason::HostMismatch),
        (V::HTTP_11, "CONNECT h:80\nhost: h:80", Reason::ConnectRefused),
        (V::HTTP_2, "CONNECT h:80", Reason::ConnectRefused),
        (V::HTTP_11, "GET h:80\nhost: h:80", Reason::InvalidTarget),
        (V::HTTP_11, "GET ftp://h/\nhost: h", Reason::InvalidTarget),
        (V::HTTP_11, "GET *\nhost: h", Reason::InvalidTarget),
        (V::HTTP_11, "GET /a%2fb\nhost: h", Reason::AmbiguousPath),
        (V::HTTP_11, "GET /a/..;/b\nhost: h", Reason::AmbiguousPath),
        (V::HTTP_11, "GET /../b\nhost: h", Reason::PathAboveRoot),
        (V::HTTP_11, "GET /%zz\nhost: h", Reason::InvalidPath),
        (V::HTTP_11, "POST /\nhost: h\ncontent-length: 1\ntransfer-encoding: chunked", Reason::ConflictingLength),
        (V::HTTP_11, "POST /\nhost: h\ncontent-length: 1\ncontent-length: 1", Reason::InvalidContentLength),
        (V::HTTP_11, "POST /\nhost: h\ncontent-length: 1, 1", Reason::InvalidContentLength),
        (V::HTTP_11, "POST /\nhost: h\ncontent-length: +1", Reason::InvalidContentLength),
        (V::HTTP_11, "POST /\nhost: h\ntransfer-encoding: gzip, chunked", Reason::InvalidTransferEncoding),
        (V::HTTP_11, "POST /\nhost: h\ntransfer-encoding: xchunked", Reason::InvalidTransferEncoding),
        (
            V::HTTP_11,
            "POST /\nhost: h\ntransfer-encoding: chunked\ntransfer-encoding: chunked",
            Reason::InvalidTransferEncoding,
        ),
        (V::HTTP_10, "POST /\nhost: h\ntransfer-encoding: chunked", Reason::InvalidTransferEncoding),
        (V::HTTP_2, "POST http://h/\ntransfer-encoding: chunked", Reason::InvalidTransferEncoding),
        (V::HTTP_11, "POST /\nhost: h\ncontent_length: 1", Reason::InvalidHeader),
        (V::HTTP_11, "POST /\nhost: h\ntransfer_encoding: chunked", Reason::InvalidHeader),
        (V::HTTP_11, "GET /\nhost: h\nexpect: miracle", Reason::ExpectationFailed),
        (V::HTTP_11, "GET /\nhost: h\nconnection: authorization", Reason::InvalidConnectionHeader),
        (V::HTTP_11, "GET /\nhost: h\nconnection: close, Host", Reason::InvalidConnectionHeader),
        (V::HTTP_11, "GET /\nhost: h\nconnection: content-length", Reason::InvalidConnectionHeader),
        (V::HTTP_11, "GET /\nhost: h\nconnection: X-Forwarded-For", Reason::InvalidConnectionHeader),
        (V::HTTP_11, "GET /\nhost: h\nconnection: x-request-id", Reason::InvalidConnectionHeader),
        (V::HTTP_11, "GET /\nhost: h\nconnection: a b", Reason::InvalidConnectionHeader),
        (V::HTTP_11, "POST /\nhost: h\nconnection: upgrade\nupgrade: websocket", Reason::InvalidUpgrade),
        (V::HTTP_11, "GET /\nhost: h\nconnection: upgrade\nupgrade: websocket, x", Reason::InvalidUpgrade),
        (V::HTTP_11, "GET /\nhost: h\nconnection: upgrade\nupgrade: a\nupgrade: b", Reason::InvalidUpgrade),
        (V::HTTP_11, "GET /\nhost: h\nconnection: upgrade\nupgrade: h2c\nupgrade: h2c", Reason::InvalidUpgrade),
        (V::HTTP_11, "GET /\nhost: h\nconnection: upgrade\nupgrade: h2c\nupgrade: websocket", Reason::InvalidUpgrade),
        (V::HTTP_11, "GET /\nhost: h\nconnection: upgrade\nupgrade: websocket\nupgrade: h2c", Reason::InvalidUpgrade),
        (V::HTTP_11, "GET /\nhost: h\nconnection: upgrade\nupgrade: x\ncontent-length: 1", Reason::InvalidUpgrade),
    ] {
        assert_eq!(checked(version, text).map(|_| ()), Err(reason), "{version:?} {text}");
    }
}

#[test]
fn limits_hold_for_fields_and_target() {
    let many = |count: usize| "\na: b".repeat(count);
    assert!(checked(Version::HTTP_11, &format!("GET /\nhost: h{}", many(99))).is_ok());
    let outcome = |text: String| checked(Version::HTTP_11, &text).map(|_| ());
    assert_eq!(outcome(format!("GET /\nhost: h{}", many(100))), Err(Reason::TooManyHeaders));
    assert_eq!(outcome(format!("GET /\nhost: h\na: {}", "b".repeat(64 << 10))), Err(Reason::HeadersTooLarge));
    assert_eq!(outcome(format!("GET /{}\nhost: h", "a".repeat(8 << 10))), Err(Reason::UriTooLong));
    let options = (0..17).map(|index| format!("x{index}")).collect::<Vec<_>>().join(",");
    assert_eq!(outcome(format!("GET /\nhost: h\nconnection: {options}")), Err(Reason::InvalidConnectionHeader));
}

#[test]
fn fields_of_one_hop_end_here() {
    let text = "GET /\nhost: h\nconnection: close, X-Secret\nconnection: keep-alive\nx-secret: 1\nkeep-alive: 5\n\
        proxy-connection: close\nte: gzip, trailers\nupgrade: h2c\nhttp2-settings: AA\nexpect: 100-Continue\naccept: a";
    let (parts, canonical) = checked(Version::HTTP_11, text).unwrap();
    let mut left = fields(&parts);
    left.sort();
    assert_eq!(left, ["accept: a", "host: h", "te: trailers"]);
    assert_eq!(canonical.upgrade, None);
    let (parts, _) = checked(Version::HTTP_11, "POST /\nhost: h\nte: gzip\ntransfer-encoding: Chunked").unwrap();
    assert_eq!(fields(&parts), ["host: h"]);
}

#[test]
fn an_upgrade_is_taken_out_of_the_head() {
    let ask = |token: &str| {
        format!("GET /\nhost: h\nconnection: keep-alive, Upgrade\nupgrade: {token}\nsec-websocket-key: x")
    };
    let (parts, canonical) = checked(Version::HTTP_11, &ask("WebSocket")).unwrap();
    assert_eq!(canonical.upgrade, Some(Upgrade::WebSocket));
    assert_eq!(fields(&parts).len(), 2);
    let (_, canonical) = checked(Version::HTTP_11, &ask("spdy/3.1")).unwrap();
    assert_eq!(canonical.upgrade.unwrap().token(), "spdy/3.1");
    for (version, text) in [
        (Version::HTTP_10, ask("websocket")),
        (Version::HTTP_11, ask("h2c")),
        (Version::HTTP_11, "GET /\nhost: h\nupgrade: websocket".to_owned()),
    ] {
        let (parts, canonical) = checked(version, &text).unwrap();
        assert!(canonical.upgrade.is_none() && !parts.headers.contains_key(header::UPGRADE), "{text}");
    }
}

#[test]
fn fields_that_only_the_gateway_sets_do_not_come_from_outside() {
    for name in [
        "x-forwarded-for",
        "x-forwarded-anything",
        "X_Forwarded_For",
        "x-forwarded_proto",
        "forwarded",
        "x-nebula-subject",
        "x_nebula_subject",
        "x_request_id",
        "x-request_id",
    ] {
        let (parts, _) =
            checked(Version::HTTP_11, &format!("GET /\nhost: h\n{name}: 1\n{name}: 2\nx-other: 3")).unwrap();
        let mut left = fields(&parts);
        left.sort();
        assert_eq!(left, ["host: h", "x-other: 3"], "{name}");
    }
    for name in ["x-request-id", "x-forwarder", "x_custom", "x-neb", "forwarded-x"] {
        let (parts, _) = checked(Version::HTTP_11, &format!("GET /\nhost: h\n{name}: 1")).unwrap();
        assert_eq!(parts.headers[name], "1");
    }
}

#[test]
fn cookie_crumbs_become_one_field() {
    let (parts, _) = checked(Version::HTTP_2, "GET http://h/\ncookie: a=1\ncookie: b=2; c=3\ncookie: d=4").unwrap();
    let cookies: Vec<_> = parts.headers.get_all(header::COOKIE).iter().collect();
    assert_eq!(cookies, ["a=1; b=2; c=3; d=4"]);
}

#[test]
fn the_backend_learns_where_a_request_comes_from() {
    let (mut parts, _) = checked(Version::HTTP_11, "GET /\nhost: H:8080\nx-forwarded-for: 6.6.6.6").unwrap();
    let client = forwarded_for("[::ffff:192.0.2.1]:5".parse().unwrap());
    forwarding_headers(&mut parts.headers, &client, Scheme::Https, None);
    let mut all = fields(&parts);
    all.sort();
    let expected =
        ["host: h:8080", "x-forwarded-for: 192.0.2.1", "x-forwarded-host: h:8080", "x-forwarded-proto: https"];
    assert_eq!(all, expected);
}

#[test]
fn a_sane_request_id_stays_and_every_other_is_replaced() {
    let id = |values: &[&str]| {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(X_REQUEST_ID, HeaderValue::from_str(value).unwrap());
        }
        let id = request_id(&mut headers, 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
        assert_eq!(headers.get_all(X_REQUEST_ID).iter().collect::<Vec<_>>(), [&id]);
        id.to_str().unwrap().to_owned()
    };
    let new = "01234567-89ab-4def-8123-456789abcdef";
    let long = "a".repeat(129);
    for sane in ["abc", "A-Z_0.9~:+/=@", &long[..128]] {
        assert_eq!(id(&[sane]), sane);
    }
    for values in [&[][..], &[""], &[&long], &["a b"], &["<script>"], &["a\"b"], &["a,b"], &["a", "b"]] {
        assert_eq!(id(values), new, "{values:?}");
    }
}

#[test]
fn trailers_say_nothing_that_a_field_decides() {
    let mut trailers = HeaderMap::new();
    for name in [
        "grpc-status",
        "x-checksum",
        "host",
        "content-length",
        "transfer_encoding",
        "authorization",
        "x-forwarded-for",
        "x_nebula_a",
        "cookie",
    ] {
        trailers.append(HeaderName::from_static(name), HeaderValue::from_static("1"));
        trailers.append(HeaderName::from_static(name), HeaderValue::from_static("2"));
    }
    clean_trailers(&mut trailers);
    let mut left: Vec<&str> = trailers.keys().map(HeaderName::as_str).collect();
    left.sort_unstable();
    assert_eq!(left, ["grpc-status", "x-checksum"]);
}
