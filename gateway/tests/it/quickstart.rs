//! The quickstart: what a newcomer sees first.

use std::path::Path;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;

use crate::harness::{Answer, Client, Folder, Gateway, gateway, route, says, service};

fn example(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name)
}

#[tokio::test]
async fn the_quickstart_answers_200_from_a_backend_that_it_brings_along() {
    let gateway = Gateway::start(&example("quickstart"));
    let answer = gateway.answers("/", 200).await;
    // A figure for the report, not a condition: machines that test are busy.
    println!("process start to first 200: {} ms", gateway.age().as_millis());
    assert!(answer.body.contains("Nebula"), "{answer:?}");
    assert_eq!(answer.header("x-hello"), "world");
    assert!(gateway.logged("try: curl").await.contains("http://127.0.0.1:"));
    assert!(!gateway.log().contains("WARN"), "{}", gateway.log());
}

#[tokio::test]
async fn the_limited_route_of_the_quickstart_answers_429_after_three_requests() {
    let gateway = Gateway::start(&example("quickstart"));
    gateway.answers("/", 200).await;
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(gateway.get("/limited").await.status.as_u16());
    }
    assert_eq!(statuses, [200, 200, 200, 429]);
    let refused = gateway.get("/limited").await;
    assert_eq!(refused.header("ratelimit-policy"), "\"client\";q=30;w=60");
    assert_eq!(gateway.get("/").await.status, 200);
}

/// The token of the README.
fn token() -> String {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md")).unwrap();
    readme.lines().find_map(|line| line.strip_prefix("$ TOKEN=")).unwrap().to_owned()
}

async fn send(gateway: &Gateway, request: http::request::Builder, body: &'static str) -> Answer {
    let request = request.header("host", "localhost").body(Full::new(Bytes::from(body))).unwrap();
    Client::connect(gateway.http).await.unwrap().send(request).await.unwrap()
}

#[tokio::test]
async fn the_members_route_of_the_quickstart_takes_the_token_of_the_readme() {
    let gateway = Gateway::start(&example("quickstart"));
    gateway.answers("/members", 401).await;
    let request = Request::get("/members").header("authorization", format!("Bearer {}", token()));
    let answer = send(&gateway, request.header("x-user", "root"), "").await;
    assert_eq!(answer.status, 200);
    assert!(answer.body.contains("\"x-user\": \"ada\"") && !answer.body.contains("root"), "{answer:?}");
}

#[tokio::test]
async fn the_orders_route_of_the_quickstart_refuses_what_breaks_its_schema() {
    let gateway = Gateway::start(&example("quickstart"));
    gateway.answers("/", 200).await;
    let order = || Request::post("/orders").header("content-type", "application/json");
    let refused = send(&gateway, order(), r#"{"sku":"sku-000001","quantity":0}"#).await;
    assert_eq!((refused.status.as_u16(), refused.header("x-nebula-reason")), (400, "request_invalid"));
    assert!(refused.body.contains("#/quantity"), "{refused:?}");
    assert_eq!(send(&gateway, order(), r#"{"sku":"sku-000001","quantity":1}"#).await.status, 200);
}

#[tokio::test]
async fn the_breaker_of_the_quickstart_opens_after_three_failures() {
    let gateway = Gateway::start(&example("quickstart"));
    gateway.answers("/", 200).await;
    let mut reasons = Vec::new();
    for _ in 0..4 {
        reasons.push(gateway.get("/down").await.header("x-nebula-reason").to_owned());
    }
    let failed = "upstream_connect_failed";
    assert_eq!(reasons, [failed, failed, failed, "circuit_open"]);
}

#[tokio::test]
async fn bring_your_own_leads_to_a_server_on_this_machine() {
    let mine = says("mine").await;
    let text = std::fs::read_to_string(example("bring-your-own").join("gateway.yaml")).unwrap();
    assert!(text.contains("127.0.0.1:3000"));
    let folder = Folder::with([("gateway.yaml", text.replace("127.0.0.1:3000", &mine.to_string()))]);
    let gateway = Gateway::ready(&folder).await;
    assert_eq!(gateway.get("/anything").await.body, "mine");
}

#[tokio::test]
async fn the_examples_have_nothing_to_complain_about() {
    for name in ["quickstart", "bring-your-own"] {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_gateway"));
        let output = command.arg("--check").arg("--config").arg(example(name)).output().unwrap();
        assert!(output.status.success(), "{name}: {output:?}");
    }
}

#[tokio::test]
async fn a_service_is_led_to_the_demo_backend_and_away_again_by_its_annotation() {
    let mine = says("mine").await;
    let demo = "apiVersion: v1\nkind: Service\nmetadata:\n  name: a\n  annotations: \
                {nebula.dev/demo-backend: \"true\"}\nspec: {ports: [{port: 80}]}\n";
    let folder =
        Folder::with([("gateway.yaml", gateway()), ("route.yaml", route("a", "/", "a")), ("s.yaml", demo.into())]);
    let gateway = Gateway::ready(&folder).await;
    assert!(gateway.get("/").await.body.contains("demo backend"));
    folder.write("s.yaml", &service("a", mine));
    crate::harness::eventually("own backend", || async { (gateway.get("/").await.body == "mine").then_some(()) }).await;
}
