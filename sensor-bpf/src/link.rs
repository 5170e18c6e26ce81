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

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use proto::StreamId;
use proto::link::link_client::LinkClient;
use proto::link::stream_state::Is as Known;
use proto::link::{
    Ack, FromRelay, FromSensor, Health, Hello, KernelFacts, Pause, RuleProblem, RuleStatus, Rules,
    Welcome, Workload, from_relay, from_sensor,
};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};

use crate::address::Relay;
use crate::engine::{Handle, Status};
use crate::lost::{Class, Losses};
use crate::spool::Outbound;

/// The protocol's version.
const VERSION: u32 = 1;
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
    tls: Option<ClientTlsConfig>,
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
fn causes(error: &dyn std::error::Error) -> String {
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
        tls: Option<ClientTlsConfig>,
        introduction: Introduction,
        engine: Handle,
        losses: Losses,
        streams: Vec<Outbound>,
    ) -> Self {
        Self {
            relays,
            tls,
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
        let channel = self.endpoint(relay)?.connect().await?;
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

    fn endpoint(&self, relay: &Relay) -> Result<Endpoint, LinkError> {
        let mut endpoint = Channel::builder(relay.uri().clone())
            .connect_timeout(GREETING)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(10))
            .keep_alive_timeout(Duration::from_secs(20))
            .keep_alive_while_idle(true);
        if let Some(tls) = self.tls.as_ref().filter(|_| relay.is_tls()) {
            endpoint = endpoint.tls_config(tls.clone().domain_name(relay.host()))?;
        }
        Ok(endpoint)
    }

    async fn hello(&self) -> Hello {
        let status = self.engine.status().await.unwrap_or_default();
        Hello {
            version: VERSION,
            sensor: self.introduction.sensor.clone(),
            sensor_version: env!("CARGO_PKG_VERSION").to_owned(),
            node: self.introduction.node.clone(),
            labels: self.introduction.labels.clone().into_iter().collect(),
            kernel: Some(kernel_facts(&status)),
            streams: self.streams.iter().map(Outbound::describe).collect(),
            rules: status.digest,
            blobs: status.held,
        }
    }

    /// What the relay has need not be sent.
    fn welcome(&mut self, welcome: &Welcome) -> Result<(), LinkError> {
        if welcome.version != VERSION {
            let why = format!(
                "it speaks version {}, this sensor {VERSION}",
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

/// A greeted connection.
struct Session<'a> {
    link: &'a mut Link,
    out: mpsc::Sender<FromSensor>,
    /// Stream and last sequence of each batch that is not acknowledged.
    flying: Vec<(StreamId, u64)>,
    staged: Option<Rules>,
    /// What the relay was told last of what is not enforced here.
    told: Vec<RuleProblem>,
    statuses: (mpsc::Sender<RuleStatus>, mpsc::Receiver<RuleStatus>),
}

impl<'a> Session<'a> {
    fn new(link: &'a mut Link, out: mpsc::Sender<FromSensor>) -> Self {
        let statuses = mpsc::channel(4);
        Self {
            link,
            out,
            flying: Vec::new(),
            staged: None,
            told: Vec::new(),
            statuses,
        }
    }

    async fn run(
        &mut self,
        mut inbound: tonic::Streaming<FromRelay>,
        stage: &mut watch::Receiver<Stage>,
    ) -> Result<(), LinkError> {
        let mut health = tokio::time::interval(HEALTH);
        health.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (more, mut wake) = mpsc::channel(1);
        let _watching = watch_streams(&self.link.streams, &more);
        loop {
            self.remove_drained().await;
            self.send_batches()?;
            let until = deadline(stage);
            if until.is_some() && self.link.streams.iter().all(Outbound::is_drained) {
                return Ok(());
            }
            let paused = self.link.paused;
            let resume = paused.unwrap_or_else(|| Instant::now() + HEALTH);
            tokio::select! {
                message = inbound.message() => match message? {
                    Some(message) => self.receive(message)?,
                    None => return Err(LinkError::Closed),
                },
                Some(()) = wake.recv() => {}
                Some(status) = self.statuses.1.recv() => {
                    self.told.clone_from(&status.problems);
                    self.send(from_sensor::Is::RuleStatus(status)).await?;
                }
                _ = health.tick() => self.tell_health().await?,
                () = tokio::time::sleep_until(resume), if paused.is_some() => self.link.paused = None,
                _ = stage.changed(), if until.is_none() => {}
                () = tokio::time::sleep_until(until.unwrap_or(resume)), if until.is_some() => return Ok(()),
            }
        }
    }

    async fn send(&self, is: from_sensor::Is) -> Result<(), LinkError> {
        self.out
            .send(FromSensor { is: Some(is) })
            .await
            .map_err(|_| LinkError::Closed)
    }

    /// Fills the window: verdicts before telemetry, older streams before newer.
    fn send_batches(&mut self) -> Result<(), LinkError> {
        if self.link.paused.is_some() {
            return Ok(());
        }
        for class in [Class::Verdict, Class::Telemetry] {
            for stream in self
                .link
                .streams
                .iter_mut()
                .filter(|stream| stream.class() == class)
            {
                while self.flying.len() < WINDOW {
                    let Some(batch) = stream.next_batch() else {
                        break;
                    };
                    let last = batch.first + (batch.events.len() as u64).saturating_sub(1);
                    self.flying.push((stream.id(), last));
                    let is = Some(from_sensor::Is::Batch(batch.to_link()));
                    // The queue is longer than the window, so it has room unless the connection is gone.
                    self.out
                        .try_send(FromSensor { is })
                        .map_err(|_| LinkError::Closed)?;
                }
            }
        }
        Ok(())
    }

    fn receive(&mut self, message: FromRelay) -> Result<(), LinkError> {
        match message.is {
            Some(from_relay::Is::Ack(ack)) => self.ack(&ack),
            Some(from_relay::Is::Pause(pause)) => {
                self.pause(&pause);
                Ok(())
            }
            Some(from_relay::Is::Rules(rules)) => self.rules(rules),
            Some(from_relay::Is::Identities(identities)) => {
                // Pods are known by their runtime, which this sensor does not ask; nothing can carry their label.
                let count = identities.identities.len();
                tracing::debug!(count, "identities are not used on this node");
                Ok(())
            }
            Some(from_relay::Is::Welcome(_)) => {
                Err(LinkError::Protocol("it greeted twice".to_owned()))
            }
            None => Ok(()),
        }
    }

    fn ack(&mut self, ack: &Ack) -> Result<(), LinkError> {
        let Ok(id) = StreamId::try_from(&ack.stream[..]) else {
            return Err(LinkError::Protocol("an Ack for no stream".to_owned()));
        };
        let Some(stream) = self
            .link
            .streams
            .iter_mut()
            .find(|stream| stream.id() == id)
        else {
            // Removed since: drained before this duplicate came.
            return Ok(());
        };
        for rejected in &ack.rejected {
            tracing::warn!(%id, sequence = rejected.sequence, reason = rejected.reason, "event rejected");
            stream.rejected(rejected.sequence, &rejected.reason);
        }
        if !stream.acknowledge(ack.up_to) {
            return Err(LinkError::Protocol(format!(
                "it acknowledged {} of {id}, never sent",
                ack.up_to
            )));
        }
        self.flying
            .retain(|(other, last)| *other != id || *last > ack.up_to);
        Ok(())
    }

    /// What is on its way may have been dropped, so all of it is sent again afterwards.
    fn pause(&mut self, pause: &Pause) {
        let time = Duration::from_millis(u64::from(pause.retry_after_ms.clamp(10, 60_000)));
        tracing::info!(reason = pause.reason, ?time, "the relay asked for a pause");
        self.link.paused = Some(Instant::now() + time);
        self.flying.clear();
        self.link.streams.iter_mut().for_each(Outbound::rewind);
    }

    /// Collects the parts of a set, which say by their manifest that they belong together; the last one is applied, whole or
    /// not at all. A part of a newer set takes the place of the older one's.
    fn rules(&mut self, part: Rules) -> Result<(), LinkError> {
        let Rules {
            manifest,
            blobs,
            commit,
        } = part;
        let staged = self.staged.get_or_insert_default();
        if manifest.is_some() && manifest != staged.manifest {
            *staged = Rules {
                manifest,
                ..Rules::default()
            };
        }
        staged.blobs.extend(blobs);
        let size: usize = staged.blobs.iter().map(|blob| blob.len()).sum();
        if size > MAX_RULES {
            return Err(LinkError::Protocol(format!(
                "a rule set of more than {MAX_RULES} bytes"
            )));
        }
        if commit && let Some(rules) = self.staged.take() {
            let (engine, statuses) = (self.link.engine.clone(), self.statuses.0.clone());
            tokio::spawn(async move {
                if let Some(status) = engine.rules(rules).await {
                    tell_problems(&status);
                    // The connection may have ended; the next greeting names the rules in force.
                    let _ = statuses.send(status).await;
                }
            });
        }
        Ok(())
    }

    /// A relay that has just started knows nothing of what is not enforced here.
    async fn tell_rules(&mut self) {
        let Some(status) = self.link.engine.status().await else {
            return;
        };
        if !status.digest.is_empty() {
            let told = RuleStatus {
                digest: status.digest,
                applied: true,
                problems: status.problems,
            };
            // Room for it was made above; a closed connection is seen by the loop.
            let _ = self.statuses.0.try_send(told);
        }
    }

    async fn tell_health(&mut self) -> Result<(), LinkError> {
        for stream in &mut self.link.streams {
            stream.save().await;
        }
        let Some(status) = self.link.engine.status().await else {
            return Ok(());
        };
        let health = health(&status, &self.link.losses);
        self.send(from_sensor::Is::Health(health)).await?;
        if !status.digest.is_empty() && status.problems != self.told {
            // A workload has come or gone for which something cannot be enforced.
            self.told.clone_from(&status.problems);
            let told = RuleStatus {
                digest: status.digest,
                applied: true,
                problems: status.problems,
            };
            self.send(from_sensor::Is::RuleStatus(told)).await?;
        }
        Ok(())
    }

    /// Streams of earlier starts end when the relay has them.
    async fn remove_drained(&mut self) {
        let drained = |stream: &mut Outbound| !stream.is_live() && stream.is_drained();
        let gone: Vec<Outbound> = self.link.streams.extract_if(.., drained).collect();
        for mut stream in gone {
            stream.save().await;
            tracing::info!(stream = %stream.id(), "a stream of an earlier start is delivered");
            stream.remove();
        }
    }
}

fn deadline(stage: &watch::Receiver<Stage>) -> Option<Instant> {
    match *stage.borrow() {
        Stage::Running => None,
        Stage::Draining(until) => Some(until),
    }
}

/// One wake-up for whatever stream has more. The tasks end with the set.
fn watch_streams(streams: &[Outbound], more: &mpsc::Sender<()>) -> tokio::task::JoinSet<()> {
    let mut tasks = tokio::task::JoinSet::new();
    for stream in streams.iter().filter(|stream| stream.is_live()) {
        let (mut committed, more) = (stream.subscribe(), more.clone());
        tasks.spawn(async move {
            while committed.changed().await.is_ok() {
                // Full: a wake-up is waiting already.
                let _ = more.try_send(());
            }
        });
    }
    tasks
}

fn tell_problems(status: &RuleStatus) {
    let digest = proto::Digest::try_from(&status.digest[..]).map(|digest| digest.to_string());
    let digest = digest.unwrap_or_default();
    match status.problems.iter().find(|problem| problem.refused) {
        Some(why) => tracing::warn!(
            digest,
            why = why.message,
            "rules refused; the last ones stay"
        ),
        None => tracing::info!(
            digest,
            not_enforced = status.problems.len(),
            "rules in force"
        ),
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

fn health(status: &Status, losses: &Losses) -> Health {
    let lost = losses.totals().into_iter();
    let mut counters: std::collections::HashMap<String, u64> = lost
        .map(|((place, class), count)| (format!("lost_{}_{}", place.word(), class.word()), count))
        .collect();
    counters.insert("workloads".to_owned(), status.workloads.len() as u64);
    counters.insert("images".to_owned(), status.images);
    let workloads = status
        .workloads
        .iter()
        .map(|(workload, policies)| Workload {
            namespace: workload.identity.namespace.clone(),
            pod: workload.identity.name.clone(),
            container: workload.identity.container.clone(),
            labels: workload.identity.labels.clone().into_iter().collect(),
            policies: policies.clone(),
        });
    Health {
        counters: counters.into_iter().collect(),
        workloads: workloads.collect(),
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
