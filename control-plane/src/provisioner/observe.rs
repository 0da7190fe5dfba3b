//! What runs for each Gateway, by the objects that the provisioner made: whether a proxy is ready, and at which address.
//!
//! Watched by every replica, so that a new leader knows at once. Addresses are those of the Service's load balancer;
//! for a Service of another type its cluster IP, which is the best that is reachable from the cluster.
//! Invariant: an object counts only under the name that the provisioner gives it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use control_plane_model::GatewayKey;
use control_plane_translate::{Change, Provisioned};
use futures::StreamExt as _;
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Service};
use kube::{
    Api, Client, Resource,
    api::ObjectMeta,
    runtime::{
        WatchStreamExt as _,
        watcher::{Event, watcher},
    },
};
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, mpsc},
    time::Instant,
};

use super::{names::resource_name, objects::gateway_of};
use crate::{
    kubernetes::{CONTROLLER, MANAGED_BY, MANAGER, watching},
    metrics::WatchMetrics,
    watch::{Health, Input, Retry, Source},
};

/// What is known of one Gateway's objects. Of each object: `None` while it is not there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Running {
    ready: Option<bool>,
    addresses: Option<Vec<String>>,
    /// Why it could not be brought to what its Gateway wants, at the last attempt.
    failure: Option<String>,
}

impl Running {
    fn is_there(&self) -> bool {
        self.ready.is_some() || self.addresses.is_some()
    }
}

/// What runs for all Gateways. Shared by the watches and the provisioner.
#[derive(Debug, Default)]
pub struct Observed {
    running: Mutex<BTreeMap<GatewayKey, Running>>,
    lost: Mutex<Vec<GatewayKey>>,
    wake: Notify,
}

impl Observed {
    /// The Gateways that something runs for.
    pub(super) fn gateways(&self) -> Vec<GatewayKey> {
        let all = self.running.lock();
        all.iter().filter(|(_, running)| running.is_there()).map(|(gateway, _)| gateway.clone()).collect()
    }

    /// Notes what came of an attempt to bring a Gateway to what it wants; tells the translator's side if that is a change.
    pub(super) fn attempted(&self, gateway: &GatewayKey, failure: Option<String>) -> Option<Change> {
        self.update(gateway.clone(), |running| running.failure = failure, false)
    }

    /// Forgets the failures of Gateways that want nothing now; tells the translator's side of it.
    pub(super) fn forget_failures(&self, wanted: impl Fn(&GatewayKey) -> bool) -> Vec<Change> {
        let all = self.running.lock();
        let failed = all.iter().filter(|(gateway, running)| running.failure.is_some() && !wanted(gateway));
        let gateways: Vec<GatewayKey> = failed.map(|(gateway, _)| gateway.clone()).collect();
        drop(all);
        gateways.iter().filter_map(|gateway| self.attempted(gateway, None)).collect()
    }

    /// Waits until an object that was made is gone. Cancel-safe.
    pub(super) async fn lost(&self) {
        self.wake.notified().await;
    }

    /// The Gateways that lost an object since the last call.
    pub(super) fn take_lost(&self) -> Vec<GatewayKey> {
        std::mem::take(&mut *self.lost.lock())
    }

    /// Notes a change; tells the translator's side of it if there is one.
    fn update(&self, gateway: GatewayKey, set: impl FnOnce(&mut Running), lost: bool) -> Option<Change> {
        let mut all = self.running.lock();
        let running = all.entry(gateway.clone()).or_default();
        let before = running.clone();
        set(running);
        let after = running.clone();
        if after == Running::default() {
            all.remove(&gateway);
        }
        drop(all);
        if lost {
            self.lost.lock().push(gateway.clone());
            self.wake.notify_one();
        }
        let state = Provisioned {
            addresses: after.addresses.clone().unwrap_or_default(),
            ready: after.ready == Some(true),
            failure: after.failure.clone(),
        };
        (before != after).then_some(Change::Provisioned { gateway, state })
    }

