use std::collections::VecDeque;

use http_body_util::{BodyExt as _, Full};
use hyper::{Response, body::Bytes, service::service_fn};
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

/// Gives these pieces, then the end of file.
struct Pieces(VecDeque<Vec<u8>>);

impl AsyncRead for Pieces {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Some(mut piece) = self.0.pop_front() {
            let rest = piece.split_off(piece.len().min(buffer.remaining()));
            buffer.put_slice(&piece);
            if !rest.is_empty() {
                self.0.push_front(rest);
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Reads until there is nothing more.
fn read_all(strict: &mut StrictIo<Pieces>, capacity: usize) -> Vec<u8> {
    let mut context = Context::from_waker(std::task::Waker::noop());
    let mut read = Vec::new();
    loop {
        let mut bytes = vec![0; capacity];
        let mut buffer = ReadBuf::new(&mut bytes);
        match Pin::new(&mut *strict).poll_read(&mut context, &mut buffer) {
            Poll::Ready(Ok(())) if !buffer.filled().is_empty() => read.extend_from_slice(buffer.filled()),
            Poll::Ready(Ok(())) | Poll::Pending => return read,
            Poll::Ready(Err(error)) => panic!("{error}"),
        }
    }
}

/// What hyper would read, and why the last head was refused.
fn read(pieces: impl IntoIterator<Item = Vec<u8>>, capacity: usize) -> (Vec<u8>, Option<Reason>) {
    let limits = Limits { max_headers: 10, max_head_bytes: 1024, max_uri_bytes: 256, ..Limits::default() };
    let mut strict = StrictIo::new(Pieces(pieces.into_iter().collect()), &limits);
    let read = read_all(&mut strict, capacity);
    (read, strict.guard.0.refused.get().copied())
}

fn whole(bytes: &[u8]) -> (Vec<u8>, Option<Reason>) {
    read([bytes.to_vec()], 16 << 10)
}

const GOOD: &[u8] = b"GET /a?b HTTP/1.1\r\nHost: h\r\nX: \xffy\r\n\r\n";

#[test]
fn valid_requests_pass_as_they_are() {
    for text in [
        &b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"[..],
        b"\r\nGET / HTTP/1.0\r\n\r\n",
        b"POST /a HTTP/1.1\r\ncontent-LENGTH: 3\r\nHost: h\r\n\r\nG\n\nGET / HTTP/1.1\r\nHost:h\r\n\r\n",
        b"POST /a HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n3\r\na\n\n\r\n0\r\n\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        b"POST /a HTTP/1.1\r\nContent-Length: 0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET http://h/a HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET /{a}?q=\xc3\xa4 HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET / HTTP/1.1\r\nEmpty:\r\nHost: h\r\n\r\n",
        b"GET / HTTP/1.1\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\nGET / HTTP/1.1\r\n\r\n",
    ] {
        let shown = String::from_utf8_lossy(text);
        assert_eq!(whole(text), (text.to_vec(), None), "{shown}");
        assert_eq!(read(text.iter().map(|byte| vec![*byte]), 7), (text.to_vec(), None), "{shown}");
    }
}

#[test]
fn behind_an_upgrade_nothing_passes_before_its_101_and_everything_after() {
    for (request, data) in [
        (&b"GET / HTTP/1.1\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n"[..], &b"\x81\x05\n\0"[..]),
        (b"CONNECT h:80 HTTP/1.1\r\nHost: h:80\r\n\r\n", b"\n\n\n"),
    ] {
        for pieces in
            [vec![[request, data].concat(), data.to_vec()], vec![request.to_vec(), data.to_vec(), data.to_vec()]]
        {
            let mut strict = StrictIo::new(Pieces(pieces.into()), &Limits::default());
            let guard = strict.guard();
            assert_eq!(read_all(&mut strict, 4096), request);
            let mut headers = HeaderMap::new();
            guard.answered(StatusCode::OK, &mut headers);
            assert_eq!(headers[header::CONNECTION], "close");
            assert_eq!(read_all(&mut strict, 4096), b"");
            guard.answered(StatusCode::SWITCHING_PROTOCOLS, &mut HeaderMap::new());
            assert_eq!(read_all(&mut strict, 3), [data, data].concat());
        }
    }
}

#[test]
fn an_answer_to_an_ordinary_request_stays_as_it_is() {
    let mut strict = StrictIo::new(Pieces([GOOD.to_vec()].into()), &Limits::default());
    assert_eq!(read_all(&mut strict, 4096), GOOD);
    let mut headers = HeaderMap::new();
    strict.guard().answered(StatusCode::OK, &mut headers);
    assert!(headers.is_empty());
}

#[test]
fn what_two_readers_may_read_differently_is_refused() {
    for (text, reason) in [
        (
            &b"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"[..],
            Reason::ConflictingLength,
        ),
        (
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n",
            Reason::ConflictingLength,
        ),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na", Reason::InvalidContentLength),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\ncontent-length: 2\r\n\r\na", Reason::InvalidContentLength),
        (b"POST / HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\na", Reason::InvalidContentLength),
        (b"POST / HTTP/1.1\r\nContent-Length: +1\r\n\r\na", Reason::InvalidContentLength),
        (b"POST / HTTP/1.1\r\nContent-Length: 0x1\r\n\r\na", Reason::InvalidContentLength),
        (b"POST / HTTP/1.1\r\nContent-Length:\r\n\r\na", Reason::InvalidContentLength),
        (b"POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\na", Reason::InvalidContentLength),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", Reason::InvalidTransferEncoding),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\n", Reason::InvalidTransferEncoding),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked, identity\r\n\r\n", Reason::InvalidTransferEncoding),
        (
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            Reason::InvalidTransferEncoding,
        ),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: \"chunked\"\r\n\r\n", Reason::InvalidTransferEncoding),
        (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", Reason::InvalidTransferEncoding),
        (b"GET / HTTP/1.1\nHost: h\n\n", Reason::InvalidLineEnd),
        (b"GET / HTTP/1.1\r\nHost: h\n\r\n", Reason::InvalidLineEnd),
        (b"GET / HTTP/1.1\r\nHost: h\r\n\n", Reason::InvalidLineEnd),
        (b"GET / HTTP/1.1\r\nA: b\rC: d\r\n\r\n", Reason::InvalidLineEnd),
        (b"\nGET / HTTP/1.1\r\n\r\n", Reason::InvalidLineEnd),
        (b"GET / HTTP/1.1\r\nA : b\r\n\r\n", Reason::InvalidHeader),
        (b"GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n", Reason::InvalidHeader),
        (b"GET / HTTP/1.1\r\n A: b\r\n\r\n", Reason::InvalidHeader),
        (b"GET / HTTP/1.1\r\nA b\r\n\r\n", Reason::InvalidHeader),
        (b"GET / HTTP/1.1\r\n: b\r\n\r\n", Reason::InvalidHeader),
        (b"GET / HTTP/1.1\r\nA: \0\r\n\r\n", Reason::InvalidHeader),
        (b"GET / HTTP/1.1\r\nA\x80: b\r\n\r\n", Reason::InvalidHeader),
        (b"GET / HTTP/2.0\r\n\r\n", Reason::MalformedRequest),
        (b"GET /\r\n\r\n", Reason::MalformedRequest),
        (b"GET  / HTTP/1.1\r\n\r\n", Reason::MalformedRequest),
        (b"GET / a HTTP/1.1\r\n\r\n", Reason::MalformedRequest),
        (b"GET\t/ HTTP/1.1\r\n\r\n", Reason::MalformedRequest),
        (b"G(T / HTTP/1.1\r\n\r\n", Reason::MalformedRequest),
        (b" GET / HTTP/1.1\r\n\r\n", Reason::MalformedRequest),
        (b"\x16\x03\x01\x02\x00\r\n\r\n", Reason::MalformedRequest),
        (b"GET / HTTP/1.1\r\nHost: h\r\n", Reason::MalformedRequest),
        (b"GET /a#b HTTP/1.1\r\n\r\n", Reason::InvalidTarget),
        (b"GET a HTTP/1.1?\r\n\r\n", Reason::MalformedRequest),
        (b"GET http://[::1/ HTTP/1.1\r\n\r\n", Reason::InvalidTarget),
        (b"GET /a\\b HTTP/1.1\r\n\r\n", Reason::AmbiguousPath),
        (b"GET /a\xff HTTP/1.1\r\n\r\n", Reason::InvalidPath),
        (b"GET /a\x7f HTTP/1.1\r\n\r\n", Reason::InvalidPath),
    ] {
        let shown = String::from_utf8_lossy(text);
        assert_eq!(whole(text), (SUBSTITUTE.to_vec(), Some(reason)), "{shown}");
        assert_eq!(read(text.iter().map(|byte| vec![*byte]), 1), (SUBSTITUTE.to_vec(), Some(reason)), "{shown}");
        // Behind a good request, in the same packet, and with more behind.
        let pipelined = [GOOD, text, GOOD].concat();
        if reason != Reason::MalformedRequest || text.ends_with(b"\r\n\r\n") {
            assert_eq!(whole(&pipelined), ([GOOD, SUBSTITUTE].concat(), Some(reason)), "{shown}");
        }
    }
}

#[test]
fn one_empty_line_before_a_request_passes_and_no_second_one() {
    let (passed, refused) = whole(b"\r\n\r\nGET / HTTP/1.1\r\n\r\n");
    assert_eq!((passed, refused), ([b"\r\n", SUBSTITUTE].concat(), Some(Reason::MalformedRequest)));
}

#[test]
fn a_head_above_its_limits_is_refused_before_its_end() {
    let fields = |count: usize| "x: y\r\n".repeat(count);
    let head = |target: &str, fields: &str| format!("GET {target} HTTP/1.1\r\n{fields}\r\n").into_bytes();
    assert_eq!(whole(&head("/", &fields(10))).1, None);
    assert_eq!(whole(&head("/", &fields(11))).1, Some(Reason::TooManyHeaders));
    assert_eq!(whole(&head("/", &format!("a: {}\r\n", "b".repeat(1024)))).1, Some(Reason::HeadersTooLarge));
    assert_eq!(whole(&vec![b'a'; 2048]).1, Some(Reason::UriTooLong));
    let endless =
        std::iter::once(b"GET / HTTP/1.1\r\n".to_vec()).chain(std::iter::repeat_n(b"a: b\r\n".to_vec(), 1000));
    assert_eq!(read(endless, 64), (SUBSTITUTE.to_vec(), Some(Reason::HeadersTooLarge)));
}

#[test]
fn behind_a_chunk_that_is_none_the_connection_ends() {
    let head = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
    let text = [&head[..], b"3\r\nabc\r\n-1\r\n\r\n", GOOD].concat();
    let (passed, refused) = read([text[..head.len() + 8].to_vec(), text[head.len() + 8..].to_vec()], 4096);
    assert_eq!((passed, refused), (text[..head.len() + 8].to_vec(), None));
}

proptest! {
    #[test]
    fn how_bytes_are_cut_into_pieces_changes_nothing(
        requests in prop::collection::vec(prop::sample::select(vec![
            &b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"[..],
            b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n\r\n\r\nG",
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n\r\n\r\n0\r\na: b\r\n\r\n",
            b"\r\nGET /x HTTP/1.0\r\n\r\n",
            b"GET / HTTP/1.1\r\nA : b\r\n\r\n",
            b"GET / HTTP/1.1\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        ]), 1..6),
        cuts in prop::collection::vec(1usize..40, 1..40),
        capacity in 1usize..64,
    ) {
        let text = requests.concat();
        let (mut pieces, mut rest) = (Vec::new(), &text[..]);
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, behind) = rest.split_at((*cut).min(rest.len()));
            pieces.push(piece.to_vec());
            rest = behind;
        }
        prop_assert_eq!(read(pieces, capacity), whole(&text));
    }
}

/// What hyper serves of these bytes, target and body, with this module before it or without.
async fn served(bytes: Vec<u8>, strictly: bool) -> Vec<(String, Vec<u8>)> {
    let (mut client, server) = tokio::io::duplex(64 << 10);
    let limits = Limits::default();
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let strict = StrictIo::new(server, &limits);
    let guard = strict.guard();
    let service = service_fn(|request: hyper::Request<hyper::body::Incoming>| {
        let (seen, refused) = (seen.clone(), guard.refused(request.method()).is_some());
        async move {
            let (parts, body) = request.into_parts();
            if let (Ok(body), false) = (body.collect().await, refused) {
                seen.lock().unwrap().push((format!("{} {}", parts.method, parts.uri), body.to_bytes().to_vec()));
            }
            Ok::<_, std::convert::Infallible>(Response::new(Full::new(Bytes::new())))
        }
    });
    let mut hyper = hyper::server::conn::http1::Builder::new();
    hyper.header_read_timeout(None).half_close(true);
    let serve = async {
        // Whether it ends with an error is not the question.
        if strictly {
            drop(hyper.serve_connection(TokioIo::new(strict), service).await);
        } else {
            drop(hyper.serve_connection(TokioIo::new(strict.io), service).await);
        }
    };
    let talk = async {
        // The server may close before it has read or written all.
        let _ = client.write_all(&bytes).await;
        let _ = client.shutdown().await;
        let _ = client.read_to_end(&mut Vec::new()).await;
    };
    tokio::join!(serve, talk);
    std::mem::take(&mut *seen.lock().unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2048, ..ProptestConfig::default() })]

