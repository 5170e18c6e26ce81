//! On what, of what and beside what was measured.

use std::fs;
use std::process::Command;

use anyhow::Result;
use serde_json::{Value, json};

use crate::disk;
use crate::scene::Bench;

pub(crate) struct Header {
    pub(crate) text: String,
    pub(crate) json: Value,
}

pub(crate) fn read(bench: &Bench) -> Result<Header> {
    std::fs::create_dir_all(&bench.folder)?;
    let sync = disk::sync_times(&bench.folder)?;
    let (p50, p99) = (sync.ms(0.5), sync.ms(0.99));
    let (kernel, load) = (
        first_line("/proc/sys/kernel/osrelease"),
        first_line("/proc/loadavg"),
    );
    let load: Vec<&str> = load.split(' ').take(3).collect();
    let load = load.join(" ");
    let cores = std::thread::available_parallelism()?.get();
    let (model, memory) = (cpu_model(), memory_gib());
    let commit = commit();
    let date = date();
    let text = format!(
        "commit {commit}, {date}; {cores} × {model}, {memory:.0} GiB, Linux {kernel}; load average before {load}; \
         fdatasync of 16 KiB p50 {p50:.2} ms, p99 {p99:.2} ms; load and relay share the machine\n"
    );
    let json = json!({
        "commit": commit, "date": date, "cores": cores, "cpu": model, "memory_gib": memory, "kernel": kernel,
        "load_average": load, "fdatasync_p50_ms": p50, "fdatasync_p99_ms": p99, "seconds": bench.seconds,
    });
    Ok(Header { text, json })
}

fn first_line(path: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().next().unwrap_or("unknown").to_owned()
}

fn cpu_model() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    let model = model.and_then(|rest| rest.split_once(": "));
    model.map_or("unknown CPU", |(_, model)| model).to_owned()
}

fn memory_gib() -> f64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = total.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<f64>().ok());
    kib.unwrap_or(f64::NAN) / f64::from(1 << 20)
}

/// The checkout's commit, with a `+` when files differ from it.
fn commit() -> String {
    let git = |args: &[&str]| {
        let out = Command::new("git").args(args).output().ok()?;
        let text = String::from_utf8(out.stdout).ok()?;
        out.status.success().then(|| text.trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short", "HEAD"]) else {
        return "unknown".to_owned();
    };
    let clean =
        git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|text| text.is_empty());
    if clean { commit } else { commit + "+" }
}

fn date() -> String {
    let mut text = proto::updated_time(crate::events::unix_ns());
    text.truncate("2026-01-01".len());
    text
}
