//! A destination that can only block gets a thread of its own.
//!
//! ```text
//! send() ─ job ─▶ thread: encode, write, sync ─ outcomes ─▶ send() returns
//! ```
//!
//! A pipe whose reader stopped reading blocks its writer for as long as it likes. On the runtime that would stop others, and
//! in the runtime's pool of blocking threads it would hold up the end of the program. The thread here belongs to one sink;
//! when the sink is dropped the thread ends by itself after its present write, and the program does not wait for it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::{Batch, Outcome, Unavailable};

/// What the thread does.
pub(crate) trait Destination: Send + 'static {
    /// Writes a batch; may block.
    fn deliver(&mut self, batch: &Batch) -> Result<Vec<Outcome>, Unavailable>;
    /// As [`Sink::reopen`](crate::Sink::reopen).
    fn reopen(&mut self) {}
    /// How long it may wait for a batch before [`idle`](Destination::idle) is called; none: as long as it takes.
    fn rest(&self) -> Option<Duration> {
        None
    }
    /// No batch came for so long.
    fn idle(&mut self) {}
}

type Answer = Result<Vec<Outcome>, Unavailable>;

struct Job {
    batch: Arc<Batch>,
    answer: oneshot::Sender<Answer>,
}

/// The handle of the thread.
pub(crate) struct OwnThread {
    jobs: SyncSender<Job>,
    reopen: Arc<AtomicBool>,
}

impl OwnThread {
    pub(crate) fn start(name: &str, destination: impl Destination) -> io::Result<Self> {
        // One waits while one is written: never more, as a sink of this sort gets one batch at a time.
        let (jobs, queue) = sync_channel(1);
        let reopen = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&reopen);
        // The kernel keeps 15 bytes of a thread's name.
        thread::Builder::new()
            .name(format!("sink {name}"))
            .spawn(move || serve(destination, &queue, &asked))?;
        Ok(OwnThread { jobs, reopen })
    }

    pub(crate) async fn deliver(&self, batch: Arc<Batch>) -> Answer {
        let (answer, answered) = oneshot::channel();
        self.jobs
            .try_send(Job { batch, answer })
            .map_err(|e| match e {
                TrySendError::Full(_) => {
                    Unavailable::new("the destination has not taken an earlier batch yet")
                }
                TrySendError::Disconnected(_) => gone(),
            })?;
        answered.await.unwrap_or_else(|_| Err(gone()))
    }

    pub(crate) fn reopen(&self) {
        self.reopen.store(true, Ordering::Relaxed);
    }
}

fn gone() -> Unavailable {
    Unavailable::new("the sink's thread has died; restart the relay and report its last log lines")
}

fn serve(mut destination: impl Destination, queue: &Receiver<Job>, reopen: &AtomicBool) {
    loop {
        let job = match destination.rest() {
            Some(rest) => queue.recv_timeout(rest),
            None => queue.recv().map_err(RecvTimeoutError::from),
        };
        let Job { batch, answer } = match job {
            Ok(job) => job,
            Err(RecvTimeoutError::Timeout) => {
                destination.idle();
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return,
        };
        if reopen.swap(false, Ordering::Relaxed) {
            destination.reopen();
        }
        // Nobody waits when the fan-out gave up at the end of its drain.
        let _ = answer.send(destination.deliver(&batch));
    }
}
