//! What somebody may try who sees, replays or mixes up answers and cookies.

use std::time::Duration;

use policy_oidc::{Callback, CallbackError, Once, Transaction, UnixTime};

use crate::browser::{Browser, Gateway, metadata, metadata_of, random};

const NOW: UnixTime = UnixTime(1_000_000);

fn query(state: &str, iss: Option<&str>) -> String {
    let iss = iss.map(|iss| policy_oidc::form_encode([("iss", iss)])).unwrap_or_default();
    format!("code=c&state={state}&{iss}")
}

#[test]
fn a_state_counts_in_the_browser_that_began_it_and_once() {
    let gateway = Gateway::new("shop/web", "web");
    let (mut victim, mut attacker) = (Browser::default(), Browser::default());
    let asked = gateway.begin(&mut attacker, "/", NOW);
    gateway.begin(&mut victim, "/", NOW);
    let of_victim = victim.field();
    assert!(gateway.transactions().take(&asked["state"], [of_victim.as_bytes()], NOW).is_none(), "login CSRF");
    let of_attacker = attacker.field();
    let (_, end) = gateway.transactions().take(&asked["state"], [of_attacker.as_bytes()], NOW).unwrap();
    attacker.receive(&[end]);
    let of_attacker = attacker.field();
    assert!(gateway.transactions().take(&asked["state"], [of_attacker.as_bytes()], NOW).is_none());
    // Somebody who kept the cookie all the same.
    let mut once = Once::new(10);
    let id = Transaction::id(&asked["state"]);
    assert!(once.is_first("shop/web", &id, UnixTime(NOW.0 + 600), NOW));
    assert!(!once.is_first("shop/web", &id, UnixTime(NOW.0 + 600), NOW));
}

#[test]
fn an_attempt_ends_after_ten_minutes() {
    let gateway = Gateway::new("shop/web", "web");
    let mut browser = Browser::default();
    let asked = gateway.begin(&mut browser, "/", NOW);
    let sent = browser.field();
    let take =
        |seconds: u64| gateway.transactions().take(&asked["state"], [sent.as_bytes()], UnixTime(NOW.0 + seconds));
    assert!(take(599).is_some());
    assert!(take(600).is_none());
}

#[test]
fn cookies_of_one_policy_are_of_no_use_in_another() {
    // The same key, the same cookie name: only the policy differs.
    let (one, other) = (Gateway::new("shop/web", "web"), Gateway::new("shop/admin", "web"));
    let mut browser = Browser::default();
    let asked = one.begin(&mut browser, "/", NOW);
    let session =
        one.names.seal_session((&one.ring, one.policy), b"session", Duration::from_hours(1), [], &mut random());
    browser.receive(&session.unwrap());
    let sent = browser.field();
    assert!(other.transactions().take(&asked["state"], [sent.as_bytes()], NOW).is_none());
    assert_eq!(other.names.open_session((&other.ring, other.policy), [sent.as_bytes()]), None);
    assert!(one.names.open_session((&one.ring, one.policy), [sent.as_bytes()]).is_some());
}

#[test]
fn a_cookie_under_another_name_or_for_another_purpose_is_refused() {
    let gateway = Gateway::new("shop/web", "web");
    let mut browser = Browser::default();
    let first = gateway.begin(&mut browser, "/a", NOW);
    let of_first = browser.jar.values().next().unwrap().clone();
    let mut second_browser = Browser::default();
    let second = gateway.begin(&mut second_browser, "/b", NOW);
    let name = second_browser.jar.keys().next().unwrap().clone();
    let swapped = format!("{name}={of_first}");
    for asked in [&first, &second] {
        assert!(gateway.transactions().take(&asked["state"], [swapped.as_bytes()], NOW).is_none());
    }
    let as_session = format!("__Host-nebula-web-s0=1.{of_first}");
    assert_eq!(gateway.names.open_session((&gateway.ring, gateway.policy), [as_session.as_bytes()]), None);
}

#[test]
fn an_answer_of_another_issuer_is_refused() {
    let gateway = Gateway::new("shop/web", "web");
    let mut browser = Browser::default();
    let asked = gateway.begin(&mut browser, "/", NOW);
    let sent = browser.field();
    let (transaction, _) = gateway.transactions().take(&asked["state"], [sent.as_bytes()], NOW).unwrap();
    let check = |iss: Option<&str>, metadata: policy_oidc::ProviderMetadata| {
        Callback::parse(&query(&asked["state"], iss)).unwrap().check(&transaction, &metadata)
    };
    let silent = metadata_of("https://idp.example", false);
    assert!(check(Some("https://idp.example"), metadata()).is_ok());
    assert!(check(None, silent.clone()).is_ok());
    for refused in [
        check(Some("https://evil.example"), metadata()),
        check(Some("https://idp.example/"), metadata()),
        check(None, metadata()),
        check(Some("https://evil.example"), silent.clone()),
        // The policy's provider was exchanged meanwhile.
        check(Some("https://evil.example"), metadata_of("https://evil.example", true)),
    ] {
        assert_eq!(refused, Err(CallbackError::OtherIssuer));
    }
}

#[test]
fn a_callback_with_a_parameter_twice_or_none_is_no_answer() {
    for query in [
        "",
        "code=c",
        "state=s",
        "code=&state=s",
        "code=c&state=",
        "code=c&state=s&state=t",
        "code=c&code=d&state=s",
        "code=c&state=s&iss=a&iss=b",
        "code=c&error=access_denied&state=s",
        "code=%ff&state=s",
        &format!("code={}&state=s", "a".repeat(9000)),
        &format!("code=c&state=s{}", "&a=b".repeat(20)),
    ] {
        assert_eq!(Callback::parse(query), Err(CallbackError::Malformed), "{query:.40}");
    }
}

#[test]
fn an_error_has_a_name_only_where_it_is_known() {
    let gateway = Gateway::new("shop/web", "web");
    let mut browser = Browser::default();
    let asked = gateway.begin(&mut browser, "/", NOW);
    let sent = browser.field();
    let (transaction, _) = gateway.transactions().take(&asked["state"], [sent.as_bytes()], NOW).unwrap();
    let refusal = |error: &str| {
        let query =
            format!("error={error}&error_description=<script>&state={}&iss=https://idp.example", asked["state"]);
        Callback::parse(&query).unwrap().check(&transaction, &metadata()).unwrap_err()
    };
    assert_eq!(refusal("access_denied"), CallbackError::Denied);
    assert_eq!(refusal("temporarily_unavailable"), CallbackError::Unavailable);
    assert_eq!(refusal("login_required"), CallbackError::Refused("login_required"));
    assert_eq!(refusal("<script>"), CallbackError::Refused("an unknown error"));
}
