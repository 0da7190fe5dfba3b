//! Named background tasks that end with the process, and whose panic is seen.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::FutureExt as _;
use tokio_util::task::TaskTracker;

use crate::drain::Drain;

/// The background tasks of a process, or of a part of it. Clones share the same set.
#[derive(Clone, Debug)]
pub struct Tasks {
    tracker: TaskTracker,
    drain: Drain,
    panicked: Arc<AtomicBool>,
}

impl Tasks {
    /// An empty set whose tasks watch `drain`.
    pub fn new(drain: Drain) -> Self {
        Self { tracker: TaskTracker::new(), drain, panicked: Arc::default() }
    }

    /// The drain that the tasks watch.
    pub fn drain(&self) -> &Drain {
        &self.drain
    }

    /// Runs `task` to its end. It should watch the drain itself; a panic is logged and makes the set unhealthy.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let tracked = self.tracker.track_future(task);
        self.spawn_detached(name, tracked);
    }

    /// As [`Self::spawn`], but nobody waits for its end: for what serves until the runtime goes.
    #[expect(clippy::disallowed_methods, reason = "the one place that spawns")]
    pub fn spawn_detached(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let panicked = self.panicked.clone();
        tokio::spawn(async move {
            if std::panic::AssertUnwindSafe(task).catch_unwind().await.is_err() {
                panicked.store(true, Ordering::Relaxed);
                tracing::error!(task = name, "background task panicked");
            }
        });
    }

    /// Whether no task has panicked.
    pub fn is_healthy(&self) -> bool {
        !self.panicked.load(Ordering::Relaxed)
    }

    /// Waits until every task has ended, at most `limit`; tells whether they all did.
    pub async fn finished(&self, limit: Duration) -> bool {
        self.tracker.close();
        tokio::time::timeout(limit, self.tracker.wait()).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_ends_the_task_alone_and_is_remembered() {
        let (_trigger, drain) = crate::drain::channel();
        let tasks = Tasks::new(drain);
        tasks.spawn("breaks", async { panic!("as planned") });
        assert!(tasks.finished(Duration::from_secs(5)).await);
        assert!(!tasks.is_healthy());
    }
}
