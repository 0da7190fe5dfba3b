//! Key sets from a real server over TLS: by URL and by discovery, rotated, refused, gone.

use std::collections::BTreeSet;

use control_plane_model::{HttpsUrl, KeyLocation};
use futures::future::join_all;
use kit_process::drain::{self, DrainTrigger};
use policy_jose::Algorithms;
use serde_json::json;

use super::*;
use crate::authentication::testing::{Answer, ONE, Server, TWO, key_set, spawn};

fn store() -> (Arc<KeyStore>, DrainTrigger) {
    let store = Arc::new(KeyStore::new(Arc::new(rustls::crypto::aws_lc_rs::default_provider())));
    let (trigger, drain) = drain::channel();
    let running = store.clone();
    spawn(async move { running.run(drain, || 0.5).await });
    (store, trigger)
}

fn all() -> BTreeSet<SigningAlgorithm> {
    SigningAlgorithm::ALL.into_iter().collect()
}

#[tokio::test]
async fn many_requests_wait_for_one_fetch_by_way_of_the_issuers_metadata() {
    let server = Server::start().await;
    let metadata = json!({"issuer": server.origin, "jwks_uri": format!("{}/keys", server.origin)});
    server.set("/.well-known/openid-configuration", Answer::ok(metadata.to_string()));
    server.set("/keys", Answer::ok(key_set(&[&ONE])));
    let (store, _trigger) = store();
    let location = KeyLocation::Discovery {
        url: HttpsUrl::discovery(&server.origin).unwrap(),
        issuer: server.origin.as_str().into(),
    };
    let keeper = store.keeper(&server.keys(location), &all());
    let found = join_all((0..50).map(|_| store.keys(&keeper))).await;
    assert!(found.iter().all(|keys| keys.as_ref().is_some_and(|keys| keys.usable() == 1)));
    assert_eq!(server.asked(), ["/.well-known/openid-configuration", "/keys"]);
}

#[tokio::test]
async fn an_unknown_key_causes_one_fetch_whoever_asks_and_then_none_for_a_while() {
    let server = Server::start().await;
    server.set("/keys", Answer::ok(key_set(&[&ONE])));
    let (store, _trigger) = store();
    let keeper = store.keeper(&server.keys_at("/keys"), &all());
    let old = store.keys(&keeper).await.unwrap();

    server.set("/keys", Answer::ok(key_set(&[&ONE, &TWO])));
    for missed in join_all((0..50).map(|_| store.keys_after_miss(&keeper, &old))).await {
        assert!(matches!(missed, Missed::Current(keys) if keys.usable() == 2));
    }
    assert_eq!(server.asked().len(), 2);

    let new = store.keys(&keeper).await.unwrap();
    for _ in 0..50 {
        let missed = store.keys_after_miss(&keeper, &new).await;
        assert!(matches!(missed, Missed::Current(keys) if Arc::ptr_eq(&keys, &new)));
    }
    assert_eq!(server.asked().len(), 3);
}

#[tokio::test]
async fn without_its_provider_a_store_keeps_what_it_has_and_says_that_it_cannot_tell_more() {
    let server = Server::start().await;
    server.set("/keys", Answer::ok(key_set(&[&ONE])));
    let (store, _trigger) = store();
    let keeper = store.keeper(&server.keys_at("/keys"), &all());
    let keys = store.keys(&keeper).await.unwrap();
    server.set("/keys", Answer::Text(500, Vec::new(), String::new()));
    assert!(matches!(store.keys_after_miss(&keeper, &keys).await, Missed::Unavailable));
    assert!(Arc::ptr_eq(&store.keys(&keeper).await.unwrap(), &keys));
    let [state] = store.states().try_into().unwrap();
    assert_eq!((state.usable_keys, state.failures), (1, 1));
    assert!(state.last_error.unwrap().contains("status 500"));
}

#[tokio::test]
async fn there_are_no_keys_where_the_provider_was_never_reached() {
    let server = Server::start().await;
    server.set("/keys", Answer::Text(503, Vec::new(), String::new()));
    let (store, _trigger) = store();
    let keeper = store.keeper(&server.keys_at("/keys"), &all());
    assert!(store.keys(&keeper).await.is_none());
    assert!(store.keys(&keeper).await.is_none());
    assert_eq!(store.states()[0].usable_keys, 0);
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_hangs_holds_a_request_for_three_seconds() {
    let server = Server::start().await;
    server.set("/keys", Answer::Nothing);
    let (store, _trigger) = store();
    let keeper = store.keeper(&server.keys_at("/keys"), &all());
    let begun = Instant::now();
    assert!(store.keys(&keeper).await.is_none());
    assert!(begun.elapsed() <= Duration::from_millis(3010), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn equal_descriptions_share_a_key_set_and_one_that_nobody_uses_is_forgotten() {
    let server = Server::start().await;
    server.set("/keys", Answer::ok(key_set(&[&ONE])));
    let (store, _trigger) = store();
    let one = store.keeper(&server.keys_at("/keys"), &all());
    let same = store.keeper(&server.keys_at("/keys"), &all());
    let other = store.keeper(&server.keys_at("/keys"), &[SigningAlgorithm::Es256].into_iter().collect());
    assert!(Arc::ptr_eq(&one, &same) && !Arc::ptr_eq(&one, &other));
    assert!(store.keys(&one).await.is_some() && store.keys(&other).await.is_some());
    assert_eq!((server.asked().len(), store.states().len()), (2, 2));
    drop((one, same));
    assert_eq!(store.states().len(), 1);
}

#[tokio::test]
async fn what_is_no_good_answer_brings_no_keys() {
    let server = Server::start().await;
    let other = Server::start().await;
    other.set("/keys", Answer::ok(key_set(&[&ONE])));
    let location = vec![("location", format!("{}/keys", other.origin))];
    server.set("/redirect", Answer::Text(302, location, key_set(&[&ONE])));
    server.set("/large", Answer::ok(" ".repeat(300 * 1024)));
    server.set("/text", Answer::ok("<html>"));
    server.set("/none", Answer::ok(r#"{"keys": []}"#));
    server.set("/keys", Answer::ok(key_set(&[&ONE])));
    let fetcher = Fetcher::new(Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    let error = async |remote: Arc<RemoteKeys>| {
        let error = fetcher.fetch(&remote, Algorithms::ASYMMETRIC).await.unwrap_err();
        kit_process::error::chain(&error)
    };
    for (path, word) in [
        ("/redirect", "status 302"),
        ("/missing", "status 404"),
        ("/large", "more than 262144 bytes"),
        ("/text", "not a JWK set"),
        ("/none", "no key of the set can be used"),
    ] {
        let error = error(server.keys_at(path)).await;
        assert!(error.contains(word), "{path}: {error}");
    }
    assert!(other.asked().is_empty());
    // A certificate by somebody else.
    let location = KeyLocation::Url(format!("{}/keys", server.origin).parse().unwrap());
    let error = error(other.keys(location)).await;
    assert!(error.contains("cannot be reached") && error.contains("certificate"), "{error}");
    assert!(fetcher.fetch(&server.keys_at("/keys"), Algorithms::ASYMMETRIC).await.is_ok());
}
