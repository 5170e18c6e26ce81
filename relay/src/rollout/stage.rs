//! One trial, from its first canary to its end. No clock and no disk: who looks says when it is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use policy::{RuleSet, Trial};
use proto::Digest;
use tokio::time::Instant;

use super::Config;
use super::kept::Progress;
use super::observer::Seen;
use crate::distribute::Canaries;

/// After a start of the relay, what canaries have spooled meanwhile has this long to arrive.
const SETTLE: Duration = Duration::from_secs(10);

/// A trial.
pub(super) struct Trying {
    /// The set that is tried.
    pub(super) target: Arc<RuleSet>,
    pub(super) trial: Trial,
    /// What canaries run.
    pub(super) set: Arc<RuleSet>,
    pub(super) progress: Progress,
    pub(super) canaries: Canaries,
    /// A canary runs it since then, as far as this run of the relay has seen.
    seen: Option<Instant>,
    pub(super) would_block: u64,
    pub(super) by_policy: BTreeMap<String, u64>,
    /// The newest of them, in words.
    newest: String,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    Wait,
    /// Everybody is to run it.
    Adopt,
    /// Nobody is.
    Stop(String),
}

impl Trying {
    pub(super) fn new(target: Arc<RuleSet>, trial: Trial, progress: Progress) -> Trying {
        Trying {
            target,
            set: Arc::new(trial.set.clone()),
            trial,
            progress,
            canaries: Canaries::default(),
            seen: None,
            would_block: 0,
            by_policy: BTreeMap::new(),
            newest: String::new(),
        }
    }

    /// The digest of what canaries run.
    pub(super) fn digest(&self) -> Digest {
        self.set.digest()
    }

    /// Takes in what the new policies would have stopped.
    pub(super) fn count(&mut self, seen: Vec<Seen>) {
        self.would_block += seen.len() as u64; // usize is at most 64 bits
        for Seen { policy, what } in seen {
            *self.by_policy.entry(policy).or_default() += 1;
            self.newest = what;
        }
    }

    /// Looks at it at a moment.
    pub(super) fn look(
        &mut self,
        config: &Config,
        canaries: Canaries,
        unix: u64,
        now: Instant,
    ) -> Next {
        self.canaries = canaries;
        if self.progress.stopped.is_some() {
            return Next::Wait;
        }
        if let Some(why) = &self.canaries.refused {
            return Next::Stop(format!("a canary refused it: {why}"));
        }
        match self.canaries.running {
            0 => self.seen = None,
            _ => {
                self.seen.get_or_insert(now);
                self.progress.since.get_or_insert(unix);
            }
        }
        // A clock that was set back makes the hold longer, never shorter.
        let held = |since: u64| Duration::from_secs(unix.saturating_sub(since));
        let held = self.progress.since.map_or(Duration::ZERO, held);
        if let Some(why) = self.too_much(config, held) {
            return Next::Stop(why);
        }
        let settled = |seen: Instant| now.duration_since(seen) >= SETTLE.min(config.hold);
        match self.seen.is_some_and(settled) && held >= config.hold {
            true => Next::Adopt,
            false => Next::Wait,
        }
    }

    /// Why the new policies stop more than they may, if they do. The first minute counts as a whole one.
    fn too_much(&self, config: &Config, held: Duration) -> Option<String> {
        let minutes = (held.as_secs_f64() / 60.0).max(1.0);
        let most = config.blocked_rate * minutes;
        // A count beyond 2^53 would have been too much long before.
        (self.would_block as f64 > most).then(|| {
            format!(
                "it would have stopped too much in {}: {} a minute are allowed",
                yaml::Span(held.max(Duration::from_secs(1))),
                config.blocked_rate
            )
        })
    }

    /// What came of it, for the audit trail.
    pub(super) fn account(&self, why: &str) -> String {
        let mut parts: Vec<String> = Vec::new();
        if !why.is_empty() {
            parts.push(why.to_owned());
        }
        let by = self.by_policy.iter();
        let by: Vec<String> = by
            .map(|(policy, count)| format!("{policy} {count}"))
            .collect();
        parts.push(match by.is_empty() {
            true => "its policies would have stopped nothing".to_owned(),
            false => format!(
                "would have stopped {} ({}), the last one {}",
                operations(self.would_block),
                by.join(", "),
                self.newest
            ),
        });
        parts.join("; ")
    }
}

