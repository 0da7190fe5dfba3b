//! Clients and backends that stop half way, answer early or break the rules, and configuration that changes under them.

use std::{
    convert::Infallible,
    future::Future,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use control_plane_model::{
    AccessLog, BackendProtocol, Delta, Gateway, GatewayKey, Listener, ListenerKey, ListenerProtocol, ObjectName,
    Resource, ResourceKey, TlsTermination,
};
use gateway_engine::{filter::FilterSet, limits::Limits};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;

use crate::harness::{
    Proxy, backend, collect, free_port, listener, listener_key, request, route, rule, saying, spawn, upstream,
};

/// Longer than anything here takes that does not hang.
pub const SOON: Duration = Duration::from_secs(8);

pub type AnyBody = UnsyncBoxBody<Bytes, Infallible>;

fn to(protocol: BackendProtocol, address: SocketAddr) -> Vec<Resource> {
    let mut objects = backend("one", protocol, &[address]).to_vec();
    objects.push(route("all", vec![rule("/", &[("one", 1)])]));
    objects
}

/// An upstream that does with each of its connections as `serve` says.
pub async fn raw_upstream<R>(serve: impl Fn(TcpStream) -> R + Send + 'static) -> SocketAddr
where
    R: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            spawn(serve(stream));
        }
    });
    address
}

/// An HTTP/2 upstream whose answers may be streams.
async fn streaming<R>(answer: impl Fn(Request<Incoming>) -> R + Clone + Send + Sync + 'static) -> SocketAddr
where
    R: Future<Output = Response<AnyBody>> + Send + 'static,
{
    raw_upstream(move |stream| {
        let answer = answer.clone();
        async move {
            let service = service_fn(move |request| {
                let answer = answer(request);
                async move { Ok::<_, Infallible>(answer.await) }
            });
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            drop(server.serve_connection(TokioIo::new(stream), service).await);
        }
    })
    .await
}

/// An HTTP/2 client of the proxy whose stream windows are small.
pub async fn http2<B, F: FilterSet>(proxy: &Proxy<F>) -> hyper::client::conn::http2::SendRequest<B>
where
    B: http_body::Body<Data = Bytes, Error = Infallible> + Send + Unpin + 'static,
{
    let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    builder.initial_stream_window_size(65_535).initial_connection_window_size(4 << 20);
    let (client, connection) = builder.handshake(TokioIo::new(proxy.connect().await)).await.unwrap();
    spawn(async move { drop(connection.await) });
    client
}

/// Everything up to the end of a response's head.
pub async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(timeout(SOON, stream.read_u8()).await.unwrap().unwrap());
    }
    String::from_utf8(head).unwrap()
}

#[tokio::test]
async fn an_answer_before_the_end_of_the_upload_holds_up_no_later_request() {
    let (closed, mut closings) = mpsc::channel(16);
    let address = raw_upstream(move |mut stream| {
        let closed = closed.clone();
        async move {
            let head = read_head(&mut stream).await;
            if head.starts_with("GET") {
                stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
                return;
            }
            stream.write_all(b"HTTP/1.1 413 Large\r\ncontent-length: 2\r\n\r\nno").await.unwrap();
            drop(stream.read_to_end(&mut Vec::new()).await);
            closed.send(()).await.unwrap();
        }
    })
    .await;
    let proxy = Proxy::start(to(BackendProtocol::Http1, address)).await;
    let mut uploads = Vec::new();
    // Enough for each worker to have one.
    for _ in 0..4 {
        let mut client = proxy.connect().await;
        client.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\nbegin").await.unwrap();
        assert!(read_head(&mut client).await.starts_with("HTTP/1.1 413 "));
        uploads.push(client);
    }
    for _ in 0..4 {
        let response = timeout(SOON, proxy.get("/")).await.expect("it waits for another client's upload");
        assert_eq!(response.status(), StatusCode::OK);
    }
    for _ in &uploads {
        timeout(SOON, closings.recv()).await.expect("the upstream connection stays open").unwrap();
    }
}

