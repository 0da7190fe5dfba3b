//! What proxies refuse, passed between replicas: a proxy is connected to one replica, and the leader writes the status.
//!
//! Each replica keeps the reports of its own proxies in a ConfigMap of its own, `nebula-reports-<replica>`, in the
//! control plane's namespace; it is made with the first refusal. Every replica watches all of them, so the
//! leader knows, and the next leader knows as well. (Sending reports straight to the Lease's holder would be faster and
//! need a second protocol; refusals are rare and may take a second.) The ConfigMap goes with its replica's pod.
//! Invariant: for each Gateway the translator is told the union over all replicas.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use control_plane_model::{GatewayKey, ObjectName, ResourceKey};
use control_plane_translate::Change;
use control_plane_wire::server::Hub;
use futures::StreamExt as _;
use k8s_openapi::{api::core::v1::ConfigMap, apimachinery::pkg::apis::meta::v1::OwnerReference};
use kit_process::drain::Drain;
use kube::{
    Api, Client,
    api::{ObjectMeta, Patch, PatchParams},
    runtime::{
        WatchStreamExt as _,
        watcher::{Event, watcher},
    },
};
use serde_json::json;
use tokio::{sync::mpsc, time::Instant};

use crate::{
    kubernetes::{FIELD_MANAGER, describe, is_status, watching},
    metrics::WatchMetrics,
    watch::{Health, Input, Retry, Source},
};

const LABEL: &str = "nebula.dev/reports";
const KEY: &str = "reports.json";
const PREFIX: &str = "nebula-reports-";
/// Least time between two writes of the ConfigMap.
const INTERVAL: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(10);
/// A ConfigMap holds a megabyte. Of more refusals than fit, the first in order are told.
const SIZE_LIMIT: usize = 512 * 1024;

/// What the proxies of one replica refuse.
type Refusals = BTreeMap<GatewayKey, BTreeMap<ResourceKey, String>>;

/// The reports of all replicas.
#[derive(Debug, Default)]
struct Reports {
    by_replica: BTreeMap<String, Refusals>,
}

impl Reports {
    /// Takes the place of what was known of `replica`. Returns what changes for the translator.
    fn set(&mut self, replica: &str, refusals: Refusals) -> Vec<Change> {
        let before = self.by_replica.insert(replica.to_owned(), refusals.clone()).unwrap_or_default();
        let touched: BTreeSet<&GatewayKey> = before.keys().chain(refusals.keys()).collect();
        let changed = touched.into_iter().filter(|gateway| before.get(*gateway) != refusals.get(*gateway));
        let changes = changed.map(|gateway| Change::Report { gateway: gateway.clone(), refused: self.union(gateway) });
        let changes = changes.collect();
        if refusals.is_empty() {
            self.by_replica.remove(replica);
        }
        changes
    }

    fn union(&self, gateway: &GatewayKey) -> BTreeMap<ResourceKey, String> {
        let reports = self.by_replica.values().filter_map(|refusals| refusals.get(gateway));
        reports.flatten().map(|(key, error)| (key.clone(), error.clone())).collect()
    }
}

/// This replica's part in passing reports.
pub struct Exchange {
    config_maps: Api<ConfigMap>,
    replica: String,
    owner: Option<OwnerReference>,
    sink: mpsc::Sender<Input>,
    metrics: WatchMetrics,
    known: Reports,
}

