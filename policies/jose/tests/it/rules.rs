//! What a policy asks of a token, at the edges of each rule.

use std::time::Duration;

use policy_jose::{
    Algorithms, Audiences, Expiry, InvalidVerifier, KeySet, MAX_LIST, MAX_TOKEN_BYTES, Reason, TokenTypes, UnixTime,
    Verifier, VerifierSpec, claimed_issuer,
};
use serde_json::{Value, json};

use crate::issuer::{ED, ES, NOW, claims, encode, key_set, keys, spec, verifier, with};

fn check(spec: VerifierSpec, claims: &Value, now: u64) -> Result<(), Reason> {
    Verifier::try_from(spec).unwrap().verify(&ES.token(claims), &keys(), UnixTime(now)).map(|_| ())
}

#[test]
fn time_counts_to_the_second_with_the_leeway_either_way() {
    let claims = with("nbf", json!(NOW.0 - 60));
    for (now, answer) in [
        (NOW.0 - 91, Err(Reason::NotYetValid)),
        (NOW.0 - 90, Ok(())),
        (NOW.0 + 629, Ok(())),
        (NOW.0 + 630, Err(Reason::Expired)),
        (u64::MAX, Err(Reason::Expired)),
        (0, Err(Reason::NotYetValid)),
    ] {
        assert_eq!(check(spec(), &claims, now), answer, "{now}");
    }
    let exact = VerifierSpec { leeway: Duration::ZERO, ..spec() };
    assert_eq!(check(exact.clone(), &claims, NOW.0 + 599), Ok(()));
    assert_eq!(check(exact.clone(), &claims, NOW.0 + 600), Err(Reason::Expired));
    // Fractions count against the token.
    assert_eq!(check(exact.clone(), &with("exp", json!(600.9)), 600), Err(Reason::Expired));
    assert_eq!(check(exact, &with("nbf", json!(1_700_000_000.5)), NOW.0), Err(Reason::NotYetValid));
}

#[test]
fn a_token_issued_after_its_expiry_is_refused() {
    let claims = json!({"iss": "https://issuer.example", "aud": "api", "iat": NOW.0 + 20, "exp": NOW.0 + 10});
    assert_eq!(check(spec(), &claims, NOW.0), Err(Reason::WrongIssueTime));
}

#[test]
fn an_expiry_may_be_waived_and_counts_where_it_is_there() {
    let waived = VerifierSpec { expiry: Expiry::Waived, ..spec() };
    assert_eq!(check(waived.clone(), &with("exp", json!(null)), NOW.0), Ok(()));
    assert_eq!(check(waived, &claims(), NOW.0 + 630), Err(Reason::Expired));
}

#[test]
fn a_lifetime_is_counted_from_issue_or_else_from_now() {
    let limit = |seconds| VerifierSpec { max_lifetime: Some(Duration::from_secs(seconds)), ..spec() };
    assert_eq!(check(limit(660), &claims(), NOW.0), Ok(()));
    assert_eq!(check(limit(659), &claims(), NOW.0), Err(Reason::LifetimeTooLong));
    assert_eq!(check(limit(600), &with("iat", json!(null)), NOW.0), Ok(()));
    assert_eq!(check(limit(599), &with("iat", json!(null)), NOW.0), Err(Reason::LifetimeTooLong));
}

#[test]
fn an_audience_is_one_of_either_list_or_waived() {
    let several = VerifierSpec { audiences: Audiences::AnyOf(vec!["a".into(), "api".into()]), ..spec() };
    assert_eq!(check(several, &with("aud", json!(["x", "api"])), NOW.0), Ok(()));
    let waived = VerifierSpec { audiences: Audiences::Waived, ..spec() };
    assert_eq!(check(waived.clone(), &with("aud", json!(null)), NOW.0), Ok(()));
    assert_eq!(check(waived, &with("aud", json!([1])), NOW.0), Err(Reason::MalformedClaims));
}

#[test]
fn a_type_is_compared_as_a_media_type() {
    let strict = VerifierSpec { types: TokenTypes::OneOf(vec!["at+jwt".into()]), ..spec() };
    for (kind, usual, access) in [
        (None, true, false),
        (Some("JWT"), true, false),
        (Some("jwt"), true, false),
        (Some("at+jwt"), true, true),
        (Some("application/AT+JWT"), true, true),
        (Some("dpop+jwt"), false, false),
        (Some("text/at+jwt"), false, false),
        (Some(""), false, false),
    ] {
        let mut header = json!({"alg": "ES256", "kid": "es"});
        if let Some(kind) = kind {
            header["typ"] = kind.into();
        }
        let token = ES.sign(&header.to_string(), &claims().to_string());
        for (spec, accepted) in [(spec(), usual), (strict.clone(), access)] {
            let answer = Verifier::try_from(spec).unwrap().verify(&token, &keys(), NOW);
            assert_eq!(answer.err(), (!accepted).then_some(Reason::TypeNotAccepted), "{kind:?}");
        }
    }
}