#[tokio::test]
async fn clients_that_do_not_read_hold_up_no_other_clients_responses_from_an_http2_backend() {
    let big = Bytes::from(vec![b'x'; 32 << 20]);
    let address = upstream(move |request| {
        let body = if request.uri().path() == "/big" { big.clone() } else { Bytes::from_static(b"small") };
        async move { Response::new(Full::new(body)) }
    })
    .await;
    let proxy = Proxy::start(to(BackendProtocol::H2c, address)).await;
    let mut stalled = Vec::new();
    for _ in 0..16 {
        let mut client = proxy.connect().await;
        client.write_all(b"GET /big HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        assert!(read_head(&mut client).await.starts_with("HTTP/1.1 200 "));
        stalled.push(client);
    }
    for _ in 0..200 {
        let response = timeout(SOON, proxy.get("/")).await.expect("it waits for clients that do not read");
        assert_eq!(response.body(), "small");
    }
}

/// A request body that the test sends piece by piece.
pub fn pieces() -> (mpsc::Sender<Result<Frame<Bytes>, Infallible>>, AnyBody) {
    let (sender, receiver) = mpsc::channel(1);
    (sender, StreamBody::new(ReceiverStream::new(receiver)).boxed_unsync())
}

pub fn data(text: &'static str) -> Frame<Bytes> {
    Frame::data(Bytes::from_static(text.as_bytes()))
}

#[tokio::test]
async fn a_stream_of_messages_may_pause_while_its_response_is_under_way() {
    let address = streaming(|request| async move {
        let (sender, body) = pieces();
        spawn(async move {
            let mut incoming = request.into_body();
            while let Some(Ok(frame)) = incoming.frame().await {
                drop(sender.send(Ok(frame)).await);
            }
        });
        Response::new(body)
    })
    .await;
    let limits = Limits { request_body_idle_timeout: Duration::from_secs(2), ..Limits::default() };
    let proxy = Proxy::start_with(limits, to(BackendProtocol::H2c, address)).await;
    let mut client = http2(&proxy).await;
    let (sender, body) = pieces();
    sender.send(Ok(data("one"))).await.unwrap();
    let request = Request::post("http://test.example/").body(body).unwrap();
    let mut response = timeout(SOON, client.send_request(request)).await.unwrap().unwrap();
    let first = response.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(first, "one");
    // The pause is what is tested: it is longer than the limit.
    tokio::time::sleep(Duration::from_secs(3)).await;
    sender.send(Ok(data("two"))).await.unwrap();
    drop(sender);
    assert_eq!(timeout(SOON, response.collect()).await.unwrap().unwrap().to_bytes(), "two");
}

#[tokio::test]
async fn an_upload_that_stops_is_the_clients_fault() {
    for protocol in [BackendProtocol::Http1, BackendProtocol::H2c] {
        let address = upstream(|request| async move {
            drop(request.into_body().collect().await);
            Response::new(Full::default())
        })
        .await;
        let limits = Limits { request_body_idle_timeout: Duration::from_millis(200), ..Limits::default() };
        let proxy = Proxy::start_with(limits, to(protocol, address)).await;
        let mut client = proxy.connect().await;
        client.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 20\r\n\r\nx").await.unwrap();
        let answer = read_head(&mut client).await;
        assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("request_timeout"), "{answer}");
    }
}

#[tokio::test]
async fn an_http2_client_that_shuts_its_window_loses_the_stream_and_no_other() {
    let big = Bytes::from(vec![b'x'; 1 << 20]);
    let address = upstream(move |request| {
        let body = if request.uri().path() == "/big" { big.clone() } else { Bytes::from_static(b"small") };
        async move { Response::new(Full::new(body)) }
    })
    .await;
    let limits = Limits { response_write_idle_timeout: Duration::from_millis(300), ..Limits::default() };
    let proxy = Proxy::start_with(limits, to(BackendProtocol::Http1, address)).await;
    let mut client = http2(&proxy).await;
    let get = |path: &str| Request::get(format!("http://test.example{path}")).body(Full::<Bytes>::default()).unwrap();
    let stalled = client.send_request(get("/big")).await.unwrap();
    let line = proxy.log.lines(1).await.remove(0);
    assert_eq!((&line["path"], &line["flag"]), (&"/big".into(), &"client_closed".into()));
    assert_eq!(collect(client.send_request(get("/")).await.unwrap()).await.body(), "small");
    assert!(stalled.collect().await.is_err(), "the stream was reset");
}