    /// Watches what the control plane of that label made, until the process ends. Both kinds are complete before the source counts as synced.
    pub async fn watch(
        self: Arc<Self>,
        client: Client,
        controller: &str,
        sink: mpsc::Sender<Input>,
        metrics: WatchMetrics,
    ) {
        let config = || watching().labels(&format!("{MANAGED_BY}={MANAGER},{CONTROLLER}={controller}"));
        let deployments = watcher(Api::<Deployment>::all(client.clone()), config()).backoff(Retry::default());
        let services = watcher(Api::<Service>::all(client), config()).backoff(Retry::default());
        let (mut deployments, mut services) = (Box::pin(deployments), Box::pin(services));
        let (mut made, mut exposed) = (Listing::default(), Listing::default());
        let mut deployment_health = Health::new("own Deployments", true, &metrics);
        let mut service_health = Health::new("own Services", true, &metrics);
        let mut synced = false;
        loop {
            let changes = tokio::select! {
                Some(event) = deployments.next() => match event {
                    Ok(event) => {
                        deployment_health.alive(&event);
                        made.event(event, &self, |object, running| running.ready = object.map(is_ready))
                    }
                    Err(error) => { deployment_health.broken(&error); Vec::new() }
                },
                Some(event) = services.next() => match event {
                    Ok(event) => {
                        service_health.alive(&event);
                        exposed.event(event, &self, |object, running| running.addresses = object.map(addresses))
                    }
                    Err(error) => { service_health.broken(&error); Vec::new() }
                },
                () = deployment_health.quiet() => continue,
                () = service_health.quiet() => continue,
                else => return,
            };
            let complete =
                made.complete && exposed.complete && !std::mem::replace(&mut synced, made.complete && exposed.complete);
            if changes.is_empty() && !complete {
                continue;
            }
            let synced = complete.then_some(Source::Provisioned);
            if sink.send(Input::Changes { changes, synced, received: Instant::now() }).await.is_err() {
                return;
            }
        }
    }
}

/// The objects of one kind: after a break, what a list does not hold is gone.
#[derive(Debug, Default)]
struct Listing {
    known: BTreeSet<GatewayKey>,
    listed: BTreeSet<GatewayKey>,
    complete: bool,
}

impl Listing {
    fn event<K: Resource<DynamicType = ()>>(
        &mut self,
        event: Event<K>,
        observed: &Observed,
        set: impl Fn(Option<&K>, &mut Running),
    ) -> Vec<Change> {
        match event {
            Event::Init => {
                self.listed.clear();
                Vec::new()
            }
            Event::InitApply(object) => {
                let Some(gateway) = made_for(object.meta()) else { return Vec::new() };
                self.listed.insert(gateway.clone());
                observed.update(gateway, |running| set(Some(&object), running), false).into_iter().collect()
            }
            Event::InitDone => {
                self.complete = true;
                let listed = std::mem::take(&mut self.listed);
                let known = std::mem::replace(&mut self.known, listed);
                let gone = known.into_iter().filter(|gateway| !self.known.contains(gateway));
                gone.filter_map(|gateway| observed.update(gateway, |running| set(None, running), true)).collect()
            }
            Event::Apply(object) => {
                let Some(gateway) = made_for(object.meta()) else { return Vec::new() };
                self.known.insert(gateway.clone());
                observed.update(gateway, |running| set(Some(&object), running), false).into_iter().collect()
            }
            Event::Delete(object) => {
                let Some(gateway) = made_for(object.meta()) else { return Vec::new() };
                self.known.remove(&gateway);
                observed.update(gateway, |running| set(None, running), true).into_iter().collect()
            }
        }
    }
}

/// The Gateway that an object was made for, if it has the name that we give.
pub(super) fn made_for(metadata: &ObjectMeta) -> Option<GatewayKey> {
    let gateway = gateway_of(metadata)?;
    (metadata.name.as_deref() == Some(&resource_name(&gateway.0.name))).then_some(gateway)
}

fn is_ready(deployment: &Deployment) -> bool {
    deployment.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0) > 0
}

