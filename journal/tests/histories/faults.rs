//! What a disk does to a journal.

use journal::sim::{Failure, Fault, Op};

use super::history::History;

impl History {
    pub(super) fn inject(&mut self) {
        let ops = [
            Op::Open,
            Op::Create,
            Op::Rename,
            Op::Unlink,
            Op::SyncDir,
            Op::Read,
            Op::Write,
            Op::Write,
            Op::Sync,
            Op::Sync,
            Op::Truncate,
        ];
        let op = ops[self.random.below(ops.len() as u64) as usize];
        let failure = match self.random.below(3) {
            0 => Failure::NoSpace,
            1 if op == Op::Write => Failure::Short,
            _ => Failure::Io,
        };
        let suffix = ["", ".seg", ".cursor", ".tmp"][self.random.below(4) as usize].to_owned();
        // More than a reader's patience would be a damaged disk, where records may be lost.
        let times = 1 + self.random.below(if op == Op::Read { 1 } else { 3 });
        let fault = Fault {
            op,
            failure,
            skip: self.random.below(3),
            times,
            suffix,
        };
        self.say(|| format!("{fault:?}"));
        self.disk.heal();
        self.disk.inject(fault);
    }

    pub(super) fn capacity(&mut self) {
        let capacity = self
            .random
            .one_in(2)
            .then(|| 20_000 + self.random.below(80_000));
        self.say(|| format!("capacity {capacity:?}"));
        self.disk.set_capacity(capacity);
    }
}
