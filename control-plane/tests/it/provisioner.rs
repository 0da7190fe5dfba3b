//! The provisioner against the fake: what it makes, when it does not, and what it tries again.

use std::{collections::BTreeMap, num::NonZeroU16, sync::Arc, time::Duration};

use control_plane::{
    events::Events,
    metrics::Metrics,
    provisioner::{Observed, Orders, Provisioner, ProxyDefaults, Wishes},
};
use control_plane_model::{GatewayKey, ObjectName};
use control_plane_translate::{Deployment, DeploymentSpec};
use crds::gateway_config::GatewayConfigSpec;
use kit_process::{
    drain::{self, DrainTrigger},
    tasks::Tasks,
};
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use crate::fake::Fake;

const DEADLINE: Duration = Duration::from_secs(10);
const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/infra/deployments/edge-nebula";
const SERVICE: &str = "/api/v1/namespaces/infra/services/edge-nebula";
const SERVICE_ACCOUNT: &str = "/api/v1/namespaces/infra/serviceaccounts/edge-nebula";
const BUNDLE: &str = "/api/v1/namespaces/infra/configmaps/nebula-ca";

struct Running {
    fake: Fake,
    wishes: watch::Sender<Wishes>,
    bundle: watch::Sender<Arc<str>>,
    leading: watch::Sender<bool>,
    _trigger: DrainTrigger,
}

impl Running {
    fn start(leads: bool) -> Self {
        let fake = Fake::start();
        let (trigger, drain) = drain::channel();
        let tasks = Tasks::new(drain.clone());
        let wishes = watch::Sender::new(None);
        let bundle = watch::Sender::new(Arc::from("root"));
        let leading = watch::Sender::new(leads);
        let defaults = ProxyDefaults { image: "gateway".to_owned(), discovery: "https://cp:15010".to_owned() };
        let metrics = Metrics::new(&mut Registry::default());
        let events = Events::start(fake.client.clone(), "nebula.dev/test", "test", metrics.clone(), &tasks);
        let provisioner = Provisioner::new(
            fake.client.clone(),
            defaults,
            Orders { wishes: wishes.subscribe(), bundle: bundle.subscribe(), leadership: leading.subscribe() },
            Arc::new(Observed::default()),
            events,
            metrics,
        );
        tasks.spawn("provisioner", provisioner.run(drain));
        Self { fake, wishes, bundle, leading, _trigger: trigger }
    }

    fn wish(&self, deployment: Deployment) {
        let all: BTreeMap<_, _> = [(gateway(), deployment)].into();
        self.wishes.send_replace(Some(Arc::new(all)));
    }

    async fn until(&self, what: &str, done: impl Fn(&Fake) -> bool) {
        let poll = async {
            while !done(&self.fake) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(DEADLINE, poll).await.unwrap_or_else(|_| panic!("{what}: {:?}", self.fake.paths()));
    }
}

fn gateway() -> GatewayKey {
    GatewayKey(ObjectName::new("infra", "edge"))
}

fn wanted(ports: &[u16]) -> Deployment {
    Deployment::Wanted(Box::new(DeploymentSpec {
        gateway: gateway(),
        uid: "b5c0".to_owned(),
        ports: ports.iter().copied().filter_map(NonZeroU16::new).collect(),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        addresses: Vec::new(),
        settings: GatewayConfigSpec::default(),
    }))
}

#[tokio::test]
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

#[tokio::test]
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

#[tokio::test]
async fn a_gateway_that_is_held_is_neither_made_nor_changed() {
    let running = Running::start(true);
    running.wish(wanted(&[80]));
    running.until("all objects", |fake| fake.paths().len() == 4).await;
    running.wish(Deployment::Held);
    running.wish(wanted(&[80, 81]));
    running.until("the second port", |fake| !fake.get(SERVICE).unwrap_or_default()["spec"]["ports"][1].is_null()).await;
    assert_eq!(running.fake.count("DELETE", 200), 0);
}

#[tokio::test]
async fn what_failed_is_tried_again() {
    let running = Running::start(true);
    running.fake.break_down(true);
    running.wish(wanted(&[80]));
    running.until("a failure", |fake| fake.count("PATCH", 500) > 0).await;
    running.fake.break_down(false);
    running.until("all objects", |fake| fake.paths().len() == 4).await;
}

#[tokio::test]
async fn what_the_api_server_refuses_is_told_once_on_the_gateway() {
    let running = Running::start(true);
    running.fake.refuse(Some("/deployments/"));
    running.wish(wanted(&[80]));
    let events = |fake: &Fake| -> Vec<String> {
        fake.paths().into_iter().filter(|path| path.contains("/namespaces/infra/events/edge.")).collect()
    };
    running.until("an event", |fake| !events(fake).is_empty()).await;
    running.until("another attempt", |fake| fake.count("PATCH", 422) > 1).await;
    let told = events(&running.fake);
    assert_eq!(told.len(), 1);
    let event = running.fake.get(&told[0]).unwrap();
    assert_eq!(event["reason"], "ProvisioningFailed");
    assert_eq!(event["regarding"]["uid"], "b5c0");
    assert!(event["note"].as_str().unwrap().contains("metadata.labels: Invalid value"), "{event}");
    running.fake.refuse(None);
    running.until("the deployment", |fake| fake.get(DEPLOYMENT).is_some()).await;
}

#[tokio::test]
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
