//! The client against a control plane that misbehaves, or is newer.

use bytes::Bytes;
use control_plane_model::*;
use control_plane_wire::{proto, resource};

use crate::{
    harness::{FakePlane, Proxy, eventually},
    objects::*,
};

fn wire(object: &Resource) -> proto::Resource {
    let encoded = resource::encode(object);
    proto::Resource {
        key: object.key().to_string(),
        version: Bytes::copy_from_slice(encoded.version.as_bytes()),
        body: encoded.body,
        revision: 0,
    }
}

fn update(nonce: u64, objects: &[Resource]) -> proto::Update {
    proto::Update { nonce, upserted: objects.iter().map(wire).collect(), synced: true, ..proto::Update::default() }
}

fn refusals(ack: &proto::Ack) -> Vec<(&str, &str)> {
    ack.refused.iter().map(|refusal| (refusal.key.as_str(), refusal.error.as_str())).collect()
}

#[tokio::test]
async fn an_object_of_an_unknown_kind_is_refused_and_the_rest_is_applied() {
    let mut plane = FakePlane::start().await;
    let proxy = Proxy::start(plane.address);
    let (mut stream, hello, known) = plane.accept().await;
    assert_eq!((hello.gateway.as_str(), hello.kinds.len(), known.len()), ("infra/edge", resource::KINDS.len(), 0));

    let mut first = update(1, &edge());
    first.upserted.push(proto::Resource { key: "plugin/shop/jwt".into(), ..proto::Resource::default() });
    stream.send(first).await;
    let ack = stream.ack().await;
    let error = "unknown kind \"plugin\": this proxy is older than its control plane";
    assert_eq!((ack.nonce, refusals(&ack)), (1, vec![("plugin/shop/jwt", error)]));
    assert_eq!(*proxy.sink.held.lock().unwrap(), snapshot(&edge()));

    // It stays refused while it is there, and is forgotten with it.
    stream.send(update(2, &[endpoints("cart", 4)])).await;
    assert_eq!(refusals(&stream.ack().await), [("plugin/shop/jwt", error)]);
    stream.send(proto::Update { nonce: 3, removed: vec!["plugin/shop/jwt".into()], ..proto::Update::default() }).await;
    assert_eq!(refusals(&stream.ack().await), []);
    assert_eq!(proxy.deltas().len(), 2, "the sink never hears of it");
}

#[tokio::test]
async fn a_bad_object_is_refused_alone_and_the_old_one_stays() {
    let mut plane = FakePlane::start().await;
    let proxy = Proxy::start(plane.address);
    let (mut stream, ..) = plane.accept().await;
    stream.send(update(1, &edge())).await;
    assert_eq!(refusals(&stream.ack().await), []);

    let mut second =
        update(2, &[endpoints("cart", 5), route("cart", &["edge"], &["cart"], 2), backend("x", BackendProtocol::H2c)]);
    let body = proto::Route { rules: vec![proto::Rule::default()], ..proto::Route::default() };
    second.upserted[1].body = prost::Message::encode_to_vec(&body).into();
    second.upserted[2].version = Bytes::from_static(b"short");
    second.upserted.push(proto::Resource { key: "route/tcp/shop/x".into(), ..proto::Resource::default() });
    stream.send(second).await;
    assert_eq!(
        refusals(&stream.ack().await),
        [
            ("backend/shop/x/80", "version is not 16 bytes"),
            ("route/http/shop/cart", "rules[0].action: is missing, or not known to this version"),
            ("route/tcp/shop/x", "not a resource key: \"route/tcp/shop/x\""),
        ]
    );
    let mut expected = snapshot(&edge());
    expected.insert(endpoints("cart", 5));
    assert_eq!(*proxy.sink.held.lock().unwrap(), expected);

    // The proxy has the old route still, so a control plane that takes the edit back has nothing to send.
    stream.send(update(3, &[route("cart", &["edge"], &["cart"], 1)])).await;
    assert_eq!(stream.ack().await.refused.len(), 2);
    assert_eq!(proxy.deltas().len(), 2);
}

#[tokio::test]
async fn parts_are_applied_with_the_last_one() {
    let mut plane = FakePlane::start().await;
    let proxy = Proxy::start(plane.address);
    let (mut stream, ..) = plane.accept().await;
    for (index, object) in edge().iter().enumerate() {
        let nonce = index as u64 + 1;
        let more = index + 1 < edge().len();
        stream.send(proto::Update { more, synced: !more, ..update(nonce, std::slice::from_ref(object)) }).await;
    }
    assert_eq!(stream.ack().await.nonce, 5, "the transaction is acknowledged, not its parts");
    assert_eq!(proxy.deltas(), [upsert(edge())]);
}

