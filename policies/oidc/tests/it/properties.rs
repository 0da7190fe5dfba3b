//! Nothing that a client sends is taken for what the gateway sealed, and nothing makes it fail.

use std::time::Duration;

use policy_oidc::{Callback, ReturnPath, Stripped, UnixTime, cookies, without_gateway_cookies};
use proptest::prelude::*;

use crate::browser::{Browser, Gateway, random};

const NOW: UnixTime = UnixTime(1_000_000);

fn sealed(bytes: usize) -> (Gateway, Browser) {
    let gateway = Gateway::new("shop/web", "web");
    let mut browser = Browser::default();
    let session = vec![b'a'; bytes];
    let fields = gateway.names.seal_session(
        (&gateway.ring, gateway.policy),
        &session,
        Duration::from_hours(1),
        [],
        &mut random(),
    );
    browser.receive(&fields.unwrap());
    (gateway, browser)
}

proptest! {
    #[test]
    fn any_bytes_as_cookies_are_read_without_failing(field in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let gateway = Gateway::new("shop/web", "web");
        prop_assert_eq!(gateway.names.open_session((&gateway.ring, gateway.policy), [&field[..]]), None);
        prop_assert!(gateway.transactions().take("state", [&field[..]], NOW).is_none());
        prop_assert_eq!(gateway.names.id([&field[..]]), None);
    }

    #[test]
    fn a_changed_or_cut_session_does_not_open(bytes in 1usize..9000, at in any::<prop::sample::Index>(), cut in any::<bool>()) {
        let (gateway, mut browser) = sealed(bytes);
        let chunk = at.index(browser.jar.len());
        let value = browser.jar.values_mut().nth(chunk).unwrap();
        let place = at.index(value.len());
        if cut {
            value.truncate(place);
        } else {
            let other = if value.as_bytes()[place] == b'A' { "B" } else { "A" };
            value.replace_range(place..=place, other);
        }
        let sent = browser.field();
        prop_assert_eq!(gateway.names.open_session((&gateway.ring, gateway.policy), [sent.as_bytes()]), None);
    }

    #[test]
    fn a_session_without_one_of_its_chunks_or_with_two_exchanged_does_not_open(lost in 0usize..3) {
        let (gateway, browser) = sealed(8000);
        let ring = (&gateway.ring, gateway.policy);
        let mut less = Browser { jar: browser.jar.clone() };
        less.jar.remove(&format!("__Host-nebula-web-s{lost}"));
        let sent = less.field();
        prop_assert_eq!(gateway.names.open_session(ring, [sent.as_bytes()]), None);
        let mut exchanged = browser;
        let (one, two) = (exchanged.jar["__Host-nebula-web-s1"].clone(), exchanged.jar["__Host-nebula-web-s2"].clone());
        exchanged.jar.insert("__Host-nebula-web-s1".into(), two);
        exchanged.jar.insert("__Host-nebula-web-s2".into(), one);
        let sent = exchanged.field();
        prop_assert_eq!(gateway.names.open_session(ring, [sent.as_bytes()]), None);
    }

    #[test]
    fn any_query_is_an_answer_or_none(query in "\\PC{0,300}") {
        let _ = Callback::parse(&query);
    }

    #[test]
    fn a_return_path_begins_a_path_and_holds_nothing_that_a_browser_leaves_out(text in "[/\\\\a-z\\t\\n .:@%?#]{0,40}") {
        let path = ReturnPath::or_root(&text);
        let path = path.as_str();
        prop_assert!(path.starts_with('/') && !path.starts_with("//") && !path.contains(['\\', '\t', '\n', '\r', ' ', '#']));
    }

    #[test]
    fn what_is_left_for_the_backend_has_no_gateway_cookie_and_all_others(
        pairs in proptest::collection::vec(("(__Host-|__HOST-)?(nebula-|NEBULA-|other|a)[a-z0-9]{0,5}", "[a-z0-9]{1,5}"), 0..10)
    ) {
        let field = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ");
        let is_own = |name: &str| name.to_lowercase().trim_start_matches("__host-").starts_with("nebula-");
        let expected: Vec<_> = pairs.iter().filter(|(name, _)| !is_own(name)).cloned().collect();
        let left = match without_gateway_cookies(field.as_bytes()) {
            Stripped::Unchanged => field.into_bytes(),
            Stripped::Left(left) => left,
            Stripped::Nothing => Vec::new(),
        };
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let left: Vec<_> = cookies([&left[..]]).map(|(name, value)| (text(name), text(value))).collect();
        prop_assert_eq!(left, expected);
    }
}
