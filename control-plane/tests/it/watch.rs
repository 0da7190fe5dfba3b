//! The watches against the fake: what gets through when one object cannot be read, and when a line falls silent.

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
use tokio::{sync::mpsc, time::Instant};

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

#[tokio::test(start_paused = true)]
async fn a_watch_on_a_line_that_fell_silent_is_begun_anew_within_a_minute_and_misses_nothing() {
    let fake = Fake::start();
    put(&fake, "cart", 1, &json!([]));
    let mut running = Running::start(fake);
    assert_eq!(running.changes().await, ["+cart"]);
    put(&running.fake, "cart", 2, &json!([]));
    assert_eq!(running.changes().await, ["+cart"]);
    running.fake.fall_silent(true);
    put(&running.fake, "cart", 3, &json!([]));
    let before = running.fake.watches(ROUTES);
    let lost = Instant::now();
    // Nothing comes: the time passes.
    let until = lost + Duration::from_mins(1);
    while running.fake.watches(ROUTES) == before && Instant::now() < until {
        tokio::time::advance(Duration::from_secs(1)).await;
        tokio::task::yield_now().await;
    }
    assert!(running.fake.watches(ROUTES) > before, "still the same watch after {:?}", lost.elapsed());
    running.fake.fall_silent(false);
    assert_eq!(running.changes().await, ["+cart"]);
}
