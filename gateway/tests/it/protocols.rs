//! What goes through: WebSocket, HTTP/2 with prior knowledge, gRPC with trailers, bodies in both directions.

use std::convert::Infallible;

use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use http::{HeaderMap, Request, Response, Version};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;

use crate::harness::{Folder, Gateway, backend, gateway, route, service, spawn, try_get};

#[tokio::test]
async fn a_websocket_echoes_through_the_gateway() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            spawn(async move {
                let Ok(mut socket) = tokio_tungstenite::accept_async(stream).await else { return };
                while let Some(Ok(message)) = socket.next().await {
                    if message.is_close() || socket.send(message).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    let folder = Folder::with([
        ("gateway.yaml", gateway()),
        ("route.yaml", route("r", "/", "echo")),
        ("service.yaml", service("echo", address)),
    ]);
    let gateway = Gateway::ready(&folder).await;
    let stream = TcpStream::connect(("127.0.0.1", gateway.http)).await.unwrap();
    let url = format!("ws://127.0.0.1:{}/chat", gateway.http);
    let (mut socket, response) = tokio_tungstenite::client_async(url, stream).await.unwrap();
    assert_eq!(response.status(), 101);
    for text in ["hello".to_owned(), "x".repeat(200_000)] {
        socket.send(Message::text(text.clone())).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap().into_text().unwrap().as_str(), text);
    }
    // It outlives a change of its route.
    folder.write("route.yaml", &route("r", "/elsewhere", "echo"));
    gateway.answers("/", 404).await;
    socket.send(Message::text("still here")).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap().into_text().unwrap().as_str(), "still here");
}

async fn h2(port: u16) -> hyper::client::conn::http2::SendRequest<Full<Bytes>> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    spawn(async move { drop(connection.await) });
    sender
}

#[tokio::test]
async fn http2_with_prior_knowledge_is_served_by_a_backend_that_speaks_http1() {
    let answer = |request: Request<hyper::body::Incoming>| async move {
        let text = format!("{:?} {}", request.version(), request.headers()["host"].to_str().unwrap());
        Response::new(Full::new(Bytes::from(text)))
    };
    let folder = Folder::with([
        ("gateway.yaml", gateway()),
        ("route.yaml", route("r", "/", "one")),
        ("service.yaml", service("one", backend(answer).await)),
    ]);
    let gateway = Gateway::ready(&folder).await;
    let mut client = h2(gateway.http).await;
    let request = Request::get("http://edge.example/a").body(Full::default()).unwrap();
    let response = client.send_request(request).await.unwrap();
    assert_eq!((response.status().as_u16(), response.version()), (200, Version::HTTP_2));
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "HTTP/1.1 edge.example");
}

#[tokio::test]
async fn grpc_goes_through_with_its_trailers_and_is_answered_as_grpc_where_it_fails() {
    let answer = |request: Request<hyper::body::Incoming>| async move {
        assert_eq!(request.version(), Version::HTTP_2);
        let message = request.into_body().collect().await.unwrap().to_bytes();
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().unwrap());
        let frames = [Ok::<_, Infallible>(Frame::data(message)), Ok(Frame::trailers(trailers))];
        let body = StreamBody::new(futures::stream::iter(frames));
        Response::builder().header("content-type", "application/grpc").body(body).unwrap()
    };
    let grpc = "apiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute\nmetadata: {name: g}\nspec:\n  parentRefs: \
                [{name: edge}]\n  rules:\n  - matches: [{method: {service: echo.Echo}}]\n    backendRefs: [{name: one, \
                port: 80}]\n  - matches: [{method: {service: echo.Missing}}]\n    backendRefs: [{name: nowhere, port: 80}]\n";
    let h2c = service("one", backend(answer).await).replace("{port: 80}", "{port: 80, appProtocol: kubernetes.io/h2c}");
    let folder = Folder::with([("gateway.yaml", gateway()), ("route.yaml", grpc.into()), ("service.yaml", h2c)]);
    let gateway = Gateway::ready(&folder).await;
    let mut client = h2(gateway.http).await;
    let mut call = async |method: &str| {
        let request = Request::post(format!("http://edge.example/{method}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::new(Bytes::from_static(b"\0\0\0\0\x03abc")))
            .unwrap();
        let (head, body) = client.send_request(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap();
        let trailers = body.trailers().cloned().unwrap_or_default();
        let status = head.headers.get("grpc-status").or(trailers.get("grpc-status")).cloned();
        (head.status.as_u16(), status.unwrap().to_str().unwrap().to_owned(), body.to_bytes())
    };
    assert_eq!(call("echo.Echo/Say").await, (200, "0".into(), Bytes::from_static(b"\0\0\0\0\x03abc")));
    let (status, grpc_status, body) = call("echo.Missing/Say").await;
    assert_eq!((status, body.len()), (200, 0));
    assert_ne!(grpc_status, "0");
    let (status, grpc_status, _) = call("nobody.Knows/This").await;
    assert_eq!((status, grpc_status.as_str()), (200, "12"));
}

#[tokio::test]
async fn large_bodies_go_both_ways_unchanged() {
    let echo = |request: Request<hyper::body::Incoming>| async move { Response::new(request.into_body()) };
    let folder = Folder::with([
        ("gateway.yaml", gateway()),
        ("route.yaml", route("r", "/", "echo")),
        ("service.yaml", service("echo", backend(echo).await)),
    ]);
    let gateway = Gateway::ready(&folder).await;
    let sent: String = (0..4_000_000_u32).map(|index| char::from(b'a' + (index % 23) as u8)).collect();
    let mut client = crate::harness::Client::connect(gateway.http).await.unwrap();
    let request = Request::post("/").header("host", "edge.example").body(Full::from(sent.clone())).unwrap();
    let answer = client.send(request).await.unwrap();
    assert!(answer.body == sent, "{} bytes of {}", answer.body.len(), sent.len());
    assert_eq!(try_get(gateway.http, "/").await.unwrap().status, 200);
}
