//! `nebulactl status`.

use serde_json::json;

use crate::harness::{Folder, GATEWAY, ROUTE, SERVICE, admin_port};

#[test]
fn files_are_shown_with_the_conditions_that_they_would_have() {
    let stranger = ROUTE.replace("name: cart\nspec", "name: lost\nspec").replace("name: edge", "name: egde");
    let folder = Folder::with([
        ("gateway.yaml", GATEWAY),
        ("route.yaml", ROUTE),
        ("stranger.yaml", &stranger),
        ("broken.yaml", &SERVICE.replace("port: 80", "prot: 80")),
    ]);
    let ran = folder.run(&["status", "-f", "."]);
    assert_eq!(ran.code, 1);
    insta::assert_snapshot!(ran.stdout);
}

#[test]
fn all_is_well_where_nothing_is_refused() {
    let folder = Folder::with([("gateway.yaml", GATEWAY), ("route.yaml", ROUTE), ("service.yaml", SERVICE)]);
    let ran = folder.run(&["status", "-f", "."]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let ran = folder.run(&["status", "-f", ".", "--failed"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "nothing\n"));
}

#[test]
fn policies_are_shown_for_each_gateway_that_they_act_on() {
    let policy = "apiVersion: nebula.dev/v1alpha1\nkind: RateLimitPolicy\nmetadata: {name: limit}\nspec:\n  targetRefs:\n  - \
                  {group: gateway.networking.k8s.io, kind: Gateway, name: edge}\n  - {group: gateway.networking.k8s.io, kind: \
                  HTTPRoute, name: gone}\n  limits: {client: {rate: 5, per: 1s}}\n";
    let folder = Folder::with([("gateway.yaml", GATEWAY), ("policy.yaml", policy)]);
    let ran = folder.run(&["status", "-f", "."]);
    assert_eq!(ran.code, 1);
    let rows: Vec<String> =
        ran.lines().into_iter().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert!(
        rows.contains(&"RateLimitPolicy default/limit Gateway default/edge Accepted, Programmed".to_owned()),
        "{ran:?}"
    );
    let missing = "HTTPRoute default/gone ! Accepted=False (TargetNotFound)";
    assert!(rows.contains(&missing.to_owned()), "{ran:?}");
    assert!(rows.contains(&"TargetNotFound: HTTPRoute default/gone does not exist".to_owned()), "{ran:?}");
}

#[test]
fn what_a_cluster_has_recorded_is_shown_and_not_what_its_objects_alone_would_give() {
    let route = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": "cart", "namespace": "shop"},
        "spec": {"parentRefs": [{"name": "edge", "namespace": "infra"}]},
        "status": {"parents": [{
            "controllerName": "nebula.dev/gateway-controller",
            "parentRef": {"name": "edge", "namespace": "infra", "sectionName": "https"},
            "conditions": [
                {"type": "Accepted", "status": "True", "reason": "Accepted", "message": ""},
                {"type": "ResolvedRefs", "status": "False", "reason": "RefNotPermitted", "message": "no\u{1b}[2J grant"},
            ],
        }]},
    });
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [route]}).to_string();
    let ran = Folder::with([]).run_with(&["status", "-f", "-"], &list);
    assert_eq!(ran.code, 1);
    assert_eq!(
        ran.lines(),
        [
            "OBJECT               PART                               STATE",
            "HTTPRoute shop/cart  Gateway infra/edge, section https  Accepted, ! ResolvedRefs=False (RefNotPermitted)",
            "    RefNotPermitted: no\\u{1b}[2J grant",
        ]
    );
    let ran = Folder::with([]).run_with(&["status", "-f", "-", "-o", "json"], &list);
    assert_eq!(ran.json()[0]["conditions"][1]["reason"], json!("RefNotPermitted"));
    assert_eq!(
        (&ran.json()[0]["isWell"], &ran.json()[0]["part"]),
        (&json!(false), &json!("Gateway infra/edge, section https"))
    );
}

#[test]
fn a_running_gateway_tells_its_listeners_routes_and_problems() {
    let config = json!({
        "listeners": [{"listener": "default/edge/http", "port": 8080, "opened": 18080, "is_open": true},
            {"listener": "default/edge/other", "port": 81, "opened": 81, "is_open": false}],
        "objects": {"route/http/shop/cart": {"attachments": [{}], "rules": [{}, {}]}, "backend/shop/cart/80": {}},
    });
    let problem = json!({"file": "a.yaml", "line": 3, "object": "Service shop/cart", "message": "unknown field"});
    let admin = admin_port(vec![("/config", config.to_string()), ("/problems", json!([problem]).to_string())]);
    let ran = Folder::with([]).run(&["status", "--admin", &admin]);
    assert_eq!(ran.code, 1);
    insta::assert_snapshot!(ran.stdout);
}
