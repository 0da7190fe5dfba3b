//! The provisioner against the fake: what it makes, when it does not, and what it tries again.

use std::{collections::BTreeMap, num::NonZeroU16, sync::Arc, time::Duration};

use control_plane::{
    events::Events,
    metrics::Metrics,
    provisioner::{Observed, Orders, Outlets, Provisioner, ProxyDefaults, Wishes},
    watch::Input,
};
use control_plane_model::{GatewayKey, ObjectName};
use control_plane_translate::{Change, Deployment, DeploymentSpec};
use crds::gateway_config::GatewayConfigSpec;
use kit_process::{
    drain::{self, DrainTrigger},
    tasks::Tasks,
};
use prometheus_client::registry::Registry;
use serde_json::json;
use tokio::sync::{mpsc, watch};

use crate::fake::Fake;

const DEADLINE: Duration = Duration::from_secs(10);
const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/infra/deployments/edge-nebula";
const SERVICE: &str = "/api/v1/namespaces/infra/services/edge-nebula";
const SERVICE_ACCOUNT: &str = "/api/v1/namespaces/infra/serviceaccounts/edge-nebula";
const BUNDLE: &str = "/api/v1/namespaces/infra/configmaps/nebula-ca-ours";

struct Running {
    fake: Fake,
    wishes: watch::Sender<Wishes>,
    bundle: watch::Sender<Arc<str>>,
    leading: watch::Sender<bool>,
    changes: mpsc::Receiver<Input>,
    _trigger: DrainTrigger,
}

impl Running {
    fn start(leads: bool) -> Self {
        Self::on(Fake::start(), "ours", leads)
    }

    /// The provisioner of the control plane that is called `controller`.
    fn on(fake: Fake, controller: &'static str, leads: bool) -> Self {
        let (trigger, drain) = drain::channel();
        let tasks = Tasks::new(drain.clone());
        let wishes = watch::Sender::new(None);
        let bundle = watch::Sender::new(Arc::from("root"));
        let leading = watch::Sender::new(leads);
        let defaults = ProxyDefaults {
            image: "gateway".to_owned(),
            discovery: "https://cp:15010".to_owned(),
            controller: controller.to_owned(),
        };
        let metrics = Metrics::new(&mut Registry::default());
        let events = Events::start(fake.client.clone(), "nebula.dev/test", "test", metrics.clone(), &tasks);
        let (sink, changes) = mpsc::channel(1000);
        let observed = Arc::new(Observed::default());
        let watches = metrics.watches.clone();
        let provisioner = Provisioner::new(
            fake.client.clone(),
            defaults,
            Orders { wishes: wishes.subscribe(), bundle: bundle.subscribe(), leadership: leading.subscribe() },
            observed.clone(),
            Outlets { events, metrics, changes: sink.clone() },
        );
        tasks.spawn("provisioner", provisioner.run(drain));
        let client = fake.client.clone();
        tasks.spawn("watch", async move { observed.watch(client, controller, sink, watches).await });
        Self { fake, wishes, bundle, leading, changes, _trigger: trigger }
    }

    fn wish(&self, deployment: Deployment) {
        let all: BTreeMap<_, _> = [(gateway(), deployment)].into();
        self.wishes.send_replace(Some(Arc::new(all)));
    }

    fn wish_nothing(&self) {
        self.wishes.send_replace(Some(Arc::default()));
    }

