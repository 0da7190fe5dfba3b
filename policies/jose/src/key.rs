//! One verifying key: its material, from a JWK (RFC 7517, RFC 7518 section 6, RFC 8037) or a SubjectPublicKeyInfo, and
//! what it checks. Invariant: a check belongs to one algorithm and is built only from material of that algorithm's type,
//! so a public key can never serve as the secret of HMAC (RFC 8725 section 3.1).

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rsa::PublicKeyComponents;
use aws_lc_rs::signature::{self, EcdsaVerificationAlgorithm, ParsedPublicKey, RsaParameters, VerificationAlgorithm};
use aws_lc_rs::{hmac, rsa};
use serde_json::{Map, Value};

use crate::algorithm::{Algorithm, Algorithms};
use crate::base64url;

/// Shortest RSA modulus that is used (RFC 7518 section 3.3).
pub const MIN_RSA_BITS: usize = 2048;
/// Longest RSA modulus that is used: one check of a longer one would cost milliseconds.
pub const MAX_RSA_BITS: usize = 8192;
/// Longest `kid` that is kept, in bytes.
pub const MAX_KID_BYTES: usize = 256;

/// Why a key is not used. The name of each is stable, for metrics and statuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum KeyDefect {
    /// A member is absent or wrong, or the point is not on its curve.
    #[error("the key is malformed")]
    Malformed,
    /// `kty` or `crv` is none of those supported.
    #[error("the key's type or curve is not supported")]
    UnsupportedType,
    /// `use` is not `sig`, or `key_ops` lacks `verify`.
    #[error("the key is not for verifying signatures")]
    NotForVerifying,
    /// No algorithm of the policy fits the key, or its `alg` is another one.
    #[error("no allowed algorithm fits the key")]
    AlgorithmNotAllowed,
    /// RSA of less than [`MIN_RSA_BITS`] or with a weak exponent, or a secret shorter than the hash (RFC 7518 section
    /// 3.2).
    #[error("the key is too weak")]
    TooWeak,
    /// RSA of more than [`MAX_RSA_BITS`].
    #[error("the key is too long")]
    TooLong,
    /// Everybody who reads the key set can sign with it.
    #[error("the private key is published")]
    PrivateKeyPublished,
    /// More keys with one `kid` than are tried ([`crate::MAX_CANDIDATES`]).
    #[error("too many keys have this key id")]
    TooManyWithSameId,
}

impl KeyDefect {
    /// A stable name in snake case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::UnsupportedType => "unsupported_type",
            Self::NotForVerifying => "not_for_verifying",
            Self::AlgorithmNotAllowed => "algorithm_not_allowed",
            Self::TooWeak => "too_weak",
            Self::TooLong => "too_long",
            Self::PrivateKeyPublished => "private_key_published",
            Self::TooManyWithSameId => "too_many_with_same_id",
        }
    }
}

/// A key that is ready to check signatures; parsed once.
#[derive(Clone)]
pub(crate) struct Key {
    pub id: Option<Box<str>>,
    checks: Vec<(Algorithm, Check)>,
    /// SHA-256 over everything above.
    pub digest: [u8; 32],
}

#[derive(Clone)]
enum Check {
    Public(ParsedPublicKey),
    Secret(Box<hmac::Key>),
}

/// Shows no material: that of HMAC is secret.
impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let algorithms: Vec<Algorithm> = self.checks.iter().map(|(algorithm, _)| *algorithm).collect();
        formatter.debug_struct("Key").field("id", &self.id).field("algorithms", &algorithms).finish_non_exhaustive()
    }
}

impl Key {
    /// The key of a JWK for those of `allowed` that fit it. `x5c`, `x5u` and the like are ignored.
    pub fn from_jwk(jwk: &Map<String, Value>, allowed: Algorithms) -> Result<Self, KeyDefect> {
        let id = match jwk.get("kid") {
            None => None,
            Some(Value::String(id)) if id.len() <= MAX_KID_BYTES => Some(id.as_str().into()),
            Some(_) => return Err(KeyDefect::Malformed),
        };
        if jwk.get("use").is_some_and(|purpose| purpose.as_str() != Some("sig")) {
            return Err(KeyDefect::NotForVerifying);
        }
        if let Some(operations) = jwk.get("key_ops") {
            let operations = operations.as_array().ok_or(KeyDefect::Malformed)?;
            if !operations.iter().any(|operation| operation.as_str() == Some("verify")) {
                return Err(KeyDefect::NotForVerifying);
            }
        }
        let declared = match jwk.get("alg") {
            None => allowed,
            Some(Value::String(name)) => Algorithm::from_name(name).into_iter().collect(),
            Some(_) => return Err(KeyDefect::Malformed),
        };
        Self::new(id, &Material::from_jwk(jwk)?, allowed.intersection(declared))
    }

