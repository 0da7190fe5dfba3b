//! The apply loop: changes in, configuration to the proxies, statuses to their writer, wishes to the provisioner.
//!
//! One task owns the translator, so there is one order of events. There is no waiting for more changes to come: what is
//! queued is taken as one batch, and while a batch is translated the next one gathers.
//! Invariant: proxies are answered, and statuses and objects written, only once every source was complete. Until then the
//! translator takes what there is all the same, so that what waits is as large as the cluster and not as its history.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use control_plane_model::{GatewayKey, ObjectName};
use control_plane_translate::{Change, Kind, Output, Translator};
use control_plane_wire::server::Hub;
use kit_process::{drain::Drain, telemetry::Readiness};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use crate::{
    authenticate::ServiceAccounts,
    lease::Leadership,
    metrics::Metrics,
    provisioner::{Wishes, names::resource_name},
    status::Board,
    watch::{Input, Source, sources},
};

/// Inputs that wait for the loop. The watches wait when there are more.
pub const QUEUE: usize = 4096;
const READINESS: &str = "watches";

/// Where results go.
pub struct Outlets {
    /// The proxies.
    pub hub: Hub,
    /// The status writers.
    pub board: Arc<Board>,
    /// The provisioner.
    pub wishes: watch::Sender<Wishes>,
    /// The authentication of proxies.
    pub service_accounts: ServiceAccounts,
}

/// See the module.
pub struct Controller {
    translator: Translator,
    outlets: Outlets,
    leadership: Leadership,
    metrics: Metrics,
    readiness: Readiness,
    /// Sources that were not complete yet.
    missing: BTreeSet<Source>,
}

impl Controller {
    /// Feeds `outlets` from `translator`. Not ready until every source was complete.
    pub fn new(
        translator: Translator,
        outlets: Outlets,
        leadership: Leadership,
        metrics: Metrics,
        readiness: Readiness,
    ) -> Self {
        let missing: BTreeSet<Source> = sources().into_iter().collect();
        readiness.pending(READINESS, waiting_for(&missing));
        Self { translator, outlets, leadership, metrics, readiness, missing }
    }

    /// Works until the drain.
    pub async fn run(mut self, mut inputs: mpsc::Receiver<Input>, drain: Drain) {
        loop {
            let input = tokio::select! {
                input = inputs.recv() => input,
                changed = self.leadership.changed() => {
                    // An error means that the election is over, because the process is ending.
                    if changed.is_err() {
                        return;
                    }
                    self.leadership_changed();
                    continue;
                }
                () = drain.signaled() => return,
            };
            let Some(first) = input else { return };
            self.batch(first, &mut inputs);
        }
    }

    /// Takes `first` and everything that waits behind it as one moment.
    fn batch(&mut self, first: Input, inputs: &mut mpsc::Receiver<Input>) {
        let mut changes = Vec::new();
        let mut seen = Vec::new();
        let mut since: Option<Instant> = None;
        let mut next = Some(first);
        let mut taken = 0;
        while let Some(input) = next {
            match input {
                Input::Changes { changes: more, synced, received } => {
                    changes.extend(more);
                    since = Some(since.map_or(received, |since| since.min(received)));
                    if let Some(source) = synced {
                        self.missing.remove(&source);
                    }
                }
                Input::StatusSeen(kind, name) => seen.push((kind, name)),
            }
            taken += 1;
            next = if taken < QUEUE { inputs.try_recv().ok() } else { None };
        }
        if !self.missing.is_empty() {
            self.readiness.pending(READINESS, waiting_for(&self.missing));
            self.gather(changes);
            return;
        }
        if !changes.is_empty() || !self.outlets.hub.is_synced() {
            self.apply(changes, since);
        }
        if *self.leadership.borrow() {
            for (kind, name) in seen {
                if let Some(update) = self.translator.status(kind, &name) {
                    self.outlets.board.want(update.clone());
                }
            }
        }
    }

    /// Takes changes while some sources are missing. The hub holds them and answers nobody yet.
    fn gather(&mut self, changes: Vec<Change>) {
        if !changes.is_empty() {
            let output = self.translator.apply(changes);
            self.outlets.hub.publish_with(&output.delta, &output.revisions);
        }
    }

    fn apply(&mut self, changes: Vec<Change>, since: Option<Instant>) {
        let count = changes.len();
        let start = Instant::now();
        let output = self.translator.apply(changes);
        let translated = start.elapsed();
        self.metrics.translate.observe(translated.as_secs_f64());
        let Output { delta, revisions, statuses, deployments_changed, .. } = output;
        let first = !self.outlets.hub.is_synced();
        if deployments_changed || first {
            self.deployments_changed();
        }
        self.outlets.hub.publish_with(&delta, &revisions);
        if !delta.is_empty() || first {
            self.count_resources();
        }
        if let Some(since) = since {
            self.metrics.publish.observe(since.elapsed().as_secs_f64());
        }
        tracing::debug!(
            changes = count,
            upserted = delta.upserted.len(),
            removed = delta.removed.len(),
            statuses = statuses.len(),
            microseconds = u64::try_from(translated.as_micros()).unwrap_or(u64::MAX),
            "changes applied"
        );
        if first {
            self.outlets.hub.mark_synced();
            self.readiness.done(READINESS);
            tracing::info!(changes = count, "every watch is read: proxies are answered");
        }
        if first {
            self.want_all();
        } else if *self.leadership.borrow() {
            for update in statuses {
                self.outlets.board.want(update);
            }
        }
    }