    async fn until(&self, what: &str, done: impl Fn(&Fake) -> bool) {
        let poll = async {
            while !done(&self.fake) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(DEADLINE, poll).await.unwrap_or_else(|_| panic!("{what}: {:?}", self.fake.paths()));
    }

    /// Waits until the translator hears of a failure; or, after one, that there is none any more.
    async fn hears_of_failure(&mut self, fails: bool) -> String {
        let next = async {
            loop {
                let Some(Input::Changes { changes, .. }) = self.changes.recv().await else { continue };
                for change in changes {
                    if let Change::Provisioned { state, .. } = change
                        && state.failure.is_some() == fails
                    {
                        return state.failure.unwrap_or_default();
                    }
                }
            }
        };
        tokio::time::timeout(DEADLINE, next).await.unwrap()
    }
}

fn gateway() -> GatewayKey {
    GatewayKey(ObjectName::new("infra", "edge"))
}

fn wanted(ports: &[u16]) -> Deployment {
    wanted_by("b5c0", ports)
}

fn wanted_by(uid: &str, ports: &[u16]) -> Deployment {
    Deployment::Wanted(Box::new(DeploymentSpec {
        gateway: gateway(),
        uid: uid.to_owned(),
        ports: ports.iter().copied().filter_map(NonZeroU16::new).collect(),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        addresses: Vec::new(),
        settings: GatewayConfigSpec::default(),
    }))
}

/// Waits until whatever the provisioner does now is done: with the clock paused, time goes on only then.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(500)).await;
}

#[tokio::test(start_paused = true)]
async fn a_gateway_gets_its_objects_and_the_bundle_each_owned_by_it() {
    let running = Running::start(true);
    running.wish(wanted(&[80]));
    running.until("all objects", |fake| fake.paths().len() == 4).await;
    for path in [DEPLOYMENT, SERVICE, SERVICE_ACCOUNT, BUNDLE] {
        let object = running.fake.get(path).unwrap_or_else(|| panic!("{path}"));
        assert_eq!(object["metadata"]["ownerReferences"][0]["uid"], "b5c0", "{path}");
    }
    assert_eq!(running.fake.get(BUNDLE).unwrap()["data"]["ca.crt"], "root");
}

