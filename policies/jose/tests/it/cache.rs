//! The cache of accepted tokens.

use std::sync::Arc;
use std::time::Duration;

use policy_jose::{
    Algorithms, BoundVerifier, Expiry, InvalidCache, KeySet, Lookup, MAX_CACHE_ENTRIES, MAX_CACHE_TIME, Reason,
    TokenCache, UnixTime, VerifierSpec,
};
use proptest::prelude::*;
use serde_json::json;

use crate::issuer::{ED, ES, NOW, claims, key_set, keys, spec, with};

fn bound(spec: VerifierSpec, keys: KeySet) -> BoundVerifier {
    BoundVerifier::new(Arc::new(spec.try_into().unwrap()), Arc::new(keys))
}

fn cache(seconds: u64) -> TokenCache {
    TokenCache::new(64, Duration::from_secs(seconds), [1; 16]).unwrap()
}

fn lookup(cache: &TokenCache, bound: &BoundVerifier, token: &str, now: u64) -> Result<Lookup, Reason> {
    cache.verify(bound, token, UnixTime(now)).map(|(_, lookup)| lookup)
}

#[test]
fn a_token_is_checked_once_in_the_time_that_an_entry_is_used() {
    let (cache, bound, token) = (cache(60), bound(spec(), keys()), ES.token(&claims()));
    let first = cache.verify(&bound, &token, NOW).unwrap();
    let second = cache.verify(&bound, &token, UnixTime(NOW.0 + 59)).unwrap();
    assert_eq!((first.1, second.1), (Lookup::Miss, Lookup::Hit));
    assert_eq!(first.0, second.0);
    assert_eq!(cache.entries(NOW), 1);
    assert_eq!(lookup(&cache, &bound, &token, NOW.0 + 60), Ok(Lookup::Miss));
    assert_eq!(lookup(&cache, &bound, &token, NOW.0 + 119), Ok(Lookup::Hit));
    assert_eq!(lookup(&cache, &bound, &token, NOW.0 + 700), Err(Reason::Expired));
}

#[test]
fn within_the_leeway_after_its_expiry_a_token_is_checked_each_time() {
    let (cache, bound, token) = (cache(3600), bound(spec(), keys()), ES.token(&claims()));
    assert_eq!(lookup(&cache, &bound, &token, NOW.0), Ok(Lookup::Miss));
    assert_eq!(lookup(&cache, &bound, &token, NOW.0 + 599), Ok(Lookup::Hit));
    assert_eq!(lookup(&cache, &bound, &token, NOW.0 + 600), Ok(Lookup::Miss));
    assert_eq!(lookup(&cache, &bound, &token, NOW.0 + 601), Ok(Lookup::Miss));
    assert_eq!(lookup(&cache, &bound, &token, NOW.0 + 630), Err(Reason::Expired));
}

#[test]
fn a_token_without_an_expiry_is_kept_for_the_cache_s_time() {
    let bound = bound(VerifierSpec { expiry: Expiry::Waived, ..spec() }, keys());
    let (cache, token) = (cache(60), ES.token(&with("exp", json!(null))));
    assert_eq!(lookup(&cache, &bound, &token, NOW.0), Ok(Lookup::Miss));
    assert_eq!(lookup(&cache, &bound, &token, NOW.0 + 59), Ok(Lookup::Hit));
    assert_eq!(lookup(&cache, &bound, &token, NOW.0 + 60), Ok(Lookup::Miss));
}