#[tokio::test]
async fn an_http2_client_that_is_idle_is_told_before_its_connection_closes() {
    let limits = Limits { downstream_idle_timeout: Duration::from_secs(3), ..Limits::default() };
    let proxy = Proxy::start_with(limits, to(BackendProtocol::Http1, saying("x").await)).await;
    let mut client = proxy.connect().await;
    client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut frames = Vec::new();
    drop(timeout(SOON, client.read_to_end(&mut frames)).await.expect("it stays open"));
    let mut kinds = Vec::new();
    let mut rest = frames.as_slice();
    while let [a, b, c, kind, _, _, _, _, _, payload @ ..] = rest {
        kinds.push(*kind);
        rest = payload.get(usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c)..).unwrap_or_default();
    }
    const GOAWAY: u8 = 7;
    assert!(kinds.contains(&GOAWAY), "{kinds:?}");
}

#[tokio::test]
async fn what_ends_at_a_backends_hop_does_not_reach_the_client() {
    let address = raw_upstream(|mut stream| async move {
        read_head(&mut stream).await;
        let answer = "HTTP/1.1 200 OK\r\nconnection: x-one\r\nconnection: x-two\r\nx-one: 1\r\nx-two: 2\r\nx-three: 3\r\n\
                      content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
        stream.write_all(answer.as_bytes()).await.unwrap();
        drop(stream.read_u8().await);
    })
    .await;
    let proxy = Proxy::start(to(BackendProtocol::Http1, address)).await;
    let response = proxy.get("/").await;
    assert_eq!(response.body(), "hello", "the chunks count, not the length beside them");
    let mut names: Vec<_> = response.headers().keys().map(http::HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["date", "transfer-encoding", "x-three"]);
}

#[tokio::test]
async fn many_requests_at_once_open_one_connection_to_an_http2_backend() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let accepted = connections.clone();
    spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            accepted.fetch_add(1, Ordering::SeqCst);
            spawn(async move {
                let service = service_fn(|_| async { Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("x"))) });
                let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                drop(server.serve_connection(TokioIo::new(stream), service).await);
            });
        }
    });
    let proxy = Proxy::start(to(BackendProtocol::H2c, address)).await;
    // One connection of a client, and so one worker.
    let client = http2(&proxy).await;
    let get = || Request::get("http://test.example/").body(Full::<Bytes>::default()).unwrap();
    let requests = (0..60).map(|_| {
        let mut client = client.clone();
        async move { client.send_request(get()).await.unwrap().status() }
    });
    assert!(futures::future::join_all(requests).await.iter().all(|status| *status == 200));
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn when_the_connection_that_many_wait_for_cannot_be_opened_all_are_told_at_once() {
    let proxy = Proxy::start(to(BackendProtocol::H2c, ([127, 0, 0, 1], free_port().get()).into())).await;
    let client = http2(&proxy).await;
    let get = || Request::get("http://test.example/").body(Full::<Bytes>::default()).unwrap();
    let requests = (0..60).map(|_| {
        let mut client = client.clone();
        async move { client.send_request(get()).await.unwrap() }
    });
    let answers = timeout(SOON, futures::future::join_all(requests)).await.unwrap();
    assert!(answers.iter().all(|answer| answer.headers()["x-nebula-reason"] == "upstream_connect_failed"));
}

