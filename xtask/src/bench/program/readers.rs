//! Clients of the feed: `feeder.LogService` over HTTP/2, counted and not decoded.
//!
//! Each client has one connection with `WatchAlerts` and `WatchLogs` in it. Of every message the length is read and the
//! event id, which the relay puts at its end; the ids of a stream must follow each other without a hole.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use proto::{EventId, StreamId};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::codegen::http::Request;

use super::clock::Clock;
use super::measure::Times;

/// Bytes that a client lets the relay send ahead, on a stream and on the connection.
const WINDOW: u32 = 1 << 20;
/// The relay's word for "everything": field 1 of the request, with gRPC's header.
const ALL: &[u8] = &[0, 0, 0, 0, 5, 0x0a, 3, b'a', b'l', b'l'];
/// Of gRPC: a byte for compression, four for the length.
const HEADER: usize = 5;
/// Field 100 at the end of a message: key, length, id.
const ID: usize = 3 + EventId::LEN;

/// Clients that read.
pub(crate) struct Readers {
    counts: Vec<Arc<Count>>,
    go: watch::Sender<bool>,
    tasks: JoinSet<Result<()>>,
    times: Arc<Mutex<Times>>,
}

/// What one client has seen.
#[derive(Default)]
struct Count {
    events: AtomicU64,
    /// Events that were left out, came twice, or had no id.
    faults: AtomicU64,
}

impl Readers {
    /// Connects clients. When this ends the relay knows all of them; they begin to read when told to.
    pub(crate) async fn connect(
        feed: SocketAddr,
        clients: usize,
        clock: Option<Arc<Clock>>,
    ) -> Result<Readers> {
        let (go, gone) = watch::channel(false);
        let (mut counts, mut tasks) = (Vec::new(), JoinSet::new());
        let times = Arc::default();
        for _ in 0..clients {
            let count = Arc::new(Count::default());
            for stream in open(feed, &["WatchAlerts", "WatchLogs"], &mut tasks).await? {
                let mut client = Client {
                    count: count.clone(),
                    last: Vec::new(),
                    partial: Vec::new(),
                    clock: clock.clone(),
                    times: Arc::clone(&times),
                };
                let mut gone = gone.clone();
                tasks.spawn(async move {
                    gone.wait_for(|go| *go).await?;
                    client.read(stream).await
                });
            }
            counts.push(count);
        }
        Ok(Readers {
            counts,
            go,
            tasks,
            times,
        })
    }

    /// They begin to read.
    pub(crate) fn go(&self) {
        self.go.send_replace(true);
    }

    /// Events that each client has seen.
    pub(crate) fn events(&self) -> Vec<u64> {
        let events = self.counts.iter();
        events
            .map(|count| count.events.load(Ordering::Relaxed))
            .collect()
    }

    /// Events that were left out, came twice, or had no id.
    pub(crate) fn faults(&self) -> u64 {
        let faults = self.counts.iter();
        faults
            .map(|count| count.faults.load(Ordering::Relaxed))
            .sum()
    }

