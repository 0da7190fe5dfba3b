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
    collections::{BTreeMap, HashMap},
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
    kubernetes::{FIELD_MANAGER, describe, is_status},
    lease::Leadership,
    metrics::Metrics,
};

/// What the translator wants to run; `None` until every watch has been read.
pub type Wishes = Option<Arc<BTreeMap<GatewayKey, Wish>>>;

/// Gateways that are worked on at the same time.
const CONCURRENCY: usize = 4;
const TIMEOUT: Duration = Duration::from_secs(15);
const RETRY: Duration = Duration::from_secs(2);
/// How often everything is applied again, against changes by hand that no watch tells.
const RESYNC: Duration = Duration::from_mins(10);

/// Brings the cluster to what the translator wants.
pub struct Provisioner {
    client: Client,
    defaults: ProxyDefaults,
    wishes: watch::Receiver<Wishes>,
    bundle: watch::Receiver<Arc<str>>,
    leadership: Leadership,
    observed: Arc<Observed>,
    metrics: Metrics,
    /// Hash of what was applied last, by Gateway and, for trust bundles, by namespace.
    applied: HashMap<String, u64>,
}

impl Provisioner {
    /// Works while `leadership` says so.
    pub fn new(
        client: Client,
        defaults: ProxyDefaults,
        wishes: watch::Receiver<Wishes>,
        bundle: watch::Receiver<Arc<str>>,
        leadership: Leadership,
        observed: Arc<Observed>,
        metrics: Metrics,
    ) -> Self {
        Self { client, defaults, wishes, bundle, leadership, observed, metrics, applied: HashMap::new() }
    }

    /// Works until the drain. What runs keeps running.
    pub async fn run(mut self, drain: Drain) {
        let mut wait = RESYNC;
        loop {
            let changed = async {
                tokio::select! {
                    changed = self.wishes.changed() => changed.is_ok(),
                    changed = self.bundle.changed() => changed.is_ok(),
                    changed = self.leadership.changed() => changed.is_ok(),
                    () = self.observed.lost() => true,
                }
            };
            tokio::select! {
                alive = changed => if !alive { return },
                () = tokio::time::sleep(wait) => if wait == RESYNC { self.applied.clear() },
                () = drain.signaled() => return,
            }
            if !*self.leadership.borrow_and_update() {
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
        let bundle = self.bundle.borrow_and_update().clone();
        let wishes = self.wishes.borrow_and_update().clone();
        let Some(wishes) = wishes.filter(|_| !bundle.is_empty()) else { return true };
        for gateway in self.observed.take_lost() {
            self.applied.remove(&gateway.to_string());
        }
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

    /// Puts the bundle into each namespace that holds a Gateway.
    async fn trust(&mut self, bundle: &str, specs: &[&DeploymentSpec]) -> bool {
        let mut namespaces: BTreeMap<&str, Vec<&DeploymentSpec>> = BTreeMap::new();
        for spec in specs {
            namespaces.entry(&spec.gateway.0.namespace).or_default().push(spec);
        }
        let mut complete = true;
        for (namespace, gateways) in namespaces {
            let wanted = objects::trust_bundle(namespace, bundle, &gateways);
            let key = format!("{namespace}/"); // no Gateway's key ends so
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
                (key, hash, objects, spec.gateway.0.namespace.clone())
            })
            .filter(|(key, hash, ..)| self.applied.get(key) != Some(hash))
            .collect();
        let client = &self.client;
        let applied = stream::iter(changed).map(|(key, hash, objects, namespace)| async move {
            let outcome = apply_all(client, &namespace, &objects).await;
            (key, hash, outcome)
        });
        let outcomes: Vec<_> = applied.buffer_unordered(CONCURRENCY).collect().await;
        let mut complete = true;
        for (key, hash, outcome) in outcomes {
            if self.outcome(&key, outcome) {
                self.applied.insert(key, hash);
            } else {
                complete = false;
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

    fn outcome(&self, what: &str, outcome: kube::Result<()>) -> bool {
        match outcome {
            Ok(()) => {
                self.metrics.provision("applied");
                true
            }
            Err(error) => {
                self.metrics.provision("failed");
                tracing::warn!(gateway = what, error = describe(&error), "gateway is not provisioned: trying again");
                false
            }
        }
    }
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

async fn limited<T>(request: impl Future<Output = kube::Result<T>>) -> kube::Result<T> {
    tokio::time::timeout(TIMEOUT, request).await.unwrap_or_else(|_| Err(crate::kubernetes::timed_out()))
}

/// Equal for equal objects.
fn hash(object: &impl Serialize) -> u64 {
    let mut hasher = DefaultHasher::new();
    // Our own plain data always serializes; an error would hash as the empty text, and the object be applied once.
    serde_json::to_string(object).unwrap_or_default().hash(&mut hasher);
    hasher.finish()
}
