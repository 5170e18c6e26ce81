//! A greeted connection: batches within the window, and what the relay answers.

use std::collections::VecDeque;
use std::pin::Pin;
use std::time::Duration;

use proto::StreamId;
use proto::link::{
    Ack, FromRelay, FromSensor, Health, Pause, RuleProblem, RuleStatus, Rules, Workload,
    from_relay, from_sensor,
};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};

use super::{HEALTH, Link, LinkError, MAX_RULES, Stage, WINDOW};
use crate::engine::Status;
use crate::lost::{Class, Losses};
use crate::spool::Outbound;

/// A greeted connection.
pub(super) struct Session<'a> {
    link: &'a mut Link,
    out: mpsc::Sender<FromSensor>,
    /// Stream and last sequence of each batch that is not acknowledged.
    flying: Vec<(StreamId, u64)>,
    staged: Option<Rules>,
    /// What the relay was told last of what is not enforced here.
    told: Vec<RuleProblem>,
    /// What the engine says of sets, in the order in which they came.
    answers: VecDeque<Answer>,
}

type Answer = Pin<Box<dyn Future<Output = Option<RuleStatus>> + Send + Sync>>;

impl<'a> Session<'a> {
    pub(super) fn new(link: &'a mut Link, out: mpsc::Sender<FromSensor>) -> Self {
        Self {
            link,
            out,
            flying: Vec::new(),
            staged: None,
            told: Vec::new(),
            answers: VecDeque::new(),
        }
    }

    /// Until the connection ends. Ok: the sensor ends.
    pub(super) async fn run(
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
                Some(status) = answer(&mut self.answers) => {
                    tell_problems(&status);
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
            change,
        } = part;
        let staged = self.staged.get_or_insert_default();
        let names_one = manifest.is_some() || change.is_some();
        if names_one && (&manifest, &change) != (&staged.manifest, &staged.change) {
            *staged = Rules {
                manifest,
                change,
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
            // If the connection ends first, the next greeting names the rules in force.
            self.answers
                .push_back(Box::pin(self.link.engine.rules(rules)));
        }
        Ok(())
    }

    /// A relay that has just started knows nothing of what is not enforced here.
    pub(super) async fn tell_rules(&mut self) {
        let Some(status) = self.link.engine.status().await else {
            return;
        };
        if !status.digest.is_empty() {
            let told = RuleStatus {
                digest: status.digest,
                applied: true,
                problems: status.problems,
            };
            self.answers
                .push_back(Box::pin(std::future::ready(Some(told))));
        }
    }

    async fn tell_health(&mut self) -> Result<(), LinkError> {
        for stream in &mut self.link.streams {
            stream.save().await;
        }
        let Some(status) = self.link.engine.status().await else {
            return Ok(());
        };
        let health = health(&status, &self.link.losses, &self.link.streams);
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

/// The next answer of the engine; none: it is stopping. Nothing is lost when this is dropped in the middle.
async fn answer(answers: &mut VecDeque<Answer>) -> Option<RuleStatus> {
    let Some(first) = answers.front_mut() else {
        return std::future::pending().await;
    };
    let status = first.await;
    answers.pop_front();
    status
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

fn health(status: &Status, losses: &Losses, streams: &[Outbound]) -> Health {
    let lost = losses.totals().into_iter();
    let mut counters: std::collections::HashMap<String, u64> = lost
        .map(|((place, class), count)| (format!("lost_{}_{}", place.word(), class.word()), count))
        .collect();
    counters.insert("workloads".to_owned(), status.workloads.len() as u64);
    counters.insert("images".to_owned(), status.images);
    let waiting = streams.iter().map(Outbound::waiting).sum();
    let lag = streams.iter().filter_map(Outbound::lag).max();
    counters.insert("spooled".to_owned(), waiting);
    counters.insert(
        "spool_lag_seconds".to_owned(),
        lag.map_or(0, |lag| lag.as_secs()),
    );
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
        off: status.off.clone(),
    }
}
