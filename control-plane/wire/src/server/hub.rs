//! All objects, encoded once, and the streams that want them.
//!
//! Invariant: a stream's pending set holds every key of its scope whose present state the proxy may not have. What is sent
//! for a key is its state at that moment, taken for all pending keys under one lock, so that a transaction is consistent.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    sync::Arc,
};

use control_plane_model::{Delta, GatewayKey, ResourceKey};
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use super::{
    ProxyIdentity,
    references::{Links, References},
    verdicts::{Report, Reports, Verdicts},
};
use crate::{
    BODY_LIMIT, Version,
    resource::{self, Encoded},
};

/// The configuration of all Gateways, and the streams of their proxies. Clones share it.
#[derive(Clone)]
pub struct Hub(Arc<Shared>);

impl fmt::Debug for Hub {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

pub(super) struct Shared {
    state: Mutex<State>,
    synced: watch::Sender<bool>,
    reports: watch::Sender<u64>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Hub").field("synced", &*self.synced.borrow()).finish_non_exhaustive()
    }
}

#[derive(Default)]
struct State {
    objects: HashMap<ResourceKey, Encoded>,
    references: References,
    streams: HashMap<u64, Stream>,
    by_gateway: HashMap<GatewayKey, BTreeSet<u64>>,
    next_stream: u64,
    verdicts: Verdicts,
}

struct Stream {
    identity: ProxyIdentity,
    version: String,
    pending: BTreeSet<ResourceKey>,
    /// A transaction was taken and is not acknowledged yet.
    outstanding: bool,
    wake: Arc<Notify>,
}

/// One connected proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyState {
    /// Who it is.
    pub identity: ProxyIdentity,
    /// Its own version.
    pub version: String,
    /// Whether it has acknowledged everything that there is for it.
    pub up_to_date: bool,
    /// How many objects it refuses.
    pub refused: usize,
}

/// What a proxy is to change, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// New and changed objects; none comes before one that it uses.
    pub upserted: Vec<(ResourceKey, Encoded)>,
    /// Keys of objects that left the scope. The proxy may not have them.
    pub removed: Vec<String>,
    /// The first of a subscription: with it the proxy has everything.
    pub synced: bool,
}

impl Default for Hub {
    fn default() -> Self {
        Self::new()
    }
}

impl Hub {
    /// An empty hub, not synced.
    pub fn new() -> Self {
        Self(Arc::new(Shared {
            state: Mutex::default(),
            synced: watch::Sender::new(false),
            reports: watch::Sender::new(0),
        }))
    }

    /// Takes the changes that brought the configuration to its present state. To be called by one task, in the order of
    /// the changes. The cost grows with the delta, not with what is there.
    ///
    /// An object whose encoded form is above 3 MiB is not sent; it is reported as refused, and the older one stays.
    pub fn publish(&self, delta: &Delta) {
        let encoded: Vec<_> = delta
            .upserted
            .iter()
            .map(|resource| (resource.key(), Links::of(resource), resource::encode(resource)))
            .collect();
        let mut state = self.0.state.lock();
        let mut woken = BTreeSet::new();
        for key in &delta.removed {
            state.remove(key, &mut woken);
        }
        for (key, links, object) in encoded {
            state.upsert(key, links, object, &mut woken);
        }
        for id in woken {
            if let Some(stream) = state.streams.get(&id) {
                stream.wake.notify_one();
            }
        }
        self.0.publish_reports(&state);
    }

    /// Says that what was published is complete: streams are answered from now on.
    pub fn mark_synced(&self) {
        self.0.synced.send_replace(true);
    }

    /// Whether [`Self::mark_synced`] was called.
    pub fn is_synced(&self) -> bool {
        *self.0.synced.borrow()
    }

    /// A stream for the proxy `identity` (version `version`, for people), which holds the objects in `known` already.
    pub fn subscribe(&self, identity: ProxyIdentity, version: String, known: HashMap<String, Version>) -> Subscription {
        let phase = Phase::Waiting { version, known };
        Subscription { hub: self.0.clone(), identity, wake: Arc::default(), phase }
    }