fn addresses(service: &Service) -> Vec<String> {
    let spec = service.spec.as_ref();
    if spec.and_then(|spec| spec.type_.as_deref()) == Some("LoadBalancer") {
        let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
        let ingress = balancer.and_then(|balancer| balancer.ingress.as_ref()).into_iter().flatten();
        return ingress.filter_map(|entry| entry.ip.clone().or_else(|| entry.hostname.clone())).collect();
    }
    let cluster_ip = spec.and_then(|spec| spec.cluster_ip.clone());
    cluster_ip.filter(|address| !address.is_empty() && address != "None").into_iter().collect()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{
        api::{
            apps::v1::DeploymentStatus,
            core::v1::{LoadBalancerIngress, LoadBalancerStatus, ServiceSpec, ServiceStatus},
        },
        apimachinery::pkg::apis::meta::v1::OwnerReference,
    };

    use super::*;

    fn metadata(name: &str) -> ObjectMeta {
        ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some("infra".to_owned()),
            owner_references: Some(vec![OwnerReference {
                api_version: "gateway.networking.k8s.io/v1".to_owned(),
                kind: "Gateway".to_owned(),
                name: "edge".to_owned(),
                ..OwnerReference::default()
            }]),
            ..ObjectMeta::default()
        }
    }

    fn deployment(ready: i32) -> Deployment {
        let status = DeploymentStatus { ready_replicas: Some(ready), ..DeploymentStatus::default() };
        Deployment { metadata: metadata("edge-nebula"), status: Some(status), ..Deployment::default() }
    }

    fn service(kind: &str, cluster_ip: &str, balancer: Option<&str>) -> Service {
        let ingress =
            balancer.map(|ip| vec![LoadBalancerIngress { ip: Some(ip.to_owned()), ..LoadBalancerIngress::default() }]);
        Service {
            metadata: metadata("edge-nebula"),
            spec: Some(ServiceSpec {
                type_: Some(kind.to_owned()),
                cluster_ip: Some(cluster_ip.to_owned()),
                ..ServiceSpec::default()
            }),
            status: Some(ServiceStatus { load_balancer: Some(LoadBalancerStatus { ingress }), conditions: None }),
        }
    }

    fn states(changes: Vec<Change>) -> Vec<Provisioned> {
        let state = |change| match change {
            Change::Provisioned { state, .. } => state,
            other => panic!("{other:?}"),
        };
        changes.into_iter().map(state).collect()
    }

    #[test]
    fn a_gateway_is_ready_with_its_first_proxy_and_lost_with_its_deployment() {
        let observed = Observed::default();
        let mut made = Listing::default();
        let set = |object: Option<&Deployment>, running: &mut Running| running.ready = object.map(is_ready);
        let ready = |ready| Provisioned { addresses: Vec::new(), ready, failure: None };
        assert_eq!(states(made.event(Event::Apply(deployment(0)), &observed, set)), [ready(false)]);
        assert_eq!(states(made.event(Event::Apply(deployment(1)), &observed, set)), [ready(true)]);
        assert!(made.event(Event::Apply(deployment(2)), &observed, set).is_empty());
        assert!(made.event(Event::Init, &observed, set).is_empty());
        assert_eq!(states(made.event(Event::InitDone, &observed, set)), [ready(false)]);
        assert_eq!(observed.take_lost().len(), 1);
        assert!(observed.gateways().is_empty());
    }

    #[test]
    fn an_object_with_another_name_does_not_count() {
        let mut foreign = deployment(1);
        foreign.metadata.name = Some("mine".to_owned());
        let set = |object: Option<&Deployment>, running: &mut Running| running.ready = object.map(is_ready);
        assert!(Listing::default().event(Event::Apply(foreign), &Observed::default(), set).is_empty());
    }

    #[test]
    fn the_address_is_the_load_balancers_or_else_the_cluster_ip() {
        assert_eq!(addresses(&service("LoadBalancer", "10.0.0.1", Some("172.30.0.1"))), ["172.30.0.1"]);
        assert!(addresses(&service("LoadBalancer", "10.0.0.1", None)).is_empty());
        assert_eq!(addresses(&service("ClusterIP", "10.0.0.1", None)), ["10.0.0.1"]);
        assert!(addresses(&service("ClusterIP", "None", None)).is_empty());
    }
}
