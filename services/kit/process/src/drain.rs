//! Graceful end: one trigger, many watchers.

use tokio::sync::watch;

/// Tells a task that the process is ending. Clones watch the same trigger.
#[derive(Clone, Debug)]
pub struct Drain(watch::Receiver<bool>);

/// Starts the drain. Dropping it starts the drain as well.
#[derive(Debug)]
pub struct DrainTrigger(watch::Sender<bool>);

/// A trigger and its first watcher.
pub fn channel() -> (DrainTrigger, Drain) {
    let (sender, receiver) = watch::channel(false);
    (DrainTrigger(sender), Drain(receiver))
}

impl DrainTrigger {
    /// Tells every watcher. Does nothing the second time.
    pub fn start(&self) {
        self.0.send_replace(true);
    }
}

impl Drain {
    /// Whether the drain has begun.
    pub fn is_signaled(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }

    /// Waits for the drain to begin; returns at once if it has. Cancel-safe.
    pub async fn signaled(&self) {
        let mut receiver = self.0.clone();
        // An error means that the trigger is gone, which is a drain as well.
        let _ = receiver.wait_for(|started| *started).await;
    }
}

/// Waits for SIGTERM or SIGINT.
///
/// # Errors: when the process may not install signal handlers.
pub async fn termination() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_watcher_sees_the_drain_even_one_made_later() {
        let (trigger, drain) = channel();
        assert!(!drain.is_signaled());
        trigger.start();
        drain.clone().signaled().await;
        assert!(drain.is_signaled());
    }

    #[tokio::test]
    async fn a_lost_trigger_counts_as_a_drain() {
        let (trigger, drain) = channel();
        drop(trigger);
        drain.signaled().await;
        assert!(drain.is_signaled());
    }
}
