//! Whatever comes in, nothing panics; and nothing but the signed text is accepted.

use policy_jose::{Algorithm, Algorithms, ClaimPath, KeySet, MAX_PROOF_AGE, ProofRules, ProvenRequest, UnixTime};
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::json;

use crate::issuer::{ED, ES, NOW, claims, encode, keys, verifier};

proptest! {
    #[test]
    fn no_text_makes_the_verifier_panic(text in any::<String>(), now in any::<u64>()) {
        prop_assert!(verifier().verify(&text, &keys(), UnixTime(now)).is_err());
    }

    #[test]
    fn no_header_and_no_claims_make_the_verifier_panic(
        header in r#"\{("(alg|kid|typ|crit)":("ES256"|"es"|"JWT"|null|1|\[\]),?){0,4}\}"#,
        claims in r#"\{("(iss|aud|exp|nbf|iat)":("api"|"https://issuer.example"|-1|1e300|1700000500|\[\]|\{\}|null),?){0,6}\}"#,
        now in any::<u64>(),
    ) {
        let _ = verifier().verify(&ES.sign(&header, &claims), &keys(), UnixTime(now));
        let _ = verifier().verify(&ES.sign(r#"{"alg":"ES256","kid":"es"}"#, &claims), &keys(), UnixTime(now));
    }

    #[test]
    fn no_change_of_a_byte_is_accepted(at in any::<Index>(), byte in 0u8..128, use_es in any::<bool>()) {
        let token = if use_es { ES.token(&claims()) } else { ED.token(&claims()) };
        let mut bytes = token.clone().into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let changed = String::from_utf8(bytes).unwrap();
        let answer = verifier().verify(&changed, &keys(), NOW);
        prop_assert_eq!(answer.is_ok(), changed == token);
    }

    #[test]
    fn no_other_signature_is_accepted(signature in prop::collection::vec(any::<u8>(), 0..200)) {
        let token = ED.token(&claims());
        let (signed, _) = token.rsplit_once('.').unwrap();
        let forged = format!("{signed}.{}", encode(&signature));
        prop_assert!(verifier().verify(&forged, &keys(), NOW).is_err());
    }

    #[test]
    fn no_bytes_make_the_key_set_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let every: Algorithms = Algorithm::ALL.into_iter().collect();
        prop_assert!(KeySet::parse(&bytes, every).is_err());
        prop_assert!(KeySet::from_pem(&bytes, None, every).is_err());
        prop_assert!(KeySet::from_spki([(None, bytes.as_slice())], every).is_err());
    }

    #[test]
    fn no_key_makes_the_key_set_panic(
        kind in "(RSA|EC|OKP|oct)", curve in "(P-256|P-384|P-521|Ed25519)",
        x in prop::collection::vec(any::<u8>(), 0..70), y in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let every: Algorithms = Algorithm::ALL.into_iter().collect();
        let (x, y) = (encode(&x), encode(&y));
        let jwk = json!({"kty": kind, "crv": curve, "x": x, "y": y, "n": y, "e": x, "k": y});
        let _ = KeySet::parse(json!({"keys": [jwk]}).to_string().as_bytes(), every);
    }

    #[test]
    fn no_proof_makes_the_check_panic(
        header in r#"\{"typ":"dpop\+jwt","alg":"(ES256|EdDSA)","jwk":\{("(kty|crv|x|y)":("EC"|"P-256"|"AA"|1),?){0,4}\}\}"#,
        url in "[a-z:/%?#@\\[\\].é]{0,20}",
        text in any::<String>(),
    ) {
        let rules = ProofRules::new(Algorithms::ASYMMETRIC, MAX_PROOF_AGE, MAX_PROOF_AGE).unwrap();
        let request = ProvenRequest { method: "GET", target: &url, token: "", nonces: &[] };
        prop_assert!(rules.check(&text, request, NOW).is_err());
        let odd = ES.sign(&header, "{}");
        prop_assert!(rules.check(&odd, request, NOW).is_err());
        let header = json!({"typ": "dpop+jwt", "alg": "ES256", "jwk": ES.jwk}).to_string();
        let claims = json!({"htm": "GET", "htu": url, "jti": text, "iat": NOW.0, "ath": text}).to_string();
        prop_assert!(rules.check(&ES.sign(&header, &claims), request, NOW).is_err());
    }

    #[test]
    fn no_text_makes_a_path_panic(text in any::<String>()) {
        let _ = text.parse::<ClaimPath>();
    }
}
