//! `nebulactl explain`.

use std::net::TcpListener;

use serde_json::json;

use crate::harness::{Folder, GATEWAY, ROUTE, SERVICE, admin_port};

const RICH: &str = "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: rich
  namespace: default
spec:
  parentRefs:
    - name: edge
  hostnames: ['*.example.com']
  rules:
    - name: checkout
      matches:
        - path: {type: PathPrefix, value: /cart}
          method: POST
          headers: [{name: x-beta, value: 'yes'}]
        - path: {type: Exact, value: /checkout}
          queryParams: [{name: step, type: RegularExpression, value: '[0-9]+'}]
      filters:
        - type: RequestHeaderModifier
          requestHeaderModifier: {set: [{name: x-team, value: shop}], remove: [x-debug]}
        - type: URLRewrite
          urlRewrite: {hostname: cart.internal}
      timeouts: {request: 10s, backendRequest: 2s}
      backendRefs:
        - {name: cart, port: 80, weight: 3}
        - {name: nowhere, port: 80, weight: 1}
    - matches: [{path: {type: PathPrefix, value: /old}}]
      filters:
        - type: RequestRedirect
          requestRedirect: {scheme: https, statusCode: 301}
";

fn folder() -> Folder {
    let gateway = GATEWAY.replace("protocol: HTTP\n", "protocol: HTTP\n      hostname: shop.example.com\n");
    let service = SERVICE.replace(
        "  name: cart\n",
        "  name: cart\n  annotations: {nebula.dev/endpoints: '10.0.0.7:8080, 10.0.0.8:8080'}\n",
    );
    Folder::with([("gateway.yaml", &gateway), ("rich.yaml", RICH), ("cart.yaml", &service)])
}

#[test]
fn everything_that_acts_on_a_route_is_shown() {
    let ran = folder().run(&["explain", "rich", "-f", "."]);
    assert_eq!(ran.code, 1, "a backend is missing: {ran:?}");
    insta::assert_snapshot!(ran.stdout);
}

/// Of the Gateway, the listener, the route and one of its rules.
const POLICIES: &str = "apiVersion: nebula.dev/v1alpha1
kind: RateLimitPolicy
metadata: {name: edge}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: edge}]
  limits:
    client: {rate: 100, per: 1s, burst: 200}
  overrides:
    limits:
      tenant: {rate: 1000, per: 1m, key: [{type: Header, name: x-tenant}, {type: Route}]}
---
apiVersion: nebula.dev/v1alpha1
kind: RateLimitPolicy
metadata: {name: rich}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: rich}]
  mode: Report
  maxKeys: 5000
  limits:
    tenant: {rate: 1, per: 1s}
---
apiVersion: nebula.dev/v1alpha1
kind: RateLimitPolicy
metadata: {name: checkout}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: rich, sectionName: checkout}]
  concurrency:
    pay: {limit: 5}
  limits:
    client: {rate: 10, per: 1s}
";

#[test]
fn policies_are_merged_and_each_field_says_where_it_is_from() {
    let folder = folder();
    folder.write("policies.yaml", POLICIES);
    let ran = folder.run(&["explain", "rich", "-f", "."]);
    insta::assert_snapshot!(ran.stdout);
    let ran = folder.run(&["explain", "rich", "-f", ".", "-o", "json"]);
    let chain = &ran.json()[0]["policies"][0];
    assert_eq!(chain["kinds"][0]["sources"]["limits.tenant"], json!("rate-limit/default/edge"), "{ran:?}");
    assert_eq!(chain["closed"], json!(null));
}

#[test]
fn a_policy_of_a_service_stands_below_the_service() {
    let folder = folder();
    let policy = "apiVersion: nebula.dev/v1alpha1\nkind: BackendPolicy\nmetadata: {name: cart}\nspec:\n  targetRefs: [{kind: \
                  Service, name: cart}]\n  limits: {maxRequests: 100}\n";
    folder.write("policy.yaml", policy);
    let ran = folder.run(&["explain", "rich", "-f", "."]);
    let below = ran.lines().into_iter().skip_while(|line| !line.contains("75.0 %")).nth(1);
    assert_eq!(below, Some("                policy backend/default/cart:"), "{ran:?}");
    assert!(ran.stdout.contains("limits = {\"max\":100"), "{ran:?}");
}

