//! All objects, encoded once, and the streams that want them.
//!
//! Invariant: a stream's pending set holds every key of its scope whose present state the proxy may not have. What is sent
//! for a key is its state at that moment, taken for all pending keys under one lock, so that a transaction is consistent.
//! A proxy that holds a newer state of something than this replica keeps it until the replica has caught up.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use control_plane_model::{Delta, GatewayKey, ResourceKey, Revision};
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep_until},
};

use super::{
    ProxyIdentity,
    newer::{Newer, compare},
    references::{Links, References},
    verdicts::{Report, Reports, Verdicts},
};
use crate::{
    BODY_LIMIT, Version,
    resource::{self, Encoded},
};

/// How long a proxy keeps what is newer than what this replica has. A watch that is alive is not that late: what is said to be
/// newer then is not (the cluster was restored from a backup), and the replica's word counts.
const LAG_LIMIT: Duration = Duration::from_mins(1);

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
    refused_connections: AtomicU64,
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
    /// Kinds of object that the proxy understands; `None` where it did not say.
    kinds: Option<BTreeSet<String>>,
    pending: BTreeSet<ResourceKey>,
    /// What the proxy has no kind for, and is not sent.
    unsupported: BTreeSet<ResourceKey>,
    newer: Newer,
    /// A transaction was taken and is not acknowledged yet.
    outstanding: bool,
    wake: Arc<Notify>,
}

/// What a proxy says of itself when it subscribes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Greeting {
    /// Its version, for people.
    pub version: String,
    /// Kinds of object that it understands, as they begin a key's text form; empty: it did not say, and is sent every kind.
    pub kinds: BTreeSet<String>,
    /// The objects that it holds already, by the text form of their keys.
    pub known: HashMap<String, KnownObject>,
}

/// An object as a proxy holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownObject {
    /// Hash of its content.
    pub version: Version,
    /// How new it is.
    pub revision: Revision,
}