    /// What proxies refuse, as it changes. Every reader gets every Gateway's report.
    pub fn reports(&self) -> Reports {
        Reports::new(self.0.clone(), self.0.reports.subscribe())
    }

    /// The proxies that are connected and were answered, sorted.
    pub fn proxies(&self) -> Vec<ProxyState> {
        let state = self.0.state.lock();
        let mut proxies: Vec<_> = state
            .streams
            .values()
            .map(|stream| ProxyState {
                identity: stream.identity.clone(),
                version: stream.version.clone(),
                up_to_date: stream.pending.is_empty() && !stream.outstanding,
                refused: state.verdicts.refused_by(&stream.identity),
            })
            .collect();
        drop(state);
        proxies.sort_by(|left, right| left.identity.cmp(&right.identity));
        proxies
    }
}

impl Shared {
    pub(super) fn report_after(&self, seen: u64) -> Option<(u64, Report)> {
        self.state.lock().verdicts.report_after(seen)
    }

    pub(super) fn expire_verdicts(&self, now: Instant) -> Option<Instant> {
        let mut state = self.state.lock();
        let next = state.verdicts.expire(now);
        self.publish_reports(&state);
        next
    }

    fn publish_reports(&self, state: &State) {
        let revision = state.verdicts.revision();
        self.reports.send_if_modified(|current| std::mem::replace(current, revision) != revision);
    }
}

impl State {
    fn remove(&mut self, key: &ResourceKey, woken: &mut BTreeSet<u64>) {
        if self.objects.remove(key).is_some() {
            self.touch_everywhere(key, woken);
        }
        self.link(key, Links::default(), woken);
        self.verdicts.forget(key);
    }

    fn upsert(&mut self, key: ResourceKey, links: Links, object: Encoded, woken: &mut BTreeSet<u64>) {
        if object.body.len() > BODY_LIMIT {
            let mut gateways = links.gateways;
            gateways.extend(self.references.gateways_of(&key).cloned());
            let error = format!("is too large to be sent: {} bytes, of {BODY_LIMIT} at most", object.body.len());
            self.verdicts.unsendable(key, gateways, error);
            return;
        }
        self.link(&key, links, woken);
        if self.objects.get(&key).is_none_or(|before| before.version != object.version) {
            self.verdicts.forget(&key);
            self.objects.insert(key.clone(), object);
            self.touch_everywhere(&key, woken);
        }
    }

    /// Replaces the links of `owner`. What entered or left a scope is news to its proxies, where it exists.
    fn link(&mut self, owner: &ResourceKey, links: Links, woken: &mut BTreeSet<u64>) {
        for (gateway, key) in self.references.set(owner, links) {
            if self.objects.contains_key(&key) {
                self.touch(&gateway, &key, woken);
            }
        }
    }

    fn touch_everywhere(&mut self, key: &ResourceKey, woken: &mut BTreeSet<u64>) {
        let gateways: Vec<GatewayKey> = self.references.gateways_of(key).cloned().collect();
        for gateway in gateways {
            self.touch(&gateway, key, woken);
        }
    }

    fn touch(&mut self, gateway: &GatewayKey, key: &ResourceKey, woken: &mut BTreeSet<u64>) {
        for id in self.by_gateway.get(gateway).into_iter().flatten() {
            if let Some(stream) = self.streams.get_mut(id) {
                stream.pending.insert(key.clone());
                woken.insert(*id);
            }
        }
    }

    fn visible(&self, gateway: &GatewayKey, key: &ResourceKey) -> Option<&Encoded> {
        self.objects.get(key).filter(|_| self.references.contains(gateway, key))
    }

    /// Adds a stream. Returns its id and everything in its scope.
    fn register(&mut self, stream: Stream) -> (u64, Vec<(ResourceKey, Encoded)>) {
        let gateway = &stream.identity.gateway;
        let scope = self.references.scope(gateway);
        let visible = scope.filter_map(|key| Some((key.clone(), self.objects.get(key)?.clone()))).collect();
        let id = self.next_stream;
        self.next_stream += 1;
        self.by_gateway.entry(gateway.clone()).or_default().insert(id);
        self.streams.insert(id, stream);
        (id, visible)
    }

