//! A cursor's file: two slots of equal size, written in turn, so one of them is whole at every moment.
//!
//! ```text
//! slot   0 magic "CRSTCURS"   8 version u16   10 reserved u16   12 crc u32 (over 0..12 and 16..)
//!       16 generation u64    24 birth u64    32 position u64   40 rewound u64
//!       48 delivered u64     56 filtered u64 64 dead-lettered u64  72 expired u64  80 corrupt u64
//!       88 slot size u32     92 state length u32 (u32::MAX: none)
//!       96 expired length u32 (bytes)   100 expired crc u32   104 reserved, 24 bytes   128 state, then expired
//! expired  first u64, end u64, count u64 for each stretch: expired.rs
//! ```
//! The stretches stand behind what `crc` covers and have one of their own: a program that does not know them finds the same
//! slot, and writes one without them; one that does finds none in a slot of before.
//!
//! The valid slot with the larger generation counts; generation `g` stands in slot `g % 2`. Slots are written over
//! in place, all their blocks allocated before: moving a cursor needs no space, so sinks drain a full disk. Where a
//! state outgrows its slot, or after a failed write or sync, a new file takes the name.

use std::{io, sync::Arc};

use bytes::Bytes;

use crate::{
    Account, FORMAT,
    disk::{Access, Disk, DiskFile, read_full, write_all},
    expired::{self, Stretches},
    format,
    record::{MAX_SEQ, checksum, is_whole},
};

const MAGIC: &[u8; 8] = b"CRSTCURS";
const FIXED: usize = 128;
const SMALLEST: usize = 4096;
const NO_STATE: u32 = u32::MAX;
/// Longest state, in bytes (16 MiB).
pub(crate) const MAX_STATE: usize = 16 << 20;

/// What a cursor keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) generation: u64,
    pub(crate) birth: u64,
    pub(crate) position: u64,
    pub(crate) rewound: u64,
    pub(crate) account: Account,
    /// Which records the account counts as expired, as far as that was written down.
    pub(crate) expired: Stretches,
    pub(crate) state: Option<Bytes>,
}

impl Slot {
    fn encode(&self, size: usize) -> Vec<u8> {
        let Account {
            delivered,
            filtered,
            dead_lettered,
            expired,
            corrupt,
        } = self.account;
        let numbers = [
            self.generation,
            self.birth,
            self.position,
            self.rewound,
            delivered,
            filtered,
            dead_lettered,
            expired,
            corrupt,
        ];
        let mut rest = Vec::with_capacity(size);
        numbers
            .iter()
            .for_each(|n| rest.extend_from_slice(&n.to_le_bytes()));
        let state_len = self.state.as_ref().map_or(NO_STATE, |s| s.len() as u32);
        rest.extend_from_slice(&(size as u32).to_le_bytes());
        rest.extend_from_slice(&state_len.to_le_bytes());
        let state = self.state.as_deref().unwrap_or_default();
        let expired = self
            .expired
            .encode(size.saturating_sub(FIXED + state.len()));
        rest.extend_from_slice(&(expired.len() as u32).to_le_bytes());
        rest.extend_from_slice(&checksum(0, &expired).to_le_bytes());
        rest.resize(FIXED - 16, 0);
        rest.extend_from_slice(state);

        let mut out = Vec::with_capacity(size);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&FORMAT.to_le_bytes());
        out.extend_from_slice(&[0; 2]);
        let crc = checksum(checksum(0, &out), &rest);
        out.extend_from_slice(&crc.to_le_bytes());
        out.extend_from_slice(&rest);
        out.extend_from_slice(&expired);
        out
    }

    fn decode(bytes: &[u8]) -> Option<(Slot, usize)> {
        let fixed: &[u8; FIXED] = bytes.first_chunk()?;
        if !fixed.starts_with(MAGIC) || !format::is_known(version(fixed)) {
            return None;
        }
        let state_len = u32_at(fixed, 92);
        let stateful = state_len != NO_STATE;
        let end = FIXED + if stateful { state_len as usize } else { 0 };
        let whole = bytes.get(16..end)?;
        if !is_whole(checksum(0, fixed.get(..12)?), whole, u32_at(fixed, 12)) {
            return None;
        }
        let state =
            stateful.then(|| Bytes::copy_from_slice(bytes.get(FIXED..end).unwrap_or_default()));
        let (state_end, end) = (end, end + u32_at(fixed, 96) as usize);
        let expired = bytes.get(state_end..end)?;
        if !is_whole(0, expired, u32_at(fixed, 100)) {
            return None;
        }
        let expired = Stretches::decode(expired)?;
        let number = |n: usize| u64_at(fixed, 16 + 8 * n);
        let account = Account {
            delivered: number(4),
            filtered: number(5),
            dead_lettered: number(6),
            expired: number(7),
            corrupt: number(8),
        };
        let slot = Slot {
            generation: number(0),
            birth: number(1),
            position: number(2),
            rewound: number(3),
            account,
            expired,
            state,
        };
        let size = u32_at(fixed, 88) as usize;
        // What no cursor was ever given would have the next write fill up to it.
        let possible = (end..=2 * MAX_STATE).contains(&size) && slot.is_countable();
        possible.then_some((slot, size))
    }

    /// Whether its numbers can be added up and counted on from: those of no real cursor cannot.
    fn is_countable(&self) -> bool {
        if self.generation > u64::MAX / 2 || self.position > MAX_SEQ / 2 || self.birth > MAX_SEQ / 2
        {
            return false;
        }
        let passed = self
            .account
            .checked_total()
            .and_then(|total| self.birth.checked_add(total));
        passed.is_some()
            && self.position.checked_add(self.rewound).is_some()
            && self.expired.total() <= u128::from(self.account.expired)
    }

    /// Bytes of a slot that holds this one with room to grow.
    fn size(&self) -> usize {
        let state = self.state.as_ref().map_or(0, Bytes::len);
        let full = FIXED + state + expired::MOST * expired::ENCODED;
        full.next_power_of_two().max(SMALLEST)
    }
}

