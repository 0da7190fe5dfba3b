//! OpenTelemetry traces over OTLP/gRPC. Whether a request is sampled is decided before anything is built for it.
//!
//! Invariant: a request that is not sampled allocates nothing and keeps its `traceparent` as it came; a sampled one never
//! waits for the collector: what the queue has no room for is dropped with a count.

use std::{
    borrow::Cow,
    str::FromStr as _,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use control_plane_model as model;
use http::{HeaderMap, HeaderValue};
use kit_process::tasks::Tasks;
use opentelemetry::{
    InstrumentationScope, KeyValue,
    trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState},
};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::{
    Resource,
    trace::{SpanData, SpanEvents, SpanExporter as _, SpanLinks},
};
use prometheus_client::{metrics::counter::Counter, registry::Registry};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use super::{
    record::{Record, protocol_version},
    traceparent::{self, Parent, TRACEPARENT, TRACESTATE},
};

/// Spans that wait for the collector.
const QUEUE: usize = 4096;
/// Spans in one message to the collector.
const BATCH: usize = 512;
/// How long spans are gathered.
const GATHER: Duration = Duration::from_secs(1);
/// How long the collector may take for one message, repeats included.
const EXPORT_LIMIT: Duration = Duration::from_secs(10);

/// What became of spans.
#[derive(Clone, Debug, Default)]
pub struct TraceCounters {
    exported: Counter,
    dropped: Counter,
    failed: Counter,
}

impl TraceCounters {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("exported_spans", "Spans that the collector has taken", self.exported.clone());
        registry.register("dropped_spans", "Spans that the queue had no room for", self.dropped.clone());
        registry.register("failed_spans", "Spans that the collector did not take", self.failed.clone());
    }
}

/// What the exporting task is told.
#[derive(Clone, Debug, Default, PartialEq)]
struct Target {
    /// The collector's endpoint; `None` for nowhere.
    collector: Option<String>,
    /// No spans come after those that are queued.
    closed: bool,
}

/// The proxy's tracing: decides, and hands spans to the task that exports them.
#[derive(Debug)]
pub struct Tracing {
    enabled: AtomicBool,
    /// A new trace is sampled where 53 random bits are below this.
    threshold: AtomicU64,
    target: watch::Sender<Target>,
    ended: watch::Receiver<bool>,
    spans: mpsc::Sender<SpanData>,
    counters: TraceCounters,
}

/// What becomes of a request's trace.
#[derive(Debug)]
pub enum TraceDecision {
    /// Nothing is recorded; `traceparent` and `tracestate` are passed on as they came.
    Unsampled,
    /// A span is recorded.
    Sampled(ActiveSpan),
}

impl TraceDecision {
    /// The trace, where the request is sampled.
    pub fn trace(&self) -> Option<TraceId> {
        match self {
            Self::Unsampled => None,
            Self::Sampled(span) => Some(span.trace()),
        }
    }
}

/// The span of a request in work. Dropping it without [`Self::finish`] records nothing.
#[derive(Debug)]
pub struct ActiveSpan {
    trace: TraceId,
    span: SpanId,
    parent: Option<SpanId>,
    state: Option<HeaderValue>,
    spans: mpsc::Sender<SpanData>,
    counters: TraceCounters,
}

impl Tracing {
    /// Starts the task that exports spans, as one of `tasks`; nothing is sampled before [`Self::reconfigure`].
    /// `service` and `gateway` are the resource's `service.name` and `nebula.gateway`.
    pub fn start(tasks: &Tasks, service: &'static str, gateway: String, counters: TraceCounters) -> Arc<Self> {
        let (target, targets) = watch::channel(Target::default());
        let (spans, queue) = mpsc::channel(QUEUE);
        let (end, ended) = watch::channel(false);
        let resource = Resource::builder_empty()
            .with_service_name(service)
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .with_attribute(KeyValue::new("nebula.gateway", gateway))
            .build();
        let mut export = Export {
            queue,
            targets,
            collector: None,
            exporter: None,
            batch: Vec::with_capacity(BATCH),
            resource,
            counters: counters.clone(),
        };
        // It outlives the start of the drain: the requests that drain have spans as well.
        tasks.spawn_detached("trace-export", async move {
            export.run().await;
            end.send_replace(true);
        });
        Arc::new(Self { enabled: AtomicBool::new(false), threshold: AtomicU64::new(0), target, ended, spans, counters })
    }