impl Exchange {
    /// For the replica whose pod is called `replica`, with that pod's UID if it is known.
    pub fn new(
        client: Client,
        namespace: &str,
        replica: &str,
        uid: Option<String>,
        sink: mpsc::Sender<Input>,
        metrics: WatchMetrics,
    ) -> Self {
        let owner = uid.map(|uid| OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Pod".to_owned(),
            name: replica.to_owned(),
            uid,
            ..OwnerReference::default()
        });
        let config_maps = Api::namespaced(client, namespace);
        Self { config_maps, replica: replica.to_owned(), owner, sink, metrics, known: Reports::default() }
    }

    /// Passes reports on until the drain.
    pub async fn run(mut self, hub: Hub, drain: Drain) {
        let config = watching().labels(LABEL);
        let mut others = Box::pin(watcher(self.config_maps.clone(), config).backoff(Retry::default()));
        let mut own = hub.reports();
        let mut listed = BTreeSet::new();
        let metrics = self.metrics.clone();
        let mut health = Health::new("reports", true, &metrics);
        // The first write empties what a former process of this name may have left.
        let mut write_at = Some(Instant::now());
        let mut synced = false;
        loop {
            let changes = tokio::select! {
                report = own.next() => {
                    let mut refusals = self.own();
                    refusals.insert(report.gateway, report.refused.as_ref().clone());
                    refusals.retain(|_, refused| !refused.is_empty());
                    write_at.get_or_insert_with(|| Instant::now() + INTERVAL);
                    self.known.set(&self.replica.clone(), refusals)
                }
                Some(event) = others.next() => match event {
                    Ok(event) => {
                        health.alive(&event);
                        let done = matches!(event, Event::InitDone);
                        let changes = self.other(event, &mut listed);
                        if done && !std::mem::replace(&mut synced, true) {
                            self.send(changes, true).await;
                            continue;
                        }
                        changes
                    }
                    Err(error) => {
                        health.broken(&error);
                        Vec::new()
                    }
                },
                () = tokio::time::sleep_until(write_at.unwrap_or_else(Instant::now)), if write_at.is_some() => {
                    write_at = self.write().await;
                    Vec::new()
                }
                () = health.quiet() => continue,
                () = drain.signaled() => return,
            };
            if !changes.is_empty() {
                self.send(changes, false).await;
            }
        }
    }

    async fn send(&self, changes: Vec<Change>, synced: bool) {
        let synced = synced.then_some(Source::Reports);
        // An error means that the apply loop is gone, and with it the process.
        let _ = self.sink.send(Input::Changes { changes, synced, received: Instant::now() }).await;
    }

    fn own(&self) -> Refusals {
        self.known.by_replica.get(&self.replica).cloned().unwrap_or_default()
    }

    /// Takes what another replica wrote.
    fn other(&mut self, event: Event<ConfigMap>, listed: &mut BTreeSet<String>) -> Vec<Change> {
        let replica_of = |config_map: &ConfigMap| {
            let name = config_map.metadata.name.as_deref()?;
            name.strip_prefix(PREFIX).map(str::to_owned)
        };
        match event {
            Event::Init => {
                listed.clear();
                Vec::new()
            }
            Event::InitApply(config_map) | Event::Apply(config_map) => {
                let Some(replica) = replica_of(&config_map).filter(|replica| *replica != self.replica) else {
                    return Vec::new();
                };
                listed.insert(replica.clone());
                self.known.set(&replica, read(&config_map))
            }
            Event::Delete(config_map) => {
                let replica = replica_of(&config_map).filter(|replica| *replica != self.replica);
                replica.map(|replica| self.known.set(&replica, Refusals::new())).unwrap_or_default()
            }
            Event::InitDone => {
                let gone: Vec<String> = self.known.by_replica.keys().cloned().collect();
                let gone = gone.into_iter().filter(|replica| *replica != self.replica && !listed.contains(replica));
                gone.flat_map(|replica| self.known.set(&replica, Refusals::new())).collect()
            }
        }
    }

    /// Writes this replica's reports. Returns when to try again, after a failure.
    async fn write(&self) -> Option<Instant> {
        let name = format!("{PREFIX}{}", self.replica);
        let refusals = self.own();
        let written = async {
            if refusals.is_empty() {
                // Fails with 404 where nothing was ever refused, which is as good.
                let nothing = json!({"data": {KEY: "{}"}});
                let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
                return self.config_maps.patch(&name, &params, &Patch::Merge(&nothing)).await.map(drop);
            }
            let config_map = ConfigMap {
                metadata: ObjectMeta {
                    name: Some(name.clone()),
                    labels: Some([(LABEL.to_owned(), "true".to_owned())].into()),
                    owner_references: self.owner.clone().map(|owner| vec![owner]),
                    ..ObjectMeta::default()
                },
                data: Some([(KEY.to_owned(), encode(&refusals))].into()),
                ..ConfigMap::default()
            };
            let params = PatchParams::apply(FIELD_MANAGER).force();
            self.config_maps.patch(&name, &params, &Patch::Apply(&config_map)).await.map(drop)
        };
        match tokio::time::timeout(TIMEOUT, written).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) if is_status(&error, 404) => None,
            Ok(Err(error)) => {
                tracing::warn!(error = describe(&error), "reports of proxies not passed on: trying again");
                Some(Instant::now() + INTERVAL * 5)
            }
            Err(_) => Some(Instant::now() + INTERVAL * 5),
        }
    }
}