#[test]
fn a_required_claim_is_there_and_not_null() {
    let required = VerifierSpec { required_claims: vec!["a.b".parse().unwrap()], ..spec() };
    assert_eq!(check(required.clone(), &with("a", json!({"b": false})), NOW.0), Ok(()));
    for claims in [claims(), with("a", json!({"b": null})), with("a", json!("b"))] {
        assert_eq!(check(required.clone(), &claims, NOW.0), Err(Reason::MissingClaim));
    }
}

#[test]
fn a_token_without_a_key_id_is_tried_with_the_few_keys_that_fit() {
    let token = ES.sign(r#"{"alg":"ES256"}"#, &claims().to_string());
    assert!(verifier().verify(&token, &keys(), NOW).is_ok());
    let named = |kid: &str| {
        let mut jwk = ES.jwk.clone();
        jwk["kid"] = kid.into();
        jwk
    };
    let many = ["1", "2", "3", "4", "5"].map(named);
    let keys = key_set(&many.each_ref(), Algorithms::ASYMMETRIC);
    assert_eq!(verifier().verify(&token, &keys, NOW), Err(Reason::MissingKeyId));
    assert_eq!(
        verifier().verify(&token, &key_set(&[&ED.jwk], Algorithms::ASYMMETRIC), NOW),
        Err(Reason::KeyAlgorithmMismatch)
    );
}

#[test]
fn a_key_without_an_id_is_tried_for_ids_that_no_key_has() {
    let keys = KeySet::from_spki([(None, ES.spki.as_slice())], Algorithms::ASYMMETRIC).unwrap();
    assert!(verifier().verify(&ES.token(&claims()), &keys, NOW).is_ok());
    assert_eq!(verifier().verify(&ED.token(&claims()), &keys, NOW), Err(Reason::UnknownKey));
    // One that fits and did not sign: the key may have been rotated.
    let other = ES.sign(r#"{"alg":"ES256","kid":"new"}"#, &claims().to_string());
    let (signed, _) = other.rsplit_once('.').unwrap();
    let forged = format!("{signed}.{}", encode(&[1; 64]));
    assert_eq!(verifier().verify(&forged, &keys, NOW), Err(Reason::UnknownKey));
}

#[test]
fn a_policy_that_cannot_hold_is_refused() {
    let long = || vec!["a".to_owned(); MAX_LIST + 1];
    let rows = [
        (VerifierSpec { issuers: vec![], ..spec() }, InvalidVerifier::Issuers),
        (VerifierSpec { issuers: vec![String::new()], ..spec() }, InvalidVerifier::Issuers),
        (VerifierSpec { issuers: long(), ..spec() }, InvalidVerifier::Issuers),
        (VerifierSpec { audiences: Audiences::AnyOf(vec![]), ..spec() }, InvalidVerifier::Audiences),
        (VerifierSpec { algorithms: Algorithms::default(), ..spec() }, InvalidVerifier::Algorithms),
        (VerifierSpec { types: TokenTypes::OneOf(vec![]), ..spec() }, InvalidVerifier::Types),
        (VerifierSpec { leeway: Duration::from_secs(301), ..spec() }, InvalidVerifier::Leeway),
        (
            VerifierSpec { required_claims: vec!["a".parse().unwrap(); MAX_LIST + 1], ..spec() },
            InvalidVerifier::RequiredClaims,
        ),
        (VerifierSpec { max_token_bytes: 0, ..spec() }, InvalidVerifier::TokenBytes),
        (VerifierSpec { max_token_bytes: MAX_TOKEN_BYTES + 1, ..spec() }, InvalidVerifier::TokenBytes),
        (VerifierSpec { max_lifetime: Some(Duration::from_millis(999)), ..spec() }, InvalidVerifier::Lifetime),
    ];
    for (spec, error) in rows {
        assert_eq!(Verifier::try_from(spec).err(), Some(error));
    }
}

#[test]
fn an_issuer_is_told_of_any_token_that_has_one() {
    let token = ES.token(&claims());
    let (signed, _) = token.rsplit_once('.').unwrap();
    assert_eq!(claimed_issuer(&format!("{signed}.")).as_deref(), Ok("https://issuer.example"));
    assert_eq!(claimed_issuer(&ES.token(&with("iss", json!(null)))), Err(Reason::WrongIssuer));
    assert_eq!(claimed_issuer("a.b"), Err(Reason::Malformed));
}

#[test]
fn reasons_have_names_of_their_own() {
    let mut names: Vec<&str> = Reason::ALL.iter().map(|reason| reason.name()).collect();
    assert!(names.iter().all(|name| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')));
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), Reason::ALL.len());
}
