//! A collector's two doors.

use std::net::SocketAddr;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{
    LogsService, LogsServiceServer,
};
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::logs::v1::ResourceLogs;
use prost::Message as _;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::webhook::server;
use super::{Memory, Mood, Peer};
use crate::fake_http::{self, Answer, FakeHttp};

pub(crate) struct OtlpHttp {
    _server: FakeHttp,
    memory: Memory,
}

impl Peer for OtlpHttp {
    const STEPS: &[&str] = &["resolve", "connect", "authenticate", "write"];

    async fn start(at: SocketAddr) -> Self {
        let read = |request: &fake_http::Request| {
            assert_eq!(
                (request.method.as_str(), request.path.as_str()),
                ("POST", "/v1/logs")
            );
            assert_eq!(
                request.header("content-type"),
                Some("application/x-protobuf")
            );
            events(&ExportLogsServiceRequest::decode(&request.body[..]).expect("a request"))
        };
        // An empty ExportLogsServiceResponse has no bytes.
        let (_server, memory) = server(at, read, || Answer::status(200)).await;
        OtlpHttp { _server, memory }
    }

    fn settings(at: &str) -> String {
        format!("{{type: otlp, protocol: http, endpoint: 'http://{at}'}}")
    }

    fn memory(&self) -> &Memory {
        &self.memory
    }
}

pub(crate) struct OtlpGrpc {
    memory: Memory,
    task: JoinHandle<()>,
}

impl Drop for OtlpGrpc {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Peer for OtlpGrpc {
    const STEPS: &[&str] = &["resolve", "connect", "authenticate", "write"];

    async fn start(at: SocketAddr) -> Self {
        let listener = fake_http::listen(at).await;
        let memory = Memory::new(at);
        let door = LogsServiceServer::new(Door(memory.clone())).max_decoding_message_size(64 << 20);
        let task = tokio::spawn(async move {
            let served = tonic::transport::Server::builder()
                .add_service(door)
                .serve_with_incoming(TcpListenerStream::new(listener));
            served.await.expect("a server");
        });
        OtlpGrpc { memory, task }
    }

    fn settings(at: &str) -> String {
        format!("{{type: otlp, endpoint: 'http://{at}', headers: {{x-tenant: blue}}}}")
    }

    fn memory(&self) -> &Memory {
        &self.memory
    }
}

struct Door(Memory);

#[tonic::async_trait]
impl LogsService for Door {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        assert_eq!(request.metadata().get("x-tenant").unwrap(), "blue");
        let events = events(request.get_ref());
        match self.0.mood() {
            Mood::Busy => {
                let details = ErrorDetails::with_retry_info(Some(Duration::from_secs(7)));
                Err(Status::with_error_details(
                    Code::Unavailable,
                    "busy",
                    details,
                ))
            }
            Mood::Breaking => Err(Status::unavailable("the connection broke")),
            Mood::AllBut(word) => {
                let good = events.iter().filter(|(_, pod)| !pod.contains(word));
                let refused = events.len() - good.clone().count();
                self.0.keep(good.cloned());
                let partial = ExportLogsPartialSuccess {
                    rejected_log_records: refused as i64,
                    error_message: "I do not like it".into(),
                };
                Ok(Response::new(ExportLogsServiceResponse {
                    partial_success: Some(partial),
                }))
            }
            _ if self.0.refuses(&events) => Err(Status::invalid_argument("I do not like it")),
            _ => {
                self.0.keep(events);
                Ok(Response::new(ExportLogsServiceResponse::default()))
            }
        }
    }
}

/// The events of a request, in the order of their numbers within a resource.
fn events(request: &ExportLogsServiceRequest) -> Vec<(String, String)> {
    let mut events = Vec::new();
    let full = |logs: &&ResourceLogs| !logs.scope_logs.is_empty();
    for logs in request.resource_logs.iter().filter(full) {
        let resource = &logs.resource.as_ref().expect("a resource").attributes;
        assert_eq!(find(resource, "k8s.namespace.name"), "shop");
        assert_eq!(find(resource, "host.name"), "node-a");
        let pod = find(resource, "k8s.pod.name");
        for record in logs.scope_logs.iter().flat_map(|scope| &scope.log_records) {
            assert!(record.time_unix_nano > 0 && record.severity_number == 19);
            assert_eq!(
                find(&record.attributes, "security_rule.ruleset.name"),
                "no-apt"
            );
            events.push((find(&record.attributes, "log.record.uid"), pod.clone()));
        }
    }
    events
}

fn find(attributes: &[KeyValue], key: &str) -> String {
    let pair = attributes.iter().find(|pair| pair.key == key);
    match pair.and_then(|pair| pair.value.as_ref()?.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        other => panic!("{key} is no text: {other:?}"),
    }
}