/// How much a publication cost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// Objects that are news to a Gateway's proxies, counted for each Gateway.
    pub touched: usize,
    /// Streams with something to send.
    woken: BTreeSet<u64>,
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
            refused_connections: AtomicU64::new(0),
        }))
    }

    /// Takes the changes that brought the configuration to its present state. To be called by one task, in the order of
    /// the changes. The cost grows with the delta, not with what is there.
    ///
    /// An object whose encoded form is above 3 MiB is not sent; it is reported as refused, and the older one stays.
    pub fn publish(&self, delta: &Delta) -> Published {
        self.publish_with(delta, &BTreeMap::new())
    }

    /// As [`Self::publish`]; `revisions` says how new objects are: those of the delta (of unknown revision where it is not
    /// listed) and others that are newer while their content is the same.
    pub fn publish_with(&self, delta: &Delta, revisions: &BTreeMap<ResourceKey, Revision>) -> Published {
        let encode = |resource| {
            let key = control_plane_model::Resource::key(resource);
            let revision = revisions.get(&key).copied().unwrap_or_default();
            (key, Links::of(resource), Encoded { revision, ..resource::encode(resource) })
        };
        let encoded: Vec<_> = delta.upserted.iter().map(encode).collect();
        let changed: BTreeSet<ResourceKey> = encoded.iter().map(|(key, ..)| key.clone()).collect();
        let mut state = self.0.state.lock();
        let mut published = Published::default();
        for key in &delta.removed {
            state.remove(key, &mut published);
        }
        for (key, links, object) in encoded {
            state.upsert(key, links, object, &mut published);
        }
        for (key, revision) in revisions.iter().filter(|(key, _)| !changed.contains(key)) {
            state.revise(key, *revision, &mut published);
        }
        for id in &published.woken {
            if let Some(stream) = state.streams.get(id) {
                stream.wake.notify_one();
            }
        }
        self.0.publish_reports(&state);
        published
    }

    /// Says that what was published is complete: streams are answered from now on.
    pub fn mark_synced(&self) {
        self.0.synced.send_replace(true);
    }

    /// Whether [`Self::mark_synced`] was called.
    pub fn is_synced(&self) -> bool {
        *self.0.synced.borrow()
    }

    /// A stream for the proxy `identity`.
    pub fn subscribe(&self, identity: ProxyIdentity, greeting: Greeting) -> Subscription {
        let phase = Phase::Waiting(greeting);
        Subscription { hub: self.0.clone(), identity, wake: Arc::default(), phase, lag_ends: None }
    }

    /// Connections that were refused because there were too many.
    pub fn refused_connections(&self) -> u64 {
        self.0.refused_connections.load(Ordering::Relaxed)
    }

    pub(super) fn count_refused_connection(&self) {
        self.0.refused_connections.fetch_add(1, Ordering::Relaxed);
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
                up_to_date: stream.pending.is_empty() && !stream.outstanding && stream.newer.is_empty(),
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
    fn remove(&mut self, key: &ResourceKey, published: &mut Published) {
        if self.objects.remove(key).is_some() {
            self.touch_everywhere(key, published);
        }
        self.link(key, Links::default(), published);
        self.verdicts.forget(key);
    }

    fn upsert(&mut self, key: ResourceKey, links: Links, object: Encoded, published: &mut Published) {
        if object.body.len() > BODY_LIMIT {
            let mut gateways = links.gateways;
            gateways.extend(self.references.gateways_of(&key).cloned());
            let error = format!("is too large to be sent: {} bytes, of {BODY_LIMIT} at most", object.body.len());
            self.verdicts.unsendable(key, gateways, error);
            return;
        }
        self.link(&key, links, published);
        match self.objects.get(&key) {
            Some(before) if before.version == object.version => self.revise(&key, object.revision, published),
            _ => {
                self.verdicts.forget(&key);
                self.objects.insert(key.clone(), object);
                self.touch_everywhere(&key, published);
            }
        }
    }

    /// `key` is as new as `revision`, with the content that it has: what a proxy keeps of it may no longer be newer.
    fn revise(&mut self, key: &ResourceKey, revision: Revision, published: &mut Published) {
        let Some(object) = self.objects.get_mut(key) else { return };
        object.revision = revision;
        let streams = self.references.gateways_of(key).filter_map(|gateway| self.by_gateway.get(gateway)).flatten();
        for id in streams {
            if let Some(stream) = self.streams.get_mut(id)
                && stream.newer.is_kept(key)
            {
                stream.pending.insert(key.clone());
                published.woken.insert(*id);
            }
        }
    }

    /// Replaces the links of `owner`. What entered or left a scope is news to its proxies, where it exists.
    fn link(&mut self, owner: &ResourceKey, links: Links, published: &mut Published) {
        for (gateway, key) in self.references.set(owner, links) {
            if self.objects.contains_key(&key) {
                self.touch(&gateway, &key, published);
            }
        }
    }

    fn touch_everywhere(&mut self, key: &ResourceKey, published: &mut Published) {
        let gateways: Vec<GatewayKey> = self.references.gateways_of(key).cloned().collect();
        for gateway in gateways {
            self.touch(&gateway, key, published);
        }
    }

    fn touch(&mut self, gateway: &GatewayKey, key: &ResourceKey, published: &mut Published) {
        published.touched += 1;
        for id in self.by_gateway.get(gateway).into_iter().flatten() {
            if let Some(stream) = self.streams.get_mut(id) {
                stream.pending.insert(key.clone());
                published.woken.insert(*id);
            }
        }
    }

    fn visible(&self, gateway: &GatewayKey, key: &ResourceKey) -> Option<&Encoded> {
        self.objects.get(key).filter(|_| self.references.contains(gateway, key))
    }

    /// Adds a stream. Returns its id and everything in its scope that is of a kind that the proxy knows.
    fn register(&mut self, mut stream: Stream) -> (u64, Vec<(ResourceKey, Encoded)>) {
        let gateway = stream.identity.gateway.clone();
        let scope = self.references.scope(&gateway);
        let mut visible: Vec<_> = scope.filter_map(|key| Some((key.clone(), self.objects.get(key)?.clone()))).collect();
        visible.retain(|(key, _)| {
            let understood = stream.understands(key);
            if !understood {
                stream.unsupported.insert(key.clone());
            }
            understood
        });
        let id = self.next_stream;
        self.next_stream += 1;
        self.by_gateway.entry(gateway).or_default().insert(id);
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

    /// What is pending for a stream, with its present state, less what the proxy has in a newer one.
    fn take(&mut self, id: u64) -> Option<Transaction> {
        let stream = self.streams.get_mut(&id)?;
        if stream.pending.is_empty() {
            return None;
        }
        let pending = std::mem::take(&mut stream.pending);
        let gateway = stream.identity.gateway.clone();
        let present: Vec<_> = pending
            .into_iter()
            .map(|key| {
                let object = self.visible(&gateway, &key).cloned();
                (key, object)
            })
            .collect();
        let stream = self.streams.get_mut(&id)?;
        let mut upserted = Vec::new();
        for (key, object) in present {
            match object {
                Some(_) if !stream.understands(&key) => drop(stream.unsupported.insert(key)),
                Some(object) if stream.newer.keeps(&key, object.revision) => {}
                Some(object) => upserted.push((key, object)),
                None => stream.remove(key),
            }
        }
        let gone = stream.newer.take_gone();
        let removed: Vec<String> =
            gone.into_iter().filter(|key| self.visible(&gateway, key).is_none()).map(|key| key.to_string()).collect();
        if upserted.is_empty() && removed.is_empty() {
            return None;
        }
        self.streams.get_mut(&id)?.outstanding = true;
        Some(Transaction { upserted, removed, synced: false })
    }

    /// Notes what a proxy has in a newer state than this replica. What the replica has caught up with by now is pending.
    fn keep(&mut self, id: u64, newer: Newer) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.pending.extend(newer.kept().cloned());
        stream.newer = newer;
    }

    /// What a proxy has counts as older from now on. Returns how much that is.
    fn stop_keeping(&mut self, id: u64) -> usize {
        let Some(stream) = self.streams.get_mut(&id) else { return 0 };
        let kept = stream.newer.forget();
        let count = kept.len();
        stream.pending.extend(kept);
        count
    }
}