    /// The key of a DER SubjectPublicKeyInfo (RFC 5280 section 4.1).
    pub fn from_spki(id: Option<&str>, der: &[u8], allowed: Algorithms) -> Result<Self, KeyDefect> {
        if id.is_some_and(|id| id.len() > MAX_KID_BYTES) {
            return Err(KeyDefect::Malformed);
        }
        Self::new(id.map(Into::into), &Material::from_spki(der)?, allowed)
    }

    pub fn new(id: Option<Box<str>>, material: &Material, allowed: Algorithms) -> Result<Self, KeyDefect> {
        let checks = material.checks(allowed)?;
        if checks.is_empty() {
            return Err(KeyDefect::AlgorithmNotAllowed);
        }
        let algorithms: Algorithms = checks.iter().map(|(algorithm, _)| *algorithm).collect();
        let mut text = algorithms.bits().to_be_bytes().to_vec();
        text.extend(material.thumbprint());
        text.push(u8::from(id.is_some()));
        text.extend(id.as_deref().unwrap_or_default().as_bytes());
        Ok(Self { id, checks, digest: sha256(&text) })
    }

    /// Whether the key can check signatures of `algorithm`.
    pub fn fits(&self, algorithm: Algorithm) -> bool {
        self.checks.iter().any(|(own, _)| *own == algorithm)
    }

    /// Whether `signature` is one of `algorithm` over `message`. False also where the key is not one for `algorithm`.
    pub fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        self.checks.iter().filter(|(own, _)| *own == algorithm).any(|(_, check)| match check {
            Check::Public(key) => key.verify_sig(message, signature).is_ok(),
            Check::Secret(key) => hmac::verify(key, message, signature).is_ok(),
        })
    }
}

/// The numbers of a key.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Material {
    Rsa { modulus: Vec<u8>, exponent: Vec<u8> },
    Ec { curve: Curve, x: Vec<u8>, y: Vec<u8> },
    Ed25519 { x: Vec<u8> },
    Secret(Vec<u8>),
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Curve {
    P256,
    P384,
    P521,
}

impl Curve {
    const ALL: [Self; 3] = [Self::P256, Self::P384, Self::P521];

    const fn name(self) -> &'static str {
        match self {
            Self::P256 => "P-256",
            Self::P384 => "P-384",
            Self::P521 => "P-521",
        }
    }

    const fn coordinate_bytes(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }

    const fn algorithm(self) -> (Algorithm, &'static EcdsaVerificationAlgorithm) {
        match self {
            Self::P256 => (Algorithm::Es256, &signature::ECDSA_P256_SHA256_FIXED),
            Self::P384 => (Algorithm::Es384, &signature::ECDSA_P384_SHA384_FIXED),
            Self::P521 => (Algorithm::Es512, &signature::ECDSA_P521_SHA512_FIXED),
        }
    }

    /// What comes before the uncompressed point in a SubjectPublicKeyInfo of this curve (RFC 5480): the lengths are
    /// fixed, so the encoding is too.
    const fn spki_prefix(self) -> &'static [u8] {
        match self {
            Self::P256 => b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00\x04",
            Self::P384 => b"\x30\x76\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x22\x03\x62\x00\x04",
            Self::P521 => {
                b"\x30\x81\x9b\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x23\x03\x81\x86\x00\x04"
            }
        }
    }
}

/// The same for Ed25519 (RFC 8410).
const ED25519_SPKI_PREFIX: &[u8] = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";
const ED25519_KEY_BYTES: usize = 32;

impl Material {
    /// # Errors: [`KeyDefect::PrivateKeyPublished`] where an asymmetric key comes with its private part.
    pub fn from_jwk(jwk: &Map<String, Value>) -> Result<Self, KeyDefect> {
        let text = |name: &str| jwk.get(name).and_then(Value::as_str).ok_or(KeyDefect::Malformed);
        let bytes = |name: &str| base64url::decode(text(name)?).ok_or(KeyDefect::Malformed);
        let kind = text("kty")?;
        if kind != "oct" && jwk.contains_key("d") {
            return Err(KeyDefect::PrivateKeyPublished);
        }
        match kind {
            "RSA" => Ok(Self::Rsa { modulus: bytes("n")?, exponent: bytes("e")? }),
            "EC" => {
                let name = text("crv")?;
                let curve = Curve::ALL.into_iter().find(|curve| curve.name() == name);
                let curve = curve.ok_or(KeyDefect::UnsupportedType)?;
                let (x, y) = (bytes("x")?, bytes("y")?);
                // RFC 7518 section 6.2.1.2: full length, zeros included.
                if x.len() != curve.coordinate_bytes() || y.len() != curve.coordinate_bytes() {
                    return Err(KeyDefect::Malformed);
                }
                Ok(Self::Ec { curve, x, y })
            }
            "OKP" if text("crv")? == "Ed25519" => {
                let x = bytes("x")?;
                if x.len() == ED25519_KEY_BYTES { Ok(Self::Ed25519 { x }) } else { Err(KeyDefect::Malformed) }
            }
            "oct" => bytes("k").map(Self::Secret),
            _ => Err(KeyDefect::UnsupportedType),
        }
    }

