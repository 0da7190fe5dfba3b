//! Timeouts of a connection that cost the hot path nothing: a connection notes its phase and the time of its last
//! progress in two atomics; once every [`TICK`] its worker looks at all of them and aborts what stands still too long.
//!
//! Invariant: a limit is enforced at most one tick late, never early.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

use crate::limits::Limits;

/// How often connections are looked at.
pub(crate) const TICK: Duration = Duration::from_millis(500);

/// So many requests that are given up at once are no accident.
const MANY_GIVEN_UP: u32 = 500;

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    /// Waiting for the first byte of a request.
    Idle,
    /// Some bytes of a request's head have come.
    Head,
    /// At least one request is being served.
    Busy,
    /// An upgraded connection.
    Tunnel,
}

impl Phase {
    fn from_u8(value: u8) -> Self {
        match value {
            0 => Self::Idle,
            1 => Self::Head,
            3 => Self::Tunnel,
            _ => Self::Busy,
        }
    }

    fn limit(self, limits: &Limits) -> Option<Duration> {
        match self {
            Self::Idle => Some(limits.downstream_idle_timeout),
            Self::Head => Some(limits.header_read_timeout),
            Self::Busy => None,
            Self::Tunnel => Some(limits.upgrade_idle_timeout),
        }
    }
}

/// One connection's progress. Written by its task, read by the watchdog.
#[derive(Debug)]
pub(crate) struct Progress {
    clock: Arc<TickClock>,
    limits: Arc<Limits>,
    phase: AtomicU8,
    /// Requests under way.
    requests: AtomicU32,
    /// Requests in all, and those among them that the client gave up at once.
    begun: AtomicU32,
    given_up: AtomicU32,
    /// Whether it is HTTP/2, where bytes that come need not be a request's head.
    is_multiplexed: AtomicBool,
    /// Tick of the last change of phase or progress within it.
    since: AtomicU64,
    /// Tick at which a write first met a full socket; 0 while writes go through.
    write_blocked_since: AtomicU64,
    /// Whether it ends with the requests that are under way.
    is_last: AtomicBool,
    abort: Notify,
}

/// Ticks since the worker started, beginning at 1.
#[derive(Debug)]
struct TickClock(AtomicU64);

