//! The real client and the real server together.

use std::{collections::BTreeMap, sync::atomic::Ordering, time::Duration};

use control_plane_model::*;
use control_plane_wire::{Connection, Hub};
use tokio::net::{TcpListener, TcpStream};

use crate::{
    harness::{DEADLINE, Plane, Proxy, eventually},
    objects::*,
};

fn hub(objects: Vec<Resource>) -> Hub {
    let hub = Hub::new();
    hub.publish(&upsert(objects));
    hub.mark_synced();
    hub
}

#[tokio::test]
async fn a_proxy_is_given_its_configuration_and_then_each_change() {
    let hub = hub(edge());
    let plane = Plane::start(&hub).await;
    let proxy = Proxy::start(plane.address);
    let mut all = snapshot(&edge());
    proxy.holds(&all).await;
    proxy.synced(1).await;
    assert_eq!(proxy.deltas().len(), 1, "the first state is one delta");

    let change = Delta {
        upserted: vec![endpoints("cart", 5), route("new", &["edge"], &["cart"], 2)],
        removed: vec![route_key("cart")],
    };
    all.apply(&change);
    hub.publish(&change);
    proxy.holds(&all).await;
    assert_eq!(proxy.deltas().len(), 2);
    eventually("acknowledged", || hub.proxies().first().is_some_and(|proxy| proxy.up_to_date)).await;
    proxy.stop().await;
    plane.stop().await;
}

#[tokio::test]
async fn a_hub_that_is_not_synced_keeps_the_proxy_waiting() {
    let hub = Hub::new();
    let plane = Plane::start(&hub).await;
    let proxy = Proxy::start(plane.address);
    eventually("connected", || proxy.sink.connections.lock().unwrap().contains(&Connection::Connected)).await;
    hub.publish(&upsert(edge()));
    assert_eq!((proxy.deltas().len(), proxy.sink.synced.load(Ordering::SeqCst)), (0, 0));
    hub.mark_synced();
    proxy.holds(&snapshot(&edge())).await;
    proxy.synced(1).await;
}

#[tokio::test]
async fn a_gateway_without_configuration_is_synced_at_once() {
    let hub = hub(Vec::new());
    let plane = Plane::start(&hub).await;
    let proxy = Proxy::start(plane.address);
    proxy.synced(1).await;
    assert_eq!(proxy.deltas().len(), 0);
}

#[tokio::test]
async fn a_proxy_that_loses_its_control_plane_keeps_what_it_has_and_is_sent_the_differences_later() {
    let first = hub(edge());
    let plane = Plane::start(&first).await;
    let address = plane.address;
    let proxy = Proxy::start(address);
    proxy.synced(1).await;
    plane.stop().await;
    let error = proxy.loses(3).await;
    assert!(error.starts_with(&format!("connect to http://{address}/")), "{error}");
    assert_eq!(*proxy.sink.held.lock().unwrap(), snapshot(&edge()));

    // Another replica, with a configuration that has moved on.
    let mut objects = edge();
    objects.retain(|object| object.key() != route_key("cart"));
    objects.extend([
        endpoints("cart", 7),
        backend("stock", BackendProtocol::H2c),
        route("stock", &["edge"], &["cart"], 1),
    ]);
    let second = hub(objects.clone());
    let plane = Plane::start_at(&second, address, Duration::from_mins(30)).await;
    proxy.synced(2).await;
    let deltas = proxy.deltas();
    assert_eq!(deltas.len(), 2);
    let keys: Vec<_> = deltas[1].upserted.iter().map(|object| object.key().to_string()).collect();
    assert_eq!(keys, ["endpoints/shop/cart/80", "route/http/shop/stock"]);
    assert_eq!(deltas[1].removed, [route_key("cart")]);

    plane.stop().await;
    let plane = Plane::start_at(&second, address, Duration::from_mins(30)).await;
    proxy.synced(3).await;
    assert_eq!(proxy.deltas().len(), 2, "nothing differs, so nothing is applied");
    proxy.stop().await;
    plane.stop().await;
}

