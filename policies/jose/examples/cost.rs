//! What a check and a cached lookup cost: `cargo run --release -p policy-jose --example cost`. Best of 20 rounds, beside
//! the crate `jsonwebtoken` doing the same work. The tokens are those of `tests/vectors`.

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jsonwebtoken::{DecodingKey, Validation, decode};
use policy_jose::{Algorithm, BoundVerifier, KeySet, TokenCache, UnixTime, Verifier, VerifierSpec};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

#[derive(Deserialize)]
struct Vectors {
    jwks: Jwks,
    tokens: HashMap<String, Vector>,
}

#[derive(Deserialize, Serialize)]
struct Jwks {
    keys: Vec<Jwk>,
}

#[derive(Deserialize, Serialize)]
struct Jwk {
    kid: String,
    #[serde(flatten)]
    members: Map<String, Value>,
}

#[derive(Deserialize)]
struct Vector {
    token: String,
}

const NOW: UnixTime = UnixTime(1_700_000_100);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let vectors: Vectors = serde_json::from_str(include_str!("../tests/vectors/jose.json"))?;
    let every = Algorithm::ALL.into_iter().collect();
    let spec = VerifierSpec { algorithms: every, ..VerifierSpec::new("https://issuer.example", "api") };
    let keys = KeySet::parse(serde_json::to_string(&vectors.jwks)?.as_bytes(), every)?;
    let bound = BoundVerifier::new(Arc::new(Verifier::try_from(spec)?), Arc::new(keys));
    let cache = TokenCache::new(1 << 16, Duration::from_mins(1), [7; 16])?;
    println!("{:8} {:>6} {:>10} {:>10} {:>14}", "alg", "bytes", "check", "cached", "jsonwebtoken");
    for jwk in &vectors.jwks.keys {
        let name = jwk.kid.as_str();
        let Some(Vector { token }) = vectors.tokens.get(name) else { continue };
        let check = nanoseconds(200, || bound.verifier().verify(token, bound.keys(), NOW).is_ok());
        let cached = nanoseconds(20_000, || cache.verify(&bound, token, NOW).is_ok());
        let other = theirs(jwk, name, token).map_or_else(|| "-".to_owned(), |cost| cost.to_string());
        println!("{name:8} {:>6} {check:>10} {cached:>10} {other:>14}", token.len());
    }
    println!("nanoseconds");
    Ok(())
}

fn theirs(jwk: &Jwk, name: &str, token: &str) -> Option<u128> {
    let algorithm = name.parse().ok()?;
    let key = DecodingKey::from_jwk(&serde_json::from_value(serde_json::to_value(jwk).ok()?).ok()?).ok()?;
    let mut validation = Validation::new(algorithm);
    validation.set_issuer(&["https://issuer.example"]);
    validation.set_audience(&["api"]);
    // The tokens are of 2023.
    validation.validate_exp = false;
    validation.validate_nbf = true;
    let run = || decode::<HashMap<String, Value>>(token, &key, &validation).is_ok();
    run().then(|| nanoseconds(200, run))
}

#[expect(clippy::disallowed_methods, reason = "a measurement reads the machine's clock")]
fn nanoseconds(calls: u32, call: impl Fn() -> bool) -> u128 {
    let round = || {
        let start = Instant::now();
        for _ in 0..calls {
            assert!(black_box(call()), "a token is refused");
        }
        start.elapsed().as_nanos() / u128::from(calls)
    };
    (0..20).map(|_| round()).min().unwrap_or_default()
}
