//! ClientPolicies in files: from YAML to the client that policies, logs and backends see.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::harness::{Folder, Gateway, backend, gateway, route, service, try_get};

fn client_policy(name: &str, section: &str, spec: &str) -> String {
    format!(
        "apiVersion: nebula.dev/v1alpha1\nkind: ClientPolicy\nmetadata: {{name: {name}}}\nspec:\n  targetRefs: [{{group: \
         gateway.networking.k8s.io, kind: Gateway, name: edge{section}}}]\n  {spec}\n"
    )
}

/// A Gateway whose backend says what it takes for the client.
async fn folder() -> Folder {
    let address = backend(|request: Request<_>| async move {
        let client = request.headers().get("x-forwarded-for").cloned();
        Response::new(Full::new(Bytes::from(client.map_or_else(Vec::new, |client| client.as_bytes().to_vec()))))
    })
    .await;
    Folder::with([
        ("gateway.yaml", gateway()),
        ("services.yaml", service("one", address)),
        ("route.yaml", route("all", "/", "one")),
    ])
}

/// Status and body of the answer to these bytes, which ask to close.
async fn talk(port: u16, bytes: &str) -> (String, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    drop(timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await.expect("not closed"));
    let answer = String::from_utf8(answer).unwrap();
    let status = answer.get(9..12).unwrap_or_default().to_owned();
    (status, answer.split_once("\r\n\r\n").map_or_else(String::new, |(_, body)| body.to_owned()))
}

async fn from(gateway: &Gateway, forwarded_for: &str) -> (String, String) {
    let fields = "Host: a.test\r\nConnection: close\r\n";
    talk(gateway.http, &format!("GET / HTTP/1.1\r\n{fields}X-Forwarded-For: {forwarded_for}\r\n\r\n")).await
}

#[tokio::test]
async fn limits_and_log_go_by_the_client_that_a_trusted_proxy_tells_and_not_by_what_it_made_up() {
    let folder = folder().await;
    folder.write("clients.yaml", &client_policy("clients", "", "clientAddress: {trustedNetworks: [127.0.0.0/8]}"));
    folder.write(
        "limit.yaml",
        "apiVersion: nebula.dev/v1alpha1\nkind: RateLimitPolicy\nmetadata: {name: limit}\nspec:\n  targetRefs: [{group: \
         gateway.networking.k8s.io, kind: HTTPRoute, name: all}]\n  limits: {client: {rate: 1, per: 1h}}\n",
    );
    let gateway = Gateway::ready(&folder).await;
    assert_eq!(from(&gateway, "203.0.113.9").await, ("200".to_owned(), "203.0.113.9".to_owned()));
    for spoofed in ["203.0.113.9", "1.1.1.1, 203.0.113.9", "127.0.0.1, 2.2.2.2, 203.0.113.9"] {
        assert_eq!(from(&gateway, spoofed).await.0, "429", "{spoofed}");
    }
    assert_eq!(from(&gateway, "203.0.113.8").await.0, "200", "another client");
    let line = gateway.access_logged("\"status\":429").await;
    assert!(line.contains("\"client\":\"203.0.113.9\",\"peer\":\"127.0.0.1:"), "{line}");
}

#[tokio::test]
async fn a_listeners_policy_wins_over_the_gateways_field_by_field() {
    let folder = folder().await;
    folder.write("edge.yaml", &client_policy("edge", "", "limits: {uriBytes: 64, headers: 20}"));
    folder.write("http.yaml", &client_policy("http", ", sectionName: http", "limits: {uriBytes: 1000}"));
    let gateway = Gateway::ready(&folder).await;
    assert_eq!(gateway.get(&format!("/{}", "a".repeat(500))).await.status, 200, "the listener's");
    let many = format!("GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n{}\r\n", "X-A: b\r\n".repeat(20));
    assert_eq!(talk(gateway.http, &many).await.0, "431", "the Gateway's");
}

#[tokio::test]
async fn an_invalid_policy_says_its_field_and_closes_the_listener_until_it_is_corrected() {
    let folder = folder().await;
    folder.write("clients.yaml", &client_policy("clients", "", "clientAddress: {trustedNetworks: [10.0.0.1/8]}"));
    let gateway = Gateway::ready(&folder).await;
    let closed = gateway.get("/").await;
    assert_eq!((closed.status.as_u16(), closed.header("x-nebula-reason")), (500, "policy_invalid"));
    let problems = try_get(gateway.admin, "/problems").await.unwrap().body;
    assert!(problems.contains("spec.clientAddress.trustedNetworks[0]"), "{problems}");
    folder.replace(
        "clients.yaml",
        &client_policy("clients", "", "proxyProtocol: {mode: Required, trustedNetworks: [127.0.0.1]}"),
    );
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    let proxied =
        "PROXY TCP4 203.0.113.9 10.0.0.1 5555 80\r\nGET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
    while talk(gateway.http, proxied).await != ("200".to_owned(), "203.0.113.9".to_owned()) {
        assert!(tokio::time::Instant::now() < deadline, "the corrected policy is not in force");
    }
    assert_eq!(talk(gateway.http, "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await.0, "", "without the header");
}
