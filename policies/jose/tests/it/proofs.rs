//! Proofs of possession, and tokens that are bound to a key or a certificate.

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use policy_jose::{
    Algorithm, Algorithms, BindingReason, Claims, InvalidProofRules, MAX_PROOF_AGE, Possession, ProofReason,
    ProofRules, ProvenRequest, Scheme, UnixTime, check_binding, proof,
};
use serde_json::{Value, json};

use crate::issuer::{ED, ES, Issuer, NOW, encode, keys, verifier, with};

const REQUEST: ProvenRequest<'_> =
    ProvenRequest { method: "GET", target: "https://api.example/orders", token: "token", nonces: &[] };

fn rules() -> ProofRules {
    ProofRules::new(Algorithms::ASYMMETRIC, Duration::from_mins(1), Duration::from_secs(5)).unwrap()
}

fn header() -> Value {
    json!({"typ": "dpop+jwt", "alg": "ES256", "jwk": ES.jwk})
}

fn body() -> Value {
    let hash = encode(digest(&SHA256, b"token").as_ref());
    json!({"jti": "1", "htm": "GET", "htu": "https://api.example/orders", "iat": NOW.0, "ath": hash})
}

fn changed(mut value: Value, name: &str, to: Value) -> Value {
    if to.is_null() {
        value.as_object_mut().unwrap().remove(name);
    } else {
        value[name] = to;
    }
    value
}

fn check(issuer: &Issuer, header: &Value, body: &Value, now: u64) -> Result<(), ProofReason> {
    let text = issuer.sign(&header.to_string(), &body.to_string());
    rules().check(&text, REQUEST, UnixTime(now)).map(|_| ())
}

/// RFC 9449 sections 6.1 and 7.1.
#[test]
fn the_proof_of_rfc_9449_is_accepted() {
    const PROOF: &str = "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19.eyJqdGkiOiJlMWozVl9iS2ljOC1MQUVCIiwiaHRtIjoiR0VUIiwiaHR1IjoiaHR0cHM6Ly9yZXNvdXJjZS5leGFtcGxlLm9yZy9wcm90ZWN0ZWRyZXNvdXJjZSIsImlhdCI6MTU2MjI2MjYxOCwiYXRoIjoiZlVIeU8ycjJaM0RaNTNFc05yV0JiMHhXWG9hTnk1OUlpS0NBcWtzbVFFbyJ9.2oW9RP35yRqzhrtNP86L-Ey71EOptxRimPPToA1plemAgR6pxHF8y6-yqyVnmcw6Fy1dqd-jfxSYoMxhAJpLjA";
    let request = ProvenRequest {
        method: "GET",
        target: "https://resource.example.org/protectedresource?a=b",
        token: "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU",
        nonces: &[],
    };
    let proof = rules().check(PROOF, request, UnixTime(1_562_262_620)).unwrap();
    assert_eq!(encode(&proof.thumbprint), "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I");
    assert_eq!(proof.until, UnixTime(1_562_262_678));
}

#[test]
fn each_check_of_section_4_3_has_its_reason() {
    let private = changed(ES.jwk.clone(), "d", json!("AA"));
    let rows = [
        ("no type", changed(header(), "typ", json!(null)), body(), ProofReason::WrongType),
        ("an access token's type", changed(header(), "typ", json!("at+jwt")), body(), ProofReason::WrongType),
        ("no algorithm", changed(header(), "alg", json!(null)), body(), ProofReason::AlgorithmNotAllowed),
        ("alg none", changed(header(), "alg", json!("none")), body(), ProofReason::AlgorithmNotAllowed),
        ("HMAC", changed(header(), "alg", json!("HS256")), body(), ProofReason::AlgorithmNotAllowed),
        ("no key", changed(header(), "jwk", json!(null)), body(), ProofReason::UnusableKey),
        ("a private key", changed(header(), "jwk", private), body(), ProofReason::UnusableKey),
        (
            "a secret",
            changed(header(), "jwk", json!({"kty": "oct", "k": encode(&[1; 32])})),
            body(),
            ProofReason::UnusableKey,
        ),
        ("a key of another type", changed(header(), "jwk", ED.jwk.clone()), body(), ProofReason::UnusableKey),
        ("an extension", changed(header(), "crit", json!(["x"])), body(), ProofReason::Malformed),
        ("no id", header(), changed(body(), "jti", json!(null)), ProofReason::MalformedClaims),
        ("no method", header(), changed(body(), "htm", json!(null)), ProofReason::MalformedClaims),
        ("another method", header(), changed(body(), "htm", json!("get")), ProofReason::WrongMethod),
        (
            "another path",
            header(),
            changed(body(), "htu", json!("https://api.example/order")),
            ProofReason::WrongTarget,
        ),
        (
            "another host",
            header(),
            changed(body(), "htu", json!("https://api.example.evil/orders")),
            ProofReason::WrongTarget,
        ),
        ("no URL", header(), changed(body(), "htu", json!("orders")), ProofReason::WrongTarget),
        ("no time", header(), changed(body(), "iat", json!(null)), ProofReason::MalformedClaims),
        ("a time that is text", header(), changed(body(), "iat", json!("1")), ProofReason::MalformedClaims),
        ("too old", header(), changed(body(), "iat", json!(NOW.0 - 60)), ProofReason::Stale),
        ("of the future", header(), changed(body(), "iat", json!(NOW.0 + 6)), ProofReason::Stale),
        ("no hash", header(), changed(body(), "ath", json!(null)), ProofReason::MalformedClaims),
        ("another token's hash", header(), changed(body(), "ath", json!(encode(&[0; 32]))), ProofReason::WrongToken),
    ];
    assert_eq!(check(&ES, &header(), &body(), NOW.0), Ok(()));
    for (what, header, body, reason) in rows {
        assert_eq!(check(&ES, &header, &body, NOW.0), Err(reason), "{what}");
    }
    let other_key = changed(ES.jwk.clone(), "x", json!("l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs"));
    let other_key = changed(other_key, "y", json!("9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA"));
    assert_eq!(check(&ES, &changed(header(), "jwk", other_key), &body(), NOW.0), Err(ProofReason::BadSignature));
    for text in ["", "a.b", "a.b.c", &"a".repeat(9000)] {
        assert_eq!(rules().check(text, REQUEST, NOW), Err(ProofReason::Malformed));
    }
}