#[tokio::test]
async fn a_backend_that_does_not_speak_http2_is_named_as_that() {
    let address = raw_upstream(|mut stream| async move {
        read_head(&mut stream).await;
        drop(stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await);
        drop(stream.read_to_end(&mut Vec::new()).await);
    })
    .await;
    let proxy = Proxy::start(to(BackendProtocol::H2c, address)).await;
    let response = proxy.get("/").await;
    assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
    assert_eq!(response.headers()["x-nebula-reason"], "upstream_protocol_error");
}

#[tokio::test]
async fn a_whole_response_counts_as_whole_although_its_stream_ends_later() {
    let address = streaming(|_| async {
        let trailers = HeaderMap::from_iter([("x-last".parse().unwrap(), "end".parse().unwrap())]);
        let body = Full::new(Bytes::from("data")).with_trailers(std::future::ready(Some(Ok(trailers))));
        Response::builder().header("content-length", 4).body(body.boxed_unsync()).unwrap()
    })
    .await;
    let proxy = Proxy::start(to(BackendProtocol::H2c, address)).await;
    assert_eq!(proxy.get("/").await.body(), "data");
    assert_eq!(proxy.log.lines(1).await[0]["flag"], serde_json::Value::Null);
}

#[tokio::test]
async fn a_log_line_is_short_whatever_the_client_sends_and_there_is_none_where_none_is_wanted() {
    let proxy = Proxy::start(to(BackendProtocol::Http1, saying("x").await)).await;
    let gateway = |access_log| {
        Resource::Gateway(Arc::new(Gateway {
            key: listener_key().gateway,
            access_log,
            tracing: None,
            policies: Vec::new(),
        }))
    };
    assert_eq!(proxy.upsert([gateway(AccessLog::Off)]).await, []);
    let ask = async |head: String| {
        let mut client = proxy.connect().await;
        client.write_all(head.as_bytes()).await.unwrap();
        read_head(&mut client).await
    };
    assert!(ask("GET / HTTP/1.1\r\n\r\n".into()).await.starts_with("HTTP/1.1 400 "));
    assert_eq!(proxy.upsert([gateway(AccessLog::Json)]).await, []);
    let (method, agent, path) = ("M".repeat(5_000), "a".repeat(5_000), "p".repeat(5_000));
    ask(format!("{method} /{path} HTTP/1.1\r\nhost: a\r\nuser-agent: {agent}\r\n\r\n")).await;
    let line = proxy.log.lines(1).await.remove(0);
    let length = |field: &str| line[field].as_str().unwrap().len();
    assert_eq!((length("method"), length("user_agent"), length("path")), (32, 1024, 1024));
}

#[tokio::test]
async fn a_client_in_the_middle_of_its_upload_gets_the_answer_that_came_early() {
    let proxy = Proxy::start([]).await;
    let mut client = proxy.connect().await;
    let head = format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", 16 << 20);
    client.write_all(head.as_bytes()).await.unwrap();
    let sent = timeout(SOON, client.write_all(&vec![b'x'; 16 << 20])).await.unwrap();
    assert!(sent.is_ok(), "{sent:?}");
    assert!(read_head(&mut client).await.starts_with("HTTP/1.1 404 "));
}

#[tokio::test]
async fn configuration_opens_no_port_once_the_engine_drains() {
    let proxy = Proxy::start(to(BackendProtocol::Http1, saying("x").await)).await;
    assert!(proxy.engine.drain(SOON).await);
    assert_eq!(proxy.upsert(to(BackendProtocol::Http1, saying("y").await)).await, []);
    let connects = || std::net::TcpStream::connect(("127.0.0.1", proxy.port.get())).is_ok();
    // The workers close their sockets a moment after they are told.
    crate::harness::eventually(|| (!connects()).then_some(())).await;
    assert_eq!(proxy.engine.apply(Delta::default()).await, []);
    assert!(!connects());
}

