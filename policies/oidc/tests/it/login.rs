//! Logins as they should go: parallel tabs, few cookies, sessions of any size that fits.

use std::time::Duration;

use policy_oidc::{Callback, CookieNames, MAX_TRANSACTIONS, Transport, UnixTime, cookies};

use crate::browser::{Browser, CALLBACK, Gateway, issuer, metadata, random};

const NOW: UnixTime = UnixTime(1_000_000);

#[test]
fn a_login_asks_for_a_code_with_pkce_and_comes_back() {
    let gateway = Gateway::new("shop/web", "web");
    let mut browser = Browser::default();
    let asked = gateway.begin(&mut browser, "/cart?a=b", NOW);
    let fixed = [
        ("tenant", "1"),
        ("response_type", "code"),
        ("client_id", "web"),
        ("redirect_uri", CALLBACK),
        ("scope", "openid profile"),
        ("resource", "https://api.example/"),
        ("prompt", "login"),
        ("code_challenge_method", "S256"),
    ];
    for (name, value) in fixed {
        assert_eq!(asked[name], value);
    }
    assert!(asked["state"].len() == 43 && asked["nonce"].len() == 43 && asked["code_challenge"].len() == 43);
    assert!(browser.jar.values().all(|value| !value.contains(&asked["state"])), "sealed");

    let callback = Callback::parse(&format!("code=c&state={}&iss=https%3A%2F%2Fidp.example", asked["state"])).unwrap();
    let sent = browser.field();
    let (transaction, end) = gateway.transactions().take(callback.state.expose(), [sent.as_bytes()], NOW).unwrap();
    assert_eq!(transaction.return_to.as_str(), "/cart?a=b");
    assert_eq!((&*transaction.issuer, &*transaction.redirect_uri), (&*issuer(), CALLBACK));
    assert_eq!(callback.check(&transaction, &metadata()).unwrap().0.expose(), "c");
    browser.receive(&[end]);
    assert!(browser.jar.is_empty());
}

#[test]
fn tabs_log_in_beside_each_other_in_any_order() {
    let gateway = Gateway::new("shop/web", "web");
    let mut browser = Browser::default();
    let tabs: Vec<_> = (0..3).map(|tab| gateway.begin(&mut browser, &format!("/{tab}"), NOW)).collect();
    for tab in [1, 2, 0] {
        let sent = browser.field();
        let taken = gateway.transactions().take(&tabs[tab]["state"], [sent.as_bytes()], NOW);
        let (transaction, end) = taken.unwrap();
        assert_eq!(transaction.return_to.as_str(), format!("/{tab}"));
        browser.receive(&[end]);
    }
    assert!(browser.jar.is_empty());
}

#[test]
fn attempts_are_few_and_the_newest_ones() {
    let gateway = Gateway::new("shop/web", "web");
    let mut browser = Browser::default();
    let mut states = Vec::new();
    for second in 0..50 {
        let asked = gateway.begin(&mut browser, "/a", UnixTime(NOW.0 + second));
        states.push(asked["state"].clone());
        assert!(browser.jar.len() <= MAX_TRANSACTIONS);
    }
    let sent = browser.field();
    let now = UnixTime(NOW.0 + 50);
    let counts: Vec<bool> =
        states.iter().map(|state| gateway.transactions().take(state, [sent.as_bytes()], now).is_some()).collect();
    assert_eq!(counts.iter().filter(|counts| **counts).count(), MAX_TRANSACTIONS);
    assert!(counts[45..].iter().all(|counts| *counts), "the newest");
}

#[test]
fn long_attempts_are_fewer_so_that_their_bytes_are_bounded() {
    let gateway = Gateway::new("shop/web", "web");
    let mut browser = Browser::default();
    for second in 0..20 {
        gateway.begin(&mut browser, &format!("/{}", "a".repeat(1000)), UnixTime(NOW.0 + second));
        assert!(browser.field().len() <= 8 * 1024 + 100, "{}", browser.field().len());
    }
    assert!(browser.jar.len() >= 3);
}

#[test]
fn a_redirect_sweeps_what_is_spent_and_what_is_not_ours() {
    let gateway = Gateway::new("shop/web", "web");
    let mut browser = Browser::default();
    gateway.begin(&mut browser, "/old", NOW);
    let old = browser.jar.keys().next().unwrap().clone();
    for index in 0..60 {
        browser.jar.insert(format!("__Host-nebula-web-t-garbage{index}"), "x".into());
    }
    browser.jar.insert("__Host-nebula-other-t-abc".into(), "of another policy".into());
    let later = UnixTime(NOW.0 + 600);
    for _ in 0..4 {
        gateway.begin(&mut browser, "/new", later);
    }
    assert!(!browser.jar.contains_key(&old));
    assert!(browser.jar.contains_key("__Host-nebula-other-t-abc"));
    assert_eq!(browser.jar.len(), 5);
}

#[test]
fn a_session_is_cut_into_cookies_and_put_together_again() {
    let gateway = Gateway::new("shop/web", "web");
    let mut browser = Browser::default();
    let ring = (&gateway.ring, gateway.policy);
    for bytes in [10, 2_700, 2_900, 8_000, 11_000, 5_000, 1] {
        let session = vec![b'a'; bytes];
        let sent = browser.field();
        let fields =
            gateway.names.seal_session(ring, &session, Duration::from_hours(1), [sent.as_bytes()], &mut random());
        browser.receive(&fields.unwrap());
        let sent = browser.field();
        assert_eq!(gateway.names.open_session(ring, [sent.as_bytes()]), Some(session), "{bytes}");
        assert_eq!(browser.jar.len(), (bytes * 4 / 3 + 55).div_ceil(3800).max(1), "no older chunk is left");
    }
    let sent = browser.field();
    let large =
        gateway.names.seal_session(ring, &[0; 11_500], Duration::from_hours(1), [sent.as_bytes()], &mut random());
    assert!(large.is_err());
    browser.receive(&gateway.names.delete_session([sent.as_bytes()]));
    assert!(browser.jar.is_empty());
}

#[test]
fn an_id_is_256_bits_and_new_each_time() {
    let names = CookieNames::new("web", Transport::Plain).unwrap();
    let mut browser = Browser::default();
    let (first, _) = names.new_id(Duration::from_hours(1), [], &mut random());
    let (second, fields) = names.new_id(Duration::from_hours(1), [], &mut random());
    assert_ne!(first, second);
    assert_eq!(second.len(), 43);
    browser.receive(&fields);
    let sent = browser.field();
    assert_eq!(names.id([sent.as_bytes()]), Some(second));
    assert_eq!(cookies([sent.as_bytes()]).count(), 1);
    assert_eq!(names.id([&b"nebula-web-s0=1.abc"[..]]), None, "not one of the gateway's length");
}
