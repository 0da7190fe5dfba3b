//! Certificates with their private keys. No reason given here may quote a byte of them.

use bytes::Bytes;
use control_plane_model::{Certificate, CertificateKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::error::{Field as _, InvalidResource, each_of_some, required};
use crate::proto::{self, certificate::PrivateKey};

pub(super) fn to_wire(certificate: &Certificate) -> proto::Certificate {
    let key = Bytes::copy_from_slice(certificate.private_key.secret_der());
    proto::Certificate {
        chain: certificate.chain.iter().map(|der| Bytes::copy_from_slice(der)).collect(),
        private_key: match certificate.private_key {
            PrivateKeyDer::Pkcs8(_) => Some(PrivateKey::Pkcs8(key)),
            PrivateKeyDer::Pkcs1(_) => Some(PrivateKey::Pkcs1(key)),
            PrivateKeyDer::Sec1(_) => Some(PrivateKey::Sec1(key)),
            // The enum is open. A form that comes to be later is refused by the proxy as missing.
            _ => None,
        },
    }
}

pub(super) fn from_wire(key: CertificateKey, wire: proto::Certificate) -> Result<Certificate, InvalidResource> {
    let der = |bytes: Bytes| not_empty(bytes).map(CertificateDer::from);
    let private_key = match required(wire.private_key).field("private_key")? {
        PrivateKey::Pkcs8(bytes) => PrivateKeyDer::Pkcs8(not_empty(bytes).field("pkcs8")?.into()),
        PrivateKey::Pkcs1(bytes) => PrivateKeyDer::Pkcs1(not_empty(bytes).field("pkcs1")?.into()),
        PrivateKey::Sec1(bytes) => PrivateKeyDer::Sec1(not_empty(bytes).field("sec1")?.into()),
    };
    Ok(Certificate { key, chain: each_of_some(wire.chain, "chain", der)?, private_key })
}

fn not_empty(bytes: Bytes) -> Result<Vec<u8>, InvalidResource> {
    if bytes.is_empty() { Err(InvalidResource::new("is empty")) } else { Ok(bytes.into()) }
}
