//! Secrets to certificates: PEM, a chain that parses, and a key that belongs to its leaf.

use std::{collections::BTreeMap, sync::Arc};

use control_plane_model::{Certificate, CertificateKey, ObjectName};
use k8s_openapi::api::core::v1::Secret;
use rustls::{crypto::CryptoProvider, sign::CertifiedKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

/// Certificates by Secret. A Secret is parsed again only when it changed.
pub(crate) struct Certificates {
    provider: CryptoProvider,
    known: BTreeMap<ObjectName, Parsed>,
}

/// What became of a Secret.
struct Parsed {
    secret: Arc<Secret>,
    result: Result<Arc<Certificate>, String>,
}

impl Certificates {
    pub(crate) fn new() -> Self {
        Self { provider: rustls::crypto::aws_lc_rs::default_provider(), known: BTreeMap::new() }
    }

    /// The certificate in `secret`.
    ///
    /// # Errors: the text for the user. It never holds any part of the key.
    pub(crate) fn parse(&mut self, name: &ObjectName, secret: &Arc<Secret>) -> Result<Arc<Certificate>, String> {
        if let Some(known) = self.known.get(name)
            && (Arc::ptr_eq(&known.secret, secret)
                || (known.secret.data == secret.data && known.secret.string_data == secret.string_data))
        {
            return known.result.clone();
        }
        let result = parse(name, secret, &self.provider).map(Arc::new);
        self.known.insert(name.clone(), Parsed { secret: Arc::clone(secret), result: result.clone() });
        result
    }

    /// Drops what is not in `used`, so that no key stays longer than a listener needs it.
    pub(crate) fn retain(&mut self, used: impl Fn(&ObjectName) -> bool) {
        self.known.retain(|name, _| used(name));
    }
}

fn parse(name: &ObjectName, secret: &Secret, provider: &CryptoProvider) -> Result<Certificate, String> {
    let entry = |key: &str| -> Result<&[u8], String> {
        let text = secret.string_data.as_ref().and_then(|data| data.get(key)).map(String::as_bytes);
        let bytes =
            text.or_else(|| secret.data.as_ref().and_then(|data| data.get(key)).map(|bytes| bytes.0.as_slice()));
        bytes.filter(|bytes| !bytes.is_empty()).ok_or_else(|| format!("Secret {name} has no entry {key:?}"))
    };
    let chain = CertificateDer::pem_slice_iter(entry("tls.crt")?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| format!("tls.crt of Secret {name} is not PEM: {error}"))?;
    if chain.is_empty() {
        return Err(format!("tls.crt of Secret {name} holds no PEM certificate"));
    }
    let private_key = PrivateKeyDer::from_pem_slice(entry("tls.key")?)
        .map_err(|_| format!("tls.key of Secret {name} holds no PEM private key"))?;
    let certified = CertifiedKey::from_der(chain.clone(), private_key.clone_key(), provider);
    certified.map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            format!("tls.key of Secret {name} is not the key of the certificate in tls.crt")
        }
        rustls::Error::InvalidCertificate(_) => format!("tls.crt of Secret {name} is not a certificate: {error}"),
        _ => format!("tls.key of Secret {name} is not a key that is supported (RSA, ECDSA P-256 to P-521, Ed25519)"),
    })?;
    for (position, certificate) in chain.iter().enumerate() {
        x509_parser::parse_x509_certificate(certificate)
            .map_err(|_| format!("certificate {position} in tls.crt of Secret {name} is not an X.509 certificate"))?;
    }
    Ok(Certificate { key: CertificateKey(name.clone()), chain, private_key })
}