#[test]
fn a_nonce_is_asked_for_only_where_there_are_some() {
    let request = ProvenRequest { nonces: &["new", "old"], ..REQUEST };
    for (nonce, answer) in [
        (json!("new"), None),
        (json!("old"), None),
        (json!("older"), Some(ProofReason::WrongNonce)),
        (json!(null), Some(ProofReason::WrongNonce)),
        (json!(1), Some(ProofReason::WrongNonce)),
    ] {
        let text = ES.sign(&header().to_string(), &changed(body(), "nonce", nonce).to_string());
        assert_eq!(rules().check(&text, request, NOW).err(), answer);
    }
}

#[test]
fn a_proof_has_an_id_of_its_own() {
    let of = |id: &str| {
        let text = ES.sign(&header().to_string(), &changed(body(), "jti", json!(id)).to_string());
        rules().check(&text, REQUEST, NOW).unwrap().id
    };
    assert_eq!(of("1"), of("1"));
    assert_ne!(of("1"), of("2"));
}

#[test]
fn a_request_has_one_proof() {
    assert_eq!(proof([&b"a.b.c "[..]]), Ok("a.b.c"));
    assert_eq!(proof([]), Err(ProofReason::Missing));
    assert_eq!(proof([&b"a"[..], b"a"]), Err(ProofReason::Several));
    assert_eq!(proof([&b"\xff"[..]]), Err(ProofReason::Malformed));
}

#[test]
fn rules_have_bounds() {
    let new = |algorithms, age, leeway| ProofRules::new(algorithms, age, leeway).err();
    let second = Duration::from_secs(1);
    let hmac = [Algorithm::Es256, Algorithm::Hs256].into_iter().collect();
    assert_eq!(new(hmac, second, second), Some(InvalidProofRules::Algorithms));
    assert_eq!(new(Algorithms::default(), second, second), Some(InvalidProofRules::Algorithms));
    assert_eq!(new(Algorithms::ASYMMETRIC, Duration::ZERO, second), Some(InvalidProofRules::Age));
    assert_eq!(new(Algorithms::ASYMMETRIC, MAX_PROOF_AGE + second, second), Some(InvalidProofRules::Age));
    assert_eq!(new(Algorithms::ASYMMETRIC, second, MAX_PROOF_AGE + second), Some(InvalidProofRules::Age));
}

fn bound_to(confirmation: Value) -> Claims {
    verifier().verify(&ES.token(&with("cnf", confirmation)), &keys(), NOW).unwrap().claims
}

#[test]
fn a_bound_token_is_of_use_only_to_its_owner() {
    let text = ES.sign(&header().to_string(), &body().to_string());
    let proof = rules().check(&text, REQUEST, NOW).unwrap();
    let (own_key, own_certificate) = (encode(&proof.thumbprint), encode(digest(&SHA256, b"der").as_ref()));
    let other = encode(&[0; 32]);
    let possession =
        |scheme, with_proof: bool, certificate| Possession { scheme, proof: with_proof.then_some(&proof), certificate };
    let bearer = possession(Scheme::Bearer, false, None);
    let dpop = possession(Scheme::Dpop, true, None);
    let der: Option<&[u8]> = Some(b"der");
    for (confirmation, possession, answer) in [
        (json!(null), bearer, Ok(())),
        (json!(null), dpop, Err(BindingReason::NotBound)),
        (json!({"jkt": own_key}), dpop, Ok(())),
        (json!({"jkt": other}), dpop, Err(BindingReason::WrongKey)),
        (json!({"jkt": own_key}), bearer, Err(BindingReason::ProofRequired)),
        (json!({"jkt": own_key}), possession(Scheme::Bearer, true, der), Err(BindingReason::ProofRequired)),
        (json!({"jkt": own_key}), possession(Scheme::Dpop, false, None), Err(BindingReason::ProofRequired)),
        (json!({"x5t#S256": own_certificate}), possession(Scheme::Bearer, false, der), Ok(())),
        (json!({"x5t#S256": own_certificate}), bearer, Err(BindingReason::CertificateRequired)),
        (json!({"x5t#S256": other}), possession(Scheme::Bearer, false, der), Err(BindingReason::WrongCertificate)),
        (json!({"x5t#S256": own_certificate}), possession(Scheme::Dpop, true, der), Err(BindingReason::NotBound)),
        (json!({"jkt": own_key, "x5t#S256": own_certificate}), possession(Scheme::Dpop, true, der), Ok(())),
        (json!({"jkt": own_key, "x5t#S256": own_certificate}), dpop, Err(BindingReason::CertificateRequired)),
        (json!({"jkt": "AA"}), dpop, Err(BindingReason::Malformed)),
        (json!({"jkt": 1}), dpop, Err(BindingReason::Malformed)),
        (json!("jkt"), bearer, Err(BindingReason::Malformed)),
        (json!({}), bearer, Err(BindingReason::Unsupported)),
        (json!({"kid": "a"}), bearer, Err(BindingReason::Unsupported)),
    ] {
        assert_eq!(check_binding(&bound_to(confirmation.clone()), possession), answer, "{confirmation}");
    }
}
