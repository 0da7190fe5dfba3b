//! A Gateway's proxies see what belongs to it and what that uses, and nothing else.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use control_plane_model::*;
use control_plane_wire::{
    Hub, ProxyIdentity, resource,
    server::{Greeting, KnownObject, Subscription, Transaction},
};
use futures::FutureExt as _;
use proptest::prelude::*;

use crate::objects::*;

fn identity(gateway: &str) -> ProxyIdentity {
    ProxyIdentity { gateway: gateway_key(gateway), pod: format!("{gateway}-0") }
}

/// A synced hub with these objects.
fn hub(objects: Vec<Resource>) -> Hub {
    let hub = Hub::new();
    hub.publish(&upsert(objects));
    hub.mark_synced();
    hub
}

/// What a proxy says that it has of these objects.
fn known(objects: &[Resource]) -> HashMap<String, KnownObject> {
    let object = |object: &Resource| {
        let version = resource::encode(object).version;
        (object.key().to_string(), KnownObject { version, revision: Revision::UNKNOWN })
    };
    objects.iter().map(object).collect()
}

/// What a proxy holds that applies every transaction.
struct Mirror {
    subscription: Subscription,
    held: Snapshot,
}

impl Mirror {
    fn new(hub: &Hub, gateway: &str) -> Self {
        let subscription = hub.subscribe(identity(gateway), Greeting::default());
        let mut mirror = Self { subscription, held: Snapshot::default() };
        mirror.follow();
        mirror
    }

    /// Applies the next transaction, where there is one.
    fn follow(&mut self) -> Option<Transaction> {
        let transaction = self.subscription.next().now_or_never()?;
        self.subscription.acknowledge(BTreeMap::new());
        let keys: Vec<_> = transaction.upserted.iter().map(|(key, _)| key.clone()).collect();
        assert!(keys.is_sorted(), "an object comes before one that it may use: {keys:?}");
        for key in &transaction.removed {
            self.held.remove(&key.parse().unwrap());
        }
        for (key, object) in &transaction.upserted {
            self.held.insert(resource::decode(key, &object.body).unwrap());
        }
        Some(transaction)
    }

    fn keys(&self) -> Vec<String> {
        self.held.resources().map(|object| object.key().to_string()).collect()
    }
}

/// The scope by its definition.
fn expected(all: &Snapshot, gateway: &GatewayKey) -> Snapshot {
    let mut scope = Snapshot::default();
    let mut uses = BTreeSet::new();
    for object in all.resources() {
        let own = match &object {
            Resource::Gateway(object) => object.key == *gateway,
            Resource::Listener(object) => object.key.gateway == *gateway,
            Resource::Route(object) => object.attachments.iter().any(|at| at.listener.gateway == *gateway),
            _ => false,
        };
        if !own {
            continue;
        }
        match &object {
            Resource::Listener(listener) => {
                if let ListenerProtocol::Https(tls) = &listener.protocol {
                    uses.extend(tls.certificates.iter().cloned().map(ResourceKey::Certificate));
                }
            }
            Resource::Route(route) => {
                for rule in &route.rules {
                    let RuleAction::Forward(backends) = &rule.action else { continue };
                    for backend in backends {
                        let BackendTarget::Backend(key) = &backend.target else { continue };
                        uses.extend([ResourceKey::Backend(key.clone()), ResourceKey::Endpoints(key.clone())]);
                    }
                }
            }
            _ => {}
        }
        scope.insert(object);
    }
    all.resources().filter(|object| uses.contains(&object.key())).for_each(|object| scope.insert(object));
    scope
}

fn two_gateways() -> Vec<Resource> {
    let mut objects = edge();
    objects.extend([
        listener("edge", "https", &["edge-tls"]),
        certificate("edge-tls", 8),
        certificate("inner-tls", 8),
        certificate("unused-tls", 8),
        gateway("inner", AccessLog::Off),
        listener("inner", "https", &["inner-tls"]),
        backend("stock", BackendProtocol::H2c),
        endpoints("stock", 1),
        backend("unused", BackendProtocol::H2c),
        endpoints("unused", 1),
        route("stock", &["inner"], &["stock", "cart"], 1),
        route("both", &["edge", "inner"], &[], 1),
    ]);
    objects
}

