//! Workers: one thread and one single-threaded runtime a core, each with its own sockets, connections and pools.
//!
//! Invariant: a connection stays on the worker that serves it. What workers share is the configuration and atomics.

use std::{
    io,
    net::{SocketAddr, TcpListener as StdTcpListener, TcpStream as StdTcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use kit_process::drain::Drain;
use parking_lot::Mutex;
use rand::{SeedableRng as _, rngs::SmallRng};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::Instant,
};
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::{
    client_body::Buffers, compile::Config, connection, filter::FilterSet, limits::Limits, router::Bind,
    spawn::on_this_worker, telemetry::Telemetry, upstream::WorkerId, watchdog::Watchdog,
};

/// Wait before accepting again after the system refused a connection (out of file descriptors, for example).
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);
/// How many connections a worker may have more than the least loaded one before it hands new ones over.
const IMBALANCE: usize = 1;
/// Commands that may wait for a worker; when it is full, connections stay where they were accepted.
const COMMANDS: usize = 1024;

/// What all workers share.
pub(crate) struct Shared<F> {
    pub(crate) config: ArcSwap<Config<F>>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) buffers: Buffers,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) drain: Drain,
    /// The origin of the time that filters see.
    pub(crate) started: Instant,
    /// Connections by worker.
    loads: Arc<[AtomicUsize]>,
}

impl<F> Shared<F> {
    pub(crate) fn new(
        config: Config<F>,
        limits: Arc<Limits>,
        telemetry: Telemetry,
        drain: Drain,
        workers: usize,
    ) -> Self {
        let loads = (0..workers).map(|_| AtomicUsize::new(0)).collect();
        let buffers = Buffers::counted(&limits, telemetry.metrics.request_buffer_bytes());
        Self {
            config: ArcSwap::from_pointee(config),
            limits,
            buffers,
            telemetry: Arc::new(telemetry),
            drain,
            started: Instant::now(),
            loads,
        }
    }

    /// Connections of all workers.
    pub(crate) fn connections(&self) -> usize {
        self.loads.iter().map(|load| load.load(Ordering::Relaxed)).sum()
    }
}

/// One worker, as its connections see it.
pub(crate) struct Worker<F> {
    pub(crate) id: WorkerId,
    pub(crate) shared: Arc<Shared<F>>,
    pub(crate) watchdog: Watchdog,
    pub(crate) rng: Mutex<SmallRng>,
    /// All workers, this one too. Weak, so that the engine's end is theirs.
    others: Vec<mpsc::WeakSender<Command>>,
}

/// What a worker is told to do.
pub(crate) enum Command {
    /// Accept connections until `closed` is signalled.
    /// The token lives as long as the socket.
    Listen { socket: StdTcpListener, bind: Bind, closed: Drain, token: TaskTrackerToken },
    /// Serve a connection that another worker accepted.
    Serve { stream: StdTcpStream, peer: SocketAddr, bind: Bind, counted: Counted },
}

/// Starts the workers; returns the channel of each. They end when every sender is gone.
///
/// # Errors: when a thread or a runtime cannot be made.
pub(crate) fn start<F: FilterSet>(shared: &Arc<Shared<F>>) -> io::Result<Vec<mpsc::Sender<Command>>> {
    let channels: Vec<_> = shared.loads.iter().map(|_| mpsc::channel(COMMANDS)).collect();
    let senders: Vec<_> = channels.iter().map(|(sender, _)| sender.clone()).collect();
    for (index, (_, commands)) in channels.into_iter().enumerate() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let worker = Arc::new(Worker {
            id: WorkerId(index),
            shared: shared.clone(),
            watchdog: Watchdog::new(),
            rng: Mutex::new(SmallRng::from_rng(&mut rand::rng())),
            others: senders.iter().map(mpsc::Sender::downgrade).collect(),
        });
        std::thread::Builder::new()
            .name(format!("worker-{index}"))
            .spawn(move || runtime.block_on(worker.run(commands)))?;
    }
    Ok(senders)
}

impl<F: FilterSet> Worker<F> {
    async fn run(self: Arc<Self>, mut commands: mpsc::Receiver<Command>) {
        let watch = self.clone();
        on_this_worker(async move {
            let idle = watch.shared.limits.upstream_idle_timeout;
            let chores = |now: Instant| {
                if let Some(before) = now.checked_sub(idle) {
                    watch.shared.config.load().close_idle(watch.id, before);
                }
            };
            watch.watchdog.run(chores).await;
        });
        while let Some(command) = commands.recv().await {
            match command {
                Command::Listen { socket, bind, closed, token } => {
                    let worker = self.clone();
                    on_this_worker(async move {
                        worker.listen(socket, bind, closed).await;
                        drop(token);
                    });
                }
                Command::Serve { stream, peer, bind, counted } => match TcpStream::from_std(stream) {
                    Ok(stream) => self.serve(stream, peer, bind, counted),
                    Err(error) => tracing::warn!(%error, "connection handed over cannot be served"),
                },
            }
        }
    }