#[tokio::test]
async fn what_a_proxy_refuses_is_reported_until_it_takes_it() {
    let hub = hub(edge());
    let mut reports = hub.reports();
    let plane = Plane::start(&hub).await;
    let proxy = Proxy::start(plane.address);
    proxy.synced(1).await;
    let refuse = |error: &str| BTreeMap::from([(route_key("cart"), error.to_owned())]);

    *proxy.sink.refuse.lock().unwrap() = refuse("no such thing");
    hub.publish(&upsert(vec![route("cart", &["edge"], &["cart"], 2)]));
    let report = reports.next().await;
    assert_eq!((report.gateway, &*report.refused), (gateway_key("edge"), &refuse("no such thing")));
    assert_eq!(hub.proxies()[0].refused, 1);

    // A change of something else leaves it refused.
    hub.publish(&upsert(vec![endpoints("cart", 3)]));
    eventually("applied", || proxy.deltas().len() == 3).await;
    proxy.sink.refuse.lock().unwrap().clear();
    hub.publish(&upsert(vec![route("cart", &["edge"], &["cart"], 3)]));
    assert!(reports.next().await.refused.is_empty());

    // Refused again, then gone.
    *proxy.sink.refuse.lock().unwrap() = refuse("worse");
    hub.publish(&upsert(vec![route("cart", &["edge"], &["cart"], 4)]));
    assert_eq!(*reports.next().await.refused, refuse("worse"));
    hub.publish(&remove(vec![route_key("cart")]));
    assert!(reports.next().await.refused.is_empty());
}

#[tokio::test]
async fn a_refused_object_is_offered_again_with_the_next_change() {
    let hub = hub(edge());
    let mut reports = hub.reports();
    let plane = Plane::start(&hub).await;
    let proxy = Proxy::start(plane.address);
    proxy.synced(1).await;
    // A listener whose port is taken: nothing is wrong with the object.
    let listener = listener("edge", "taken", &[]);
    *proxy.sink.refuse.lock().unwrap() = BTreeMap::from([(listener.key(), "port is taken".to_owned())]);
    hub.publish(&upsert(vec![listener.clone()]));
    assert_eq!(reports.next().await.refused.len(), 1);
    proxy.sink.refuse.lock().unwrap().clear();
    hub.publish(&upsert(vec![endpoints("cart", 3)]));
    assert!(reports.next().await.refused.is_empty());
    assert_eq!(proxy.deltas()[2], upsert(vec![listener, endpoints("cart", 3)]));
    // Taken now, so it is not offered once more.
    hub.publish(&upsert(vec![endpoints("cart", 4)]));
    eventually("applied", || proxy.deltas_count() == 4).await;
    assert_eq!(proxy.deltas()[3], upsert(vec![endpoints("cart", 4)]));
}

#[tokio::test]
async fn a_sink_may_ask_for_what_it_refused_and_its_new_verdict_is_told() {
    let hub = hub(edge());
    let mut reports = hub.reports();
    let plane = Plane::start(&hub).await;
    let proxy = Proxy::start(plane.address);
    proxy.synced(1).await;
    let listener = listener("edge", "taken", &[]);
    *proxy.sink.refuse.lock().unwrap() = BTreeMap::from([(listener.key(), "port is taken".to_owned())]);
    hub.publish(&upsert(vec![listener.clone()]));
    assert_eq!(reports.next().await.refused.len(), 1);
    // Refused once more: nothing new to tell.
    proxy.sink.again.notify_one();
    eventually("offered again", || proxy.deltas_count() == 3).await;
    assert_eq!(hub.proxies()[0].refused, 1);
    proxy.sink.refuse.lock().unwrap().clear();
    proxy.sink.again.notify_one();
    assert!(reports.next().await.refused.is_empty());
    assert_eq!(proxy.deltas()[2..], [upsert(vec![listener.clone()]), upsert(vec![listener])]);
    proxy.synced(2).await;
    assert!(proxy.sink.connections.lock().unwrap().iter().all(|state| *state == Connection::Connected));
}

#[tokio::test]
async fn the_removal_of_a_refused_object_reaches_the_sink() {
    let hub = hub(edge());
    let mut reports = hub.reports();
    let plane = Plane::start(&hub).await;
    let proxy = Proxy::start(plane.address);
    proxy.synced(1).await;
    let listener = listener("edge", "taken", &[]);
    *proxy.sink.refuse.lock().unwrap() = BTreeMap::from([(listener.key(), "port is taken".to_owned())]);
    hub.publish(&upsert(vec![listener.clone()]));
    assert_eq!(reports.next().await.refused.len(), 1);
    hub.publish(&remove(vec![listener.key()]));
    assert!(reports.next().await.refused.is_empty());
    assert_eq!(proxy.deltas()[2], remove(vec![listener.key()]));
}

