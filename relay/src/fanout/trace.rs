//! What became of events at every sink.
//!
//! The cursor says whether a sink has passed an event; the dead letters whether it was refused; what was passed when
//! ([`super::passed`]) whether it could not be had or was left out. What is left was delivered, or filtered by the settings
//! of today. All of that is looked at once ([`Fanout::look`]), the cursor first, so that what is said of many events is said
//! of one moment and costs one reading of the disk.

mod shared;

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use exporters::{Carried, Encoded, Found};
use journal::Seq;
use proto::operate::AtSink;
use proto::{Event, EventId};

use super::Fanout;
use super::dead_letters::{Became, Fate};
use super::passed::{Pass, Passed, Passes, Word};
use super::steer::Post;

/// The event that somebody looks for.
#[derive(Clone)]
pub(crate) struct Sought {
    pub(crate) id: EventId,
    pub(crate) place: Place,
    /// When it was journaled, in unix nanoseconds; 0: not known.
    pub(crate) journaled: u64,
    /// The event itself, if it was found.
    pub(crate) event: Option<Event>,
    /// The destinations themselves may be asked, which takes seconds.
    pub(crate) ask: bool,
}

/// Where it is in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    At(u64),
    /// In a log that relays share: its number in a partition, and whether this relay took it.
    In {
        partition: i32,
        number: u64,
        mine: bool,
    },
    /// It was not found in a log that relays share.
    Nowhere,
    /// Among records that cannot be read.
    Damaged(Range<u64>),
    /// Among those that retention has taken.
    Gone(Range<u64>),
}

/// One sink at one moment.
pub(crate) struct Look {
    post: Arc<Post>,
    position: u64,
    birth: u64,
    /// Where it stands in every partition of a log that relays share, whichever of them feeds it.
    stands: shared::Stands,
    letters: Result<HashMap<EventId, Letter>, String>,
    passes: Passes,
}

/// What a dead letter says of its event.
struct Letter {
    number: u64,
    became: Became,
    time: u64,
    why: String,
}

impl Letter {
    fn traced(&self) -> Traced {
        let Letter {
            number,
            became,
            time,
            why,
        } = self;
        let (fate, at, by) = match became {
            Became::Kept => {
                return Traced {
                    time: *time,
                    ..Traced::new("dead letter", format!("letter {number}: {why}"))
                };
            }
            Became::Settled(act) => (Some(act.fate), act.at * 1_000_000, act.by.as_str()),
            // It was not noted, or longer ago than notes are kept.
            Became::Done(fate) => (*fate, 0, "somebody; the audit trail says who"),
        };
        let (outcome, how) = match fate {
            Some(Fate::Retried) => ("delivered", "`cresset dlq retry`"),
            Some(Fate::Dropped) => ("dropped", "`cresset dlq drop`"),
            Some(Fate::Damaged) => ("lost", "damage on disk"),
            None => ("settled", "`cresset dlq retry` or `drop`"),
        };
        Traced {
            time: at,
            ..Traced::new(
                outcome,
                format!("by {how} of {by}; letter {number}, refused before: {why}"),
            )
        }
    }
}

/// What became of it, and when, in unix nanoseconds.
#[derive(Default)]
struct Traced {
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
    /// Every sink as it is now, for these events, in the order of the settings. Blocks for the disk.
    pub(crate) fn look(&self, ids: &HashSet<EventId>) -> Vec<Look> {
        let units = self.inner.units.load_full();
        let names: Vec<&str> = units.iter().map(|unit| unit.name()).collect();
        let stands = shared::stands(self.inner.log.shared(), &names);
        let looks = units.iter().zip(stands).map(|(unit, stands)| {
            Look::at(Arc::clone(&unit.post), stands, &self.inner.passed, ids)
        });
        looks.collect()
    }
}

