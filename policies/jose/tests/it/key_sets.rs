//! Which keys of a set are used, and what is said of the others.

use policy_jose::{
    Algorithm, Algorithms, KeyDefect, KeySet, KeySetError, MAX_CANDIDATES, MAX_KEY_SET_BYTES, MAX_KEYS, SkippedKey,
};
use serde_json::{Value, json};

use crate::issuer::{ED, ES, NOW, claims, encode, key_set, verifier};

fn defect(jwk: &Value, algorithms: Algorithms) -> Option<KeyDefect> {
    match KeySet::parse(json!({ "keys": [jwk] }).to_string().as_bytes(), algorithms) {
        Ok(_) => None,
        Err(KeySetError::NoUsableKey(skipped)) => Some(skipped[0].defect),
        Err(other) => panic!("{other}"),
    }
}

fn es(name: &str, value: Value) -> Value {
    let mut jwk = ES.jwk.clone();
    jwk[name] = value;
    jwk
}

#[test]
fn each_defect_of_a_key_is_told() {
    let modulus = |bytes: usize| encode(&vec![0xff; bytes]);
    let rsa = |n: String, e: &str| json!({"kty": "RSA", "n": n, "e": e});
    let hs: Algorithms = [Algorithm::Hs256, Algorithm::Hs512].into_iter().collect();
    for (jwk, algorithms, expected) in [
        (ES.jwk.clone(), Algorithms::ASYMMETRIC, None),
        (es("use", json!("sig")), Algorithms::ASYMMETRIC, None),
        (es("use", json!("enc")), Algorithms::ASYMMETRIC, Some(KeyDefect::NotForVerifying)),
        (es("key_ops", json!(["verify"])), Algorithms::ASYMMETRIC, None),
        (es("key_ops", json!(["sign", "encrypt"])), Algorithms::ASYMMETRIC, Some(KeyDefect::NotForVerifying)),
        (es("key_ops", json!("verify")), Algorithms::ASYMMETRIC, Some(KeyDefect::Malformed)),
        (es("alg", json!("ES256")), Algorithms::ASYMMETRIC, None),
        (es("alg", json!("ES384")), Algorithms::ASYMMETRIC, Some(KeyDefect::AlgorithmNotAllowed)),
        (es("alg", json!("HS256")), Algorithm::ALL.into_iter().collect(), Some(KeyDefect::AlgorithmNotAllowed)),
        (es("alg", json!("none")), Algorithms::ASYMMETRIC, Some(KeyDefect::AlgorithmNotAllowed)),
        (ES.jwk.clone(), [Algorithm::Rs256].into_iter().collect(), Some(KeyDefect::AlgorithmNotAllowed)),
        (es("d", json!("AA")), Algorithms::ASYMMETRIC, Some(KeyDefect::PrivateKeyPublished)),
        (es("kid", json!(1)), Algorithms::ASYMMETRIC, Some(KeyDefect::Malformed)),
        (es("kid", json!("a".repeat(257))), Algorithms::ASYMMETRIC, Some(KeyDefect::Malformed)),
        (es("crv", json!("secp256k1")), Algorithms::ASYMMETRIC, Some(KeyDefect::UnsupportedType)),
        (es("crv", json!("P-384")), Algorithms::ASYMMETRIC, Some(KeyDefect::Malformed)),
        (es("kty", json!("AKP")), Algorithms::ASYMMETRIC, Some(KeyDefect::UnsupportedType)),
        (es("y", ES.jwk["x"].clone()), Algorithms::ASYMMETRIC, Some(KeyDefect::Malformed)),
        (es("x", json!("AA")), Algorithms::ASYMMETRIC, Some(KeyDefect::Malformed)),
        (es("x", json!("a=")), Algorithms::ASYMMETRIC, Some(KeyDefect::Malformed)),
        (json!({"kty": "OKP", "crv": "Ed448", "x": "AA"}), Algorithms::ASYMMETRIC, Some(KeyDefect::UnsupportedType)),
        (json!(1), Algorithms::ASYMMETRIC, Some(KeyDefect::Malformed)),
        (json!({}), Algorithms::ASYMMETRIC, Some(KeyDefect::Malformed)),
        (rsa(modulus(256), "AQAB"), Algorithms::ASYMMETRIC, None),
        (rsa(format!("A{}", encode(&[0xff; 257])), "AQAB"), Algorithms::ASYMMETRIC, Some(KeyDefect::Malformed)),
        (rsa(encode(&[&[0], &[0xff; 256][..]].concat()), "AQAB"), Algorithms::ASYMMETRIC, None),
        (rsa(modulus(255), "AQAB"), Algorithms::ASYMMETRIC, Some(KeyDefect::TooWeak)),
        (rsa(modulus(1025), "AQAB"), Algorithms::ASYMMETRIC, Some(KeyDefect::TooLong)),
        (rsa(modulus(256), "AQ"), Algorithms::ASYMMETRIC, Some(KeyDefect::TooWeak)),
        (rsa(modulus(256), "Ag"), Algorithms::ASYMMETRIC, Some(KeyDefect::Malformed)),
        (rsa(String::new(), "AQAB"), Algorithms::ASYMMETRIC, Some(KeyDefect::Malformed)),
        (json!({"kty": "oct", "k": encode(&[1; 31])}), hs, Some(KeyDefect::TooWeak)),
        (json!({"kty": "oct", "k": encode(&[1; 32])}), hs, None),
        (json!({"kty": "oct", "k": encode(&[1; 64])}), Algorithms::ASYMMETRIC, Some(KeyDefect::AlgorithmNotAllowed)),
    ] {
        assert_eq!(defect(&jwk, algorithms), expected, "{jwk:.200}");
    }
}

