//! The verifying keys of an issuer: a JWK Set (RFC 7517 section 5) or public keys in PEM (RFC 7468 section 13).
//! Invariant: every key in it is usable, and there is at least one. Does not fetch; knows nothing of its age.

use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::Value;

use crate::algorithm::{Algorithm, Algorithms};
use crate::json::{self, JsonError};
use crate::key::{Key, KeyDefect, sha256};

/// Longest key set that is read, in bytes.
pub const MAX_KEY_SET_BYTES: usize = 256 * 1024;
/// Most keys of one set, usable or not.
pub const MAX_KEYS: usize = 100;
/// Most keys that are tried for one token.
pub const MAX_CANDIDATES: usize = 4;

/// A key that is not used, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SkippedKey {
    /// Its `kid`, where it has a readable one.
    pub id: Option<String>,
    /// What is wrong with it.
    pub defect: KeyDefect,
}

/// Why a text is not a set of keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    /// More than [`MAX_KEY_SET_BYTES`].
    #[error("the key set has more than {MAX_KEY_SET_BYTES} bytes")]
    TooLarge,
    /// Not a JSON object with an array `keys`.
    #[error("the text is not a JWK set")]
    NotAKeySet,
    /// A member name stands twice in one object.
    #[error("a member of the key set stands twice")]
    DuplicateMember,
    /// Not PEM, or a block that is not `PUBLIC KEY`.
    #[error("the text is not a list of public keys in PEM")]
    NotPem,
    /// More than [`MAX_KEYS`].
    #[error("the key set has more than {MAX_KEYS} keys")]
    TooManyKeys,
    /// None can be used; an empty set counts too.
    #[error("no key of the set can be used ({} skipped)", .0.len())]
    NoUsableKey(Vec<SkippedKey>),
}

/// Keys that are parsed and ready. Built once for each fetch, and shared.
#[derive(Clone, Debug)]
pub struct KeySet {
    keys: Vec<Key>,
    skipped: Vec<SkippedKey>,
    fingerprint: [u8; 32],
}

impl KeySet {
    /// Reads a JWK set. A key serves those of `algorithms` that fit its type, or only its `alg` where it has one.
    /// A symmetric key (`oct`) is thus used only where the list names HMAC. Unusable keys are skipped.
    ///
    /// Several keys may share a `kid` (RFC 7517 section 4.5): the first [`MAX_CANDIDATES`] are tried in turn.
    ///
    /// # Errors
    /// See [`KeySetError`]. One member name twice refuses the whole set, as RFC 7517 section 4 lets us.
    pub fn parse(jwks: &[u8], algorithms: Algorithms) -> Result<Self, KeySetError> {
        if jwks.len() > MAX_KEY_SET_BYTES {
            return Err(KeySetError::TooLarge);
        }
        let members = json::parse_object(jwks).map_err(|error| match error {
            JsonError::NotAnObject => KeySetError::NotAKeySet,
            JsonError::DuplicateMember => KeySetError::DuplicateMember,
        })?;
        let keys = members.get("keys").and_then(Value::as_array).ok_or(KeySetError::NotAKeySet)?;
        let keys = keys.iter().map(|jwk| {
            let id = jwk.get("kid").and_then(Value::as_str);
            let key = jwk.as_object().ok_or(KeyDefect::Malformed).and_then(|jwk| Key::from_jwk(jwk, algorithms));
            (id.map(str::to_owned), key)
        });
        Self::collect(keys)
    }