#[test]
fn an_invalid_policy_closes_what_it_is_attached_to() {
    let folder = folder();
    folder.write("policies.yaml", &POLICIES.replace("{limit: 5}", "{limit: 0}"));
    let ran = folder.run(&["explain", "rich", "-f", "."]);
    let closed: Vec<_> = ran.lines().into_iter().filter(|line| line.contains("every request gets 500")).collect();
    assert_eq!(
        closed,
        ["    policies  every request gets 500 policy_invalid, because of rate-limit/default/checkout"],
        "the other rule goes on: {ran:?}"
    );
}

#[test]
fn a_route_that_is_well_is_served() {
    let folder = Folder::with([("gateway.yaml", GATEWAY), ("route.yaml", ROUTE), ("cart.yaml", SERVICE)]);
    let ran = folder.run(&["explain", "default/cart", "-f", ".", "-o", "json"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let route = &ran.json()[0];
    assert_eq!((&route["object"], &route["served"]), (&json!("HTTPRoute default/cart"), &json!(true)));
    assert_eq!(route["objects"]["endpoints/default/cart/80"], json!([]));
    assert_eq!(route["objects"]["listener/default/edge/http"]["port"], json!(8080));
}

#[test]
fn a_route_that_is_not_served_says_why_and_one_that_is_not_there_what_there_is() {
    let folder = Folder::with([("route.yaml", ROUTE)]);
    let ran = folder.run(&["explain", "cart", "-f", "."]);
    assert_eq!(ran.code, 1);
    assert!(ran.stdout.contains("is not served") && ran.stdout.contains("no parentRef names a Gateway"), "{ran:?}");
    folder.write("gateway.yaml", GATEWAY);
    let ran = folder.run(&["explain", "shop/cart", "-f", "."]);
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
    assert_eq!(ran.stderr, "nebulactl: no route shop/cart is here; there is http/default/cart\n");
}

#[test]
fn a_running_gateway_is_asked_over_its_admin_port() {
    let config = json!({
        "listeners": [{"listener": "default/edge/http", "port": 8080, "opened": 18080, "is_open": true,
            "hostname": "", "protocol": "HTTP"}],
        "objects": {
            "listener/default/edge/http": {"addresses": [], "port": 8080, "hostname": "*", "certificates": null},
            "route/http/default/cart": {"created": 0, "rules": [],
                "attachments": [{"listener": "default/edge/http", "hosts": [{"served": "*", "declared": "*"}]}]},
        },
    });
    let problem = json!({"object": "HTTPRoute default/cart", "message": "ResolvedRefs (BackendNotFound): gone"});
    let explanation = json!({
        "route": config["objects"]["route/http/default/cart"], "objects": config["objects"], "policies": [],
    });
    let admin = admin_port(vec![
        ("/config", config.to_string()),
        ("/problems", json!([problem]).to_string()),
        ("/explain?route=http/default/cart", explanation.to_string()),
    ]);
    let ran = Folder::with([]).run(&["explain", "cart", "--admin", &admin]);
    assert_eq!(ran.code, 1);
    assert!(ran.stdout.contains("port 8080, bound as 18080"), "{ran:?}");
    assert!(ran.stdout.contains("HTTPRoute default/cart: ResolvedRefs (BackendNotFound): gone"), "{ran:?}");
}

#[test]
fn a_gateway_that_does_not_run_is_told_in_one_line() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let ran = Folder::with([]).run(&["explain", "cart", "--admin", &format!("http://{free}")]);
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.lines().count()), (2, "", 1));
    assert!(ran.stderr.contains("does a gateway run there?"), "{ran:?}");
    let ran = Folder::with([]).run(&["explain", "cart", "--admin", "https://127.0.0.1:1"]);
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("want http://HOST:PORT"), "{ran:?}");
}
