//! The seam to the kernel: programs, maps, links. Only the files of this folder name libbpf.
//!
//! ```text
//!             load()                       add_workload, write_set, point …
//! probe() ─▶ Kernel + Events               │
//!             │        └ poll() ─▶ Observation: verdicts and telemetry, each in the order of its own ring
//!             └ the last handle dropped: everything detaches; nothing is ever pinned
//! ```
//!
//! Which set judges a workload, and which generation of a set is in force, are single words in memory shared with the
//! programs: rules change whole or not at all.

mod cgroup;
mod events;
mod footprint;
mod load;
mod per_call;
mod probe;
mod sets;
mod words;

use std::collections::HashMap;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use libbpf_rs::{Link, MapCore, MapFlags};

pub use cgroup::LabelError;
pub use events::Events;
pub use footprint::{Loaded, still_loaded};
pub use load::LoadError;
pub use probe::{Ability, Probe, probe};
pub use sets::RulesError;

use crate::rules::{Secret, bytes_of};
pub(crate) use skel::types as raw;

#[allow(
    clippy::all,
    unreachable_pub,
    unused_qualifications,
    clippy::undocumented_unsafe_blocks
)]
#[allow(clippy::expect_used, clippy::unwrap_used, clippy::panic)] // reason: generated
mod skel {
    include!(concat!(env!("OUT_DIR"), "/sensor.skel.rs"));
}

/// Workloads have indices below this (`MAX_WORKLOADS` in `maps.h`).
pub const MAX_WORKLOADS: u32 = 4096;
/// In a record the index of no workload: a task of the host (`HOST` in `maps.h`).
pub const HOST: u32 = u32::MAX;
/// Sets are numbered from 1 to below this (`MAX_SETS` in `maps.h`); 0 means no rules.
pub const MAX_SETS: u32 = 4096;
/// Components of a path that rules can tell apart (`DEPTH` in `maps.h`).
pub const MAX_DEPTH: usize = 64;

/// What the native tier does to a process that did what is forbidden.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Contain {
    /// Tell, and let it happen.
    None,
    /// End a forbidden image before its first instruction; refuse forbidden sockets.
    #[default]
    Default,
    /// Also end a process after it opened a forbidden file.
    All,
}

/// How to load.
#[derive(Debug, Clone)]
pub struct KernelConfig {
    /// For the native tier.
    pub contain: Contain,
    /// Where the cgroup2 file system is mounted.
    pub cgroup2: PathBuf,
    /// No tier better than this: for tests of the lower ones.
    pub tier_limit: Option<u8>,
}

/// Which operations become records without a decision. Exec and exit always do, where anything does: who is who depends
/// on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Visibility {
    /// Exec and exit; of a workload it adds nothing to what always comes.
    pub process: bool,
    /// Opens (but of /proc and /sys), removed and changed names.
    pub file: bool,
    /// Sockets and connections.
    pub network: bool,
    /// System calls that use a capability: setuid, setgid, mount, umount.
    pub capabilities: bool,
}

impl Visibility {
    /// Whether system calls must be looked at.
    fn needs_calls(self) -> bool {
        self.file || self.network || self.capabilities
    }
}

/// Records that found no room in their ring, since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lost {
    /// Of the ring of decisions, exec and exit.
    pub verdicts: ClassCounts,
    /// Of the ring of everything else.
    pub telemetry: ClassCounts,
    /// Tasks that found no memory for a label of their own.
    pub unlabelled: u64,
}

/// One number for each class of operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs)] // reason: the names say it
pub struct ClassCounts {
    pub process: u64,
    pub file: u64,
    pub network: u64,
    pub capability: u64,
    pub syscall: u64,
}

impl ClassCounts {
    /// The sum.
    pub fn total(&self) -> u64 {
        self.process + self.file + self.network + self.capability + self.syscall
    }
}

/// A handle on the loaded programs; clones share them.
#[derive(Clone)]
pub struct Kernel(Arc<Inner>);

/// Fields drop in this order: programs let go of their hooks before the maps and the shared words go.
struct Inner {
    workloads: Mutex<HashMap<u32, Labelled>>,
    /// Locked after the workloads.
    per_call: Mutex<per_call::PerCall>,
    _links: Vec<Link>,
    sets: Mutex<sets::Sets>,
    secret: Secret,
    words: words::Words,
    probe: Probe,
    config: KernelConfig,
    skel: skel::SensorSkel<'static>,
}

struct Labelled {
    cgroup: u64,
    _links: Vec<Link>,
}

impl std::fmt::Debug for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kernel")
            .field("tier", &self.tier())
            .finish_non_exhaustive()
    }
}

impl Kernel {
    /// Loads and attaches the best tier that this kernel admits. Nothing is judged until a workload is added.
    pub fn load(config: KernelConfig) -> Result<(Self, Events), LoadError> {
        let load::Loaded {
            skel,
            links,
            words,
            secret,
            probe,
        } = load::best(&config)?;
        let inner = Inner {
            workloads: Mutex::default(),
            per_call: Mutex::default(),
            _links: links,
            sets: Mutex::default(),
            secret,
            words,
            probe,
            config,
            skel,
        };
        let kernel = Self(Arc::new(inner));
        let maps = &kernel.0.skel.maps;
        let events = Events::new(&maps.verdicts, &maps.telemetry, kernel.clone())
            .map_err(|error| LoadError::other("map the rings", &error))?;
        Ok((kernel, events))
    }

    /// 1 LSM, 2 `fmod_ret`, 3 contain.
    pub fn tier(&self) -> u8 {
        self.0.probe.tier
    }

    /// What this tier can do, and why there is no better one.
    pub fn probe(&self) -> &Probe {
        &self.0.probe
    }

