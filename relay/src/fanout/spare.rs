//! Whether a CPU has nothing to do, as the kernel counts it (`/proc/stat`, proc(5)).
//!
//! It counts all CPUs of the machine: a relay that may use only some of them is told of spare ones more often than it has any.

use std::fs;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// From one look to the next: long enough that a pause between two batches does not count.
const EVERY: Duration = Duration::from_millis(500);
/// While nothing is known; the kernel counts in hundredths of a second.
const AT_FIRST: Duration = Duration::from_millis(100);
/// Looks further apart say nothing of this moment.
const STALE: Duration = Duration::from_secs(2);
/// There is none to spare where all of them do nothing for less than that share of their time.
const SHARE: f64 = 0.2;

/// Time of all CPUs since the machine's start, in ticks.
#[derive(Clone, Copy, Default)]
struct Ticks {
    idle: u64,
    all: u64,
}

pub(super) struct Spare {
    count: fn() -> Option<Ticks>,
    seen: Mutex<Seen>,
}

struct Seen {
    at: Instant,
    ticks: Ticks,
    /// None: it is not known yet.
    any: Option<bool>,
}

impl Default for Spare {
    fn default() -> Self {
        Spare::new(|| ticks(&fs::read_to_string("/proc/stat").ok()?))
    }
}

impl Spare {
    fn new(count: fn() -> Option<Ticks>) -> Self {
        Spare {
            count,
            seen: Mutex::new(Seen {
                at: Instant::now(),
                ticks: count().unwrap_or_default(),
                any: None,
            }),
        }
    }

    /// Was there any during the last moments? Where the kernel does not say there was, and where nobody has looked for long the
    /// caller's guess holds until somebody has looked twice.
    pub(super) fn any(&self, guess: bool) -> bool {
        // What the lock guards is whole between any two statements.
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let age = seen.at.elapsed();
        let every = seen.any.map_or(AT_FIRST, |_| EVERY);
        if age >= every {
            let any = match (self.count)() {
                Some(now) => {
                    let before = std::mem::replace(&mut seen.ticks, now);
                    (age <= STALE).then(|| is_spare(before, now))
                }
                None => Some(true),
            };
            (seen.at, seen.any) = (Instant::now(), any);
        }
        seen.any.unwrap_or(guess)
    }

    /// As if there were always some, or never.
    #[cfg(test)]
    pub(super) fn always(any: bool) -> Self {
        let spare = Spare::new(|| None);
        {
            let mut seen = spare.seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.any = Some(any);
            seen.at += Duration::from_secs(3600);
        }
        spare
    }

    /// As if so much time had passed.
    #[cfg(test)]
    fn pass(&self, time: Duration) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.at -= time;
    }
}

fn is_spare(before: Ticks, now: Ticks) -> bool {
    let all = now.all.saturating_sub(before.all);
    // A few ticks: the loss of precision is far below the share.
    now.idle.saturating_sub(before.idle) as f64 >= SHARE * all as f64
}

/// The line of all CPUs: user, nice, system, idle, iowait, irq, softirq, steal, and guests, which are in user and nice already.
fn ticks(stat: &str) -> Option<Ticks> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let fields: Vec<u64> = line
        .split_whitespace()
        .take(8)
        .map(|field| field.parse().ok())
        .collect::<Option<_>>()?;
    let [_, _, _, idle, waiting, ..] = fields[..] else {
        return None;
    };
    Some(Ticks {
        idle: idle + waiting,
        all: fields.iter().sum(),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn the_kernels_count_is_read() {
        let stat = "cpu  10 1 5 100 20 1 2 3 9 9\ncpu0 1 2 3 4 5 6 7 8 0 0\nintr 5\n";
        let ticks = ticks(stat).map(|ticks| (ticks.idle, ticks.all));
        assert_eq!(ticks, Some((120, 142)));
        for odd in ["", "cpu 1 2 3", "cpu0 1 2 3 4 5 6 7 8", "cpu  a b c d e"] {
            assert!(super::ticks(odd).is_none(), "{odd}");
        }
    }

    #[test]
    fn a_fifth_of_the_time_is_to_spare() {
        let at = |idle, all| Ticks { idle, all };
        assert!(is_spare(at(5, 100), at(13, 140)));
        assert!(!is_spare(at(5, 100), at(12, 140)));
        assert!(is_spare(at(5, 100), at(5, 100)), "no time has passed");
    }

    #[test]
    fn the_guess_holds_where_looks_are_far_apart() {
        static TICKS: AtomicU64 = AtomicU64::new(0);
        // No time of any CPU is idle.
        let spare = Spare::new(|| {
            Some(Ticks {
                idle: 0,
                all: TICKS.fetch_add(40, Ordering::Relaxed),
            })
        });
        let any = || (spare.any(true), spare.any(false));
        assert_eq!(any(), (true, false), "once");
        spare.pass(AT_FIRST);
        assert_eq!(any(), (false, false), "twice");
        spare.pass(2 * STALE);
        assert_eq!(any(), (true, false), "once, and long before");
        spare.pass(AT_FIRST);
        assert_eq!(any(), (false, false));
    }

    #[test]
    fn where_the_kernel_does_not_say_there_is_some() {
        let spare = Spare::new(|| None);
        spare.pass(EVERY);
        assert!(spare.any(false));
    }
}
