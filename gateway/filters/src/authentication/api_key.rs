//! API keys: whose a key is, known by its digest alone.
//!
//! Invariant: how long a look-up takes says nothing about the keys that there are. It goes by a hash of the digest under a
//! secret of the process, and what it finds is compared in constant time.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
};

use aws_lc_rs::{
    constant_time::verify_slices_are_equal,
    digest::{SHA256, digest},
};
use control_plane_model::{ApiKey, TokenSource};
use http::{HeaderName, HeaderValue};

/// A list of keys, ready to be asked.
pub(super) struct ApiKeys {
    pub(super) name: Arc<str>,
    pub(super) source: TokenSource,
    pub(super) forward_key: bool,
    pub(super) client_header: Option<HeaderName>,
    secret: RandomState,
    keys: HashMap<u64, Vec<ApiKey>>,
}

/// Why a list cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InvalidApiKeys {
    /// The place of tokens.
    #[error("keys are not taken from Authorization")]
    Source,
    /// A client's name.
    #[error("client {0:?} cannot be the value of a header")]
    Client(Arc<str>),
}

impl ApiKeys {
    pub(super) fn new(name: &Arc<str>, spec: &control_plane_model::ApiKeys) -> Result<Self, InvalidApiKeys> {
        if spec.source == TokenSource::Authorization {
            return Err(InvalidApiKeys::Source);
        }
        let secret = RandomState::new();
        let mut keys: HashMap<u64, Vec<ApiKey>> = HashMap::new();
        for key in &spec.keys {
            if HeaderValue::from_str(&key.client).is_err() {
                return Err(InvalidApiKeys::Client(key.client.clone()));
            }
            keys.entry(secret.hash_one(key.digest)).or_default().push(key.clone());
        }
        Ok(Self {
            name: name.clone(),
            source: spec.source.clone(),
            forward_key: spec.forward_key && !matches!(spec.source, TokenSource::Query(_)),
            client_header: spec.client_header.clone(),
            secret,
            keys,
        })
    }

    /// Whose key it is.
    pub(super) fn client(&self, key: &str) -> Option<&Arc<str>> {
        let digest = digest(&SHA256, key.as_bytes());
        let digest: [u8; 32] = digest.as_ref().try_into().ok()?;
        let found = self.keys.get(&self.secret.hash_one(digest))?;
        found.iter().find(|key| verify_slices_are_equal(&key.digest, &digest).is_ok()).map(|key| &key.client)
    }
}

impl std::fmt::Debug for ApiKeys {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("ApiKeys").field("name", &self.name).finish_non_exhaustive()
    }
}
