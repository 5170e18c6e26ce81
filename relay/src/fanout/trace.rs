//! What became of one event at every sink.
//!
//! The cursor says whether a sink has passed it; the dead letters whether it was refused; what was passed when
//! ([`super::passed`]) whether it could not be had or was left out. What is left was delivered, or filtered by the settings
//! of today.

use std::sync::Arc;

use exporters::Encoded;
use proto::operate::AtSink;
use proto::{Event, EventId};
use tokio::task::spawn_blocking;

use super::Fanout;
use super::passed::{Pass, Passed, Word};
use super::steer::Post;

/// The event that somebody looks for.
#[derive(Clone)]
pub(crate) struct Sought {
    pub(crate) id: EventId,
    /// Its place in the journal; none: it is not there (any more).
    pub(crate) place: Option<u64>,
    /// The event itself, if it was found.
    pub(crate) event: Option<Event>,
}

/// What became of it, and when, in unix nanoseconds.
#[derive(Default)]
pub(crate) struct Traced {
    outcome: &'static str,
    time: u64,
    reason: String,
    place: Option<String>,
}

impl Traced {
    fn new(outcome: &'static str, reason: impl Into<String>) -> Self {
        Traced {
            outcome,
            reason: reason.into(),
            ..Self::default()
        }
    }

    fn at(self, pass: Option<Pass>) -> Self {
        let time = pass.map_or(0, |pass| pass.at * 1_000_000);
        Traced { time, ..self }
    }
}

impl Fanout {
    /// What became of an event at every sink, in the order of the settings.
    pub(crate) async fn trace(&self, sought: &Sought) -> Vec<AtSink> {
        let mut traced = Vec::new();
        for unit in self.inner.units.load_full().iter() {
            let (post, passed) = (Arc::clone(&unit.post), self.inner.passed.clone());
            let sought = sought.clone();
            // Dead letters are read from the disk.
            let found = spawn_blocking(move || at(&post, &passed, &sought)).await;
            let Traced {
                outcome,
                time,
                reason,
                place,
            } = found.unwrap_or_else(|died| Traced::new("unknown", died.to_string()));
            traced.push(AtSink {
                sink: unit.name().to_owned(),
                r#type: unit.post.health.kind.to_owned(),
                outcome: outcome.to_owned(),
                time_ns: i64::try_from(time).unwrap_or(i64::MAX),
                reason,
                place: place.unwrap_or_default(),
            });
        }
        traced
    }
}

fn at(post: &Post, passed: &Passed, sought: &Sought) -> Traced {
    let health = &post.health;
    let stats = health.lanes.stats();
    if let Some(place) = sought.place.filter(|place| *place >= stats.position.0) {
        return pending(post, stats.position.0, place);
    }
    if let Some(traced) = dead_letter(post, sought) {
        return traced;
    }
    let Some(place) = sought.place else {
        return Traced::new(
            "unknown",
            "its place in the journal is not known any more, nor is it among the dead letters",
        );
    };
    let pass = passed.find(health.name(), place);
    match pass.map(|pass| pass.word) {
        Some(Word::Expired) => {
            Traced::new("expired", "it left the journal before the sink came to it").at(pass)
        }
        Some(Word::Corrupt) => {
            Traced::new("corrupt", "the journal could not read it any more").at(pass)
        }
        Some(Word::Skipped) => Traced::new(
            "skipped",
            "an administrator left it out; the audit trail says who",
        )
        .at(pass),
        None if place < stats.birth.0 => Traced::new(
            "before",
            "the sink began after it, at the journal's end of that time",
        ),
        Some(Word::Done) | None => done(post, sought).at(pass),
    }
}

/// It waits, and why.
fn pending(post: &Post, position: u64, place: u64) -> Traced {
    let status = post.health.status_of(&post.health.lanes.stats());
    let before = place.saturating_sub(position);
    let mut reason = match before {
        0 => format!("it is the next one; the sink is {}", status.state),
        _ => format!(
            "{before} events wait before it; the sink is {}",
            status.state
        ),
    };
    if status.state != "running" && !status.last_error.is_empty() {
        reason += &format!(": {}", status.last_error);
    }
    Traced::new("pending", reason)
}

fn dead_letter(post: &Post, sought: &Sought) -> Option<Traced> {
    let id = sought.id;
    let found = match post
        .health
        .dead_letters
        .find(|letter| letter.event.id == id)
    {
        Ok(found) => found?,
        Err(error) => {
            return Some(Traced::new(
                "unknown",
                format!("its dead letters cannot be read: {error}"),
            ));
        }
    };
    let (why, _) = found.letter.reason_and_answer();
    let traced = if found.kept {
        Traced::new("dead letter", why)
    } else {
        Traced::new(
            "delivered",
            format!(
                "by `cresset dlq retry`, or dropped by `cresset dlq drop`, after it was refused: {why}"
            ),
        )
    };
    Some(Traced {
        time: found.time,
        ..traced
    })
}

/// The sink has passed it, and it is no dead letter.
fn done(post: &Post, sought: &Sought) -> Traced {
    let Some(event) = &sought.event else {
        return Traced::new(
            "delivered",
            "unless the sink's filter left it out: the event itself is not in the journal any more",
        );
    };
    let event = Arc::new(Encoded::new(event.clone()));
    match post.common.outgoing(&event) {
        None => Traced::new(
            "filtered",
            "the sink's filter or sample, as it is set now, leaves it out",
        ),
        Some(sent) => Traced {
            place: post.sink.whereabouts(&sent),
            ..Traced::new("delivered", "")
        },
    }
}
