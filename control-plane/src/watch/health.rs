//! Whether a watch is whole, for the log and the metrics.
//! Invariant: the same failure is said once, and its end is said once.

use std::time::Duration;

use kube::runtime::watcher::{self, Event};
use tokio::time::Instant;

use crate::{
    kubernetes::{describe, is_status},
    metrics::WatchMetrics,
};

/// Longer than the longest wait between two attempts and the time that one of them takes to fail.
const QUIET: Duration = Duration::from_secs(45);

/// Says once that a watch is broken and once that it is whole again.
pub(crate) struct Health<'a> {
    name: &'static str,
    required: bool,
    broken: Option<String>,
    failed: Instant,
    metrics: &'a WatchMetrics,
}

impl<'a> Health<'a> {
    pub(crate) fn new(name: &'static str, required: bool, metrics: &'a WatchMetrics) -> Self {
        Self { name, required, broken: None, failed: Instant::now(), metrics }
    }

    /// Notes a failure. Tells whether the API server has no such kind, and the control plane can do without.
    pub(crate) fn broken(&mut self, error: &watcher::Error) -> bool {
        self.metrics.broken(self.name);
        self.failed = Instant::now();
        let absent = is_absent(error);
        let text = match cause(error) {
            Some(error) => describe(error),
            None => error.to_string(),
        };
        // The API server ends a watch whose version is too old (410); the list that follows is routine.
        if self.broken.as_ref() != Some(&text) {
            if absent && self.required {
                tracing::error!(
                    kind = self.name,
                    "custom resource definition is missing: install the chart nebula-crds; trying again"
                );
            } else if absent {
                tracing::warn!(
                    kind = self.name,
                    "custom resource definition is missing: going on without; install the chart nebula-crds to use it"
                );
            } else {
                tracing::warn!(
                    kind = self.name,
                    error = text,
                    "watch is broken: going on with the last state and trying again"
                );
            }
            self.broken = Some(text);
        }
        absent && !self.required
    }

    /// Waits, while the watch is broken, for so long without another failure that it must be whole: a watch that goes on
    /// where it was says nothing until something changes. Cancel-safe.
    pub(crate) async fn quiet(&mut self) {
        if self.broken.is_none() {
            return std::future::pending().await;
        }
        tokio::time::sleep_until(self.failed + QUIET).await;
        self.whole();
    }

    pub(crate) fn alive<K>(&mut self, event: &Event<K>) {
        // `Init` only announces an attempt.
        if matches!(event, Event::Init) {
            return;
        }
        self.whole();
    }

    fn whole(&mut self) {
        self.metrics.alive(self.name);
        if self.broken.take().is_some() {
            tracing::info!(kind = self.name, "watch is whole again");
        }
    }
}

fn cause(error: &watcher::Error) -> Option<&kube::Error> {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => Some(error),
        watcher::Error::WatchError(_) | watcher::Error::NoResourceVersion => None,
    }
}

fn is_absent(error: &watcher::Error) -> bool {
    cause(error).is_some_and(|error| is_status(error, 404))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(code: u16) -> watcher::Error {
        let mut status = kube::core::Status::failure("gone", "Gone");
        status.code = code;
        watcher::Error::InitialListFailed(kube::Error::Api(status.boxed()))
    }

    #[tokio::test(start_paused = true)]
    async fn only_an_optional_kind_may_be_absent() {
        let metrics = WatchMetrics::default();
        assert!(Health::new("ListenerSet", false, &metrics).broken(&failure(404)));
        assert!(!Health::new("Gateway", true, &metrics).broken(&failure(404)));
        assert!(!Health::new("ListenerSet", false, &metrics).broken(&failure(403)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_is_whole_again_after_a_quiet_time_and_not_before() {
        let metrics = WatchMetrics::default();
        let mut health = Health::new("Gateway", true, &metrics);
        health.broken(&failure(500));
        tokio::time::advance(QUIET / 2).await;
        health.broken(&failure(500));
        assert!(tokio::time::timeout(QUIET * 3 / 4, health.quiet()).await.is_err());
        assert!(health.broken.is_some());
        assert!(tokio::time::timeout(QUIET, health.quiet()).await.is_ok());
        assert!(health.broken.is_none());
    }
}
