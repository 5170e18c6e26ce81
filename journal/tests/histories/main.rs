//! Random histories on the simulated disk against a model.
//!
//! Each history appends, reads, moves cursors, fills the disk, makes operations fail, kills the process and cuts the
//! power, also in the middle of an operation, and compares everything with a model that knows only what was answered.
//! `CRESSET_HISTORIES=N` runs N of them; `CRESSET_HISTORY=SEED` runs one again and tells its story.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[path = "../support/mod.rs"]
mod support;

mod acts;
mod checks;
mod faults;
mod history;
mod told;

use history::History;
use told::Told;

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|v| v.parse().ok())
}

/// Histories that once found a fault of the journal.
const FOUND: [u64; 1] = [
    // Two files removed, the first not durably: after a loss of power only the second was gone.
    293_262,
];

#[test]
fn no_history_that_found_a_fault_finds_it_again() {
    for seed in FOUND {
        History::new(seed, false).run();
    }
}

#[test]
fn no_history_loses_what_was_acknowledged() {
    if let Some(seed) = variable("CRESSET_HISTORY") {
        History::new(seed, true).run();
        return;
    }
    let count = variable("CRESSET_HISTORIES").unwrap_or(10_000);
    let first = variable("CRESSET_SEED").unwrap_or(1);
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let told: Vec<_> = (0..threads)
        .map(|n| {
            std::thread::spawn(move || {
                let mut told = Told::default();
                for seed in (first..first + count).filter(|seed| seed % threads == n) {
                    let run = std::panic::catch_unwind(|| History::new(seed, false).run());
                    match run {
                        Ok(one) => told += one,
                        Err(_) => panic!("run it again with CRESSET_HISTORY={seed}"),
                    }
                }
                told
            })
        })
        .collect();
    let told = told
        .into_iter()
        .map(|t| t.join().unwrap())
        .fold(Told::default(), |mut a, b| {
            a += b;
            a
        });
    println!("{count} histories from seed {first}: {told:?}");
    // A suite that never came to the interesting places proves nothing.
    if count >= 1_000 {
        let Told {
            acknowledged,
            full,
            failed,
            crashes,
            power,
            torn,
            expired,
            moves,
            suspects,
            sealed,
            packed,
            unpacked,
        } = told;
        for (what, n) in [
            ("acknowledged", acknowledged / 10),
            ("full", full),
            ("failed", failed),
            ("crashes", crashes),
            ("power losses", power),
            ("torn groups", torn),
            ("expired", expired),
            ("cursor moves", moves),
            ("suspect segments", suspects),
            ("sealed segments", sealed),
            ("compressed segments", packed),
            ("failures to compress", unpacked),
        ] {
            assert!(n >= count / 50, "only {n} {what} in {count} histories");
        }
    }
}
