//! Segment files, plain and packed: one that is the newest, or one that another follows.
//!
//! ```text
//! length of the first u32 │ first file │ second file (none if empty)
//! ```
//! Files are named after the base in their header, as the journal would have.

use journal::inspect::{Depth, inspect};
use journal::repair::repair;
use journal::sim::SimDisk;

use crate::disk::{aside, fresh, open, read_all};

/// Opens, reads, searches, inspects, repairs, and reads again.
pub fn run(bytes: &[u8]) {
    let Some((first, second)) = split(bytes) else {
        return;
    };
    let disk = fresh();
    put(&disk, first);
    put(&disk, second);
    let untouched = disk.copy(7);

    let Ok((journal, _, stepper)) = open(&disk) else {
        return;
    };
    let found = read_all(&journal);
    for time in [0, 1, 1_000, u64::MAX] {
        let at = journal.seek_time(time).expect("a disk that does not fail");
        assert!(at >= journal.first() && at <= journal.committed().next());
    }
    journal.check().expect("the books balance");
    stepper.close(0);

    for depth in [Depth::Ends, Depth::Everything] {
        inspect(&*untouched.disk(), depth).expect("it opened");
    }
    if repair(&untouched.disk(), aside).is_err() {
        return;
    }
    let (journal, _, stepper) = open(&untouched).expect("it opened before the repair");
    let after = read_all(&journal);
    // Without checksums a repair cannot tell what is a record.
    if !cfg!(fuzzing) {
        assert_eq!(found, after, "a repair changed what can be read");
    }
    stepper.close(0);
}

/// An open segment; a sealed one and its successor; the same compressed, in small blocks.
pub fn seeds() -> Vec<Vec<u8>> {
    [(false, false), (true, false), (true, true)]
        .map(|(sealed, packed)| joined(&sample(sealed, packed)))
        .to_vec()
}

fn joined(disk: &SimDisk) -> Vec<u8> {
    let mut names = disk.names();
    names.retain(|name| name.ends_with(".seg"));
    let mut files = names.iter().filter_map(|name| disk.contents(name));
    let first = files.next().unwrap_or_default();
    let length = u32::try_from(first.len()).expect("short");
    let mut bytes = length.to_le_bytes().to_vec();
    bytes.extend(first);
    bytes.extend(files.flatten());
    bytes
}

fn sample(sealed: bool, packed: bool) -> SimDisk {
    let disk = SimDisk::new(1);
    let (journal, mut stepper) = crate::disk::packing(&disk);
    for group in 0..6 {
        if sealed && group == 4 {
            stepper.seal();
        }
        let record = |n: u64| journal::Record {
            kind: 1 + (n % 3) as u8,
            time: 1_000 * n,
            payload: format!("record {n} {}", "x".repeat(300)).into(),
        };
        let records = (3 * group + 1..3 * group + 4).map(record).collect();
        crate::disk::append(&journal, &mut stepper, records);
    }
    while packed && stepper.pack() {}
    stepper.close(0);
    disk
}

fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(u32::from_le_bytes(*length) as usize)
}

fn put(disk: &SimDisk, file: &[u8]) {
    let base = file.get(16..24).and_then(|base| base.first_chunk());
    let base = base.map_or(1, |base| u64::from_le_bytes(*base));
    if !file.is_empty() {
        disk.put(&format!("{base:020}.seg"), file.to_vec());
    }
}