#[test]
fn a_gateway_sees_exactly_what_is_its_own() {
    let hub = hub(two_gateways());
    assert_eq!(
        Mirror::new(&hub, "edge").keys(),
        [
            "gateway/infra/edge",
            "certificate/shop/edge-tls",
            "listener/infra/edge/http",
            "listener/infra/edge/https",
            "backend/shop/cart/80",
            "endpoints/shop/cart/80",
            "route/http/shop/both",
            "route/http/shop/cart",
        ]
    );
    let inner = Mirror::new(&hub, "inner");
    assert_eq!(inner.held, expected(&snapshot(&two_gateways()), &gateway_key("inner")));
    assert!(inner.keys().contains(&"certificate/shop/inner-tls".to_owned()));
    assert_eq!(Mirror::new(&hub, "nobody").keys(), Vec::<String>::new());
}

#[test]
fn what_leaves_the_scope_is_removed_though_it_exists() {
    let hub = hub(two_gateways());
    let mut edge = Mirror::new(&hub, "edge");
    hub.publish(&upsert(vec![listener("edge", "https", &["other-tls"])]));
    let transaction = edge.follow().unwrap();
    assert_eq!(transaction.removed, ["certificate/shop/edge-tls"]);
    hub.publish(&upsert(vec![route("cart", &["inner"], &["cart"], 1)]));
    let transaction = edge.follow().unwrap();
    assert_eq!(
        transaction.removed,
        ["backend/shop/cart/80", "endpoints/shop/cart/80", "route/http/shop/cart"],
        "the route went to another gateway"
    );
    assert_eq!(transaction.upserted, []);
}

#[test]
fn what_enters_the_scope_is_sent_though_it_did_not_change() {
    let hub = hub(two_gateways());
    let mut edge = Mirror::new(&hub, "edge");
    hub.publish(&upsert(vec![route("both", &["edge", "inner"], &["stock"], 1)]));
    let keys: Vec<_> = edge.follow().unwrap().upserted.into_iter().map(|(key, _)| key.to_string()).collect();
    assert_eq!(keys, ["backend/shop/stock/80", "endpoints/shop/stock/80", "route/http/shop/both"]);
}

#[test]
fn a_change_out_of_scope_wakes_nobody() {
    let hub = hub(two_gateways());
    let mut edge = Mirror::new(&hub, "edge");
    hub.publish(&upsert(vec![
        endpoints("unused", 3),
        certificate("inner-tls", 9),
        gateway("inner", AccessLog::Json),
        route("stock", &["inner"], &["stock"], 2),
    ]));
    assert_eq!(edge.follow(), None);
}

#[test]
fn an_object_that_is_published_as_it_was_is_not_sent() {
    let hub = hub(two_gateways());
    let mut edge = Mirror::new(&hub, "edge");
    hub.publish(&upsert(two_gateways()));
    assert_eq!(edge.follow(), None);
}

#[test]
fn changes_that_nobody_took_yet_become_one() {
    let hub = hub(edge());
    let mut proxy = Mirror::new(&hub, "edge");
    for created in 2..=100 {
        hub.publish(&upsert(vec![
            route("cart", &["edge"], &["cart"], created),
            route("short", &["edge"], &[], created),
        ]));
    }
    hub.publish(&remove(vec![route_key("short")]));
    let transaction = proxy.follow().unwrap();
    assert_eq!((transaction.upserted.len(), transaction.removed.len()), (1, 1));
    let Some(route) = proxy.held.routes.values().next() else { panic!("no route") };
    assert_eq!(route.created, 100);
    assert_eq!(proxy.follow(), None);
}

#[test]
fn a_proxy_that_comes_back_is_sent_the_differences_alone() {
    let hub = hub(edge());
    let next = |known| {
        let greeting = Greeting { known, ..Greeting::default() };
        hub.subscribe(identity("edge"), greeting).next().now_or_never().unwrap()
    };

    let nothing = next(known(&edge()));
    assert_eq!((nothing.upserted.len(), nothing.removed.len(), nothing.synced), (0, 0, true));

    let mut old = edge();
    old.retain(|object| object.key() != route_key("cart"));
    old.extend([endpoints("cart", 9), route("gone", &["edge"], &[], 1), backend("unused", BackendProtocol::Http1)]);
    let mut stale = known(&old);
    let version = resource::encode(&old[0]).version;
    let newer = KnownObject { version, revision: Revision::UNKNOWN };
    stale.insert("policy/shop/of-a-newer-version".into(), newer);
    let transaction = next(stale);
    let keys: Vec<_> = transaction.upserted.iter().map(|(key, _)| key.to_string()).collect();
    assert_eq!(keys, ["endpoints/shop/cart/80", "route/http/shop/cart"]);
    assert_eq!(
        transaction.removed,
        ["backend/shop/unused/80", "policy/shop/of-a-newer-version", "route/http/shop/gone"]
    );
}

