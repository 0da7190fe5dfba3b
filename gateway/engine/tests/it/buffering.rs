//! Bodies that a filter asks for: they arrive whole, are forwarded byte for byte, and cost no more than they may.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use control_plane_model::{BackendProtocol, Filter, HeaderModifier, Policy, Resource};
use futures::FutureExt as _;
use gateway_engine::{
    filter::{FilterSet, HttpFilter, InvalidFilter, InvalidPolicy, RequestContext, Stage, Verdict},
    limits::Limits,
};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Frame, Incoming};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use crate::{
    harness::{Proxy, backend, collect, route, rule, spawn, upstream},
    robustness::{AnyBody, SOON, data, http2, pieces, raw_upstream, read_head},
};

const LIMIT: usize = 1 << 20;
const SAW: HeaderName = HeaderName::from_static("x-saw");

/// Does with a body what the path says.
struct Reads;

/// Short, and different for bodies that differ.
fn digest(bytes: &[u8]) -> String {
    let sum = bytes.iter().fold(7u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)));
    format!("{} {sum:x}", bytes.len())
}

impl HttpFilter for Reads {
    fn stage(&self) -> Stage {
        Stage::Validation
    }

    async fn on_request(&self, request: &mut RequestContext<'_>) -> Verdict {
        let path = request.received.uri.path().to_owned();
        let saw = match path.as_str() {
            "/whole" | "/missing" => match request.body(LIMIT).await {
                Ok(bytes) => digest(&bytes),
                Err(problem) => return Verdict::Reply(problem.into()),
            },
            "/twice" => {
                let problem = request.body(10).await.unwrap_err();
                match request.body(LIMIT).await {
                    Ok(bytes) => format!("{problem}; {}", digest(&bytes)),
                    Err(problem) => return Verdict::Reply(problem.into()),
                }
            }
            "/limited" => match request.limit_body(10) {
                Ok(()) => "limited".to_owned(),
                Err(problem) => return Verdict::Reply(problem.into()),
            },
            "/report" => match request.body(10).await {
                Ok(bytes) => digest(&bytes),
                Err(problem) => problem.to_string(),
            },
            "/given-up" => {
                drop(timeout(Duration::from_millis(50), request.body(LIMIT)).await);
                "nothing".to_owned()
            }
            _ => "nothing".to_owned(),
        };
        request.headers().set(&SAW, HeaderValue::from_str(&saw).unwrap()).unwrap();
        Verdict::Continue
    }
}

impl FilterSet for Reads {
    type State = ();

    fn compile(_: &Filter) -> Result<Self, InvalidFilter> {
        Ok(Self)
    }

    fn compile_policies(_: &[Arc<Policy>], _: &Arc<()>) -> Result<Vec<Self>, InvalidPolicy> {
        Ok(Vec::new())
    }
}

fn to(protocol: BackendProtocol, addresses: &[SocketAddr]) -> Vec<Resource> {
    let mut all = rule("/", &[("one", 1)]);
    all.filters = vec![Filter::RequestHeaderModifier(HeaderModifier::default())];
    let mut objects = backend("one", protocol, addresses).to_vec();
    objects.push(route("all", vec![all]));
    objects
}

async fn proxy(limits: Limits, protocol: BackendProtocol, address: SocketAddr) -> Proxy<Reads> {
    Proxy::start_filtering(limits, to(protocol, &[address])).await
}

/// Answers with the framing, what the filter saw, and what arrived.
async fn tells(request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let text = |name: &str| head.headers.get(name).map_or("-", |value| value.to_str().unwrap()).to_owned();
    let (length, coding, saw) = (text("content-length"), text("transfer-encoding"), text("x-saw"));
    let Ok(body) = body.collect().await else { return Response::new(Full::from("broken")) };
    let trailers = body.trailers().map_or(0, HeaderMap::len);
    let arrived = digest(&body.to_bytes());
    Response::new(Full::from(format!(
        "length={length} coding={coding} saw={saw} arrived={arrived} trailers={trailers}"
    )))
}

fn noise(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|index| u8::try_from(index * index % 251).unwrap()).collect()
}

fn chunked(bytes: &[u8], piece: usize) -> Vec<u8> {
    let mut framed = Vec::new();
    for chunk in bytes.chunks(piece) {
        framed.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        framed.extend_from_slice(chunk);
        framed.extend_from_slice(b"\r\n");
    }
    framed.extend_from_slice(b"0\r\n\r\n");
    framed
}

/// Sends raw bytes and returns the whole answer.
async fn raw<F: FilterSet>(proxy: &Proxy<F>, pieces: &[&[u8]]) -> String {
    let mut client = proxy.connect().await;
    for piece in pieces {
        client.write_all(piece).await.unwrap();
    }
    read_answer(&mut client).await
}

