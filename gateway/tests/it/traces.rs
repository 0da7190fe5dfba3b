//! Traces, with a collector of OpenTelemetry's own making.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    trace::v1::Span,
};
use tokio::{net::TcpListener, sync::mpsc, time::timeout};
use tokio_stream::wrappers::TcpListenerStream;

use crate::harness::{Client, DEADLINE, Folder, Gateway, backend, gateway, route, service, spawn};

struct Collector(mpsc::Sender<ExportTraceServiceRequest>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        self.0.send(request.into_inner()).await.unwrap();
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

/// A collector's port, and what reaches it.
async fn collector() -> (u16, mpsc::Receiver<ExportTraceServiceRequest>) {
    let (sender, received) = mpsc::channel(16);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    spawn(async move {
        let server = tonic::transport::Server::builder().add_service(TraceServiceServer::new(Collector(sender)));
        server.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap();
    });
    (port, received)
}

/// A GatewayConfig that sends traces to that port and, where the client does not decide, samples nothing.
fn config(port: u16) -> String {
    format!(
        "apiVersion: nebula.dev/v1alpha1\nkind: GatewayConfig\nmetadata: {{name: traced}}\nspec:\n  telemetry:\n    \
         tracing: {{endpoint: \"http://127.0.0.1:{port}\", sampling: {{numerator: 0, denominator: 100}}}}\n"
    )
}

fn traced_gateway() -> String {
    gateway() + "  infrastructure: {parametersRef: {group: nebula.dev, kind: GatewayConfig, name: traced}}\n"
}

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

#[tokio::test]
async fn a_sampled_request_has_a_span_at_the_collector_and_the_backend_is_its_child() {
    let (port, mut received) = collector().await;
    // Answers with the traceparent that it was sent.
    let echo = backend(|request: Request<_>| async move {
        let seen =
            request.headers().get("traceparent").map_or(Bytes::new(), |value| Bytes::copy_from_slice(value.as_bytes()));
        Response::new(Full::new(seen))
    });
    let folder = Folder::with([
        ("config.yaml", config(port)),
        ("gateway.yaml", traced_gateway()),
        ("route.yaml", route("r", "/", "echo")),
        ("service.yaml", service("echo", echo.await)),
    ]);
    let gateway = Gateway::ready(&folder).await;
    let mut client = Client::connect(gateway.http).await.unwrap();
    let mut ask = async |flags: &str| {
        let parent = format!("00-{TRACE}-{PARENT}-{flags}");
        let request = Request::get("/cart").header("host", "example.test").header("traceparent", parent);
        client.send(request.body(Full::default()).unwrap()).await.unwrap().body
    };
    assert_eq!(ask("00").await, format!("00-{TRACE}-{PARENT}-00"), "not sampled: passed on as it came");
    let sent = ask("01").await;
    let exported = timeout(DEADLINE, received.recv()).await.unwrap().unwrap();
    let scopes = exported.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
    let spans: Vec<&Span> = scopes.flat_map(|scope| &scope.spans).collect();
    let [span] = spans.as_slice() else { panic!("{spans:?}") };
    assert_eq!((hex::encode(&span.trace_id), hex::encode(&span.parent_span_id)), (TRACE.to_owned(), PARENT.to_owned()));
    assert_eq!(sent, format!("00-{TRACE}-{}-01", hex::encode(&span.span_id)));
    assert_eq!(span.name, "GET http/default/r");

    // Without its GatewayConfig no more spans are made.
    folder.write("gateway.yaml", &crate::harness::gateway());
    let as_it_came = format!("00-{TRACE}-{PARENT}-01");
    timeout(DEADLINE, async { while ask("01").await != as_it_came {} }).await.unwrap();
}
