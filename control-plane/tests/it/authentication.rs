//! Proxies' tokens: what the API server confirms, and for whom.

use std::{collections::HashMap, sync::Arc};

use control_plane::authenticate::{ServiceAccounts, TokenAuthenticator};
use control_plane_model::{GatewayKey, ObjectName};
use control_plane_wire::server::{AuthenticationError, Authenticator as _, ProxyIdentity};
use serde_json::{Value, json};

use crate::fake::Fake;

fn confirmed(service_account: &str) -> Value {
    json!({
        "authenticated": true,
        "audiences": ["nebula-control-plane"],
        "user": {
            "username": format!("system:serviceaccount:infra:{service_account}"),
            "extra": {"authentication.kubernetes.io/pod-name": ["edge-0"]},
        },
    })
}

fn edge() -> GatewayKey {
    GatewayKey(ObjectName::new("infra", "edge"))
}

fn service_accounts() -> ServiceAccounts {
    let accounts: HashMap<_, _> = [(ObjectName::new("infra", "edge-nebula"), edge())].into();
    let shared = ServiceAccounts::default();
    shared.store(Some(Arc::new(accounts)));
    shared
}

#[tokio::test]
async fn a_confirmed_proxy_is_one_of_its_gateway_and_is_asked_about_once() {
    let fake = Fake::start();
    fake.review("good", confirmed("edge-nebula"));
    let authenticator = TokenAuthenticator::new(fake.client.clone(), service_accounts());
    let want = Ok(ProxyIdentity { gateway: edge(), pod: "edge-0".to_owned() });
    assert_eq!(authenticator.authenticate("good").await, want);
    assert_eq!(authenticator.authenticate("good").await, want);
    assert_eq!(fake.count("POST", 201), 1);
}

#[tokio::test]
async fn a_token_that_is_not_confirmed_is_refused_each_time_anew() {
    let fake = Fake::start();
    let authenticator = TokenAuthenticator::new(fake.client.clone(), service_accounts());
    for _ in 0..2 {
        let refused = authenticator.authenticate("forged").await;
        assert!(matches!(refused, Err(AuthenticationError::Invalid(_))), "{refused:?}");
    }
    assert_eq!(fake.count("POST", 201), 2);
}

#[tokio::test]
async fn a_service_account_that_serves_no_gateway_is_refused_and_loses_access_at_once() {
    let fake = Fake::start();
    fake.review("other", confirmed("default"));
    fake.review("good", confirmed("edge-nebula"));
    let accounts = service_accounts();
    let authenticator = TokenAuthenticator::new(fake.client.clone(), accounts.clone());
    let refused = authenticator.authenticate("other").await;
    assert!(matches!(&refused, Err(AuthenticationError::Invalid(why)) if why.contains("infra/default")), "{refused:?}");
    assert!(authenticator.authenticate("good").await.is_ok());
    accounts.store(Some(Arc::default()));
    assert!(authenticator.authenticate("good").await.is_err());
}

#[tokio::test]
async fn before_every_watch_is_read_a_proxy_is_told_to_try_again() {
    let fake = Fake::start();
    fake.review("good", confirmed("edge-nebula"));
    let authenticator = TokenAuthenticator::new(fake.client.clone(), ServiceAccounts::default());
    let early = authenticator.authenticate("good").await;
    assert!(matches!(early, Err(AuthenticationError::Unavailable(_))), "{early:?}");
}

#[tokio::test]
async fn without_an_api_server_a_proxy_is_told_to_try_again_and_no_text_holds_its_token() {
    let fake = Fake::start();
    fake.break_down(true);
    let authenticator = TokenAuthenticator::new(fake.client.clone(), service_accounts());
    let failed = authenticator.authenticate("secret-token").await;
    assert!(
        matches!(&failed, Err(AuthenticationError::Unavailable(why)) if !why.contains("secret-token")),
        "{failed:?}"
    );
}