impl Progress {
    /// Enters `phase`, or notes progress within it.
    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
        self.since.store(self.clock.0.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// The connection speaks HTTP/2, whose own pings tell a silent client from one that is gone.
    pub(crate) fn multiplexed(&self) {
        self.is_multiplexed.store(true, Ordering::Relaxed);
        self.enter(Phase::Idle);
    }

    /// A request begins; the connection is busy until the guard goes.
    pub(crate) fn request(self: &Arc<Self>) -> RequestGuard {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.enter(Phase::Busy);
        RequestGuard(self.clone())
    }

    /// Whether the connection has had a request.
    pub(crate) fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Relaxed) > 0
    }

    /// Whether the connection has had as many requests as it may.
    pub(crate) fn is_used_up(&self) -> bool {
        self.begun.load(Ordering::Relaxed) >= self.limits.max_requests_per_connection
    }

    /// Ends the connection gracefully: what is under way goes on.
    pub(crate) fn retire(&self) {
        if !self.is_last.swap(true, Ordering::Relaxed) {
            self.abort.notify_one();
        }
    }

    /// Whether the connection may end gracefully, once it is given up: nothing is under way that takes too long.
    pub(crate) fn ends_gracefully(&self) -> bool {
        self.phase() == Phase::Idle || self.is_last.load(Ordering::Relaxed)
    }

    /// The present phase.
    pub(crate) fn phase(&self) -> Phase {
        Phase::from_u8(self.phase.load(Ordering::Relaxed))
    }

    /// Notes bytes from the client.
    pub(crate) fn read(&self) {
        match self.phase() {
            Phase::Idle if !self.is_multiplexed.load(Ordering::Relaxed) => self.enter(Phase::Head),
            Phase::Tunnel => self.enter(Phase::Tunnel),
            Phase::Idle | Phase::Head | Phase::Busy => {}
        }
    }

    /// Notes that a write met a full socket.
    pub(crate) fn write_blocked(&self) {
        if self.write_blocked_since.load(Ordering::Relaxed) == 0 {
            self.write_blocked_since.store(self.clock.0.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    /// Notes that a write went through.
    pub(crate) fn written(&self) {
        if self.write_blocked_since.load(Ordering::Relaxed) != 0 {
            self.write_blocked_since.store(0, Ordering::Relaxed);
        }
        if self.phase() == Phase::Tunnel {
            self.enter(Phase::Tunnel);
        }
    }

    /// Waits until the watchdog gives the connection up. Cancel-safe.
    pub(crate) async fn aborted(&self) {
        self.abort.notified().await;
    }

    fn is_overdue(&self, now: u64) -> bool {
        let limits = &*self.limits;
        let ticks = |limit: Duration| u64::try_from(limit.as_millis().div_ceil(TICK.as_millis())).unwrap_or(u64::MAX);
        // A tick is counted once it is complete, so the first one does not count.
        let exceeds = |since: u64, limit: Duration| now.saturating_sub(since) > ticks(limit);
        let blocked = self.write_blocked_since.load(Ordering::Relaxed);
        if blocked != 0 && exceeds(blocked, limits.response_write_idle_timeout) {
            return true;
        }
        self.phase().limit(limits).is_some_and(|limit| exceeds(self.since.load(Ordering::Relaxed), limit))
    }
}

/// A request under way.
#[derive(Debug)]
pub(crate) struct RequestGuard(Arc<Progress>);

impl RequestGuard {
    /// The client reset the request's stream as soon as it had opened it. A connection on which most requests are that
    /// is an attack: each has cost a request to a backend (CVE-2023-44487).
    pub(crate) fn given_up(&self) {
        let given_up = self.0.given_up.fetch_add(1, Ordering::Relaxed) + 1;
        if given_up >= MANY_GIVEN_UP && given_up >= self.0.begun.load(Ordering::Relaxed) / 2 {
            self.0.abort.notify_one();
        }
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        if self.0.requests.fetch_sub(1, Ordering::Relaxed) == 1 && self.0.phase() == Phase::Busy {
            self.0.enter(Phase::Idle);
        }
    }
}

/// The connections of one worker.
#[derive(Debug)]
pub(crate) struct Watchdog {
    clock: Arc<TickClock>,
    connections: Mutex<Vec<Weak<Progress>>>,
}

impl Watchdog {
    pub(crate) fn new() -> Self {
        Self { clock: Arc::new(TickClock(AtomicU64::new(1))), connections: Mutex::default() }
    }

    /// Watches a new connection, which is idle.
    pub(crate) fn watch(&self, limits: Arc<Limits>) -> Arc<Progress> {
        let progress = Arc::new(Progress {
            clock: self.clock.clone(),
            limits,
            phase: AtomicU8::new(Phase::Idle as u8),
            requests: AtomicU32::new(0),
            begun: AtomicU32::new(0),
            given_up: AtomicU32::new(0),
            is_multiplexed: AtomicBool::new(false),
            since: AtomicU64::new(self.clock.0.load(Ordering::Relaxed)),
            write_blocked_since: AtomicU64::new(0),
            is_last: AtomicBool::new(false),
            abort: Notify::new(),
        });
        self.connections.lock().push(Arc::downgrade(&progress));
        progress
    }

    /// Looks at every connection once.
    pub(crate) fn tick(&self) {
        let now = self.clock.0.fetch_add(1, Ordering::Relaxed) + 1;
        self.connections.lock().retain(|connection| {
            let Some(progress) = connection.upgrade() else { return false };
            if progress.is_overdue(now) {
                progress.abort.notify_one();
            }
            true
        });
    }

    /// Ticks until the worker ends. `each` runs at every tick, for the worker's other chores.
    pub(crate) async fn run(&self, each: impl Fn(Instant)) {
        let mut interval = tokio::time::interval(TICK);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            let now = interval.tick().await;
            self.tick();
            each(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn ticks_until_abort(watchdog: &Watchdog, progress: &Progress, most: u32) -> Option<u32> {
        (1..=most).find(|_| {
            watchdog.tick();
            progress.aborted().now_or_never().is_some()
        })
    }

    #[test]
    fn a_head_that_does_not_end_is_given_up_within_one_tick_of_the_limit() {
        let limits = Limits { header_read_timeout: TICK * 4, ..Limits::default() };
        let watchdog = Watchdog::new();
        let progress = watchdog.watch(Arc::new(limits));
        progress.read();
        assert_eq!(progress.phase(), Phase::Head);
        progress.read();
        assert_eq!(ticks_until_abort(&watchdog, &progress, 10), Some(5));
    }

    #[test]
    fn a_limit_between_two_ticks_is_not_enforced_early() {
        let limits = Limits { header_read_timeout: TICK * 3 / 2, ..Limits::default() };
        let watchdog = Watchdog::new();
        let progress = watchdog.watch(Arc::new(limits));
        progress.read();
        assert_eq!(ticks_until_abort(&watchdog, &progress, 10), Some(3));
    }

    #[test]
    fn a_request_under_way_has_no_limit_here() {
        let watchdog = Watchdog::new();
        let progress = watchdog.watch(Arc::default());
        let _request = progress.request();
        assert_eq!(ticks_until_abort(&watchdog, &progress, 10_000), None);
    }

    #[test]
    fn a_client_that_does_not_read_is_given_up_even_while_busy() {
        let limits = Limits { response_write_idle_timeout: TICK * 2, ..Limits::default() };
        let watchdog = Watchdog::new();
        let progress = watchdog.watch(Arc::new(limits));
        let _request = progress.request();
        progress.write_blocked();
        assert_eq!(ticks_until_abort(&watchdog, &progress, 10), Some(3));
        progress.written();
        assert_eq!(ticks_until_abort(&watchdog, &progress, 10), None);
    }

    #[test]
    fn a_tunnel_is_not_silent_while_bytes_go_either_way() {
        let limits = Limits { upgrade_idle_timeout: TICK * 4, ..Limits::default() };
        let watchdog = Watchdog::new();
        let progress = watchdog.watch(Arc::new(limits));
        progress.enter(Phase::Tunnel);
        for note in [Progress::read, Progress::written] {
            assert_eq!(ticks_until_abort(&watchdog, &progress, 3), None);
            note(&progress);
        }
        assert_eq!(ticks_until_abort(&watchdog, &progress, 10), Some(5));
    }

    #[test]
    fn a_connection_whose_requests_are_mostly_given_up_at_once_is_given_up() {
        let watchdog = Watchdog::new();
        let (honest, attacker) = (watchdog.watch(Arc::default()), watchdog.watch(Arc::default()));
        for _ in 0..MANY_GIVEN_UP {
            assert!(attacker.aborted().now_or_never().is_none());
            attacker.request().given_up();
            for _ in 0..3 {
                drop(honest.request());
            }
            honest.request().given_up();
        }
        assert!(attacker.aborted().now_or_never().is_some());
        assert!(honest.aborted().now_or_never().is_none());
    }

    #[test]
    fn a_connection_that_is_gone_is_forgotten() {
        let watchdog = Watchdog::new();
        drop(watchdog.watch(Arc::default()));
        watchdog.tick();
        assert!(watchdog.connections.lock().is_empty());
    }
}
