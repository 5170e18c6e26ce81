//! Whether the journal takes new events: told once when it stops, and once when it goes on.
//!
//! ```text
//!           refused: logged, counted                 something was taken, and nothing refused for CALM
//! takes ───────────────────────────────▶ refuses ──────────────────────────────────────────────────────▶ takes
//!                                           │  ▲                                            logged, told as an event
//!                                           └──┘ refused again; nobody tried for CALM: the relay tries itself
//! ```
//! At a size bound a small batch still fits where a large one was refused, and senders come back every few seconds; the
//! calm keeps that from being told as a hundred outages. What the relay tries with is the message that it is over, so
//! trying costs nothing but that, and readiness comes back although no sensor has anything to say.
//!
//! A disk that answers nothing at all is refused in all but name, and a disk that nobody writes to may have died unseen:
//! both are found within ten seconds.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use journal::AppendError;
use prost::Message as _;
use proto::Kind;

use crate::ingest::Importer;
use crate::log::unix_nanoseconds;
use crate::losses::Origin;

/// Longer than a sensor that was asked to wait stays away.
const CALM: Duration = Duration::from_secs(5);

/// A write that has not come back for so long is taken not to.
const PATIENCE: Duration = Duration::from_secs(5);

/// After so long without a write the relay tries one itself.
const PROBE: Duration = Duration::from_secs(4);

/// What it writes then: more than a file system keeps in the file's own entry.
const PROBE_BYTES: usize = 16 << 10;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);

/// What is known of it; a cheap handle.
#[derive(Debug, Clone, Default)]
pub struct Standing {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    refusing: Option<Refusing>,
    /// Times that it stopped taking events.
    times: u64,
    /// Writes that have not come back.
    under_way: usize,
    /// When one last came back, or the first of those under way began.
    progress: Option<Instant>,
    /// It was told that none comes back.
    stuck: bool,
}

impl State {
    /// For how long no write has come back although one is under way, if that is too long.
    fn stuck(&self, now: Instant) -> Option<Duration> {
        let since = self.progress.filter(|_| self.under_way > 0)?;
        let waited = now.saturating_duration_since(since);
        (waited >= PATIENCE).then_some(waited)
    }
}

/// A write that has not come back.
#[derive(Debug)]
pub(crate) struct UnderWay(Standing);

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.under_way -= 1;
        state.progress = Some(Instant::now());
    }
}

#[derive(Debug)]
struct Refusing {
    why: String,
    since: Instant,
    last: Instant,
    /// Something was taken after the last refusal.
    taken: bool,
}

/// What there is to do.
#[derive(Debug, PartialEq, Eq)]
enum Turn {
    Nothing,
    /// Nobody has tried for a while.
    Try,
    /// It takes events again, after so long.
    Over(String, Duration),
}

impl Standing {
    /// Why new events are refused; none while they are taken.
    #[must_use]
    pub fn refusing(&self) -> Option<String> {
        let state = self.lock();
        let refused = state.refusing.as_ref().map(|refusing| refusing.why.clone());
        refused.or_else(|| state.stuck(Instant::now()).map(no_answer))
    }

    /// A write begins; it ends when the answer is dropped.
    pub(crate) fn begin(&self) -> UnderWay {
        let mut state = self.lock();
        if state.under_way == 0 {
            state.progress = Some(Instant::now());
        }
        state.under_way += 1;
        drop(state);
        UnderWay(self.clone())
    }

    /// How often it stopped taking events since the start.
    #[must_use]
    pub fn times(&self) -> u64 {
        self.lock().times
    }

    /// Notes what became of an append.
    pub(crate) fn note<T>(&self, outcome: &Result<T, AppendError>) {
        match outcome {
            Ok(_) => self.took(),
            Err(why @ (AppendError::Full { .. } | AppendError::Failed { .. })) => {
                self.refused(why.to_string(), Instant::now());
            }
            // The relay stops, or these events alone do not fit.
            Err(AppendError::Closed | AppendError::TooLarge { .. }) => {}
        }
    }

    fn took(&self) {
        if let Some(refusing) = &mut self.lock().refusing {
            refusing.taken = true;
        }
    }

    fn refused(&self, why: String, now: Instant) {
        let mut state = self.lock();
        if let Some(refusing) = &mut state.refusing {
            (refusing.why, refusing.last, refusing.taken) = (why, now, false);
            return;
        }
        tracing::error!(
            why,
            "the journal takes no new events; senders keep them and try again"
        );
        state.times += 1;
        state.refusing = Some(Refusing {
            why,
            since: now,
            last: now,
            taken: false,
        });
    }

    fn turn(&self, now: Instant) -> Turn {
        let mut state = self.lock();
        match &state.refusing {
            Some(refusing) if now.saturating_duration_since(refusing.last) < CALM => Turn::Nothing,
            Some(refusing) if !refusing.taken => Turn::Try,
            _ => match state.refusing.take() {
                Some(refusing) => Turn::Over(refusing.why, now - refusing.since),
                None => Turn::Nothing,
            },
        }
    }

    /// Logs once that nothing comes back, and once that something does.
    fn look_for_stuck(&self, now: Instant) {
        let mut state = self.lock();
        let stuck = state.stuck(now);
        let was = std::mem::replace(&mut state.stuck, stuck.is_some());
        match stuck {
            Some(waited) if !was => {
                state.times += 1;
                tracing::error!(why = no_answer(waited), "the journal takes no new events");
            }
            None if was => tracing::info!("the disk answers again"),
            _ => {}
        }
    }

