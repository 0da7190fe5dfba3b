//! The server against proxies that misbehave.

use std::time::Duration;

use control_plane_model::Resource;
use control_plane_wire::{
    Hub, MESSAGE_LIMIT,
    proto::{self, proxy_message::Message},
};
use prost::Message as _;
use tokio::{io::AsyncReadExt as _, net::TcpStream};
use tonic::Code;

use crate::{
    harness::{FakeProxy, Plane, Proxy, eventually, hello},
    objects::*,
};

fn hub(objects: Vec<Resource>) -> Hub {
    let hub = Hub::new();
    hub.publish(&upsert(objects));
    hub.mark_synced();
    hub
}

fn known(last: bool) -> Message {
    Message::Known(proto::Known { resources: Vec::new(), last })
}

#[tokio::test]
async fn a_call_without_a_good_token_is_refused_before_anything_is_read() {
    let hub = hub(edge());
    let plane = Plane::start(&hub).await;
    for authorization in [None, Some("edge"), Some("Basic edge"), Some("Bearer "), Some("Bearer edge2")] {
        let refused = FakeProxy::open(plane.address, authorization, Vec::new()).await.err().unwrap();
        assert_eq!(refused.code(), Code::Unauthenticated, "{authorization:?}");
    }
}

#[tokio::test]
async fn a_greeting_in_the_wrong_order_is_refused() {
    let hub = hub(edge());
    let plane = Plane::start(&hub).await;
    let ack = || Message::Ack(proto::Ack::default());
    for first in [vec![known(true)], vec![ack()], vec![hello("edge"), hello("edge")], vec![hello("edge"), ack()]] {
        let refused = FakeProxy::open(plane.address, Some("Bearer edge"), first).await.err().unwrap();
        assert_eq!(refused.code(), Code::InvalidArgument);
    }
}

#[tokio::test]
async fn a_greeting_that_takes_too_much_memory_is_refused() {
    let hub = hub(edge());
    let plane = Plane::start(&hub).await;
    let part = |resources| Message::Known(proto::Known { resources, last: false });
    let object = |key: String| proto::KnownResource { key, ..proto::KnownResource::default() };

    let first = vec![hello("edge"), part(vec![object("k".repeat(1025))])];
    let refused = FakeProxy::open(plane.address, Some("Bearer edge"), first).await.err().unwrap();
    assert_eq!(refused.code(), Code::InvalidArgument);

    // 70 messages of a MiB; the same keys again and again count as others do.
    let keys: Vec<_> = (0..1000).map(|index| object(format!("{index:01000}"))).collect();
    let first = std::iter::once(hello("edge")).chain((0..70).map(|_| part(keys.clone()))).collect();
    let refused = FakeProxy::open(plane.address, Some("Bearer edge"), first).await.err().unwrap();
    assert_eq!(refused.code(), Code::ResourceExhausted);
}

