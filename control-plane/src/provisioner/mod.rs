//! Runs the proxies of each Gateway: a Deployment, a Service and a ServiceAccount, and the trust bundle in its namespace.
//!
//! The leader alone applies, by server-side apply, so that fields which others own (an autoscaler's replicas, a cloud's
//! annotations) stay theirs. Every object has its Gateway as owner, so the cluster removes it with the Gateway; what a
//! Gateway that lives on no longer wants (it went to another class) is deleted here, but for the bundle, which is public.
//! Invariants: nothing is applied or deleted before every watch has been read, as before that a Gateway may seem unwanted.
//! What is not the Gateway's own is neither changed nor deleted, and what another control plane made is left to that one.

mod cluster;
pub mod names;
mod objects;
mod observe;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
    time::Duration,
};

use control_plane_model::GatewayKey;
use control_plane_translate::{Change, Deployment as Wish, DeploymentSpec};
use futures::{StreamExt as _, stream};
use kit_process::drain::Drain;
use kube::Client;
use serde::Serialize;
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use cluster::{Cluster, ProvisionError};
pub use objects::ProxyDefaults;
pub use observe::Observed;

use crate::{events::Events, lease::Leadership, metrics::Metrics, watch::Input};

/// What the translator wants to run; `None` until every watch has been read.
pub type Wishes = Option<Arc<BTreeMap<GatewayKey, Wish>>>;

/// Gateways that are worked on at the same time.
const CONCURRENCY: usize = 4;
/// How soon what failed is tried again; twice as long after each further failure, up to [`LONGEST_RETRY`].
const RETRY: Duration = Duration::from_secs(2);
const LONGEST_RETRY: Duration = Duration::from_mins(1);
/// How often everything is applied again, against changes by hand that no watch tells.
const RESYNC: Duration = Duration::from_mins(10);

/// What the provisioner follows.
pub struct Orders {
    /// What is to run.
    pub wishes: watch::Receiver<Wishes>,
    /// What proxies are to trust, PEM; nothing is made while it is empty.
    pub bundle: watch::Receiver<Arc<str>>,
    /// Whether to work at all.
    pub leadership: Leadership,
}

/// Where the provisioner says what came of it.
pub struct Outlets {
    /// For the users of a Gateway.
    pub events: Events,
    /// For the operators of the control plane.
    pub metrics: Metrics,
    /// For the Gateway's status.
    pub changes: mpsc::Sender<Input>,
}

/// Brings the cluster to what the translator wants.
pub struct Provisioner {
    cluster: Cluster,
    defaults: ProxyDefaults,
    orders: Orders,
    observed: Arc<Observed>,
    outlets: Outlets,
    /// How the last attempts went, by Gateway and, for trust bundles, by namespace.
    attempts: HashMap<String, Attempt>,
    next_resync: Instant,
}

/// What is remembered of the last attempts for one Gateway or bundle.
#[derive(Debug, Default)]
struct Attempt {
    /// Hash of what was applied last, unless it has to be applied again.
    applied: Option<u64>,
    failure: Option<Failure>,
}

#[derive(Debug)]
struct Failure {
    /// Hash of what was to be applied.
    hash: u64,
    text: String,
    /// How many times in a row.
    times: u32,
    retry_at: Instant,
}

impl Attempt {
    fn is_due(&self, hash: u64, now: Instant) -> bool {
        self.applied != Some(hash)
            && self.failure.as_ref().is_none_or(|failure| failure.hash != hash || failure.retry_at <= now)
    }

    /// Notes a failure. Tells whether its text is a new one.
    fn failed(&mut self, hash: u64, text: String) -> bool {
        let last = self.failure.take();
        let times = last.as_ref().map_or(0, |failure| failure.times);
        let new = last.is_none_or(|failure| failure.text != text);
        let wait = RETRY.saturating_mul(1 << times.min(5)).min(LONGEST_RETRY);
        self.applied = None;
        self.failure = Some(Failure { hash, text, times: times.saturating_add(1), retry_at: Instant::now() + wait });
        new
    }
}

impl Provisioner {
    /// Follows `orders`, by what is `observed` to run.
    pub fn new(
        client: Client,
        defaults: ProxyDefaults,
        orders: Orders,
        observed: Arc<Observed>,
        outlets: Outlets,
    ) -> Self {
        let cluster = Cluster::new(client, defaults.controller.clone());
        let (attempts, next_resync) = (HashMap::new(), Instant::now() + RESYNC);
        Self { cluster, defaults, orders, observed, outlets, attempts, next_resync }
    }

