//! An open file of a simulated disk.

use std::io;

use super::{
    Failure, Op, SimDisk, Stop, error,
    image::{Change, apply, apply_some},
};
use crate::disk::DiskFile;

pub(super) struct SimFile {
    pub(super) disk: SimDisk,
    pub(super) id: u64,
    pub(super) epoch: u64,
    /// As it was opened, for failures by name.
    pub(super) name: String,
}

impl DiskFile for SimFile {
    fn pread(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut world = self.disk.world();
        world.alive(self.epoch)?;
        world.fail(Op::Read, &self.name)?;
        let node = world.node(self.id)?;
        let from = usize::try_from(offset)
            .unwrap_or(usize::MAX)
            .min(node.volatile.len());
        let bytes = node.volatile.get(from..).unwrap_or_default();
        let n = bytes.len().min(buf.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..n), bytes.get(..n)) {
            to.copy_from_slice(from);
        }
        Ok(n)
    }

    fn pwrite(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        let mut world = self.disk.world();
        let stop = world.step(self.epoch);
        if let Err(Stop::Dead(error)) = stop {
            return Err(error);
        }
        let failure = world.failure(Op::Write, &self.name);
        if failure == Some(Failure::Io) {
            return Err(error(Failure::Io));
        }
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        let len = world.node(self.id)?.volatile.len();
        let grows = (offset + buf.len()).saturating_sub(len) as u64;
        let lacking = grows.saturating_sub(world.free()) as usize;
        let partial = failure.is_some() || stop.is_err();
        let allowed = buf.len().saturating_sub(lacking);
        let n = if partial {
            world.random.below(allowed as u64 + 1) as usize
        } else {
            allowed
        };
        if n > 0 {
            let bytes = buf.get(..n).unwrap_or_default().to_vec();
            world.change(self.id, Change::Write { offset, bytes })?;
        }
        stop?;
        match failure {
            Some(Failure::Short) if n > 0 => Ok(n),
            Some(failure) => Err(error(failure)),
            None if n == 0 && !buf.is_empty() => Err(error(Failure::NoSpace)),
            None => Ok(n),
        }
    }

    fn fdatasync(&self) -> io::Result<()> {
        let mut guard = self.disk.world();
        let world = &mut *guard;
        let stop = world.step(self.epoch);
        if let Err(Stop::Dead(error)) = stop {
            return Err(error);
        }
        let failure = world.failure(Op::Sync, &self.name);
        let mut random = world.random.clone();
        let node = world.node(self.id)?;
        if stop.is_err() {
            return Ok(stop?);
        }
        let pending = std::mem::take(&mut node.pending);
        if let Some(failure) = failure {
            // The pages are clean now and were not all written.
            apply_some(&mut random, &mut node.durable, pending);
            world.random = random;
            return Err(error(failure));
        }
        for change in &pending {
            apply(&mut node.durable, change);
        }
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        let mut world = self.disk.world();
        world.alive(self.epoch)?;
        Ok(world.node(self.id)?.volatile.len() as u64)
    }

    fn give_back(&self) {
        self.disk.world().given_back.push(self.name.clone());
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let mut world = self.disk.world();
        world.step(self.epoch)?;
        world.fail(Op::Truncate, &self.name)?;
        let len = usize::try_from(len).map_err(io::Error::other)?;
        world.change(self.id, Change::Length(len))
    }
}