    fn from_spki(der: &[u8]) -> Result<Self, KeyDefect> {
        if let Some(x) = der.strip_prefix(ED25519_SPKI_PREFIX) {
            return if x.len() == ED25519_KEY_BYTES {
                Ok(Self::Ed25519 { x: x.to_vec() })
            } else {
                Err(KeyDefect::Malformed)
            };
        }
        for curve in Curve::ALL {
            let point = der.strip_prefix(curve.spki_prefix());
            let Some((x, y)) = point.and_then(|point| point.split_at_checked(curve.coordinate_bytes())) else {
                continue;
            };
            return if y.len() == curve.coordinate_bytes() {
                Ok(Self::Ec { curve, x: x.to_vec(), y: y.to_vec() })
            } else {
                Err(KeyDefect::Malformed)
            };
        }
        let key = rsa::PublicKey::from_der(der).map_err(|_| KeyDefect::UnsupportedType)?;
        let modulus = key.modulus().big_endian_without_leading_zero().to_vec();
        Ok(Self::Rsa { modulus, exponent: key.exponent().big_endian_without_leading_zero().to_vec() })
    }

    /// A check for each of `allowed` that fits the type. Empty where none does.
    fn checks(&self, allowed: Algorithms) -> Result<Vec<(Algorithm, Check)>, KeyDefect> {
        match self {
            Self::Rsa { modulus, exponent } => {
                let components = PublicKeyComponents { n: without_zeros(modulus), e: without_zeros(exponent) };
                check_rsa(&components)?;
                let pairs = RSA.iter().filter(|(algorithm, _)| allowed.contains(*algorithm));
                let parsed = pairs.map(|(algorithm, parameters)| {
                    let key = components.to_parsed_public_key(parameters).map_err(|_| KeyDefect::Malformed)?;
                    Ok((*algorithm, Check::Public(key)))
                });
                parsed.collect()
            }
            Self::Ec { curve, x, y } => {
                let (algorithm, parameters) = curve.algorithm();
                let point = [&[4], x.as_slice(), y].concat();
                Ok(only_if(allowed, algorithm, parsed(parameters, &point)?))
            }
            Self::Ed25519 { x } => Ok(only_if(allowed, Algorithm::EdDsa, parsed(&signature::ED25519, x)?)),
            Self::Secret(secret) => {
                let fitting = HMAC.iter().filter(|(algorithm, _)| allowed.contains(*algorithm));
                let fitting: Vec<_> = fitting.collect();
                let strong = fitting.iter().filter(|(_, hash)| secret.len() >= hash.tag_len());
                let checks: Vec<_> = strong
                    .map(|(algorithm, hash)| (*algorithm, Check::Secret(Box::new(hmac::Key::new(*hash, secret)))))
                    .collect();
                if checks.is_empty() && !fitting.is_empty() { Err(KeyDefect::TooWeak) } else { Ok(checks) }
            }
        }
    }

