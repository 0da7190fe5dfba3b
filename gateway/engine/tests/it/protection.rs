//! A backend's policy that comes, changes, goes, is missing or cannot be honoured.

use control_plane_model::{
    BackendOptions, BackendProtocol, BackendSettings, ConcurrencyLimits, Delta, PolicySpec, ResourceKey,
};
use gateway_engine::BreakerCommand;
use http::StatusCode;

use crate::harness::{
    Proxy, answering, backend, backend_key, one_backend, policy, policy_key, protected, route, rule, saying,
};

fn spec() -> PolicySpec {
    let limits = ConcurrencyLimits { max: 1, pending: 0, max_wait: std::time::Duration::from_secs(1) };
    let options = BackendOptions { limits: Some(limits), ..BackendOptions::default() };
    PolicySpec::Backend(Box::new(BackendSettings::new(options).unwrap()))
}

#[tokio::test]
async fn a_backend_whose_policy_is_missing_or_invalid_is_closed_and_no_other() {
    let (address, answers) = answering().await;
    let mut objects = one_backend(&[address]);
    objects.push(protected("one", BackendProtocol::Http1));
    objects.extend(backend("two", BackendProtocol::Http1, &[saying("two").await]));
    objects.push(route("all", vec![rule("/two", &[("two", 1)]), rule("/", &[("one", 1)])]));
    let proxy = Proxy::start(objects).await;
    let missing = proxy.get("/").await;
    assert_eq!(missing.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(missing.headers()["x-nebula-reason"], "policy_unavailable");
    assert_eq!(proxy.upsert([policy("one", PolicySpec::Invalid)]).await, []);
    assert_eq!(proxy.get("/").await.headers()["x-nebula-reason"], "policy_invalid");
    assert_eq!(answers.count(), 0);
    assert_eq!(proxy.get("/two").await.body(), "two");
    assert_eq!(proxy.upsert([policy("one", spec())]).await, []);
    assert_eq!(proxy.get("/").await.status(), StatusCode::OK);
    let key = ResourceKey::Policy(policy_key("one"));
    let removed = Delta { upserted: Vec::new(), removed: vec![key] };
    assert_eq!(proxy.engine.apply(removed).await, []);
    assert_eq!(proxy.get("/").await.headers()["x-nebula-reason"], "policy_unavailable");
    let line = proxy.log.lines(1).await.remove(0);
    assert_eq!(line["policy"], "backend/test/one");
}

#[tokio::test]
async fn a_backend_that_loses_its_policy_is_free_of_it() {
    let (address, _) = answering().await;
    let proxy = Proxy::start(one_backend(&[address])).await;
    proxy.protect("one", BackendOptions::default()).await;
    assert!(proxy.backend_view("one").is_object());
    let [plain, _] = backend("one", BackendProtocol::Http1, &[address]);
    assert_eq!(proxy.upsert([plain]).await, []);
    assert!(proxy.backend_view("one").is_null());
    assert_eq!(proxy.get("/").await.status(), StatusCode::OK);
    let error = proxy.engine.force_breaker(&backend_key("one"), BreakerCommand::Open).unwrap_err();
    assert_eq!(error.to_string(), "backend test/one/80 has no circuit breaker");
}