    /// Labels whatever enters this cgroup from now on. It must be empty, and neither the root, the sensor's own
    /// cgroup nor above it. After `deadline` nothing is enforced on the workload any more.
    pub fn add_workload(
        &self,
        index: u32,
        cgroup: &Path,
        set: u32,
        deadline: Option<Instant>,
    ) -> Result<(), LabelError> {
        let mut workloads = lock(&self.0.workloads);
        if index >= MAX_WORKLOADS || workloads.contains_key(&index) {
            return Err(LabelError::Index(index));
        }
        if set >= MAX_SETS {
            return Err(LabelError::Set(set));
        }
        let checked = cgroup::Checked::open(cgroup, &self.0.config.cgroup2)?;
        lock(&self.0.per_call)
            .watch_workloads(&self.0.skel.progs)
            .map_err(|error| {
                checked.refused("watch the system calls of")(load::io_error(&error))
            })?;
        let links = self.attach_cgroup(&checked)?;
        self.0
            .words
            .set_workload(index, checked.id, deadline.map_or(0, boot_time_of), set);
        let map = &self.0.skel.maps.cgroups;
        map.update(bytes_of(&checked.id), bytes_of(&index), MapFlags::ANY)
            .map_err(|error| checked.refused("label")(load::io_error(&error)))
            .inspect_err(|_| self.0.words.clear_workload(index))?;
        self.0.words.next_epoch();
        workloads.insert(
            index,
            Labelled {
                cgroup: checked.id,
                _links: links,
            },
        );
        let populated = checked.refuse_populated();
        drop(workloads);
        if let Err(populated) = populated {
            self.remove_workload(index);
            return Err(populated);
        }
        Ok(())
    }

    /// The workload is gone: nothing is enforced on what is left of it, and its index is free.
    pub fn remove_workload(&self, index: u32) {
        let mut workloads = lock(&self.0.workloads);
        let Some(labelled) = workloads.remove(&index) else {
            return;
        };
        if workloads.is_empty() {
            lock(&self.0.per_call).leave_workloads();
        }
        self.0.words.clear_workload(index);
        if let Err(error) = self.0.skel.maps.cgroups.delete(bytes_of(&labelled.cgroup)) {
            tracing::warn!(index, %error, "a cgroup's label could not be removed");
        }
    }

    /// Puts rules in force for all workloads that have this set, whole or not at all, and gives their generation.
    /// Takes some tens of milliseconds: it waits for programs that are reading the old ones.
    pub fn write_set(&self, set: u32, flat: &policy::Flat) -> Result<u32, RulesError> {
        lock(&self.0.sets).write(set, flat, self.0.secret, &self.rule_maps(), &self.0.words)
    }

    /// From now on this set judges the workload; 0: none does.
    pub fn point(&self, workload: u32, set: u32) {
        if workload < MAX_WORKLOADS && set < MAX_SETS {
            self.0.words.point(workload, set);
        }
    }

    /// Takes a set away. A workload that still has it is judged by no rules.
    pub fn drop_set(&self, set: u32) {
        lock(&self.0.sets).drop_set(set, &self.rule_maps(), &self.0.words);
    }

    /// Which operations of a workload become records without a decision.
    pub fn visibility(&self, workload: u32, classes: Visibility) {
        if workload < MAX_WORKLOADS {
            self.0.words.show(workload, classes);
        }
    }

    /// Which operations of tasks that are in no workload become records, with [`HOST`] in the place of a workload. They
    /// are told only: no rule judges them, and their records use the ring of telemetry alone. Nothing is told of this
    /// process, since telling would make more to tell. Off until this is called, and with [`Visibility::default`].
    pub fn host_visibility(&self, classes: Visibility) -> Result<(), LoadError> {
        let workloads = lock(&self.0.workloads);
        let mut per_call = lock(&self.0.per_call);
        if classes.needs_calls() {
            per_call
                .watch_host(&self.0.skel.progs)
                .map_err(|error| LoadError::Attach {
                    program: "on_sys_exit".to_owned(),
                    source: load::io_error(&error),
                })?;
        } else {
            per_call.leave_host(!workloads.is_empty());
        }
        self.0.words.show_host(classes);
        Ok(())
    }

    /// Records that found no room, since the start.
    pub fn lost(&self) -> Lost {
        self.0.words.lost()
    }

    fn rule_maps(&self) -> sets::Maps<'_> {
        let maps = &self.0.skel.maps;
        sets::Maps {
            edges: &maps.edges,
            named: &maps.named,
            lists: &maps.lists,
        }
    }

    /// The socket programs, on this cgroup alone: where no hook refuses a socket, one that does; on every tier those
    /// that refuse to use one from before the rules.
    fn attach_cgroup(&self, checked: &cgroup::Checked) -> Result<Vec<Link>, LabelError> {
        let fd = checked.directory.as_raw_fd();
        let progs = &self.0.skel.progs;
        let making = (self.tier() == 3).then_some(&progs.on_socket);
        let using = [
            &progs.on_connect4,
            &progs.on_connect6,
            &progs.on_send4,
            &progs.on_send6,
        ];
        making
            .into_iter()
            .chain(using)
            .map(|program| {
                let refused = checked.refused("attach socket programs to");
                program
                    .attach_cgroup(fd)
                    .map_err(|error| refused(load::io_error(&error)))
            })
            .collect()
    }
}

/// A panic elsewhere leaves these maps whole: each change is one statement.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `CLOCK_BOOTTIME` in nanoseconds at an instant.
fn boot_time_of(instant: Instant) -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let now = Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32);
    let then = now + instant.saturating_duration_since(Instant::now());
    u64::try_from(then.as_nanos()).unwrap_or(u64::MAX).max(1)
}
