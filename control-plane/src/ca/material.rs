//! Roots and the certificates that they sign: ECDSA P-256, made with aws-lc-rs.
//!
//! Invariant: a [`Root`]'s key signs for its certificate. Keys appear in no log and no `Debug`.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use k8s_openapi::ByteString;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::{crypto::CryptoProvider, sign::CertifiedKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject as _};

use super::plan::{ROOT_LIFETIME, Validity};

/// Why certificates cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum MaterialError {
    /// The library refuses to generate or to sign.
    #[error("make a certificate")]
    Make(#[from] rcgen::Error),
    /// A stored certificate does not parse.
    #[error("stored root {name} is not a certificate (delete the Secret to have a new root made)")]
    NotACertificate {
        /// The Secret's key without suffix.
        name: String,
    },
    /// A stored certificate has no key, or a key has no certificate.
    #[error("stored root {name} lacks its certificate or its key (delete the Secret to have a new root made)")]
    Incomplete {
        /// The Secret's key without suffix.
        name: String,
    },
    /// A stored key does not parse or belongs to another certificate.
    #[error("the key of stored root {name} does not fit it (delete the Secret to have a new root made)")]
    WrongKey {
        /// The Secret's key without suffix.
        name: String,
    },
    /// rustls refuses a serving certificate of ours.
    #[error("load the serving certificate")]
    Serving(#[from] rustls::Error),
}

/// A self-signed root with its key. Cheap to clone.
#[derive(Clone)]
pub struct Root {
    name: Arc<str>,
    certificate_pem: Arc<str>,
    certificate: CertificateDer<'static>,
    key: Arc<KeyPair>,
    validity: Validity,
}

impl fmt::Debug for Root {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Root")
            .field("name", &self.name)
            .field("validity", &self.validity)
            .finish_non_exhaustive()
    }
}

impl PartialEq for Root {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.certificate == other.certificate
    }
}

impl Root {
    /// Makes a root that is valid from `now` on, in seconds since 1970.
    ///
    /// # Errors: [`MaterialError::Make`].
    pub fn generate(now: u64) -> Result<Self, MaterialError> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let validity = Validity::starting(now, ROOT_LIFETIME);
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(&format!("nebula control plane root {now}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        set_validity(&mut params, validity);
        let certificate = params.self_signed(&key)?;
        Ok(Self {
            name: now.to_string().into(),
            certificate_pem: certificate.pem().into(),
            certificate: certificate.der().clone(),
            key: Arc::new(key),
            validity,
        })
    }

    /// When it is valid.
    pub fn validity(&self) -> Validity {
        self.validity
    }

    /// The certificate, PEM.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Makes a serving certificate with a fresh key for `names`.
    ///
    /// # Errors: [`MaterialError::Make`], [`MaterialError::Serving`].
    pub fn serving(
        &self,
        names: &[String],
        validity: Validity,
        provider: &CryptoProvider,
    ) -> Result<CertifiedKey, MaterialError> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name = common_name("nebula control plane");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params, validity);
        let issuer = Issuer::from_ca_cert_der(&self.certificate, &*self.key)?;
        let certificate = params.signed_by(&key, &issuer)?;
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Ok(CertifiedKey::from_der(vec![certificate.der().clone()], private, provider)?)
    }
}

fn common_name(name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    subject
}

fn set_validity(params: &mut CertificateParams, validity: Validity) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + Duration::from_secs(validity.not_before);
    params.not_after = epoch + Duration::from_secs(validity.not_after);
}

/// The roots as a Secret's data: `<name>.crt` and `<name>.key`, both PEM.
pub fn to_secret(roots: &[Root]) -> BTreeMap<String, ByteString> {
    let mut data = BTreeMap::new();
    for root in roots {
        let key = root.key.serialize_pem();
        data.insert(format!("{}.crt", root.name), ByteString(root.certificate_pem.as_bytes().to_vec()));
        data.insert(format!("{}.key", root.name), ByteString(key.into_bytes()));
    }
    data
}