#[tokio::test]
async fn a_port_passes_from_one_gateways_listener_to_anothers_in_one_delta() {
    let proxy = Proxy::start(to(BackendProtocol::Http1, saying("x").await)).await;
    let gateway = GatewayKey(ObjectName::new("test", "other"));
    let key = ListenerKey { gateway, ..listener_key() };
    let Resource::Listener(old) = listener(proxy.port, ListenerProtocol::Http) else { unreachable!() };
    let new = Resource::Listener(Arc::new(Listener { key, ..Listener::clone(&old) }));
    let removed = vec![ResourceKey::Listener(listener_key())];
    assert_eq!(proxy.engine.apply(Delta { upserted: vec![new], removed }).await, []);
    assert_eq!(proxy.get("/").await.headers()["x-nebula-reason"], "no_route");
}

#[tokio::test]
async fn a_connection_without_tls_ends_its_service_when_the_listener_turns_to_https() {
    let proxy = Proxy::start(to(BackendProtocol::Http1, saying("secret").await)).await;
    let mut client = proxy.client().await;
    assert_eq!(collect(client.send_request(request("/")).await.unwrap()).await.body(), "secret");
    let https = ListenerProtocol::Https(TlsTermination { certificates: Vec::new() });
    assert_eq!(proxy.upsert([listener(proxy.port, https)]).await, []);
    client.ready().await.unwrap();
    let response = collect(client.send_request(request("/")).await.unwrap()).await;
    assert_eq!(response.status(), StatusCode::MISDIRECTED_REQUEST);
}

/// Answers the first request of each connection and closes, or resets, it in the middle of the second.
async fn closes_on_the_second_request(resets: bool) -> SocketAddr {
    raw_upstream(move |mut stream| async move {
        let mut buffer = [0; 4096];
        let Ok(1..) = stream.read(&mut buffer).await else { return };
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
        drop(stream.read(&mut buffer).await);
        if resets {
            // Closing then sends RST in place of FIN.
            stream.set_zero_linger().unwrap();
        }
    })
    .await
}

#[tokio::test]
async fn a_safe_request_outlives_a_pooled_connection_that_its_backend_closes() {
    for resets in [false, true] {
        let proxy = Proxy::start(to(BackendProtocol::Http1, closes_on_the_second_request(resets).await)).await;
        let mut client = proxy.client().await;
        for _ in 0..10 {
            client.ready().await.unwrap();
            let response = collect(client.send_request(request("/")).await.unwrap()).await;
            assert_eq!((response.status(), &response.body()[..]), (StatusCode::OK, &b"ok"[..]), "{resets}");
        }
    }
}

#[tokio::test]
async fn a_request_that_may_change_something_is_not_sent_twice() {
    let proxy = Proxy::start(to(BackendProtocol::Http1, closes_on_the_second_request(false).await)).await;
    let mut client = proxy.client().await;
    assert_eq!(collect(client.send_request(request("/")).await.unwrap()).await.status(), StatusCode::OK);
    client.ready().await.unwrap();
    let post = Request::post("/").header("host", "test.example").body(Full::from("x")).unwrap();
    let response = collect(client.send_request(post).await.unwrap()).await;
    assert_eq!(
        (response.status(), &response.headers()["x-nebula-reason"]),
        (StatusCode::BAD_GATEWAY, &"upstream_reset".parse().unwrap())
    );
}

