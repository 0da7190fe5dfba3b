//! Policies in files: what they do to requests, what is said of them, and that one never touches another's route.

use crate::harness::{Client, Folder, Gateway, eventually, gateway, route, says, service, try_get};

fn rate_limit(name: &str, target: &str, spec: &str) -> String {
    format!(
        "apiVersion: nebula.dev/v1alpha1\nkind: RateLimitPolicy\nmetadata: {{name: {name}}}\nspec:\n  targetRefs: [{target}]\n  {spec}\n"
    )
}

fn on_route(name: &str) -> String {
    format!("{{group: gateway.networking.k8s.io, kind: HTTPRoute, name: {name}}}")
}

async fn two_routes() -> Folder {
    let backend = says("served").await;
    Folder::with([
        ("gateway.yaml", gateway()),
        ("services.yaml", service("one", backend)),
        ("limited.yaml", route("limited", "/limited", "one")),
        ("free.yaml", route("free", "/free", "one")),
    ])
}

#[tokio::test]
async fn a_limited_route_answers_429_and_tells_how_much_is_left() {
    let folder = two_routes().await;
    folder.write("limit.yaml", &rate_limit("limit", &on_route("limited"), "limits: {client: {rate: 2, per: 1h}}"));
    let gateway = Gateway::ready(&folder).await;
    let first = gateway.get("/limited").await;
    assert_eq!((first.status.as_u16(), first.body.as_str()), (200, "served"));
    assert_eq!(first.header("ratelimit-policy"), "\"client\";q=2;w=3600");
    assert!(first.header("ratelimit").starts_with("\"client\";r=1;t="), "{first:?}");
    assert_eq!(gateway.get("/limited").await.status, 200);

    let refused = gateway.get("/limited").await;
    assert_eq!(refused.status, 429);
    assert_eq!(refused.header("x-nebula-reason"), "rate_limited");
    assert!((1700..=1800).contains(&refused.header("retry-after").parse::<u32>().unwrap()), "{refused:?}");
    assert!(refused.header("ratelimit").starts_with("\"client\";r=0;t="), "{refused:?}");
    assert_eq!(gateway.get("/free").await.status, 200, "another route");

    let line = gateway.access_logged("\"status\":429").await;
    assert!(
        line.contains("\"flag\":\"rate_limited\",\"policy\":\"rate-limit/default/limit\",\"reported\":null"),
        "{line}"
    );
    let metrics = try_get(gateway.telemetry, "/metrics").await.unwrap().body;
    let sample = "policy=\"rate-limit/default/limit\",reason=\"rate_limited\",mode=\"enforce\"} 1";
    assert!(metrics.contains(sample), "{metrics}");
    assert!(!first.headers.contains_key("x-nebula-policy"), "clients do not learn the names of policies");
}

#[tokio::test]
async fn an_edit_keeps_the_buckets_and_a_removal_lifts_the_limit() {
    let folder = two_routes().await;
    let limit = |rate| {
        rate_limit("limit", &on_route("limited"), &format!("limits: {{client: {{rate: {rate}, per: 1h, burst: 1}}}}"))
    };
    folder.write("limit.yaml", &limit(1));
    let gateway = Gateway::ready(&folder).await;
    assert_eq!(gateway.get("/limited").await.status, 200);
    assert_eq!(gateway.get("/limited").await.status, 429);
    folder.replace("limit.yaml", &limit(2));
    eventually("the new rate is told", || async {
        let answer = gateway.get("/limited").await;
        assert_eq!(answer.status, 429, "an edit does not fill the bucket");
        answer.header("ratelimit-policy").contains("q=2").then_some(())
    })
    .await;
    folder.remove("limit.yaml");
    gateway.answers("/limited", 200).await;
}

#[tokio::test]
async fn a_gateways_default_yields_to_the_route_and_its_override_does_not() {
    let folder = two_routes().await;
    let on_gateway = "{group: gateway.networking.k8s.io, kind: Gateway, name: edge}";
    folder.write(
        "edge.yaml",
        &rate_limit(
            "edge",
            on_gateway,
            "limits: {client: {rate: 1, per: 1h}}\n  overrides: {limits: {cap: {rate: 3, per: 1h}}}",
        ),
    );
    folder.write(
        "limit.yaml",
        &rate_limit("limit", &on_route("limited"), "limits: {client: {rate: 100, per: 1h}, cap: {rate: 100, per: 1h}}"),
    );
    let gateway = Gateway::ready(&folder).await;
    assert_eq!(gateway.get("/free").await.status, 200);
    assert_eq!(gateway.get("/free").await.status, 429, "the Gateway's default");
    let statuses = [gateway.get("/limited").await, gateway.get("/limited").await, gateway.get("/limited").await];
    let statuses = statuses.map(|answer| answer.status.as_u16());
    assert_eq!(statuses, [200, 200, 429], "the Gateway's cap, of which the other route took one");
}

#[tokio::test]
async fn report_mode_refuses_nothing_and_says_what_it_would_have() {
    let folder = two_routes().await;
    folder.write(
        "limit.yaml",
        &rate_limit("limit", &on_route("limited"), "mode: Report\n  limits: {client: {rate: 1, per: 1h}}"),
    );
    let gateway = Gateway::ready(&folder).await;
    assert_eq!(gateway.get("/limited").await.status, 200);
    let second = gateway.get("/limited").await;
    assert_eq!(second.status, 200);
    assert!(!second.headers.contains_key("ratelimit"), "{second:?}");
    let line = gateway.access_logged("\"reported\":\"rate-limit/default/limit rate_limited\"").await;
    assert!(line.contains("\"status\":200") && line.contains("\"policy\":null"), "{line}");
}

#[tokio::test]
async fn an_invalid_policy_closes_its_own_route_and_no_other() {
    let folder = two_routes().await;
    folder.write("limit.yaml", &rate_limit("limit", &on_route("limited"), "limits: {client: {rate: 1, per: soon}}"));
    let gateway = Gateway::ready(&folder).await;
    let closed = gateway.get("/limited").await;
    assert_eq!((closed.status.as_u16(), closed.header("x-nebula-reason")), (500, "policy_invalid"));
    assert_eq!(gateway.get("/free").await.status, 200);
    let problems = try_get(gateway.admin, "/problems").await.unwrap().body;
    assert!(problems.contains("\"field\":\"spec.limits.client.per\""), "{problems}");
    assert!(problems.contains("\\\"soon\\\" is not a duration"), "{problems}");
    folder.replace("limit.yaml", &rate_limit("limit", &on_route("limited"), "limits: {client: {rate: 1, per: 1s}}"));
    gateway.answers("/limited", 200).await;
}

#[tokio::test]
async fn requests_in_flight_are_limited_until_their_responses_have_ended() {
    let folder = two_routes().await;
    folder.write(
        "limit.yaml",
        &rate_limit("limit", &on_route("limited"), "concurrency: {slow: {limit: 1, key: [{type: Shared}]}}"),
    );
    let gateway = Gateway::ready(&folder).await;
    let mut client = Client::connect(gateway.http).await.unwrap();
    for _ in 0..50 {
        assert_eq!(client.get("/limited").await.unwrap().status, 200, "one after another");
    }
}
