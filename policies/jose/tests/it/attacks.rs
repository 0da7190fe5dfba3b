//! One row for each way to have a token accepted that should not be, and the exact reason why it is not.

use jsonwebtoken::{Algorithm as Signing, EncodingKey};
use policy_jose::{Algorithm, Algorithms, Reason, Verifier, VerifierSpec};
use serde_json::json;

use crate::issuer::{ED, ES, NOW, claims, encode, key_set, keys, sign, spec, verifier, with};

const HEADER: &str = r#"{"alg":"ES256","kid":"es"}"#;

#[test]
fn each_attack_is_refused_with_its_reason() {
    let text = claims().to_string();
    let good = ES.sign(HEADER, &text);
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let (header, payload) = signed.split_once('.').unwrap();
    let unsigned = |header: &str| format!("{}.{payload}.", encode(header.as_bytes()));
    let hmac = |secret: &[u8], header: &str| sign(&EncodingKey::from_secret(secret), Signing::HS256, header, &text);
    let own = ED.jwk.to_string();
    let other_claims = encode(with("sub", json!("root")).to_string().as_bytes());
    let twice = text.replacen('{', r#"{"sub":"root","#, 1);
    // The last of 86 digits of base64url carries 4 bits: another digit with the same ones.
    let last = char::from(signature.as_bytes()[85]);
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let neighbour = alphabet.chars().nth(alphabet.find(last).unwrap() + 1).unwrap();

    let rows = [
        ("alg none without a signature", unsigned(r#"{"alg":"none"}"#), Reason::Unsigned),
        ("alg none in another case", unsigned(r#"{"alg":"nOnE","kid":"es"}"#), Reason::Unsigned),
        ("alg none with a good signature", ES.sign(r#"{"alg":"none","kid":"es"}"#, &text), Reason::Unsigned),
        ("signature taken off", format!("{signed}."), Reason::BadSignature),
        ("signature of zeros (CVE-2022-21449)", format!("{signed}.{}", "A".repeat(86)), Reason::BadSignature),
        (
            "HMAC with the public key as the secret",
            hmac(&ES.spki, r#"{"alg":"HS256","kid":"es"}"#),
            Reason::AlgorithmNotAllowed,
        ),
        (
            "another algorithm than the key's",
            ED.sign(r#"{"alg":"EdDSA","kid":"es"}"#, &text),
            Reason::KeyAlgorithmMismatch,
        ),
        ("another key than the one named", ED.sign(HEADER, &text), Reason::BadSignature),
        ("an algorithm nobody knows", ES.sign(r#"{"alg":"ES256K","kid":"es"}"#, &text), Reason::AlgorithmNotAllowed),
        ("an algorithm in another case", ES.sign(r#"{"alg":"es256","kid":"es"}"#, &text), Reason::AlgorithmNotAllowed),
        ("no algorithm", ES.sign(r#"{"kid":"es"}"#, &text), Reason::MalformedHeader),
        ("an algorithm that is no text", ES.sign(r#"{"alg":["ES256"],"kid":"es"}"#, &text), Reason::MalformedHeader),
        (
            "its own key as jwk",
            ED.sign(&format!(r#"{{"alg":"EdDSA","kid":"x","jwk":{own}}}"#), &text),
            Reason::UnknownKey,
        ),
        (
            "its own key as jwk, under a known id",
            ED.sign(&format!(r#"{{"alg":"ES256","kid":"es","jwk":{own}}}"#), &text),
            Reason::BadSignature,
        ),
        (
            "its own keys as jku",
            ED.sign(r#"{"alg":"EdDSA","kid":"x","jku":"https://evil.example"}"#, &text),
            Reason::UnknownKey,
        ),
        (
            "its own keys as x5u",
            ED.sign(r#"{"alg":"ES256","kid":"es","x5u":"https://evil.example"}"#, &text),
            Reason::BadSignature,
        ),
        (
            "its own certificate as x5c",
            ED.sign(r#"{"alg":"ES256","kid":"es","x5c":["MII"]}"#, &text),
            Reason::BadSignature,
        ),
        ("a key id that is a path", ES.sign(r#"{"alg":"ES256","kid":"../../dev/null"}"#, &text), Reason::UnknownKey),
        ("a key id that is a query", ES.sign(r#"{"alg":"ES256","kid":"es' OR '1'='1"}"#, &text), Reason::UnknownKey),
        ("a key id that is a number", ES.sign(r#"{"alg":"ES256","kid":1}"#, &text), Reason::MalformedHeader),
        (
            "an extension that must be understood",
            ES.sign(r#"{"alg":"ES256","kid":"es","crit":["b64"],"b64":false}"#, &text),
            Reason::CriticalExtension,
        ),
        (
            "an empty list of extensions",
            ES.sign(r#"{"alg":"ES256","kid":"es","crit":[]}"#, &text),
            Reason::CriticalExtension,
        ),
        (
            "alg twice in the header",
            ES.sign(r#"{"alg":"none","alg":"ES256","kid":"es"}"#, &text),
            Reason::DuplicateMember,
        ),
        (
            "alg twice, once escaped",
            ES.sign(r#"{"alg":"ES256","\u0061lg":"none","kid":"es"}"#, &text),
            Reason::DuplicateMember,
        ),
        ("a claim twice", ES.sign(HEADER, &twice), Reason::DuplicateMember),
        ("a logout token", ES.sign(r#"{"alg":"ES256","kid":"es","typ":"logout+jwt"}"#, &text), Reason::TypeNotAccepted),
        (
            "a proof of possession",
            ES.sign(r#"{"alg":"ES256","kid":"es","typ":"dpop+jwt"}"#, &text),
            Reason::TypeNotAccepted,
        ),
        ("other claims under a good signature", format!("{header}.{other_claims}.{signature}"), Reason::BadSignature),
        ("two parts", signed.to_owned(), Reason::Malformed),
        ("four parts", format!("{good}.{signature}"), Reason::Malformed),
        ("five parts, as if encrypted", format!("{good}.a.b"), Reason::Malformed),
        ("no part", String::new(), Reason::Malformed),
        ("padding", format!("{good}=="), Reason::Malformed),
        ("another spelling of the signature", format!("{}{neighbour}", &good[..good.len() - 1]), Reason::Malformed),
        ("a line break at the end", format!("{good}\n"), Reason::Malformed),
        ("white space in the claims", format!("{header}.{payload} .{signature}"), Reason::Malformed),
        ("the other alphabet", good.replacen("eyJ", "+/J", 1), Reason::Malformed),
        ("a header that is no JSON", ES.sign("alg", &text), Reason::MalformedHeader),
        ("a header that is an array", ES.sign("[]", &text), Reason::MalformedHeader),
        ("claims that are no JSON", ES.sign(HEADER, "sub"), Reason::MalformedClaims),
        ("claims that are an array", ES.sign(HEADER, "[]"), Reason::MalformedClaims),
        ("claims with more after them", ES.sign(HEADER, &format!("{text}{text}")), Reason::MalformedClaims),
        (
            "claims nested ten thousand deep",
            ES.sign(HEADER, &format!("{{\"a\":{}", "[".repeat(10_000))),
            Reason::MalformedClaims,
        ),
        ("too long", format!("{}{good}", "a".repeat(16 * 1024)), Reason::TooLarge),
        ("expired", ES.token(&with("exp", json!(NOW.0 - 30))), Reason::Expired),
        ("no expiry", ES.token(&with("exp", json!(null))), Reason::MissingExpiry),
        (
            "an expiry that is text (CVE-2026-25537)",
            ES.token(&with("exp", json!("9999999999"))),
            Reason::MalformedClaims,
        ),
        ("an expiry below zero", ES.token(&with("exp", json!(-1))), Reason::MalformedClaims),
        ("an expiry without end", ES.token(&with("exp", json!(1e300))), Reason::MalformedClaims),
        ("a start that is text", ES.token(&with("nbf", json!("0"))), Reason::MalformedClaims),
        ("not valid yet", ES.token(&with("nbf", json!(NOW.0 + 31))), Reason::NotYetValid),
        ("issued in the future", ES.token(&with("iat", json!(NOW.0 + 31))), Reason::WrongIssueTime),
        ("another issuer", ES.token(&with("iss", json!("https://issuer.example/"))), Reason::WrongIssuer),
        ("no issuer", ES.token(&with("iss", json!(null))), Reason::WrongIssuer),
        (
            "an issuer that is a list",
            ES.token(&with("iss", json!(["https://issuer.example"]))),
            Reason::MalformedClaims,
        ),
        ("another audience", ES.token(&with("aud", json!(["other", "api2"]))), Reason::WrongAudience),
        ("no audience", ES.token(&with("aud", json!(null))), Reason::WrongAudience),
        ("an empty audience", ES.token(&with("aud", json!([]))), Reason::WrongAudience),
        ("an audience that is an object", ES.token(&with("aud", json!({"api": 1}))), Reason::MalformedClaims),
    ];
    let (verifier, keys) = (verifier(), keys());
    assert!(verifier.verify(&good, &keys, NOW).is_ok());
    for (attack, token, reason) in rows {
        assert_eq!(verifier.verify(&token, &keys, NOW), Err(reason), "{attack}");
    }
}

#[test]
fn a_public_key_is_no_secret_even_where_the_policy_allows_hmac() {
    let every: Algorithms = Algorithm::ALL.into_iter().collect();
    let verifier = Verifier::try_from(VerifierSpec { algorithms: every, ..spec() }).unwrap();
    let keys = key_set(&[&ES.jwk, &ED.jwk], every);
    let x = ED.jwk["x"].as_str().unwrap();
    for secret in [&ES.spki[..], &ES.spki[26..], ES.jwk.to_string().as_bytes(), x.as_bytes()] {
        for kid in [r#","kid":"es""#, r#","kid":"ed""#] {
            let header = format!(r#"{{"alg":"HS256"{kid}}}"#);
            let key = EncodingKey::from_secret(secret);
            let token = sign(&key, Signing::HS256, &header, &claims().to_string());
            assert_eq!(verifier.verify(&token, &keys, NOW), Err(Reason::KeyAlgorithmMismatch));
        }
        let token =
            sign(&EncodingKey::from_secret(secret), Signing::HS256, r#"{"alg":"HS256"}"#, &claims().to_string());
        assert_eq!(verifier.verify(&token, &keys, NOW), Err(Reason::KeyAlgorithmMismatch));
    }
}

#[test]
fn a_symmetric_key_serves_only_where_the_policy_names_hmac() {
    let secret = [7; 32];
    let jwk = json!({"kty": "oct", "k": encode(&secret), "kid": "hs"});
    let token = sign(
        &EncodingKey::from_secret(&secret),
        Signing::HS256,
        r#"{"alg":"HS256","kid":"hs"}"#,
        &claims().to_string(),
    );
    let named = [Algorithm::Hs256].into_iter().collect();
    let hmac = Verifier::try_from(VerifierSpec { algorithms: named, ..spec() }).unwrap();
    assert!(hmac.verify(&token, &key_set(&[&jwk], named), NOW).is_ok());
    let keys = key_set(&[&jwk, &ES.jwk], Algorithms::ASYMMETRIC);
    assert_eq!((keys.usable(), keys.skipped().len()), (1, 1));
    assert_eq!(hmac.verify(&token, &keys, NOW), Err(Reason::UnknownKey));
}
