//! Sealed texts: what a client keeps for the gateway, and can neither read nor change.
//!
//! AES-256-GCM (NIST SP 800-38D) under a key of its own for each text, derived by HKDF-SHA256 (RFC 5869) from a key of the ring
//! and 128 random bits, so that no count of texts makes a nonce come twice. Invariant: a text opens only in the context that it
//! was sealed for (policy, purpose, cookie name), under a key that is still in the ring. Form, in base64url: version (1 byte),
//! key (4), salt (16), what is sealed, tag (16).

use std::fmt;

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hkdf,
};

use crate::{base64url, from_base64url, sha256};

/// Fills bytes with random ones. They must be of a cryptographic source.
pub type Random<'a> = &'a mut dyn FnMut(&mut [u8]);

/// Most keys of one ring: the current one and those that it took the place of.
pub const MAX_KEYS: usize = 8;
/// Longest text that is opened, in bytes.
const MAX_SEALED: usize = 64 * 1024;

const VERSION: u8 = 1;
const ID: usize = 4;
const SALT: usize = 16;
const KEY: usize = 32;
const HEAD: usize = 1 + ID + SALT;

/// A key as it is written: 32 bytes, or their base64 in either alphabet, with or without padding and a line end.
pub fn decode_key(written: &[u8]) -> Option<[u8; KEY]> {
    if let Ok(key) = written.try_into() {
        return Some(key);
    }
    let text = written.trim_ascii_end();
    let text = text.strip_suffix(b"=").unwrap_or(text);
    let text: Vec<u8> = text
        .iter()
        .map(|byte| match byte {
            b'+' => b'-',
            b'/' => b'_',
            other => *other,
        })
        .collect();
    from_base64url(&text)?.try_into().ok()
}

/// What a text is sealed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context<'a> {
    /// Whose it is: a text of one policy is of no use in another.
    pub policy: &'a str,
    /// What it is for.
    pub purpose: &'static str,
    /// The cookie that carries it.
    pub cookie: &'a str,
}

/// Keys, of which the first seals and all open.
#[derive(Clone)]
pub struct KeyRing(Vec<SealingKey>);

#[derive(Clone)]
struct SealingKey {
    id: [u8; ID],
    key: [u8; KEY],
}

/// Why keys make no ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKeyRing {
    /// None, or more than [`MAX_KEYS`].
    #[error("there must be 1 to {MAX_KEYS} keys")]
    Count,
    /// One twice.
    #[error("a key is there twice")]
    Repeated,
}

/// Not sealed by this ring for this context, or cut, or changed. Which of them is nobody's business.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the text was not sealed here for this")]
pub struct NotSealed;

impl KeyRing {
    /// The first of `keys` seals; all open.
    ///
    /// # Errors: [`InvalidKeyRing`].
    pub fn new(keys: &[[u8; KEY]]) -> Result<Self, InvalidKeyRing> {
        if keys.is_empty() || keys.len() > MAX_KEYS {
            return Err(InvalidKeyRing::Count);
        }
        let keys: Vec<SealingKey> = keys.iter().map(SealingKey::new).collect();
        let is_repeated =
            |(index, key): (usize, &SealingKey)| keys.iter().skip(index + 1).any(|other| other.id == key.id);
        if keys.iter().enumerate().any(is_repeated) {
            return Err(InvalidKeyRing::Repeated);
        }
        Ok(Self(keys))
    }

    /// `text` sealed; `None` only where the library's cipher fails, which it does for texts of gigabytes.
    pub fn seal(&self, context: Context<'_>, text: &[u8], random: Random<'_>) -> Option<String> {
        let key = self.0.first()?;
        let mut salt = [0; SALT];
        random(&mut salt);
        let (cipher, nonce) = key.derive(&salt)?;
        let mut sealed = Vec::with_capacity(text.len() + AES_256_GCM.tag_len());
        sealed.extend_from_slice(text);
        cipher.seal_in_place_append_tag(nonce, context.aad(key.id), &mut sealed).ok()?;
        let mut whole = Vec::with_capacity(HEAD + sealed.len());
        whole.push(VERSION);
        whole.extend_from_slice(&key.id);
        whole.extend_from_slice(&salt);
        whole.extend_from_slice(&sealed);
        Some(base64url(&whole))
    }

    /// What was sealed.
    ///
    /// # Errors: [`NotSealed`].
    pub fn open(&self, context: Context<'_>, text: &[u8]) -> Result<Vec<u8>, NotSealed> {
        if text.len() > MAX_SEALED {
            return Err(NotSealed);
        }
        let whole = from_base64url(text).ok_or(NotSealed)?;
        let (version, rest) = whole.split_first().ok_or(NotSealed)?;
        let (id, rest) = rest.split_first_chunk::<ID>().ok_or(NotSealed)?;
        let (salt, sealed) = rest.split_first_chunk::<SALT>().ok_or(NotSealed)?;
        let key = self.0.iter().find(|key| key.id == *id).filter(|_| *version == VERSION).ok_or(NotSealed)?;
        let (cipher, nonce) = key.derive(salt).ok_or(NotSealed)?;
        let mut sealed = sealed.to_vec();
        let length = cipher.open_in_place(nonce, context.aad(*id), &mut sealed).map_err(|_| NotSealed)?.len();
        sealed.truncate(length);
        Ok(sealed)
    }
}