    /// SHA-256 thumbprint (RFC 7638 section 3, RFC 8037 section 2).
    pub fn thumbprint(&self) -> [u8; 32] {
        let encode = |bytes: &[u8]| base64url::encode(bytes);
        let text = match self {
            Self::Rsa { modulus, exponent } => {
                let (modulus, exponent) = (without_zeros(modulus), without_zeros(exponent));
                format!(r#"{{"e":"{}","kty":"RSA","n":"{}"}}"#, encode(exponent), encode(modulus))
            }
            Self::Ec { curve, x, y } => {
                format!(r#"{{"crv":"{}","kty":"EC","x":"{}","y":"{}"}}"#, curve.name(), encode(x), encode(y))
            }
            Self::Ed25519 { x } => format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, encode(x)),
            Self::Secret(secret) => format!(r#"{{"k":"{}","kty":"oct"}}"#, encode(secret)),
        };
        sha256(text.as_bytes())
    }
}

const RSA: [(Algorithm, &RsaParameters); 6] = [
    (Algorithm::Rs256, &signature::RSA_PKCS1_2048_8192_SHA256),
    (Algorithm::Rs384, &signature::RSA_PKCS1_2048_8192_SHA384),
    (Algorithm::Rs512, &signature::RSA_PKCS1_2048_8192_SHA512),
    (Algorithm::Ps256, &signature::RSA_PSS_2048_8192_SHA256),
    (Algorithm::Ps384, &signature::RSA_PSS_2048_8192_SHA384),
    (Algorithm::Ps512, &signature::RSA_PSS_2048_8192_SHA512),
];

const HMAC: [(Algorithm, hmac::Algorithm); 3] = [
    (Algorithm::Hs256, hmac::HMAC_SHA256),
    (Algorithm::Hs384, hmac::HMAC_SHA384),
    (Algorithm::Hs512, hmac::HMAC_SHA512),
];

/// Bounds of size, and oddness of both numbers; an exponent of 1 would make every signature valid.
fn check_rsa(components: &PublicKeyComponents<&[u8]>) -> Result<(), KeyDefect> {
    let (Some(first), Some(last)) = (components.n.first(), components.n.last()) else {
        return Err(KeyDefect::Malformed);
    };
    let bits = components.n.len() * 8 - first.leading_zeros() as usize;
    let is_odd = |byte: &u8| byte & 1 == 1;
    match components.e {
        _ if bits < MIN_RSA_BITS => Err(KeyDefect::TooWeak),
        _ if bits > MAX_RSA_BITS => Err(KeyDefect::TooLong),
        [] | [1] => Err(KeyDefect::TooWeak),
        // AWS-LC takes exponents of at most 33 bits.
        [.., end] if is_odd(end) && is_odd(last) && components.e.len() <= 4 => Ok(()),
        _ => Err(KeyDefect::Malformed),
    }
}

/// RFC 7518 section 6.3.1.1 forbids leading zeros, and some issuers write one.
fn without_zeros(number: &[u8]) -> &[u8] {
    let start = number.iter().position(|byte| *byte != 0).unwrap_or(number.len());
    number.get(start..).unwrap_or_default()
}

fn parsed(parameters: &'static dyn VerificationAlgorithm, bytes: &[u8]) -> Result<Check, KeyDefect> {
    ParsedPublicKey::new(parameters, bytes).map(Check::Public).map_err(|_| KeyDefect::Malformed)
}

fn only_if(allowed: Algorithms, algorithm: Algorithm, check: Check) -> Vec<(Algorithm, Check)> {
    if allowed.contains(algorithm) { vec![(algorithm, check)] } else { Vec::new() }
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut output = [0; 32];
    output.copy_from_slice(digest(&SHA256, bytes).as_ref());
    output
}

#[cfg(test)]
mod tests {
    use super::*;

    fn material(jwk: &str) -> Material {
        let jwk: Value = serde_json::from_str(jwk).unwrap();
        Material::from_jwk(jwk.as_object().unwrap()).unwrap()
    }

    /// RFC 7638 section 3.1, RFC 8037 appendix A.3.
    #[test]
    fn thumbprints_are_those_of_the_rfcs() {
        for (jwk, thumbprint) in [
            (
                r#"{"kty":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw","e":"AQAB","alg":"RS256"}"#,
                "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs",
            ),
            (
                r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#,
                "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k",
            ),
        ] {
            assert_eq!(base64url::encode(&material(jwk).thumbprint()), thumbprint);
        }
    }

    /// Those of the npm package `jose` (`tests/vectors`), for every type of public key.
    #[test]
    fn a_key_in_pem_has_the_thumbprint_of_the_same_key_as_jwk() {
        use rustls_pki_types::{SubjectPublicKeyInfoDer, pem::PemObject as _};
        let vectors: Value = serde_json::from_str(include_str!("../tests/vectors/jose.json")).unwrap();
        for vector in vectors["tokens"].as_object().unwrap().values().filter(|vector| vector["pem"].is_string()) {
            let der = SubjectPublicKeyInfoDer::from_pem_slice(vector["pem"].as_str().unwrap().as_bytes()).unwrap();
            let material = Material::from_spki(&der).unwrap();
            assert_eq!(base64url::encode(&material.thumbprint()), vector["thumbprint"].as_str().unwrap());
        }
    }

    /// The token of RFC 7515 appendix A.1.
    #[test]
    fn a_key_checks_nothing_of_another_algorithm() {
        let jwk = r#"{"kty":"oct","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"}"#;
        let allowed = [Algorithm::Hs256, Algorithm::Hs512].into_iter().collect();
        let key = Key::new(None, &material(jwk), allowed).unwrap();
        let signed = b"eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
        let signature = base64url::decode("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk").unwrap();
        for algorithm in Algorithm::ALL {
            let is_own = algorithm == Algorithm::Hs256;
            assert_eq!(key.verifies(algorithm, signed, &signature), is_own, "{algorithm:?}");
            assert_eq!(key.fits(algorithm), is_own || algorithm == Algorithm::Hs512);
        }
    }
}
