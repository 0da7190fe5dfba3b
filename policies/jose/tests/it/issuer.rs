//! An issuer for tests. `jsonwebtoken` signs; header and claims are any text, so that attacks can be written down.

use std::sync::LazyLock;

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm as Signing, EncodingKey, crypto};
use policy_jose::{Algorithms, KeySet, UnixTime, Verifier, VerifierSpec};
use serde_json::{Value, json};

/// When the tests happen.
pub const NOW: UnixTime = UnixTime(1_700_000_000);

/// Signs with ES256, under the key id `es`.
pub static ES: LazyLock<Issuer> = LazyLock::new(|| {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let point = pair.public_key().as_ref();
    let jwk = json!({"kty": "EC", "crv": "P-256", "kid": "es", "x": encode(&point[1..33]), "y": encode(&point[33..])});
    let key = EncodingKey::from_ec_der(pair.to_pkcs8v1().unwrap().as_ref());
    let spki = pair.public_key().as_der().unwrap().as_ref().to_vec();
    Issuer { jwk, key, signing: Signing::ES256, spki }
});

/// Signs with Ed25519, under the key id `ed`.
pub static ED: LazyLock<Issuer> = LazyLock::new(|| {
    let pair = Ed25519KeyPair::generate().unwrap();
    let jwk = json!({"kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": encode(pair.public_key().as_ref())});
    let key = EncodingKey::from_ed_der(pair.to_pkcs8().unwrap().as_ref());
    let spki = pair.public_key().as_der().unwrap().as_ref().to_vec();
    Issuer { jwk, key, signing: Signing::EdDSA, spki }
});

pub struct Issuer {
    pub jwk: Value,
    pub spki: Vec<u8>,
    key: EncodingKey,
    signing: Signing,
}

impl Issuer {
    pub fn sign(&self, header: &str, claims: &str) -> String {
        sign(&self.key, self.signing, header, claims)
    }

    /// A token with a plain header.
    pub fn token(&self, claims: &Value) -> String {
        let algorithm = if self.signing == Signing::EdDSA { "EdDSA" } else { "ES256" };
        let header = json!({"alg": algorithm, "kid": self.jwk["kid"], "typ": "JWT"});
        self.sign(&header.to_string(), &claims.to_string())
    }
}

pub fn sign(key: &EncodingKey, signing: Signing, header: &str, claims: &str) -> String {
    let signed = format!("{}.{}", encode(header.as_bytes()), encode(claims.as_bytes()));
    let signature = crypto::sign(signed.as_bytes(), key, signing).unwrap();
    format!("{signed}.{signature}")
}

pub fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Claims that the policy of [`spec`] accepts at [`NOW`].
pub fn claims() -> Value {
    json!({"iss": "https://issuer.example", "aud": "api", "sub": "alice", "iat": NOW.0 - 60, "exp": NOW.0 + 600})
}

/// The claims with one changed; `null` takes it out.
pub fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    if value.is_null() {
        claims.as_object_mut().unwrap().remove(name);
    } else {
        claims[name] = value;
    }
    claims
}

pub fn spec() -> VerifierSpec {
    VerifierSpec::new("https://issuer.example", "api")
}

pub fn verifier() -> Verifier {
    spec().try_into().unwrap()
}

pub fn key_set(jwks: &[&Value], algorithms: Algorithms) -> KeySet {
    KeySet::parse(json!({ "keys": jwks }).to_string().as_bytes(), algorithms).unwrap()
}

/// The keys of both issuers.
pub fn keys() -> KeySet {
    key_set(&[&ES.jwk, &ED.jwk], Algorithms::ASYMMETRIC)
}
