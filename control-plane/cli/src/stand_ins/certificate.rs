//! A certificate for a listener whose Secret is elsewhere. It serves nobody.

use rcgen::{CertificateParams, KeyPair};

/// A certificate and its key, PEM; `None` where the system gives no randomness.
pub fn self_signed() -> Option<(String, String)> {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).ok()?;
    let mut params = CertificateParams::new(vec!["stand-in.invalid".to_owned()]).ok()?;
    params.not_after = rcgen::date_time_ymd(9999, 1, 1);
    let certificate = params.self_signed(&key).ok()?;
    Some((certificate.pem(), key.serialize_pem()))
}