#[test]
fn nothing_is_answered_before_the_hub_is_synced() {
    let hub = Hub::new();
    let mut subscription = hub.subscribe(identity("edge"), Greeting::default());
    hub.publish(&upsert(edge()));
    assert_eq!(subscription.next().now_or_never(), None);
    assert!(!hub.is_synced());
    hub.mark_synced();
    assert_eq!(subscription.next().now_or_never().unwrap().upserted.len(), edge().len());
}

#[test]
fn a_stream_that_ended_costs_nothing() {
    let hub = hub(edge());
    let proxy = Mirror::new(&hub, "edge");
    assert_eq!(hub.proxies().len(), 1);
    drop(proxy);
    assert_eq!(hub.proxies(), []);
}

#[test]
fn a_proxy_is_up_to_date_once_it_has_acknowledged_everything() {
    let hub = hub(edge());
    let mut proxy = Mirror::new(&hub, "edge");
    assert!(hub.proxies()[0].up_to_date);
    hub.publish(&upsert(vec![endpoints("cart", 3)]));
    assert!(!hub.proxies()[0].up_to_date, "there is a change");
    let taken = proxy.subscription.next().now_or_never();
    assert!(taken.is_some() && !hub.proxies()[0].up_to_date, "it is not acknowledged");
    proxy.subscription.acknowledge(BTreeMap::new());
    assert!(hub.proxies()[0].up_to_date);
}

#[test]
fn an_object_that_is_too_large_is_reported_and_the_older_one_stays() {
    let hub = hub(vec![listener("edge", "https", &["edge-tls"]), certificate("edge-tls", 8)]);
    let mut reports = hub.reports();
    let mut proxy = Mirror::new(&hub, "edge");
    hub.publish(&upsert(vec![certificate("edge-tls", 4 << 20)]));
    assert_eq!(proxy.follow(), None);
    let report = reports.next().now_or_never().unwrap();
    assert_eq!(report.gateway, gateway_key("edge"));
    let error = &report.refused[&ResourceKey::Certificate(certificate_key("edge-tls"))];
    assert!(error.starts_with("is too large to be sent"), "{error}");
    hub.publish(&upsert(vec![certificate("edge-tls", 9)]));
    assert!(reports.next().now_or_never().unwrap().refused.is_empty());
    assert!(proxy.follow().is_some());
}

#[tokio::test(start_paused = true)]
async fn what_a_proxy_refused_is_forgotten_a_minute_after_it_went() {
    let hub = hub(edge());
    let mut reports = hub.reports();
    let mut proxy = Mirror::new(&hub, "edge");
    proxy.subscription.acknowledge(BTreeMap::from([(route_key("cart"), "no".to_owned())]));
    assert_eq!(reports.next().await.refused.len(), 1);
    // The reader waits already when the proxy goes. Time is paused and moves on while everybody waits.
    let start = tokio::time::Instant::now();
    let (report, ()) = tokio::join!(reports.next(), async move {
        tokio::task::yield_now().await;
        drop(proxy);
    });
    assert!(report.refused.is_empty());
    assert_eq!(start.elapsed().as_secs(), 60);
}

#[test]
fn a_changed_route_among_5000_costs_one_object() {
    let names: Vec<String> = (0..5000).map(|index| format!("route-{index}")).collect();
    let mut objects = edge();
    for name in &names {
        objects.extend([backend(name, BackendProtocol::Http1), endpoints(name, 3), route(name, &["edge"], &[name], 0)]);
    }
    let hub = hub(objects);
    let mut proxy = Mirror::new(&hub, "edge");
    let published = hub.publish(&upsert(vec![route(&names[2500], &["edge"], &[&names[2500]], 1)]));
    assert_eq!(published.touched, 1);
    let transaction = proxy.follow().unwrap();
    assert_eq!((transaction.upserted.len(), transaction.removed.len()), (1, 0));

    // Another backend: the route, and a backend and its endpoints that come and go.
    let published = hub.publish(&upsert(vec![route(&names[2500], &["edge"], &["cart"], 2)]));
    assert_eq!(published.touched, 3);
}