    /// How long events took from when they were due, where a clock was given.
    pub(crate) fn times(&self) -> Times {
        self.times
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Hangs up. An error is one that a client met while it read.
    pub(crate) async fn hang_up(mut self) -> Result<()> {
        while let Some(ended) = self.tasks.try_join_next() {
            ended??;
        }
        self.tasks.shutdown().await;
        Ok(())
    }
}

/// Calls methods of the service over one new connection, which is served by a task of `tasks`.
async fn open(
    feed: SocketAddr,
    methods: &[&str],
    tasks: &mut JoinSet<Result<()>>,
) -> Result<Vec<h2::RecvStream>> {
    let tcp = TcpStream::connect(feed).await?;
    tcp.set_nodelay(true)?;
    let mut builder = h2::client::Builder::new();
    builder
        .initial_window_size(WINDOW)
        .initial_connection_window_size(WINDOW);
    let (client, connection) = builder.handshake::<_, Bytes>(tcp).await?;
    tasks.spawn(async move { Ok(connection.await?) });
    let mut client = client.ready().await?;
    let mut streams = Vec::new();
    for method in methods {
        let request = Request::post(format!("http://{feed}/feeder.LogService/{method}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())?;
        let (response, mut send) = client.send_request(request, false)?;
        send.send_data(Bytes::from_static(ALL), true)?;
        let response = response.await?;
        ensure!(
            response.status().is_success(),
            "{method}: {}",
            response.status()
        );
        streams.push(response.into_body());
        client = client.ready().await?;
    }
    Ok(streams)
}

/// One stream of one client.
struct Client {
    count: Arc<Count>,
    /// The last sequence of every sensor's stream; the one that came last stands first.
    last: Vec<(StreamId, u64)>,
    /// The begin of a message whose end has not come.
    partial: Vec<u8>,
    clock: Option<Arc<Clock>>,
    times: Arc<Mutex<Times>>,
}

impl Client {
    async fn read(&mut self, mut stream: h2::RecvStream) -> Result<()> {
        while let Some(chunk) = stream.data().await {
            let chunk = chunk.context("the relay broke a stream of its feed")?;
            self.take(&chunk);
            stream.flow_control().release_capacity(chunk.len())?;
        }
        Ok(())
    }

    fn take(&mut self, mut chunk: &[u8]) {
        let mut events = 0;
        while !self.partial.is_empty() {
            let wanted = whole(&self.partial).unwrap_or(HEADER);
            let part = chunk.len().min(wanted - self.partial.len());
            self.partial.extend_from_slice(&chunk[..part]);
            chunk = &chunk[part..];
            match whole(&self.partial) {
                Some(length) if length == self.partial.len() => {
                    let message = std::mem::take(&mut self.partial);
                    self.event(&message);
                    events += 1;
                }
                _ if chunk.is_empty() => break,
                _ => {}
            }
        }
        while let Some(length) = whole(chunk).filter(|length| *length <= chunk.len()) {
            self.event(&chunk[..length]);
            chunk = &chunk[length..];
            events += 1;
        }
        self.partial.extend_from_slice(chunk);
        self.count.events.fetch_add(events, Ordering::Relaxed);
    }

    fn event(&mut self, message: &[u8]) {
        let id = message.last_chunk::<ID>().and_then(|end| {
            let id = end.strip_prefix(&[0xa2, 0x06, EventId::LEN as u8])?;
            Some(EventId::from_bytes(id.try_into().ok()?))
        });
        let Some(EventId { stream, sequence }) = id else {
            self.count.faults.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let at = self.last.iter().position(|(other, _)| *other == stream);
        let at = at.unwrap_or_else(|| {
            self.last.push((stream, 0));
            self.last.len() - 1
        });
        let last = &mut self.last[at].1;
        if sequence != *last + 1 {
            let faults = sequence.abs_diff(*last + 1);
            self.count.faults.fetch_add(faults, Ordering::Relaxed);
        }
        *last = sequence;
        self.last.swap(0, at);
        if let Some(took) = self
            .clock
            .as_ref()
            .and_then(|clock| clock.since(stream, sequence))
        {
            let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
            times.add(took, 1);
        }
    }
}

/// The length of the message that begins here, with its header, once the header is there.
fn whole(bytes: &[u8]) -> Option<usize> {
    let header = bytes.first_chunk::<HEADER>()?;
    let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]);
    Some(HEADER + length as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(sequence: u64, text: &[u8]) -> Vec<u8> {
        let id = EventId {
            stream: StreamId([5; 8]),
            sequence,
        };
        let length = (text.len() + ID) as u32;
        let end = [&[0xa2, 0x06, 16][..], &id.to_bytes()].concat();
        [&[0][..], &length.to_be_bytes(), text, &end].concat()
    }

    fn client() -> Client {
        Client {
            count: Arc::default(),
            last: Vec::new(),
            partial: Vec::new(),
            clock: None,
            times: Arc::default(),
        }
    }

    fn seen(client: &Client) -> (u64, u64) {
        let Count { events, faults, .. } = &*client.count;
        (
            events.load(Ordering::Relaxed),
            faults.load(Ordering::Relaxed),
        )
    }

    #[test]
    fn messages_are_counted_wherever_they_are_cut() {
        let bytes: Vec<u8> = (1..=40)
            .flat_map(|n| message(n, &[b'x'; 100][..n as usize]))
            .collect();
        for size in 1..bytes.len() {
            let mut client = client();
            bytes.chunks(size).for_each(|chunk| client.take(chunk));
            assert_eq!(seen(&client), (40, 0), "chunks of {size}");
        }
    }

    #[test]
    fn a_hole_a_repeated_event_and_one_without_id_are_faults() {
        let mut client = client();
        for sequence in [1, 2, 5, 6, 6] {
            client.take(&message(sequence, b"text"));
        }
        client.take(&[0, 0, 0, 0, 3, 1, 2, 3]);
        assert_eq!(seen(&client), (6, 2 + 1 + 1));
    }
}
