//! The quickstart: what a newcomer sees first.

use std::path::Path;

use crate::harness::{Folder, Gateway, gateway, route, says, service};

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