/// An open cursor file.
pub(crate) struct SlotFile {
    file: Arc<dyn DiskFile>,
    size: usize,
}

/// What a cursor file holds.
pub(crate) enum Found {
    /// The newest whole slot; `alone` if the other one is not whole (torn by a crash, or damaged).
    Slot { slot: Slot, alone: bool },
    /// Neither slot is whole.
    Damaged,
    /// The file is of another format version.
    Version(u16),
}

impl SlotFile {
    /// Makes the file, durable with its name, in place of one that has the name already. Both slots hold `slot`.
    pub(crate) fn create(disk: &dyn Disk, name: &str, slot: &mut Slot) -> io::Result<SlotFile> {
        let size = slot.size();
        slot.generation = (slot.generation + 1).next_multiple_of(2);
        let mut bytes = slot.encode(size);
        bytes.resize(size, 0);
        slot.generation += 1;
        bytes.extend_from_slice(&slot.encode(size));
        bytes.resize(2 * size, 0);

        let temporary = format!("{name}.tmp");
        let made = (|| {
            let file = disk.create(&temporary)?;
            write_all(&*file, &bytes, 0)?;
            file.fdatasync()?;
            disk.rename(&temporary, name)?;
            disk.fsync_dir()?;
            disk.open(name, Access::Write)
        })();
        if made.is_err() {
            let _ = disk.unlink(&temporary);
        }
        Ok(SlotFile { file: made?, size })
    }

    /// Opens and reads a cursor file.
    pub(crate) fn open(
        disk: &dyn Disk,
        name: &str,
        access: Access,
    ) -> io::Result<(SlotFile, Found)> {
        let file = disk.open(name, access)?;
        let mut bytes = vec![
            0;
            usize::try_from(file.length()?)
                .unwrap_or(0)
                .min(4 * MAX_STATE)
        ];
        let n = read_full(&*file, &mut bytes, 0)?;
        bytes.truncate(n);
        let first = Slot::decode(&bytes);
        // The first slot tells where the second is; if it is not whole, the middle of the file is where it was made.
        let size = first.as_ref().map_or(bytes.len() / 2, |(_, size)| *size);
        let second = Slot::decode(bytes.get(size..).unwrap_or_default());
        // One that says it stands elsewhere would be written elsewhere, and not be found again.
        let second = second.filter(|(_, said)| *said == size);
        let found = match (first, second) {
            (Some((a, _)), Some((b, _))) => {
                let slot = if a.generation > b.generation { a } else { b };
                Found::Slot { slot, alone: false }
            }
            (Some((slot, _)), None) | (None, Some((slot, _))) => Found::Slot { slot, alone: true },
            (None, None) => match bytes.first_chunk() {
                Some(fixed) if fixed.starts_with(MAGIC) && !format::is_known(version(fixed)) => {
                    Found::Version(version(fixed))
                }
                _ => Found::Damaged,
            },
        };
        Ok((SlotFile { file, size }, found))
    }

    /// Whether the slot can be written in place.
    pub(crate) fn fits(&self, slot: &Slot) -> bool {
        let state = slot.state.as_ref().map_or(0, Bytes::len);
        FIXED + state <= self.size
    }

    /// Writes the slot over the older one and syncs it.
    pub(crate) fn write(&self, slot: &Slot) -> io::Result<()> {
        let offset = (slot.generation % 2) * self.size as u64;
        write_all(&*self.file, &slot.encode(self.size), offset)?;
        self.file.fdatasync()
    }
}

fn version(fixed: &[u8; FIXED]) -> u16 {
    u16::from_le_bytes([fixed[8], fixed[9]])
}

fn u32_at(fixed: &[u8; FIXED], at: usize) -> u32 {
    fixed
        .get(at..)
        .and_then(|b| b.first_chunk())
        .copied()
        .map_or(0, u32::from_le_bytes)
}

