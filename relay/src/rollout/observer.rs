//! What the new policies of a trial would have stopped, read from the journal.
//!
//! An alert counts when it has the Action `Audit (Block)`, the digest of the trial, and a rule that the set in force does
//! not have: what a node only tells of anyway, for its kernel cannot enforce it, is no difference.

use std::collections::BTreeSet;

use journal::Entry;
use prost::Message as _;
use proto::{Digest, Event, Kind, RuleId, feeder};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::stage::Trying;
use crate::log::{Reader, View};

/// The action of what passed and would have been stopped.
const WOULD_BLOCK: &str = "Audit (Block)";
/// What is read at a time, in bytes.
const READ: usize = 1 << 20;
/// Between two tries of a disk that fails.
const AGAIN: std::time::Duration = std::time::Duration::from_secs(1);

/// One operation that would have been stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// `namespace/name` of the workload's namespace and the policy.
    pub(super) policy: String,
    /// The operation, in words.
    pub(super) what: String,
}

/// Reads along until dropped.
pub(super) struct Observer {
    seen: mpsc::Receiver<Vec<Seen>>,
    task: JoinHandle<()>,
}

/// What is looked for.
struct Wanted {
    trial: Digest,
    rules: BTreeSet<RuleId>,
}

impl Observer {
    /// From where the trial began.
    pub(super) fn start(log: &dyn View, trying: &Trying) -> Observer {
        let wanted = Wanted {
            trial: trying.digest(),
            rules: trying.trial.rules.clone(),
        };
        let reader = log.reader(trying.progress.from);
        let (tell, seen) = mpsc::channel(4);
        Observer {
            seen,
            task: tokio::spawn(read(reader, wanted, tell)),
        }
    }

    /// The next that were seen.
    pub(super) async fn next(&mut self) -> Vec<Seen> {
        match self.seen.recv().await {
            Some(seen) => seen,
            // The journal is closed: the relay stops.
            None => std::future::pending().await,
        }
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn read(mut reader: Box<dyn Reader>, wanted: Wanted, tell: mpsc::Sender<Vec<Seen>>) {
    while reader.wait().await {
        let reading = tokio::task::spawn_blocking(move || {
            let block = reader.next(READ);
            (reader, block)
        });
        let Ok((back, block)) = reading.await else {
            return;
        };
        reader = back;
        let entries = match block {
            Ok(block) => block.entries,
            Err(error) => {
                tracing::warn!(%error, "the rollout cannot read what canaries told; trying again");
                tokio::time::sleep(AGAIN).await;
                continue;
            }
        };
        let seen: Vec<Seen> = entries
            .iter()
            .filter_map(|entry| wanted.seen(entry))
            .collect();
        if !seen.is_empty() && tell.send(seen).await.is_err() {
            return;
        }
    }
}

impl Wanted {
    fn seen(&self, entry: &Entry) -> Option<Seen> {
        if Kind::try_from(entry.kind) != Ok(Kind::Alert) {
            return None;
        }
        let event = Event::from_journal(entry.kind, entry.payload.clone()).ok()?;
        self.of_alert(feeder::Alert::decode(event.payload).ok()?)
    }

    fn of_alert(&self, alert: feeder::Alert) -> Option<Seen> {
        let counts = alert.action == WOULD_BLOCK
            && alert.policy_digest[..] == self.trial.0
            && self.rules.contains(&RuleId(alert.rule_id));
        counts.then(|| Seen {
            policy: format!("{}/{}", alert.namespace_name, alert.policy_name),
            what: format!("{} {}", alert.operation, alert.resource),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_new_rule_of_this_trial_counts() {
        let wanted = Wanted {
            trial: Digest([7; 32]),
            rules: BTreeSet::from([RuleId(1)]),
        };
        let alert = || feeder::Alert {
            action: WOULD_BLOCK.to_owned(),
            policy_digest: vec![7; 32],
            rule_id: 1,
            namespace_name: "shop".to_owned(),
            policy_name: "new".to_owned(),
            operation: "Process".to_owned(),
            resource: "/usr/bin/id".to_owned(),
            ..feeder::Alert::default()
        };
        let seen = Seen {
            policy: "shop/new".to_owned(),
            what: "Process /usr/bin/id".to_owned(),
        };
        assert_eq!(wanted.of_alert(alert()), Some(seen));
        let others = [
            feeder::Alert {
                action: "Block".to_owned(),
                ..alert()
            },
            feeder::Alert {
                action: "Audit".to_owned(),
                ..alert()
            },
            feeder::Alert {
                policy_digest: vec![8; 32],
                ..alert()
            },
            feeder::Alert {
                policy_digest: Vec::new(),
                ..alert()
            },
            feeder::Alert {
                rule_id: 2,
                ..alert()
            },
        ];
        for other in others {
            assert_eq!(wanted.of_alert(other.clone()), None, "{other:?}");
        }
    }
}
