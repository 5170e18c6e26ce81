//! Batches as traces, over OTLP.

use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::trace::v1::Span;

use crate::scene::{ARCHIVE, Scene};
use crate::support::oracle::{Pace, Sensor};

#[test]
fn batches_are_traced_from_the_sensor_to_the_sinks_when_a_collector_is_named() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (spans, at) = runtime.block_on(Collector::start());
    let scene = Scene::new(
        &format!("telemetry: {{traces: {{endpoint: \"http://{at}\", sample: 1}}}}"),
        ARCHIVE,
    );
    let relay = scene.place.start();
    let pace = Pace {
        batch: 5,
        pause: Duration::from_millis(1),
        total: 20,
        size: 100,
    };
    let (_at, place) = tokio::sync::watch::channel(Some(relay.link));
    let (_over, over) = tokio::sync::watch::channel(false);
    runtime.block_on(Sensor::new(1, pace).run(place, over));
    relay.page_when("the archive has everything", |page| {
        page.sink("archive", "delivered_total") >= 20
    });
    // The drain sends what is left.
    relay.stop();
    let spans = spans.0.lock().expect("spans").clone();
    let named = |name: &str| {
        spans
            .iter()
            .filter(|span| span.name == name)
            .collect::<Vec<_>>()
    };
    for ingest in named("ingest") {
        let of_trace = |span: &&&Span| span.trace_id == ingest.trace_id;
        let sensor = named("sensor batch");
        let sensor = sensor.iter().find(of_trace).expect("its sensor's part");
        assert_eq!(ingest.parent_span_id, sensor.span_id);
        let below = |name: &str| {
            let spans = named(name);
            let span = spans
                .iter()
                .find(of_trace)
                .unwrap_or_else(|| panic!("no {name} in {spans:#?}"));
            assert_eq!(span.parent_span_id, ingest.span_id, "{name}");
            assert!(span.end_time_unix_nano >= span.start_time_unix_nano);
        };
        below("journal");
        below("sink archive");
    }
    assert!(
        named("ingest").len() >= 4,
        "a batch of 5 at a time: {spans:#?}"
    );
}

/// A collector's door, and what came through it.
#[derive(Clone, Default)]
struct Collector(std::sync::Arc<std::sync::Mutex<Vec<Span>>>);

impl Collector {
    async fn start() -> (Collector, std::net::SocketAddr) {
        let collector = Collector::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let at = listener.local_addr().expect("bound");
        let server = tonic::transport::Server::builder()
            .add_service(TraceServiceServer::new(collector.clone()))
            .serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(listener));
        tokio::spawn(server);
        (collector, at)
    }
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        let resources = request.into_inner().resource_spans;
        let scopes = resources
            .into_iter()
            .flat_map(|resource| resource.scope_spans);
        self.0
            .lock()
            .expect("spans")
            .extend(scopes.flat_map(|scope| scope.spans));
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}
