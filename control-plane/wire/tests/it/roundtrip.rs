//! The wire form says everything that the model says.

use std::sync::Arc;

use bytes::{BufMut as _, BytesMut};
use control_plane_model::{Resource, ResourceKey};
use control_plane_wire::{proto, resource};
use proptest::prelude::*;
use prost::Message as _;

use crate::{objects, strategies};

proptest! {
    #[test]
    fn every_object_survives_the_wire(object in strategies::resource()) {
        let encoded = resource::encode(&object);
        let key: ResourceKey = object.key().to_string().parse().unwrap();
        prop_assert_eq!(&resource::decode(&key, &encoded.body).unwrap(), &object);
    }

    #[test]
    fn equal_objects_have_equal_versions_and_others_do_not(left in strategies::resource(), right in strategies::resource()) {
        let deep_copy = resource::decode(&left.key(), &resource::encode(&left).body).unwrap();
        prop_assert_eq!(resource::encode(&left), resource::encode(&deep_copy));
        let same_body = resource::encode(&left).body == resource::encode(&right).body;
        prop_assert_eq!(resource::encode(&left).version == resource::encode(&right).version, same_body);
    }

    #[test]
    fn garbage_is_refused_without_a_panic(object in strategies::resource(), cut in any::<prop::sample::Index>(), byte: u8) {
        let body = resource::encode(&object).body;
        if !body.is_empty() {
            let mut broken = body.to_vec();
            broken[cut.index(body.len())] = byte;
            // Either it is refused, or what comes out is valid, and so survives the wire again.
            if let Ok(other) = resource::decode(&object.key(), &broken.into()) {
                prop_assert!(resource::decode(&other.key(), &resource::encode(&other).body).is_ok());
            }
        }
    }

    #[test]
    fn a_field_of_a_newer_version_is_refused(object in strategies::resource()) {
        let mut body = BytesMut::from(&resource::encode(&object).body[..]);
        // Field 1000, varint 1.
        prost::encoding::encode_key(1000, prost::encoding::WireType::Varint, &mut body);
        body.put_u8(1);
        let error = resource::decode(&object.key(), &body.freeze()).unwrap_err();
        prop_assert_eq!(error.to_string(), "holds a field that this version does not know");
    }
}

#[test]
fn a_version_does_not_depend_on_the_replica() {
    // SHA-256 of 0a 0f 0a 0d "10.0.0.1:8080"; a change of the encoding would send every object to every proxy again.
    let encoded = resource::encode(&objects::endpoints("cart", 1));
    assert_eq!(encoded.version.to_string(), "0ab4b077d130d47118858c30967c666d");
}

#[test]
fn a_private_key_is_never_printed() {
    let certificate = objects::certificate("edge-tls", 10);
    let encoded = resource::encode(&certificate);
    let message = proto::Certificate::decode(encoded.body.clone()).unwrap();
    let wire = proto::Resource {
        key: certificate.key().to_string(),
        version: encoded.version.as_bytes().to_vec().into(),
        body: encoded.body.clone(),
        revision: 0,
    };
    let update = proto::Update { upserted: vec![wire], ..proto::Update::default() };
    let transaction = control_plane_wire::server::Transaction {
        upserted: vec![(certificate.key(), encoded.clone())],
        removed: Vec::new(),
        synced: true,
    };
    for text in [
        format!("{certificate:?}"),
        format!("{encoded:?}"),
        format!("{message:?}"),
        format!("{update:?}"),
        format!("{transaction:?}"),
        format!("{:?}", Arc::new(control_plane_model::Delta { upserted: vec![certificate], removed: Vec::new() })),
    ] {
        assert!(text.contains("ertificate") || text.contains("version"), "not the form that was meant: {text}");
        assert!(!text.contains("HUSH") && !text.contains("72, 85, 83, 72"), "{text}");
    }
}

#[test]
fn every_kind_is_listed_among_the_capabilities() {
    for object in objects::edge().iter().chain([&objects::certificate("edge-tls", 1)]) {
        let key = object.key().to_string();
        assert!(resource::KINDS.contains(&key.split('/').next().unwrap()), "{key}");
        // A kind that is added here must be added to KINDS as well.
        match object {
            Resource::Gateway(_)
            | Resource::Certificate(_)
            | Resource::Policy(_)
            | Resource::Listener(_)
            | Resource::Backend(_)
            | Resource::Endpoints(_)
            | Resource::Route(_) => {}
        }
    }
}