#[test]
fn an_edited_policy_and_rotated_keys_find_nothing_of_before() {
    let (cache, token) = (cache(60), ES.token(&claims()));
    assert_eq!(lookup(&cache, &bound(spec(), keys()), &token, NOW.0), Ok(Lookup::Miss));
    // The same again, built anew, finds it.
    assert_eq!(lookup(&cache, &bound(spec(), keys()), &token, NOW.0), Ok(Lookup::Hit));
    let other = VerifierSpec::new("https://issuer.example", "other");
    assert_eq!(lookup(&cache, &bound(other, keys()), &token, NOW.0), Err(Reason::WrongAudience));
    let rotated = key_set(&[&ED.jwk], Algorithms::ASYMMETRIC);
    assert_eq!(lookup(&cache, &bound(spec(), rotated), &token, NOW.0), Err(Reason::UnknownKey));
    let short = VerifierSpec { max_token_bytes: 10, ..spec() };
    assert_eq!(lookup(&cache, &bound(short, keys()), &token, NOW.0), Err(Reason::TooLarge));
}

#[test]
fn refused_tokens_are_not_kept() {
    let (cache, bound) = (cache(60), bound(spec(), keys()));
    let token = ES.token(&with("nbf", json!(NOW.0 + 100)));
    assert_eq!(lookup(&cache, &bound, &token, NOW.0), Err(Reason::NotYetValid));
    assert_eq!(cache.entries(NOW), 0);
    assert_eq!(lookup(&cache, &bound, &token, NOW.0 + 100), Ok(Lookup::Miss));
}

#[test]
fn entries_are_bounded_and_what_is_used_stays() {
    // One set of eight.
    let cache = TokenCache::new(1, Duration::from_mins(1), [1; 16]).unwrap();
    let bound = bound(spec(), keys());
    let tokens: Vec<String> = (0..20).map(|n| ED.token(&with("sub", json!(n)))).collect();
    for token in &tokens {
        assert_eq!(lookup(&cache, &bound, token, NOW.0), Ok(Lookup::Miss));
        assert!(lookup(&cache, &bound, &tokens[0], NOW.0) == Ok(Lookup::Hit));
    }
    assert_eq!(cache.entries(NOW), 8);
    assert_eq!(lookup(&cache, &bound, &tokens[19], NOW.0), Ok(Lookup::Hit));
    assert_eq!(lookup(&cache, &bound, &tokens[1], NOW.0), Ok(Lookup::Miss));
}

#[test]
fn a_cache_has_bounds() {
    let new = |entries, time| TokenCache::new(entries, time, [0; 16]).err();
    assert_eq!(new(0, MAX_CACHE_TIME), Some(InvalidCache::Entries));
    assert_eq!(new(MAX_CACHE_ENTRIES + 1, MAX_CACHE_TIME), Some(InvalidCache::Entries));
    assert_eq!(new(1, Duration::from_millis(999)), Some(InvalidCache::Time));
    assert_eq!(new(1, MAX_CACHE_TIME + Duration::from_secs(1)), Some(InvalidCache::Time));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The cache answers as the verifier does, whatever came before, and never accepts after the expiry and the leeway.
    #[test]
    fn a_cache_changes_no_answer(
        calls in prop::collection::vec((0usize..4, 0u64..900, 0usize..2), 1..40),
        seconds in 1u64..900,
    ) {
        let cache = TokenCache::new(1, Duration::from_secs(seconds), [3; 16]).unwrap();
        let bounds = [bound(spec(), keys()), bound(VerifierSpec { leeway: Duration::ZERO, ..spec() }, keys())];
        let tokens: Vec<String> = (0..4).map(|n| ED.token(&with("exp", json!(NOW.0 + n * 200)))).collect();
        let mut time = 0;
        for (token, step, bound) in calls {
            time = (time + step / 20).min(900);
            let now = UnixTime(NOW.0 + time);
            let cached = cache.verify(&bounds[bound], &tokens[token], now);
            let direct = bounds[bound].verifier().verify(&tokens[token], bounds[bound].keys(), now);
            if let Ok((verified, Lookup::Hit)) = &cached {
                prop_assert!(verified.expiry.unwrap() > now);
            }
            prop_assert_eq!(cached.map(|(verified, _)| (*verified).clone()), direct);
        }
    }
}