/// A hub that has `objects`, all of this revision.
fn hub_at(revision: u64, objects: Vec<Resource>) -> Hub {
    let hub = Hub::new();
    publish_at(&hub, revision, objects);
    hub.mark_synced();
    hub
}

fn publish_at(hub: &Hub, revision: u64, objects: Vec<Resource>) {
    let revisions = objects.iter().map(|object| (object.key(), Revision(revision))).collect();
    hub.publish_with(&upsert(objects), &revisions);
}

/// A proxy of `edge` that comes from another replica with these objects, all of this revision.
fn coming_with(hub: &Hub, revision: u64, objects: &[Resource]) -> Mirror {
    let mut known = known(objects);
    for object in known.values_mut() {
        object.revision = Revision(revision);
    }
    let greeting = Greeting { known, ..Greeting::default() };
    let subscription = hub.subscribe(identity("edge"), greeting);
    let mut mirror = Mirror { subscription, held: Snapshot::default() };
    mirror.held.apply(&upsert(objects.to_vec()));
    mirror.follow().unwrap();
    mirror
}

/// `edge` after an edit: the route uses another backend.
fn edited() -> Vec<Resource> {
    let mut objects = edge();
    objects.retain(|object| !object.key().to_string().contains("/cart"));
    objects.extend([
        backend("basket", BackendProtocol::Http1),
        endpoints("basket", 1),
        route("cart", &["edge"], &["basket"], 1),
    ]);
    objects
}

#[tokio::test]
async fn a_replica_that_lags_behind_takes_nothing_newer_away() {
    let hub = hub_at(7, edge());
    let mut proxy = coming_with(&hub, 8, &edited());
    let held: Vec<String> = proxy.keys();
    assert_eq!(proxy.held.routes, snapshot(&edited()).routes);
    assert!(held.contains(&"backend/shop/basket/80".to_owned()), "what the newer route uses stays: {held:?}");
    assert!(!hub.proxies()[0].up_to_date);

    // The replica catches up.
    publish_at(&hub, 8, edited());
    hub.publish(&remove(vec![ResourceKey::Backend(backend_key("cart")), ResourceKey::Endpoints(backend_key("cart"))]));
    while proxy.follow().is_some() {}
    assert_eq!(proxy.held, snapshot(&edited()));
    assert!(hub.proxies()[0].up_to_date);
}

#[tokio::test]
async fn an_equal_or_unknown_revision_is_replaced() {
    for (held, offered) in [(7, 7), (0, 7), (7, 0), (6, 7)] {
        let proxy = coming_with(&hub_at(offered, edge()), held, &edited());
        assert_eq!(proxy.held, snapshot(&edge()), "{held} {offered}");
    }
}

#[tokio::test]
async fn a_replica_catches_up_also_where_the_newer_content_depends_on_something_else() {
    let hub = hub_at(7, edge());
    let mut proxy = coming_with(&hub, 8, &edited());
    // The edit changed nothing here: another object makes the route what it is.
    let revisions = edge().iter().map(|object| (object.key(), Revision(8))).collect();
    hub.publish_with(&Delta::default(), &revisions);
    while proxy.follow().is_some() {}
    assert_eq!(proxy.held, snapshot(&edge()));
}

#[tokio::test(start_paused = true)]
async fn a_proxy_keeps_what_is_newer_for_a_minute_at_most() {
    let hub = hub_at(7, edge());
    let mut proxy = coming_with(&hub, 8, &edited());
    let start = tokio::time::Instant::now();
    let transaction = proxy.subscription.next().await;
    assert_eq!(start.elapsed().as_secs(), 60);
    assert!(transaction.upserted.iter().any(|(key, _)| *key == route_key("cart")));
    assert_eq!(transaction.removed, ["backend/shop/basket/80", "endpoints/shop/basket/80"]);
}

