//! The one place in the engine that spawns: connection tasks and the executors that hyper asks for.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::Poll,
    time::Duration,
};

use tokio::time::Sleep;

/// Runs `task` on the worker that calls. It ends by itself or with its worker.
#[expect(clippy::disallowed_methods, reason = "connection tasks belong to their worker's runtime, which ends them")]
pub(crate) fn on_this_worker(task: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(task);
}

/// hyper's executor for the connections and streams of an HTTP/2 client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WorkerExecutor;

impl<T> hyper::rt::Executor<T> for WorkerExecutor
where
    T: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, task: T) {
        on_this_worker(async move {
            task.await;
        });
    }
}

/// hyper's executor for the streams of an HTTP/2 server. Ends a stream, which resets it, whose client takes nothing of
/// a response for too long; no limit of the connection sees that, as the client may keep its windows shut for ever.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StreamExecutor {
    write_idle_timeout: Duration,
}

impl StreamExecutor {
    pub(crate) fn new(write_idle_timeout: Duration) -> Self {
        Self { write_idle_timeout }
    }
}

impl<T> hyper::rt::Executor<T> for StreamExecutor
where
    T: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, task: T) {
        let limit = self.write_idle_timeout;
        on_this_worker(async move {
            let pace = Arc::new(Pace::default());
            let mut task = pin!(PACE.scope(pace.clone(), task));
            // The frame that waits for the client, and the end of its time.
            let mut waiting: Option<(u64, Pin<Box<Sleep>>)> = None;
            poll_fn(|context| {
                if task.as_mut().poll(context).is_ready() {
                    return Poll::Ready(());
                }
                let frame = pace.0.load(Ordering::Relaxed);
                if frame.is_multiple_of(2) {
                    waiting = None;
                    return Poll::Pending;
                }
                if waiting.as_ref().is_none_or(|(known, _)| *known != frame) {
                    waiting = Some((frame, Box::pin(tokio::time::sleep(limit))));
                }
                waiting.as_mut().map_or(Poll::Pending, |(_, timer)| timer.as_mut().poll(context))
            })
            .await;
        });
    }
}

tokio::task_local! {
    static PACE: Arc<Pace>;
}

/// How a response's frames go out: odd while hyper has one that the client has no room for.
#[derive(Debug, Default)]
pub(crate) struct Pace(AtomicU64);

impl Pace {
    /// That of the HTTP/2 stream whose task calls; `None` elsewhere.
    pub(crate) fn of_this_stream() -> Option<Arc<Self>> {
        PACE.try_with(Arc::clone).ok()
    }

    /// hyper has been given a frame.
    pub(crate) fn given(&self) {
        self.0.fetch_or(1, Ordering::Relaxed);
    }

    /// hyper asks for a frame, so the one before is on its way.
    pub(crate) fn asked(&self) {
        if !self.0.load(Ordering::Relaxed).is_multiple_of(2) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}
