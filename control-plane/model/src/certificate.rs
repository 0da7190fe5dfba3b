//! A certificate chain with its private key.

use std::fmt;

use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::CertificateKey;

/// A server certificate. Its `Debug` form shows no key.
pub struct Certificate {
    /// The Secret that it comes from.
    pub key: CertificateKey,
    /// Leaf first; never empty.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's private key.
    pub private_key: PrivateKeyDer<'static>,
}

impl Clone for Certificate {
    fn clone(&self) -> Self {
        Self { key: self.key.clone(), chain: self.chain.clone(), private_key: self.private_key.clone_key() }
    }
}

impl PartialEq for Certificate {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key && self.chain == other.chain && self.private_key == other.private_key
    }
}

impl Eq for Certificate {}

impl fmt::Debug for Certificate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Certificate")
            .field("key", &self.key)
            .field("chain", &self.chain.len())
            .finish_non_exhaustive()
    }
}
