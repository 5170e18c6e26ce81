//! The link of an upstream relay, which checks events as a relay does.

use std::net::SocketAddr;
use std::pin::Pin;

use futures::Stream;
use prost::Message as _;
use proto::link::from_relay::Is as Reply;
use proto::link::from_sensor::Is as Say;
use proto::link::link_server::{Link, LinkServer};
use proto::{EventId, batch, feeder, link};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

use super::{Memory, Mood, Peer};
use crate::fake_http;

pub(crate) struct Upstream {
    memory: Memory,
    task: JoinHandle<()>,
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Peer for Upstream {
    const STEPS: &[&str] = &["resolve", "connect", "authenticate", "write"];

    async fn start(at: SocketAddr) -> Self {
        let listener = fake_http::listen(at).await;
        let memory = Memory::new(at);
        let door = LinkServer::new(Door(memory.clone()));
        let task = tokio::spawn(async move {
            let served = tonic::transport::Server::builder()
                .add_service(door)
                .serve_with_incoming(TcpListenerStream::new(listener));
            served.await.expect("a server");
        });
        Upstream { memory, task }
    }

    fn settings(at: &str) -> String {
        format!("{{type: relay, url: 'http://{at}', name: prod-eu}}")
    }

    fn memory(&self) -> &Memory {
        &self.memory
    }
}

struct Door(Memory);

type Replies = Pin<Box<dyn Stream<Item = Result<link::FromRelay, Status>> + Send>>;

#[tonic::async_trait]
impl Link for Door {
    type ExchangeStream = Replies;

    async fn exchange(
        &self,
        request: Request<Streaming<link::FromSensor>>,
    ) -> Result<Response<Replies>, Status> {
        let (replies, queue) = mpsc::channel(8);
        tokio::spawn(serve(self.0.clone(), request.into_inner(), replies));
        Ok(Response::new(Box::pin(ReceiverStream::new(queue))))
    }
}

async fn serve(
    memory: Memory,
    mut from: Streaming<link::FromSensor>,
    replies: mpsc::Sender<Result<link::FromRelay, Status>>,
) {
    let say = |reply| link::FromRelay { is: Some(reply) };
    while let Ok(Some(message)) = from.message().await {
        let reply = match message.is {
            Some(Say::Hello(hello)) => {
                assert_eq!((hello.version, hello.sensor.as_str()), (1, "prod-eu"));
                Reply::Welcome(link::Welcome::default())
            }
            Some(Say::Batch(_)) if memory.mood() == Mood::Busy => Reply::Pause(link::Pause {
                reason: "busy".into(),
                retry_after_ms: 7000,
            }),
            // Dropping both ends breaks the connection.
            Some(Say::Batch(_)) if memory.mood() == Mood::Breaking => return,
            Some(Say::Batch(batch)) => Reply::Ack(take(&memory, batch)),
            other => panic!("not expected: {other:?}"),
        };
        if replies.send(Ok(say(reply))).await.is_err() {
            return;
        }
    }
}

fn take(memory: &Memory, sent: link::Batch) -> link::Ack {
    let stream = sent.stream.clone();
    let received = batch::receive(sent).expect("a batch");
    let mut ack = link::Ack {
        stream,
        up_to: received.first + received.events.len() as u64 - 1,
        rejected: Vec::new(),
    };
    for (sequence, event) in (received.first..).zip(received.events) {
        let id = EventId {
            stream: received.stream,
            sequence,
        };
        let read = event.map_err(|why| why.to_string()).map(|event| {
            let alert = feeder::Alert::decode(event.payload).expect("an alert");
            assert_eq!(alert.cluster_name, "test");
            vec![(id.to_string(), alert.pod_name)]
        });
        match read {
            Ok(events) if !memory.refuses(&events) => memory.keep(events),
            Ok(_) => ack.rejected.push(link::Rejected {
                sequence,
                reason: "I do not like it".into(),
            }),
            Err(reason) => ack.rejected.push(link::Rejected { sequence, reason }),
        }
    }
    ack
}
