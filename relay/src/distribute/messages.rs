//! One sensor's stream of sets, in parts.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::Stream;
use policy::RuleSet;
use proto::link::ManifestChange;
use proto::{Digest, link};
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;

use super::difference::Difference;
use super::{MAX_PART, Offered, Receiver, Shared};

pub(super) struct Messages {
    to: Receiver,
    connection: u64,
    shared: Arc<Shared>,
    offered: WatchStream<Arc<Offered>>,
    holds: Holds,
    last: Option<Digest>,
    sent: Option<Arc<RuleSet>>,
    sending: Option<Sending>,
}

/// What a sensor holds.
enum Holds {
    /// What it said at its start.
    Named(BTreeSet<Digest>),
    /// The set that it said it applied, and perhaps more.
    Set(Arc<RuleSet>),
}

/// A set on its way.
enum Sending {
    Whole {
        set: Arc<RuleSet>,
        named: bool,
        /// The next blob comes after this one.
        after: Option<Digest>,
    },
    Change {
        difference: Arc<Difference>,
        next: usize,
    },
}

impl Messages {
    pub(super) fn new(
        offered: watch::Receiver<Arc<Offered>>,
        shared: Arc<Shared>,
        mut to: Receiver,
        connection: u64,
    ) -> Messages {
        let named = std::mem::take(&mut to.blobs);
        let current = offered.borrow().to(&to.labels).clone();
        // The same thousands of names for every sensor need not be there a thousand times.
        let holds = match to.in_force == Some(current.digest()) {
            true => Holds::Set(current),
            false => Holds::Named(named.into_iter().collect()),
        };
        Messages {
            last: to.in_force,
            to,
            connection,
            shared,
            offered: WatchStream::new(offered),
            holds,
            sent: None,
            sending: None,
        }
    }

    /// Puts a set in line that is not the last one.
    fn take(&mut self, offered: &Offered) {
        let set = offered.to(&self.to.labels);
        let digest = set.digest();
        if self.last == Some(digest) {
            return;
        }
        self.settle();
        self.sending = Some(self.begin(set));
        self.last = Some(digest);
        self.sent = Some(set.clone());
    }

    /// Learns what the sensor holds from the last set sent to it: all of it when it was applied, else only what it
    /// held before and would keep in either case.
    fn settle(&mut self) {
        let Some(sent) = self.sent.take() else { return };
        let digest = sent.digest();
        match self.shared.said(&self.to.sensor) {
            (Some(in_force), _) if in_force == digest => self.holds = Holds::Set(sent),
            (_, Some(refused)) if refused == digest => {}
            _ => {
                let kept = self
                    .holds
                    .names()
                    .filter(|name| sent.blobs.contains_key(name));
                self.holds = Holds::Named(kept.collect());
            }
        }
    }

    fn begin(&self, set: &Arc<RuleSet>) -> Sending {
        if let Holds::Set(from) = &self.holds
            && self.to.takes_changes
        {
            let difference = self.shared.differences.between(from, set);
            if difference.change.is_some() {
                return Sending::Change {
                    difference,
                    next: 0,
                };
            }
        }
        Sending::Whole {
            set: set.clone(),
            named: false,
            after: None,
        }
    }

    /// The next part of what is on its way.
    fn part(&mut self) -> Option<link::Rules> {
        let sending = self.sending.as_mut()?;
        let part = match sending {
            Sending::Whole { set, named, after } => whole(set, &self.holds, named, after),
            Sending::Change { difference, next } => change(difference, next),
        };
        if part.commit {
            self.sending = None;
        }
        Some(part)
    }
}

impl Holds {
    fn has(&self, name: &Digest) -> bool {
        match self {
            Holds::Named(names) => names.contains(name),
            Holds::Set(set) => set.blobs.contains_key(name),
        }
    }

    fn names(&self) -> Box<dyn Iterator<Item = Digest> + '_> {
        match self {
            Holds::Named(names) => Box::new(names.iter().copied()),
            Holds::Set(set) => Box::new(set.blobs.keys().copied()),
        }
    }
}

/// The next blobs of a set that are not held.
fn whole(
    set: &RuleSet,
    holds: &Holds,
    named: &mut bool,
    after: &mut Option<Digest>,
) -> link::Rules {
    let from = after.map_or(Bound::Unbounded, Bound::Excluded);
    let missing = set.blobs.range((from, Bound::Unbounded));
    let missing = missing.filter(|(name, _)| !holds.has(name));
    let (mut blobs, mut size, mut commit) = (Vec::new(), 0, true);
    for (name, blob) in missing {
        if size + blob.len() > MAX_PART && size > 0 {
            commit = false;
            break;
        }
        size += blob.len();
        blobs.push(blob.clone());
        *after = Some(*name);
    }
    let first = !std::mem::replace(named, true);
    link::Rules {
        manifest: first.then(|| set.manifest.clone()),
        blobs,
        commit,
        change: None,
    }
}

/// The next new blobs of a change.
fn change(difference: &Difference, next: &mut usize) -> link::Rules {
    let first: Option<ManifestChange> = difference.change.clone().filter(|_| *next == 0);
    let (mut blobs, mut size): (Vec<Bytes>, usize) = (Vec::new(), 0);
    for blob in difference.blobs.iter().skip(*next) {
        if size + blob.len() > MAX_PART && size > 0 {
            break;
        }
        size += blob.len();
        blobs.push(blob.clone());
    }
    *next += blobs.len();
    link::Rules {
        manifest: None,
        blobs,
        commit: *next == difference.blobs.len(),
        change: first,
    }
}

impl Stream for Messages {
    type Item = link::Rules;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<link::Rules>> {
        loop {
            // A newer set replaces parts of an older one that were not sent yet: a set counts from its commit on.
            match Pin::new(&mut self.offered).poll_next(context) {
                Poll::Ready(Some(offered)) => self.take(&offered),
                Poll::Ready(None) => return Poll::Ready(self.part()),
                Poll::Pending => {
                    return match self.part() {
                        Some(part) => Poll::Ready(Some(part)),
                        None => Poll::Pending,
                    };
                }
            }
        }
    }
}

impl Drop for Messages {
    fn drop(&mut self) {
        self.shared.gone(&self.to.sensor, self.connection);
    }
}