#[tokio::test]
async fn a_response_that_drips_on_ends_with_its_attempts_time() {
    let address = raw_upstream(|mut stream| async move {
        read_head(&mut stream).await;
        drop(stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n").await);
        // As slow as a hostile backend likes: each byte comes well within the idle limit.
        while stream.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let mut limited = rule("/", &[("one", 1)]);
    limited.timeouts.backend_request = Some(Duration::from_millis(300));
    let mut objects = backend("one", BackendProtocol::Http1, &[address]).to_vec();
    objects.push(route("all", vec![limited]));
    let proxy = Proxy::start(objects).await;
    let mut client = proxy.client().await;
    let response = client.send_request(request("/")).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert!(timeout(SOON, response.collect()).await.expect("it goes on for ever").is_err());
    assert_eq!(proxy.log.lines(1).await[0]["flag"], "response_body_timeout");
}

#[tokio::test]
async fn a_request_that_waits_while_the_drain_begins_is_answered() {
    let proxy = Proxy::start(to(BackendProtocol::Http1, saying("x").await)).await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = proxy.connect().await;
        client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        clients.push(client);
    }
    assert!(proxy.engine.drain(SOON).await);
    for mut client in clients {
        let mut answer = String::new();
        timeout(SOON, client.read_to_string(&mut answer)).await.unwrap().unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer:?}");
    }
}

#[tokio::test]
async fn a_tunnel_whose_backend_has_said_all_still_carries_what_the_client_says() {
    let (sender, mut received) = mpsc::channel(1);
    let address = raw_upstream(move |mut stream| {
        let sender = sender.clone();
        async move {
            read_head(&mut stream).await;
            let switch = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\nbye";
            stream.write_all(switch).await.unwrap();
            stream.shutdown().await.unwrap();
            let mut text = String::new();
            drop(stream.read_to_string(&mut text).await);
            sender.send(text).await.unwrap();
        }
    })
    .await;
    let proxy = Proxy::start(to(BackendProtocol::Http1, address)).await;
    let mut client = proxy.connect().await;
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n").await.unwrap();
    assert!(read_head(&mut client).await.starts_with("HTTP/1.1 101 "));
    let mut said = String::new();
    timeout(SOON, client.read_to_string(&mut said)).await.unwrap().unwrap();
    assert_eq!(said, "bye");
    client.write_all(b"not yet").await.unwrap();
    drop(client);
    assert_eq!(timeout(SOON, received.recv()).await.unwrap().unwrap(), "not yet");
}

#[tokio::test]
async fn a_backend_cannot_pose_as_the_gateway() {
    let address = upstream(|_| async {
        Response::builder().header("x-nebula-reason", "no_route").body(Full::from("mine")).unwrap()
    })
    .await;
    let response = Proxy::start(to(BackendProtocol::Http1, address)).await.get("/").await;
    assert_eq!((response.body().as_ref(), response.headers().get("x-nebula-reason")), (&b"mine"[..], None));
}

#[tokio::test]
async fn grpc_web_goes_to_a_backend_in_the_backends_own_protocol() {
    let address =
        upstream(|request| async move { Response::new(Full::from(format!("{:?}", request.version()))) }).await;
    let proxy = Proxy::start(to(BackendProtocol::Http1, address)).await;
    let ask = async |kind: &str| {
        let request = Request::post("/").header("host", "a").header("content-type", kind).body(Full::default());
        collect(proxy.client().await.send_request(request.unwrap()).await.unwrap()).await.into_body()
    };
    assert_eq!(ask("application/grpc-web+proto").await, "HTTP/1.1");
    assert_eq!(ask("application/grpc").await, "HTTP/2.0");
}

#[tokio::test]
async fn what_nobody_reads_stays_with_its_sender() {
    // More than the buffers of four sockets hold where the kernel lets them grow furthest, and far less than what is on offer.
    const MOST: usize = 128 << 20;
    let (sender, mut sent) = mpsc::channel(1);
    let address = raw_upstream(move |mut stream| {
        let sender = sender.clone();
        async move {
            read_head(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n").await.unwrap();
            let (mut total, piece) = (0, vec![0; 64 << 10]);
            // Until a write waits: everything on the way is full, or the proxy takes without end.
            while let Ok(Ok(count)) = timeout(Duration::from_secs(1), stream.write(&piece)).await {
                total += count;
                if total > MOST {
                    break;
                }
            }
            sender.send(total).await.unwrap();
        }
    })
    .await;
    let proxy = Proxy::start(to(BackendProtocol::Http1, address)).await;
    let mut client = proxy.connect().await;
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    assert!(read_head(&mut client).await.starts_with("HTTP/1.1 200 "));
    let total = timeout(Duration::from_secs(30), sent.recv()).await.unwrap().unwrap();
    assert!(total <= MOST, "the proxy took {total} bytes that its client does not read");
}
