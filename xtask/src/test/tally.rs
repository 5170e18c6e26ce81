//! What passed, failed and was skipped, and how long it took: the summary at the end.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::pool::Ended;
use crate::skips::Skip;

#[derive(Default)]
pub(crate) struct Tally {
    passed: u64,
    failed: u64,
    suites: Vec<String>,
    /// The programs to run again, as cargo knows them.
    failing: Vec<String>,
    skips: Vec<Skip>,
}

impl Tally {
    /// Runs a part under a heading. It is a failure if it ends with an error, or counts one.
    pub(crate) fn step<T>(
        &mut self,
        name: &str,
        run: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Option<T> {
        println!("\n=== {name}");
        let (begun, before) = (Instant::now(), self.failed);
        let done = run(self).map_err(|error| self.wrong(&error)).ok();
        self.took(name, self.failed == before, begun.elapsed());
        done
    }

    /// Prints what a program of tests said, and adds up its `test result:` lines.
    pub(crate) fn program(&mut self, ended: &Ended) {
        let seconds = ended.took.as_secs_f32();
        println!("\n--- {}: {seconds:.1} s\n{}", ended.name, ended.said);
        let mut failed = 0;
        let lines = ended.said.lines();
        for counts in lines.filter_map(|line| line.strip_prefix("test result: ")) {
            self.passed += count(counts, "passed");
            failed += count(counts, "failed");
        }
        if !ended.status.success() {
            println!("{} ended with {}", ended.name, ended.status);
            self.failed += failed.max(1);
            self.failing.push(ended.name.clone());
        }
    }

    /// The same for a step that ran beside the tests, and is one test.
    pub(crate) fn beside(&mut self, ended: &Ended) {
        println!("\n=== {}\n{}", ended.name, ended.said);
        let ok = ended.status.success();
        self.took(&ended.name, ok, ended.took);
        self.passed += u64::from(ok);
        self.failed += u64::from(!ok);
    }

    pub(crate) fn pass(&mut self) {
        self.passed += 1;
    }

    pub(crate) fn wrong(&mut self, error: &anyhow::Error) {
        self.failed += 1;
        eprintln!("{error:#}");
    }

    pub(crate) fn skips(&mut self, skips: impl IntoIterator<Item = Skip>) {
        self.skips.extend(skips);
    }

    fn took(&mut self, name: &str, ok: bool, time: Duration) {
        let verdict = if ok { "ok" } else { "FAILED" };
        let seconds = time.as_secs_f32();
        self.suites
            .push(format!("{verdict:>7}  {seconds:>6.1}s  {name}"));
    }

    /// The summary. An error if something failed; `strict`: or was skipped that this machine can do.
    pub(crate) fn report(&self, strict: bool) -> Result<()> {
        println!("\n=== summary");
        for suite in &self.suites {
            println!("{suite}");
        }
        let mut failed = self.failed;
        for skip in &self.skips {
            let wrong = strict && skip.is_avoidable();
            failed += u64::from(wrong);
            let verdict = if wrong {
                " — FAILED: this machine can run it"
            } else {
                ""
            };
            println!("{skip}{verdict}");
        }
        for name in &self.failing {
            println!("FAILED  cargo test -p {name}");
        }
        let (passed, skipped) = (self.passed, self.skips.len());
        println!("{passed} passed, {failed} failed, {skipped} skipped");
        if failed > 0 {
            bail!("{failed} failed");
        }
        Ok(())
    }
}

/// A number out of `ok. 3 passed; 0 failed; …`.
fn count(counts: &str, word: &str) -> u64 {
    let mut parts = counts.split([';', '.']);
    parts
        .find_map(|part| part.trim().strip_suffix(word)?.trim().parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::ExitStatus;

    use super::*;

    fn ended(said: &str, code: i32) -> Ended {
        Ended {
            name: "relay --test link".to_owned(),
            status: ExitStatus::from_raw(code << 8),
            took: Duration::ZERO,
            said: said.to_owned(),
        }
    }

    #[test]
    fn every_result_counts_and_so_does_a_program_that_ends_before_it_tells_one() {
        let mut tally = Tally::default();
        let two = "test result: ok. 3 passed; 0 failed; 0 ignored\n\
                   test result: FAILED. 4 passed; 2 failed; 0 ignored\n";
        tally.program(&ended(two, 101));
        assert_eq!((tally.passed, tally.failed), (7, 2));
        tally.program(&ended("running 5 tests\n", 134));
        assert_eq!((tally.passed, tally.failed), (7, 3));
        tally.program(&ended("test result: ok. 1 passed; 0 failed\n", 0));
        assert_eq!((tally.passed, tally.failed), (8, 3));
        assert_eq!(tally.failing.len(), 2);
        assert!(tally.report(false).is_err());
    }
}