    /// Takes new settings; `None` ends sampling. Spans that wait go to the old collector.
    pub fn reconfigure(&self, settings: Option<&model::Tracing>) {
        let collector = settings.map(|settings| settings.endpoint.clone());
        self.target.send_if_modified(|target| {
            let changed = target.collector != collector && !target.closed;
            if changed {
                target.collector = collector;
            }
            changed
        });
        self.threshold.store(settings.map_or(0, |settings| threshold(settings.sampling)), Ordering::Relaxed);
        self.enabled.store(settings.is_some(), Ordering::Relaxed);
    }

    /// Decides on a request. A parent's own decision is kept; without a parent, the ratio decides. `random` gives 64
    /// uniform bits; it is called once for a request without a parent, and up to four times for one that is sampled.
    pub fn begin(&self, headers: &HeaderMap, mut random: impl FnMut() -> u64) -> TraceDecision {
        if !self.enabled.load(Ordering::Relaxed) {
            return TraceDecision::Unsampled;
        }
        let parent = Parent::from_headers(headers);
        let sampled = match &parent {
            Some(parent) => parent.sampled,
            None => (random() >> 11) < self.threshold.load(Ordering::Relaxed),
        };
        if !sampled {
            return TraceDecision::Unsampled;
        }
        let trace = parent.map_or_else(
            || TraceId::from(u128::from(random().max(1)) << 64 | u128::from(random())),
            |parent| parent.trace,
        );
        // Section 3.3.1: tracestate means nothing without a traceparent that parses.
        let state = parent.and_then(|_| headers.get(&TRACESTATE).cloned());
        TraceDecision::Sampled(ActiveSpan {
            trace,
            span: SpanId::from(random().max(1)),
            parent: parent.map(|parent| parent.span),
            state,
            spans: self.spans.clone(),
            counters: self.counters.clone(),
        })
    }

    /// Takes no more spans, and waits until those in the queue are exported, at most `limit`; tells whether they are.
    ///
    /// Cancel-safe: the task goes on exporting.
    pub async fn close(&self, limit: Duration) -> bool {
        self.enabled.store(false, Ordering::Relaxed);
        self.target.send_modify(|target| target.closed = true);
        let mut ended = self.ended.clone();
        matches!(tokio::time::timeout(limit, ended.wait_for(|ended| *ended)).await, Ok(Ok(_)))
    }
}

/// How many of 2^53 random values are sampled.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a ratio is between 0 and 1, so that the product is a whole number from 0 to 2^53 once rounded"
)]
fn threshold(ratio: model::SamplingRatio) -> u64 {
    const ALL: f64 = 9_007_199_254_740_992.0;
    (ratio.get() * ALL).round() as u64
}

impl ActiveSpan {
    /// The trace.
    pub fn trace(&self) -> TraceId {
        self.trace
    }

    /// Makes the span the parent of what is sent with `headers`.
    pub fn inject(&self, headers: &mut HeaderMap) {
        if let Some(value) = traceparent::sampled(self.trace, self.span) {
            headers.insert(&TRACEPARENT, value);
        }
        if self.parent.is_none() {
            headers.remove(&TRACESTATE);
        }
    }

    /// Ends the span and queues it for the collector, or drops it with a count where the queue is full.
    pub fn finish(self, record: &Record<'_>) {
        let Self { trace, span, parent, state, spans, counters } = self;
        let state =
            state.and_then(|state| TraceState::from_str(state.to_str().unwrap_or_default()).ok()).unwrap_or_default();
        let failed = record.status.is_server_error();
        let data = SpanData {
            span_context: SpanContext::new(trace, span, TraceFlags::SAMPLED, false, state),
            parent_span_id: parent.unwrap_or(SpanId::INVALID),
            parent_span_is_remote: parent.is_some(),
            span_kind: SpanKind::Server,
            name: span_name(record),
            start_time: record.time,
            end_time: record.time.checked_add(record.duration).unwrap_or(SystemTime::UNIX_EPOCH),
            attributes: attributes(record),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: if failed { Status::error(record.flag.unwrap_or_default()) } else { Status::Unset },
            instrumentation_scope: InstrumentationScope::builder("nebula").build(),
        };
        if spans.try_send(data).is_err() {
            counters.dropped.inc();
        }
    }
}

