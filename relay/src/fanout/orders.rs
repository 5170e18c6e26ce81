//! What an administrator tells a sink's task. The task obeys between two of its own steps, so nothing is moved under its feet.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use exporters::{Batch, Carried, Outcome, Trial, Unavailable};
use futures::FutureExt as _;
use tokio::sync::{mpsc, oneshot};

use super::flight::Runway;

/// An order.
pub(super) enum Order {
    /// Whether the sink is paused has changed: look again.
    Look,
    /// Go back to what was kept then (unix nanoseconds) or later.
    Rewind {
        since: u64,
        done: oneshot::Sender<Result<Moved, String>>,
    },
    /// Leave out what was kept before then (unix nanoseconds); none: all that is there.
    Skip {
        until: Option<u64>,
        done: oneshot::Sender<Result<Moved, String>>,
    },
    /// Send something that does not come from the cursor.
    Errand(Errand),
}

/// Orders that wait for a task.
const WAITING: usize = 16;

/// Where a task's orders come out.
pub(super) struct Orders(mpsc::Receiver<Order>);

/// A way in for orders, and where they come out.
pub(super) fn orders() -> (mpsc::Sender<Order>, Orders) {
    let (give, given) = mpsc::channel(WAITING);
    (give, Orders(given))
}

impl Orders {
    /// The next order; waits for ever where nobody is left to give one. Dropping this future loses nothing.
    pub(super) async fn next(&mut self) -> Order {
        match self.0.recv().await {
            Some(order) => order,
            None => std::future::pending().await,
        }
    }
}

/// From which event to which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moved {
    pub(super) from: u64,
    pub(super) to: u64,
}

/// It takes one of the sink's flights; what the cursor has to send waits its turn.
pub(super) enum Errand {
    /// Dead letters.
    Send {
        events: Vec<Carried>,
        done: oneshot::Sender<Result<Vec<Outcome>, Unavailable>>,
    },
    /// A marked event.
    Test { event: Carried, trial: Trial },
}

impl Errand {
    pub(super) async fn run(self, runway: Runway) {
        match self {
            // Whoever asked has given up.
            Errand::Send { done, .. } if done.is_closed() => {}
            Errand::Send { events, done } => {
                let answer = runway.send(&Arc::new(Batch::new(events))).await;
                // It stays a dead letter if nobody hears that it went: at least once.
                let _ = done.send(answer);
            }
            Errand::Test { event, trial } => {
                let test = AssertUnwindSafe(runway.sink.test(event, &trial));
                // Each step was told, and a panic is in the log.
                let _ = test.catch_unwind().await;
            }
        }
    }
}
