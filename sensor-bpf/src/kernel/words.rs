//! Words that the programs and user space share: plain memory, read and written one at a time.
//!
//! They live in the object's global data, which the kernel maps into this process. A program that runs meanwhile sees
//! the old value or the new one, nothing between.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::raw;
use super::{ClassCounts, Lost, Visibility};

/// Pointers into the mapped global data of a loaded object.
pub(super) struct Words {
    bss: *mut raw::bss,
    data: *mut raw::data,
}

// SAFETY: the memory is shared with the kernel anyway; every access below is atomic.
unsafe impl Send for Words {}
// SAFETY: as above.
unsafe impl Sync for Words {}

impl Words {
    /// `bss` and `data` must stay mapped as long as this lives.
    pub(super) fn new(bss: &mut raw::bss, data: &mut raw::data) -> Self {
        Self { bss, data }
    }

    /// A new workload: its other words are in place before its cgroup makes it one.
    pub(super) fn set_workload(&self, index: u32, cgroup: u64, deadline: u64, set: u32) {
        self.deadline(index).store(deadline, Ordering::Relaxed);
        self.set(index).store(set, Ordering::Relaxed);
        self.visible(index).store(0, Ordering::Relaxed);
        self.cgroup(index).store(cgroup, Ordering::Release);
    }

    pub(super) fn clear_workload(&self, index: u32) {
        self.cgroup(index).store(0, Ordering::Release);
        self.set(index).store(0, Ordering::Release);
        self.visible(index).store(0, Ordering::Release);
    }

    pub(super) fn point(&self, index: u32, set: u32) {
        self.set(index).store(set, Ordering::Release);
    }

    pub(super) fn show(&self, index: u32, classes: Visibility) {
        self.visible(index).store(bits(classes), Ordering::Release);
    }

    /// Of tasks that are in no workload.
    pub(super) fn show_host(&self, classes: Visibility) {
        // SAFETY: as in next_epoch.
        let visible = unsafe { AtomicU32::from_ptr(&raw mut (*self.bss).host_visible) };
        visible.store(bits(classes), Ordering::Release);
    }

    /// The process of which nothing is told, though the host is visible.
    pub(super) fn set_own(&self, tgid: u32) {
        // SAFETY: as in next_epoch.
        let own = unsafe { AtomicU32::from_ptr(&raw mut (*self.bss).own_tgid) };
        own.store(tgid, Ordering::Release);
    }

    /// Puts a generation in force, or (with 0) none.
    pub(super) fn flip(&self, set: u32, head: u64) {
        self.head(set).store(head, Ordering::Release);
    }

    /// Tasks that were found in no workload look again.
    pub(super) fn next_epoch(&self) {
        // SAFETY: `data` is mapped for the life of self, and the field is aligned as its type asks.
        let epoch = unsafe { AtomicU32::from_ptr(&raw mut (*self.data).epoch) };
        epoch.fetch_add(1, Ordering::AcqRel);
    }

    /// The canary: while it is a process's id, that process is refused one impossible socket.
    pub(super) fn set_canary(&self, tgid: u32) {
        // SAFETY: as in next_epoch.
        let canary = unsafe { AtomicU32::from_ptr(&raw mut (*self.bss).canary) };
        canary.store(tgid, Ordering::Release);
    }

    pub(super) fn lost(&self) -> Lost {
        Lost {
            verdicts: self.lost_of(0),
            telemetry: self.lost_of(1),
            // SAFETY: as in next_epoch.
            unlabelled: unsafe { AtomicU64::from_ptr(&raw mut (*self.bss).unlabelled) }
                .load(Ordering::Relaxed),
        }
    }

    fn lost_of(&self, ring: usize) -> ClassCounts {
        let count = |class: raw::class| {
            // SAFETY: as in next_epoch; ring is 0 or 1, and classes are below CLASSES.
            let word =
                unsafe { AtomicU64::from_ptr(&raw mut (*self.bss).lost[ring][class.0 as usize]) };
            word.load(Ordering::Relaxed)
        };
        ClassCounts {
            process: count(raw::class::CLASS_PROCESS),
            file: count(raw::class::CLASS_FILE),
            network: count(raw::class::CLASS_NETWORK),
            capability: count(raw::class::CLASS_CAPABILITY),
            syscall: count(raw::class::CLASS_SYSCALL),
        }
    }

    fn head(&self, set: u32) -> &AtomicU64 {
        // SAFETY: as in next_epoch; the index is checked by the slice's bounds.
        unsafe { AtomicU64::from_ptr(&raw mut (*self.bss).heads[set as usize]) }
    }

    fn cgroup(&self, index: u32) -> &AtomicU64 {
        // SAFETY: as in head.
        unsafe { AtomicU64::from_ptr(&raw mut (*self.bss).workloads[index as usize].cgroup) }
    }

    fn deadline(&self, index: u32) -> &AtomicU64 {
        // SAFETY: as in head.
        unsafe { AtomicU64::from_ptr(&raw mut (*self.bss).workloads[index as usize].deadline) }
    }

    fn set(&self, index: u32) -> &AtomicU32 {
        // SAFETY: as in head.
        unsafe { AtomicU32::from_ptr(&raw mut (*self.bss).workloads[index as usize].set) }
    }

    fn visible(&self, index: u32) -> &AtomicU32 {
        // SAFETY: as in head.
        unsafe { AtomicU32::from_ptr(&raw mut (*self.bss).workloads[index as usize].visible) }
    }
}

/// As in `enum visible` of `maps.h`.
fn bits(classes: Visibility) -> u32 {
    let bits = [
        (classes.process, raw::visible::VISIBLE_PROCESS),
        (classes.file, raw::visible::VISIBLE_FILE),
        (classes.network, raw::visible::VISIBLE_NETWORK),
        (classes.capabilities, raw::visible::VISIBLE_CAPABILITY),
    ];
    let on = bits.iter().filter(|(on, _)| *on);
    on.map(|(_, bit)| bit.0).sum()
}