#[tokio::test]
async fn a_refused_object_is_offered_again_after_a_reconnect() {
    let first = hub(edge());
    let plane = Plane::start(&first).await;
    let address = plane.address;
    let proxy = Proxy::start(address);
    proxy.synced(1).await;
    let changed = route("cart", &["edge"], &["cart"], 2);
    *proxy.sink.refuse.lock().unwrap() = BTreeMap::from([(route_key("cart"), "not now".to_owned())]);
    first.publish(&upsert(vec![changed.clone()]));
    eventually("refused", || proxy.deltas().len() == 2).await;
    plane.stop().await;
    proxy.loses(1).await;

    let plane = Plane::start_at(&first, address, Duration::from_mins(30)).await;
    proxy.synced(2).await;
    assert_eq!(proxy.deltas()[2], upsert(vec![changed]));
    // Taken back: applied once more, as a refusal may have left something behind.
    *proxy.sink.refuse.lock().unwrap() = BTreeMap::new();
    let old = upsert(vec![route("cart", &["edge"], &["cart"], 1)]);
    first.publish(&old);
    eventually("taken back", || first.proxies().iter().all(|proxy| proxy.refused == 0 && proxy.up_to_date)).await;
    assert_eq!(proxy.deltas()[3..], [old]);
    plane.stop().await;
}

#[tokio::test]
async fn a_slow_proxy_is_sent_the_newest_state_alone() {
    let hub = hub(edge());
    let plane = Plane::start(&hub).await;
    let proxy = Proxy::start_with(&format!("http://{}", plane.address), "edge", "edge", None, 1);
    proxy.synced(1).await;
    for created in 2..=500 {
        hub.publish(&upsert(vec![route("cart", &["edge"], &["cart"], created)]));
        tokio::task::yield_now().await;
    }
    proxy.sink.gate.add_permits(100);
    let mut all = snapshot(&edge());
    all.insert(route("cart", &["edge"], &["cart"], 500));
    proxy.holds(&all).await;
    // The first state, what was on its way when the proxy stopped to take more, and the rest in one.
    assert!(proxy.deltas().len() <= 3, "{}", proxy.deltas().len());
}