/// The roots of a Secret's data, oldest first.
///
/// # Errors: the first root that is incomplete or does not parse. None is skipped: to lose one silently would cut off
/// every proxy that trusts only it.
pub fn from_secret(data: &BTreeMap<String, ByteString>) -> Result<Vec<Root>, MaterialError> {
    let name_of = |key: &str| key.rsplit_once('.').map_or(key, |(name, _)| name).to_owned();
    let names: std::collections::BTreeSet<String> = data.keys().map(|key| name_of(key)).collect();
    let mut roots = Vec::new();
    for name in names {
        let part = |suffix: &str| data.get(&format!("{name}.{suffix}")).map(|bytes| bytes.0.as_slice());
        let (Some(certificate), Some(key)) = (part("crt"), part("key")) else {
            return Err(MaterialError::Incomplete { name });
        };
        roots.push(parse(name, certificate, key)?);
    }
    roots.sort_by_key(|root| root.validity);
    Ok(roots)
}

fn parse(name: String, certificate_pem: &[u8], key_pem: &[u8]) -> Result<Root, MaterialError> {
    let not_a_certificate = || MaterialError::NotACertificate { name: name.clone() };
    let wrong_key = || MaterialError::WrongKey { name: name.clone() };
    let text = std::str::from_utf8(certificate_pem).map_err(|_| not_a_certificate())?;
    let certificate = CertificateDer::from_pem_slice(certificate_pem).map_err(|_| not_a_certificate())?;
    let (_, parsed) = x509_parser::parse_x509_certificate(&certificate).map_err(|_| not_a_certificate())?;
    let validity = Validity {
        not_before: parsed.validity().not_before.timestamp().try_into().map_err(|_| not_a_certificate())?,
        not_after: parsed.validity().not_after.timestamp().try_into().map_err(|_| not_a_certificate())?,
    };
    let key_text = std::str::from_utf8(key_pem).map_err(|_| wrong_key())?;
    let key = KeyPair::from_pem(key_text).map_err(|_| wrong_key())?;
    if parsed.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
        return Err(wrong_key());
    }
    Ok(Root {
        certificate_pem: text.into(),
        key: Arc::new(key),
        validity,
        certificate: certificate.into_owned(),
        name: name.into(),
    })
}

/// The certificates of all `roots`, PEM, oldest first: what proxies trust.
pub fn bundle(roots: &[Root]) -> String {
    roots.iter().map(Root::certificate_pem).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    #[test]
    fn roots_survive_the_secret() {
        let roots = vec![Root::generate(NOW).unwrap(), Root::generate(NOW + 86_400).unwrap()];
        let read = from_secret(&to_secret(&roots)).unwrap();
        assert_eq!(read, roots);
        assert_eq!(read[0].validity(), roots[0].validity());
        assert_eq!(bundle(&read).matches("BEGIN CERTIFICATE").count(), 2);
    }

    #[test]
    fn a_secret_that_is_not_ours_is_refused_with_the_next_step() {
        let whole = to_secret(&[Root::generate(NOW).unwrap()]);
        let mut without_key = whole.clone();
        without_key.remove(&format!("{NOW}.key"));
        let mut broken = whole.clone();
        broken.insert(format!("{NOW}.crt"), ByteString(b"nonsense".to_vec()));
        let mut swapped = whole;
        let other = to_secret(&[Root::generate(NOW).unwrap()]);
        swapped.insert(format!("{NOW}.key"), other[&format!("{NOW}.key")].clone());
        for (data, want) in [
            (without_key, "stored root 1800000000 lacks its certificate or its key"),
            (broken, "stored root 1800000000 is not a certificate"),
            (swapped, "the key of stored root 1800000000 does not fit it"),
        ] {
            let error = from_secret(&data).unwrap_err().to_string();
            assert!(error.starts_with(want) && error.contains("delete the Secret"), "{error}");
        }
    }

    #[test]
    fn debug_shows_no_key() {
        let root = Root::generate(NOW).unwrap();
        assert_eq!(format!("{root:?}"), format!("Root {{ name: \"{NOW}\", validity: {:?}, .. }}", root.validity()));
    }
}
