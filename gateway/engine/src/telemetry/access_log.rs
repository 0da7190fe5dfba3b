//! The access log: one JSON object a line, written out by a thread of its own.
//!
//! Invariant: [`AccessLog::log`] never waits for the writer. What the queue has no room for is dropped and counted, and
//! so is what the writer refuses; neither ends the proxy.
//!
//! A worker makes the text, into memory of its own, and appends it to the queue: that costs less than to hand over what
//! the text is made of, whose copies and counts of references two threads would share. The thread takes the queue as a
//! whole, and is woken only with the first line after a pause.

use std::{
    cell::RefCell,
    io::{self, Write},
    sync::Arc,
    time::{Duration, SystemTime},
};

use parking_lot::{Condvar, Mutex};
use prometheus_client::{metrics::counter::Counter, registry::Registry};
use tokio::sync::watch;

use super::record::Record;

/// Bytes of lines that may wait: those of some 100 ms at full load.
pub const DEFAULT_CAPACITY: usize = 8 << 20;

/// How long the thread gathers lines before it writes them.
const GATHER: Duration = Duration::from_millis(10);

/// Memory that is kept for the next lines; what a burst has needed beyond that is given back.
const KEPT: usize = 1 << 20;

thread_local! {
    /// What a worker makes its lines in. Only memory: nothing stays in it from one line to the next.
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

#[derive(Default)]
struct Scratch {
    line: Vec<u8>,
    stamp: Stamp,
}

/// What became of lines.
#[derive(Clone, Debug, Default)]
pub struct AccessLogCounters {
    written: Counter,
    dropped: Counter,
    failed: Counter,
}

impl AccessLogCounters {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("written_lines", "Lines written", self.written.clone());
        registry.register("dropped_lines", "Lines that the queue had no room for", self.dropped.clone());
        registry.register("failed_lines", "Lines that could not be written", self.failed.clone());
    }

    /// Lines that the queue had no room for.
    pub fn dropped(&self) -> u64 {
        self.dropped.get()
    }

    /// Lines that were lost because the writer failed.
    pub fn failed(&self) -> u64 {
        self.failed.get()
    }
}