/// Shows no key.
impl fmt::Debug for KeyRing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "KeyRing({} keys)", self.0.len())
    }
}

impl Context<'_> {
    fn aad(&self, key: [u8; ID]) -> Aad<[u8; 32]> {
        let parts: [&[u8]; 5] =
            [&[VERSION], &key, self.policy.as_bytes(), self.purpose.as_bytes(), self.cookie.as_bytes()];
        Aad::from(sha256(&parts))
    }
}

struct DerivedLength;

impl hkdf::KeyType for DerivedLength {
    fn len(&self) -> usize {
        KEY + NONCE_LEN
    }
}

impl SealingKey {
    fn new(key: &[u8; KEY]) -> Self {
        let [a, b, c, d, ..] = sha256(&[b"nebula key id", key]);
        Self { id: [a, b, c, d], key: *key }
    }

    fn derive(&self, salt: &[u8; SALT]) -> Option<(LessSafeKey, Nonce)> {
        let mut derived = [0; KEY + NONCE_LEN];
        let pseudorandom = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(&self.key);
        pseudorandom.expand(&[b"nebula sealed cookie"], DerivedLength).ok()?.fill(&mut derived).ok()?;
        let (key, nonce) = derived.split_at(KEY);
        let cipher = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).ok()?);
        Some((cipher, Nonce::try_assume_unique_for_key(nonce).ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTEXT: Context<'static> = Context { policy: "shop/web", purpose: "session", cookie: "c" };

    fn random(seed: u8) -> impl FnMut(&mut [u8]) {
        move |bytes| bytes.fill(seed)
    }

    #[test]
    fn a_text_opens_only_in_its_own_context() {
        let ring = KeyRing::new(&[[1; 32]]).unwrap();
        let sealed = ring.seal(CONTEXT, b"secret", &mut random(9)).unwrap();
        assert_eq!(ring.open(CONTEXT, sealed.as_bytes()).unwrap(), b"secret");
        for other in [
            Context { policy: "shop/app", ..CONTEXT },
            Context { purpose: "transaction", ..CONTEXT },
            Context { cookie: "d", ..CONTEXT },
            // The same letters, divided elsewhere.
            Context { policy: "shop/webs", purpose: "ession", ..CONTEXT },
        ] {
            assert_eq!(ring.open(other, sealed.as_bytes()), Err(NotSealed), "{other:?}");
        }
    }

    #[test]
    fn keys_are_rotated_without_losing_what_the_older_one_sealed() {
        let old = KeyRing::new(&[[1; 32]]).unwrap();
        let both = KeyRing::new(&[[2; 32], [1; 32]]).unwrap();
        let new = KeyRing::new(&[[2; 32]]).unwrap();
        let of_old = old.seal(CONTEXT, b"x", &mut random(1)).unwrap();
        let of_both = both.seal(CONTEXT, b"x", &mut random(1)).unwrap();
        assert!(both.open(CONTEXT, of_old.as_bytes()).is_ok());
        assert!(new.open(CONTEXT, of_both.as_bytes()).is_ok());
        assert!(new.open(CONTEXT, of_old.as_bytes()).is_err());
        assert!(old.open(CONTEXT, of_both.as_bytes()).is_err());
    }

    #[test]
    fn a_ring_has_one_to_eight_keys_and_each_once() {
        assert_eq!(KeyRing::new(&[]).unwrap_err(), InvalidKeyRing::Count);
        let keys: Vec<[u8; 32]> = (0..9).map(|byte| [byte; 32]).collect();
        assert_eq!(KeyRing::new(&keys).unwrap_err(), InvalidKeyRing::Count);
        assert_eq!(KeyRing::new(&[[1; 32], [2; 32], [1; 32]]).unwrap_err(), InvalidKeyRing::Repeated);
    }

    #[test]
    fn a_key_is_bytes_or_their_base64() {
        let key = [0xfb; 32];
        let text = "-_v7".repeat(10) + "-_s";
        assert_eq!(decode_key(&key), Some(key));
        assert_eq!(decode_key(text.as_bytes()), Some(key));
        assert_eq!(decode_key(format!("{}=\n", text.replace('-', "+").replace('_', "/")).as_bytes()), Some(key));
        for bad in [&[0; 31][..], &[0; 33], b"", b"a=", text.get(1..).unwrap().as_bytes()] {
            assert_eq!(decode_key(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn no_key_is_shown() {
        assert_eq!(format!("{:?}", KeyRing::new(&[[7; 32]]).unwrap()), "KeyRing(1 keys)");
    }
}