    /// Nobody has written for so long.
    fn is_idle(&self, now: Instant) -> bool {
        let state = self.lock();
        let quiet = |since: Instant| now.saturating_duration_since(since) >= PROBE;
        state.refusing.is_none() && state.under_way == 0 && state.progress.is_none_or(quiet)
    }

    /// While nobody writes events, finds out whether the disk would take some: readiness is not to depend on traffic.
    pub(crate) async fn probe(self, folder: Option<PathBuf>) {
        let Some(folder) = folder else {
            return;
        };
        loop {
            tokio::time::sleep(PROBE).await;
            if !self.is_idle(Instant::now()) {
                continue;
            }
            let (under_way, folder) = (self.begin(), folder.clone());
            let tried = tokio::task::spawn_blocking(move || {
                let _under_way = under_way;
                try_disk(&folder).map_err(|error| (folder, error))
            });
            if let Ok(Err((folder, error))) = tried.await {
                let why = format!("nothing can be written to {}: {error}", folder.display());
                self.refused(why, Instant::now());
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is a few assignments that cannot panic in between.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks on until the relay stops.
    pub(crate) async fn watch(self, importer: Importer, origin: Origin) {
        let mut over = false;
        loop {
            tokio::time::sleep(LOOK).await;
            self.look_for_stuck(Instant::now());
            match self.turn(Instant::now()) {
                Turn::Nothing => {}
                Turn::Try => over = say(&importer, &origin).await,
                Turn::Over(why, lasted) => {
                    tracing::info!(why, ?lasted, "the journal takes events again");
                    if !std::mem::take(&mut over) {
                        say(&importer, &origin).await;
                    }
                }
            }
        }
    }
}

fn no_answer(waited: Duration) -> String {
    format!(
        "the disk has not answered a write for {} s",
        waited.as_secs()
    )
}

/// Writes what needs room on the disk, and takes it away again. Blocks the thread.
fn try_disk(folder: &Path) -> io::Result<()> {
    let name = folder.join("probe.tmp");
    let tried = File::create(&name).and_then(|mut file| {
        file.write_all(&[0; PROBE_BYTES])?;
        file.sync_data()
    });
    // Whether it can be removed matters little: the next one replaces it.
    let _ = std::fs::remove_file(&name);
    tried
}

/// Tells as an event that it is over; true if the journal took it.
async fn say(importer: &Importer, origin: &Origin) -> bool {
    let text = "the relay's journal takes events again; what it refused meanwhile is sent again by those who keep it";
    let message = origin.message(unix_nanoseconds(), "INFO", text.to_owned());
    let payload = Bytes::from(message.encode_to_vec());
    importer
        .import(vec![(Kind::Message, payload)])
        .await
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(start: Instant, milliseconds: u64) -> Instant {
        start + Duration::from_millis(milliseconds)
    }

    #[test]
    fn an_outage_is_counted_once_and_ends_when_nothing_was_refused_for_a_while() {
        let (standing, start) = (Standing::default(), Instant::now());
        assert_eq!(
            (standing.turn(start), standing.refusing()),
            (Turn::Nothing, None)
        );
        standing.refused("full".to_owned(), start);
        standing.refused("full still".to_owned(), after(start, 2000));
        assert_eq!(standing.turn(after(start, 6900)), Turn::Nothing);
        assert_eq!(standing.turn(after(start, 7000)), Turn::Try);
        assert_eq!(standing.refusing().as_deref(), Some("full still"));
        standing.took();
        let over = Turn::Over("full still".to_owned(), Duration::from_secs(7));
        assert_eq!(standing.turn(after(start, 7000)), over);
        assert_eq!((standing.refusing(), standing.times()), (None, 1));
    }

    #[test]
    fn a_write_that_does_not_come_back_is_an_outage_until_one_does() {
        let standing = Standing::default();
        let first = standing.begin();
        let start = standing.lock().progress.unwrap();
        let stuck = |milliseconds| standing.lock().stuck(after(start, milliseconds));
        assert_eq!(stuck(4999), None);
        assert_eq!(stuck(5000), Some(PATIENCE));
        standing.look_for_stuck(after(start, 6000));
        standing.look_for_stuck(after(start, 7000));
        assert_eq!(standing.times(), 1);
        let second = standing.begin();
        assert!(
            stuck(5000).is_some(),
            "another one that waits is no progress"
        );
        drop(first);
        let now = standing.lock().progress.unwrap();
        assert_eq!(standing.lock().stuck(now), None);
        drop(second);
        assert_eq!(
            standing.lock().stuck(after(now, 60_000)),
            None,
            "nothing is under way"
        );
    }

    #[test]
    fn a_small_batch_that_is_taken_among_refused_ones_does_not_end_it() {
        let (standing, start) = (Standing::default(), Instant::now());
        for second in 0..20 {
            let now = after(start, 1000 * second);
            standing.took();
            assert_eq!(standing.turn(now), Turn::Nothing, "after {second} s");
            standing.refused("full".to_owned(), now);
        }
        assert_eq!(standing.times(), 1);
    }
}
