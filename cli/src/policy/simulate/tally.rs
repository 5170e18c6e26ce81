//! What came of a replay, added up.

use std::collections::{BTreeMap, BTreeSet};

use policy::{Preset, Workload};
use prost::Message as _;
use proto::rules::object::Is;
use proto::rules::{Rule, Section};
use proto::{Kind, RuleId, feeder};

use super::super::asked::{Answer, Asked, Judge, Links, Outcome};
use super::super::diff::who;
use super::super::loaded::{Compiled, title};
use super::super::names::Names;
use super::super::past::Period;
use super::super::{shortfall, words};
use super::recorded::{self, Class, Recorded, Told};

/// Examples that are kept of each row.
const SAMPLES: usize = 3;
/// Different operations of one workload whose answers are remembered; more are decided anew.
const REMEMBERED: usize = 20_000;
/// Workloads that are told apart; what more of them did is counted as unclear.
const MAX_WORKLOADS: usize = 10_000;

/// Adds up a replay as it comes.
pub(super) struct Tally<'s> {
    now: &'s Compiled,
    new: &'s Compiled,
    names: &'s Names,
    /// One for each way in which links may lie.
    links: &'s [Links<'s>],
    namespace: Option<&'s str>,
    /// By name and identity.
    workloads: BTreeMap<(String, String), Seen<'s>>,
    lost: BTreeMap<String, u64>,
    unclear: u64,
}

/// One workload of the record.
struct Seen<'s> {
    name: String,
    workload: Workload,
    now: Vec<Judge<'s>>,
    new: Vec<Judge<'s>>,
    /// Operation → answers of the set in force and of the new one.
    answers: BTreeMap<Vec<Asked>, (Decided, Decided)>,
    /// Operations that were recorded.
    classes: BTreeMap<Class, u64>,
    /// By what the new set says to them.
    rows: BTreeMap<Row, Count>,
    /// Where the two sets differ.
    changes: BTreeMap<(Decided, Decided), Count>,
    throttled: u64,
    unclear: u64,
    first: i64,
    last: i64,
}

/// What a set says where the record leaves something open.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Decided {
    Sure(Outcome, String, u64),
    Unknown,
}

/// A line of the result: an outcome, by whose word.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Row {
    pub(super) decided: Decided,
    /// The rule in words.
    pub(super) rule: String,
}

/// How often, and examples.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) count: u64,
    /// Operation and unix seconds.
    pub(super) samples: Vec<(String, i64)>,
}

impl Count {
    fn add(&mut self, asked: &Asked, time: i64) {
        self.count += 1;
        let sample = asked.to_string();
        if self.samples.len() < SAMPLES && self.samples.iter().all(|(known, _)| *known != sample) {
            self.samples.push((sample, time));
        }
    }
}

