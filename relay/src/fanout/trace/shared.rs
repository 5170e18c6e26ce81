//! The same in a log that relays share: how far a sink has come is what its group has committed, whichever relay feeds it.
//! Dead letters, and when what was passed, are known to the relay that had the partition: so what another one passed is
//! "passed", unless the destination itself says that it has it.

use std::sync::Arc;

use journal::Seq;

use super::{Look, Place, Sought, Traced};
use crate::log::{Shared, Supply};

/// The next event of every partition for a sink; none where no relay has begun.
pub(super) type Stands = Result<Vec<Option<Seq>>, String>;

/// Questions at one time; each has a client of its own.
const AT_ONCE: usize = 8;
/// Clocks of brokers and relays differ.
const SKEW_MS: u64 = 60_000;

/// Where these sinks stand. Each costs a question to the brokers, so some are asked at once. Blocks.
pub(super) fn stands(log: Option<Arc<dyn Shared>>, sinks: &[&str]) -> Vec<Stands> {
    let Some(log) = log else {
        return vec![Ok(Vec::new()); sinks.len()];
    };
    let ask = |sink: &str| log.stands(sink).map_err(|error| error.to_string());
    let some = sinks.chunks(AT_ONCE);
    some.flat_map(|sinks| at_once(sinks, ask)).collect()
}

fn at_once(sinks: &[&str], ask: impl Fn(&str) -> Stands + Sync) -> Vec<Stands> {
    std::thread::scope(|scope| {
        let ask = &ask;
        let asked = sinks.iter().map(|sink| scope.spawn(move || ask(sink)));
        let asked: Vec<_> = asked.collect();
        let answers = asked.into_iter().map(|asked| asked.join());
        let died = |_| Err("the question to the brokers died".to_owned());
        answers.map(|answer| answer.unwrap_or_else(died)).collect()
    })
}

impl Look {
    pub(super) fn shared(&self, sought: &Sought) -> Traced {
        let Place::In {
            partition,
            number,
            mine,
        } = sought.place
        else {
            return self.letter(sought.id).unwrap_or_else(nowhere);
        };
        let at = usize::try_from(partition).ok();
        let stands = match &self.stands {
            Ok(stands) => at.and_then(|at| stands.get(at).copied().flatten()),
            Err(why) => {
                let why = format!("where its group stands is not known: {why}");
                return (self.letter(sought.id)).unwrap_or_else(|| Traced::new("unknown", why));
            }
        };
        let sums = matches!(self.post.health.supply, Supply::Lane(_));
        match stands {
            _ if sums && !mine => Traced::new(
                "elsewhere",
                "the relay that took it counts it, and only that one",
            ),
            None => Traced::new("pending", "no relay has begun to deliver its partition"),
            Some(Seq(stands)) if number >= stands => self.waits(match number - stands {
                0 => format!("it is the next one of partition {partition}"),
                before => format!("{before} records of partition {partition} lie before it"),
            }),
            Some(_) if sums => self.done(sought).0,
            Some(_) => self
                .letter(sought.id)
                .unwrap_or_else(|| self.gone_by(partition, number, sought)),
        }
    }

    /// The group has passed it: here, or at another relay.
    fn gone_by(&self, partition: i32, number: u64, sought: &Sought) -> Traced {
        let pass = self.passes.find(Some(partition), number);
        // A topic that was made anew counts from the start again: what was passed before it was kept was another event.
        let kept_ms = sought.journaled / 1_000_000;
        match pass.filter(|pass| pass.at + SKEW_MS >= kept_ms) {
            Some(pass) => self.noted(pass, sought),
            None => match self.done(sought) {
                (traced, true) => traced,
                (traced, false) if traced.outcome == "filtered" => traced,
                (traced, false) => Traced {
                    outcome: "passed",
                    reason: "its group is past it and this relay did not send it: another relay of the log delivered it or keeps it as a dead letter, and `cresset trace` there says which; or the sink began after it".to_owned(),
                    ..traced
                },
            },
        }
    }
}

fn nowhere() -> Traced {
    Traced::new(
        "unknown",
        "it was not found in the log, so nobody can say whether the sink's group is past it",
    )
}