/// A head and the body that its `content-length` tells of.
async fn read_answer(client: &mut TcpStream) -> String {
    let head = read_head(client).await;
    let length =
        head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |it| it.parse().unwrap());
    let mut body = vec![0; length];
    timeout(SOON, client.read_exact(&mut body)).await.unwrap().unwrap();
    head + &String::from_utf8(body).unwrap()
}

#[tokio::test]
async fn what_a_filter_saw_is_what_is_forwarded_with_its_length() {
    for protocol in [BackendProtocol::Http1, BackendProtocol::H2c] {
        let proxy = proxy(Limits::default(), protocol, upstream(tells).await).await;
        for bytes in [0, 1, 3_000, 70_000, LIMIT] {
            let body = noise(bytes);
            let seen = digest(&body);
            let expected = format!("coding=- saw={seen} arrived={seen} trailers=0");
            // HTTP/2 needs no length for nothing.
            let lengths = if bytes == 0 { vec!["length=0", "length=-"] } else { vec![""] };
            let check = |answer: &str| {
                let length = format!("length={bytes} ");
                let is_framed =
                    answer.contains(&length) || lengths.iter().any(|it| !it.is_empty() && answer.contains(it));
                assert!(answer.contains(&expected) && is_framed, "{protocol:?} {bytes}: {answer}");
            };
            let head = format!("POST /whole HTTP/1.1\r\nhost: a\r\ncontent-length: {bytes}\r\n\r\n");
            check(&raw(&proxy, &[head.as_bytes(), &body]).await);
            let head = "POST /whole HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
            check(&raw(&proxy, &[head.as_bytes(), &chunked(&body, 1_000)]).await);
            let mut client = http2(&proxy).await;
            let request = Request::post("http://a/whole").body(Full::<Bytes>::from(body)).unwrap();
            let answer = collect(timeout(SOON, client.send_request(request)).await.unwrap().unwrap()).await;
            check(std::str::from_utf8(answer.body()).unwrap());
        }
    }
}

#[tokio::test]
async fn a_request_whose_filters_do_not_ask_is_streamed() {
    let (begun, mut begins) = tokio::sync::mpsc::channel(1);
    let address = upstream(move |request: Request<Incoming>| {
        let begun = begun.clone();
        async move {
            begun.send(()).await.unwrap();
            tells(request).await
        }
    })
    .await;
    let proxy = proxy(Limits::default(), BackendProtocol::Http1, address).await;
    let mut client = proxy.connect().await;
    client.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nab").await.unwrap();
    timeout(SOON, begins.recv()).await.expect("the backend waits for the whole body").unwrap();
    client.write_all(b"cd").await.unwrap();
    let answer = read_answer(&mut client).await;
    assert!(answer.contains("saw=nothing") && answer.contains(&format!("arrived={}", digest(b"abcd"))), "{answer}");
}

