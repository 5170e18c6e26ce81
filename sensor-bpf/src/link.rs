//! The connection to a relay: events out, acknowledgements and rules in.
//!
//! ```text
//! dial ─▶ Hello ─▶ Welcome ─▶ ┌ batches, at most WINDOW of them unacknowledged ─▶
//!  ▲                          │ ◀─ Ack, Pause, Rules
//!  └── full-jitter pause ◀────┘ health and rule status ─▶
//! ```
//! Nothing leaves the spool before its `Ack`. After a new `Welcome` everything unacknowledged is sent again, but for what
//! the relay says that it has; it drops what it had all the same. Relays are tried in turn and their names are
//! resolved at each try. Whatever the relay does, the sensor goes on enforcing and spooling.

mod session;

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use proto::link::link_client::LinkClient;
use proto::link::stream_state::Is as Known;
use proto::link::{FromRelay, FromSensor, Hello, KernelFacts, Welcome, from_relay, from_sensor};
use proto::{LINK_VERSION, StreamId};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};

use crate::address::Relay;
use crate::engine::{Handle, Status};
use crate::lost::Losses;
use crate::spool::Outbound;
use crate::trust::{Trust, TrustError};
use session::Session;

/// Batches sent and not acknowledged.
const WINDOW: usize = 8;
/// Messages waiting for the connection; more than the window and all else that is sent.
const QUEUE: usize = 32;
/// For dialing, and for the relay's greeting.
const GREETING: Duration = Duration::from_secs(10);
/// Between two health reports; positions are made durable as often.
const HEALTH: Duration = Duration::from_secs(2);
/// Pauses between tries grow from the first to the second.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// A rule set is not larger.
const MAX_RULES: usize = 64 << 20;

/// What the sensor says of itself to a relay.
#[derive(Debug, Clone, Default)]
pub struct Introduction {
    /// Stable over restarts.
    pub sensor: String,
    /// Name of the node.
    pub node: String,
    /// Labels of the node.
    pub labels: BTreeMap<String, String>,
}

/// How far the sensor's end has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// It runs.
    Running,
    /// Nothing new comes; what is spooled may still be delivered until then.
    Draining(Instant),
}

