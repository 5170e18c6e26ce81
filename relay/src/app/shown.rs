//! What the relay says of itself: each part's piece of one status.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use proto::StreamId;
use proto::query::{CertificateStatus, LossStatus, RelayStatus, StatusReply};

use super::Addresses;
use super::trust::Trust;
use crate::conditions::Conditions;
use crate::fanout::Fanout;
use crate::http::Readiness;
use crate::ingest::Ingest;
use crate::log::Store;
use crate::losses;
use crate::sources::{self, Sources};
use crate::standing::Standing;

/// What the relay says of itself.
pub(super) struct About {
    pub(super) id: String,
    pub(super) cluster: String,
    pub(super) started: Instant,
    pub(super) addresses: Addresses,
    pub(super) readiness: Readiness,
}

impl About {
    pub(super) fn fill(&self, reply: &mut StatusReply) {
        let Addresses {
            feed,
            link,
            http,
            admin,
        } = &self.addresses;
        let listeners = [
            ("feed", feed.to_string()),
            ("link", link.to_string()),
            ("http", http.to_string()),
            ("admin", format!("unix:{}", admin.display())),
        ];
        let not_ready = (self.readiness)();
        let relay: &mut RelayStatus = reply.relay.get_or_insert_default();
        relay.version = env!("CARGO_PKG_VERSION").to_owned();
        relay.id = self.id.clone();
        relay.cluster = self.cluster.clone();
        relay.uptime_seconds = self.started.elapsed().as_secs();
        relay.listeners = listeners
            .map(|(name, address)| (name.to_owned(), address))
            .into();
        relay.ready = not_ready.is_empty();
        relay.not_ready = not_ready;
    }
}

/// Events get through when the journal takes them and readers are served.
pub(super) fn readiness(
    standing: Standing,
    serving: Arc<AtomicBool>,
    conditions: Conditions,
) -> Readiness {
    Arc::new(move || {
        let mut not_ready = Vec::new();
        if let Some(why) = standing.refusing() {
            not_ready.push(format!("log: {why}"));
        }
        if !serving.load(Ordering::Relaxed) {
            not_ready.push("feed: not serving".to_owned());
        }
        not_ready.extend(conditions.list());
        not_ready
    })
}

pub(super) fn sensors(
    ingest: &Ingest,
    log: &Store,
) -> impl Fn(&mut StatusReply) + Send + Sync + 'static {
    let (sensors, received) = (ingest.sensors(), log.received().clone());
    move |reply| {
        reply.sensors = sensors.list();
        for stream in reply
            .sensors
            .iter_mut()
            .flat_map(|sensor| &mut sensor.streams)
        {
            let id = StreamId::try_from(&stream.stream[..]).ok();
            let newest = id.and_then(|id| received.newest(id));
            stream.sequence = newest.unwrap_or_default();
        }
        reply.losses.extend(losses::of_sensors(&reply.sensors));
    }
}

pub(super) fn sinks(fanout: &Fanout) -> impl Fn(&mut StatusReply) + Send + Sync + 'static {
    let fanout = fanout.clone();
    move |reply| {
        reply.sinks = fanout.status();
        reply.losses.extend(sink_losses(&fanout));
    }
}

pub(super) fn sink_losses(fanout: &Fanout) -> Vec<LossStatus> {
    let dropped = fanout.dead_letters_dropped();
    losses::of_sinks(&fanout.status(), &dropped, &fanout.letter_damage())
}

/// What they were before this start looked: that was told in an earlier life.
pub(super) fn sink_losses_before(fanout: &Fanout) -> Vec<LossStatus> {
    let mut damage = fanout.letter_damage();
    for letters in &mut damage {
        letters.lost = letters.lost.saturating_sub(letters.found);
    }
    losses::of_sinks(&fanout.status(), &fanout.dead_letters_dropped(), &damage)
}

pub(super) fn pulled(sources: &Sources) -> impl Fn(&mut StatusReply) + Send + Sync + 'static {
    let status = sources.status();
    move |reply| {
        reply.sources = status();
        reply.losses.extend(sources::losses(&reply.sources));
    }
}

pub(super) fn certificates(trust: &Trust) -> impl Fn(&mut StatusReply) + Send + Sync + 'static {
    let trust = trust.clone();
    move |reply| {
        reply.certificates = trust
            .expiries()
            .into_iter()
            .map(|(file, expires_unix)| CertificateStatus {
                file: file.display().to_string(),
                expires_unix,
            })
            .collect();
    }
}