    /// Works until the drain. What runs keeps running.
    pub async fn run(mut self, drain: Drain) {
        loop {
            let next = self.next_retry().map_or(self.next_resync, |retry| retry.min(self.next_resync));
            let changed = async {
                tokio::select! {
                    changed = self.orders.wishes.changed() => changed.is_ok(),
                    changed = self.orders.bundle.changed() => changed.is_ok(),
                    changed = self.orders.leadership.changed() => changed.is_ok(),
                    () = self.observed.lost() => true,
                }
            };
            tokio::select! {
                alive = changed => if !alive { return },
                () = tokio::time::sleep_until(next) => {}
                () = drain.signaled() => return,
            }
            if !*self.orders.leadership.borrow_and_update() {
                // Another replica works on; what this one knows of its own attempts is worth nothing later.
                self.attempts.clear();
                continue;
            }
            if self.next_resync <= Instant::now() {
                self.attempts.values_mut().for_each(|attempt| attempt.applied = None);
                self.next_resync = Instant::now() + RESYNC;
            }
            let mut leadership = self.orders.leadership.clone();
            tokio::select! {
                () = self.pass() => {}
                // The loop hears of it too, and forgets. An error means that the process is ending.
                _ = leadership.wait_for(|leads| !leads) => {}
                () = drain.signaled() => return,
            }
        }
    }

    fn next_retry(&self) -> Option<Instant> {
        let failures = self.attempts.values().filter_map(|attempt| attempt.failure.as_ref());
        failures.map(|failure| failure.retry_at).min()
    }

    /// Applies and deletes whatever differs.
    async fn pass(&mut self) {
        let bundle = self.orders.bundle.borrow_and_update().clone();
        let wishes = self.orders.wishes.borrow_and_update().clone();
        let Some(wishes) = wishes.filter(|_| !bundle.is_empty()) else { return };
        for gateway in self.observed.take_lost() {
            self.attempts.remove(&gateway.to_string());
        }
        let running: BTreeSet<GatewayKey> = self.observed.gateways().into_iter().collect();
        let trusting = trusting(&wishes, &running);
        let unwanted: Vec<&GatewayKey> = running.iter().filter(|gateway| !wishes.contains_key(gateway)).collect();
        self.forget_others(&wishes, &trusting, &unwanted).await;
        self.trust(&bundle, trusting).await;
        self.apply_gateways(&wishes).await;
        self.remove(unwanted).await;
    }

    /// Drops what is remembered of everything that this pass does not work on: a failure that nobody tries to mend would be
    /// due for ever.
    async fn forget_others(
        &mut self,
        wishes: &BTreeMap<GatewayKey, Wish>,
        trusting: &Trusting<'_>,
        unwanted: &[&GatewayKey],
    ) {
        let is_wanted = |gateway: &GatewayKey| matches!(wishes.get(gateway), Some(Wish::Wanted(_)));
        let wanted = wishes.keys().filter(|gateway| is_wanted(gateway));
        let gateways = wanted.chain(unwanted.iter().copied()).map(ToString::to_string);
        let keys: HashSet<String> = gateways.chain(trusting.keys().map(|namespace| bundle_key(namespace))).collect();
        self.attempts.retain(|key, _| keys.contains(key));
        let changes = self.observed.forget_failures(is_wanted);
        self.send(changes).await;
    }

    /// Puts the bundle into each namespace that is to have it.
    async fn trust(&mut self, bundle: &str, trusting: Trusting<'_>) {
        for (namespace, gateways) in trusting {
            let wanted = objects::trust_bundle(namespace, bundle, &gateways, &self.defaults);
            let key = bundle_key(namespace);
            let hash = hash(&wanted);
            if self.attempt(&key).is_due(hash, Instant::now()) {
                let outcome = self.cluster.apply_bundle(namespace, &wanted).await;
                self.note(&key, hash, outcome);
            }
        }
    }

    async fn apply_gateways(&mut self, wishes: &BTreeMap<GatewayKey, Wish>) {
        let now = Instant::now();
        let mut due = Vec::new();
        for wish in wishes.values() {
            let Wish::Wanted(spec) = wish else { continue };
            let objects = objects::objects(spec, &self.defaults);
            let hash = hash(&(&objects.service_account, &objects.deployment, &objects.service));
            if self.attempt(&spec.gateway.to_string()).is_due(hash, now) {
                due.push((spec.clone(), hash, objects));
            }
        }
        let cluster = &self.cluster;
        let applied = stream::iter(due).map(|(spec, hash, objects)| async move {
            let outcome = cluster.apply_all(&spec, &objects).await;
            (spec, hash, outcome)
        });
        let outcomes: Vec<_> = applied.buffer_unordered(CONCURRENCY).collect().await;
        for (spec, hash, outcome) in outcomes {
            self.tell(&spec, hash, outcome).await;
        }
    }