    /// Whatever comes, hyper finds no request behind this module that it would not find without it: both agree on where
    /// each one begins and ends.
    #[test]
    fn hyper_serves_nothing_else_than_without_this_module(
        requests in prop::collection::vec(prop::sample::select(vec![
            &b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n"[..],
            b"POST /b HTTP/1.1\r\nHost: h\r\nContent-Length: 30\r\n\r\nGET /smuggled HTTP/1.1\r\nA: b\r\n",
            b"POST /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1c\r\nGET /smuggled HTTP/1.1\r\n\r\nxy\r\n0\r\nT: u\r\n\r\n",
            b"GET /d HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
            b"POST /e HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ]), 1..5),
        edits in prop::collection::vec((any::<prop::sample::Index>(), prop::sample::select(&b"\r\n :;\t,0123456789abcdef+-x\0GHT/"[..]), 0..3u8), 0..4),
    ) {
        let mut bytes = requests.concat();
        let is_valid = edits.is_empty() && !requests.iter().any(|request| request.starts_with(b"POST /e"));
        for (index, byte, edit) in edits {
            let at = index.index(bytes.len());
            match edit {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => drop(bytes.remove(at)),
            }
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (with, without) = runtime.block_on(async { (served(bytes.clone(), true).await, served(bytes.clone(), false).await) });
        prop_assert!(without.starts_with(&with), "{:?}: {with:?} is not the beginning of {without:?}", String::from_utf8_lossy(&bytes));
        if is_valid {
            prop_assert_eq!((with.len(), with), (requests.len(), without));
        }
    }
}

/// The whole way through hyper: answers come in order, the refused request last, and the connection closes.
#[tokio::test]
async fn a_refused_request_is_answered_behind_the_earlier_ones() {
    let (mut client, server) = tokio::io::duplex(16 << 10);
    let strict = StrictIo::new(server, &Limits::default());
    let guard = strict.guard();
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let answer = match guard.refused(request.method()) {
            Some(reason) => format!("refused: {}", reason.word()),
            None => format!("served: {}", request.uri()),
        };
        async move { Ok::<_, std::convert::Infallible>(Response::new(Full::new(Bytes::from(answer)))) }
    });
    let serve = hyper::server::conn::http1::Builder::new()
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(strict), service);
    let talk = async {
        let requests =
            b"GET /one HTTP/1.1\r\nHost: h\r\n\r\nPOST /two HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nok\
            POST /three HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n\
            GET /four HTTP/1.1\r\nHost: h\r\n\r\n";
        client.write_all(requests).await.unwrap();
        let mut answers = String::new();
        client.read_to_string(&mut answers).await.unwrap();
        answers
    };
    let (served, answers) = tokio::join!(serve, talk);
    served.unwrap();
    let bodies: Vec<&str> =
        answers.split("\r\n\r\n").skip(1).map(|body| body.split("HTTP/1.1").next().unwrap()).collect();
    assert_eq!(bodies, ["served: /one", "served: /two", "refused: conflicting_length"]);
    assert_eq!(answers.matches("connection: close").count(), 1);
}