impl Look {
    fn at(
        post: Arc<Post>,
        stands: shared::Stands,
        passed: &Passed,
        ids: &HashSet<EventId>,
    ) -> Self {
        // First the cursor: whatever is before it has its letter and its line by now.
        let stats = post.health.lanes.stats();
        let mut letters = HashMap::new();
        let read = post.health.dead_letters.look(|found| {
            let id = found.letter.event.id;
            if ids.contains(&id) {
                let (why, _) = found.letter.reason_and_answer();
                let letter = Letter {
                    number: found.number,
                    became: found.became,
                    time: found.time,
                    why: why.to_owned(),
                };
                // The newest, if it came back.
                letters.insert(id, letter);
            }
        });
        let passes = passed.of(post.health.name());
        Self {
            position: stats.position.0,
            birth: stats.birth.0,
            stands,
            letters: read.map(|()| letters),
            passes,
            post,
        }
    }

    /// Whether it was once refused there.
    pub(crate) fn has_letter(&self, id: EventId) -> bool {
        matches!(&self.letters, Ok(letters) if letters.contains_key(&id))
    }

    /// What became of an event there. May block where the destination is asked.
    pub(crate) fn of(&self, sought: &Sought) -> AtSink {
        let Traced {
            outcome,
            time,
            reason,
            place,
        } = self.traced(sought);
        let health = &self.post.health;
        AtSink {
            sink: health.name().to_owned(),
            r#type: health.kind.to_owned(),
            outcome: outcome.to_owned(),
            time_ns: i64::try_from(time).unwrap_or(i64::MAX),
            reason,
            place: place.unwrap_or_default(),
        }
    }

    fn traced(&self, sought: &Sought) -> Traced {
        match &sought.place {
            Place::At(place) if *place >= self.position => self.pending(*place),
            Place::At(place) => self.passed(*place, sought),
            Place::In { .. } | Place::Nowhere => self.shared(sought),
            Place::Damaged(among) => self
                .letter(sought.id)
                .unwrap_or_else(|| self.damaged(among)),
            Place::Gone(among) => self.letter(sought.id).unwrap_or_else(|| self.gone(among)),
        }
    }

    /// It waits, and why.
    fn pending(&self, place: u64) -> Traced {
        self.waits(match place.saturating_sub(self.position) {
            0 => "it is the next one".to_owned(),
            before => format!("{before} events wait before it"),
        })
    }

    fn waits(&self, behind: String) -> Traced {
        let health = &self.post.health;
        let status = health.status_of(&health.lanes.stats());
        let mut reason = format!("{behind}; the sink is {}", status.state);
        if status.state != "running" && !status.last_error.is_empty() {
            reason += &format!(": {}", status.last_error);
        }
        Traced::new("pending", reason)
    }

    fn passed(&self, place: u64, sought: &Sought) -> Traced {
        if let Some(traced) = self.letter(sought.id) {
            return traced;
        }
        match self.passes.find(None, place) {
            Some(pass) => self.noted(pass, sought),
            None if place < self.birth => Traced::new(
                "before",
                "the sink began after it, at the journal's end of that time",
            ),
            None => self.done(sought).0,
        }
    }

    /// It was passed here, and it was noted how.
    fn noted(&self, pass: Pass, sought: &Sought) -> Traced {
        let traced = match pass.word {
            Word::Expired => Traced::new("expired", "it left the log before the sink came to it"),
            Word::Corrupt => Traced::new("corrupt", "the log could not read it any more"),
            Word::Skipped => Traced::new(
                "skipped",
                "an administrator left it out; the audit trail says who",
            ),
            Word::Done => self.done(sought).0,
        };
        traced.at(Some(pass))
    }

    /// Its record cannot be read. A sink that had passed it before that has it all the same.
    fn damaged(&self, among: &Range<u64>) -> Traced {
        match self.passes.count(among, Word::Corrupt) {
            (1.., pass) => {
                Traced::new("corrupt", "the journal could not read it any more").at(pass)
            }
            _ if self.position >= among.end => Traced::new(
                "delivered",
                "unless the sink's filter left it out: the sink passed it before its record was damaged",
            ),
            _ => Traced::new(
                "pending",
                "the sink has not come to it; it will be counted as corrupt there",
            ),
        }
    }

