//! BackendPolicies in files: what they do to requests, and what an operator sees and overrules.

use std::sync::{
    Arc,
    atomic::{AtomicU16, Ordering},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;

use crate::harness::{Client, Folder, Gateway, backend, eventually, gateway, route, says, service, try_get};

fn policy(spec: &str) -> String {
    format!(
        "apiVersion: nebula.dev/v1alpha1\nkind: BackendPolicy\nmetadata: {{name: one}}\nspec:\n  \
         targetRefs: [{{kind: Service, name: one}}]\n  {spec}\n"
    )
}

/// A gateway before a Service `one` whose answers have the status of the moment, with this policy, and a Service `two`.
async fn protected(spec: &str) -> (Folder, Gateway, Arc<AtomicU16>) {
    let status = Arc::new(AtomicU16::new(200));
    let shown = status.clone();
    let address = backend(move |_| {
        let status = shown.load(Ordering::SeqCst);
        async move { Response::builder().status(status).body(Full::<Bytes>::from("answer")).unwrap() }
    })
    .await;
    let folder = Folder::with([
        ("gateway.yaml", gateway()),
        ("one.yaml", service("one", address)),
        ("two.yaml", service("two", says("two").await)),
        ("route.yaml", route("one", "/one", "one")),
        ("free.yaml", route("two", "/two", "two")),
        ("policy.yaml", policy(spec)),
    ]);
    let gateway = Gateway::ready(&folder).await;
    (folder, gateway, status)
}

const BREAKER: &str = "circuitBreaker: {consecutiveFailures: 3, open: {duration: 30m, jitterPercent: 0}}";

async fn fail_until_open(gateway: &Gateway, status: &AtomicU16) {
    status.store(500, Ordering::SeqCst);
    eventually("the breaker opens", || async { (gateway.get("/one").await.status == 503).then_some(()) }).await;
}

async fn command(gateway: &Gateway, command: &'static str, origin: Option<&str>) -> u16 {
    let mut client = Client::connect(gateway.admin).await.unwrap();
    let mut request = Request::post("/backends/default/one/80/breaker").header("host", "localhost");
    if let Some(origin) = origin {
        request = request.header("origin", origin);
    }
    client.send(request.body(Full::<Bytes>::from(command)).unwrap()).await.unwrap().status.as_u16()
}

#[tokio::test]
async fn a_service_that_fails_is_left_alone_and_an_operator_may_overrule_that() {
    let (_folder, gateway, status) = protected(BREAKER).await;
    assert_eq!(gateway.get("/one").await.status, 200);
    fail_until_open(&gateway, &status).await;
    let refused = gateway.get("/one").await;
    assert_eq!(refused.header("x-nebula-reason"), "circuit_open");
    assert!((1700..=1800).contains(&refused.header("retry-after").parse::<u32>().unwrap()), "{refused:?}");
    assert_eq!(gateway.get("/two").await.status, 200, "another Service");
    gateway.logged("circuit breaker changed its state").await;
    let metrics = try_get(gateway.telemetry, "/metrics").await.unwrap().body;
    let sample = "gateway_backend_breaker_state{backend=\"default/one/80\",state=\"open\"} 1";
    assert!(metrics.contains(sample), "{metrics}");
    let shown = try_get(gateway.admin, "/backends").await.unwrap().body;
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["default/one/80"]["state"]["breaker"]["state"], "open", "{shown}");

    assert_eq!(command(&gateway, "closed", Some("http://evil.example")).await, 403, "a page in a browser");
    assert_eq!(command(&gateway, "ajar", None).await, 400);
    assert_eq!(gateway.get("/one").await.status, 503);
    status.store(200, Ordering::SeqCst);
    assert_eq!(command(&gateway, "closed", None).await, 204);
    assert_eq!(gateway.get("/one").await.status, 200);
    assert_eq!(command(&gateway, "auto", None).await, 204);
    assert_eq!(gateway.get("/one").await.status, 200);
}

#[tokio::test]
async fn a_breaker_outlives_an_edit_of_something_else() {
    let (folder, gateway, status) = protected(BREAKER).await;
    fail_until_open(&gateway, &status).await;
    folder.replace("policy.yaml", &policy(&format!("{BREAKER}\n  fallback: {{response: {{body: later}}}}")));
    let answer = eventually("the fallback is there", || async {
        let answer = gateway.get("/one").await;
        (answer.body == "later").then_some(answer)
    })
    .await;
    assert_eq!((answer.status.as_u16(), answer.header("x-nebula-reason")), (503, "circuit_open"));
    folder.remove("policy.yaml");
    gateway.answers("/one", 500).await;
}

#[tokio::test]
async fn a_policy_that_cannot_be_honoured_closes_its_service_and_says_which_field() {
    let (folder, gateway, _status) = protected("limits: {maxRequests: 5}").await;
    assert_eq!(gateway.get("/one").await.status, 200);
    folder.replace("policy.yaml", &policy("circuitBreaker: {halfOpen: {probes: 500}}"));
    let answer = gateway.answers("/one", 500).await;
    assert_eq!(answer.header("x-nebula-reason"), "policy_invalid");
    assert_eq!(gateway.get("/two").await.status, 200);
    let problems = try_get(gateway.admin, "/problems").await.unwrap().body;
    assert!(problems.contains("spec.circuitBreaker.halfOpen.probes"), "{problems}");
}

#[tokio::test]
async fn an_endpoint_whose_health_checks_fail_gets_no_requests() {
    let (_folder, gateway, status) =
        protected("healthCheck: {http: {}, interval: 100ms, unhealthyThreshold: 1}\n  panicThreshold: 0").await;
    status.store(503, Ordering::SeqCst);
    eventually("the endpoint is found unhealthy", || async {
        (gateway.get("/one").await.header("x-nebula-reason") == "no_healthy_endpoints").then_some(())
    })
    .await;
    status.store(200, Ordering::SeqCst);
    gateway.answers("/one", 200).await;
}