fn operations(count: u64) -> String {
    match count {
        1 => "1 operation".to_owned(),
        more => format!("{more} operations"),
    }
}

#[cfg(test)]
mod tests {
    use journal::Seq;

    use super::*;

    const HOLD: Duration = Duration::from_secs(600);

    fn config(blocked_rate: f64) -> Config {
        Config {
            canary: BTreeMap::new(),
            hold: HOLD,
            blocked_rate,
        }
    }

    fn trying() -> Trying {
        let target = Arc::new(policy::compile(&[], &proto::rules::Postures::default()));
        let trial = Trial {
            set: (*target).clone(),
            rules: Default::default(),
            policies: vec!["shop/new".to_owned()],
        };
        let progress = Progress {
            target: target.digest(),
            from: Seq(1),
            since: None,
            stopped: None,
        };
        Trying::new(target, trial, progress)
    }

    fn running(running: usize) -> Canaries {
        Canaries {
            connected: 1,
            running,
            refused: None,
        }
    }

    fn blocks(count: usize) -> Vec<Seen> {
        let one = Seen {
            policy: "shop/new".to_owned(),
            what: "/usr/bin/id".to_owned(),
        };
        vec![one; count]
    }

    #[test]
    fn the_hold_begins_with_the_first_canary_and_ends_with_everybody() {
        let (mut trying, config, start) = (trying(), config(1.0), Instant::now());
        assert_eq!(trying.look(&config, running(0), 1000, start), Next::Wait);
        assert_eq!(trying.progress.since, None, "nobody runs it");
        assert_eq!(trying.look(&config, running(1), 2000, start), Next::Wait);
        let almost = start + HOLD - Duration::from_secs(1);
        assert_eq!(trying.look(&config, running(1), 2599, almost), Next::Wait);
        assert_eq!(
            trying.look(&config, running(1), 2600, start + HOLD),
            Next::Adopt
        );
        assert!(trying.account("").contains("nothing"));
    }

    #[test]
    fn above_the_rate_it_stops_and_the_first_minute_counts_whole() {
        let (mut trying, config, start) = (trying(), config(2.0), Instant::now());
        trying.look(&config, running(1), 1000, start);
        trying.count(blocks(2));
        assert_eq!(trying.look(&config, running(1), 1001, start), Next::Wait);
        trying.count(blocks(1));
        let Next::Stop(why) = trying.look(&config, running(1), 1002, start) else {
            panic!("three in two seconds are more than two a minute");
        };
        // How many it was is told behind it, by policy.
        assert!(why.contains("in 2s: 2 a minute are allowed"), "{why}");
        // The same three in two minutes are fewer than two a minute.
        assert_eq!(trying.look(&config, running(1), 1120, start), Next::Wait);
        trying.progress.stopped = Some(why);
        trying.count(blocks(100));
        assert_eq!(
            trying.look(&config, running(1), 9999, start),
            Next::Wait,
            "it is over"
        );
    }

    #[test]
    fn without_a_limit_of_its_own_the_first_block_stops_it() {
        let (mut trying, config) = (trying(), config(0.0));
        trying.look(&config, running(1), 1000, Instant::now());
        trying.count(blocks(1));
        assert!(matches!(
            trying.look(&config, running(1), 1001, Instant::now()),
            Next::Stop(_)
        ));
        assert!(
            trying
                .account("why")
                .contains("shop/new 1), the last one /usr/bin/id")
        );
    }

    #[test]
    fn it_does_not_end_while_the_canary_is_away_nor_before_its_spool_is_here() {
        let (mut trying, config, start) = (trying(), config(1.0), Instant::now());
        trying.progress.since = Some(1000);
        // As after a restart of the relay: the time is over, and nobody has said anything yet.
        assert_eq!(trying.look(&config, running(0), 9000, start), Next::Wait);
        assert_eq!(trying.look(&config, running(1), 9001, start), Next::Wait);
        assert_eq!(
            trying.look(&config, running(1), 9011, start + SETTLE),
            Next::Adopt
        );
    }

    #[test]
    fn a_canary_that_refuses_it_stops_it() {
        let mut trying = trying();
        let refused = Canaries {
            refused: Some("node-a: more than 4096 sets".to_owned()),
            ..running(0)
        };
        let next = trying.look(&config(1.0), refused, 1000, Instant::now());
        assert_eq!(
            next,
            Next::Stop("a canary refused it: node-a: more than 4096 sets".to_owned())
        );
    }
}
