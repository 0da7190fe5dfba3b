//! The status writers against the fake: foreign entries, conflicts, silence.

use std::{sync::Arc, time::Duration};

use control_plane::{
    events::Events,
    metrics::Metrics,
    status::{Board, Writer},
};
use control_plane_model::ObjectName;
use control_plane_translate::{Kind, StatusUpdate};
use kit_process::{
    clock::SystemClock,
    drain::{self, DrainTrigger},
    tasks::Tasks,
};
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::fake::Fake;

const ROUTE: &str = "/apis/gateway.networking.k8s.io/v1/namespaces/shop/httproutes/cart";
const US: &str = "nebula.dev/gateway-controller";
const DEADLINE: Duration = Duration::from_secs(10);

struct Running {
    fake: Fake,
    board: Arc<Board>,
    leading: watch::Sender<bool>,
    _trigger: DrainTrigger,
}

impl Running {
    fn start() -> Self {
        let fake = Fake::start();
        let (trigger, drain) = drain::channel();
        let tasks = Tasks::new(drain);
        let metrics = Metrics::new(&mut Registry::default());
        let events = Events::start(fake.client.clone(), US, "test", metrics.clone(), &tasks);
        let (board, leading) = (Arc::new(Board::default()), watch::Sender::new(true));
        let clock = Arc::new(SystemClock);
        let client = fake.client.clone();
        Writer::new(client, board.clone(), US, leading.subscribe(), events, metrics, clock).start(&tasks);
        Self { fake, board, leading, _trigger: trigger }
    }

    /// The route as the API server has it, seen by the watch.
    fn route(&self, status: Value) {
        self.board.observed(Kind::HttpRoute, &name(), status.to_string());
        let metadata = json!({"name": "cart", "namespace": "shop", "generation": 1});
        self.fake.put(ROUTE, json!({"metadata": metadata, "spec": {"hostnames": ["a.example"]}, "status": status}));
    }

    fn want(&self, accepted: &str) {
        let condition =
            json!({"type": "Accepted", "status": accepted, "reason": "R", "message": "", "observedGeneration": 1});
        let parents = json!([{"controllerName": US, "parentRef": {"name": "edge"}, "conditions": [condition]}]);
        let status = json!({"parents": parents});
        self.board.want(StatusUpdate { kind: Kind::HttpRoute, name: name(), generation: 1, status });
    }

    async fn until(&self, what: &str, done: impl Fn(&Fake) -> bool) {
        let poll = async {
            while !done(&self.fake) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(DEADLINE, poll).await.unwrap_or_else(|_| panic!("{what}: {:?}", self.fake.get(ROUTE)));
    }

    fn parents(&self) -> Vec<Value> {
        self.fake.get(ROUTE).unwrap()["status"]["parents"].as_array().cloned().unwrap_or_default()
    }
}

fn name() -> ObjectName {
    ObjectName::new("shop", "cart")
}

fn accepted(fake: &Fake, want: &str) -> bool {
    let parents = fake.get(ROUTE).unwrap_or_default()["status"]["parents"].clone();
    let ours = parents.as_array().into_iter().flatten().find(|parent| parent["controllerName"] == US);
    ours.is_some_and(|parent| parent["conditions"][0]["status"] == want)
}

#[tokio::test]
async fn a_parent_that_another_controller_adds_meanwhile_is_kept() {
    let running = Running::start();
    running.route(json!({"parents": []}));
    let foreign = json!({"controllerName": "other", "parentRef": {"name": "x"}, "conditions": []});
    let theirs = foreign.clone();
    running.fake.meddle(move |route| route["status"]["parents"] = json!([theirs]));
    running.want("True");
    running.until("our parent", |fake| accepted(fake, "True")).await;
    assert_eq!(running.fake.count("PATCH", 409), 1);
    assert_eq!(running.parents().len(), 2);
    assert_eq!(running.parents()[0], foreign);
    assert_eq!(running.fake.get(ROUTE).unwrap()["spec"], json!({"hostnames": ["a.example"]}));
}

#[tokio::test]
async fn a_status_that_is_there_already_costs_no_request() {
    let running = Running::start();
    running.route(json!({"parents": []}));
    running.want("True");
    running.until("our parent", |fake| accepted(fake, "True")).await;
    running.until("an empty queue", |_| running.board.is_idle()).await;
    let written = running.fake.get(ROUTE).unwrap()["status"].to_string();
    running.board.observed(Kind::HttpRoute, &name(), written);
    running.want("True");
    running.until("an empty queue", |_| running.board.is_idle()).await;
    assert_eq!(running.fake.count("GET", 200), 1);
    running.want("False");
    running.until("the change", |fake| accepted(fake, "False")).await;
    assert_eq!(running.fake.count("GET", 200), 2);
}

#[tokio::test]
async fn what_could_not_be_written_is_written_when_the_api_server_is_back() {
    let running = Running::start();
    running.route(json!({"parents": []}));
    running.fake.break_down(true);
    running.want("True");
    running.until("a failure", |fake| fake.count("GET", 500) > 0).await;
    running.fake.break_down(false);
    running.until("our parent", |fake| accepted(fake, "True")).await;
}

#[tokio::test]
async fn who_does_not_lead_does_not_write() {
    let running = Running::start();
    running.route(json!({"parents": []}));
    running.leading.send_replace(false);
    running.want("False");
    running.until("an empty queue", |_| running.board.is_idle()).await;
    assert_eq!(running.fake.count("PATCH", 200), 0);
    assert!(running.parents().is_empty());
}
