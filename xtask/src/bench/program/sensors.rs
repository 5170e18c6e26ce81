//! The load: sensors that speak the link protocol as Cresset's own link client does.
//!
//! ```text
//! due (a schedule, or as fast as the window allows) ─▶ batches of at most 1000, at most 8 unacknowledged ─▶ relay
//!                        latency of an event: from when it was due until the Ack that covers it ◀──────────┘
//! ```
//! Each sensor has a connection and two streams: one event in five is an alert and goes out with the verdicts, the others
//! with the telemetry. With a rate, events fall due by the clock whether or not the relay takes them; what the window
//! holds back waits here as a number and grows older, as it would in a sensor's spool.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use proto::link::link_client::LinkClient;
use proto::link::{
    Ack, FromRelay, FromSensor, Health, Hello, KernelFacts, from_relay, from_sensor,
};
use proto::{StreamId, link};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

use super::clock::Clock;
use super::events::{Class, Maker, Random, unix_ns};
use super::measure::Times;

/// As the link client: events of one batch, batches without an answer, and how often a sensor tells its health.
const BATCH: usize = 1000;
const WINDOW: usize = 8;
const HEALTH: Duration = Duration::from_secs(2);
/// With a rate, events fall due this often at each of a few sensors, and in proportion less often at many.
const TICK: Duration = Duration::from_millis(2);
const FEW: usize = 8;
/// The last answers have this long to come.
const PATIENCE: Duration = Duration::from_secs(60);

/// What sensors send.
#[derive(Clone)]
pub(crate) struct Load {
    pub(crate) sensors: usize,
    /// Events a second of all sensors together; none: as fast as their windows allow.
    pub(crate) rate: Option<f64>,
    /// The load ends with about so many events.
    pub(crate) most: u64,
    pub(crate) seed: u64,
    /// Where it is noted when each event was due.
    pub(crate) clock: Option<Arc<Clock>>,
}

/// What all sensors together have done so far.
#[derive(Default)]
pub(crate) struct Totals {
    /// Events that fell due.
    pub(crate) offered: AtomicU64,
    pub(crate) sent: AtomicU64,
    pub(crate) acknowledged: AtomicU64,
    /// Sensors that met an error.
    broken: AtomicU64,
    /// How long acknowledgements took is noted only while this is set.
    measuring: AtomicBool,
    times: Mutex<Times>,
}

impl Totals {
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    pub(crate) fn offered(&self) -> u64 {
        self.offered.load(Ordering::Relaxed)
    }

    pub(crate) fn measure(&self, on: bool) {
        self.measuring.store(on, Ordering::Relaxed);
    }

    pub(crate) fn times(&self) -> Times {
        self.times
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// Sensors that run.
pub(crate) struct Fleet {
    pub(crate) totals: Arc<Totals>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<Result<[Sent; 2]>>,
}

/// What came of one stream.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    pub(crate) stream: StreamId,
    /// The last sequence sent, which is acknowledged.
    pub(crate) last: u64,
}

impl Fleet {
    /// Connects all sensors, then lets them begin together.
    pub(crate) async fn start(relay: SocketAddr, load: &Load) -> Result<Fleet> {
        let totals = Arc::new(Totals::default());
        let (stop, stopped) = watch::channel(false);
        let mut sensors = Vec::new();
        for number in 0..load.sensors {
            let name = format!("bench-{}-{number}", load.seed);
            sensors.push(Sensor::connect(relay, name, number, load, totals.clone()).await?);
        }
        let mut tasks = JoinSet::new();
        for sensor in sensors {
            let (totals, stopped) = (totals.clone(), stopped.clone());
            tasks.spawn(async move {
                let ended = sensor.run(stopped).await;
                if ended.is_err() {
                    totals.broken.fetch_add(1, Ordering::Relaxed);
                }
                ended
            });
        }
        Ok(Fleet {
            totals,
            stop,
            tasks,
        })
    }

    /// Whether all sensors still run.
    pub(crate) fn is_whole(&self) -> bool {
        self.totals.broken.load(Ordering::Relaxed) == 0
    }

    /// Whether every sensor has sent what the load allows.
    pub(crate) fn is_done(&self, load: &Load) -> bool {
        self.totals.sent.load(Ordering::Relaxed) >= load.most
    }

