//! ClientPolicies on real sockets: whom the engine believes about a client, and how long and how much a client may.

use std::{
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroU32,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use control_plane_model::{
    BackendProtocol, ClientAddress, ClientLimits, ClientSettings, ClientTimeouts, Delta, ForwardingHeader, HostPattern,
    HttpProtocol, Listener, ListenerKey, ListenerProtocol, ObjectName, Policy, PolicyKey, PolicyKind, PolicySpec,
    ProxyProtocol, Resource, TransferRate, Trust,
};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, timeout},
};

use crate::harness::{Proxy, backend, collect, eventually, listener_key, request, route, rule, spawn, upstream};

/// Longer than anything here takes that does not hang.
const SOON: Duration = Duration::from_secs(8);
/// A signature of version 2 of the PROXY protocol.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

pub fn policy_key() -> PolicyKey {
    PolicyKey { kind: PolicyKind::Client, name: ObjectName::new("test", "clients") }
}

pub fn policy(settings: ClientSettings) -> Resource {
    Resource::Policy(Arc::new(Policy { key: policy_key(), spec: PolicySpec::Client(settings) }))
}

fn listener(proxy: &Proxy, name: &str, hostname: &str, policies: Vec<PolicyKey>) -> Resource {
    Resource::Listener(Arc::new(Listener {
        key: ListenerKey { name: name.into(), ..listener_key() },
        addresses: vec![Ipv4Addr::LOCALHOST.into()],
        port: proxy.port,
        protocol: ListenerProtocol::Http,
        hostname: HostPattern::parse(hostname).unwrap(),
        policies,
    }))
}

/// An upstream that answers with the fields that tell where a request comes from, one a line.
async fn telling() -> SocketAddr {
    upstream(|request: Request<Incoming>| async move {
        let (parts, body) = request.into_parts();
        if body.collect().await.is_err() {
            return Response::new(Full::default());
        }
        let tells = |name: &str| name.starts_with('f') || name.starts_with("x_") || name.starts_with("x-forwarded");
        let fields = parts.headers.iter().filter(|(name, _)| tells(name.as_str()));
        let mut lines: Vec<_> = fields.map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        lines.sort();
        Response::new(Full::from(lines.join("\n")))
    })
    .await
}

/// A proxy whose listener has a policy of these settings.
async fn proxy(settings: ClientSettings) -> Proxy {
    let proxy = Proxy::start_closed(backend("one", BackendProtocol::Http1, &[telling().await])).await;
    let objects = [
        policy(settings),
        listener(&proxy, "http", "", vec![policy_key()]),
        route("all", vec![rule("/", &[("one", 1)])]),
    ];
    assert_eq!(proxy.upsert(objects).await, []);
    proxy
}

fn believing(networks: &[&str], header: ForwardingHeader) -> ClientSettings {
    let networks = networks.iter().map(|network| network.parse().unwrap()).collect();
    let address = ClientAddress { trust: Trust::Networks(networks), header };
    ClientSettings { client_address: Some(address), ..ClientSettings::default() }
}

fn behind_proxies(networks: &[&str]) -> ClientSettings {
    let networks = networks.iter().map(|network| network.parse().unwrap()).collect();
    ClientSettings { proxy_protocol: Some(ProxyProtocol::Required(networks)), ..ClientSettings::default() }
}

fn times(timeouts: ClientTimeouts) -> ClientSettings {
    ClientSettings { timeouts, ..ClientSettings::default() }
}

fn limits(limits: ClientLimits) -> ClientSettings {
    ClientSettings { limits, ..ClientSettings::default() }
}

fn number(number: u32) -> Option<NonZeroU32> {
    NonZeroU32::new(number)
}

async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    // A connection that is refused may be reset, as what the client sent was not read.
    drop(timeout(SOON, stream.read_to_end(&mut answer)).await.expect("not closed"));
    String::from_utf8_lossy(&answer).into_owned()
}

/// Sends `bytes` and reads until the proxy closes.
async fn talk(proxy: &Proxy, bytes: &[u8]) -> String {
    let mut stream = proxy.connect().await;
    stream.write_all(bytes).await.unwrap();
    read_to_end(&mut stream).await
}

