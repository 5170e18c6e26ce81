//! A sensor that goes on at the next relay when its own is gone, and keeps what no relay has acknowledged.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use prost::Message as _;
use proto::link::from_relay::Is as Reply;
use proto::link::from_sensor::Is as Say;
use proto::link::link_client::LinkClient;
use proto::{EventId, Kind, StreamId, batch, feeder, link};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;

use crate::support::hello;

const BATCH: u64 = 10;
const ANSWER: Duration = Duration::from_secs(45);

/// One sensor, and how far it was acknowledged.
pub(crate) struct Sensor {
    id: String,
    stream: StreamId,
    pub(crate) acknowledged: Arc<AtomicU64>,
}

impl Sensor {
    pub(crate) fn new(number: u8) -> Sensor {
        Sensor {
            id: format!("sensor-{number}"),
            stream: StreamId([100 + number; 8]),
            acknowledged: Arc::default(),
        }
    }

    /// Ids of all that was acknowledged.
    pub(crate) fn ids(&self) -> impl Iterator<Item = EventId> + use<> {
        let stream = self.stream;
        (1..=self.acknowledged.load(Ordering::Relaxed))
            .map(move |sequence| EventId { stream, sequence })
    }

    /// Sends until told to stop, through whichever relay is there.
    pub(crate) fn run(
        &self,
        relays: [Arc<Mutex<Option<SocketAddr>>>; 2],
        stop: Arc<AtomicBool>,
        first: usize,
    ) -> tokio::task::JoinHandle<()> {
        let (id, stream, acknowledged) =
            (self.id.clone(), self.stream, Arc::clone(&self.acknowledged));
        tokio::spawn(async move {
            let mut at = first;
            while !stop.load(Ordering::Relaxed) {
                let address = *relays[at % 2].lock().unwrap();
                at += 1;
                if let Some(address) = address {
                    // However it ends, it goes on at the other.
                    let _ = session(address, &id, stream, &acknowledged, &stop).await;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
    }
}

async fn session(
    address: SocketAddr,
    id: &str,
    stream: StreamId,
    acknowledged: &AtomicU64,
    stop: &AtomicBool,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut client = LinkClient::connect(format!("http://{address}")).await?;
    let (say, said) = mpsc::channel(10);
    let mut heard = client
        .exchange(ReceiverStream::new(said))
        .await?
        .into_inner();
    let mut hello = hello(id);
    hello.streams[0].stream = stream.0.to_vec().into();
    say.send(link::FromSensor {
        is: Some(Say::Hello(hello)),
    })
    .await?;
    while !stop.load(Ordering::Relaxed) {
        let first = acknowledged.load(Ordering::Relaxed) + 1;
        let events = (first..first + BATCH)
            .map(|sequence| alert(id, sequence))
            .collect();
        let stream = stream.0.to_vec().into();
        let batch = link::Batch {
            stream,
            first,
            events,
        };
        say.send(link::FromSensor {
            is: Some(Say::Batch(batch)),
        })
        .await?;
        let up_to = loop {
            match timeout(ANSWER, heard.message())
                .await??
                .and_then(|reply| reply.is)
            {
                Some(Reply::Ack(ack)) => break ack.up_to,
                Some(Reply::Pause(_)) | None => return Ok(()),
                Some(_) => {}
            }
        };
        acknowledged.fetch_max(up_to, Ordering::Relaxed);
    }
    Ok(())
}

fn alert(id: &str, sequence: u64) -> bytes::Bytes {
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    let alert = feeder::Alert {
        timestamp: (now / 1_000_000_000) as i64,
        updated_time: proto::updated_time(now),
        namespace_name: "shop".into(),
        pod_name: id.into(),
        message: sequence.to_string(),
        ..Default::default()
    };
    batch::join(Kind::Alert, &alert.encode_to_vec())
}