    /// Nothing falls due any more; everything sent is acknowledged when this ends. Every stream in the answer.
    pub(crate) async fn finish(mut self) -> Result<Vec<Sent>> {
        self.stop.send_replace(true);
        let mut sent = Vec::new();
        while let Some(done) = self.tasks.join_next().await {
            sent.extend(done??);
        }
        Ok(sent)
    }
}

/// A batch without an answer.
struct Flying {
    stream: StreamId,
    last: u64,
    /// How many of its events were due when.
    due: Vec<(u64, Instant)>,
}

/// What fell due in one stream and was not sent.
struct Source {
    id: StreamId,
    class: Class,
    next: u64,
    due: VecDeque<(u64, Instant)>,
    /// Parts of an event that the schedule owes.
    owed: f64,
}

struct Sensor {
    maker: Maker,
    sources: [Source; 2],
    flying: Vec<Flying>,
    /// Events a second of this sensor.
    rate: Option<f64>,
    tick: Duration,
    /// Events that this sensor may still send.
    left: u64,
    scheduled: Instant,
    batches: u64,
    totals: Arc<Totals>,
    clock: Option<Arc<Clock>>,
    out: mpsc::Sender<FromSensor>,
    inbound: Streaming<FromRelay>,
}

impl Sensor {
    async fn connect(
        relay: SocketAddr,
        name: String,
        number: usize,
        load: &Load,
        totals: Arc<Totals>,
    ) -> Result<Sensor> {
        let channel = Channel::from_shared(format!("http://{relay}"))?
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(10))
            .connect()
            .await?;
        let mut random = Random::new(load.seed ^ ((number as u64 + 1) << 48));
        let sources = Class::ALL.map(|class| Source {
            id: StreamId(random.next().to_be_bytes()),
            class,
            next: 1,
            due: VecDeque::new(),
            owed: 0.0,
        });
        let (out, queue) = mpsc::channel(2 * WINDOW);
        out.send(say(from_sensor::Is::Hello(hello(name, &sources))))
            .await?;
        let mut client = LinkClient::new(channel);
        let mut inbound = client
            .exchange(ReceiverStream::new(queue))
            .await?
            .into_inner();
        let first = timeout(PATIENCE, inbound.message()).await??;
        let welcomed = matches!(
            first.and_then(|message| message.is),
            Some(from_relay::Is::Welcome(_))
        );
        ensure!(welcomed, "the relay did not welcome a sensor");
        let of_all = load.sensors as u64;
        Ok(Sensor {
            maker: Maker::new(load.seed, number),
            sources,
            flying: Vec::new(),
            rate: load.rate.map(|rate| rate / load.sensors as f64),
            tick: TICK * load.sensors.div_ceil(FEW) as u32,
            left: load.most.div_ceil(of_all),
            scheduled: Instant::now(),
            batches: 0,
            totals,
            clock: load.clock.clone(),
            out,
            inbound,
        })
    }

    async fn run(mut self, mut stop: watch::Receiver<bool>) -> Result<[Sent; 2]> {
        let mut health = interval(HEALTH);
        let mut tick = interval(self.tick);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.scheduled = Instant::now();
        let mut until = None;
        loop {
            let ending = *stop.borrow();
            if !ending {
                self.fall_due();
                self.send()?;
            } else if self.flying.is_empty() {
                return Ok(self.sources.map(|source| Sent {
                    stream: source.id,
                    last: source.next - 1,
                }));
            }
            let end = match ending {
                true => *until.get_or_insert_with(|| Instant::now() + PATIENCE),
                false => Instant::now() + PATIENCE,
            };
            tokio::select! {
                message = self.inbound.message() => match message? {
                    Some(FromRelay { is: Some(message) }) => self.hear(message)?,
                    Some(_) => {}
                    None => bail!("the relay ended a session"),
                },
                _ = tick.tick(), if self.rate.is_some() && !ending => {}
                _ = health.tick() => self.tell_health().await?,
                _ = stop.changed(), if !ending => {}
                () = sleep_until(end), if ending => bail!("no Ack for {} batches in {PATIENCE:?}", self.flying.len()),
            }
        }
    }

    /// What the schedule says; without one, what the window has room for.
    fn fall_due(&mut self) {
        let now = Instant::now();
        match self.rate {
            Some(rate) => {
                let events = rate * now.duration_since(self.scheduled).as_secs_f64();
                self.scheduled = now;
                for source in &mut self.sources {
                    source.owed += events * source.class.share();
                    let count = (source.owed as u64).min(self.left);
                    source.owed -= source.owed.floor();
                    source.fall_due(count, now);
                    self.left -= count;
                    self.totals.offered.fetch_add(count, Ordering::Relaxed);
                }
            }
            None => {
                for _ in self.flying.len()..WINDOW {
                    // One batch in five has the alerts.
                    let source = &mut self.sources[usize::from(!self.batches.is_multiple_of(5))];
                    let count = self.left.min(BATCH as u64);
                    source.fall_due(count, now);
                    self.batches += 1;
                    self.left -= count;
                    self.totals.offered.fetch_add(count, Ordering::Relaxed);
                }
            }
        }
    }

