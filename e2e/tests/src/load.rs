//! A steady load whose every failure is kept: for proving that something happened without one.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::clock::eventually;
use crate::http::Connection;

/// Threads; half of them open a connection for each request, half keep theirs.
const THREADS: usize = 4;
/// Between two requests of a thread: enough load to hit every gap, little enough for a small machine.
const PAUSE: Duration = Duration::from_millis(5);
/// For the requests that a test wants to have seen.
const SEND_LIMIT: Duration = Duration::from_mins(1);
/// Failures kept in words; more are only counted.
const KEPT: usize = 5;

/// Requests that go on until [`Load::stop`], or until it is dropped.
pub struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    address: SocketAddr,
    host: String,
    path: String,
    stop: AtomicBool,
    sent: AtomicUsize,
    failed: AtomicUsize,
    failures: Mutex<Vec<String>>,
}

impl Load {
    /// Starts to send `GET path`; every answer but 200 is a failure.
    pub fn start(address: SocketAddr, host: &str, path: &str) -> Self {
        let shared = Arc::new(Shared {
            address,
            host: host.to_owned(),
            path: path.to_owned(),
            stop: AtomicBool::new(false),
            sent: AtomicUsize::new(0),
            failed: AtomicUsize::new(0),
            failures: Mutex::default(),
        });
        let threads = (0..THREADS)
            .map(|index| {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || shared.send(index % 2 == 0))
            })
            .collect();
        Self { shared, threads }
    }

    /// Requests sent so far.
    pub fn sent(&self) -> usize {
        self.shared.sent.load(Ordering::Relaxed)
    }

    /// Ends the load once `at_least` requests were sent: fewer would prove nothing, and how long they take is the machine's.
    ///
    /// # Errors: a request failed, or so many did not come to be sent within a minute.
    pub fn stop(mut self, at_least: usize) -> Result<()> {
        let enough = eventually(&format!("{at_least} requests to be sent"), SEND_LIMIT, || match self.sent() {
            sent if sent >= at_least => Ok(()),
            sent => Err(format!("{sent} were")),
        });
        self.join();
        let (sent, failed) = (self.sent(), self.shared.failed.load(Ordering::Relaxed));
        let failures = self.shared.failures.lock().map(|kept| kept.join("; ")).unwrap_or_default();
        ensure!(failed == 0, "{failed} of {sent} requests failed: {failures}");
        enough
    }

    fn join(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                self.shared.fail("a thread of the load panicked".to_owned());
            }
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.join();
    }
}

impl Shared {
    fn send(&self, keep: bool) {
        let mut kept: Option<Connection> = None;
        while !self.stop.load(Ordering::Relaxed) {
            let result = match kept.take() {
                Some(connection) => self.reuse(connection),
                None => self.fresh(),
            };
            match result {
                Ok(connection) => kept = connection.filter(|connection| keep && connection.is_open()),
                Err(error) => self.fail(format!("{error:#}")),
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn reuse(&self, mut connection: Connection) -> Result<Option<Connection>> {
        match self.request(&mut connection) {
            Err(error) if connection.was_idle_close(&error) => self.fresh(),
            result => result.map(|()| Some(connection)),
        }
    }

    fn fresh(&self) -> Result<Option<Connection>> {
        let mut connection = Connection::open(self.address)?;
        self.request(&mut connection)?;
        Ok(Some(connection))
    }

    fn request(&self, connection: &mut Connection) -> Result<()> {
        self.sent.fetch_add(1, Ordering::Relaxed);
        let response = connection.get(&self.host, &self.path)?;
        ensure!(response.status == 200, "status {}: {}", response.status, response.body);
        Ok(())
    }

    fn fail(&self, failure: String) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        if let Ok(mut failures) = self.failures.lock()
            && failures.len() < KEPT
        {
            failures.push(failure);
        }
    }
}
