//! Writes statuses: the leader alone, only what differs, and never over what others wrote.
//!
//! A write is a read-modify-write: the object as the API server has it now, our entries merged into its status, and a
//! JSON merge patch of `/status` which carries the `resourceVersion` that was read. Of two writers at once one gets a
//! conflict and starts over. (Server-side apply would own the lists of conditions and parents entry by entry only where
//! their schema says so, and `parents` is one atomic list in the Gateway API: it would throw away other controllers'.)
//! Invariant: per object one write at a time, and the newest wanted status wins.

mod board;
mod patch;

use std::{sync::Arc, time::Duration};

use control_plane_translate::{Kind, StatusUpdate, merge_status};
use crds::{
    AuthenticationPolicy, BackendPolicy, ClientPolicy, GatewayConfig, RateLimitPolicy, RequestValidationPolicy,
    gateway_api::{BackendTLSPolicy, GRPCRoute, Gateway, GatewayClass, HTTPRoute, ListenerSet},
};
use jiff::Timestamp;
use kit_process::{clock::Clock, drain::Drain, tasks::Tasks};
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, Patch, PatchParams},
};
use serde_json::{Value, json};

pub use board::Board;

use crate::{
    events::Events,
    kubernetes::{FIELD_MANAGER, describe, is_status},
    lease::Leadership,
    metrics::Metrics,
    pace::Pace,
};

/// Writes at the same time.
const WRITERS: usize = 8;
/// Writes a second in the long run: 5,000 routes take under half a minute and leave the API server to others.
const RATE: u32 = 200;
/// Writes that may come at once after a quiet time.
const BURST: u32 = 100;
/// Conflicts in a row before an object goes to the end of the queue.
const ATTEMPTS: usize = 5;
const RETRY: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(10);

/// How one write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// The status is now what it should be.
    Written,
    /// It was already.
    Unchanged,
    /// The object is gone, or newer than what we wanted to say about it.
    Outdated,
    /// Try again later.
    Failed,
    /// The API server will never take it.
    Refused,
}

impl Outcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Written => "written",
            Self::Unchanged => "unchanged",
            Self::Outdated => "outdated",
            Self::Failed => "failed",
            Self::Refused => "refused",
        }
    }
}

/// Writes what the board wants.
pub struct Writer {
    client: Client,
    board: Arc<Board>,
    controller: String,
    leadership: Leadership,
    events: Events,
    metrics: Metrics,
    clock: Arc<dyn Clock>,
    pace: Pace,
}

impl Writer {
    /// For the controller named `controller`; writes while `leadership` says so.
    pub fn new(
        client: Client,
        board: Arc<Board>,
        controller: &str,
        leadership: Leadership,
        events: Events,
        metrics: Metrics,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let controller = controller.to_owned();
        Self { client, board, controller, leadership, events, metrics, clock, pace: Pace::new(RATE, BURST) }
    }

    /// Starts the writers.
    pub fn start(self, tasks: &Tasks) {
        let writer = Arc::new(self);
        for _ in 0..WRITERS {
            tasks.spawn("status writer", writer.clone().run(tasks.drain().clone()));
        }
    }

    async fn run(self: Arc<Self>, drain: Drain) {
        loop {
            let update = tokio::select! {
                update = self.board.next() => update,
                () = drain.signaled() => return,
            };
            let outcome = tokio::select! {
                outcome = self.write(&update) => outcome,
                () = drain.signaled() => return,
            };
            self.metrics.status_write(outcome.as_str());
            let again = outcome == Outcome::Failed && *self.leadership.borrow();
            if again {
                tokio::time::sleep(RETRY).await;
            }
            self.board.done(update, again);
        }
    }