    fn deployments_changed(&self) {
        let deployments = self.translator.deployments();
        let account = |gateway: &GatewayKey| {
            (ObjectName::new(gateway.0.namespace.clone(), resource_name(&gateway.0.name)), gateway.clone())
        };
        let accounts: HashMap<ObjectName, GatewayKey> = deployments.keys().map(account).collect();
        self.outlets.service_accounts.store(Some(Arc::new(accounts)));
        self.outlets.wishes.send_replace(Some(Arc::new(deployments.clone())));
    }

    fn leadership_changed(&mut self) {
        let leads = *self.leadership.borrow_and_update();
        self.metrics.leader.set(i64::from(leads));
        if !leads {
            self.outlets.board.clear();
        } else if self.outlets.hub.is_synced() {
            self.want_all();
        }
    }

    /// Wants every status, if this replica leads.
    fn want_all(&self) {
        if *self.leadership.borrow() {
            for update in self.translator.statuses() {
                self.outlets.board.want(update.clone());
            }
        }
    }

    fn count_resources(&self) {
        let snapshot = self.translator.snapshot();
        self.metrics.resources("gateway", snapshot.gateways.len());
        self.metrics.resources("certificate", snapshot.certificates.len());
        self.metrics.resources("listener", snapshot.listeners.len());
        self.metrics.resources("backend", snapshot.backends.len());
        self.metrics.resources("endpoints", snapshot.endpoints.len());
        self.metrics.resources("route", snapshot.routes.len());
    }
}

fn waiting_for(missing: &BTreeSet<Source>) -> String {
    let name = |source: &Source| match source {
        Source::Kind(kind) => kind.to_string(),
        Source::Credentials => "Secret (credentials)".to_owned(),
        Source::Provisioned => "own Deployments and Services".to_owned(),
        Source::Reports => "reports of other replicas".to_owned(),
    };
    let names: Vec<String> = missing.iter().map(name).collect();
    let defined = missing.contains(&Source::Kind(Kind::GatewayClass));
    let hint = if defined {
        " (are the custom resource definitions installed? they are in the chart nebula-crds)"
    } else {
        ""
    };
    format!("waiting for {}{hint}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use control_plane_translate::{Mode, Object, Options};
    use prometheus_client::registry::Registry;
    use serde_json::json;

    use super::*;

    struct Started {
        controller: Controller,
        inputs: mpsc::Receiver<Input>,
        _leading: watch::Sender<bool>,
    }

    impl Started {
        fn new() -> Self {
            let options = Options { mode: Mode::Cluster, controller_name: "nebula.dev/test".to_owned() };
            let leading = watch::Sender::new(true);
            let outlets = Outlets {
                hub: Hub::new(),
                board: Arc::default(),
                wishes: watch::Sender::new(None),
                service_accounts: ServiceAccounts::default(),
            };
            let metrics = Metrics::new(&mut Registry::default());
            let translator = Translator::new(options);
            let controller = Controller::new(translator, outlets, leading.subscribe(), metrics, Readiness::new());
            let (_, inputs) = mpsc::channel(1);
            Self { controller, inputs, _leading: leading }
        }

        fn take(&mut self, changes: Vec<Change>, synced: Option<Source>) {
            self.controller.batch(Input::Changes { changes, synced, received: Instant::now() }, &mut self.inputs);
        }
    }

    fn gateway() -> Vec<Change> {
        let class = json!({"metadata": {"name": "nebula"}, "spec": {"controllerName": "nebula.dev/test"}});
        let listener = json!({"name": "http", "port": 80, "protocol": "HTTP"});
        let metadata = json!({"name": "edge", "namespace": "infra", "uid": "b5c0", "generation": 1});
        let gateway = json!({"metadata": metadata, "spec": {"gatewayClassName": "nebula", "listeners": [listener]}});
        vec![
            Change::Upsert(Object::GatewayClass(Arc::new(serde_json::from_value(class).unwrap()))),
            Change::Upsert(Object::Gateway(Arc::new(serde_json::from_value(gateway).unwrap()))),
        ]
    }

    #[tokio::test]
    async fn while_a_watch_is_missing_changes_are_taken_and_nobody_hears_of_them() {
        let mut started = Started::new();
        let mut sources = sources();
        let last = sources.pop();
        for source in sources {
            started.take(gateway(), Some(source));
        }
        let Outlets { hub, board, wishes, service_accounts } = &started.controller.outlets;
        assert_eq!(started.controller.translator.snapshot().gateways.len(), 1);
        assert!(!hub.is_synced() && board.is_idle() && wishes.borrow().is_none() && service_accounts.load().is_none());
        started.take(Vec::new(), last);
        let Outlets { hub, board, wishes, service_accounts } = &started.controller.outlets;
        assert!(hub.is_synced() && !board.is_idle());
        assert_eq!(wishes.borrow().as_ref().map(|wishes| wishes.len()), Some(1));
        assert_eq!(service_accounts.load().as_ref().map(|accounts| accounts.len()), Some(1));
    }
}
