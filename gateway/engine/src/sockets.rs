//! The engine's listening sockets: which are open, and bringing that to what the listeners want.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    time::Duration,
};

use kit_process::drain::{self, DrainTrigger};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use crate::{router::Bind, worker::Command};

/// How long the workers may take to close a socket.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);
/// Connections that may wait to be accepted, for each socket.
const BACKLOG: i32 = 4096;

/// The open sockets.
#[derive(Debug)]
pub(crate) struct Sockets {
    port_map: BTreeMap<u16, u16>,
    open: BTreeMap<Bind, Open>,
    /// Sockets that workers are closing: they must be gone before the same port opens again.
    closing: BTreeMap<Bind, TaskTracker>,
}

/// One open port: dropping it tells every worker to close its socket.
#[derive(Debug)]
struct Open {
    _trigger: DrainTrigger,
    /// Ends once every worker has closed its socket.
    sockets: TaskTracker,
}

impl Sockets {
    pub(crate) fn new(port_map: BTreeMap<u16, u16>) -> Self {
        Self { port_map, open: BTreeMap::new(), closing: BTreeMap::new() }
    }

    /// Opens what is missing and closes what is no longer wanted; returns what could not be opened.
    pub(crate) async fn reconcile(
        &mut self,
        wanted: impl IntoIterator<Item = Bind>,
        workers: &[mpsc::Sender<Command>],
    ) -> Vec<(Bind, BindError)> {
        let wanted: std::collections::BTreeSet<Bind> = wanted.into_iter().collect();
        for (bind, open) in self.open.extract_if(.., |bind, _| !wanted.contains(bind)) {
            self.closing.insert(bind, open.sockets);
        }
        let mut failed = Vec::new();
        for bind in wanted {
            if self.open.contains_key(&bind) {
                continue;
            }
            if let Some(sockets) = self.closing.remove(&bind) {
                sockets.close();
                // A worker that is too busy to close in time shows as a port in use, which is tried again.
                let _ = tokio::time::timeout(CLOSE_LIMIT, sockets.wait()).await;
            }
            match self.open(bind, workers).await {
                Ok(open) => drop(self.open.insert(bind, open)),
                Err(error) => failed.push((bind, error)),
            }
        }
        failed
    }

    /// Whether the socket is open.
    pub(crate) fn is_open(&self, bind: Bind) -> bool {
        self.open.contains_key(&bind)
    }

    /// Closes every socket.
    pub(crate) fn close_all(&mut self) {
        self.open.clear();
    }

    /// The port that is bound for the Gateway's `port`.
    pub(crate) fn mapped(&self, port: u16) -> u16 {
        self.port_map.get(&port).copied().unwrap_or(port)
    }

    async fn open(&self, bind: Bind, workers: &[mpsc::Sender<Command>]) -> Result<Open, BindError> {
        let port = self.mapped(bind.port.get());
        // SO_REUSEPORT would share the port in silence with another gateway of the same user: see first that it is free.
        drop(listen(bind.address, port, Sharing::Refuse).map_err(|source| BindError { port, source })?);
        let (trigger, closed) = drain::channel();
        let mut sockets = Vec::new();
        for _ in workers {
            sockets
                .push(listen(bind.address, port, Sharing::AmongWorkers).map_err(|source| BindError { port, source })?);
        }
        let open = Open { _trigger: trigger, sockets: TaskTracker::new() };
        for (socket, worker) in sockets.into_iter().zip(workers) {
            // An error means that the worker is gone, which only happens while the engine ends.
            let _ = worker
                .send(Command::Listen { socket, bind, closed: closed.clone(), token: open.sockets.token() })
                .await;
        }
        Ok(open)
    }
}

/// A port that cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("port {port} cannot be opened")]
pub(crate) struct BindError {
    /// The port after the port map.
    pub(crate) port: u16,
    /// What the system says.
    #[source]
    pub(crate) source: io::Error,
}

/// Whether other sockets may listen on the same port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sharing {
    Refuse,
    AmongWorkers,
}

fn listen(address: Option<IpAddr>, port: u16, sharing: Sharing) -> io::Result<TcpListener> {
    match address {
        Some(address) => bind(SocketAddr::new(address, port), sharing),
        None => match bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)), sharing) {
            // A machine without IPv6.
            Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
                bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)), sharing)
            }
            other => other,
        },
    }
}

fn bind(address: SocketAddr, sharing: Sharing) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(sharing == Sharing::AmongWorkers)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