    /// Reads one or more blocks `PUBLIC KEY` (SubjectPublicKeyInfo). They have the key id `id`, or none: a key without
    /// one is tried for every token whose `kid` no key has.
    ///
    /// # Errors
    /// See [`KeySetError`]. Certificates and private keys are not taken.
    pub fn from_pem(pem: &[u8], id: Option<&str>, algorithms: Algorithms) -> Result<Self, KeySetError> {
        if pem.len() > MAX_KEY_SET_BYTES {
            return Err(KeySetError::TooLarge);
        }
        let blocks = pem.split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"-----BEGIN ")).count();
        let keys: Result<Vec<_>, _> = SubjectPublicKeyInfoDer::pem_slice_iter(pem).collect();
        let keys = keys.map_err(|_| KeySetError::NotPem)?;
        // The reader passes over blocks of another kind.
        if keys.is_empty() || keys.len() != blocks {
            return Err(KeySetError::NotPem);
        }
        Self::collect(keys.iter().map(|der| (id.map(str::to_owned), Key::from_spki(id, der, algorithms))))
    }

    /// Keys in DER (SubjectPublicKeyInfo), each with its key id or none; see [`KeySet::from_pem`].
    ///
    /// # Errors
    /// [`KeySetError::NoUsableKey`] and [`KeySetError::TooManyKeys`].
    pub fn from_spki<'a>(
        keys: impl IntoIterator<Item = (Option<&'a str>, &'a [u8])>,
        algorithms: Algorithms,
    ) -> Result<Self, KeySetError> {
        Self::collect(keys.into_iter().map(|(id, der)| (id.map(str::to_owned), Key::from_spki(id, der, algorithms))))
    }

    fn collect(parsed: impl Iterator<Item = (Option<String>, Result<Key, KeyDefect>)>) -> Result<Self, KeySetError> {
        let mut keys: Vec<Key> = Vec::new();
        let mut skipped = Vec::new();
        for (id, key) in parsed {
            if keys.len() + skipped.len() == MAX_KEYS {
                return Err(KeySetError::TooManyKeys);
            }
            match key {
                Ok(key) if keys.iter().filter(|other| other.id == key.id).count() >= MAX_CANDIDATES => {
                    skipped.push(SkippedKey { id, defect: KeyDefect::TooManyWithSameId });
                }
                Ok(key) => keys.push(key),
                Err(defect) => skipped.push(SkippedKey { id, defect }),
            }
        }
        if keys.is_empty() {
            return Err(KeySetError::NoUsableKey(skipped));
        }
        // Sorted, so that an issuer who shuffles its set does not empty the cache.
        let mut digests: Vec<[u8; 32]> = keys.iter().map(|key| key.digest).collect();
        digests.sort_unstable();
        Ok(Self { keys, skipped, fingerprint: sha256(digests.as_flattened()) })
    }

    /// The number of usable keys; at least 1.
    pub fn usable(&self) -> usize {
        self.keys.len()
    }

    /// The keys that are not used, for a status and for metrics. At most [`MAX_KEYS`].
    pub fn skipped(&self) -> &[SkippedKey] {
        &self.skipped
    }

    /// SHA-256 over the usable keys, their ids and algorithms: equal exactly where two sets verify alike.
    pub fn fingerprint(&self) -> &[u8; 32] {
        &self.fingerprint
    }

    /// The keys to try for a token.
    pub(crate) fn candidates(&self, id: Option<&str>, algorithm: Algorithm) -> Candidates<'_> {
        let named = |id: Option<&str>| self.keys.iter().filter(|key| key.id.as_deref() == id).collect::<Vec<_>>();
        let own = id.map_or_else(|| self.keys.iter().collect(), |id| named(Some(id)));
        let is_known = !own.is_empty();
        let found = if is_known { own } else { named(None) };
        if found.is_empty() {
            return Candidates::UnknownId;
        }
        let fitting: Vec<&Key> = found.into_iter().filter(|key| key.fits(algorithm)).collect();
        match fitting.len() {
            0 if is_known => Candidates::OtherAlgorithm,
            0 => Candidates::UnknownId,
            count if count > MAX_CANDIDATES => Candidates::TooMany,
            _ => Candidates::Try { keys: fitting, is_known },
        }
    }
}

/// What a set offers for one token.
pub(crate) enum Candidates<'a> {
    /// At least 1 and at most [`MAX_CANDIDATES`]. `is_known` unless the token has an id that no key has.
    Try { keys: Vec<&'a Key>, is_known: bool },
    /// No key has the id.
    UnknownId,
    /// The key is for another algorithm.
    OtherAlgorithm,
    /// The token has no id and too many keys fit.
    TooMany,
}