    fn unregister(&mut self, id: u64) {
        let Some(stream) = self.streams.remove(&id) else { return };
        let gateway = &stream.identity.gateway;
        if let Some(streams) = self.by_gateway.get_mut(gateway) {
            streams.remove(&id);
            if streams.is_empty() {
                self.by_gateway.remove(gateway);
            }
        }
        self.verdicts.disconnect(&stream.identity, id, Instant::now());
    }

    /// What is pending for a stream, with its present state.
    fn take(&mut self, id: u64) -> Option<Transaction> {
        let stream = self.streams.get_mut(&id)?;
        if stream.pending.is_empty() {
            return None;
        }
        let pending = std::mem::take(&mut stream.pending);
        stream.outstanding = true;
        let gateway = stream.identity.gateway.clone();
        let mut transaction = Transaction { upserted: Vec::new(), removed: Vec::new(), synced: false };
        for key in pending {
            match self.visible(&gateway, &key).cloned() {
                Some(object) => transaction.upserted.push((key, object)),
                None => transaction.removed.push(key.to_string()),
            }
        }
        Some(transaction)
    }
}

/// What brings a proxy that holds `known` to `visible`.
fn difference(mut known: HashMap<String, Version>, visible: Vec<(ResourceKey, Encoded)>) -> Transaction {
    let mut upserted = visible;
    upserted.retain(|(key, object)| known.remove(&key.to_string()) != Some(object.version));
    let mut removed: Vec<String> = known.into_keys().collect();
    removed.sort_unstable();
    Transaction { upserted, removed, synced: true }
}

enum Phase {
    Waiting { version: String, known: HashMap<String, Version> },
    Registered(u64),
}

/// One proxy's view of the hub; dropping it ends the stream.
pub struct Subscription {
    hub: Arc<Shared>,
    identity: ProxyIdentity,
    wake: Arc<Notify>,
    phase: Phase,
}

impl fmt::Debug for Subscription {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Subscription").field("identity", &self.identity).finish_non_exhaustive()
    }
}

impl Subscription {
    /// The next transaction. The first comes once the hub is synced and may be empty; then whenever something in scope
    /// has changed, each with the newest state of everything that did. Cancel-safe.
    pub async fn next(&mut self) -> Transaction {
        loop {
            match &mut self.phase {
                Phase::Waiting { version, known } => {
                    // An error means that the sender is gone; it lives in `self.hub`.
                    let _ = self.hub.synced.subscribe().wait_for(|synced| *synced).await;
                    let stream = Stream {
                        identity: self.identity.clone(),
                        version: std::mem::take(version),
                        pending: BTreeSet::new(),
                        outstanding: true,
                        wake: self.wake.clone(),
                    };
                    let known = std::mem::take(known);
                    let (id, visible) = self.hub.state.lock().register(stream);
                    self.phase = Phase::Registered(id);
                    // Compared without the lock: what changes meanwhile is pending already.
                    return difference(known, visible);
                }
                Phase::Registered(id) => {
                    let taken = self.hub.state.lock().take(*id);
                    if let Some(transaction) = taken {
                        return transaction;
                    }
                }
            }
            self.wake.notified().await;
        }
    }

    /// The proxy has applied the transaction; at present it refuses exactly `refused`.
    pub fn acknowledge(&mut self, refused: BTreeMap<ResourceKey, String>) {
        let Phase::Registered(id) = self.phase else { return };
        let mut state = self.hub.state.lock();
        if let Some(stream) = state.streams.get_mut(&id) {
            stream.outstanding = false;
        }
        state.verdicts.acknowledge(&self.identity, id, refused);
        self.hub.publish_reports(&state);
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Phase::Registered(id) = self.phase {
            let mut state = self.hub.state.lock();
            state.unregister(id);
            // Also where no report changed: readers look when the verdicts of those that are gone expire.
            self.hub.reports.send_replace(state.verdicts.revision());
        }
    }
}