#[tokio::test]
async fn a_kind_that_the_proxy_did_not_announce_is_not_sent_and_counts_as_refused() {
    let hub = hub(edge());
    let kinds = ["gateway", "listener", "backend", "route"].map(str::to_owned).into();
    let subscription = hub.subscribe(identity("edge"), Greeting { kinds, ..Greeting::default() });
    let mut proxy = Mirror { subscription, held: Snapshot::default() };
    proxy.follow();
    assert!(proxy.held.endpoints.is_empty() && proxy.held.routes.len() == 1);
    let report = hub.reports().next().await;
    let error = "unknown kind \"endpoints\": this proxy is older than its control plane";
    assert_eq!(report.refused.get(&ResourceKey::Endpoints(backend_key("cart"))).map(String::as_str), Some(error));

    hub.publish(&upsert(vec![endpoints("cart", 5)]));
    assert_eq!(proxy.follow(), None, "nor later");
    hub.publish(&remove(vec![ResourceKey::Endpoints(backend_key("cart"))]));
    assert_eq!(proxy.follow(), None);
}

#[derive(Clone, Debug)]
enum Step {
    Publish(Delta),
    Follow(usize),
    Reconnect(usize),
}

const GATEWAYS: [&str; 2] = ["edge", "inner"];
const NAMES: [&str; 3] = ["a", "b", "c"];

fn some_object() -> impl Strategy<Value = Resource> {
    let names = || prop::sample::subsequence(&NAMES[..], 0..=3);
    let name = || prop::sample::select(&NAMES[..]);
    let gateways = || prop::sample::subsequence(&GATEWAYS[..], 0..=2);
    let one_gateway = || prop::sample::select(&GATEWAYS[..]);
    prop_oneof![
        1 => (one_gateway(), any::<bool>())
            .prop_map(|(name, on)| gateway(name, if on { AccessLog::Json } else { AccessLog::Off })),
        1 => (one_gateway(), name(), names()).prop_map(|(gateway, name, tls)| listener(gateway, name, &tls)),
        1 => (name(), 1..3_usize).prop_map(|(name, size)| certificate(name, size)),
        1 => (name(), any::<bool>())
            .prop_map(|(name, h2c)| backend(name, if h2c { BackendProtocol::H2c } else { BackendProtocol::Http1 })),
        1 => (name(), 0..3_u8).prop_map(|(name, count)| endpoints(name, count)),
        4 => (name(), gateways(), names(), 0..3_i64)
            .prop_map(|(name, gateways, backends, created)| route(name, &gateways, &backends, created)),
    ]
}

fn some_delta() -> impl Strategy<Value = Delta> {
    (prop::collection::vec(some_object(), 0..4), prop::collection::vec(some_object(), 0..3)).prop_map(|(new, gone)| {
        let mut keys = BTreeSet::new();
        let upserted: Vec<_> = new.into_iter().filter(|object| keys.insert(object.key())).collect();
        let removed = gone.iter().map(Resource::key).filter(|key| keys.insert(key.clone())).collect();
        Delta { upserted, removed }
    })
}

fn some_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => some_delta().prop_map(Step::Publish),
        2 => (0..2_usize).prop_map(Step::Follow),
        1 => (0..2_usize).prop_map(Step::Reconnect),
    ]
}

proptest! {
    #[test]
    fn after_any_history_each_proxy_holds_its_scope(steps in prop::collection::vec(some_step(), 1..40)) {
        let hub = hub(Vec::new());
        let mut all = Snapshot::default();
        let mut mirrors: Vec<_> = GATEWAYS.iter().map(|name| Mirror::new(&hub, name)).collect();
        for step in steps {
            match step {
                Step::Publish(delta) => {
                    all.apply(&delta);
                    hub.publish(&delta);
                }
                Step::Follow(index) => drop(mirrors[index].follow()),
                Step::Reconnect(index) => {
                    let held: Vec<_> = mirrors[index].held.resources().collect();
                    let greeting = Greeting { known: known(&held), ..Greeting::default() };
                    mirrors[index].subscription = hub.subscribe(identity(GATEWAYS[index]), greeting);
                    prop_assert!(mirrors[index].follow().is_some());
                    prop_assert_eq!(&mirrors[index].held, &expected(&all, &gateway_key(GATEWAYS[index])));
                }
            }
        }
        for (mirror, name) in mirrors.iter_mut().zip(GATEWAYS) {
            mirror.follow();
            prop_assert_eq!(&mirror.held, &expected(&all, &gateway_key(name)));
            prop_assert_eq!(mirror.follow(), None);
        }
    }
}
