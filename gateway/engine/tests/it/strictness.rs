//! Bytes on a socket: what is refused says why, closes, and never reaches the upstream; what passes is canonical there.

use std::{sync::Arc, time::Duration};

use control_plane_model::BackendProtocol;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::harness::{Proxy, backend, collect, route, rule, spawn, upstream};

/// What the upstream saw: method, target and fields of each request whose body came whole.
type Seen = Arc<std::sync::Mutex<Vec<String>>>;

/// A proxy that routes `/ok` to an upstream, and what that saw.
async fn proxy() -> (Proxy, Seen) {
    let seen = Seen::default();
    let recorder = seen.clone();
    let address = upstream(move |request: Request<Incoming>| {
        let recorder = recorder.clone();
        async move {
            let (parts, body) = request.into_parts();
            let fields = parts.headers.iter();
            let fields = fields.map(|(name, value)| format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes())));
            let fields = fields.collect::<Vec<_>>().concat();
            if let Ok(body) = body.collect().await {
                let body = String::from_utf8_lossy(&body.to_bytes()).into_owned();
                recorder.lock().unwrap().push(format!("{} {}\n{fields}\n{body}", parts.method, parts.uri));
            }
            Response::new(Full::from("upstream"))
        }
    })
    .await;
    let mut objects = backend("one", BackendProtocol::Http1, &[address]).to_vec();
    objects.push(route("ok", vec![rule("/ok", &[("one", 1)])]));
    (Proxy::start(objects).await, seen)
}

/// Sends the bytes and reads until the proxy closes.
async fn talk(proxy: &Proxy, bytes: &[u8]) -> String {
    let mut stream = proxy.connect().await;
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let reading = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await;
    let text = String::from_utf8_lossy(&answer).into_owned();
    assert!(reading.is_ok_and(|read| read.is_ok()), "not closed after {:?}: {text}", String::from_utf8_lossy(bytes));
    text
}

/// Status and reason of each answer, in order.
fn answers(text: &str) -> Vec<(u16, Option<&str>)> {
    let heads = text.split("HTTP/1.").filter_map(|head| Some((head.get(2..5)?.parse().ok()?, head)));
    heads.map(|(status, head)| (status, head.lines().find_map(|line| line.strip_prefix("x-nebula-reason: ")))).collect()
}

const SMUGGLED: &str = "GET /ok/smuggled HTTP/1.1\r\nHost: h\r\n\r\n";