/// The body of the answer to a request with these fields, or its reason.
async fn told(proxy: &Proxy, fields: &str) -> String {
    let request = format!("GET / HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n{fields}\r\n");
    let answer = talk(proxy, request.as_bytes()).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let reason = head.lines().find_map(|line| line.strip_prefix("x-nebula-reason: "));
    reason.unwrap_or(body).to_owned()
}

/// What a backend is told where nothing is believed but the client's address.
fn plain(client: &str) -> String {
    format!("x-forwarded-for: {client}\nx-forwarded-host: shop.test\nx-forwarded-proto: http")
}

#[tokio::test]
async fn no_spelling_of_a_forwarding_field_passes_for_an_address() {
    let strangers = proxy(ClientSettings::default()).await;
    let trusting = proxy(believing(&["127.0.0.0/8", "10.0.0.0/8"], ForwardingHeader::XForwardedFor)).await;
    for (fields, believed) in [
        ("", "127.0.0.1"),
        ("X-Forwarded-For: 203.0.113.9\r\n", "203.0.113.9"),
        ("x-forwarded-for: 203.0.113.9\r\n", "203.0.113.9"),
        ("X-Forwarded-For: 1.1.1.1, 203.0.113.9\r\n", "203.0.113.9"),
        ("X-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: 203.0.113.9\r\nX-Forwarded-For: 10.0.0.2\r\n", "203.0.113.9"),
        ("X-Forwarded-For: 10.0.0.3, 1.1.1.1, 203.0.113.9, 10.0.0.2\r\n", "203.0.113.9"),
        ("X-Forwarded-For: 1.1.1.1\r\nX_Forwarded_For: 2.2.2.2\r\n", "1.1.1.1"),
        ("X_Forwarded_For: 2.2.2.2\r\n", "127.0.0.1"),
        ("X-Forwarded_For: 2.2.2.2\r\nX-Forwarded-By: 3.3.3.3\r\n", "127.0.0.1"),
        ("Forwarded: for=2.2.2.2\r\n", "127.0.0.1"),
        ("Forwarded: for=\"2.2.2.2\r\nX-Forwarded-For: 203.0.113.9\r\n", "203.0.113.9"),
        ("X-Forwarded-For: 1.1.1.1, unknown\r\n", "127.0.0.1"),
        ("X-Forwarded-For: 1.1.1.1, 203.0.113.9\t\r\n", "203.0.113.9"),
        ("X-Forwarded-For: ::ffff:203.0.113.9\r\n", "203.0.113.9"),
    ] {
        assert_eq!(told(&strangers, fields).await, plain("127.0.0.1"), "not trusted: {fields}");
        assert_eq!(told(&trusting, fields).await, plain(believed), "{fields}");
    }
    for proxy in [&strangers, &trusting] {
        let nominated = "Connection: x-forwarded-for\r\nX-Forwarded-For: 203.0.113.9\r\n";
        assert_eq!(told(proxy, nominated).await, "invalid_connection_header");
    }
}

#[tokio::test]
async fn hops_are_counted_whoever_connects() {
    let address = ClientAddress { trust: Trust::Hops(2.try_into().unwrap()), header: ForwardingHeader::XForwardedFor };
    let proxy = proxy(ClientSettings { client_address: Some(address), ..ClientSettings::default() }).await;
    assert_eq!(told(&proxy, "X-Forwarded-For: 1.1.1.1, 203.0.113.9, 198.51.100.7\r\n").await, plain("203.0.113.9"));
    assert_eq!(told(&proxy, "X-Forwarded-For: 203.0.113.9\r\n").await, plain("203.0.113.9"));
}

#[tokio::test]
async fn forwarded_is_believed_where_the_policy_says_so_and_refused_where_it_hides_something() {
    let proxy = proxy(believing(&["127.0.0.0/8"], ForwardingHeader::Forwarded)).await;
    let fields =
        "Forwarded: for=1.1.1.1, for=\"203.0.113.9:99\";proto=https;host=Outer.Test\r\nX-Forwarded-For: 2.2.2.2\r\n";
    let expected = "x-forwarded-for: 203.0.113.9\nx-forwarded-host: outer.test\nx-forwarded-proto: https";
    assert_eq!(told(&proxy, fields).await, expected);
    assert_eq!(told(&proxy, "Forwarded: for=\"1.1.1.1, for=203.0.113.9\r\n").await, "invalid_forwarded");
}

