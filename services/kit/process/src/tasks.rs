//! Named background tasks that end with the process, and whose panic is seen.

use std::{future::Future, sync::Arc, time::Duration};

use futures::FutureExt as _;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use crate::drain::Drain;

/// The background tasks of a process, or of a part of it. Clones share the same set.
#[derive(Clone, Debug)]
pub struct Tasks {
    tracker: TaskTracker,
    drain: Drain,
    /// The first task that failed.
    failed: Arc<watch::Sender<Option<&'static str>>>,
}

impl Tasks {
    /// An empty set whose tasks watch `drain`.
    pub fn new(drain: Drain) -> Self {
        Self { tracker: TaskTracker::new(), drain, failed: Arc::default() }
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
        let tasks = self.clone();
        tokio::spawn(async move {
            if std::panic::AssertUnwindSafe(task).catch_unwind().await.is_err() {
                tracing::error!(task = name, "background task panicked");
                tasks.fail(name);
            }
        });
    }

    /// Says that the task `name` can no longer do its work. A panic says so by itself.
    pub fn fail(&self, name: &'static str) {
        self.failed.send_if_modified(|failed| {
            let first = failed.is_none();
            failed.get_or_insert(name);
            first
        });
    }

    /// Whether no task has failed.
    pub fn is_healthy(&self) -> bool {
        self.failed.borrow().is_none()
    }

    /// Waits until a task fails, and names the first that did. Cancel-safe.
    pub async fn failed(&self) -> &'static str {
        let mut receiver = self.failed.subscribe();
        let failed = receiver.wait_for(Option::is_some).await.ok().and_then(|name| *name);
        match failed {
            Some(name) => name,
            // The sender lives as long as `self`.
            None => std::future::pending().await,
        }
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
        assert_eq!(tasks.failed().await, "breaks");
    }

    #[tokio::test]
    async fn the_first_task_that_fails_is_named_to_whoever_waits() {
        let (_trigger, drain) = crate::drain::channel();
        let tasks = Tasks::new(drain);
        assert!(tasks.is_healthy());
        let waiting = tasks.failed();
        tasks.fail("first");
        tasks.fail("second");
        assert_eq!(waiting.await, "first");
        assert!(!tasks.is_healthy());
    }
}
