//! The watches against the fake: what gets through when one object cannot be read.

use std::{sync::Arc, time::Duration};

use control_plane::{
    metrics::WatchMetrics,
    status::Board,
    watch::{self, Context, Input},
};
use control_plane_translate::Change;
use kit_process::{
    drain::{self, DrainTrigger},
    tasks::Tasks,
};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::fake::Fake;

const ROUTES: &str = "/apis/gateway.networking.k8s.io/v1/httproutes";
const DEADLINE: Duration = Duration::from_secs(10);

struct Running {
    fake: Fake,
    inputs: mpsc::Receiver<Input>,
    _trigger: DrainTrigger,
}

impl Running {
    fn start(fake: Fake) -> Self {
        let (trigger, drain) = drain::channel();
        let tasks = Tasks::new(drain.clone());
        let (sink, inputs) = mpsc::channel(64);
        let (board, metrics) = (Arc::<Board>::default(), WatchMetrics::default());
        watch::start(&Context { client: fake.client.clone(), sink, board, metrics, drain }, &tasks);
        Self { fake, inputs, _trigger: trigger }
    }

    /// The next changes of objects, as `+name` and `-name`.
    async fn changes(&mut self) -> Vec<String> {
        loop {
            let input = tokio::time::timeout(DEADLINE, self.inputs.recv()).await.unwrap().unwrap();
            let Input::Changes { changes, .. } = input else { continue };
            if !changes.is_empty() {
                return changes.iter().map(describe).collect();
            }
        }
    }
}

fn describe(change: &Change) -> String {
    match change {
        Change::Upsert(object) => format!("+{}", object.name().name),
        Change::Remove(_, name) => format!("-{}", name.name),
        other => format!("{other:?}"),
    }
}

fn put(fake: &Fake, name: &str, generation: u32, filters: &Value) {
    let metadata = json!({"name": name, "namespace": "shop", "generation": generation});
    let path = format!("/apis/gateway.networking.k8s.io/v1/namespaces/shop/httproutes/{name}");
    fake.put(&path, json!({"metadata": metadata, "spec": {"rules": [{"filters": filters}]}}));
}

#[tokio::test]
async fn one_object_that_cannot_be_read_holds_up_no_other_of_its_kind() {
    let fake = Fake::start();
    let future = json!([{"type": "FromTheFuture"}]);
    put(&fake, "bad", 1, &future);
    put(&fake, "good", 1, &json!([]));
    let mut running = Running::start(fake);
    assert_eq!(running.changes().await, ["+good"]);
    put(&running.fake, "good", 2, &json!([]));
    assert_eq!(running.changes().await, ["+good"]);
    put(&running.fake, "good", 3, &future);
    put(&running.fake, "bad", 2, &json!([]));
    assert_eq!(running.changes().await, ["+bad"]);
    assert_eq!(running.fake.watches(ROUTES), 1);
}