#[test]
fn unusable_keys_are_skipped_and_told() {
    let keys = key_set(&[&es("use", json!("enc")), &ED.jwk, &json!({"kty": "x"})], Algorithms::ASYMMETRIC);
    assert_eq!(keys.usable(), 1);
    assert_eq!(
        keys.skipped(),
        [
            SkippedKey { id: Some("es".into()), defect: KeyDefect::NotForVerifying },
            SkippedKey { id: None, defect: KeyDefect::UnsupportedType },
        ]
    );
}

#[test]
fn keys_that_share_an_id_are_tried_in_turn() {
    let mut other = json!({"kty": "OKP", "crv": "Ed25519", "kid": "ed"});
    other["x"] = json!("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo");
    let keys = key_set(&[&other, &ED.jwk], Algorithms::ASYMMETRIC);
    assert!(verifier().verify(&ED.token(&claims()), &keys, NOW).is_ok());
    let same = [&other; MAX_CANDIDATES + 1];
    let keys = key_set(&same, Algorithms::ASYMMETRIC);
    assert_eq!(keys.skipped(), [SkippedKey { id: Some("ed".into()), defect: KeyDefect::TooManyWithSameId }]);
}

#[test]
fn what_is_not_a_key_set_is_refused() {
    let parse = |text: &str| KeySet::parse(text.as_bytes(), Algorithms::ASYMMETRIC).err();
    for text in ["", "[]", "{}", r#"{"keys":{}}"#, "<html>"] {
        assert_eq!(parse(text), Some(KeySetError::NotAKeySet), "{text}");
    }
    assert_eq!(parse(r#"{"keys":[]}"#), Some(KeySetError::NoUsableKey(vec![])));
    assert_eq!(parse(r#"{"keys":[{"kty":"EC","kty":"oct"}]}"#), Some(KeySetError::DuplicateMember));
    assert_eq!(parse(&" ".repeat(MAX_KEY_SET_BYTES + 1)), Some(KeySetError::TooLarge));
    let many = json!({ "keys": vec![json!({}); MAX_KEYS + 1] });
    assert_eq!(parse(&many.to_string()), Some(KeySetError::TooManyKeys));
}

#[test]
fn pem_is_read_block_by_block_and_nothing_else_is() {
    let vectors: Value = serde_json::from_str(include_str!("../vectors/jose.json")).unwrap();
    let pem = |name: &str| vectors["tokens"][name]["pem"].as_str().unwrap().to_owned();
    let read = |text: &str| KeySet::from_pem(text.as_bytes(), Some("a"), Algorithms::ASYMMETRIC);
    let both = pem("RS256") + "\n" + &pem("ES512");
    assert_eq!(read(&both).unwrap().usable(), 2);
    assert_eq!(read(&pem("EdDSA").replace('\n', "\r\n")).unwrap().usable(), 1);
    let private = pem("ES256").replace("PUBLIC", "PRIVATE");
    for text in ["", "key", &private, &(pem("ES256") + "\n" + &private), &pem("ES256")[..80]] {
        assert_eq!(read(text).err(), Some(KeySetError::NotPem), "{text}");
    }
}

#[test]
fn a_fingerprint_is_that_of_the_keys_not_of_their_order() {
    let print = |jwks: &[&Value]| *key_set(jwks, Algorithms::ASYMMETRIC).fingerprint();
    assert_eq!(print(&[&ES.jwk, &ED.jwk]), print(&[&ED.jwk, &ES.jwk, &json!({"kty": "x"})]));
    assert_ne!(print(&[&ES.jwk, &ED.jwk]), print(&[&ES.jwk]));
    assert_ne!(print(&[&ES.jwk]), print(&[&es("kid", json!("other"))]));
}

#[test]
fn what_is_shown_of_a_key_set_has_no_secret() {
    let secret = encode(&[7; 32]);
    let jwk = json!({"kty": "oct", "k": secret});
    let keys = key_set(&[&jwk], [Algorithm::Hs256].into_iter().collect());
    assert!(!format!("{keys:?}").contains("7, 7") && !format!("{keys:?}").contains(&secret));
}