#[tokio::test]
async fn scheme_and_host_are_taken_from_a_trusted_proxy_alone() {
    let fields = "X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: outer.test\r\n";
    let strangers = proxy(believing(&["192.0.2.0/24"], ForwardingHeader::XForwardedFor)).await;
    assert_eq!(told(&strangers, fields).await, plain("127.0.0.1"));
    let trusting = proxy(believing(&["127.0.0.1"], ForwardingHeader::XForwardedFor)).await;
    let expected = "x-forwarded-for: 203.0.113.9\nx-forwarded-host: outer.test\nx-forwarded-proto: https";
    assert_eq!(told(&trusting, fields).await, expected);
}

#[tokio::test]
async fn the_access_log_has_the_client_and_who_connected() {
    let proxy = proxy(believing(&["127.0.0.0/8"], ForwardingHeader::XForwardedFor)).await;
    told(&proxy, "X-Forwarded-For: 203.0.113.9\r\n").await;
    told(&proxy, "").await;
    let lines = proxy.log.lines(2).await;
    assert_eq!(lines[0]["client"], "203.0.113.9");
    assert!(lines[0]["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{}", lines[0]);
    assert!(lines[1]["client"].as_str().unwrap().starts_with("127.0.0.1:"), "{}", lines[1]);
    assert!(lines[1]["peer"].is_null());
}

#[tokio::test]
async fn a_connection_that_is_open_believes_what_the_newest_policy_does() {
    let proxy = proxy(ClientSettings::default()).await;
    let mut client = proxy.client().await;
    let mut ask = async || {
        let mut request = request("/");
        request.headers_mut().insert("x-forwarded-for", "203.0.113.9".parse().unwrap());
        let answer = collect(client.send_request(request).await.unwrap()).await;
        String::from_utf8(answer.body().to_vec()).unwrap()
    };
    assert!(ask().await.starts_with("x-forwarded-for: 127.0.0.1\n"));
    proxy.upsert([policy(believing(&["127.0.0.0/8"], ForwardingHeader::XForwardedFor))]).await;
    assert!(ask().await.starts_with("x-forwarded-for: 203.0.113.9\n"));
    proxy.upsert([policy(ClientSettings::default())]).await;
    assert!(ask().await.starts_with("x-forwarded-for: 127.0.0.1\n"));
}

#[tokio::test]
async fn a_head_that_trickles_in_is_given_up_at_the_listeners_own_limit() {
    let second = Some(Duration::from_secs(1));
    let proxy = proxy(times(ClientTimeouts { request_head: second, ..ClientTimeouts::default() })).await;
    let mut stream = proxy.connect().await;
    let begun = Instant::now();
    for byte in b"GET / HTTP/1.1\r\nHost: shop.test\r\nX-Slow: ".iter().chain([b'x'].repeat(100).iter()) {
        if stream.write_all(&[*byte]).await.is_err() {
            break;
        }
        if timeout(Duration::from_millis(100), stream.readable()).await.is_ok() {
            break;
        }
    }
    assert_eq!(read_to_end(&mut stream).await, "", "closed without an answer");
    let elapsed = begun.elapsed();
    assert!((Duration::from_secs(1)..Duration::from_secs(4)).contains(&elapsed), "{elapsed:?}");
    assert_eq!(told(&proxy, "").await, plain("127.0.0.1"), "others are served");
}

#[tokio::test]
async fn an_idle_connection_is_closed_at_the_listeners_own_limit() {
    let second = Some(Duration::from_secs(1));
    let proxy = proxy(times(ClientTimeouts { connection_idle: second, ..ClientTimeouts::default() })).await;
    let mut stream = proxy.connect().await;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n").await.unwrap();
    let begun = Instant::now();
    assert!(read_to_end(&mut stream).await.starts_with("HTTP/1.1 200"));
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_body_that_pauses_or_trickles_is_answered_with_408() {
    const HEAD: &[u8] = b"POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 1000\r\n\r\nx";
    let second = Some(Duration::from_secs(1));
    let pausing = proxy(times(ClientTimeouts { request_body_idle: second, ..ClientTimeouts::default() })).await;
    assert!(talk(&pausing, HEAD).await.starts_with("HTTP/1.1 408"));

    let rate = TransferRate { bytes_per_second: 100.try_into().unwrap(), grace: Duration::from_millis(500) };
    let trickling = proxy(ClientSettings { minimum_transfer_rate: Some(rate), ..ClientSettings::default() }).await;
    let mut stream = trickling.connect().await;
    stream.write_all(HEAD).await.unwrap();
    let begun = Instant::now();
    // Each byte comes long before the limit of a pause.
    while timeout(Duration::from_millis(100), stream.readable()).await.is_err() {
        stream.write_all(b"x").await.unwrap();
        assert!(begun.elapsed() < SOON, "never given up");
    }
    assert!(read_to_end(&mut stream).await.starts_with("HTTP/1.1 408"));

    let mut stream = trickling.connect().await;
    stream.write_all(HEAD).await.unwrap();
    for _ in 0..9 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        stream.write_all(&[b'x'; 100]).await.unwrap();
    }
    stream.write_all(&[b'x'; 99]).await.unwrap();
    let mut status = [0; 12];
    timeout(SOON, stream.read_exact(&mut status)).await.unwrap().unwrap();
    assert_eq!(&status, b"HTTP/1.1 200", "as fast as it must be");
}

#[tokio::test]
async fn heads_have_the_listeners_own_limits() {
    let few = ClientLimits {
        headers: number(10),
        uri_bytes: number(64),
        head_bytes: number(1024),
        ..ClientLimits::default()
    };
    let proxy = proxy(limits(few)).await;
    assert_eq!(told(&proxy, &"X-A: b\r\n".repeat(9)).await, "too_many_headers");
    assert_eq!(told(&proxy, &format!("X-A: {}\r\n", "b".repeat(1100))).await, "headers_too_large");
    assert_eq!(told(&proxy, "X-A: b\r\n").await, plain("127.0.0.1"));
    let long = format!("GET /{} HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n", "a".repeat(64));
    assert!(talk(&proxy, long.as_bytes()).await.starts_with("HTTP/1.1 414"));
}

/// Whether a request is answered on a connection that begins with `header`, and stays open then.
async fn served(proxy: &Proxy, header: &[u8]) -> Option<TcpStream> {
    let mut stream = proxy.connect().await;
    stream.write_all(&[header, b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n"].concat()).await.ok()?;
    let mut status = [0; 12];
    timeout(SOON, stream.read_exact(&mut status)).await.expect("neither served nor closed").ok()?;
    (&status == b"HTTP/1.1 200").then_some(stream)
}

#[tokio::test]
async fn a_listener_has_no_more_connections_than_it_may() {
    let proxy = proxy(limits(ClientLimits { connections: number(2), ..ClientLimits::default() })).await;
    let first = served(&proxy, b"").await.unwrap();
    let _second = served(&proxy, b"").await.unwrap();
    assert!(served(&proxy, b"").await.is_none(), "the third is closed");
    proxy.upsert([policy(ClientSettings::default())]).await;
    assert!(served(&proxy, b"").await.is_some(), "the limit is gone");
    proxy.upsert([policy(limits(ClientLimits { connections: number(2), ..ClientLimits::default() }))]).await;
    assert!(served(&proxy, b"").await.is_none(), "those from before count");
    drop(first);
    let deadline = Instant::now() + SOON;
    while served(&proxy, b"").await.is_none() {
        assert!(Instant::now() < deadline, "one that ends makes room");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_client_is_counted_by_the_address_that_the_proxy_protocol_tells() {
    let limits = ClientLimits { connections_per_client: number(1), ..ClientLimits::default() };
    let proxy = proxy(ClientSettings { limits, ..behind_proxies(&["127.0.0.0/8"]) }).await;
    let _one = served(&proxy, b"PROXY TCP4 203.0.113.9 10.0.0.1 5555 80\r\n").await.unwrap();
    assert!(served(&proxy, b"PROXY TCP4 203.0.113.9 10.0.0.1 6666 80\r\n").await.is_none());
    assert!(served(&proxy, b"PROXY TCP4 203.0.113.8 10.0.0.1 5555 80\r\n").await.is_some());
}

#[tokio::test]
async fn a_connection_ends_with_the_last_request_that_it_may_have() {
    let proxy = proxy(limits(ClientLimits { requests_per_connection: number(2), ..ClientLimits::default() })).await;
    let mut stream = proxy.connect().await;
    stream.write_all(&b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n".repeat(3)).await.unwrap();
    let answers = read_to_end(&mut stream).await;
    assert_eq!(answers.matches("HTTP/1.1 200").count(), 2, "{answers}");
    assert_eq!(answers.matches("connection: close").count(), 1, "{answers}");

    let (mut client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(proxy.connect().await)).await.unwrap();
    let (ended, end) = tokio::sync::oneshot::channel();
    spawn(async move { drop(ended.send(connection.await)) });
    for _ in 0..2 {
        let request = Request::get("http://shop.test/").body(Full::<Bytes>::default()).unwrap();
        assert_eq!(collect(client.send_request(request).await.unwrap()).await.status(), 200);
    }
    timeout(SOON, end).await.expect("the client is told to go").unwrap().unwrap();
}

#[tokio::test]
async fn a_version_of_http_that_is_left_out_is_answered_with_505() {
    let only = |protocol| ClientSettings { protocols: Some([protocol].into()), ..ClientSettings::default() };
    let old = proxy(only(HttpProtocol::Http1)).await;
    assert_eq!(told(&old, "").await, plain("127.0.0.1"));
    let new = proxy(only(HttpProtocol::Http2)).await;
    assert_eq!(told(&new, "").await, "protocol_disabled");
    for (proxy, status) in [(&old, StatusCode::HTTP_VERSION_NOT_SUPPORTED), (&new, StatusCode::OK)] {
        let io = TokioIo::new(proxy.connect().await);
        let (mut client, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
        spawn(async move { drop(connection.await) });
        let request = Request::get("http://shop.test/").body(Full::<Bytes>::default()).unwrap();
        assert_eq!(client.send_request(request).await.unwrap().status(), status);
    }
}

#[tokio::test]
async fn the_proxy_protocol_tells_the_client_in_both_versions() {
    let proxy = proxy(behind_proxies(&["127.0.0.0/8"])).await;
    let get = b"GET / HTTP/1.1\r\nHost: shop.test\r\nX-Forwarded-For: 1.1.1.1\r\nConnection: close\r\n\r\n";
    let addresses = [203, 0, 113, 9, 10, 0, 0, 1, 0x15, 0xb3, 0, 80];
    for (header, client) in [
        (b"PROXY TCP4 203.0.113.9 10.0.0.1 5555 80\r\n".to_vec(), "203.0.113.9"),
        (b"PROXY TCP6 2001:db8::9 ::1 5555 80\r\n".to_vec(), "2001:db8::9"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
        ([SIGNATURE, &[0x21, 0x11, 0, 12], &addresses].concat(), "203.0.113.9"),
        ([SIGNATURE, &[0x20, 0, 0, 0]].concat(), "127.0.0.1"),
    ] {
        let answer = talk(&proxy, &[&header[..], get].concat()).await;
        assert!(answer.ends_with(&plain(client)), "{answer}");
    }
    let lines = proxy.log.lines(1).await;
    assert_eq!(lines[0]["client"], "203.0.113.9:5555");
    assert!(lines[0]["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{}", lines[0]);
}

#[tokio::test]
async fn a_connection_without_a_good_proxy_header_is_closed_without_an_answer() {
    let quick = ClientTimeouts { request_head: Some(Duration::from_secs(1)), ..ClientTimeouts::default() };
    let proxy = proxy(ClientSettings { timeouts: quick, ..behind_proxies(&["127.0.0.0/8"]) }).await;
    let get = b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n";
    let spilling = [203, 0, 113, 9, 10, 0, 0, 1, 0x15, 0xb3, 0, 80, 4, 0xff, 0xff];
    for header in [
        b"".to_vec(),
        b"PROXY TCP4 203.0.113.9 10.0.0.1 5555\r\n".to_vec(),
        b"PROXY TCP4 203.0.113.9 10.0.0.1 5555 80\n".to_vec(),
        b"PROXY TCP4 2001:db8::9 10.0.0.1 5555 80\r\n".to_vec(),
        [&b"PROXY UNKNOWN "[..], &[b'x'; 200], b"\r\n"].concat(),
        [SIGNATURE, &[0x21, 0x11, 0, 4], &[1, 2, 3, 4]].concat(),
        [SIGNATURE, &[0x21, 0x11, 0, 15], &spilling].concat(),
        [SIGNATURE, &[0x21, 0x11, 0xff, 0xff]].concat(),
        [SIGNATURE, &[0x31, 0x11, 0, 12], &spilling[..12]].concat(),
    ] {
        assert_eq!(talk(&proxy, &[&header[..], get].concat()).await, "", "{}", String::from_utf8_lossy(&header));
    }
    let begun = Instant::now();
    assert_eq!(talk(&proxy, b"PROXY TCP4 203.0").await, "", "one that does not end");
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_proxy_header_from_elsewhere_is_not_taken() {
    let proxy = proxy(behind_proxies(&["192.0.2.0/24"])).await;
    assert!(served(&proxy, b"PROXY TCP4 203.0.113.9 10.0.0.1 5555 80\r\n").await.is_none());
    assert!(served(&proxy, b"").await.is_none());
}

#[tokio::test]
async fn a_policy_that_is_missing_or_invalid_closes_its_listener_and_no_other() {
    let proxy = Proxy::start_closed(backend("one", BackendProtocol::Http1, &[telling().await])).await;
    let objects = [
        listener(&proxy, "http", "", vec![policy_key()]),
        listener(&proxy, "free", "free.test", Vec::new()),
        route("all", vec![rule("/", &[("one", 1)])]),
    ];
    assert_eq!(proxy.upsert(objects).await, []);
    assert_eq!(told(&proxy, "").await, "policy_unavailable");
    let invalid = Policy { key: policy_key(), spec: PolicySpec::Invalid };
    assert_eq!(proxy.upsert([Resource::Policy(Arc::new(invalid))]).await, []);
    assert_eq!(told(&proxy, "").await, "policy_invalid");
    let together = ClientSettings {
        tls: control_plane_model::ClientTls {
            maximum: Some(control_plane_model::TlsVersion::Tls12),
            ..control_plane_model::ClientTls::default()
        },
        ..ClientSettings::default()
    };
    assert_eq!(proxy.upsert([policy(together)]).await, []);
    assert_eq!(told(&proxy, "").await, "policy_invalid", "not with the defaults");
    assert_eq!(proxy.upsert([policy(ClientSettings::default())]).await, []);
    assert_eq!(told(&proxy, "").await, plain("127.0.0.1"));
    let removed = vec![control_plane_model::ResourceKey::Policy(policy_key())];
    proxy.engine.apply(Delta { upserted: Vec::new(), removed }).await;
    assert_eq!(told(&proxy, "").await, "policy_unavailable");
}

#[tokio::test]
async fn listeners_of_one_socket_share_the_strictest_limits_and_have_their_own_trust() {
    let proxy = Proxy::start_closed(backend("one", BackendProtocol::Http1, &[telling().await])).await;
    let strict = ClientSettings {
        limits: ClientLimits { headers: number(10), ..ClientLimits::default() },
        ..believing(&["127.0.0.0/8"], ForwardingHeader::XForwardedFor)
    };
    let key = |name: &str| ListenerKey { name: name.into(), ..listener_key() };
    let Resource::Route(all) = route("all", vec![rule("/", &[("one", 1)])]) else { unreachable!() };
    let mut both = control_plane_model::Route::clone(&all);
    let mut other = both.attachments[0].clone();
    other.listener = key("strict");
    both.attachments.push(other);
    let objects = [
        policy(strict),
        listener(&proxy, "http", "", Vec::new()),
        listener(&proxy, "strict", "strict.test", vec![policy_key()]),
        Resource::Route(Arc::new(both)),
    ];
    assert_eq!(proxy.upsert(objects).await, []);
    assert_eq!(told(&proxy, &"X-A: b\r\n".repeat(9)).await, "too_many_headers");
    let ask = async |host: &str| {
        let request =
            format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n");
        talk(&proxy, request.as_bytes()).await
    };
    assert!(ask("strict.test").await.contains("x-forwarded-for: 203.0.113.9"));
    assert!(ask("shop.test").await.contains("x-forwarded-for: 127.0.0.1"));
}

#[tokio::test]
async fn refused_connections_leave_nothing_behind() {
    let proxy = proxy(behind_proxies(&["127.0.0.0/8"])).await;
    for _ in 0..50 {
        talk(&proxy, b"nonsense, and no header").await;
    }
    eventually(|| (proxy.engine.connections() == 0).then_some(())).await;
}