    /// Fills the window: verdicts before telemetry.
    fn send(&mut self) -> Result<()> {
        for source in &mut self.sources {
            while self.flying.len() < WINDOW && !source.due.is_empty() {
                let due = source.take();
                let count: u64 = due.iter().map(|(count, _)| count).sum();
                if let Some(clock) = &self.clock {
                    clock.note(source.id, source.next, &due);
                }
                let batch = self.maker.batch(
                    source.class,
                    source.id,
                    source.next,
                    count as usize,
                    unix_ns(),
                );
                source.next += count;
                self.totals.sent.fetch_add(count, Ordering::Relaxed);
                self.flying.push(Flying {
                    stream: source.id,
                    last: source.next - 1,
                    due,
                });
                // The queue is longer than the window.
                self.out
                    .try_send(say(from_sensor::Is::Batch(batch)))
                    .context("the relay closed a session")?;
            }
        }
        Ok(())
    }

    fn hear(&mut self, message: from_relay::Is) -> Result<()> {
        match message {
            from_relay::Is::Ack(ack) => self.acknowledged(&ack),
            from_relay::Is::Pause(pause) => bail!("the relay refuses events: {}", pause.reason),
            _ => Ok(()),
        }
    }

    fn acknowledged(&mut self, ack: &Ack) -> Result<()> {
        if let Some(rejected) = ack.rejected.first() {
            bail!("the relay rejected an event: {}", rejected.reason);
        }
        let now = Instant::now();
        let covered =
            |flying: &mut Flying| flying.stream.0[..] == ack.stream[..] && flying.last <= ack.up_to;
        let landed: Vec<Flying> = self.flying.extract_if(.., covered).collect();
        let due = || landed.iter().flat_map(|flying| &flying.due);
        let count = due().map(|(count, _)| count).sum();
        self.totals.acknowledged.fetch_add(count, Ordering::Relaxed);
        if self.totals.measuring.load(Ordering::Relaxed) {
            let mut times = self
                .totals
                .times
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            for (count, due) in due() {
                times.add(now.duration_since(*due), *count);
            }
        }
        Ok(())
    }

    async fn tell_health(&mut self) -> Result<()> {
        let counters = HashMap::from([("workloads".to_owned(), 24), ("images".to_owned(), 60)]);
        let health = Health {
            counters,
            workloads: Vec::new(),
            off: None,
        };
        self.out
            .send(say(from_sensor::Is::Health(health)))
            .await
            .context("the relay closed a session")
    }
}

impl Class {
    /// Its part of all events.
    fn share(self) -> f64 {
        match self {
            Class::Verdicts => 0.2,
            Class::Telemetry => 0.8,
        }
    }
}

impl Source {
    fn fall_due(&mut self, count: u64, now: Instant) {
        if count > 0 {
            self.due.push_back((count, now));
        }
    }

    /// The oldest events, at most a batch of them.
    fn take(&mut self) -> Vec<(u64, Instant)> {
        let (mut taken, mut room) = (Vec::new(), BATCH as u64);
        while let Some((count, due)) = self.due.front_mut().filter(|_| room > 0) {
            let part = room.min(*count);
            taken.push((part, *due));
            room -= part;
            *count -= part;
            if *count == 0 {
                self.due.pop_front();
            }
        }
        taken
    }
}

fn say(is: from_sensor::Is) -> FromSensor {
    FromSensor { is: Some(is) }
}

fn hello(sensor: String, sources: &[Source]) -> Hello {
    let class = |class| match class {
        Class::Verdicts => link::StreamClass::Verdicts,
        Class::Telemetry => link::StreamClass::Telemetry,
    };
    let stream = |source: &Source| link::SpooledStream {
        stream: source.id.0.to_vec().into(),
        class: class(source.class).into(),
        spooled: None,
    };
    Hello {
        version: 1,
        node: sensor.clone(),
        sensor,
        sensor_version: env!("CARGO_PKG_VERSION").to_owned(),
        kernel: Some(KernelFacts {
            release: "made up".to_owned(),
            arch: std::env::consts::ARCH.to_owned(),
            tier: 1,
            ..Default::default()
        }),
        streams: sources.iter().map(stream).collect(),
        ..Default::default()
    }
}
