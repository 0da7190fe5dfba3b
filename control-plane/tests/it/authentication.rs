//! Proxies' tokens: what the API server confirms, and for whom.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use control_plane::authenticate::{ServiceAccounts, TokenAuthenticator};
use control_plane_model::{GatewayKey, ObjectName};
use control_plane_wire::server::{AuthenticationError, Authenticator as _, ProxyIdentity};
use kit_process::clock::ManualClock;
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

const NOW: u64 = 2_000_000_000;

/// A token that claims to be this, with a signature that tells tokens apart.
fn token(audience: &str, subject: &str, expires_at: u64, signature: &str) -> String {
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let claims = json!({"aud": [audience], "sub": subject, "exp": expires_at});
    format!("{}.{}.{signature}", part(json!({"alg": "RS256"})), part(claims))
}

fn plausible(service_account: &str, signature: &str) -> String {
    let subject = format!("system:serviceaccount:infra:{service_account}");
    token("nebula-control-plane", &subject, NOW + 600, signature)
}

fn authenticator(fake: &Fake, service_accounts: ServiceAccounts) -> TokenAuthenticator {
    let clock = ManualClock::new(UNIX_EPOCH + Duration::from_secs(NOW));
    TokenAuthenticator::new(fake.client.clone(), service_accounts, Arc::new(clock))
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
    let good = plausible("edge-nebula", "good");
    fake.review(&good, confirmed("edge-nebula"));
    let authenticator = authenticator(&fake, service_accounts());
    let want = Ok(ProxyIdentity { gateway: edge(), pod: "edge-0".to_owned() });
    assert_eq!(authenticator.authenticate(&good).await, want);
    assert_eq!(authenticator.authenticate(&good).await, want);
    assert_eq!(fake.count("POST", 201), 1);
}

#[tokio::test]
async fn a_token_that_is_not_confirmed_is_refused_each_time_anew() {
    let fake = Fake::start();
    let authenticator = authenticator(&fake, service_accounts());
    for _ in 0..2 {
        let refused = authenticator.authenticate(&plausible("edge-nebula", "forged")).await;
        assert!(matches!(refused, Err(AuthenticationError::Invalid(_))), "{refused:?}");
    }
    assert_eq!(fake.count("POST", 201), 2);
}

#[tokio::test]
async fn a_service_account_that_serves_no_gateway_is_refused_and_loses_access_at_once() {
    let fake = Fake::start();
    let good = plausible("edge-nebula", "good");
    fake.review(&good, confirmed("edge-nebula"));
    let accounts = service_accounts();
    let authenticator = authenticator(&fake, accounts.clone());
    let refused = authenticator.authenticate(&plausible("default", "other")).await;
    assert!(matches!(&refused, Err(AuthenticationError::Invalid(why)) if why.contains("infra/default")), "{refused:?}");
    assert_eq!(fake.count("POST", 201), 0);
    assert!(authenticator.authenticate(&good).await.is_ok());
    accounts.store(Some(Arc::default()));
    assert!(authenticator.authenticate(&good).await.is_err());
}

#[tokio::test]
async fn before_every_watch_is_read_a_proxy_is_told_to_try_again() {
    let fake = Fake::start();
    let good = plausible("edge-nebula", "good");
    fake.review(&good, confirmed("edge-nebula"));
    let authenticator = authenticator(&fake, ServiceAccounts::default());
    let early = authenticator.authenticate(&good).await;
    assert!(matches!(early, Err(AuthenticationError::Unavailable(_))), "{early:?}");
}

#[tokio::test]
async fn without_an_api_server_a_proxy_is_told_to_try_again_and_no_text_holds_its_token() {
    let fake = Fake::start();
    fake.break_down(true);
    let authenticator = authenticator(&fake, service_accounts());
    let failed = authenticator.authenticate(&plausible("edge-nebula", "secret-token")).await;
    assert!(
        matches!(&failed, Err(AuthenticationError::Unavailable(why)) if !why.contains("secret-token")),
        "{failed:?}"
    );
}

#[tokio::test]
async fn what_could_not_be_a_proxys_token_is_refused_without_a_question() {
    let fake = Fake::start();
    let authenticator = authenticator(&fake, service_accounts());
    let (audience, proxy) = ("nebula-control-plane", "system:serviceaccount:infra:edge-nebula");
    for (token, why) in [
        ("secret-token".to_owned(), "the token is no JWT"),
        ("a.%.c".to_owned(), "the token is no JWT"),
        ("a.e30.c".to_owned(), "the token lacks a claim that is needed"),
        (token("https://kubernetes.default.svc", proxy, NOW + 600, "s"), "the token is for another audience"),
        (token(audience, "alice", NOW + 600, "s"), "the token is not a ServiceAccount's"),
        (token(audience, proxy, NOW - 600, "s"), "the token has expired"),
    ] {
        let refused = authenticator.authenticate(&token).await;
        assert_eq!(refused, Err(AuthenticationError::Invalid(why.to_owned())), "{token}");
    }
    assert_eq!(fake.count("POST", 201), 0);
}

#[tokio::test(start_paused = true)]
async fn forged_tokens_cost_the_api_server_no_more_than_the_rate_and_a_known_proxy_nothing() {
    let fake = Fake::start();
    let good = plausible("edge-nebula", "good");
    fake.review(&good, confirmed("edge-nebula"));
    let authenticator = authenticator(&fake, service_accounts());
    assert!(authenticator.authenticate(&good).await.is_ok());
    let mut unavailable = 0;
    for forged in 0..1000 {
        let token = plausible("edge-nebula", &forged.to_string());
        let refused = authenticator.authenticate(&token).await;
        unavailable += usize::from(matches!(refused, Err(AuthenticationError::Unavailable(_))));
    }
    assert_eq!((fake.count("POST", 201), unavailable), (500, 501));
    assert!(authenticator.authenticate(&good).await.is_ok());
    tokio::time::advance(Duration::from_secs(1)).await;
    let late = authenticator.authenticate(&plausible("edge-nebula", "late")).await;
    assert!(matches!(late, Err(AuthenticationError::Invalid(_))), "{late:?}");
}
