//! Rules into the maps: a new generation beside the old one, one word flipped, the old one removed after everyone who
//! may be reading it has gone.

use std::collections::HashMap;
use std::io;

use libbpf_rs::{Error, MapCore, MapFlags, MapMut};

use super::raw;
use super::words::Words;
use crate::rules::{Rules, bytes_of};

/// Why rules are not in force. The generation that was in force before still is.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    /// Sets are numbered from 1.
    #[error("set {0} is not between 1 and {max}", max = super::MAX_SETS - 1)]
    Set(u32),
    /// A path has more components than the kernel keeps.
    #[error("{0} has more than {max} components, which this sensor cannot tell apart", max = super::MAX_DEPTH)]
    Depth(String),
    /// A list has more candidates than the kernel looks at.
    #[error("more than {0} rules meet in one place; join some of them")]
    Candidates(usize),
    /// The maps are full, or the kernel refuses.
    #[error("the kernel takes no more rules: {0}")]
    Kernel(io::Error),
}

/// The maps that hold rules.
pub(super) struct Maps<'a> {
    pub(super) edges: &'a MapMut<'static>,
    pub(super) named: &'a MapMut<'static>,
    pub(super) lists: &'a MapMut<'static>,
}

/// What is written, to be removed again.
#[derive(Default)]
struct Written {
    edges: Vec<raw::edge_key>,
    named: Vec<raw::named_key>,
    lists: Vec<raw::list_key>,
}

/// The sets in the kernel.
#[derive(Default)]
pub(super) struct Sets {
    written: HashMap<u32, Written>,
    last: u32,
}

impl Sets {
    /// Puts rules in force. Waits for programs that are reading the old ones: some tens of milliseconds.
    pub(super) fn write(
        &mut self,
        set: u32,
        flat: &policy::Flat,
        secret: crate::rules::Secret,
        maps: &Maps<'_>,
        words: &Words,
    ) -> Result<u32, RulesError> {
        if set == 0 || set >= super::MAX_SETS {
            return Err(RulesError::Set(set));
        }
        let generation = self.last.wrapping_add(1).max(1);
        self.last = generation;
        let rules = Rules::new(flat, set, generation, secret)?;
        let mut written = Written::default();
        if let Err(error) = written.insert(&rules, maps) {
            written.remove(maps);
            return Err(RulesError::Kernel(io::Error::from_raw_os_error(errno(
                &error,
            ))));
        }
        words.flip(set, (u64::from(generation) << 32) | u64::from(rules.modes));
        if let Some(old) = self.written.insert(set, written) {
            wait_for_readers();
            old.remove(maps);
        }
        Ok(generation)
    }

    /// Takes a set away. A workload that still has it has no rules.
    pub(super) fn drop_set(&mut self, set: u32, maps: &Maps<'_>, words: &Words) {
        let Some(old) = self.written.remove(&set) else {
            return;
        };
        words.flip(set, 0);
        wait_for_readers();
        old.remove(maps);
    }
}

impl Written {
    fn insert(&mut self, rules: &Rules, maps: &Maps<'_>) -> Result<(), Error> {
        for (key, value) in &rules.lists {
            maps.lists
                .update(bytes_of(key), bytes_of(value), MapFlags::ANY)?;
            self.lists.push(*key);
        }
        for (key, value) in &rules.named {
            maps.named
                .update(bytes_of(key), bytes_of(value), MapFlags::ANY)?;
            self.named.push(*key);
        }
        for (key, value) in &rules.edges {
            maps.edges
                .update(bytes_of(key), bytes_of(value), MapFlags::ANY)?;
            self.edges.push(*key);
        }
        Ok(())
    }

    /// A key that is not there any more is no loss.
    fn remove(self, maps: &Maps<'_>) {
        self.edges
            .iter()
            .for_each(|key| _ = maps.edges.delete(bytes_of(key)));
        self.named
            .iter()
            .for_each(|key| _ = maps.named.delete(bytes_of(key)));
        self.lists
            .iter()
            .for_each(|key| _ = maps.lists.delete(bytes_of(key)));
    }
}

fn errno(error: &Error) -> i32 {
    match error.kind() {
        libbpf_rs::ErrorKind::PermissionDenied => libc::EPERM,
        libbpf_rs::ErrorKind::OutOfMemory => libc::ENOMEM,
        _ => libc::E2BIG,
    }
}

/// Programs run inside RCU read sections; `membarrier(2)` with MEMBARRIER_CMD_GLOBAL waits for all of those.
fn wait_for_readers() {
    // SAFETY: a system call without pointers.
    let code = unsafe { libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if code != 0 {
        std::thread::sleep(std::time::Duration::from_secs(1));
    }
}