/// The log's thread could not be started.
#[derive(Debug, thiserror::Error)]
#[error("start the thread of the access log")]
pub struct StartError(#[source] io::Error);

#[derive(Debug, Default)]
struct Queue {
    text: Vec<u8>,
    lines: u64,
    closed: bool,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    /// Tells the thread that the queue is no longer empty, or closed.
    filled: Condvar,
    capacity: usize,
    counters: AccessLogCounters,
}

/// The way to the log. Clones share one queue; the log ends with [`Self::close`] or with the last clone.
#[derive(Clone, Debug)]
pub struct AccessLog {
    sender: Arc<Sender>,
}

#[derive(Debug)]
struct Sender {
    shared: Arc<Shared>,
    ended: watch::Receiver<bool>,
}

impl AccessLog {
    /// Starts the thread that writes to `writer`, with room for `capacity` bytes of lines.
    ///
    /// # Errors: [`StartError`] where the system gives no thread.
    pub fn start(
        writer: Box<dyn Write + Send>,
        capacity: usize,
        counters: AccessLogCounters,
    ) -> Result<Self, StartError> {
        let shared = Arc::new(Shared { queue: Mutex::default(), filled: Condvar::new(), capacity, counters });
        let (end, ended) = watch::channel(false);
        let thread_shared = shared.clone();
        let run = move || {
            write_lines(&thread_shared, writer);
            end.send_replace(true);
        };
        std::thread::Builder::new().name("access-log".into()).spawn(run).map_err(StartError)?;
        Ok(Self { sender: Arc::new(Sender { shared, ended }) })
    }

    /// Queues a record's line, or drops it with a count where the queue is full. Never waits for the writer.
    pub fn log(&self, record: &Record<'_>) {
        SCRATCH.with_borrow_mut(|Scratch { line, stamp }| {
            line.clear();
            record.write_line(stamp.format(record.time), line);
            self.queue(line);
        });
    }

    fn queue(&self, line: &[u8]) {
        let shared = &self.sender.shared;
        let mut queue = shared.queue.lock();
        if queue.closed || queue.text.len() + line.len() > shared.capacity {
            drop(queue);
            shared.counters.dropped.inc();
            return;
        }
        let was_empty = queue.text.is_empty();
        queue.text.extend_from_slice(line);
        queue.lines += 1;
        drop(queue);
        if was_empty {
            shared.filled.notify_one();
        }
    }

    /// Takes no more lines, and waits until those in the queue are written, at most `limit`; tells whether they are.
    ///
    /// Cancel-safe: the thread goes on writing.
    pub async fn close(&self, limit: Duration) -> bool {
        self.sender.close();
        let mut ended = self.sender.ended.clone();
        matches!(tokio::time::timeout(limit, ended.wait_for(|ended| *ended)).await, Ok(Ok(_)))
    }
}

impl Sender {
    fn close(&self) {
        self.shared.queue.lock().closed = true;
        self.shared.filled.notify_one();
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.close();
    }
}

/// Writes until the queue is closed and empty.
fn write_lines(shared: &Shared, mut writer: Box<dyn Write + Send>) {
    let mut text = Vec::new();
    let mut is_torn = false;
    loop {
        let (lines, closed) = {
            let mut queue = shared.queue.lock();
            while queue.text.is_empty() && !queue.closed {
                shared.filled.wait(&mut queue);
            }
            std::mem::swap(&mut queue.text, &mut text);
            (std::mem::take(&mut queue.lines), queue.closed)
        };
        if lines > 0 {
            if is_torn {
                // A part of a line may be out: what comes next begins on a line of its own.
                text.insert(0, b'\n');
            }
            let written = writer.write_all(&text).and_then(|()| writer.flush());
            // An error is a closed pipe or a full disk. The next lines try again.
            is_torn = written.is_err();
            let counter = if is_torn { &shared.counters.failed } else { &shared.counters.written };
            counter.inc_by(lines);
            text.clear();
            text.shrink_to(KEPT);
        }
        if closed && shared.queue.lock().text.is_empty() {
            return;
        }
        if !closed {
            std::thread::sleep(GATHER);
        }
    }
}

/// Times as RFC 3339 in UTC with milliseconds. Keeps the last second's text.
#[derive(Default)]
struct Stamp {
    second: Option<u64>,
    text: String,
}

impl Stamp {
    fn format(&mut self, time: SystemTime) -> &str {
        use std::fmt::Write as _;
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        if self.second != Some(since.as_secs()) {
            self.second = Some(since.as_secs());
            let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
            let timestamp = jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::MAX);
            self.text.clear();
            // Writing to a String cannot fail.
            let _ = write!(self.text, "{}", timestamp.strftime("%Y-%m-%dT%H:%M:%S"));
        }
        self.text.truncate("0000-00-00T00:00:00".len());
        let _ = write!(self.text, ".{:03}Z", since.subsec_millis());
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::telemetry::record::{Text, tests::record};

    /// Hands on what is written, and blocks or fails as the test wants.
    struct Probe {
        output: mpsc::Sender<Vec<u8>>,
        gate: Arc<Mutex<()>>,
        broken: bool,
    }

    impl Write for Probe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _open = self.gate.lock();
            if std::mem::take(&mut self.broken) {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            self.output.send(bytes.to_vec()).unwrap();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Setup {
        log: AccessLog,
        counters: AccessLogCounters,
        output: mpsc::Receiver<Vec<u8>>,
        gate: Arc<Mutex<()>>,
    }

    fn start(capacity: usize, broken: bool) -> Setup {
        let (sender, output) = mpsc::channel();
        let gate = Arc::new(Mutex::new(()));
        let counters = AccessLogCounters::default();
        let probe = Probe { output: sender, gate: gate.clone(), broken };
        let log = AccessLog::start(Box::new(probe), capacity, counters.clone()).unwrap();
        Setup { log, counters, output, gate }
    }

    fn next(output: &mpsc::Receiver<Vec<u8>>) -> String {
        String::from_utf8(output.recv_timeout(Duration::from_secs(5)).unwrap()).unwrap()
    }

    #[test]
    fn a_line_is_one_json_object_with_control_characters_escaped() {
        let setup = start(1 << 16, false);
        let mut forged = record();
        forged.path = "/a\"\n{\"status\":200}\u{1b}[2J".into();
        setup.log.log(&forged);
        let line = next(&setup.output);
        assert_eq!(line.matches('\n').count(), 1, "{line}");
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["path"], "/a\"\n{\"status\":200}\u{1b}[2J");
        assert_eq!(value["time"], "2026-11-23T09:30:05.042Z");
        assert_eq!((&value["status"], &value["duration_us"]), (&200.into(), &1234.into()));
        assert_eq!((&value["route"], &value["trace_id"]), (&"http/shop/cart".into(), &serde_json::Value::Null));
    }

    #[test]
    fn a_line_has_every_field_once_and_in_its_place() {
        let mut line = Vec::new();
        let trace = opentelemetry::trace::TraceId::from(0xabc);
        let agent = Some(b"caf\xc3\xa9\xff"[..].into());
        record_with(trace, agent).write_line("2026-11-23T09:30:05.042Z", &mut line);
        let expected = concat!(
            r#"{"time":"2026-11-23T09:30:05.042Z","request_id":"r-1","method":"GET","host":"shop.example.com","#,
            r#""path":"/cart","protocol":"1.1","status":200,"flag":null,"policy":null,"reported":null,"listener":"infra/edge/http","#,
            r#""route":"http/shop/cart","rule":"0","backend":"shop/cart/80","endpoint":"10.0.0.7:8080","attempts":1,"#,
            r#""request_bytes":0,"response_bytes":1024,"duration_us":1234,"upstream_duration_us":1000,"#,
            r#""client":"192.0.2.1:40000","peer":null,"user_agent":"café\u{fffd}","#,
            r#""trace_id":"00000000000000000000000000000abc"}"#,
            "\n"
        );
        assert_eq!(String::from_utf8(line).unwrap(), expected.replace("\\u{fffd}", "\u{fffd}"));
    }

    fn record_with(trace: opentelemetry::trace::TraceId, agent: Option<Text<'static>>) -> Record<'static> {
        Record { trace: Some(trace), user_agent: agent, ..record() }
    }

    #[test]
    fn a_full_queue_drops_with_a_count_and_does_not_wait() {
        let mut line = Vec::new();
        record().write_line("0000-00-00T00:00:00.000Z", &mut line);
        let setup = start(4 * line.len(), false);
        let closed = setup.gate.lock();
        // The writer is stuck: at most one batch of it is out of the queue, four lines are in it.
        for _ in 0..100 {
            setup.log.log(&record());
        }
        let dropped = setup.counters.dropped();
        assert!((92..=96).contains(&dropped), "{dropped}");
        drop(closed);
    }

    #[tokio::test]
    async fn a_broken_writer_is_counted_and_tried_again() {
        let setup = start(1 << 16, true);
        setup.log.log(&record());
        let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
        while setup.counters.failed() == 0 {
            assert!(tokio::time::Instant::now() < deadline);
            tokio::task::yield_now().await;
        }
        setup.log.log(&record());
        assert!(next(&setup.output).ends_with("}\n"));
        assert!(setup.log.close(Duration::from_secs(5)).await);
    }

    #[tokio::test]
    async fn close_writes_what_is_queued_and_refuses_what_comes_later() {
        let setup = start(1 << 20, false);
        for _ in 0..500 {
            setup.log.log(&record());
        }
        assert!(setup.log.close(Duration::from_secs(5)).await);
        setup.log.log(&record());
        let written: String = setup.output.try_iter().map(|bytes| String::from_utf8(bytes).unwrap()).collect();
        assert_eq!(written.lines().count(), 500);
        assert_eq!(setup.counters.dropped(), 1);
    }
}
