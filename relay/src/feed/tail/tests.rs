use std::sync::mpsc as threads;

use futures::future::{BoxFuture, FutureExt as _};
use journal::ReadError;

use super::*;
use crate::log::Reader;

/// Patience of every wait.
const LONG: Duration = Duration::from_secs(60);

/// A log of which nothing is at hand: a read of it waits until it is let go.
struct Slow {
    committed: watch::Sender<Seq>,
    asked: threads::Sender<()>,
    let_go: Arc<Mutex<threads::Receiver<()>>>,
}

impl View for Slow {
    fn first(&self) -> Seq {
        Seq(1)
    }

    fn committed(&self) -> Seq {
        *self.committed.borrow()
    }

    fn subscribe(&self) -> watch::Receiver<Seq> {
        self.committed.subscribe()
    }

    fn reader(&self, from: Seq) -> Box<dyn Reader> {
        Box::new(Reading {
            next: from,
            asked: self.asked.clone(),
            let_go: Arc::clone(&self.let_go),
        })
    }

    fn seek_time(&self, _: u64) -> Result<Seq, ReadError> {
        Ok(Seq(1))
    }
}

struct Reading {
    next: Seq,
    asked: threads::Sender<()>,
    let_go: Arc<Mutex<threads::Receiver<()>>>,
}

impl Reader for Reading {
    fn position(&self) -> Seq {
        self.next
    }

    fn next(&mut self, _: usize) -> Result<Block, ReadError> {
        self.asked.send(()).unwrap();
        self.let_go.lock().unwrap().recv_timeout(LONG).unwrap();
        self.next = self.next.next();
        Ok(Block {
            next: self.next,
            ..Block::default()
        })
    }

    fn at_hand(&mut self, _: usize) -> Option<Result<Block, ReadError>> {
        None
    }

    fn wait(&mut self) -> BoxFuture<'_, bool> {
        std::future::ready(true).boxed()
    }
}

/// On the one thread of this runtime, which would be the one that waits.
#[tokio::test]
async fn a_read_that_waits_for_somebody_holds_up_no_thread_that_serves_others() {
    let (asked, mut was_asked) = threads::channel();
    let (release, let_go) = threads::channel();
    let log = Slow {
        committed: watch::Sender::new(Seq(0)),
        asked,
        let_go: Arc::new(Mutex::new(let_go)),
    };
    let tail = Tail::start(log, Config::default(), &Registry::default()).unwrap();
    let before = tail.join(Lane::Records).pump;
    let mut end = tail.end(Lane::Records);
    // Both are let go by a task of this runtime, once the pump reads.
    for _ in 0..2 {
        let waiting =
            tokio::task::spawn_blocking(move || (was_asked.recv_timeout(LONG), was_asked));
        let (asked, back) = waiting.await.unwrap();
        asked.expect("the pump reads");
        release.send(()).unwrap();
        end.changed().await.unwrap();
        was_asked = back;
    }
    assert_eq!(tail.fresh().0, Seq(before.0 + 2));
    tail.stop();
    // Whoever is still in there.
    let _ = release.send(());
}
