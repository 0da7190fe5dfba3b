//! TLS between proxy and control plane.

use std::sync::{Arc, Mutex};

use control_plane_wire::{DiscoveryService, Hub, server};
use kit_process::{drain, tasks::Tasks};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{
    pki_types::PrivateKeyDer,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio::net::TcpListener;

use crate::{
    harness::{Proxy, Tokens},
    objects::*,
};

/// A root with a name, and a certificate for `localhost` that it signed.
fn identity(name: &str) -> (String, CertifiedKey) {
    let root_key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    let root = params.self_signed(&root_key).unwrap();
    let issuer = Issuer::new(params, root_key);
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let private = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    (root.pem(), CertifiedKey::from_der(vec![leaf.der().clone()], private, &provider).unwrap())
}

#[derive(Debug)]
struct Rotating(Mutex<Arc<CertifiedKey>>);

impl ResolvesServerCert for Rotating {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.lock().unwrap().clone())
    }
}

#[tokio::test]
async fn the_ca_is_read_anew_and_nobody_else_is_trusted() {
    let hub = Hub::new();
    hub.publish(&upsert(edge()));
    hub.mark_synced();
    let (old_root, old) = identity("old");
    let (new_root, new) = identity("new");
    let resolver = Arc::new(Rotating(Mutex::new(Arc::new(old))));

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let (trigger, drain) = drain::channel();
    let tasks = Tasks::new(drain.clone());
    let service = DiscoveryService::new(hub.clone(), Tokens::default(), drain.clone());
    let served = resolver.clone();
    tasks.spawn("plane", async move { server::serve(listener, served, service, drain).await.unwrap() });

    let directory = tempfile::tempdir().unwrap();
    let ca = directory.path().join("ca.crt");
    std::fs::write(&ca, &new_root).unwrap();
    let proxy = Proxy::start_with(&endpoint, "edge", "edge", Some(ca.clone()), 1);
    let error = proxy.loses(1).await;
    assert!(error.contains("UnknownIssuer") || error.contains("BadSignature"), "{error}");

    // While roots change both are in the bundle.
    std::fs::write(&ca, format!("{old_root}{new_root}")).unwrap();
    proxy.synced(1).await;
    *resolver.0.lock().unwrap() = Arc::new(new);
    let other = Proxy::start_with(&endpoint, "edge", "edge", Some(ca.clone()), 1);
    other.synced(1).await;

    let elsewhere = endpoint.replace("localhost", "127.0.0.1");
    let misled = Proxy::start_with(&elsewhere, "edge", "edge", Some(ca.clone()), 1);
    let error = misled.loses(1).await;
    assert!(error.contains("not valid for name"), "{error}");

    let blind = Proxy::start_with(&endpoint, "edge", "edge", None, 1);
    assert!(blind.loses(1).await.ends_with("needs a CA file"));
    std::fs::write(&ca, "not PEM").unwrap();
    let blank = Proxy::start_with(&endpoint, "edge", "edge", Some(ca.clone()), 1);
    assert_eq!(blank.loses(1).await, format!("{} holds no certificate in PEM form", ca.display()));
    trigger.start();
}
