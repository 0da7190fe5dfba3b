//! Runs the proxies of each Gateway: a Deployment, a Service and a ServiceAccount, and the trust bundle in its namespace.
//!
//! The leader alone applies, by server-side apply, so that fields which others own (an autoscaler's replicas, a cloud's
//! annotations) stay theirs. Every object has its Gateway as owner, so the cluster removes it with the Gateway; what a
//! Gateway that lives on no longer wants (it went to another class) is deleted here, but for the bundle, which is public.
//! Invariant: nothing is applied or deleted before every watch has been read, as before that a Gateway may seem unwanted.

pub mod names;
mod objects;
mod observe;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt::Debug,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
    time::Duration,
};

use control_plane_model::GatewayKey;
use control_plane_translate::{Deployment as Wish, DeploymentSpec};
use futures::{StreamExt as _, stream};
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1::Deployment,
        core::v1::{Service, ServiceAccount},
    },
};
use kit_process::drain::Drain;
use kube::{
    Api, Client, Resource,
    api::{DeleteParams, Patch, PatchParams},
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::watch;

pub use objects::ProxyDefaults;
pub use observe::Observed;

use crate::{
    events::Events,
    kubernetes::{FIELD_MANAGER, describe, is_status, limited},
    lease::Leadership,
    metrics::Metrics,
};

/// What the translator wants to run; `None` until every watch has been read.
pub type Wishes = Option<Arc<BTreeMap<GatewayKey, Wish>>>;

/// Gateways that are worked on at the same time.
const CONCURRENCY: usize = 4;
const RETRY: Duration = Duration::from_secs(2);
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

/// Brings the cluster to what the translator wants.
pub struct Provisioner {
    client: Client,
    defaults: ProxyDefaults,
    orders: Orders,
    observed: Arc<Observed>,
    events: Events,
    metrics: Metrics,
    /// Why a Gateway could not be provisioned last, so that the same is told once.
    failures: HashMap<String, String>,
    /// Hash of what was applied last, by Gateway and, for trust bundles, by namespace.
    applied: HashMap<String, u64>,
}

impl Provisioner {
    /// Follows `orders`, by what is `observed` to run.
    pub fn new(
        client: Client,
        defaults: ProxyDefaults,
        orders: Orders,
        observed: Arc<Observed>,
        events: Events,
        metrics: Metrics,
    ) -> Self {
        let (failures, applied) = (HashMap::new(), HashMap::new());
        Self { client, defaults, orders, observed, events, metrics, failures, applied }
    }

    /// Works until the drain. What runs keeps running.
    pub async fn run(mut self, drain: Drain) {
        let mut wait = RESYNC;
        loop {
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
                () = tokio::time::sleep(wait) => if wait == RESYNC { self.applied.clear() },
                () = drain.signaled() => return,
            }
            if !*self.orders.leadership.borrow_and_update() {
                self.applied.clear();
                continue;
            }
            tokio::select! {
                complete = self.pass() => wait = if complete { RESYNC } else { RETRY },
                () = drain.signaled() => return,
            }
        }
    }

    /// Applies and deletes whatever differs. Tells whether everything went well.
    async fn pass(&mut self) -> bool {
        let bundle = self.orders.bundle.borrow_and_update().clone();
        let wishes = self.orders.wishes.borrow_and_update().clone();
        let Some(wishes) = wishes.filter(|_| !bundle.is_empty()) else { return true };
        for gateway in self.observed.take_lost() {
            self.applied.remove(&gateway.to_string());
        }
        self.forget_gone(&wishes);
        let specs: Vec<&DeploymentSpec> = wishes
            .values()
            .filter_map(|wish| match wish {
                Wish::Wanted(spec) => Some(spec.as_ref()),
                Wish::Held => None,
            })
            .collect();
        let trusted = self.trust(&bundle, &specs).await;
        let applied = self.apply_gateways(&specs).await;
        let removed = self.remove_unwanted(&wishes).await;
        trusted && applied && removed
    }

    /// Drops what is remembered of Gateways and namespaces that are no longer there.
    fn forget_gone(&mut self, wishes: &BTreeMap<GatewayKey, Wish>) {
        let keys = wishes.keys().flat_map(|gateway| [gateway.to_string(), bundle_key(&gateway.0.namespace)]);
        let keys: HashSet<String> = keys.collect();
        self.applied.retain(|key, _| keys.contains(key));
        self.failures.retain(|key, _| keys.contains(key));
    }

    /// Puts the bundle into each namespace that holds a Gateway.
    async fn trust(&mut self, bundle: &str, specs: &[&DeploymentSpec]) -> bool {
        let mut namespaces: BTreeMap<&str, Vec<&DeploymentSpec>> = BTreeMap::new();
        for spec in specs {
            namespaces.entry(&spec.gateway.0.namespace).or_default().push(spec);
        }
        let mut complete = true;
        for (namespace, gateways) in namespaces {
            let wanted = objects::trust_bundle(namespace, bundle, &gateways);
            let key = bundle_key(namespace);
            let hash = hash(&wanted);
            if self.applied.get(&key) == Some(&hash) {
                continue;
            }
            if self.outcome(&key, apply(&self.client, namespace, &wanted).await) {
                self.applied.insert(key, hash);
            } else {
                complete = false;
            }
        }
        complete
    }

    async fn apply_gateways(&mut self, specs: &[&DeploymentSpec]) -> bool {
        let wanted = specs.iter().map(|spec| (spec.gateway.to_string(), objects::objects(spec, &self.defaults), spec));
        let changed: Vec<_> = wanted
            .map(|(key, objects, spec)| {
                let parts = (&objects.service_account, &objects.deployment, &objects.service);
                let hash = hash(&parts);
                (key, hash, objects, spec.gateway.clone(), spec.uid.clone())
            })
            .filter(|(key, hash, ..)| self.applied.get(key) != Some(hash))
            .collect();
        let client = &self.client;
        let applied = stream::iter(changed).map(|(key, hash, objects, gateway, uid)| async move {
            let outcome = apply_all(client, &gateway.0.namespace, &objects).await;
            (key, hash, gateway, uid, outcome)
        });
        let outcomes: Vec<_> = applied.buffer_unordered(CONCURRENCY).collect().await;
        let mut complete = true;
        for (key, hash, gateway, uid, outcome) in outcomes {
            match self.failure(&key, outcome) {
                None => drop(self.applied.insert(key, hash)),
                Some((why, new)) => {
                    complete = false;
                    if new {
                        self.events.provisioning_failed(&gateway, &uid, &why);
                    }
                }
            }
        }
        complete
    }

    /// Deletes what was made for Gateways that want nothing now.
    async fn remove_unwanted(&mut self, wishes: &BTreeMap<GatewayKey, Wish>) -> bool {
        let mut complete = true;
        for gateway in self.observed.gateways() {
            if wishes.contains_key(&gateway) {
                continue;
            }
            let outcome = remove(&self.client, &gateway).await;
            complete &= self.outcome(&gateway.to_string(), outcome);
            self.applied.remove(&gateway.to_string());
        }
        complete
    }

    /// Counts and logs an outcome; tells whether it is a success. The same failure of `what` is logged once.
    fn outcome(&mut self, what: &str, outcome: kube::Result<()>) -> bool {
        self.failure(what, outcome).is_none()
    }

    /// As [`Self::outcome`]; gives the failure's text, and whether it is a new one.
    fn failure(&mut self, what: &str, outcome: kube::Result<()>) -> Option<(String, bool)> {
        let Err(error) = outcome else {
            self.metrics.provision("applied");
            self.failures.remove(what);
            return None;
        };
        self.metrics.provision("failed");
        let text = describe(&error);
        let new = self.failures.insert(what.to_owned(), text.clone()).as_ref() != Some(&text);
        if new {
            tracing::warn!(gateway = what, error = text, "gateway is not provisioned: trying again");
        }
        Some((text, new))
    }
}

