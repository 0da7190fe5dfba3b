//! What the gateway answers where a route cannot be honoured.

use crate::harness::{Folder, Gateway, eventually, gateway, route, says, service, try_get};

#[tokio::test]
async fn a_backend_that_does_not_exist_answers_500_and_the_other_routes_go_on() {
    let folder = Folder::with([
        ("gateway.yaml", gateway()),
        ("missing.yaml", route("missing", "/missing", "nowhere")),
        ("good.yaml", format!("{}---\n{}", route("good", "/good", "one"), service("one", says("one").await))),
    ]);
    let gateway = Gateway::ready(&folder).await;
    let answer = gateway.get("/missing").await;
    assert_eq!(answer.status, 500);
    assert!(!answer.header("x-request-id").is_empty(), "{answer:?}");
    assert_eq!(gateway.get("/good").await.body, "one");
    let line = gateway.logged("BackendNotFound").await;
    assert!(line.contains("missing.yaml:8:19: HTTPRoute default/missing"), "{line}");
    // It comes true as soon as the Service is there.
    folder.write("late.yaml", &service("nowhere", says("late").await));
    assert_eq!(gateway.answers("/missing", 200).await.body, "late");
}

#[tokio::test]
async fn a_service_without_endpoints_answers_503_and_a_path_that_no_route_matches_404() {
    let empty = "apiVersion: v1\nkind: Service\nmetadata: {name: empty}\nspec: {ports: [{port: 80}]}\n";
    let folder = Folder::with([
        ("gateway.yaml", gateway()),
        ("route.yaml", route("empty", "/empty", "empty")),
        ("service.yaml", empty.into()),
    ]);
    let gateway = Gateway::ready(&folder).await;
    assert_eq!(gateway.get("/empty").await.status, 503);
    assert_eq!(gateway.get("/other").await.status, 404);
}

#[tokio::test]
async fn a_backend_that_refuses_connections_answers_503() {
    let nobody = std::net::SocketAddr::from(([127, 0, 0, 1], kit_testing::free_port()));
    let folder = Folder::with([
        ("gateway.yaml", gateway()),
        ("route.yaml", route("r", "/", "gone")),
        ("service.yaml", service("gone", nobody)),
    ]);
    let gateway = Gateway::ready(&folder).await;
    assert_eq!(gateway.get("/").await.status, 503);
}

#[tokio::test]
async fn a_reference_grant_that_is_taken_away_closes_the_way_at_once() {
    let elsewhere = service("one", says("one").await).replace("  name: one\n", "  name: one\n  namespace: shop\n");
    let grant = "apiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\nmetadata: {name: g, namespace: \
                 shop}\nspec:\n  from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: default}]\n  \
                 to: [{group: \"\", kind: Service}]\n";
    let folder = Folder::with([
        ("gateway.yaml", gateway()),
        ("route.yaml", route("r", "/", "one").replace("{name: one, port", "{name: one, namespace: shop, port")),
        ("service.yaml", elsewhere),
        ("grant.yaml", grant.into()),
    ]);
    let gateway = Gateway::ready(&folder).await;
    assert_eq!(gateway.get("/").await.body, "one");
    folder.remove("grant.yaml");
    gateway.answers("/", 500).await;
    gateway.logged("RefNotPermitted").await;
    folder.write("grant.yaml", grant);
    gateway.answers("/", 200).await;
}

#[tokio::test]
async fn a_route_that_no_gateway_of_the_folder_serves_is_told() {
    let slip = route("slip", "/", "one").replace("{name: edge}", "{name: egde}");
    let folder = Folder::with([("gateway.yaml", gateway()), ("route.yaml", slip)]);
    let gateway = Gateway::ready(&folder).await;
    let line = gateway.logged("no parentRef names a Gateway").await;
    assert!(line.contains("route.yaml:5:3: HTTPRoute default/slip: spec.parentRefs: "), "{line}");
}

#[tokio::test]
async fn two_gateways_on_one_port_do_not_stop_each_other() {
    let other = gateway().replace("{name: edge}", "{name: other}");
    let folder = Folder::with([
        ("gateway.yaml", gateway()),
        ("other.yaml", other),
        ("route.yaml", route("r", "/", "one")),
        ("service.yaml", service("one", says("one").await)),
    ]);
    let gateway = Gateway::ready(&folder).await;
    let line = gateway.logged("another Gateway").await;
    assert!(line.contains("other.yaml:8:7: Gateway default/other: http: port 8080"), "{line}");
    assert_eq!(gateway.get("/").await.body, "one");
}

#[tokio::test]
async fn check_lists_every_problem_with_its_place_and_fails() {
    let folder = Folder::with([
        ("gateway.yaml", gateway()),
        ("a.yaml", route("a", "/", "nowhere")),
        ("b.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: b}\nspec:\n  prots: []\n".into()),
    ]);
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_gateway"));
    let output = command.arg("--check").arg("--config").arg(folder.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(lines[0].contains("a.yaml:8:19: HTTPRoute default/a") && lines[0].contains("BackendNotFound"), "{text}");
    assert!(lines[1].contains("b.yaml:5:3: Service default/b: spec.prots: unknown field"), "{text}");
}

#[tokio::test]
async fn of_two_gateways_that_set_the_log_differently_one_counts_and_the_other_is_told() {
    let config = "apiVersion: nebula.dev/v1alpha1\nkind: GatewayConfig\nmetadata: {name: quiet}\nspec: {log: {accessLog: \
                  Disabled}}\n";
    let second = gateway().replace("{name: edge}", "{name: second}").replace("8080", "8443")
        + "  infrastructure: {parametersRef: {group: nebula.dev, kind: GatewayConfig, name: quiet}}\n";
    let folder = Folder::with([("config.yaml", config.into()), ("a.yaml", gateway()), ("b.yaml", second)]);
    let gateway = Gateway::ready(&folder).await;
    let line = gateway.logged("access log and tracing are set differently by Gateway default/edge").await;
    assert!(line.contains("b.yaml:") && line.contains("Gateway default/second"), "{line}");
    assert_eq!(gateway.get("/").await.status, 404, "both serve");
    // Once the first is gone the second's settings count.
    folder.remove("a.yaml");
    eventually("no problem", || async {
        let problems = try_get(gateway.admin, "/problems").await.ok()?;
        (problems.body == "[]").then_some(())
    })
    .await;
}