    async fn write(&self, update: &StatusUpdate) -> Outcome {
        let known = self.board.status(update.kind, &update.name);
        let Some(known) = known else { return Outcome::Outdated };
        if self.merged(&known, update).is_none() {
            return Outcome::Unchanged;
        }
        for _ in 0..ATTEMPTS {
            self.pace.wait().await;
            if !*self.leadership.borrow() {
                return Outcome::Outdated;
            }
            match tokio::time::timeout(TIMEOUT, self.attempt(update)).await {
                Ok(Ok(outcome)) => return outcome,
                Ok(Err(error)) if is_status(&error, 409) => {}
                Ok(Err(error)) if is_status(&error, 404) => return Outcome::Outdated,
                Ok(Err(error)) => {
                    let refused = is_status(&error, 422) || is_status(&error, 400);
                    tracing::warn!(kind = %update.kind, object = %update.name, error = describe(&error), "status not written");
                    return if refused { Outcome::Refused } else { Outcome::Failed };
                }
                Err(_) => {
                    tracing::warn!(kind = %update.kind, object = %update.name, "status not written in time");
                    return Outcome::Failed;
                }
            }
        }
        Outcome::Failed
    }

    /// Reads the object, merges, and writes unless there is nothing to write.
    async fn attempt(&self, update: &StatusUpdate) -> kube::Result<Outcome> {
        let Some(resource) = resource(update.kind) else { return Ok(Outcome::Refused) };
        let api: Api<DynamicObject> = if update.kind.is_namespaced() {
            Api::namespaced_with(self.client.clone(), &update.name.namespace, &resource)
        } else {
            Api::all_with(self.client.clone(), &resource)
        };
        let object = api.get(&update.name.name).await?;
        if object.metadata.generation.unwrap_or_default() > update.generation {
            return Ok(Outcome::Outdated);
        }
        let current = object.data.get("status").unwrap_or(&Value::Null);
        let Some(wanted) = self.merged(current, update) else { return Ok(Outcome::Unchanged) };
        let status = patch::between(current, &wanted);
        let patch = json!({"metadata": {"resourceVersion": object.metadata.resource_version}, "status": status});
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        api.patch_status(&update.name.name, &params, &Patch::Merge(&patch)).await?;
        self.events.status_changed(&resource, &object, current, &wanted, &self.controller);
        Ok(Outcome::Written)
    }

    fn merged(&self, current: &Value, update: &StatusUpdate) -> Option<Value> {
        // A clock outside jiff's range (the years -9999 to 9999) reads as 1970.
        let now = Timestamp::try_from(self.clock.now()).unwrap_or(Timestamp::UNIX_EPOCH);
        merge_status(update.kind, current, update, &self.controller, now)
    }
}

/// Where the API server keeps a kind whose status we write.
fn resource(kind: Kind) -> Option<ApiResource> {
    Some(match kind {
        Kind::GatewayClass => ApiResource::erase::<GatewayClass>(&()),
        Kind::Gateway => ApiResource::erase::<Gateway>(&()),
        Kind::ListenerSet => ApiResource::erase::<ListenerSet>(&()),
        Kind::HttpRoute => ApiResource::erase::<HTTPRoute>(&()),
        Kind::GrpcRoute => ApiResource::erase::<GRPCRoute>(&()),
        Kind::BackendTlsPolicy => ApiResource::erase::<BackendTLSPolicy>(&()),
        Kind::GatewayConfig => ApiResource::erase::<GatewayConfig>(&()),
        Kind::RateLimitPolicy => ApiResource::erase::<RateLimitPolicy>(&()),
        Kind::BackendPolicy => ApiResource::erase::<BackendPolicy>(&()),
        Kind::RequestValidationPolicy => ApiResource::erase::<RequestValidationPolicy>(&()),
        Kind::ClientPolicy => ApiResource::erase::<ClientPolicy>(&()),
        Kind::AuthenticationPolicy => ApiResource::erase::<AuthenticationPolicy>(&()),
        Kind::IdentityProvider
        | Kind::ReferenceGrant
        | Kind::Service
        | Kind::EndpointSlice
        | Kind::Secret
        | Kind::ConfigMap
        | Kind::Namespace => return None,
    })
}
