//! The one place in the engine that spawns: connection tasks and the executor that hyper asks for.

use std::future::Future;

/// Runs `task` on the worker that calls. It ends by itself or with its worker.
#[expect(clippy::disallowed_methods, reason = "connection tasks belong to their worker's runtime, which ends them")]
pub(crate) fn on_this_worker(task: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(task);
}

/// hyper's executor for the streams of an HTTP/2 connection.
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
