//! A simulated disk: it forgets what was not synced, reorders and tears what was being written, and fails on request.
//!
//! ```text
//!             pwrite            fdatasync                power_loss
//!  volatile ◀──┴──▶ pending ───────────────▶ durable ─────────────────▶ volatile = durable + some of pending
//! ```
//!
//! Every file has a volatile image (what reads see) and a durable one. A power loss keeps, of what was pending, all,
//! nothing, a beginning, or any choice of 512-byte sectors, as the seed decides; names likewise. A failed `fdatasync`
//! drops what was pending, as Linux does: a later, successful one does not bring it back. [`SimDisk::kill`] ends the
//! process only: the page cache survives. Everything follows from the seed and the order of the calls.

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
};

mod file;
mod image;

use self::file::SimFile;
pub use self::image::Random;
use self::image::{Change, NameChange, Node, apply, apply_name, apply_some, apply_some_names};
use crate::{
    catalog,
    disk::{Access, Disk, DiskFile, Lock, LockError},
};

/// An operation that can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// [`Disk::open`]
    Open,
    /// [`Disk::create`]
    Create,
    /// [`Disk::rename`]
    Rename,
    /// [`Disk::unlink`]
    Unlink,
    /// [`Disk::fsync_dir`]
    SyncDir,
    /// [`DiskFile::pread`]
    Read,
    /// [`DiskFile::pwrite`]
    Write,
    /// [`DiskFile::fdatasync`]
    Sync,
    /// [`DiskFile::truncate`]
    Truncate,
}

/// How an operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// EIO.
    Io,
    /// ENOSPC; of a write, a part may have been done.
    NoSpace,
    /// A write does only a part, without an error.
    Short,
}

/// An order to fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What fails.
    pub op: Op,
    /// How.
    pub failure: Failure,
    /// So many of these operations go well before.
    pub skip: u64,
    /// So many fail, one after the other.
    pub times: u64,
    /// Only files whose name ends in this; empty: all.
    pub suffix: String,
}

/// The simulated disk; clones are the same disk.
#[derive(Clone)]
pub struct SimDisk {
    world: Arc<Mutex<World>>,
}

#[derive(Clone)]
struct World {
    random: Random,
    nodes: BTreeMap<u64, Node>,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    pending_names: Vec<NameChange>,
    next_node: u64,
    /// Changing operations so far.
    steps: u64,
    crash_at: Option<u64>,
    /// The machine is off until it is restarted.
    down: bool,
    /// Counts restarts: handles of an earlier process are dead.
    epoch: u64,
    capacity: Option<u64>,
    faults: Vec<Fault>,
    locked: bool,
    /// Names of files that nobody is expected to read.
    given_back: Vec<String>,
}

impl SimDisk {
    /// An empty disk.
    #[must_use]
    pub fn new(seed: u64) -> SimDisk {
        let world = World {
            random: Random::new(seed),
            nodes: BTreeMap::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            pending_names: Vec::new(),
            next_node: 1,
            steps: 0,
            crash_at: None,
            down: false,
            epoch: 0,
            capacity: None,
            faults: Vec::new(),
            locked: false,
            given_back: Vec::new(),
        };
        SimDisk {
            world: Arc::new(Mutex::new(world)),
        }
    }

    /// The same, as the journal takes it.
    #[must_use]
    pub fn disk(&self) -> Arc<dyn Disk> {
        Arc::new(self.clone())
    }

