//! The certificate authority and its Secret.

use std::{
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use control_plane::ca::{
    Authority, Held,
    plan::{ACTIVATION, CLOCK_SKEW},
};
use kit_process::clock::{Clock as _, ManualClock};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, crypto::aws_lc_rs,
    time_provider::TimeProvider,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _};
use serde_json::json;

use crate::fake::Fake;

const SECRET: &str = "/api/v1/namespaces/nebula-system/secrets/nebula-ca";
const DAY: Duration = Duration::from_hours(24);

fn clock() -> ManualClock {
    ManualClock::new(UNIX_EPOCH + Duration::from_hours(500_000))
}

fn authority(fake: &Fake, clock: &ManualClock) -> Authority {
    let names = vec!["nebula-control-plane.nebula-system.svc".to_owned()];
    let provider = Arc::new(aws_lc_rs::default_provider());
    Authority::new(fake.client.clone(), "nebula-system", names, provider, Arc::new(clock.clone()))
}

fn certificates(authority: &Authority) -> usize {
    authority.bundle().borrow().matches("BEGIN CERTIFICATE").count()
}

#[derive(Debug)]
struct At(ManualClock);

impl TimeProvider for At {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.0.unix_seconds())))
    }
}

/// Whether a proxy that trusts the bundle's certificate at `index` alone takes what is served now.
fn is_served_under(authority: &Authority, index: usize, clock: &ManualClock) -> bool {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let bundle = authority.bundle().borrow().clone();
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(bundle.as_bytes()).map(Result::unwrap).collect();
    let mut roots = RootCertStore::empty();
    roots.add(certificates[index].clone()).unwrap();
    let client = ClientConfig::builder_with_details(provider.clone(), Arc::new(At(clock.clone())))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(authority.resolver());
    let name = ServerName::try_from("nebula-control-plane.nebula-system.svc").unwrap();
    let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
    let mut server = ServerConnection::new(Arc::new(server)).unwrap();
    while client.is_handshaking() {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).unwrap();
        server.read_tls(&mut wire.as_slice()).unwrap();
        server.process_new_packets().unwrap();
        let mut wire = Vec::new();
        server.write_tls(&mut wire).unwrap();
        client.read_tls(&mut wire.as_slice()).unwrap();
        if client.process_new_packets().is_err() {
            return false;
        }
    }
    true
}

#[tokio::test]
async fn a_second_root_signs_once_every_proxy_has_had_a_day_to_trust_it() {
    let (fake, clock) = (Fake::start(), clock());
    let authority = authority(&fake, &clock);
    let mut held = Held::default();
    authority.refresh(&mut held).await.unwrap();
    assert!(is_served_under(&authority, 0, &clock));
    clock.advance(DAY * 250);
    authority.refresh(&mut held).await.unwrap();
    let signs_after = ACTIVATION.saturating_sub(CLOCK_SKEW);
    clock.advance(signs_after.saturating_sub(Duration::from_secs(1)));
    authority.refresh(&mut held).await.unwrap();
    assert!(is_served_under(&authority, 0, &clock) && !is_served_under(&authority, 1, &clock));
    clock.advance(Duration::from_secs(1));
    authority.refresh(&mut held).await.unwrap();
    assert!(is_served_under(&authority, 1, &clock) && !is_served_under(&authority, 0, &clock));
    assert_eq!(certificates(&authority), 2);
}

#[tokio::test]
async fn of_two_replicas_that_make_the_first_root_at_once_both_use_the_same() {
    let (fake, clock) = (Fake::start(), clock());
    let (one, two) = (authority(&fake, &clock), authority(&fake, &clock));
    let (mut held_one, mut held_two) = (Held::default(), Held::default());
    let (first, second) = tokio::join!(one.refresh(&mut held_one), two.refresh(&mut held_two));
    first.unwrap();
    second.unwrap();
    assert_eq!(fake.count("POST", 201), 1);
    assert_eq!(*one.bundle().borrow(), *two.bundle().borrow());
    assert_eq!(certificates(&one), 1);
}

#[tokio::test]
async fn a_root_that_another_replica_adds_meanwhile_is_not_written_over() {
    let (fake, clock) = (Fake::start(), clock());
    let (one, two) = (authority(&fake, &clock), authority(&fake, &clock));
    let (mut held_one, mut held_two) = (Held::default(), Held::default());
    one.refresh(&mut held_one).await.unwrap();
    two.refresh(&mut held_two).await.unwrap();
    clock.advance(DAY * 250);
    let (first, second) = tokio::join!(one.refresh(&mut held_one), two.refresh(&mut held_two));
    first.unwrap();
    second.unwrap();
    assert_eq!(fake.count("PUT", 200), 1);
    assert_eq!(*one.bundle().borrow(), *two.bundle().borrow());
    assert_eq!(certificates(&one), 2);
}

#[tokio::test]
async fn the_serving_certificate_is_renewed_at_half_of_its_life() {
    let (fake, clock) = (Fake::start(), clock());
    let authority = authority(&fake, &clock);
    let mut held = Held::default();
    authority.refresh(&mut held).await.unwrap();
    let first = held.leaf_validity().unwrap();
    clock.advance(DAY * 2);
    authority.refresh(&mut held).await.unwrap();
    assert_eq!(held.leaf_validity().unwrap(), first);
    clock.advance(DAY * 2);
    authority.refresh(&mut held).await.unwrap();
    assert!(held.leaf_validity().unwrap().not_after > first.not_after);
}

#[tokio::test]
async fn a_secret_that_vanished_is_made_again_of_the_same_roots() {
    let (fake, clock) = (Fake::start(), clock());
    let authority = authority(&fake, &clock);
    let mut held = Held::default();
    authority.refresh(&mut held).await.unwrap();
    let before = authority.bundle().borrow().clone();
    fake.remove(SECRET);
    authority.refresh(&mut held).await.unwrap();
    assert!(fake.get(SECRET).is_some());
    assert_eq!(*authority.bundle().borrow(), before);
}

#[tokio::test]
async fn a_secret_of_something_else_is_left_alone_and_named() {
    let (fake, clock) = (Fake::start(), clock());
    fake.put(SECRET, json!({"metadata": {"name": "nebula-ca"}, "data": {"password": "c2VjcmV0"}}));
    let error = authority(&fake, &clock).refresh(&mut Held::default()).await.unwrap_err();
    let text = kit_process::error::chain(&error);
    assert!(text.contains("nebula-system/nebula-ca") && text.contains("delete the Secret"), "{text}");
    assert_eq!(fake.get(SECRET).unwrap()["data"], json!({"password": "c2VjcmV0"}));
}

#[tokio::test]
async fn without_an_api_server_the_certificate_in_use_stays() {
    let (fake, clock) = (Fake::start(), clock());
    let authority = authority(&fake, &clock);
    let mut held = Held::default();
    authority.refresh(&mut held).await.unwrap();
    fake.break_down(true);
    assert!(authority.refresh(&mut held).await.is_err());
    assert!(held.leaf_validity().is_some());
    assert_eq!(certificates(&authority), 1);
}