    /// Says on the Gateway what came of an attempt.
    async fn tell(&mut self, spec: &DeploymentSpec, hash: u64, outcome: Result<(), ProvisionError>) {
        let failure = outcome.as_ref().err().map(ToString::to_string);
        let new = self.note(&spec.gateway.to_string(), hash, outcome);
        if let Some(why) = failure.as_ref().filter(|_| new) {
            self.outlets.events.provisioning_failed(&spec.gateway, &spec.uid, why);
        }
        if let Some(change) = self.observed.attempted(&spec.gateway, failure) {
            self.send(vec![change]).await;
        }
    }

    async fn send(&self, changes: Vec<Change>) {
        if !changes.is_empty() {
            let input = Input::Changes { changes, synced: None, received: Instant::now() };
            // An error means that the controller has ended, because the process is ending.
            let _ = self.outlets.changes.send(input).await;
        }
    }

    /// Deletes what was made for Gateways that want nothing now.
    async fn remove(&mut self, unwanted: Vec<&GatewayKey>) {
        for gateway in unwanted {
            let key = gateway.to_string();
            if !self.attempt(&key).is_due(REMOVED, Instant::now()) {
                continue;
            }
            let outcome = self.cluster.remove(gateway).await;
            let removed = outcome.is_ok();
            self.note(&key, REMOVED, outcome);
            if removed {
                tracing::info!(%gateway, "proxies of a gateway that is no longer ours removed");
                self.attempts.remove(&key);
            }
        }
    }

    fn attempt(&mut self, key: &str) -> &mut Attempt {
        self.attempts.entry(key.to_owned()).or_default()
    }

    /// Counts, logs and remembers an outcome; the same failure is logged once. Tells whether it is a new failure.
    fn note(&mut self, key: &str, hash: u64, outcome: Result<(), ProvisionError>) -> bool {
        let Err(error) = outcome else {
            self.outlets.metrics.provision("applied");
            *self.attempt(key) = Attempt { applied: Some(hash), failure: None };
            return false;
        };
        self.outlets.metrics.provision("failed");
        let text = error.to_string();
        let new = self.attempt(key).failed(hash, text.clone());
        if new {
            tracing::warn!(gateway = key, error = text, "gateway is not provisioned: trying again");
        }
        new
    }
}

/// The Gateways of each namespace that is to have the bundle, with their uids.
type Trusting<'a> = BTreeMap<&'a str, Vec<(&'a GatewayKey, &'a str)>>;

/// The namespaces in which proxies are to run, or do.
fn trusting<'a>(wishes: &'a BTreeMap<GatewayKey, Wish>, running: &BTreeSet<GatewayKey>) -> Trusting<'a> {
    let mut namespaces = Trusting::new();
    for (gateway, wish) in wishes {
        let uid = match wish {
            Wish::Wanted(spec) => &spec.uid,
            // Its proxies go on, through the next change of roots too.
            Wish::Held { uid } if running.contains(gateway) => uid,
            Wish::Held { .. } => continue,
        };
        namespaces.entry(&*gateway.0.namespace).or_default().push((gateway, uid));
    }
    namespaces
}

/// Stands for the hash of what is to be applied where everything is to be removed.
const REMOVED: u64 = 0;

/// What a namespace's trust bundle is remembered by. No Gateway's key ends so.
fn bundle_key(namespace: &str) -> String {
    format!("{namespace}/")
}

/// Equal for equal objects.
fn hash(object: &impl Serialize) -> u64 {
    let mut hasher = DefaultHasher::new();
    // Our own plain data always serializes; an error would hash as the empty text, and the object be applied once.
    serde_json::to_string(object).unwrap_or_default().hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_fails_is_tried_again_ever_more_rarely_and_at_once_when_it_is_another_thing() {
        let mut attempt = Attempt::default();
        let mut waits = Vec::new();
        for _ in 0..7 {
            attempt.failed(1, "no quota".to_owned());
            waits.push((attempt.failure.as_ref().unwrap().retry_at - Instant::now()).as_secs());
        }
        assert_eq!(waits, [2, 4, 8, 16, 32, 60, 60]);
        assert!(!attempt.is_due(1, Instant::now()));
        assert!(attempt.is_due(2, Instant::now()));
        assert!(attempt.is_due(1, Instant::now() + LONGEST_RETRY));
        assert!(!attempt.failed(1, "no quota".to_owned()) && attempt.failed(1, "no node".to_owned()));
    }
}
