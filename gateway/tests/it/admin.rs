//! The admin and the telemetry port.

use bytes::Bytes;
use http::Request;
use http_body_util::Full;

use crate::harness::{Client, Folder, Gateway, gateway, route, says, service, try_get};

#[tokio::test]
async fn the_admin_port_shows_what_is_served() {
    let folder = Folder::with([
        ("gateway.yaml", gateway()),
        ("route.yaml", route("shown", "/", "one")),
        ("service.yaml", service("one", says("one").await)),
    ]);
    let gateway = Gateway::ready(&folder).await;
    let index = try_get(gateway.admin, "/").await.unwrap();
    assert!(index.body.contains("/config") && index.body.contains("/problems"), "{index:?}");
    let config = try_get(gateway.admin, "/config").await.unwrap();
    assert!(serde_json::from_str::<serde_json::Value>(&config.body).is_ok(), "{config:?}");
    assert!(config.body.contains("default/shown"), "{config:?}");
    assert_eq!(try_get(gateway.admin, "/problems").await.unwrap().body, "[]");
}

#[tokio::test]
async fn the_admin_port_explains_what_acts_on_a_route() {
    let policy = "apiVersion: nebula.dev/v1alpha1\nkind: RateLimitPolicy\nmetadata: {name: limit}\nspec:\n  targetRefs: \
                  [{group: gateway.networking.k8s.io, kind: Gateway, name: edge}]\n  limits: {client: {rate: 5, per: 1s}}\n";
    let folder = Folder::with([
        ("gateway.yaml", gateway()),
        ("policy.yaml", policy.into()),
        ("route.yaml", route("shown", "/", "one")),
        ("service.yaml", service("one", says("one").await)),
    ]);
    let gateway = Gateway::ready(&folder).await;
    let answer = try_get(gateway.admin, "/explain?route=http/default/shown").await.unwrap();
    let explanation: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    let sources = &explanation["policies"][0]["kinds"][0]["sources"];
    assert_eq!(sources["limits.client"], "rate-limit/default/limit", "{answer:?}");
    assert!(explanation["objects"]["endpoints/default/one/80"].is_array(), "{answer:?}");
    for (page, status) in [("/explain?route=http/default/other", 404), ("/explain?route=shown", 400)] {
        assert_eq!(try_get(gateway.admin, page).await.unwrap().status, status, "{page}");
    }
}

#[tokio::test]
async fn a_web_page_cannot_reach_the_admin_port_through_a_name_of_its_own() {
    let folder = Folder::with([("gateway.yaml", gateway())]);
    let gateway = Gateway::ready(&folder).await;
    let mut client = Client::connect(gateway.admin).await.unwrap();
    let request = Request::get("/config").header("host", "evil.example").body(Full::<Bytes>::default()).unwrap();
    assert_eq!(client.send(request).await.unwrap().status, 403);
}

#[tokio::test]
async fn traffic_is_counted_on_the_telemetry_port() {
    let folder = Folder::with([
        ("gateway.yaml", gateway()),
        ("route.yaml", route("counted", "/", "one")),
        ("service.yaml", service("one", says("one").await)),
    ]);
    let gateway = Gateway::ready(&folder).await;
    assert_eq!(gateway.get("/").await.status, 200);
    assert_eq!(try_get(gateway.telemetry, "/healthz").await.unwrap().status, 200);
    let metrics = try_get(gateway.telemetry, "/metrics").await.unwrap().body;
    assert!(metrics.contains("default/counted"), "{metrics}");
}