#[tokio::test(start_paused = true)]
async fn a_new_root_reaches_the_bundle_and_nothing_else_is_touched() {
    let running = Running::start(true);
    running.wish(wanted(&[80]));
    running.until("all objects", |fake| fake.paths().len() == 4).await;
    let before = running.fake.get(DEPLOYMENT);
    running.bundle.send_replace(Arc::from("root and next"));
    running.until("the bundle", |fake| fake.get(BUNDLE).unwrap_or_default()["data"]["ca.crt"] == "root and next").await;
    assert_eq!(running.fake.get(DEPLOYMENT), before);
    assert_eq!(running.fake.count("PATCH", 200), 1);
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_is_held_is_neither_made_nor_changed_and_still_gets_new_roots() {
    let running = Running::start(true);
    running.wish(Deployment::Held { uid: "b5c0".to_owned() });
    settle().await;
    assert_eq!(running.fake.paths(), [] as [&str; 0]);
    running.wish(wanted(&[80]));
    running.until("all objects", |fake| fake.paths().len() == 4).await;
    let before = [DEPLOYMENT, SERVICE, SERVICE_ACCOUNT].map(|path| running.fake.get(path));
    running.wish(Deployment::Held { uid: "b5c0".to_owned() });
    running.bundle.send_replace(Arc::from("root and next"));
    running.until("the bundle", |fake| fake.get(BUNDLE).unwrap_or_default()["data"]["ca.crt"] == "root and next").await;
    settle().await;
    assert_eq!([DEPLOYMENT, SERVICE, SERVICE_ACCOUNT].map(|path| running.fake.get(path)), before);
}

#[tokio::test(start_paused = true)]
async fn what_somebody_deletes_is_made_again_at_once_and_what_is_changed_by_hand_at_the_next_resync() {
    let running = Running::start(true);
    running.wish(wanted(&[80]));
    running.until("all objects", |fake| fake.paths().len() == 4).await;
    settle().await;
    running.fake.remove(DEPLOYMENT);
    let removed = tokio::time::Instant::now();
    running.until("the deployment", |fake| fake.get(DEPLOYMENT).is_some()).await;
    assert!(removed.elapsed() < Duration::from_secs(1));
    let mut service = running.fake.get(SERVICE).unwrap();
    service["spec"]["type"] = json!("NodePort");
    running.fake.put(SERVICE, service);
    // Other events in the meantime do not put the resync off.
    for _ in 0..7 {
        tokio::time::sleep(Duration::from_secs(100)).await;
        running.wish(wanted(&[80]));
    }
    assert_eq!(running.fake.get(SERVICE).unwrap()["spec"]["type"], "LoadBalancer");
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_went_to_another_class_loses_its_proxies() {
    let running = Running::start(true);
    running.wish(wanted(&[80]));
    running.until("all objects", |fake| fake.paths().len() == 4).await;
    settle().await;
    running.fake.refuse(Some("/deployments/"));
    running.wish_nothing();
    running.until("an attempt", |fake| fake.count("DELETE", 422) > 0).await;
    running.fake.refuse(None);
    running.until("nothing but the bundle", |fake| fake.paths() == [BUNDLE]).await;
}

#[tokio::test(start_paused = true)]
async fn what_another_control_plane_made_is_left_alone() {
    let ours = Running::start(true);
    ours.wish(wanted(&[80]));
    ours.until("all objects", |fake| fake.paths().len() == 4).await;
    let others = Running::on(ours.fake.clone(), "others", true);
    others.wish_nothing();
    settle().await;
    // The Gateway is theirs now, and ours is late to hear of it: what they apply is no longer ours to delete.
    others.wish(wanted(&[80]));
    ours.until("their bundle", |fake| fake.paths().iter().any(|path| path.ends_with("/nebula-ca-others"))).await;
    settle().await;
    ours.wish_nothing();
    settle().await;
    for path in [DEPLOYMENT, SERVICE, SERVICE_ACCOUNT] {
        assert_eq!(ours.fake.get(path).unwrap_or_default()["metadata"]["labels"]["nebula.dev/controller"], "others");
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_between_a_look_and_a_deletion_is_looked_at_first() {
    let running = Running::start(true);
    running.wish(wanted(&[80]));
    running.until("all objects", |fake| fake.paths().len() == 4).await;
    settle().await;
    running.fake.meddle(|account| account["metadata"]["labels"] = json!({}));
    running.wish_nothing();
    running.until("a conflict", |fake| fake.count("DELETE", 409) == 1).await;
    running.until("the deployment's end", |fake| fake.get(DEPLOYMENT).is_none()).await;
    assert!(running.fake.get(SERVICE_ACCOUNT).is_some(), "it is nobody's of ours now");
}

#[tokio::test(start_paused = true)]
async fn an_object_of_somebody_else_is_not_taken_over_and_the_gateway_says_so() {
    let fake = Fake::start();
    let foreign = json!({"metadata": {"name": "edge-nebula", "namespace": "infra"}, "spec": {"type": "ClusterIP"}});
    fake.put(SERVICE, foreign);
    let foreign = fake.get(SERVICE);
    let mut running = Running::on(fake, "ours", true);
    running.wish(wanted(&[80]));
    let failure = running.hears_of_failure(true).await;
    assert!(failure.contains("Service \"edge-nebula\"") && failure.contains("not of this Gateway"), "{failure}");
    assert_eq!(running.fake.get(SERVICE), foreign);
    running.fake.remove(SERVICE);
    running.hears_of_failure(false).await;
    assert_eq!(running.fake.get(SERVICE).unwrap()["spec"]["type"], "LoadBalancer");
}

#[tokio::test(start_paused = true)]
async fn a_gateway_made_anew_waits_until_the_objects_of_the_old_one_are_gone() {
    let running = Running::start(true);
    running.wish(wanted(&[80]));
    running.until("all objects", |fake| fake.paths().len() == 4).await;
    running.wish(wanted_by("d4e1", &[80]));
    settle().await;
    assert_eq!(owners(&running.fake, DEPLOYMENT), ["b5c0"]);
    for path in [DEPLOYMENT, SERVICE, SERVICE_ACCOUNT] {
        running.fake.remove(path);
    }
    running.until("the new objects", |fake| owners(fake, SERVICE) == ["d4e1"]).await;
}

fn owners(fake: &Fake, path: &str) -> Vec<String> {
    let object = fake.get(path).unwrap_or_default();
    let owners = object["metadata"]["ownerReferences"].as_array().cloned().unwrap_or_default();
    owners.iter().map(|owner| owner["uid"].as_str().unwrap_or_default().to_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_no_longer_leads_stops_in_the_middle() {
    let running = Running::start(true);
    running.fake.answer_after(Duration::from_secs(1));
    running.wish(wanted(&[80]));
    running.until("the first object", |fake| !fake.paths().is_empty()).await;
    running.leading.send_replace(false);
    settle().await;
    let written = running.fake.paths();
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert_eq!(running.fake.paths(), written);
    assert!(written.len() < 4);
}

#[tokio::test(start_paused = true)]
async fn what_failed_is_tried_again() {
    let running = Running::start(true);
    running.fake.break_down(true);
    running.wish(wanted(&[80]));
    running.until("a failure", |fake| fake.count("PATCH", 500) > 0).await;
    running.fake.break_down(false);
    running.until("all objects", |fake| fake.paths().len() == 4).await;
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_nobody_tries_to_mend_keeps_nobody_busy() {
    let mut running = Running::start(true);
    running.fake.refuse(Some("/namespaces/infra/"));
    running.wish(wanted(&[80]));
    running.hears_of_failure(true).await;
    running.wish(Deployment::Held { uid: "b5c0".to_owned() });
    running.hears_of_failure(false).await;
    let asked = running.fake.count("PATCH", 422);
    // Time that is paused goes on only while everybody waits for it.
    tokio::time::sleep(Duration::from_mins(5)).await;
    assert_eq!(running.fake.count("PATCH", 422), asked);
}

#[tokio::test(start_paused = true)]
async fn what_the_api_server_refuses_is_told_once_on_the_gateway() {
    let mut running = Running::start(true);
    running.fake.refuse(Some("/deployments/"));
    running.wish(wanted(&[80]));
    let events = |fake: &Fake| -> Vec<String> {
        fake.paths().into_iter().filter(|path| path.contains("/namespaces/infra/events/edge.")).collect()
    };
    running.until("an event", |fake| !events(fake).is_empty()).await;
    running.until("another attempt", |fake| fake.count("PATCH", 422) > 1).await;
    assert!(running.hears_of_failure(true).await.contains("metadata.labels: Invalid value"));
    let told = events(&running.fake);
    assert_eq!(told.len(), 1);
    let event = running.fake.get(&told[0]).unwrap();
    assert_eq!(event["reason"], "ProvisioningFailed");
    assert_eq!(event["regarding"]["uid"], "b5c0");
    assert!(event["note"].as_str().unwrap().contains("metadata.labels: Invalid value"), "{event}");
    running.fake.refuse(None);
    running.until("the deployment", |fake| fake.get(DEPLOYMENT).is_some()).await;
    running.hears_of_failure(false).await;
}

#[tokio::test(start_paused = true)]
async fn a_replica_makes_nothing_until_it_leads_and_then_everything() {
    let running = Running::start(false);
    running.wish(wanted(&[80]));
    running.bundle.send_replace(Arc::from("root and next"));
    running.leading.send_replace(true);
    running.until("all objects", |fake| fake.paths().len() == 4).await;
    assert_eq!(running.fake.get(BUNDLE).unwrap()["data"]["ca.crt"], "root and next");
    // Anything written earlier would have been written once more now.
    assert_eq!((running.fake.count("PATCH", 201), running.fake.count("PATCH", 200)), (4, 0));
}