#[tokio::test]
async fn a_report_stays_small_whatever_a_proxy_says() {
    let hub = hub(edge());
    let plane = Plane::start(&hub).await;
    let mut reports = hub.reports();
    let mut proxy = FakeProxy::greet(plane.address).await;
    proxy.updates.message().await.unwrap().unwrap();
    let refusal = |index: u32| {
        let key = format!("route/http/shop/r{index}");
        proto::Refusal { key, error: "é".repeat(500) }
    };
    let refused = (0..3000).map(refusal).collect();
    let ack = Some(Message::Ack(proto::Ack { nonce: 1, refused }));
    proxy.messages.send(proto::ProxyMessage { message: ack }).await.unwrap();
    let report = reports.next().await;
    assert_eq!(report.refused.len(), 2000);
    assert!(report.refused.values().all(|error| error.chars().count() == 300));
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed_and_counted_until_one_ends() {
    let hub = hub(edge());
    let plane = Plane::start_with(&hub, |service| service.with_connection_limit(1)).await;
    let first = FakeProxy::greet(plane.address).await;
    assert_eq!(hub.refused_connections(), 0);
    let mut beyond = TcpStream::connect(plane.address).await.unwrap();
    assert_eq!(beyond.read(&mut [0]).await.unwrap(), 0, "closed");
    assert_eq!(hub.refused_connections(), 1);
    drop(first);
    let proxy = Proxy::start(plane.address);
    proxy.synced(1).await;
}

#[tokio::test]
async fn another_gateways_name_is_refused_with_its_own_token() {
    let hub = hub(edge());
    let plane = Plane::start(&hub).await;
    for gateway in ["inner", "", "edge/../edge"] {
        let first = vec![hello(gateway), known(true)];
        let refused = FakeProxy::open(plane.address, Some("Bearer edge"), first).await.err().unwrap();
        assert_eq!(refused.code(), Code::PermissionDenied, "{gateway}");
    }
}

#[tokio::test]
async fn after_the_greeting_only_the_awaited_ack_is_taken() {
    let hub = hub(edge());
    let plane = Plane::start(&hub).await;
    for wrong in [Message::Ack(proto::Ack { nonce: 7, refused: Vec::new() }), hello("edge"), known(true)] {
        let mut proxy = FakeProxy::greet(plane.address).await;
        assert_eq!(proxy.updates.message().await.unwrap().unwrap().nonce, 1);
        proxy.messages.send(proto::ProxyMessage { message: Some(wrong) }).await.unwrap();
        assert_eq!(proxy.updates.message().await.unwrap_err().code(), Code::InvalidArgument);
    }
    eventually("the streams are gone", || hub.proxies().is_empty()).await;
}

#[tokio::test]
async fn the_next_transaction_waits_for_the_ack() {
    let hub = hub(edge());
    let plane = Plane::start(&hub).await;
    let mut proxy = FakeProxy::greet(plane.address).await;
    assert_eq!(proxy.updates.message().await.unwrap().unwrap().nonce, 1);
    for count in 3..100 {
        hub.publish(&upsert(vec![endpoints("cart", count)]));
    }
    proxy.acknowledge(1).await;
    let update = proxy.updates.message().await.unwrap().unwrap();
    assert_eq!((update.nonce, update.upserted.len()), (2, 1));
    let endpoints = proto::Endpoints::decode(update.upserted[0].body.clone()).unwrap();
    assert_eq!(endpoints.endpoints.len(), 99, "97 changes are one");
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_never_acknowledges_is_disconnected() {
    let hub = hub(edge());
    let plane = Plane::start(&hub).await;
    let mut proxy = FakeProxy::greet(plane.address).await;
    proxy.updates.message().await.unwrap().unwrap();
    // Time is paused and moves on while everybody waits.
    let error = proxy.updates.message().await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn every_message_is_below_the_limit() {
    let names: Vec<String> = (0..40).map(|index| format!("tls-{index}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut objects = vec![listener("edge", "https", &names), certificate("tls-0", (3 << 20) - 100)];
    objects.extend(names[1..].iter().map(|name| certificate(name, 300_000)));
    let hub = hub(objects.clone());
    let plane = Plane::start(&hub).await;
    let mut proxy = FakeProxy::greet(plane.address).await;
    let (mut received, mut parts, mut keys) = (0, 0, Vec::new());
    loop {
        // tonic's own limit for a client that sets none is the same 4 MiB.
        let update = proxy.updates.message().await.unwrap().unwrap();
        assert!(update.encoded_len() < MESSAGE_LIMIT);
        parts += 1;
        assert_eq!(update.nonce, parts);
        received += update.upserted.len();
        keys.extend(update.upserted.iter().map(|object| object.key.split('/').next().unwrap().to_owned()));
        if !update.more {
            assert!(update.synced);
            break;
        }
        assert!(!update.synced);
    }
    assert_eq!(received, objects.len());
    assert!(parts > 10);
    assert_eq!(keys.last().unwrap(), "listener", "the listener comes after its certificates");
    proxy.acknowledge(parts).await;
    eventually("acknowledged", || hub.proxies()[0].up_to_date).await;
}

#[tokio::test]
async fn two_proxies_of_one_gateway_share_the_report() {
    let hub = hub(edge());
    let plane = Plane::start(&hub).await;
    let mut reports = hub.reports();
    let mut one = FakeProxy::greet(plane.address).await;
    one.updates.message().await.unwrap().unwrap();
    let refusal = |key: &str| proto::Refusal { key: key.into(), error: "no".into() };
    // A kind that this control plane does not know is left out of the report.
    let refused = vec![refusal("route/http/shop/cart"), refusal("policy/shop/jwt")];
    let ack = Some(Message::Ack(proto::Ack { nonce: 1, refused }));
    one.messages.send(proto::ProxyMessage { message: ack }).await.unwrap();
    let report = reports.next().await;
    assert_eq!(report.refused.keys().cloned().collect::<Vec<_>>(), [route_key("cart")]);

    // The proxy goes: what it said last stands, and a reader that comes later is told so too.
    drop(one);
    eventually("gone", || hub.proxies().is_empty()).await;
    let late = hub.reports().next().await;
    assert_eq!(late, report);

    // The route is edited while no proxy is there: the verdict was about another route.
    hub.publish(&upsert(vec![route("cart", &["edge"], &["cart"], 2)]));
    assert!(reports.next().await.refused.is_empty());
}

#[tokio::test]
async fn a_drain_ends_the_streams_in_good_order() {
    let hub = hub(edge());
    let plane = Plane::start(&hub).await;
    let mut proxy = FakeProxy::greet(plane.address).await;
    proxy.updates.message().await.unwrap().unwrap();
    let stopped = tokio::time::timeout(Duration::from_secs(4), plane.stop());
    let (stopped, end) = tokio::join!(stopped, proxy.updates.message());
    assert!(end.unwrap().is_none(), "status OK");
    assert!(stopped.is_ok(), "it does not wait for the limit");
}