#[tokio::test]
async fn a_backend_hears_nothing_of_a_body_that_is_too_large() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let address = upstream(move |request: Request<Incoming>| {
        counted.fetch_add(1, Ordering::Relaxed);
        tells(request)
    })
    .await;
    let proxy = proxy(Limits::default(), BackendProtocol::Http1, address).await;
    // Announced: refused before a byte of it has come, and nobody is told to send it.
    let head =
        format!("POST /whole HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: {}\r\n\r\n", LIMIT + 1);
    let mut client = proxy.connect().await;
    client.write_all(head.as_bytes()).await.unwrap();
    let answer = read_answer(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("connection: close"), "{answer}");
    assert!(answer.contains("request_body_too_large") && answer.contains("1048576 bytes"), "{answer}");
    assert_eq!(timeout(SOON, client.read_to_end(&mut Vec::new())).await.unwrap().unwrap(), 0);
    // Not announced: refused in the middle, and the answer is not lost although the client goes on.
    let mut client = proxy.connect().await;
    client.write_all(b"POST /whole HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
    client.write_all(&chunked(&noise(LIMIT + 300_000), 10_000)).await.unwrap();
    let answer = read_answer(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("connection: close"), "{answer}");
    // HTTP/2: the stream ends, the connection goes on.
    let mut client = http2(&proxy).await;
    let (sender, body) = pieces();
    let request = Request::post("http://a/whole").body(body).unwrap();
    let answer = client.send_request(request);
    spawn(async move {
        let piece = Bytes::from(noise(100_000));
        while sender.send(Ok(Frame::data(piece.clone()))).await.is_ok() {}
    });
    let answer = collect(timeout(SOON, answer).await.unwrap().unwrap()).await;
    assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(asked.load(Ordering::Relaxed), 0);
    let (sender, body) = pieces();
    drop(sender);
    let request = Request::post("http://a/whole").body(body).unwrap();
    assert_eq!(timeout(SOON, client.send_request(request)).await.unwrap().unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn a_limit_without_a_buffer_holds_for_what_is_announced_and_for_what_comes() {
    let proxy = proxy(Limits::default(), BackendProtocol::Http1, upstream(tells).await).await;
    let within = raw(&proxy, &[b"POST /limited HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n0123456789"]).await;
    assert!(within.contains(&format!("arrived={}", digest(b"0123456789"))), "{within}");
    for beyond in [
        "content-length: 11\r\n\r\n01234567890",
        "transfer-encoding: chunked\r\n\r\n6\r\n012345\r\n5\r\n67890\r\n0\r\n\r\n",
    ] {
        let answer = raw(&proxy, &[format!("POST /limited HTTP/1.1\r\nhost: a\r\n{beyond}").as_bytes()]).await;
        assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("connection: close"), "{answer}");
    }
}

#[tokio::test]
async fn a_body_beyond_the_limit_can_still_be_forwarded_as_it_came() {
    let proxy = proxy(Limits::default(), BackendProtocol::Http1, upstream(tells).await).await;
    let body = noise(200_000);
    let arrived = format!("arrived={}", digest(&body));
    for path in ["/report", "/twice"] {
        let head = format!("POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: 200000\r\n\r\n");
        let announced = raw(&proxy, &[head.as_bytes(), &body]).await;
        let head = format!("POST {path} HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n");
        let read = raw(&proxy, &[head.as_bytes(), &chunked(&body, 1_000)]).await;
        for answer in [announced, read] {
            assert!(answer.contains("saw=the body is larger than 10 bytes") && answer.contains(&arrived), "{answer}");
        }
    }
}

#[tokio::test]
async fn trailers_are_refused_where_the_body_is_read_and_forwarded_where_that_is_overruled() {
    let proxy = proxy(Limits::default(), BackendProtocol::H2c, upstream(tells).await).await;
    let send = async |path: &str| {
        let mut client = http2(&proxy).await;
        let (sender, body) = pieces();
        let request = Request::post(format!("http://a{path}")).body(body).unwrap();
        let answer = client.send_request(request);
        let trailers = HeaderMap::from_iter([(HeaderName::from_static("x-tenant"), HeaderValue::from_static("other"))]);
        sender.send(Ok(data("text"))).await.unwrap();
        sender.send(Ok(Frame::trailers(trailers))).await.unwrap();
        drop(sender);
        collect(timeout(SOON, answer).await.unwrap().unwrap()).await
    };
    let refused = send("/whole").await;
    assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
    assert_eq!(refused.headers()["x-nebula-reason"], "request_body_error");
    let passed = send("/report").await;
    let text = std::str::from_utf8(passed.body()).unwrap();
    let expected = format!("saw=the body has trailers arrived={} trailers=1", digest(b"text"));
    assert!(text.contains(&expected), "{text}");
}

#[tokio::test]
async fn a_client_is_told_to_send_when_its_body_is_first_asked_for() {
    let proxy = proxy(Limits::default(), BackendProtocol::Http1, upstream(tells).await).await;
    let mut client = proxy.connect().await;
    client
        .write_all(b"POST /whole HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(read_head(&mut client).await, "HTTP/1.1 100 Continue\r\n\r\n");
    client.write_all(b"ok").await.unwrap();
    let answer = read_answer(&mut client).await;
    assert!(answer.contains(&format!("arrived={}", digest(b"ok"))), "{answer}");
}

#[tokio::test]
async fn a_client_that_stops_or_drips_gets_408_and_one_that_leaves_is_logged() {
    let idle = Limits { request_body_idle_timeout: Duration::from_millis(200), ..Limits::default() };
    let whole = Limits { request_buffer_timeout: Duration::from_millis(400), ..Limits::default() };
    for limits in [idle, whole] {
        let proxy = proxy(limits, BackendProtocol::Http1, upstream(tells).await).await;
        let mut client = proxy.connect().await;
        client.write_all(b"POST /whole HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\n").await.unwrap();
        let (mut reader, mut writer) = client.into_split();
        spawn(async move {
            for _ in 0..8 {
                // The pace of the client is what is tested.
                tokio::time::sleep(Duration::from_millis(80)).await;
                if writer.write_all(b"x").await.is_err() {
                    return;
                }
            }
            tokio::time::sleep(SOON).await;
        });
        let mut answer = vec![0; 12];
        timeout(SOON, reader.read_exact(&mut answer)).await.expect("the client may go on for ever").unwrap();
        assert_eq!(answer, b"HTTP/1.1 408");
        let mut leaving = proxy.connect().await;
        leaving.write_all(b"POST /whole HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\nabc").await.unwrap();
        drop(leaving);
        let lines = proxy.log.lines(2).await;
        assert_eq!(lines[1]["attempts"], 0, "{}", lines[1]);
        assert_eq!(lines[1]["request_bytes"], 3, "{}", lines[1]);
    }
}

#[tokio::test]
async fn a_body_that_was_given_up_is_not_forwarded() {
    let proxy = proxy(Limits::default(), BackendProtocol::Http1, upstream(tells).await).await;
    let mut client = proxy.connect().await;
    client.write_all(b"POST /given-up HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nab").await.unwrap();
    let answer = read_answer(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("request_body_error"), "{answer}");
}

#[tokio::test]
async fn uploads_beyond_the_budget_are_told_to_come_again_and_its_memory_comes_back() {
    let limits = Limits { request_buffer_bytes: 300_000, ..Limits::default() };
    let proxy = proxy(limits, BackendProtocol::Http1, upstream(tells).await).await;
    let head = b"POST /whole HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n";
    let body = noise(100_000);
    for _ in 0..3 {
        let mut stalled = Vec::new();
        for _ in 0..8 {
            let mut client = proxy.connect().await;
            client.write_all(head).await.unwrap();
            client.write_all(&body[..99_999]).await.unwrap();
            stalled.push(client);
        }
        // Those that were refused have an answer; the others wait for their last byte.
        let refusals = async {
            let mut refused = 0;
            while refused < 5 {
                refused = 0;
                for client in &mut stalled {
                    let mut first = [0; 12];
                    if let Some(Ok(12)) = client.peek(&mut first).now_or_never() {
                        assert_eq!(&first, b"HTTP/1.1 503");
                        refused += 1;
                    }
                }
                tokio::task::yield_now().await;
            }
        };
        timeout(SOON, refusals).await.expect("more is held than there is room for");
        let mut accepted = 0;
        for mut client in stalled {
            drop(client.write_all(&body[99_999..]).await);
            let answer = read_answer(&mut client).await;
            if answer.starts_with("HTTP/1.1 503 ") {
                assert!(answer.contains("retry-after: 1") && answer.contains("buffer_memory_exhausted"), "{answer}");
            } else {
                assert!(answer.contains(&format!("arrived={}", digest(&body))), "{answer}");
                accepted += 1;
            }
        }
        assert!((1..=3).contains(&accepted), "{accepted} bodies of 100,000 bytes in 300,000");
    }
}

#[tokio::test]
async fn a_body_in_memory_goes_to_the_next_endpoint_where_the_first_refuses() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let proxy = Proxy::<Reads>::start_filtering(
        Limits::default(),
        to(BackendProtocol::Http1, &[closed, upstream(tells).await]),
    )
    .await;
    let body = noise(5_000);
    for _ in 0..8 {
        let head = b"POST /whole HTTP/1.1\r\nhost: a\r\ncontent-length: 5000\r\n\r\n";
        let answer = raw(&proxy, &[head, &body]).await;
        assert!(answer.contains(&format!("arrived={}", digest(&body))), "{answer}");
    }
}

#[tokio::test]
async fn a_safe_request_whose_body_is_in_memory_is_sent_again_when_an_idle_connection_broke() {
    // Each connection serves one request and closes without a word when the next one has come.
    let address = raw_upstream(|mut stream| async move {
        read_head(&mut stream).await;
        stream.read_exact(&mut [0; 5]).await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
        drop(stream.read_u8().await);
    })
    .await;
    let proxy = proxy(Limits::default(), BackendProtocol::Http1, address).await;
    let mut client = proxy.client().await;
    for turn in 0..4 {
        client.ready().await.unwrap();
        let request = Request::get("/whole").header("host", "a").body(Full::<Bytes>::from("12345")).unwrap();
        let answer = collect(timeout(SOON, client.send_request(request)).await.unwrap().unwrap()).await;
        assert_eq!(answer.status(), StatusCode::OK, "turn {turn}");
    }
}

/// Many at once, over both protocols of clients, so that every worker and the pools take part.
#[tokio::test]
async fn parallel_uploads_do_not_mix() {
    let proxy = proxy(Limits::default(), BackendProtocol::Http1, upstream(tells).await).await;
    let mut uploads = Vec::new();
    for index in 0..40 {
        let body = noise(20_000 + index * 997);
        let digest = digest(&body);
        let mut client = http2::<AnyBody, _>(&proxy).await;
        let request = Request::post("http://a/whole").body(Full::from(body).boxed_unsync()).unwrap();
        let answer = client.send_request(request);
        uploads.push(async move {
            let answer = collect(timeout(SOON, answer).await.unwrap().unwrap()).await;
            drop(client);
            let text = String::from_utf8(answer.into_body().into()).unwrap();
            assert!(text.contains(&format!("saw={digest} arrived={digest}")), "{text}");
        });
    }
    futures::future::join_all(uploads).await;
}
