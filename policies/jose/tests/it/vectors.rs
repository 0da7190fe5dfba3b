//! Tokens that others signed and published, or signed once for us.

use std::collections::BTreeMap;

use policy_jose::{Algorithm, Algorithms, Audiences, KeySet, Reason, UnixTime, Verifier, VerifierSpec};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::issuer::key_set;

fn all() -> Algorithms {
    Algorithm::ALL.into_iter().collect()
}

/// RFC 7515 appendices A.1 to A.3; the claims are `{"iss":"joe", "exp":1300819380, …}` with CRLF inside.
#[test]
fn the_tokens_of_rfc_7515_are_accepted_until_they_expire() {
    const CLAIMS: &str =
        "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    let spec = VerifierSpec { audiences: Audiences::Waived, algorithms: all(), ..VerifierSpec::new("joe", "none") };
    let verifier = Verifier::try_from(spec).unwrap();
    for (algorithm, jwk, header, signature) in [
        (
            Algorithm::Hs256,
            json!({"kty": "oct", "k": "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"}),
            "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9",
            "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
        ),
        (
            Algorithm::Rs256,
            json!({"kty": "RSA", "e": "AQAB", "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"}),
            "eyJhbGciOiJSUzI1NiJ9",
            "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw",
        ),
        (
            Algorithm::Es256,
            json!({"kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}),
            "eyJhbGciOiJFUzI1NiJ9",
            "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
        ),
    ] {
        let keys = key_set(&[&jwk], all());
        let token = format!("{header}.{CLAIMS}.{signature}");
        let verified = verifier.verify(&token, &keys, UnixTime(1_300_819_379)).unwrap();
        assert_eq!((verified.algorithm, verified.expiry), (algorithm, Some(UnixTime(1_300_819_380))));
        assert_eq!(verified.claims.members()["http://example.com/is_root"], json!(true));
        assert_eq!(verifier.verify(&token, &keys, UnixTime(1_300_819_380 + 30)), Err(Reason::Expired));
    }
}

/// RFC 7515 appendix A.4 and RFC 8037 appendix A.4 sign a plain text: past the signature, it is not a set of claims.
#[test]
fn the_signatures_of_rfc_7515_a4_and_rfc_8037_are_right() {
    let verifier = Verifier::try_from(VerifierSpec::new("joe", "api")).unwrap();
    for (jwk, token) in [
        (
            json!({
                "kty": "EC", "crv": "P-521",
                "x": "AekpBQ8ST8a8VcfVOTNl353vSrDCLLJXmPk06wTjxrrjcBpXp5EOnYG_NjFZ6OvLFV1jSfS9tsz4qUxcWceqwQGk",
                "y": "ADSmRA43Z1DSNx_RvcLI87cdL07l6jQyyBXMoxVg_l2Th-x3S1WDhjDly79ajL4Kkd0AZMaZmh9ubmf63e3kyMj2"
            }),
            "eyJhbGciOiJFUzUxMiJ9.UGF5bG9hZA.AdwMgeerwtHoh-l192l60hp9wAHZFVJbLfD_UxMi70cwnZOYaRI1bKPWROc-mZZqwqT2SI-KGDKB34XO0aw_7XdtAG8GaSwFKdCAPZgoXD2YBJZCPEX3xKpRwcdOO8KpEHwJjyqOgzDO7iKvU8vcnwNrmxYbSW9ERBXukOXolLzeO_Jn",
        ),
        (
            json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}),
            "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
        ),
    ] {
        let keys = key_set(&[&jwk], all());
        assert_eq!(verifier.verify(token, &keys, UnixTime(0)), Err(Reason::MalformedClaims));
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let other = format!("{signed}.B{}", &signature[1..]);
        assert_eq!(verifier.verify(&other, &keys, UnixTime(0)), Err(Reason::BadSignature));
    }
}

#[derive(Deserialize)]
struct Vectors {
    jwks: Value,
    tokens: BTreeMap<String, Vector>,
}

#[derive(Deserialize)]
struct Vector {
    token: String,
    pem: Option<String>,
}

#[test]
fn tokens_of_another_implementation_are_accepted_in_every_algorithm() {
    let vectors: Vectors = serde_json::from_str(include_str!("../vectors/jose.json")).unwrap();
    let jwks = vectors.jwks.to_string();
    let spec = VerifierSpec { algorithms: all(), ..VerifierSpec::new("https://issuer.example", "api") };
    let verifier = Verifier::try_from(spec).unwrap();
    let now = UnixTime(1_700_000_100);
    let keys = KeySet::parse(jwks.as_bytes(), all()).unwrap();
    assert_eq!((keys.usable(), keys.skipped()), (14, &[][..]));
    assert_eq!(KeySet::parse(jwks.as_bytes(), Algorithms::ASYMMETRIC).unwrap().usable(), 11);
    assert_eq!(vectors.tokens.len(), 14);
    for (name, vector) in vectors.tokens {
        let verified = verifier.verify(&vector.token, &keys, now).unwrap();
        assert_eq!(Some(verified.algorithm), Algorithm::from_name(&name));
        assert_eq!(verified.key_id.as_deref(), Some(name.as_str()));
        assert!(verified.claims.has_scopes(["read", "write"]));
        let Some(pem) = vector.pem else { continue };
        // Without a key id a key is tried for every token.
        let keys = KeySet::from_pem(pem.as_bytes(), None, Algorithms::ASYMMETRIC).unwrap();
        assert_eq!(verifier.verify(&vector.token, &keys, now).as_ref(), Ok(&verified), "{name}");
    }
}