    async fn listen(self: Arc<Self>, socket: StdTcpListener, bind: Bind, closed: Drain) {
        let listener = match TcpListener::from_std(socket) {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!(%error, ?bind, "socket cannot be served");
                return;
            }
        };
        loop {
            tokio::select! {
                biased;
                () = closed.signaled() => break,
                accepted = listener.accept() => self.accepted(accepted, bind).await,
            }
        }
        match listener.into_std() {
            Ok(listener) => self.empty_queue(&listener, bind),
            Err(error) => tracing::warn!(%error, ?bind, "connections that waited are reset"),
        }
    }

    /// Serves the connections that wait in the queue of a socket that is about to close: closing it would reset them.
    fn empty_queue(self: &Arc<Self>, listener: &StdTcpListener, bind: Bind) {
        loop {
            let accepted = listener.accept().and_then(|(stream, peer)| {
                stream.set_nonblocking(true)?;
                Ok((TcpStream::from_std(stream)?, peer))
            });
            match accepted {
                Ok((stream, peer)) => self.place(stream, peer, bind),
                // The client has left, or a signal came.
                Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted) => {
                }
                Err(_) => return,
            }
        }
    }

    async fn accepted(self: &Arc<Self>, accepted: io::Result<(TcpStream, SocketAddr)>, bind: Bind) {
        match accepted {
            Ok((stream, peer)) => self.place(stream, peer, bind),
            Err(error) => {
                tracing::warn!(%error, ?bind, "accept failed");
                tokio::time::sleep(ACCEPT_BACKOFF).await;
            }
        }
    }

    /// Serves the connection here, or hands it to a worker with clearly fewer.
    fn place(self: &Arc<Self>, stream: TcpStream, peer: SocketAddr, bind: Bind) {
        let loads = self.shared.loads.iter().map(|load| load.load(Ordering::Relaxed));
        let own = self.connections().load(Ordering::Relaxed);
        let least = loads.enumerate().min_by_key(|(_, load)| *load);
        if let Some((index, load)) = least
            && own > load + IMBALANCE
            && let Some(other) = self.others.get(index).and_then(mpsc::WeakSender::upgrade)
            && let Ok(permit) = other.try_reserve()
        {
            match stream.into_std() {
                Ok(stream) => permit.send(Command::Serve { stream, peer, bind, counted: self.count(index) }),
                Err(error) => tracing::warn!(%error, "connection cannot be handed over"),
            }
            return;
        }
        self.serve(stream, peer, bind, self.count(self.id.0));
    }

    fn serve(self: &Arc<Self>, stream: TcpStream, peer: SocketAddr, bind: Bind, counted: Counted) {
        if self.connections().load(Ordering::Relaxed) > self.shared.limits.max_connections_per_worker {
            tracing::debug!(%peer, "connection refused: this worker serves as many as it may");
            if let Some(port) = self.shared.config.load().port(bind) {
                port.metrics.refused();
            }
            return;
        }
        let load = Load { worker: self.clone(), _counted: counted };
        on_this_worker(connection::serve(load, stream, peer, bind));
    }

    /// Counts one more connection of a worker: from when it is given to it, so that the next one may go elsewhere.
    fn count(&self, worker: usize) -> Counted {
        let loads = self.shared.loads.clone();
        if let Some(load) = loads.get(worker) {
            load.fetch_add(1, Ordering::Relaxed);
        }
        Counted { loads, worker }
    }

    fn connections(&self) -> &AtomicUsize {
        static NONE: AtomicUsize = AtomicUsize::new(0);
        self.shared.loads.get(self.id.0).unwrap_or(&NONE)
    }
}

/// A connection's worker; the connection counts while this lives.
pub(crate) struct Load<F: FilterSet> {
    worker: Arc<Worker<F>>,
    _counted: Counted,
}

impl<F: FilterSet> std::ops::Deref for Load<F> {
    type Target = Worker<F>;

    fn deref(&self) -> &Worker<F> {
        &self.worker
    }
}

/// One connection in the load of a worker.
pub(crate) struct Counted {
    loads: Arc<[AtomicUsize]>,
    worker: usize,
}

impl Drop for Counted {
    fn drop(&mut self) {
        if let Some(load) = self.loads.get(self.worker) {
            load.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