/// What a namespace's trust bundle is remembered by. No Gateway's key ends so.
fn bundle_key(namespace: &str) -> String {
    format!("{namespace}/")
}

async fn apply_all(client: &Client, namespace: &str, objects: &objects::Objects) -> kube::Result<()> {
    apply(client, namespace, &objects.service_account).await?;
    apply(client, namespace, &objects.deployment).await?;
    match &objects.service {
        Some(service) => apply(client, namespace, service).await,
        None => match &objects.deployment.metadata.name {
            Some(name) => delete::<Service>(client, namespace, name).await,
            None => Ok(()),
        },
    }
}

async fn remove(client: &Client, gateway: &GatewayKey) -> kube::Result<()> {
    let namespace = &gateway.0.namespace;
    let name = names::resource_name(&gateway.0.name);
    delete::<Service>(client, namespace, &name).await?;
    delete::<Deployment>(client, namespace, &name).await?;
    delete::<ServiceAccount>(client, namespace, &name).await?;
    tracing::info!(%gateway, "proxies of a gateway that is no longer ours removed");
    Ok(())
}

/// Server-side apply of one object, with our fields forced.
async fn apply<K>(client: &Client, namespace: &str, object: &K) -> kube::Result<()>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + Serialize + DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let name = object.meta().name.clone().unwrap_or_default();
    let params = PatchParams::apply(FIELD_MANAGER).force();
    limited(api.patch(&name, &params, &Patch::Apply(object))).await.map(drop)
}

async fn delete<K>(client: &Client, namespace: &str, name: &str) -> kube::Result<()>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    match limited(api.delete(name, &DeleteParams::background())).await {
        Ok(_) => Ok(()),
        Err(error) if is_status(&error, 404) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Equal for equal objects.
fn hash(object: &impl Serialize) -> u64 {
    let mut hasher = DefaultHasher::new();
    // Our own plain data always serializes; an error would hash as the empty text, and the object be applied once.
    serde_json::to_string(object).unwrap_or_default().hash(&mut hasher);
    hasher.finish()
}