impl<'s> Tally<'s> {
    /// Of nothing yet; only of workloads of `namespace`, where one is given.
    pub(super) fn new(
        now: &'s Compiled,
        new: &'s Compiled,
        names: &'s Names,
        links: &'s [Links<'s>],
        namespace: Option<&'s str>,
    ) -> Tally<'s> {
        Tally {
            now,
            new,
            names,
            links,
            namespace,
            workloads: BTreeMap::new(),
            lost: BTreeMap::new(),
            unclear: 0,
        }
    }

    /// One event of the record.
    pub(super) fn event(&mut self, kind: Kind, payload: &[u8]) {
        let told = match kind {
            Kind::Alert => feeder::Alert::decode(payload)
                .map(|alert| recorded::alert(&alert, self.names))
                .ok(),
            Kind::Log => feeder::Log::decode(payload)
                .map(|log| recorded::log(&log, self.names))
                .ok(),
            Kind::Message => {
                if let Ok(message) = feeder::Message::decode(payload) {
                    self.message(&message);
                }
                return;
            }
        };
        match told {
            Some(Told::Operations(all)) => all.iter().for_each(|one| self.operation(one)),
            Some(Told::Throttled { name }) => self.about(&name, |seen| seen.throttled += 1),
            Some(Told::Unclear { name }) => {
                self.unclear += 1;
                self.about(&name, |seen| seen.unclear += 1);
            }
            Some(Told::Beside) => {}
            None => self.unclear += 1,
        }
    }

    fn message(&mut self, message: &feeder::Message) {
        if let Some(lost) = &message.lost {
            let place = format!("{} {}", lost.r#where, lost.class);
            *self.lost.entry(place).or_default() += lost.count;
        }
    }

    /// The journal had more once.
    pub(super) fn gap(&mut self, missed: u64, reason: &str) {
        *self.lost.entry(format!("journal: {reason}")).or_default() += missed;
    }

    fn about(&mut self, name: &str, change: impl Fn(&mut Seen<'s>)) {
        let of_name = |seen: &&mut Seen<'s>| seen.name == name;
        self.workloads.values_mut().filter(of_name).for_each(change);
    }

    fn operation(&mut self, recorded: &Recorded) {
        if self
            .namespace
            .is_some_and(|only| recorded.workload.namespace != only)
        {
            return;
        }
        let key = (recorded.name.clone(), who(&recorded.workload));
        if !self.workloads.contains_key(&key) && self.workloads.len() == MAX_WORKLOADS {
            self.unclear += 1;
            return;
        }
        let (now, new, links) = (self.now, self.new, self.links);
        let seen = self
            .workloads
            .entry(key)
            .or_insert_with(|| Seen::new(recorded, now, new, links));
        seen.operation(recorded, new);
    }

    /// What came of it; `asked`: the titles of the policies whose doing is asked for.
    pub(super) fn result(self, period: Period, asked: &BTreeSet<String>) -> Outcomes {
        let (new, now) = (self.new, self.now);
        let unmet = self.unmet(asked);
        let workloads: Vec<OfWorkload> = self
            .workloads
            .into_values()
            .map(|seen| seen.result(new))
            .collect();
        Outcomes {
            period,
            in_force: (now.digest().to_string(), now.blobs.len()),
            policies: (new.digest().to_string(), new.blobs.len()),
            workloads,
            lost: self.lost,
            unclear: self.unclear,
            unmet,
            not_enforced: left_out(new),
        }
    }

    fn unmet(&self, asked: &BTreeSet<String>) -> BTreeMap<String, BTreeSet<Class>> {
        let judges = self.workloads.values().flat_map(|seen| &seen.new);
        let met: BTreeSet<&String> = judges.flat_map(Judge::policies).collect();
        let blobs = self.new.blobs.iter();
        blobs
            .filter(|blob| asked.contains(&title(blob)) && !met.contains(&title(blob)))
            .map(|blob| (title(blob), blob.rules.iter().filter_map(class).collect()))
            .collect()
    }
}

/// What sensors leave out of a set, in words.
fn left_out(set: &Compiled) -> Vec<String> {
    let parts = shortfall::of(set).into_iter();
    parts
        .map(|part| format!("{} {}", part.policy, shortfall::words(&part)))
        .collect()
}

impl<'s> Seen<'s> {
    fn new(
        recorded: &Recorded,
        now: &'s Compiled,
        new: &'s Compiled,
        links: &'s [Links<'s>],
    ) -> Seen<'s> {
        let judges = |set: &'s Compiled| {
            let judge = |links: &Links<'s>| Judge::new(set, &recorded.workload, *links);
            links.iter().map(judge).collect()
        };
        Seen {
            name: recorded.name.clone(),
            now: judges(now),
            new: judges(new),
            workload: recorded.workload.clone(),
            answers: BTreeMap::new(),
            classes: BTreeMap::new(),
            rows: BTreeMap::new(),
            changes: BTreeMap::new(),
            throttled: 0,
            unclear: 0,
            first: recorded.time,
            last: recorded.time,
        }
    }

    fn operation(&mut self, recorded: &Recorded, new: &Compiled) {
        let Recorded {
            class, cases, time, ..
        } = recorded;
        let Some(asked) = cases.first() else { return };
        (self.first, self.last) = (self.first.min(*time), self.last.max(*time));
        *self.classes.entry(*class).or_default() += 1;
        let (was, is) = match self.answers.get(cases) {
            Some(known) => known.clone(),
            None => {
                let both = (decided(&self.now, cases), decided(&self.new, cases));
                if self.answers.len() < REMEMBERED {
                    self.answers.insert(cases.clone(), both.clone());
                }
                both
            }
        };
        if differs(&was, &is) {
            let change = self.changes.entry((was, is.clone())).or_default();
            change.add(asked, *time);
        }
        let rule = rule_in_words(new, &is);
        let row = Row { decided: is, rule };
        self.rows.entry(row).or_default().add(asked, *time);
    }

    fn result(self, new: &Compiled) -> OfWorkload {
        let judged = judged(new, &self.new);
        OfWorkload {
            name: self.name,
            who: who(&self.workload),
            missing: judged
                .iter()
                .filter(|class| !self.classes.contains_key(class))
                .copied()
                .collect(),
            judged,
            classes: self.classes,
            rows: self.rows.into_iter().collect(),
            changes: self.changes.into_iter().collect(),
            throttled: self.throttled,
            unclear: self.unclear,
            first: self.first,
            last: self.last,
        }
    }
}

