//! Commands, some at a time: what each says goes to a file of its own, and is handed over whole when it has ended, so that
//! nothing is mixed. Who cannot wait reads the file.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::workspace;

/// A command with the name that people see.
pub(crate) struct Job {
    pub(crate) name: String,
    pub(crate) command: Command,
}

/// What became of it.
pub(crate) struct Ended {
    pub(crate) name: String,
    pub(crate) status: ExitStatus,
    pub(crate) took: Duration,
    /// Standard output and standard error, in the order in which they came.
    pub(crate) said: String,
}

/// Runs the jobs in this order, `width` at a time, and the one `beside` them, and gives each to `tell` when it has ended.
pub(crate) fn run(
    jobs: Vec<Job>,
    width: usize,
    beside: Option<Job>,
    mut tell: impl FnMut(Result<Ended>),
) -> Result<()> {
    let folder = workspace::target().join("said");
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let left = Mutex::new(VecDeque::from(jobs));
    let next = || lock(&left).pop_front();
    let (ended, each) = mpsc::channel();
    let folder = folder.as_path();
    // Nobody is there to hear of it only if `tell` panicked.
    let run = move |job| drop(ended.send(execute(job, folder)));
    thread::scope(|scope| {
        for _ in 0..width {
            let (run, next) = (run.clone(), &next);
            scope.spawn(move || std::iter::from_fn(next).for_each(run));
        }
        scope.spawn(move || beside.into_iter().for_each(run));
        each.into_iter().for_each(&mut tell);
    });
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn execute(job: Job, folder: &Path) -> Result<Ended> {
    let Job { name, mut command } = job;
    let file = &folder.join(format!("{}.log", name.replace([' ', '/'], "-")));
    let out = File::create(file).with_context(|| file.display().to_string())?;
    let err = out.try_clone().context("standard error")?;
    let begun = Instant::now();
    let status = command
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        .status()
        .with_context(|| format!("{name}: cannot start {}", workspace::name(&command)))?;
    let said = fs::read(file).with_context(|| file.display().to_string())?;
    Ok(Ended {
        name,
        status,
        took: begun.elapsed(),
        said: String::from_utf8_lossy(&said).into_owned(),
    })
}