    fn world(&self) -> MutexGuard<'_, World> {
        catalog::lock(&self.world)
    }

    /// Changing operations so far.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.world().steps
    }

    /// The machine goes down in the middle of the changing operation with this number ([`SimDisk::steps`] counts).
    pub fn crash_at(&self, step: u64) {
        self.world().crash_at = Some(step);
    }

    /// Whether it is down.
    #[must_use]
    pub fn is_down(&self) -> bool {
        self.world().down
    }

    /// Bound of all files together; `None`: no bound.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.world().capacity = bytes;
    }

    /// Orders a failure.
    pub fn inject(&self, fault: Fault) {
        self.world().faults.push(fault);
    }

    /// Forgets all failures that were ordered.
    pub fn heal(&self) {
        self.world().faults.clear();
    }

    /// The process ends and a new one may begin; the page cache survives.
    pub fn kill(&self) {
        self.world().restart();
    }

    /// The power goes and comes back: what was not synced is lost, in whole or in part.
    pub fn power_loss(&self) {
        self.world().lose_power();
    }

    /// All bytes of a file as reads see them; `None` if there is no such file.
    #[must_use]
    pub fn contents(&self, name: &str) -> Option<Vec<u8>> {
        let world = self.world();
        world
            .names
            .get(name)
            .and_then(|n| world.nodes.get(n))
            .map(|n| n.volatile.clone())
    }

    /// Puts a file there, durable.
    pub fn put(&self, name: &str, bytes: Vec<u8>) {
        let mut world = self.world();
        let id = world.next_node;
        world.next_node += 1;
        let node = Node {
            volatile: bytes.clone(),
            durable: bytes,
            pending: Vec::new(),
        };
        world.nodes.insert(id, node);
        world.names.insert(name.to_owned(), id);
        world.durable_names.insert(name.to_owned(), id);
    }

    /// Flips the bits of `mask` in one byte of a file, for good.
    pub fn flip(&self, name: &str, at: usize, mask: u8) {
        let mut world = self.world();
        let Some(id) = world.names.get(name).copied() else {
            return;
        };
        let Some(node) = world.nodes.get_mut(&id) else {
            return;
        };
        for image in [&mut node.volatile, &mut node.durable] {
            if let Some(byte) = image.get_mut(at) {
                *byte ^= mask;
            }
        }
    }

    /// Names of all files, sorted.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.world().names.keys().cloned().collect()
    }

    /// The files of which was said that nobody is expected to read them, in that order.
    #[must_use]
    pub fn given_back(&self) -> Vec<String> {
        self.world().given_back.clone()
    }

    /// Another disk with the same files, all durable.
    #[must_use]
    pub fn copy(&self, seed: u64) -> SimDisk {
        let copy = SimDisk::new(seed);
        let world = self.world();
        for (name, id) in &world.names {
            let bytes = world
                .nodes
                .get(id)
                .map(|n| n.volatile.clone())
                .unwrap_or_default();
            copy.put(name, bytes);
        }
        copy
    }
}

impl World {
    fn restart(&mut self) {
        self.epoch += 1;
        self.down = false;
        self.crash_at = None;
        self.locked = false;
        self.faults.clear();
    }

    fn lose_power(&mut self) {
        let mut random = self.random.clone();
        apply_some_names(
            &mut random,
            &mut self.durable_names,
            std::mem::take(&mut self.pending_names),
        );
        self.names = self.durable_names.clone();
        let names = &self.names;
        self.nodes.retain(|id, _| names.values().any(|n| n == id));
        for node in self.nodes.values_mut() {
            let pending = std::mem::take(&mut node.pending);
            apply_some(&mut random, &mut node.durable, pending);
            node.volatile = node.durable.clone();
        }
        self.random = random;
        self.restart();
    }

    /// Counts a changing operation; `Err` if the machine goes down in it (the caller does a part) or is down.
    fn step(&mut self, epoch: u64) -> Result<(), Stop> {
        self.alive(epoch).map_err(Stop::Dead)?;
        self.steps += 1;
        if self.crash_at.is_some_and(|at| self.steps >= at) {
            self.down = true;
            return Err(Stop::Midway);
        }
        Ok(())
    }

    fn alive(&self, epoch: u64) -> io::Result<()> {
        if self.down || epoch != self.epoch {
            return Err(io::Error::other("the machine is down"));
        }
        Ok(())
    }

    /// The failure ordered for this operation now, if any.
    fn failure(&mut self, op: Op, name: &str) -> Option<Failure> {
        let fits = |f: &&mut Fault| f.op == op && name.ends_with(f.suffix.as_str());
        for fault in self.faults.iter_mut().filter(fits) {
            if fault.skip > 0 {
                fault.skip -= 1;
            } else if fault.times > 0 {
                fault.times -= 1;
                return Some(fault.failure);
            }
        }
        None
    }

    fn fail(&mut self, op: Op, name: &str) -> io::Result<()> {
        match self.failure(op, name) {
            Some(failure) => Err(error(failure)),
            None => Ok(()),
        }
    }

    fn used(&self) -> u64 {
        self.names
            .values()
            .filter_map(|id| self.nodes.get(id))
            .map(|n| n.volatile.len() as u64)
            .sum()
    }

    fn free(&self) -> u64 {
        self.capacity.map_or(u64::MAX / 2, |capacity| {
            capacity.saturating_sub(self.used())
        })
    }