/// One outcome for every case and every way in which links may lie, or none.
fn decided(judges: &[Judge<'_>], cases: &[Asked]) -> Decided {
    let each = judges
        .iter()
        .flat_map(|judge| cases.iter().map(|asked| judge.answer(asked)));
    let answers: BTreeSet<Answer> = each.collect();
    let sure = answers.iter().all(|answer| answer.sure);
    let outcomes: BTreeSet<Outcome> = answers.iter().map(|answer| answer.outcome).collect();
    match answers.into_iter().next() {
        Some(Answer {
            outcome, by, rule, ..
        }) if outcomes.len() == 1 && sure => Decided::Sure(outcome, by, rule),
        _ => Decided::Unknown,
    }
}

/// Whose silence it is, is no difference.
fn differs(was: &Decided, is: &Decided) -> bool {
    match (was, is) {
        (Decided::Sure(Outcome::Pass, ..), Decided::Sure(Outcome::Pass, ..)) => false,
        _ => was != is,
    }
}

fn rule_in_words(set: &Compiled, decided: &Decided) -> String {
    match decided {
        Decided::Sure(_, _, rule) if *rule != 0 => set
            .rule(RuleId(*rule))
            .map(|(_, rule)| words::rule(rule))
            .unwrap_or_default(),
        _ => String::new(),
    }
}

/// The classes that rules about this workload judge.
fn judged(set: &Compiled, judges: &[Judge<'_>]) -> BTreeSet<Class> {
    let titles = judges.first().map(Judge::policies).unwrap_or_default();
    let own = set
        .blobs
        .iter()
        .filter(|blob| titles.contains(&title(blob)));
    own.flat_map(|blob| &blob.rules).filter_map(class).collect()
}

/// None for a rule of a later version.
fn class(rule: &Rule) -> Option<Class> {
    let is = rule.object.as_ref().and_then(|object| object.is.as_ref());
    match (rule.section(), is) {
        (Section::Process, _) => Some(Class::Process),
        (Section::File, _) => Some(Class::File),
        (Section::Network, _) => Some(Class::Network),
        (Section::Dns, _) => Some(Class::Dns),
        (Section::Capabilities, _) => Some(Class::Capabilities),
        (Section::Syscalls, _) => Some(Class::Syscalls),
        (Section::Endpoints, _) => Some(Class::Connections),
        (Section::Flows, _) => Some(Class::Packets),
        (Section::Devices, _) => Some(Class::Devices),
        (Section::Presets, Some(Is::Preset(name))) => preset(name),
        _ => None,
    }
}

/// What a preset looks at.
fn preset(name: &str) -> Option<Class> {
    Some(match Preset::of(name)? {
        Preset::FilelessExec | Preset::Exec => Class::Process,
        Preset::ProtectEnv | Preset::ProtectProc => Class::File,
        Preset::AnonymousMapExec => Class::Memory,
    })
}

// === result ===

/// What came of a replay.
pub(super) struct Outcomes {
    pub(super) period: Period,
    /// Digest and number of policies.
    pub(super) in_force: (String, usize),
    pub(super) policies: (String, usize),
    pub(super) workloads: Vec<OfWorkload>,
    /// Events that were lost, by place.
    pub(super) lost: BTreeMap<String, u64>,
    /// Events of which too little is known.
    pub(super) unclear: u64,
    /// Policies of the files that are about no workload of the record, and the classes that they judge: nothing is known of
    /// what they do.
    pub(super) unmet: BTreeMap<String, BTreeSet<Class>>,
    /// What sensors of this version leave out of the new set: here it is decided as it is written.
    pub(super) not_enforced: Vec<String>,
}

/// Of one workload.
pub(super) struct OfWorkload {
    pub(super) name: String,
    pub(super) who: String,
    pub(super) classes: BTreeMap<Class, u64>,
    /// What the new set's rules judge.
    pub(super) judged: BTreeSet<Class>,
    /// Of those, what nothing was recorded of.
    pub(super) missing: BTreeSet<Class>,
    pub(super) rows: Vec<(Row, Count)>,
    pub(super) changes: Vec<((Decided, Decided), Count)>,
    pub(super) throttled: u64,
    pub(super) unclear: u64,
    pub(super) first: i64,
    pub(super) last: i64,
}

impl OfWorkload {
    pub(super) fn operations(&self) -> u64 {
        self.classes.values().sum()
    }

    pub(super) fn of(&self, wanted: impl Fn(&Decided) -> bool) -> u64 {
        let rows = self.rows.iter().filter(|(row, _)| wanted(&row.decided));
        rows.map(|(_, count)| count.count).sum()
    }
}

impl Outcomes {
    /// Of operations of the record, lost ones included: those that were decided, in percent.
    pub(super) fn decided(&self) -> f64 {
        let all: u64 = self.workloads.iter().map(OfWorkload::operations).sum();
        let unknown: u64 = self
            .workloads
            .iter()
            .map(|one| one.of(|decided| *decided == Decided::Unknown))
            .sum();
        let lost: u64 = self.lost.values().sum();
        percent(all - unknown, all + lost + self.unclear)
    }

    /// Of the classes that rules judge, workload by workload, and those of policies that met no workload: those of which
    /// something was recorded. Both numbers.
    pub(super) fn classes(&self) -> (usize, usize) {
        let judged: usize = self.workloads.iter().map(|one| one.judged.len()).sum();
        let missing: usize = self.workloads.iter().map(|one| one.missing.len()).sum();
        let unmet: usize = self.unmet.values().map(BTreeSet::len).sum();
        (judged - missing, judged + unmet)
    }

    /// What share of what the policies judge could be decided, in percent: of the operations and of the classes, the smaller.
    /// Where nothing is judged nothing was simulated.
    pub(super) fn coverage(&self) -> f64 {
        let (recorded, judged) = self.classes();
        if judged == 0 {
            return 0.0;
        }
        self.decided().min(percent(recorded as u64, judged as u64))
    }

    /// Why a gate is shut that asks for this much; none when it is open.
    pub(super) fn shut(&self, min_coverage: u8) -> Option<String> {
        if min_coverage == 0 {
            return None;
        }
        if let Some(title) = self.unmet.keys().next() {
            let more = self.unmet.len() - 1;
            let others = if more == 0 {
                String::new()
            } else {
                format!(" and {more} more")
            };
            return Some(format!(
                "policy {title}{others} is about no workload of the record: nothing of it was simulated"
            ));
        }
        let coverage = self.coverage();
        (coverage < f64::from(min_coverage)).then(|| {
            format!(
                "coverage {:.0}% is below --min-coverage {min_coverage}",
                coverage.floor()
            )
        })
    }
}

/// Nothing of nothing is nothing.
fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 * 100.0 / whole as f64
    }
}
