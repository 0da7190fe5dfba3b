use std::net::SocketAddr;

use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    trace::v1::Span,
};
use tonic::{Request, Response};

use super::*;
use crate::telemetry::record::tests::record;

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// A collector that hands on what it gets.
struct Collector(mpsc::Sender<ExportTraceServiceRequest>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, tonic::Status> {
        self.0.send(request.into_inner()).await.unwrap();
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

async fn collector(tasks: &Tasks) -> (SocketAddr, mpsc::Receiver<ExportTraceServiceRequest>) {
    let (sender, received) = mpsc::channel(16);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tasks.spawn_detached("collector", async move {
        tonic::transport::Server::builder()
            .add_service(TraceServiceServer::new(Collector(sender)))
            .serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(listener))
            .await
            .unwrap();
    });
    (address, received)
}

async fn spans(received: &mut mpsc::Receiver<ExportTraceServiceRequest>) -> Vec<Span> {
    let request = tokio::time::timeout(Duration::from_secs(10), received.recv()).await.unwrap().unwrap();
    let scopes = request.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
    scopes.flat_map(|scope| scope.spans).collect()
}

fn tasks() -> (kit_process::drain::DrainTrigger, Tasks) {
    let (trigger, drain) = kit_process::drain::channel();
    (trigger, Tasks::new(drain))
}

fn settings(endpoint: String, ratio: f64) -> model::Tracing {
    model::Tracing { endpoint, sampling: model::SamplingRatio::new(ratio).unwrap() }
}

fn headers(traceparent: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(&TRACEPARENT, traceparent.parse().unwrap());
    headers.insert(&TRACESTATE, "vendor=1".parse().unwrap());
    headers
}

fn sampled(decision: TraceDecision) -> ActiveSpan {
    match decision {
        TraceDecision::Sampled(span) => span,
        TraceDecision::Unsampled => panic!("not sampled"),
    }
}

#[tokio::test]
async fn a_sampled_request_arrives_as_a_child_of_its_parent_and_is_the_parent_of_what_is_sent_on() {
    let (_trigger, tasks) = tasks();
    let (address, mut received) = collector(&tasks).await;
    let tracing = Tracing::start(&tasks, "nebula-gateway", "infra/edge".into(), TraceCounters::default());
    tracing.reconfigure(Some(&settings(format!("http://{address}"), 0.0)));

    let mut headers = headers(PARENT);
    let span = sampled(tracing.begin(&headers, || 7));
    span.inject(&mut headers);
    span.finish(&Record { status: http::StatusCode::BAD_GATEWAY, flag: Some("upstream_reset"), ..record() });
    assert_eq!(headers[&TRACEPARENT], "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000007-01");
    assert_eq!(headers[&TRACESTATE], "vendor=1");

    // An unsampled request beside it leaves no span: the collector gets this one alone.
    let unsampled = PARENT.replace("-01", "-00");
    assert!(matches!(tracing.begin(&self::headers(&unsampled), || 8), TraceDecision::Unsampled));
    assert!(tracing.close(Duration::from_secs(10)).await);
    let spans = spans(&mut received).await;
    assert_eq!(spans.len(), 1);
    assert_eq!(spans[0].trace_id, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736_u128.to_be_bytes());
    assert_eq!(spans[0].parent_span_id, 0x00f0_67aa_0ba9_02b7_u64.to_be_bytes());
    assert_eq!(spans[0].span_id, 7_u64.to_be_bytes());
    assert_eq!((spans[0].name.as_str(), spans[0].trace_state.as_str()), ("GET http/shop/cart", "vendor=1"));
    assert_eq!(spans[0].end_time_unix_nano - spans[0].start_time_unix_nano, 1_234_000);
    assert_eq!(spans[0].status.as_ref().unwrap().message, "upstream_reset");
    assert!(received.try_recv().is_err());
}

#[tokio::test]
async fn a_new_collector_gets_the_spans_that_come_after_the_change() {
    let (_trigger, tasks) = tasks();
    let (first, mut at_first) = collector(&tasks).await;
    let (second, mut at_second) = collector(&tasks).await;
    let tracing = Tracing::start(&tasks, "nebula-gateway", "infra/edge".into(), TraceCounters::default());
    tracing.reconfigure(Some(&settings(format!("http://{first}"), 1.0)));
    sampled(tracing.begin(&HeaderMap::new(), || 1)).finish(&record());
    assert_eq!(spans(&mut at_first).await.len(), 1);
    tracing.reconfigure(Some(&settings(format!("http://{second}"), 1.0)));
    sampled(tracing.begin(&HeaderMap::new(), || 2)).finish(&record());
    assert!(tracing.close(Duration::from_secs(10)).await);
    assert_eq!(spans(&mut at_second).await.len(), 1);
    assert!(at_first.try_recv().is_err());
}

#[tokio::test]
async fn without_settings_nothing_is_sampled_not_even_a_sampled_parent() {
    let (_trigger, tasks) = tasks();
    let tracing = Tracing::start(&tasks, "nebula-gateway", "infra/edge".into(), TraceCounters::default());
    assert!(matches!(tracing.begin(&headers(PARENT), || 0), TraceDecision::Unsampled));
    tracing.reconfigure(Some(&settings("http://127.0.0.1:9".into(), 1.0)));
    assert!(matches!(tracing.begin(&headers(PARENT), || 0), TraceDecision::Sampled(_)));
    tracing.reconfigure(None);
    assert!(matches!(tracing.begin(&headers(PARENT), || 0), TraceDecision::Unsampled));
}

#[tokio::test]
async fn the_ratio_decides_for_requests_without_a_parent() {
    let (_trigger, tasks) = tasks();
    let tracing = Tracing::start(&tasks, "nebula-gateway", "infra/edge".into(), TraceCounters::default());
    let decide = |ratio: f64, random: u64| {
        tracing.reconfigure(Some(&settings("http://127.0.0.1:9".into(), ratio)));
        matches!(tracing.begin(&HeaderMap::new(), || random), TraceDecision::Sampled(_))
    };
    assert!(!decide(0.0, 0) && decide(1.0, u64::MAX));
    assert!(decide(0.25, (1 << 62) - 1) && !decide(0.25, 1 << 62));
}

#[tokio::test]
async fn an_invalid_parent_begins_a_new_trace_and_takes_its_state_along() {
    let (_trigger, tasks) = tasks();
    let tracing = Tracing::start(&tasks, "nebula-gateway", "infra/edge".into(), TraceCounters::default());
    tracing.reconfigure(Some(&settings("http://127.0.0.1:9".into(), 1.0)));
    let mut headers = headers("00-not-a-parent-01");
    let span = sampled(tracing.begin(&headers, || 5));
    span.inject(&mut headers);
    assert_eq!(headers[&TRACEPARENT], "00-00000000000000050000000000000005-0000000000000005-01");
    assert!(!headers.contains_key(&TRACESTATE));
}

#[tokio::test]
async fn a_collector_that_is_away_costs_spans_and_no_time() {
    let (_trigger, tasks) = tasks();
    let counters = TraceCounters::default();
    let tracing = Tracing::start(&tasks, "nebula-gateway", "infra/edge".into(), counters.clone());
    // The task does not run before this test awaits, so that the queue fills.
    tracing.reconfigure(Some(&settings("http://127.0.0.1:9".into(), 1.0)));
    for _ in 0..QUEUE + 10 {
        sampled(tracing.begin(&HeaderMap::new(), || 5)).finish(&record());
    }
    assert_eq!(counters.dropped.get(), 10);
}