impl Stream {
    fn understands(&self, key: &ResourceKey) -> bool {
        self.kinds.as_ref().is_none_or(|kinds| kinds.contains(key.kind()))
    }

    fn remove(&mut self, key: ResourceKey) {
        if !self.unsupported.remove(&key) {
            self.newer.remove(key);
        }
    }

    /// What the proxy refuses, with what it would refuse if it were sent.
    fn refused(&self, mut refused: BTreeMap<ResourceKey, String>) -> BTreeMap<ResourceKey, String> {
        let unsupported = self.unsupported.iter();
        refused.extend(unsupported.map(|key| {
            let error = format!("unknown kind {:?}: this proxy is older than its control plane", key.kind());
            (key.clone(), error)
        }));
        refused
    }
}

enum Phase {
    Waiting(Greeting),
    Registered(u64),
}

/// One proxy's view of the hub; dropping it ends the stream.
pub struct Subscription {
    hub: Arc<Shared>,
    identity: ProxyIdentity,
    wake: Arc<Notify>,
    phase: Phase,
    /// Until when the proxy keeps what is newer; `None` where there is no such thing.
    lag_ends: Option<Instant>,
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
                Phase::Waiting(greeting) => {
                    // An error means that the sender is gone; it lives in `self.hub`.
                    let _ = self.hub.synced.subscribe().wait_for(|synced| *synced).await;
                    let greeting = std::mem::take(greeting);
                    return self.register(greeting);
                }
                Phase::Registered(id) => {
                    let taken = self.hub.state.lock().take(*id);
                    if let Some(transaction) = taken {
                        return transaction;
                    }
                }
            }
            let Some(lag_ends) = self.lag_ends else {
                self.wake.notified().await;
                continue;
            };
            tokio::select! {
                () = self.wake.notified() => {}
                () = sleep_until(lag_ends) => self.stop_keeping(),
            }
        }
    }

    /// Adds the stream. Returns the first transaction.
    fn register(&mut self, greeting: Greeting) -> Transaction {
        let stream = Stream {
            identity: self.identity.clone(),
            version: greeting.version,
            kinds: Some(greeting.kinds).filter(|kinds| !kinds.is_empty()),
            pending: BTreeSet::new(),
            unsupported: BTreeSet::new(),
            newer: Newer::default(),
            outstanding: true,
            wake: self.wake.clone(),
        };
        let (id, visible) = self.hub.state.lock().register(stream);
        self.phase = Phase::Registered(id);
        // Compared without the lock: what changes meanwhile is pending already.
        let (transaction, newer) = compare(greeting.known, visible);
        if !newer.is_empty() {
            let (gateway, pod) = (&self.identity.gateway, &self.identity.pod);
            tracing::info!(%gateway, %pod, objects = newer.kept().count(), "proxy keeps what is newer than here");
            self.hub.state.lock().keep(id, newer);
            self.lag_ends = Some(Instant::now() + LAG_LIMIT);
        }
        transaction
    }

    fn stop_keeping(&mut self) {
        self.lag_ends = None;
        let Phase::Registered(id) = self.phase else { return };
        let objects = self.hub.state.lock().stop_keeping(id);
        if objects > 0 {
            let (gateway, pod) = (&self.identity.gateway, &self.identity.pod);
            tracing::warn!(%gateway, %pod, objects, "proxy is taken back to what is here, as nothing newer has come");
        }
    }

    /// The proxy has applied the transaction; at present it refuses exactly `refused`.
    pub fn acknowledge(&mut self, mut refused: BTreeMap<ResourceKey, String>) {
        let Phase::Registered(id) = self.phase else { return };
        let mut state = self.hub.state.lock();
        if let Some(stream) = state.streams.get_mut(&id) {
            stream.outstanding = false;
            refused = stream.refused(refused);
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