#[tokio::test]
async fn a_transaction_that_breaks_off_leaves_no_trace() {
    let mut plane = FakePlane::start().await;
    let proxy = Proxy::start(plane.address);
    let (stream, ..) = plane.accept().await;
    stream.send(proto::Update { more: true, synced: false, ..update(1, &edge()[..3]) }).await;
    drop(stream);
    let error = proxy.loses(1).await;
    assert_eq!(error, "the control plane closed the stream before it sent anything");

    let (mut stream, _, known) = plane.accept().await;
    assert!(known.is_empty());
    stream.send(update(1, &edge()[..1])).await;
    stream.ack().await;
    assert_eq!(proxy.deltas(), [upsert(edge()[..1].to_vec())]);
}

#[tokio::test]
async fn a_reconnect_says_which_versions_are_there() {
    let mut plane = FakePlane::start().await;
    let proxy = Proxy::start(plane.address);
    let (mut stream, ..) = plane.accept().await;
    *proxy.sink.refuse.lock().unwrap() = [(route_key("cart"), "no".to_owned())].into();
    stream.send(update(1, &edge())).await;
    assert_eq!(refusals(&stream.ack().await), [("route/http/shop/cart", "no")]);
    drop(stream);

    let (mut stream, _, known) = plane.accept().await;
    let objects = edge();
    let versions =
        objects.iter().map(|object| (object.key().to_string(), resource::encode(object).version.as_bytes().to_vec()));
    assert_eq!(known, versions.collect(), "what was refused as well, so that its removal is told");
    assert_eq!(proxy.losses(), Vec::<String>::new(), "an end after a good stream is no loss");

    stream.updates.send(Err(tonic::Status::unavailable("moving"))).await.unwrap();
    assert_eq!(proxy.loses(1).await, "Unavailable: moving");
    (stream, ..) = plane.accept().await;
    stream
        .send(proto::Update { nonce: 1, removed: vec!["gateway/infra/edge".into()], ..proto::Update::default() })
        .await;
    stream.ack().await;
    drop(stream);
    let (.., known) = plane.accept().await;
    assert_eq!(known.len(), 4, "what is removed is not known");
}

#[tokio::test]
async fn a_reconnect_says_how_new_each_object_is() {
    let mut plane = FakePlane::start().await;
    let proxy = Proxy::start(plane.address);
    let (mut stream, ..) = plane.accept().await;
    let mut first = update(1, &edge());
    // The last one comes from a control plane that says nothing of it.
    for (index, object) in first.upserted.iter_mut().rev().enumerate() {
        object.revision = index as u64;
    }
    stream.send(first).await;
    stream.ack().await;
    drop(stream);
    let (_stream, revisions) = plane.accept_revisions().await;
    let expected =
        edge().iter().rev().enumerate().map(|(index, object)| (object.key().to_string(), index as u64)).collect();
    assert_eq!(revisions, expected);
    drop(proxy);
}

#[tokio::test]
async fn removing_what_the_proxy_does_not_have_does_nothing() {
    let mut plane = FakePlane::start().await;
    let proxy = Proxy::start(plane.address);
    let (mut stream, ..) = plane.accept().await;
    let removed = vec!["route/http/shop/never".into(), "not a key".into()];
    stream.send(proto::Update { nonce: 1, removed, synced: true, ..proto::Update::default() }).await;
    assert_eq!(refusals(&stream.ack().await), []);
    assert_eq!(proxy.deltas(), []);
    eventually("synced all the same", || proxy.sink.synced.load(std::sync::atomic::Ordering::SeqCst) == 1).await;
}

#[tokio::test]
async fn thousands_of_known_objects_come_in_messages_below_the_limit() {
    let mut plane = FakePlane::start().await;
    let proxy = Proxy::start(plane.address);
    let (mut stream, ..) = plane.accept().await;
    let long = "a".repeat(200);
    let objects: Vec<_> = (0..12_000).map(|index| route(&format!("{long}-{index}"), &["edge"], &[], 1)).collect();
    for (nonce, chunk) in objects.chunks(2000).enumerate() {
        stream.send(update(nonce as u64 + 1, chunk)).await;
        stream.ack().await;
    }
    drop(stream);
    // 12,000 keys of 220 bytes are 2.6 MB, which is three messages; the fake's limit is tonic's default of 4 MiB.
    let (.., known) = plane.accept().await;
    assert_eq!(known.len(), objects.len());
    drop(proxy);
}