fn encode(refusals: &Refusals) -> String {
    let mut size = 0;
    let mut fitting: BTreeMap<String, BTreeMap<String, &str>> = BTreeMap::new();
    for (gateway, refused) in refusals {
        for (key, error) in refused {
            let key = key.to_string();
            size += key.len() + error.len() + 16;
            if size <= SIZE_LIMIT {
                fitting.entry(gateway.to_string()).or_default().insert(key, error);
            }
        }
    }
    // Maps of texts always serialize.
    serde_json::to_string(&fitting).unwrap_or_default()
}

/// What a replica wrote. Entries of a newer version that do not parse are left out.
fn read(config_map: &ConfigMap) -> Refusals {
    let text = config_map.data.as_ref().and_then(|data| data.get(KEY)).map_or("{}", String::as_str);
    let texts: BTreeMap<String, BTreeMap<String, String>> = serde_json::from_str(text).unwrap_or_default();
    let parse = |(gateway, refused): (String, BTreeMap<String, String>)| {
        let (namespace, name) = gateway.split_once('/')?;
        let refused = refused.into_iter().filter_map(|(key, error)| Some((key.parse().ok()?, error)));
        Some((GatewayKey(ObjectName::new(namespace, name)), refused.collect()))
    };
    texts.into_iter().filter_map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gateway(name: &str) -> GatewayKey {
        GatewayKey(ObjectName::new("infra", name))
    }

    fn refusals(gateway_name: &str, routes: &[&str]) -> Refusals {
        let refused =
            routes.iter().map(|route| (format!("route/http/shop/{route}").parse().unwrap(), "why".to_owned()));
        [(gateway(gateway_name), refused.collect())].into()
    }

    fn summary(changes: Vec<Change>) -> Vec<String> {
        let text = |change| match change {
            Change::Report { gateway, refused } => {
                let keys: Vec<String> = refused.keys().map(ToString::to_string).collect();
                format!("{gateway}: {}", keys.join(" "))
            }
            other => panic!("{other:?}"),
        };
        changes.into_iter().map(text).collect()
    }

    #[test]
    fn reports_survive_the_config_map() {
        let all = refusals("edge", &["a", "b"]);
        let data = Some([(KEY.to_owned(), encode(&all))].into());
        assert_eq!(read(&ConfigMap { data, ..ConfigMap::default() }), all);
        assert!(read(&ConfigMap::default()).is_empty());
    }

    #[test]
    fn the_translator_hears_the_union_of_all_replicas() {
        let mut reports = Reports::default();
        assert_eq!(summary(reports.set("one", refusals("edge", &["a"]))), ["infra/edge: route/http/shop/a"]);
        let both = "infra/edge: route/http/shop/a route/http/shop/b";
        assert_eq!(summary(reports.set("two", refusals("edge", &["b"]))), [both]);
        assert!(reports.set("two", refusals("edge", &["b"])).is_empty());
        assert_eq!(summary(reports.set("one", Refusals::new())), ["infra/edge: route/http/shop/b"]);
        assert_eq!(summary(reports.set("two", Refusals::new())), ["infra/edge: "]);
    }

    #[test]
    fn more_reports_than_a_config_map_holds_are_cut() {
        let long = "x".repeat(1000);
        let refused = (0..2000).map(|n| (format!("route/http/shop/r{n}").parse().unwrap(), long.clone())).collect();
        let text = encode(&[(gateway("edge"), refused)].into());
        assert!(text.len() < 2 * SIZE_LIMIT && text.len() > SIZE_LIMIT / 2, "{}", text.len());
    }
}