/// The link's settings and state.
#[derive(Debug)]
pub struct Link {
    relays: Vec<Relay>,
    trust: Trust,
    introduction: Introduction,
    engine: Handle,
    losses: Losses,
    streams: Vec<Outbound>,
    /// A relay asked not to be sent anything before this.
    paused: Option<Instant>,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum LinkError {
    #[error("cannot connect: {}", causes(.0))]
    Connect(#[from] tonic::transport::Error),
    #[error(transparent)]
    Trust(#[from] TrustError),
    #[error("no greeting within {} s", GREETING.as_secs())]
    Silent,
    #[error("{}: {}", .0.code(), .0.message())]
    Status(#[from] tonic::Status),
    #[error("the relay closed the stream")]
    Closed,
    #[error("the relay broke the protocol: {0}")]
    Protocol(String),
}

/// The error with all that is behind it: tonic's own text is only "transport error".
pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

impl Link {
    /// `streams` are those of the spool.
    pub fn new(
        relays: Vec<Relay>,
        trust: Trust,
        introduction: Introduction,
        engine: Handle,
        losses: Losses,
        streams: Vec<Outbound>,
    ) -> Self {
        Self {
            relays,
            trust,
            introduction,
            engine,
            losses,
            streams,
            paused: None,
        }
    }

    /// Delivers until the sensor ends; gives the streams back to be closed.
    pub async fn run(mut self, mut stage: watch::Receiver<Stage>) -> Vec<Outbound> {
        if self.relays.is_empty() {
            tracing::warn!("no relay is configured: events stay in the spool");
            let _ = stage.wait_for(|stage| *stage != Stage::Running).await;
            return self.streams;
        }
        let mut failures = 0_u32;
        for turn in 0.. {
            let relay = self.relays[turn % self.relays.len()].clone();
            let mut greeted = false;
            match self.session(&relay, &mut stage, &mut greeted).await {
                Ok(()) => break,
                Err(error) => tracing::warn!(%relay, %error, "link down"),
            }
            failures = if greeted {
                0
            } else {
                failures.saturating_add(1)
            };
            let soonest = Instant::now() + jitter(failures);
            // A relay that asks for a pause may close the connection as well.
            let next = self
                .paused
                .take()
                .map_or(soonest, |paused| paused.max(soonest));
            tokio::select! {
                () = tokio::time::sleep_until(next) => {}
                // Not connected and on the way out: what is spooled is for the next start.
                _ = stage.wait_for(|stage| *stage != Stage::Running) => break,
            }
        }
        self.streams
    }

    /// One connection, to its end. Ok: the sensor ends.
    async fn session(
        &mut self,
        relay: &Relay,
        stage: &mut watch::Receiver<Stage>,
        greeted: &mut bool,
    ) -> Result<(), LinkError> {
        let (out, inbound) = tokio::select! {
            dialed = tokio::time::timeout(GREETING, self.dial(relay)) => dialed.map_err(|_| LinkError::Silent)??,
            _ = stage.wait_for(|stage| *stage != Stage::Running) => return Ok(()),
        };
        let mut inbound = inbound;
        let first = tokio::time::timeout(GREETING, inbound.message()).await;
        let welcome = match first
            .map_err(|_| LinkError::Silent)??
            .and_then(|message| message.is)
        {
            Some(from_relay::Is::Welcome(welcome)) => welcome,
            Some(_) => {
                return Err(LinkError::Protocol(
                    "its first message is no greeting".to_owned(),
                ));
            }
            None => return Err(LinkError::Closed),
        };
        self.welcome(&welcome)?;
        *greeted = true;
        tracing::info!(%relay, id = welcome.relay, "link up");
        let mut session = Session::new(self, out);
        session.tell_rules().await;
        session.run(inbound, stage).await
    }

    async fn dial(
        &self,
        relay: &Relay,
    ) -> Result<(mpsc::Sender<FromSensor>, tonic::Streaming<FromRelay>), LinkError> {
        let channel = self.endpoint(relay).await?.connect().await?;
        let mut client = LinkClient::new(channel).max_decoding_message_size(MAX_RULES);
        let (out, queue) = mpsc::channel(QUEUE);
        let hello = self.hello().await;
        let hello = FromSensor {
            is: Some(from_sensor::Is::Hello(hello)),
        };
        out.try_send(hello).map_err(|_| LinkError::Closed)?;
        let reply = client.exchange(ReceiverStream::new(queue)).await?;
        Ok((out, reply.into_inner()))
    }

    async fn endpoint(&self, relay: &Relay) -> Result<Endpoint, LinkError> {
        let mut endpoint = Channel::builder(relay.uri().clone())
            .connect_timeout(GREETING)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(10))
            .keep_alive_timeout(Duration::from_secs(20))
            .keep_alive_while_idle(true);
        if let Some(tls) = self.trust.tls(relay).await? {
            endpoint = endpoint.tls_config(tls)?;
        }
        Ok(endpoint)
    }

    async fn hello(&self) -> Hello {
        let status = self.engine.status().await.unwrap_or_default();
        Hello {
            version: LINK_VERSION,
            sensor: self.introduction.sensor.clone(),
            sensor_version: env!("CARGO_PKG_VERSION").to_owned(),
            node: self.introduction.node.clone(),
            labels: self.introduction.labels.clone().into_iter().collect(),
            kernel: Some(kernel_facts(&status)),
            streams: self.streams.iter().map(Outbound::describe).collect(),
            rules: status.digest,
            blobs: status.held,
            changes: true,
        }
    }

    /// What the relay has need not be sent.
    fn welcome(&mut self, welcome: &Welcome) -> Result<(), LinkError> {
        if !proto::understands(welcome.version) {
            let why = format!(
                "it speaks version {}, this sensor {LINK_VERSION} and its neighbours",
                welcome.version
            );
            return Err(LinkError::Protocol(why));
        }
        for stream in &mut self.streams {
            let state = welcome
                .streams
                .iter()
                .find(|state| state.stream[..] == stream.id().0);
            let received: Vec<Range<u64>> = match state.and_then(|state| state.is.as_ref()) {
                Some(Known::Received(ranges)) => ranges
                    .ranges
                    .iter()
                    .map(|range| range.first..range.end)
                    .collect(),
                Some(Known::Unknown(_)) | None => Vec::new(),
            };
            stream.resume(&received);
        }
        Ok(())
    }
}

fn kernel_facts(status: &Status) -> KernelFacts {
    let uname = rustix::system::uname();
    KernelFacts {
        release: uname.release().to_string_lossy().into_owned(),
        arch: uname.machine().to_string_lossy().into_owned(),
        tier: u32::from(status.tier),
        abilities: status.abilities.clone(),
        reason: status.reason.clone(),
    }
}

/// Full jitter: anything from nothing to the bound, which doubles with each failure.
fn jitter(failures: u32) -> Duration {
    let (first, most) = BACKOFF;
    let bound = first.saturating_mul(1 << failures.min(10)).min(most);
    let [a, b, c, d, ..] = StreamId::random().0;
    let share = f64::from(u32::from_be_bytes([a, b, c, d])) / f64::from(u32::MAX);
    bound.mul_f64(share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_are_never_longer() {
        for failures in [0, 1, 5, 50, u32::MAX] {
            let bound = BACKOFF
                .0
                .saturating_mul(1 << failures.min(10))
                .min(BACKOFF.1);
            assert!((0..100).all(|_| jitter(failures) <= bound));
        }
        assert!((0..1000).any(|_| jitter(20) > Duration::from_secs(5)));
    }
}