#[tokio::test]
async fn a_large_state_comes_in_parts_and_is_applied_as_one() {
    let names: Vec<String> = (0..60).map(|index| format!("tls-{index}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut objects = edge();
    objects.push(listener("edge", "https", &names));
    objects.extend(names.iter().map(|name| certificate(name, 150_000)));
    let hub = hub(objects.clone());
    let plane = Plane::start(&hub).await;
    let proxy = Proxy::start(plane.address);
    proxy.holds(&snapshot(&objects)).await;
    assert_eq!(proxy.deltas().len(), 1, "9 MB of objects are one transaction");
}

#[tokio::test]
async fn a_stream_that_is_renewed_loses_nothing_and_asks_for_the_token_again() {
    let hub = hub(edge());
    let plane = Plane::start_at(&hub, "127.0.0.1:0".parse().unwrap(), Duration::from_millis(50)).await;
    let proxy = Proxy::start(plane.address);
    let mut all = snapshot(&edge());
    for created in 2..40 {
        let change = upsert(vec![route("cart", &["edge"], &["cart"], created)]);
        all.apply(&change);
        hub.publish(&change);
        proxy.holds(&all).await;
    }
    eventually("several streams", || plane.tokens.asked.load(Ordering::SeqCst) >= 4).await;
    assert_eq!(proxy.losses(), Vec::<String>::new());
    assert!(proxy.deltas().len() <= 40, "no object was sent twice");
}

#[tokio::test]
async fn a_proxy_that_asks_for_what_is_not_its_own_gets_nothing() {
    let hub = hub(edge());
    let plane = Plane::start(&hub).await;
    let endpoint = format!("http://{}", plane.address);
    let thief = Proxy::start_with(&endpoint, "edge", "inner", None, 1);
    let error = thief.loses(2).await;
    assert_eq!(error, "PermissionDenied: the token belongs to a proxy of gateway infra/inner, not of infra/edge");
    let stranger = Proxy::start_with(&endpoint, "edge", "stranger", None, 1);
    let error = stranger.loses(1).await;
    assert_eq!(error, "Unauthenticated: token refused: not a token of a proxy");
    for proxy in [&thief, &stranger] {
        assert_eq!((proxy.deltas().len(), proxy.sink.synced.load(Ordering::SeqCst)), (0, 0));
        assert!(!proxy.sink.connections.lock().unwrap().contains(&Connection::Connected));
    }
    assert_eq!(hub.proxies(), []);
}

#[tokio::test]
async fn a_token_that_is_replaced_is_read_anew() {
    let hub = hub(edge());
    let plane = Plane::start(&hub).await;
    let proxy = Proxy::start_with(&format!("http://{}", plane.address), "edge", "expired", None, 1);
    proxy.loses(1).await;
    let file = proxy.directory.path().join("token");
    std::fs::write(&file, "").unwrap();
    eventually("the empty file is told apart", || {
        proxy.losses().contains(&format!("{} holds no bearer token", file.display()))
    })
    .await;
    std::fs::remove_file(&file).unwrap();
    eventually("the missing file is told apart", || {
        proxy.losses().contains(&format!("read {}: No such file or directory (os error 2)", file.display()))
    })
    .await;
    std::fs::write(&file, "edge").unwrap();
    proxy.synced(1).await;
}

#[tokio::test]
async fn an_api_server_that_does_not_answer_opens_no_door() {
    let hub = hub(edge());
    let plane = Plane::start(&hub).await;
    plane.tokens.unavailable.store(true, Ordering::SeqCst);
    let proxy = Proxy::start(plane.address);
    let error = proxy.loses(1).await;
    assert_eq!(error, "Unavailable: token cannot be checked: the API server does not answer");
    plane.tokens.unavailable.store(false, Ordering::SeqCst);
    proxy.synced(1).await;
}

#[tokio::test]
async fn plain_http_is_for_loopback_alone() {
    // 192.0.2.0/24 is for documentation (RFC 5737): nothing may be sent there, so the error must come first.
    let proxy = Proxy::start_with("http://192.0.2.1:15010", "edge", "edge", None, 1);
    let error = proxy.loses(1).await;
    assert!(error.ends_with("a control plane that is not on loopback is reached by https alone"), "{error}");
}

#[tokio::test]
async fn a_change_reaches_100_proxies() {
    let hub = hub(edge());
    let plane = Plane::start(&hub).await;
    let proxies: Vec<_> = (0..100).map(|_| Proxy::start(plane.address)).collect();
    for proxy in &proxies {
        proxy.synced(1).await;
    }
    hub.publish(&upsert(vec![endpoints("cart", 9)]));
    for proxy in &proxies {
        eventually("the change has arrived", || proxy.deltas().len() == 2).await;
    }
    eventually("all have said so", || hub.proxies().iter().all(|proxy| proxy.up_to_date)).await;
}

#[tokio::test]
async fn a_changed_route_among_5000_arrives_alone() {
    let names: Vec<String> = (0..5000).map(|index| format!("route-{index}")).collect();
    let mut objects = edge();
    for name in &names {
        objects.extend([backend(name, BackendProtocol::Http1), endpoints(name, 3), route(name, &["edge"], &[name], 0)]);
    }
    let hub = hub(objects);
    let plane = Plane::start(&hub).await;
    let proxy = Proxy::start(plane.address);
    proxy.synced(1).await;
    for created in 1..=10 {
        let changed = route(&names[2500], &["edge"], &[&names[2500]], created);
        hub.publish(&upsert(vec![changed.clone()]));
        let count = usize::try_from(created).unwrap() + 1;
        eventually("the change has arrived", || proxy.deltas_count() == count).await;
        assert_eq!(proxy.deltas().last(), Some(&upsert(vec![changed])));
    }
}

#[tokio::test]
async fn each_side_notices_that_the_other_hangs() {
    let hub = hub(edge());
    let plane = Plane::start(&hub).await;
    // A relay between the two that stops to pass anything on, as a dead node does.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Proxy::start(listener.local_addr().unwrap());
    let (mut client, _) = listener.accept().await.unwrap();
    let mut server = TcpStream::connect(plane.address).await.unwrap();
    tokio::select! {
        ended = tokio::io::copy_bidirectional(&mut client, &mut server) => panic!("{ended:?}"),
        () = eventually("up to date", || hub.proxies().first().is_some_and(|proxy| proxy.up_to_date)) => {}
    }
    assert_eq!((hub.proxies().len(), proxy.losses().len()), (1, 0));
    // 10 s to the probe, 5 s for its answer. The relay's sockets stay open meanwhile.
    assert!(Duration::from_secs(15) < DEADLINE);
    eventually("the server gives it up", || hub.proxies().is_empty()).await;
    proxy.loses(1).await;
    drop((client, server));
}
