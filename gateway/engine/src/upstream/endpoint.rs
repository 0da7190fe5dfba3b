//! One address of a backend, with what each worker knows of it.

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use policy_balance::LatencyEstimate;
use policy_resilience::EndpointOutliers;
use tokio::{sync::watch, time::Instant};

use super::{
    WorkerId,
    pool::{Http1Connection, Http2Connection},
};

/// One address of a backend.
pub(crate) struct Endpoint {
    pub(crate) address: SocketAddr,
    /// The address as the access log shows it.
    pub(crate) label: Box<str>,
    /// What its answers say of it; all workers count here.
    pub(crate) outliers: EndpointOutliers,
    /// What health checks say of it.
    is_unhealthy: AtomicBool,
    created: Instant,
    workers: Box<[Mutex<WorkerState>]>,
}

#[derive(Default)]
struct WorkerState {
    latency: LatencyEstimate,
    in_flight: u32,
    /// Newest at the back; the back is used first, so that the front grows old and is closed.
    http1: VecDeque<(Http1Connection, Instant)>,
    http2: Vec<Http2Connection>,
    /// The connection that a request is opening for all; closed once it is there or given up.
    opening: Option<Opening>,
}

/// What a request waits for while another one opens an HTTP/2 connection: nothing but the error, if it fails.
pub(super) type Opening = watch::Receiver<Option<Arc<io::Error>>>;

/// The way to an HTTP/2 connection with room for one more stream.
pub(super) enum Http2Way {
    /// There is one.
    Shared(Http2Connection),
    /// Another request opens one: look again once this is closed.
    Awaited(Opening),
    /// Open one. Dropping this tells the others to look again.
    Missing(watch::Sender<Option<Arc<io::Error>>>),
}

impl Endpoint {
    pub(crate) fn new(address: SocketAddr, workers: usize) -> Self {
        Self {
            address,
            label: address.to_string().into(),
            outliers: EndpointOutliers::default(),
            is_unhealthy: AtomicBool::new(false),
            created: Instant::now(),
            workers: (0..workers).map(|_| Mutex::default()).collect(),
        }
    }

    /// What one more request on `worker` would cost; only good for comparing endpoints.
    pub(super) fn cost(&self, worker: WorkerId, now: Instant) -> f64 {
        self.workers.get(worker.0).map_or(f64::INFINITY, |state| {
            let state = state.lock();
            state.latency.cost(state.in_flight, self.age(now))
        })
    }

    /// Requests under way on `worker`.
    pub(super) fn in_flight(&self, worker: WorkerId) -> u32 {
        self.workers.get(worker.0).map_or(u32::MAX, |state| state.lock().in_flight)
    }

    /// Whether health checks say that it gets no requests.
    pub(crate) fn is_unhealthy(&self) -> bool {
        self.is_unhealthy.load(Ordering::Relaxed)
    }

    /// Notes what health checks say.
    pub(super) fn set_unhealthy(&self, is_unhealthy: bool) {
        self.is_unhealthy.store(is_unhealthy, Ordering::Relaxed);
    }

    /// Whether it may get requests at `time` of its backend's policy.
    pub(super) fn is_usable(&self, time: Duration) -> bool {
        !self.is_unhealthy() && !self.outliers.is_ejected(time)
    }

    /// Counts a request as under way.
    pub(super) fn begin(&self, worker: WorkerId) {
        if let Some(state) = self.workers.get(worker.0) {
            state.lock().in_flight += 1;
        }
    }

    /// Counts a request as done.
    pub(super) fn end(&self, worker: WorkerId) {
        if let Some(state) = self.workers.get(worker.0) {
            let mut state = state.lock();
            state.in_flight = state.in_flight.saturating_sub(1);
        }
    }

    /// Notes how long the endpoint took to answer.
    pub(crate) fn observe(&self, worker: WorkerId, latency: Duration, now: Instant) {
        if let Some(state) = self.workers.get(worker.0) {
            state.lock().latency.observe(latency, self.age(now));
        }
    }

    /// Takes the idle connection that was used last.
    pub(super) fn take_idle(&self, worker: WorkerId) -> Option<Http1Connection> {
        let mut state = self.workers.get(worker.0)?.lock();
        while let Some((connection, _)) = state.http1.pop_back() {
            if !connection.is_closed() {
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a connection for the next request; above `most` idle ones the oldest is closed.
    pub(super) fn keep_idle(&self, worker: WorkerId, connection: Http1Connection, most: usize) {
        let Some(state) = self.workers.get(worker.0) else { return };
        let now = Instant::now();
        let mut state = state.lock();
        state.http1.push_back((connection, now));
        // What is closed ends its task, which wants no lock of ours.
        let surplus = if state.http1.len() > most { state.http1.pop_front() } else { None };
        drop(state);
        drop(surplus);
    }

    /// The way to an HTTP/2 connection. Of many requests that find none one opens it: a connection each would be a
    /// flood just when the endpoint starts.
    pub(super) fn http2(&self, worker: WorkerId) -> Http2Way {
        let Some(state) = self.workers.get(worker.0) else { return Http2Way::Missing(watch::Sender::new(None)) };
        let mut state = state.lock();
        state.http2.retain(|connection| !connection.is_closed());
        if let Some(connection) = state.http2.iter().find(|connection| connection.has_room()) {
            return Http2Way::Shared(connection.clone());
        }
        // An error means that whoever opened it is through, or was given up.
        if let Some(opening) = state.opening.as_ref().filter(|opening| opening.has_changed().is_ok()) {
            return Http2Way::Awaited(opening.clone());
        }
        let (opens, opening) = watch::channel(None);
        state.opening = Some(opening);
        Http2Way::Missing(opens)
    }

    /// Shares a new HTTP/2 connection with the worker's other requests.
    pub(super) fn share(&self, worker: WorkerId, connection: Http2Connection) {
        if let Some(state) = self.workers.get(worker.0) {
            state.lock().http2.push(connection);
        }
    }

    /// Closes connections on `worker` that were last used before `before`.
    pub(super) fn close_idle(&self, worker: WorkerId, before: Instant) {
        let Some(state) = self.workers.get(worker.0) else { return };
        let mut closed = Vec::new();
        let mut state = state.lock();
        while state.http1.front().is_some_and(|(connection, used)| *used < before || connection.is_closed()) {
            closed.extend(state.http1.pop_front());
        }
        state.http2.retain(|connection| !connection.is_closed() && !connection.is_idle_since(before));
        drop(state);
        drop(closed);
    }

    fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.created)
    }
}
