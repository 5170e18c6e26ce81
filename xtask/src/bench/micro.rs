//! `cargo xtask bench micro`: instructions an event, counted by callgrind.
//!
//! Each loop of `cresset-count` runs for N and for 2N events; the difference belongs to N events, whatever starting
//! the program costs. Instructions are the same on a busy machine, so a test can hold code to them: `--check` fails when
//! one grew by more than a tenth against `bench/baseline.json`, and `--update` writes that file, in the commit that says why.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::args::{MicroArgs, MicroCase};
use crate::workspace;

/// Events of the shorter run.
const EVENTS: u64 = 10_000;
/// A count may be this much above the baseline's.
const GROWTH: f64 = 1.10;

/// Counts to compare with, and what they were made with.
#[derive(Serialize, Deserialize)]
struct Baseline {
    rustc: String,
    valgrind: String,
    instructions_per_event: BTreeMap<String, u64>,
}

/// Why it cannot run here, if it cannot.
pub(crate) fn missing() -> Option<String> {
    (!workspace::on_path("valgrind")).then(|| "valgrind is not installed".to_owned())
}

pub(crate) fn run(args: &MicroArgs) -> Result<()> {
    if let Some(missing) = missing() {
        bail!("{missing}");
    }
    let program = super::measured("cresset-count", "count")?;
    let folder = workspace::target().join(format!("micro-{}", std::process::id()));
    let counted = count(&program, &folder, &args.cases());
    let _ = fs::remove_dir_all(&folder);
    let counted = counted?;
    let before = read_baseline()?;
    print(&counted, before.as_ref());
    if args.update {
        return update(before, counted);
    }
    if args.check {
        check(&counted, before.as_ref())
    } else {
        Ok(())
    }
}

/// Instructions an event of each case.
fn count(program: &Path, folder: &Path, cases: &[MicroCase]) -> Result<BTreeMap<String, u64>> {
    let mut counted = BTreeMap::new();
    for case in cases {
        let case = case.to_string();
        let once = callgrind(program, folder, &case, EVENTS)?;
        let twice = callgrind(program, folder, &case, 2 * EVENTS)?;
        ensure!(twice > once, "{case}: {once} instructions, then {twice}");
        counted.insert(case, (twice - once) / EVENTS);
    }
    Ok(counted)
}

/// All instructions of one run.
fn callgrind(program: &Path, folder: &Path, case: &str, events: u64) -> Result<u64> {
    let _ = fs::remove_dir_all(folder);
    let files = folder.join("files");
    fs::create_dir_all(&files)?;
    let out = folder.join("callgrind.out");
    let ran = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(program)
        .args([case, &events.to_string()])
        .arg(&files)
        .output()
        .context("cannot start valgrind")?;
    ensure!(
        ran.status.success(),
        "{case} under callgrind ended with {}:\n{}",
        ran.status,
        String::from_utf8_lossy(&ran.stderr)
    );
    let text = fs::read_to_string(&out).with_context(|| out.display().to_string())?;
    let total = text.lines().find_map(|line| line.strip_prefix("totals: "));
    let total = total.and_then(|total| total.trim().parse().ok());
    total.with_context(|| format!("callgrind counted nothing for {case}"))
}

fn path() -> PathBuf {
    workspace::root().join("bench/baseline.json")
}

fn read_baseline() -> Result<Option<Baseline>> {
    match fs::read(path()) {
        Ok(bytes) => Ok(Some(
            serde_json::from_slice(&bytes).context("bench/baseline.json")?,
        )),
        Err(why) if why.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(why) => Err(why).context("bench/baseline.json"),
    }
}

fn print(counted: &BTreeMap<String, u64>, before: Option<&Baseline>) {
    println!("instructions an event");
    for (case, now) in counted {
        match base(case, before) {
            Some(base) => {
                let change = 100.0 * (*now as f64 / base as f64 - 1.0);
                println!("{case:<16} {now:>7}  {change:+.1} %");
            }
            None => println!("{case:<16} {now:>7}  new"),
        }
    }
}

fn base(case: &str, before: Option<&Baseline>) -> Option<u64> {
    before?.instructions_per_event.get(case).copied()
}

/// What is wrong with the counts.
fn problems(counted: &BTreeMap<String, u64>, before: Option<&Baseline>) -> Vec<String> {
    let problem = |(case, now): (&String, &u64)| match base(case, before) {
        None => Some(format!("{case} is not in bench/baseline.json")),
        Some(base) if *now as f64 > base as f64 * GROWTH => Some(format!(
            "{case} grew from {base} to {now} instructions an event"
        )),
        Some(_) => None,
    };
    counted.iter().filter_map(problem).collect()
}

fn check(counted: &BTreeMap<String, u64>, before: Option<&Baseline>) -> Result<()> {
    let problems = problems(counted, before);
    if problems.is_empty() {
        return Ok(());
    }
    let made = before.map_or_else(String::new, |before| {
        format!(
            "; the baseline was made with {} and {}",
            before.rustc, before.valgrind
        )
    });
    bail!(
        "{}{made}; if it is meant, `cargo xtask bench micro --update` in the same commit",
        problems.join("; ")
    )
}

/// Cases that were not counted keep what they had.
fn update(before: Option<Baseline>, counted: BTreeMap<String, u64>) -> Result<()> {
    let mut all = before.map_or_else(BTreeMap::new, |before| before.instructions_per_event);
    all.extend(counted);
    let version = |program: &str| {
        let text = workspace::output(Command::new(program).arg("--version"))?;
        Ok::<_, anyhow::Error>(text.trim().to_owned())
    };
    let baseline = Baseline {
        rustc: version("rustc")?,
        valgrind: version("valgrind")?,
        instructions_per_event: all,
    };
    let path = path();
    fs::create_dir_all(path.parent().context("no folder")?)?;
    let text = serde_json::to_string_pretty(&baseline)? + "\n";
    fs::write(&path, text).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(of: &[(&str, u64)]) -> BTreeMap<String, u64> {
        of.iter()
            .map(|(case, count)| ((*case).to_owned(), *count))
            .collect()
    }

    #[test]
    fn more_than_a_tenth_above_the_baseline_is_a_problem_and_so_is_a_case_without_one() {
        let before = Baseline {
            rustc: String::new(),
            valgrind: String::new(),
            instructions_per_event: counts(&[("check", 1000), ("text", 1000)]),
        };
        let found = |now: &[(&str, u64)]| problems(&counts(now), Some(&before)).len();
        assert_eq!(found(&[("check", 1100), ("text", 10)]), 0);
        assert_eq!(found(&[("check", 1101)]), 1);
        assert_eq!(found(&[("json", 5)]), 1);
        assert_eq!(problems(&counts(&[("check", 5)]), None).len(), 1);
    }
}