/// `METHOD route`, and the method alone where no route matched: few names, as the conventions ask.
fn span_name(record: &Record<'_>) -> Cow<'static, str> {
    let method = method(record);
    match &record.route {
        Some(route) => Cow::Owned(format!("{method} {route}")),
        None => Cow::Borrowed(method),
    }
}

/// The method where it is a standard one, else `HTTP` (semantic conventions 1.37: HTTP spans, name).
fn method(record: &Record<'_>) -> &'static str {
    const KNOWN: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];
    KNOWN.into_iter().find(|known| *known == record.method).unwrap_or("HTTP")
}

/// The record under OpenTelemetry's names.
fn attributes(record: &Record<'_>) -> Vec<KeyValue> {
    let mut attributes = vec![
        KeyValue::new("http.request.method", record.method.to_owned()),
        KeyValue::new("http.response.status_code", i64::from(record.status.as_u16())),
        KeyValue::new("server.address", record.host.to_str_lossy().into_owned()),
        KeyValue::new("url.path", record.path.to_str_lossy().into_owned()),
        KeyValue::new("network.protocol.version", protocol_version(record.version)),
        KeyValue::new("client.address", record.client.ip().to_string()),
        KeyValue::new("nebula.request_id", record.request_id.to_str_lossy().into_owned()),
        KeyValue::new("nebula.attempts", i64::from(record.attempts)),
    ];
    let optional = [
        ("nebula.listener", record.listener.map(str::to_owned)),
        ("nebula.route", record.route.map(str::to_owned)),
        ("nebula.backend", record.backend.map(str::to_owned)),
        ("nebula.endpoint", record.endpoint.map(str::to_owned)),
        ("nebula.flag", record.flag.map(str::to_owned)),
        (
            "nebula.policy",
            record.decisions.iter().find(|decision| !decision.reported).map(|decision| decision.policy.to_string()),
        ),
        ("nebula.policy.reported", record.reported()),
        ("user_agent.original", record.user_agent.map(|agent| agent.to_str_lossy().into_owned())),
    ];
    attributes.extend(optional.into_iter().filter_map(|(key, value)| Some(KeyValue::new(key, value?))));
    attributes
}

/// The task that exports.
struct Export {
    queue: mpsc::Receiver<SpanData>,
    targets: watch::Receiver<Target>,
    /// Where `exporter` sends to.
    collector: Option<String>,
    exporter: Option<SpanExporter>,
    batch: Vec<SpanData>,
    resource: Resource,
    counters: TraceCounters,
}

impl Export {
    /// Runs until it is told to end, or the [`Tracing`] is gone.
    async fn run(&mut self) {
        let mut send_at = Instant::now();
        loop {
            let was_empty = self.batch.is_empty();
            let room = BATCH - self.batch.len();
            // Every arm is cancel-safe: recv_many and changed say so, sleep_until is.
            tokio::select! {
                biased;
                changed = self.targets.changed() => {
                    self.send().await;
                    let target = self.targets.borrow_and_update().clone();
                    if target.collector != self.collector {
                        self.exporter = target.collector.as_deref().and_then(|endpoint| self.connect(endpoint));
                        self.collector = target.collector;
                    }
                    // An error means that the Tracing is gone.
                    if target.closed || changed.is_err() {
                        return self.send_rest().await;
                    }
                }
                received = self.queue.recv_many(&mut self.batch, room) => {
                    if received == 0 {
                        return self.send().await;
                    }
                    if was_empty {
                        send_at = Instant::now() + GATHER;
                    }
                    if self.batch.len() >= BATCH {
                        self.send().await;
                    }
                }
                () = tokio::time::sleep_until(send_at), if !was_empty => self.send().await,
            }
        }
    }

    fn connect(&self, endpoint: &str) -> Option<SpanExporter> {
        match exporter(endpoint, &self.resource) {
            Ok(exporter) => Some(exporter),
            Err(error) => {
                tracing::warn!(endpoint, error = %kit_process::error::chain(&error), "traces are not exported");
                None
            }
        }
    }

    /// Exports the batch, if any.
    async fn send(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let batch = std::mem::replace(&mut self.batch, Vec::with_capacity(BATCH));
        let count = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        let sent = match &self.exporter {
            Some(exporter) => {
                matches!(tokio::time::timeout(EXPORT_LIMIT, exporter.export(batch)).await, Ok(Ok(())))
            }
            None => false,
        };
        if sent {
            self.counters.exported.inc_by(count);
        } else {
            self.counters.failed.inc_by(count);
            tracing::debug!(spans = count, "spans were not exported");
        }
    }

    /// Exports what is queued.
    async fn send_rest(&mut self) {
        self.queue.close();
        while self.queue.recv_many(&mut self.batch, BATCH).await > 0 {
            self.send().await;
        }
    }
}

/// An exporter to `endpoint`; connects with the first message.
fn exporter(endpoint: &str, resource: &Resource) -> Result<SpanExporter, ExporterBuildError> {
    let mut exporter =
        SpanExporter::builder().with_tonic().with_endpoint(endpoint).with_timeout(EXPORT_LIMIT / 2).build()?;
    exporter.set_resource(resource);
    Ok(exporter)
}

#[cfg(test)]
mod tests;
