//! Which endpoint gets a request.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use bytes::Bytes;
use control_plane_model::{BackendOptions, BackendProtocol, Balance, HashKey};
use http::{HeaderName, HeaderValue};

use crate::harness::{Proxy, backend, collect, one_backend, request, saying};

async fn three_endpoints(balance: Balance) -> Proxy {
    let addresses = [saying("a").await, saying("b").await, saying("c").await];
    let proxy = Proxy::start(one_backend(&addresses)).await;
    proxy.protect("one", BackendOptions { balance, ..BackendOptions::default() }).await;
    proxy
}

/// Changes the endpoints alone.
async fn move_to(proxy: &Proxy, addresses: &[SocketAddr]) {
    let [_, endpoints] = backend("one", BackendProtocol::Http1, addresses);
    assert_eq!(proxy.upsert([endpoints]).await, []);
}

async fn ask(proxy: &Proxy, field: Option<(&'static str, String)>) -> Bytes {
    let mut asked = request("/");
    if let Some((name, value)) = field {
        asked.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_str(&value).unwrap());
    }
    collect(proxy.client().await.send_request(asked).await.unwrap()).await.into_body()
}

#[tokio::test]
async fn each_in_turn_gets_exactly_its_share_on_one_worker() {
    let proxy = three_endpoints(Balance::RoundRobin).await;
    let mut client = proxy.client().await;
    let mut counts: BTreeMap<Bytes, u32> = BTreeMap::new();
    for _ in 0..30 {
        client.ready().await.unwrap();
        *counts.entry(collect(client.send_request(request("/")).await.unwrap()).await.into_body()).or_default() += 1;
    }
    assert_eq!(counts.into_values().collect::<Vec<_>>(), [10, 10, 10]);
}

#[tokio::test]
async fn the_same_key_goes_to_the_same_endpoint_and_keys_to_all() {
    for balance in [Balance::RingHash, Balance::Maglev] {
        let proxy = three_endpoints(balance(HashKey::Header(HeaderName::from_static("x-user")))).await;
        let mut reached = BTreeSet::new();
        for user in 0..20 {
            let field = Some(("x-user", format!("user-{user}")));
            let first = ask(&proxy, field.clone()).await;
            for _ in 0..3 {
                assert_eq!(ask(&proxy, field.clone()).await, first);
            }
            reached.insert(first);
        }
        assert_eq!(reached.len(), 3);
    }
}

#[tokio::test]
async fn a_cookie_is_found_among_others_and_a_request_without_it_goes_anywhere() {
    let proxy = three_endpoints(Balance::Maglev(HashKey::Cookie("session".into()))).await;
    let first = ask(&proxy, Some(("cookie", "session=abc".to_owned()))).await;
    for cookies in ["other=1; session=abc", "xsession=zzz; session=abc; session=def", "session=abc;other=2"] {
        assert_eq!(ask(&proxy, Some(("cookie", cookies.to_owned()))).await, first, "{cookies}");
    }
    let mut reached = BTreeSet::new();
    for _ in 0..60 {
        reached.insert(ask(&proxy, None).await);
    }
    assert_eq!(reached.len(), 3);
}

#[tokio::test]
async fn an_address_keeps_its_endpoint_while_others_come_and_go() {
    let addresses = [saying("a").await, saying("b").await, saying("c").await];
    let proxy = Proxy::start(one_backend(&addresses)).await;
    let balance = Balance::RingHash(HashKey::Address);
    proxy.protect("one", BackendOptions { balance, ..BackendOptions::default() }).await;
    let mine = ask(&proxy, None).await;
    let kept = match &mine[..] {
        b"a" => 0,
        b"b" => 1,
        _ => 2,
    };
    let mut sorted = vec![addresses[kept], addresses[(kept + 1) % 3]];
    sorted.sort();
    move_to(&proxy, &sorted).await;
    for _ in 0..5 {
        assert_eq!(ask(&proxy, None).await, mine);
    }
    let others: Vec<_> = addresses.iter().copied().filter(|address| *address != addresses[kept]).collect();
    move_to(&proxy, &others).await;
    assert_ne!(ask(&proxy, None).await, mine);
}