fn u64_at(fixed: &[u8; FIXED], at: usize) -> u64 {
    fixed
        .get(at..)
        .and_then(|b| b.first_chunk())
        .copied()
        .map_or(0, u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::SimDisk;

    #[test]
    fn a_slot_of_a_size_that_is_never_given_is_damaged() {
        for (size, whole) in [
            (SMALLEST, true),
            (2 * MAX_STATE, true),
            (3 * MAX_STATE, false),
        ] {
            let bytes = slot(None).encode(size);
            assert_eq!(Slot::decode(&bytes).is_some(), whole, "{size}");
        }
        let large = slot(Some(vec![7; SMALLEST])).encode(SMALLEST);
        assert!(Slot::decode(&large).is_none());
    }

    #[test]
    fn a_slot_whose_numbers_cannot_be_added_up_is_damaged() {
        let spoil: [fn(&mut Slot); 6] = [
            |slot| slot.expired.add(1, 9, 5),
            |slot| slot.account.filtered = u64::MAX,
            |slot| slot.birth = u64::MAX - 14,
            |slot| slot.rewound = u64::MAX - 15,
            |slot| slot.position = 1 << 56,
            |slot| slot.generation = u64::MAX,
        ];
        let good = slot(None);
        assert!(Slot::decode(&good.encode(SMALLEST)).is_some());
        for (n, spoil) in spoil.iter().enumerate() {
            let mut bad = good.clone();
            bad.rewound = 1;
            spoil(&mut bad);
            assert!(
                Slot::decode(&bad.encode(SMALLEST)).is_none(),
                "case {n} passed"
            );
        }
    }

    fn slot(state: Option<Vec<u8>>) -> Slot {
        let account = Account {
            delivered: 1,
            filtered: 2,
            dead_lettered: 3,
            expired: 4,
            corrupt: 5,
        };
        Slot {
            generation: 0,
            birth: 1,
            position: 16,
            rewound: 0,
            account,
            expired: Stretches::default(),
            state: state.map(Bytes::from),
        }
    }

    fn found(disk: &SimDisk) -> (Slot, bool) {
        match SlotFile::open(disk, "c.cursor", Access::Read).unwrap().1 {
            Found::Slot { slot, alone } => (slot, alone),
            _ => panic!("no slot"),
        }
    }

    #[test]
    fn a_slot_is_read_back_with_a_state_of_a_megabyte() {
        let disk = SimDisk::new(1);
        let mut slot = slot(Some(vec![7; 1 << 20]));
        let file = SlotFile::create(&disk, "c.cursor", &mut slot).unwrap();
        assert_eq!(found(&disk), (slot.clone(), false));
        slot.generation += 1;
        slot.position = 17;
        assert!(file.fits(&slot));
        file.write(&slot).unwrap();
        assert_eq!(found(&disk), (slot, false));
    }

    #[test]
    fn a_program_that_knows_no_stretches_finds_the_same_slot() {
        let mut slot = slot(Some(b"abc".to_vec()));
        slot.expired.add(3, 6, 3);
        let bytes = slot.encode(SMALLEST);
        // As such a program reads it: a checksum over what it knows, whatever stands in the reserved bytes.
        let known = &bytes[16..FIXED + 3];
        assert_eq!(
            checksum(checksum(0, &bytes[..12]), known),
            u32_at(bytes.first_chunk().unwrap(), 12)
        );
        assert_eq!(&bytes[FIXED..FIXED + 3], b"abc");
        assert_eq!(Slot::decode(&bytes).map(|(slot, _)| slot), Some(slot));
    }

    #[test]
    fn where_a_state_leaves_little_room_the_stretches_say_less() {
        let mut slot = slot(Some(vec![7; SMALLEST - FIXED - expired::ENCODED]));
        slot.expired.add(1, 3, 2);
        slot.expired.add(5, 7, 2);
        let (read, _) = Slot::decode(&slot.encode(SMALLEST)).unwrap();
        assert_eq!(read.expired.to_vec().len(), 1);
        assert_eq!((read.state, read.expired.total()), (slot.state, 4));
    }

    #[test]
    fn damage_to_one_slot_leaves_the_other() {
        let disk = SimDisk::new(1);
        let mut slot = slot(Some(b"abc".to_vec()));
        let file = SlotFile::create(&disk, "c.cursor", &mut slot).unwrap();
        let older = slot.clone();
        slot.generation += 1;
        slot.position = 99;
        slot.expired.add(90, 92, 2);
        slot.expired.add(95, 99, 1);
        file.write(&slot).unwrap();
        let newer_at = (slot.generation % 2) as usize * SMALLEST;
        for bit in 0..(FIXED + 3 + 2 * expired::ENCODED) * 8 {
            disk.flip("c.cursor", newer_at + bit / 8, 1 << (bit % 8));
            // Reserved bytes are covered by the checksum too.
            assert_eq!(found(&disk), (older.clone(), true), "bit {bit}");
            disk.flip("c.cursor", newer_at + bit / 8, 1 << (bit % 8));
        }
        assert_eq!(found(&disk), (slot, false));
    }
}