    fn node(&mut self, id: u64) -> io::Result<&mut Node> {
        self.nodes
            .get_mut(&id)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn lookup(&self, name: &str) -> io::Result<u64> {
        self.names
            .get(name)
            .copied()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn change(&mut self, id: u64, change: Change) -> io::Result<()> {
        let node = self.node(id)?;
        apply(&mut node.volatile, &change);
        node.pending.push(change);
        Ok(())
    }
}

/// Why an operation is not done.
enum Stop {
    Midway,
    Dead(io::Error),
}

impl From<Stop> for io::Error {
    fn from(stop: Stop) -> io::Error {
        match stop {
            Stop::Midway => io::Error::other("the machine goes down"),
            Stop::Dead(error) => error,
        }
    }
}

fn error(failure: Failure) -> io::Error {
    match failure {
        Failure::Io => rustix::io::Errno::IO.into(),
        Failure::NoSpace | Failure::Short => rustix::io::Errno::NOSPC.into(),
    }
}

impl Disk for SimDisk {
    fn open(&self, name: &str, _: Access) -> io::Result<Arc<dyn DiskFile>> {
        let mut world = self.world();
        let epoch = world.epoch;
        world.alive(epoch)?;
        world.fail(Op::Open, name)?;
        let id = world.lookup(name)?;
        let handle = SimFile {
            disk: self.clone(),
            id,
            epoch,
            name: name.to_owned(),
        };
        Ok(Arc::new(handle))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut world = self.world();
        let epoch = world.epoch;
        world.step(epoch)?;
        world.fail(Op::Create, name)?;
        let id = world.next_node;
        world.next_node += 1;
        world.nodes.insert(id, Node::default());
        world.names.insert(name.to_owned(), id);
        world
            .pending_names
            .push(NameChange::Link(name.to_owned(), id));
        let handle = SimFile {
            disk: self.clone(),
            id,
            epoch,
            name: name.to_owned(),
        };
        Ok(Arc::new(handle))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut world = self.world();
        let epoch = world.epoch;
        world.step(epoch)?;
        world.fail(Op::Rename, to)?;
        let id = world.lookup(from)?;
        let change = NameChange::Rename(from.to_owned(), to.to_owned(), id);
        apply_name(&mut world.names, &change);
        world.pending_names.push(change);
        Ok(())
    }

    fn unlink(&self, name: &str) -> io::Result<()> {
        let mut world = self.world();
        let epoch = world.epoch;
        world.step(epoch)?;
        world.fail(Op::Unlink, name)?;
        let id = world.lookup(name)?;
        let change = NameChange::Unlink(name.to_owned(), id);
        apply_name(&mut world.names, &change);
        world.pending_names.push(change);
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let world = self.world();
        world.alive(world.epoch)?;
        Ok(world.names.keys().cloned().collect())
    }

    fn length(&self, name: &str) -> io::Result<u64> {
        let mut world = self.world();
        let epoch = world.epoch;
        world.alive(epoch)?;
        let id = world.lookup(name)?;
        Ok(world.node(id)?.volatile.len() as u64)
    }

    fn fsync_dir(&self) -> io::Result<()> {
        let mut world = self.world();
        let epoch = world.epoch;
        world.step(epoch)?;
        world.fail(Op::SyncDir, "")?;
        let changes = std::mem::take(&mut world.pending_names);
        for change in &changes {
            apply_name(&mut world.durable_names, change);
        }
        Ok(())
    }

    fn space(&self) -> io::Result<u64> {
        let world = self.world();
        world.alive(world.epoch)?;
        Ok(world.free())
    }

    fn lock(&self) -> Result<Box<dyn Lock>, LockError> {
        let mut world = self.world();
        world.alive(world.epoch)?;
        if world.locked {
            return Err(LockError::Held {
                by: "another journal".to_owned(),
            });
        }
        world.locked = true;
        Ok(Box::new(SimLock {
            disk: self.clone(),
            epoch: world.epoch,
        }))
    }

    fn holder(&self) -> io::Result<Option<String>> {
        let held = self.world().locked;
        Ok(held.then(|| "another journal".to_owned()))
    }

    fn path(&self) -> PathBuf {
        PathBuf::from("/simulated")
    }
}

struct SimLock {
    disk: SimDisk,
    epoch: u64,
}

impl Lock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut world = self.disk.world();
        if world.epoch == self.epoch {
            world.locked = false;
        }
    }
}
