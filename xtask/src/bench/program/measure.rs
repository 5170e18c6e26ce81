//! What the kernel says of processes and of the machine, and how long things took.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

/// Buckets of one power of two: a recorded time is at most 1/64 off.
const PARTS: usize = 64;
/// Powers of two of a nanosecond, up to some 18 minutes.
const POWERS: usize = 34;

/// How often something took how long.
#[derive(Clone)]
pub(crate) struct Times {
    counts: Vec<u64>,
    total: u64,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            counts: vec![0; PARTS * (POWERS + 1)],
            total: 0,
        }
    }
}

impl Times {
    /// `count` events took so long.
    pub(crate) fn add(&mut self, took: Duration, count: u64) {
        self.counts[bucket(took.as_nanos() as u64)] += count;
        self.total += count;
    }

    /// What this share of the events stayed below, in milliseconds; NaN of none.
    pub(crate) fn ms(&self, share: f64) -> f64 {
        let wanted = (self.total as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if *count > 0 && seen >= wanted {
                return upper(bucket) as f64 / 1e6;
            }
        }
        f64::NAN
    }
}

/// Below 64 ns each nanosecond has its bucket, above it the six bits after the first one count.
fn bucket(ns: u64) -> usize {
    let power = (ns.max(1).ilog2() as usize).saturating_sub(6);
    let bucket = power * PARTS + (ns >> power) as usize;
    bucket.min(PARTS * (POWERS + 1) - 1)
}

/// The first nanosecond that is not in the bucket any more.
fn upper(bucket: usize) -> u64 {
    let power = (bucket / PARTS).saturating_sub(1);
    ((bucket - power * PARTS) as u64 + 1) << power
}

/// CPU time of a process so far, user and system.
pub(crate) fn cpu(pid: u32) -> Result<Duration> {
    of_stat(Path::new(&format!("/proc/{pid}/stat")))
}

fn of_stat(path: &Path) -> Result<Duration> {
    let told = || path.display().to_string();
    let stat = fs::read_to_string(path).with_context(told)?;
    // Fields 14 and 15; the name, which may hold anything, is field 2.
    let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
    let fields: Vec<&str> = after.split_whitespace().collect();
    let ticks = |at: usize| {
        fields
            .get(at - 3)
            .and_then(|field| field.parse::<u64>().ok())
    };
    let (user, system) = ticks(14).zip(ticks(15)).with_context(told)?;
    Ok(from_ticks(user + system))
}

/// CPU time that those threads of this process took whose names begin so. Threads that have ended do not count.
pub(crate) fn cpu_of_threads(prefix: &str) -> Result<Duration> {
    let mut sum = Duration::ZERO;
    for thread in fs::read_dir("/proc/self/task")? {
        let folder = thread?.path();
        let name = fs::read_to_string(folder.join("comm")).unwrap_or_default();
        if name.starts_with(prefix) {
            sum += of_stat(&folder.join("stat"))?;
        }
    }
    Ok(sum)
}

/// CPU time that all processes took together and, in a virtual machine, what its host took away.
pub(crate) fn machine_cpu() -> Result<(Duration, Duration)> {
    let stat = fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().context("/proc/stat is empty")?;
    let ticks: Vec<u64> = line
        .split_whitespace()
        .filter_map(|field| field.parse().ok())
        .collect();
    // user nice system idle iowait irq softirq steal
    let [user, nice, system, _, _, irq, softirq, steal, ..] = ticks[..] else {
        anyhow::bail!("/proc/stat begins with `{line}`");
    };
    let busy = user + nice + system + irq + softirq;
    Ok((from_ticks(busy), from_ticks(steal)))
}

/// The kernel shows all these in hundredths of a second (USER_HZ).
fn from_ticks(ticks: u64) -> Duration {
    Duration::from_millis(ticks * 10)
}

/// Memory of a process in MiB: resident now, and at most so far.
pub(crate) fn memory(pid: u32) -> Result<(f64, f64)> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).with_context(|| path.clone())?;
    let mib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: f64 = line.trim().trim_end_matches(" kB").parse().ok()?;
        Some(kib / 1024.0)
    };
    mib("VmRSS:").zip(mib("VmHWM:")).with_context(|| path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_times_is_found_within_a_sixtyfourth() {
        let mut times = Times::default();
        for micros in 1..=1000 {
            times.add(Duration::from_micros(micros), 2);
        }
        for (share, wanted) in [(0.5, 0.5), (0.99, 0.99), (0.999, 0.999), (1.0, 1.0)] {
            let found = times.ms(share);
            assert!(
                (wanted..=wanted * 1.04).contains(&found),
                "{share}: {found}"
            );
        }
        assert!(Times::default().ms(0.5).is_nan());
    }

    #[test]
    fn every_time_lies_below_the_end_of_its_bucket_and_not_below_its_begin() {
        for ns in (0..4096).chain([123_456_789, u64::from(u32::MAX), 1 << 39]) {
            let at = bucket(ns);
            assert!(ns < upper(at), "{ns}");
            assert!(at == 0 || ns >= upper(at - 1), "{ns}");
        }
    }
}