#[tokio::test]
async fn what_is_ambiguous_is_refused_and_never_reaches_the_upstream() {
    let (proxy, seen) = proxy().await;
    let get = |line: &str, fields: &str| format!("{line}\r\n{fields}\r\n{SMUGGLED}").into_bytes();
    let post =
        |fields: &str, body: &str| format!("POST /ok HTTP/1.1\r\nHost: h\r\n{fields}\r\n{body}{SMUGGLED}").into_bytes();
    let path = |path: &str| get(&format!("GET {path} HTTP/1.1"), "Host: h\r\n");
    let cases: Vec<(Vec<u8>, u16, &str)> = vec![
        (post("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), 400, "conflicting_length"),
        (post("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", "0\r\n\r\n"), 400, "conflicting_length"),
        (post("Content-Length: 1\r\nContent-Length: 1\r\n", "a"), 400, "invalid_content_length"),
        (post("Content-Length: 1\r\nContent-Length: 2\r\n", "ab"), 400, "invalid_content_length"),
        (post("Content-Length: 1, 1\r\n", "a"), 400, "invalid_content_length"),
        (post("Content-Length: +1\r\n", "a"), 400, "invalid_content_length"),
        (post("Content-Length: -1\r\n", "a"), 400, "invalid_content_length"),
        (post("Content-Length: 0x1\r\n", "a"), 400, "invalid_content_length"),
        (post("Transfer-Encoding: identity, chunked\r\n", "0\r\n\r\n"), 400, "invalid_transfer_encoding"),
        (post("Transfer-Encoding: chunked, identity\r\n", "0\r\n\r\n"), 400, "invalid_transfer_encoding"),
        (post("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"), 400, "invalid_transfer_encoding"),
        (
            post("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", "0\r\n\r\n"),
            400,
            "invalid_transfer_encoding",
        ),
        (post("Transfer-Encoding:\x0bchunked\r\n", "0\r\n\r\n"), 400, "invalid_header"),
        (post("Transfer-Encoding : chunked\r\n", "0\r\n\r\n"), 400, "invalid_header"),
        (post("Transfer_Encoding: chunked\r\n", "0\r\n\r\n"), 400, "invalid_header"),
        (post("A: b\r\n folded\r\n", ""), 400, "invalid_header"),
        (post("A: b\0\r\n", ""), 400, "invalid_header"),
        (post("A: b\rC: d\r\n", ""), 400, "invalid_line_end"),
        (post("A: b\nContent-Length: 0\r\n", ""), 400, "invalid_line_end"),
        (get("POST /ok HTTP/1.0", "Host: h\r\nTransfer-Encoding: chunked\r\n"), 400, "invalid_transfer_encoding"),
        (b"GET /ok HTTP/1.1\nHost: h\n\n".to_vec(), 400, "invalid_line_end"),
        (b"\r\n\r\nGET /ok HTTP/1.1\r\nHost: h\r\n\r\n".to_vec(), 400, "malformed_request"),
        (get("GET /ok HTTP/1.1", ""), 400, "missing_host"),
        (get("GET /ok HTTP/1.0", ""), 400, "missing_host"),
        (get("GET /ok HTTP/1.1", "Host: h\r\nHost: h\r\n"), 400, "duplicate_host"),
        (get("GET /ok HTTP/1.1", "Host: h\r\nHost: evil\r\n"), 400, "duplicate_host"),
        (get("GET /ok HTTP/1.1", "Host:\r\n"), 400, "invalid_host"),
        (get("GET /ok HTTP/1.1", "Host: user@h\r\n"), 400, "invalid_host"),
        (get("GET /ok HTTP/1.1", "Host: h, evil\r\n"), 400, "invalid_host"),
        (get("GET http://h/ok HTTP/1.1", "Host: evil\r\n"), 400, "host_mismatch"),
        (get("GET http://h/ok HTTP/1.1", ""), 400, "missing_host"),
        (get("GET ftp://h/ok HTTP/1.1", "Host: h\r\n"), 400, "invalid_target"),
        (get("GET h:80 HTTP/1.1", "Host: h\r\n"), 400, "invalid_target"),
        (get("GET * HTTP/1.1", "Host: h\r\n"), 400, "invalid_target"),
        (get("CONNECT h:80 HTTP/1.1", "Host: h:80\r\n"), 405, "connect_refused"),
        (path("/ok#/x"), 400, "invalid_target"),
        (path("/ok/%zz"), 400, "invalid_path"),
        (path("/ok/%0d%0aX:y"), 400, "invalid_path"),
        (path("/ok/\u{e4}"), 400, "invalid_path"),
        (path("/ok%2f..%2fadmin"), 400, "ambiguous_path"),
        (path("/ok/%5c.."), 400, "ambiguous_path"),
        (path("/ok\\..\\admin"), 400, "ambiguous_path"),
        (path("/ok/%00"), 400, "ambiguous_path"),
        (path("/ok/%252e%252e/admin"), 400, "ambiguous_path"),
        (path("/ok/..;/admin"), 400, "ambiguous_path"),
        (path("/ok/.;/admin"), 400, "ambiguous_path"),
        (path("/ok/../../admin"), 400, "path_above_root"),
        (path("/%2e%2e/ok"), 400, "path_above_root"),
        (get("GET /ok HTTP/1.1", "Host: h\r\nConnection: Authorization\r\n"), 400, "invalid_connection_header"),
        (get("GET /ok HTTP/1.1", "Host: h\r\nConnection: X-Forwarded-For\r\n"), 400, "invalid_connection_header"),
        (get("GET /ok HTTP/1.1", "Host: h\r\nExpect: 200-ok\r\n"), 417, "expectation_failed"),
        (get("GET /ok HTTP/1.1", "Host: h\r\nConnection: upgrade\r\nUpgrade: a, b\r\n"), 400, "invalid_upgrade"),
        (get("POST /ok HTTP/1.1", "Host: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"), 400, "invalid_upgrade"),
        (get("GET /ok HTTP/2.0", "Host: h\r\n"), 400, "malformed_request"),
        (get("GET  /ok HTTP/1.1", "Host: h\r\n"), 400, "malformed_request"),
        (get("GET /ok", ""), 400, "malformed_request"),
        (path(&format!("/ok/{}", "a".repeat(9 << 10))), 414, "uri_too_long"),
        (get("GET /ok HTTP/1.1", &format!("Host: h\r\nA: {}\r\n", "b".repeat(70 << 10))), 431, "headers_too_large"),
        (get("GET /ok HTTP/1.1", &format!("Host: h\r\n{}", "A: b\r\n".repeat(100))), 431, "too_many_headers"),
    ];
    for (bytes, status, reason) in cases {
        let shown: String = String::from_utf8_lossy(&bytes).chars().take(200).collect();
        let text = talk(&proxy, &bytes).await;
        assert_eq!(answers(&text), [(status, Some(reason))], "{shown:?}: {text}");
        assert!(text.contains("\r\nx-request-id: ") && text.contains("\r\nconnection: close\r\n"), "{shown:?}: {text}");
        assert_eq!(*seen.lock().unwrap(), [""; 0], "{shown:?}");
    }
    // Nothing comes late either.
    assert_eq!(
        answers(&talk(&proxy, b"GET /ok/end HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").await),
        [(200, None)]
    );
    let seen = seen.lock().unwrap();
    assert!(seen.len() == 1 && seen[0].starts_with("GET /ok/end\n"), "{seen:?}");
}

#[tokio::test]
async fn a_refused_request_is_answered_behind_those_before_it_and_ends_the_connection() {
    let (proxy, seen) = proxy().await;
    let text = "GET /ok/1 HTTP/1.1\r\nHost: h\r\n\r\nPOST /ok/2 HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi\
        POST /ok/3 HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    let text = talk(&proxy, format!("{text}{SMUGGLED}").as_bytes()).await;
    assert_eq!(answers(&text), [(200, None), (200, None), (400, Some("conflicting_length"))]);
    let paths: Vec<String> = seen.lock().unwrap().iter().map(|seen| seen.lines().next().unwrap().to_owned()).collect();
    assert_eq!(paths, ["GET /ok/1", "POST /ok/2"]);
}

#[tokio::test]
async fn the_upstream_sees_the_canonical_request() {
    let (proxy, seen) = proxy().await;
    let request = "GET http://Example.COM.:80/ok/./a//%62/%c3%a4/../x?q=%2f HTTP/1.1\r\nHost: example.com\r\n\
        Connection: close, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nX-Forwarded-For: 6.6.6.6\r\nX_Forwarded_For: 6.6.6.6\r\n\
        X-Nebula-Subject: root\r\nForwarded: for=6.6.6.6\r\nTE: gzip\r\nCookie: a=1\r\nCookie: b=2\r\nX-Other: 1\r\n\
        X-Request-ID: mine\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n\r\n";
    let text = talk(&proxy, request.as_bytes()).await;
    assert_eq!(answers(&text), [(200, None)]);
    let mut lines: Vec<String> = seen.lock().unwrap().concat().lines().map(str::to_owned).collect();
    lines.retain(|line| !line.is_empty() && !line.starts_with("traceparent: "));
    lines[1..].sort();
    let expected = [
        "GET /ok/a/b/x?q=%2f",
        "cookie: a=1; b=2",
        "host: example.com",
        "x-forwarded-for: 127.0.0.1",
        "x-forwarded-host: example.com",
        "x-forwarded-proto: http",
        "x-other: 1",
        "x-request-id: mine",
    ];
    assert_eq!(lines, expected);
}

#[tokio::test]
async fn a_body_that_nobody_reads_is_never_taken_for_a_request() {
    let (proxy, seen) = proxy().await;
    let after = "GET /ok/after HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    for framed in [
        format!("Content-Length: {}\r\n\r\n{SMUGGLED}", SMUGGLED.len()),
        format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{SMUGGLED}\r\n0\r\n\r\n", SMUGGLED.len()),
    ] {
        let text = talk(&proxy, format!("POST /missing HTTP/1.1\r\nHost: h\r\n{framed}{after}").as_bytes()).await;
        assert_eq!(answers(&text)[0], (404, Some("no_route")));
        // The second request is answered, or the connection has closed before it.
        assert!(answers(&text).len() <= 2, "{text}");
        let seen = std::mem::take(&mut *seen.lock().unwrap());
        assert!(seen.iter().all(|seen| seen.starts_with("GET /ok/after\n")), "{seen:?}");
    }
}

#[tokio::test]
async fn a_chunk_that_is_none_fails_the_request_and_ends_the_connection() {
    let (proxy, seen) = proxy().await;
    for chunk in [
        "-1\r\na\r\n0\r\n\r\n",
        "+1\r\na\r\n0\r\n\r\n",
        "1 \r\na\r\n0\r\n\r\n",
        "1\na\r\n0\r\n\r\n",
        "1\r\nab0\r\n\r\n",
    ] {
        let request = format!("POST /ok HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}{SMUGGLED}");
        let text = talk(&proxy, request.as_bytes()).await;
        assert!(answers(&text).iter().all(|(status, _)| *status != 200), "{chunk:?}: {text}");
        assert!(answers(&text).len() <= 1, "{chunk:?}: {text}");
    }
    assert_eq!(*seen.lock().unwrap(), [""; 0]);
}

#[tokio::test]
async fn behind_an_upgrade_that_is_not_granted_nothing_is_served() {
    let (proxy, seen) = proxy().await;
    for target in ["/ok/up", "/missing"] {
        let request =
            format!("GET {target} HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n{SMUGGLED}");
        let text = talk(&proxy, request.as_bytes()).await;
        assert_eq!(answers(&text).len(), 1, "{text}");
    }
    assert!(seen.lock().unwrap().iter().all(|seen| seen.starts_with("GET /ok/up\n")), "{seen:?}");
}

#[tokio::test]
async fn http2_is_as_strict() {
    let (proxy, seen) = proxy().await;
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(proxy.connect().await));
    let (mut client, connection) = handshake.await.unwrap();
    spawn(async move { drop(connection.await) });
    let request = |target: &str| Request::get(target);
    let empty = Full::<Bytes>::default;
    for (request, status, reason) in [
        (request("http://h/ok").header("host", "evil").body(empty()), 400, "host_mismatch"),
        (request("http://u@h/ok").body(empty()), 400, "invalid_host"),
        (request("http://h/ok%2fadmin").body(empty()), 400, "ambiguous_path"),
        (request("http://h/ok/../..").body(empty()), 400, "path_above_root"),
        (request("http://h/ok").header("content_length", "1").body(empty()), 400, "invalid_header"),
        (request("http://h/missing").body(empty()), 404, "no_route"),
        (
            (0..101).fold(request("http://h/ok"), |request, _| request.header("cookie", "a=b")).body(empty()),
            431,
            "too_many_headers",
        ),
    ] {
        let response = collect(client.send_request(request.unwrap()).await.unwrap()).await;
        let found = (response.status().as_u16(), response.headers()["x-nebula-reason"].to_str().unwrap());
        assert_eq!(found, (status, reason));
        assert!(response.headers().contains_key("x-request-id"));
    }
    assert_eq!(*seen.lock().unwrap(), [""; 0]);
    let good = request("http://H:80/ok//x").header("cookie", "a=1").header("cookie", "b=2").body(empty()).unwrap();
    let response = collect(client.send_request(good).await.unwrap()).await;
    assert_eq!(response.status(), StatusCode::OK);
    let seen = seen.lock().unwrap().concat();
    assert!(
        seen.starts_with("GET /ok/x\n") && seen.contains("\nhost: h\n") && seen.contains("cookie: a=1; b=2\n"),
        "{seen}"
    );
}
