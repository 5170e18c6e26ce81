//! One record: a header of 24 bytes and the payload, little-endian, not aligned.
//!
//! ```text
//!  0        4                8               16        24
//!  ├─ crc ──┼─ flags │ len ──┼─ kind │ seq ──┼─ time ──┼─ payload …
//!     u32      u8   u24         u8     u56      u64       len bytes
//! ```
//!
//! The checksum is CRC-32 (IEEE) over everything after itself, started from the segment's random salt: bytes of
//! another segment, of a file that was here before, or of a payload that imitates a record do not verify.
//! `seq` and `kind` share a word, as do `len` and `flags`: 56 bits of sequence last 2,000 years at a million a second.

use crate::{Record, Seq};

/// Bytes before the payload.
pub(crate) const HEADER: usize = 24;

/// Longest payload of one record, in bytes (16 MiB less one).
pub const MAX_PAYLOAD: usize = (1 << 24) - 1;

/// Largest sequence number that fits.
pub(crate) const MAX_SEQ: u64 = (1 << 56) - 1;

/// Flag: first record of a group commit. All groups before it were synced when it was written.
pub(crate) const GROUP_START: u8 = 1;

/// Flag: no record, but a hole that a crash left inside a group commit that was never acknowledged. `time` says how many
/// numbers from `seq` on it covers; the payload is what stood there.
pub(crate) const VOID: u8 = 2;

/// The header, decoded and not yet believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) crc: u32,
    pub(crate) flags: u8,
    pub(crate) len: usize,
    pub(crate) kind: u8,
    pub(crate) seq: u64,
    pub(crate) time: u64,
}

impl Header {
    /// Decodes the first 24 bytes; `None` where there are fewer.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Header> {
        let bytes: &[u8; HEADER] = bytes.first_chunk()?;
        let [
            c0,
            c1,
            c2,
            c3,
            flags,
            l0,
            l1,
            l2,
            kind,
            s0,
            s1,
            s2,
            s3,
            s4,
            s5,
            s6,
            time @ ..,
        ] = *bytes;
        Some(Header {
            crc: u32::from_le_bytes([c0, c1, c2, c3]),
            flags,
            len: u32::from_le_bytes([l0, l1, l2, 0]) as usize,
            kind,
            seq: u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, 0]),
            time: u64::from_le_bytes(time),
        })
    }

    /// One past the last number that this stands for.
    pub(crate) fn next(&self) -> u64 {
        let count = if self.flags & VOID == 0 { 1 } else { self.time };
        self.seq.saturating_add(count)
    }

    /// Bytes of header and payload together.
    pub(crate) fn frame(&self) -> usize {
        HEADER + self.len
    }

    /// Whether `frame` (header and payload, whole) is what was written.
    pub(crate) fn verify(&self, salt: u32, frame: &[u8]) -> bool {
        frame
            .get(4..)
            .is_some_and(|rest| is_whole(salt, rest, self.crc))
    }
}

/// Bytes that a record takes in a segment.
pub(crate) fn size(record: &Record) -> u64 {
    (HEADER + record.payload.len()) as u64
}

/// Appends the record to `out`. The payload's length was checked before (≤ [`MAX_PAYLOAD`]).
pub(crate) fn encode(out: &mut Vec<u8>, salt: u32, seq: Seq, flags: u8, record: &Record) {
    let start = out.len();
    let len = record.payload.len() as u32;
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&((len << 8) | u32::from(flags)).to_le_bytes());
    out.extend_from_slice(&((seq.0 << 8) | u64::from(record.kind)).to_le_bytes());
    out.extend_from_slice(&record.time.to_le_bytes());
    out.extend_from_slice(&record.payload);
    let crc = checksum(salt, out.get(start + 4..).unwrap_or_default());
    if let Some(place) = out.get_mut(start..start + 4) {
        place.copy_from_slice(&crc.to_le_bytes());
    }
}

/// Makes `hole` (at least a header long) a void that covers `count` numbers from `seq` on. `false` if it is too long.
pub(crate) fn fill_void(hole: &mut [u8], salt: u32, seq: u64, count: u64) -> bool {
    let Some(len) = hole
        .len()
        .checked_sub(HEADER)
        .filter(|len| *len <= MAX_PAYLOAD)
    else {
        return false;
    };
    let mut header = Vec::with_capacity(HEADER);
    header.extend_from_slice(&(((len as u32) << 8) | u32::from(VOID)).to_le_bytes());
    header.extend_from_slice(&(seq << 8).to_le_bytes());
    header.extend_from_slice(&count.to_le_bytes());
    if let Some(place) = hole.get_mut(4..HEADER) {
        place.copy_from_slice(&header);
    }
    let crc = checksum(salt, hole.get(4..).unwrap_or_default());
    if let Some(place) = hole.get_mut(..4) {
        place.copy_from_slice(&crc.to_le_bytes());
    }
    true
}

/// Whether `bytes` have this checksum. Of everything under a fuzzer, which would hardly ever guess one and so not get past
/// it; what comes after may not trust bytes because their checksum is right.
pub(crate) fn is_whole(salt: u32, bytes: &[u8], crc: u32) -> bool {
    cfg!(fuzzing) || checksum(salt, bytes) == crc
}

/// CRC-32 (IEEE) of `bytes`, started from `salt`.
pub(crate) fn checksum(salt: u32, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(salt);
    hasher.update(bytes);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn sample() -> Vec<u8> {
        let mut out = Vec::new();
        let record = Record {
            kind: 3,
            time: 7_000_000_001,
            payload: Bytes::from_static(b"payload"),
        };
        encode(
            &mut out,
            0xdead_beef,
            Seq(0x0001_0203_0405),
            GROUP_START,
            &record,
        );
        out
    }

    #[test]
    fn the_header_is_the_24_bytes_drawn() {
        let bytes = sample();
        assert_eq!(bytes.len(), 24 + 7);
        assert_eq!(&bytes[4..16], &[1, 7, 0, 0, 3, 5, 4, 3, 2, 1, 0, 0]);
        let header = Header::decode(&bytes).unwrap();
        assert_eq!((header.flags, header.len, header.kind), (GROUP_START, 7, 3));
        assert_eq!((header.seq, header.time), (0x0001_0203_0405, 7_000_000_001));
        assert!(header.verify(0xdead_beef, &bytes));
    }

    #[test]
    fn any_flipped_bit_and_any_other_salt_fails_the_checksum() {
        let good = sample();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let header = Header::decode(&bad).unwrap();
            let whole = header.frame() == bad.len() && header.verify(0xdead_beef, &bad);
            assert!(!whole, "bit {bit} went unnoticed");
        }
        let header = Header::decode(&good).unwrap();
        assert!(!header.verify(0xdead_bee0, &good));
    }
}