    /// It was one of these, and where it was exactly is not known any more: only what became of them all.
    fn gone(&self, among: &Range<u64>) -> Traced {
        let among = among.start.max(self.birth)..among.end.max(self.birth);
        let all = among.end - among.start;
        let (least, most, pass) = self.expired(&among);
        let (skipped, _) = self.passes.count(&among, Word::Skipped);
        if all == 0 {
            return Traced::new("before", "the sink began after it");
        }
        if least >= all {
            return Traced::new("expired", "it left the journal before the sink came to it")
                .at(pass);
        }
        if most + skipped == 0 {
            return Traced::new(
                "delivered",
                format!(
                    "unless the sink's filter left it out{}: it has left the journal, and all that did with it were passed before",
                    self.or_a_letter()
                ),
            );
        }
        let expired = match least == most {
            true => format!("{most}"),
            false => format!("{least} to {most}"),
        };
        Traced::new(
            "unknown",
            format!(
                "it is one of {all} events that have left the journal: {expired} of them before the sink came to them, {skipped} left out by an administrator"
            ),
        )
    }

    /// How many of these left the journal before the sink came to them, at least and at most, and when the last of them did
    /// if that was noticed. A cursor of before it wrote down which they were has some that may be anywhere.
    fn expired(&self, among: &Range<u64>) -> (u64, u64, Option<Pass>) {
        // As it is now: `among` may reach further than the journal's beginning when the sink was looked at.
        let lanes = &self.post.health.lanes;
        let (stretches, account) = (lanes.expired(), lanes.stats().account);
        let placed: u64 = stretches.iter().map(|stretch| stretch.count).sum();
        let anywhere = account.expired.saturating_sub(placed);
        let within = Seq(among.start)..Seq(among.end);
        let counts = stretches.iter().map(|stretch| stretch.among(&within));
        let (least, most) = counts.fold((0, 0), |(least, most), (l, m)| (least + l, most + m));
        let (noted, pass) = self.passes.count(among, Word::Expired);
        let all = among.end - among.start;
        (
            least.max(noted).min(all),
            (most + anywhere).max(noted).min(all),
            pass,
        )
    }

    fn letter(&self, id: EventId) -> Option<Traced> {
        let letters = match &self.letters {
            Ok(letters) => letters,
            Err(error) => {
                let why = format!("its dead letters cannot be read: {error}");
                return Some(Traced::new("unknown", why));
            }
        };
        Some(letters.get(&id)?.traced())
    }

    /// What was passed may have been a dead letter that is not kept any more.
    fn or_a_letter(&self) -> &'static str {
        match self.post.health.dead_letters.some_are_gone() {
            true => " or it was a dead letter that was seen to and is not kept any more",
            false => "",
        }
    }

    /// The sink has passed it, and it is no dead letter; and whether the destination itself said that it has it.
    fn done(&self, sought: &Sought) -> (Traced, bool) {
        let Some(event) = &sought.event else {
            let why = format!(
                "unless the sink's filter left it out{}: the event itself is not in the log any more",
                self.or_a_letter()
            );
            return (Traced::new("delivered", why), false);
        };
        let Post { common, sink, .. } = &*self.post;
        let event = Carried::from(Encoded::new(event.clone()));
        let Some(sent) = common.outgoing(event) else {
            let why = "the sink's filter or sample, as it is set now, leaves it out";
            return (Traced::new("filtered", why), false);
        };
        let found = match sought.ask {
            true => sink.look_up(&sent, sought.journaled / 1_000_000),
            false => sink.whereabouts(&sent).map(Found::unseen),
        };
        let seen = found.as_ref().is_some_and(|found| found.seen);
        let unless = match self.or_a_letter().strip_prefix(" or") {
            Some(letter) if !seen => format!("unless{letter}"),
            _ => String::new(),
        };
        let traced = Traced {
            place: found.map(|found| found.place),
            ..Traced::new("delivered", unless)
        };
        (traced, seen)
    }
}
