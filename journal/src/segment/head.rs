//! A segment's header, which stands twice, and the owner's checkpoint.
//!
//! ```text
//! header, 64 bytes, at 0 and again at 4096 (another page: one unreadable page must not cost a segment its salt)
//!   0 magic "CRSTJRNL"   8 version u16   10 codec u8 (0 plain, 1 zstd blocks)   11 reserved
//!  12 salt u32          16 base sequence u64                   24 created, unix ns, u64
//!  32 checkpoint length u32   36 checkpoint crc u32            40 reserved, 20 bytes           60 crc u32
//! ```

use std::io;

use super::{BLOCK, CHECKPOINT, ZSTD, get, put};
use crate::{
    Seq,
    disk::{DiskFile, read_full, write_all},
    format,
    record::{checksum, is_whole},
};

const MAGIC: &[u8; 8] = b"CRSTJRNL";
pub(super) const COPY: usize = 4096;
/// Where the header stands.
pub(crate) const COPIES: [u64; 2] = [0, COPY as u64];
/// The longest checkpoint, in bytes.
pub(crate) const MAX_CHECKPOINT: u32 = 64 << 20;

/// What the header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// The format version that the segment was written in.
    pub(crate) version: u16,
    pub(crate) codec: u8,
    pub(crate) salt: u32,
    pub(crate) base: Seq,
    pub(crate) created: u64,
    pub(crate) checkpoint_len: u32,
    pub(crate) checkpoint_crc: u32,
}

impl Head {
    /// Where the first record is.
    pub(crate) fn data_start(&self) -> u64 {
        CHECKPOINT + u64::from(self.checkpoint_len)
    }

    pub(super) fn encode(&self) -> [u8; BLOCK] {
        let mut out = [0; BLOCK];
        put(&mut out, 0, MAGIC);
        put(&mut out, 8, &self.version.to_le_bytes());
        put(&mut out, 10, &[self.codec]);
        put(&mut out, 12, &self.salt.to_le_bytes());
        put(&mut out, 16, &self.base.0.to_le_bytes());
        put(&mut out, 24, &self.created.to_le_bytes());
        put(&mut out, 32, &self.checkpoint_len.to_le_bytes());
        put(&mut out, 36, &self.checkpoint_crc.to_le_bytes());
        let crc = checksum(0, &out[..60]);
        put(&mut out, 60, &crc.to_le_bytes());
        out
    }

    fn decode(bytes: &[u8; BLOCK]) -> Result<Head, BadHead> {
        if !bytes.starts_with(MAGIC) {
            return Err(BadHead::Damaged);
        }
        let version = u16::from_le_bytes(get(bytes, 8));
        let whole = is_whole(0, &bytes[..60], u32::from_le_bytes(get(bytes, 60)));
        if !format::is_known(version) {
            // Another version may keep its checksum elsewhere, so it cannot be asked for.
            return Err(BadHead::Version(version));
        }
        let codec = bytes[10];
        if !whole {
            return Err(BadHead::Damaged);
        }
        if codec > ZSTD {
            return Err(BadHead::Codec(codec));
        }
        let checkpoint_len = u32::from_le_bytes(get(bytes, 32));
        if checkpoint_len > MAX_CHECKPOINT {
            return Err(BadHead::Damaged);
        }
        Ok(Head {
            version,
            codec,
            salt: u32::from_le_bytes(get(bytes, 12)),
            base: Seq(u64::from_le_bytes(get(bytes, 16))),
            created: u64::from_le_bytes(get(bytes, 24)),
            checkpoint_len,
            checkpoint_crc: u32::from_le_bytes(get(bytes, 36)),
        })
    }

    /// Reads the header: the first copy that is whole. `Ok(Err(_))` says that neither is.
    pub(crate) fn read(file: &dyn DiskFile) -> io::Result<Result<Head, BadHead>> {
        let (first, second) = match Head::copies(file) {
            (Err(error), Err(_)) => return Err(error),
            (first, second) => (
                first.unwrap_or(Err(BadHead::Damaged)),
                second.unwrap_or(Err(BadHead::Damaged)),
            ),
        };
        Ok(match (first, second) {
            (Ok(head), _) | (_, Ok(head)) => Ok(head),
            (Err(BadHead::Codec(codec)), _) | (_, Err(BadHead::Codec(codec))) => {
                Err(BadHead::Codec(codec))
            }
            (Err(BadHead::Version(a)), Err(BadHead::Version(b))) if a == b => {
                Err(BadHead::Version(a))
            }
            _ => Err(BadHead::Damaged),
        })
    }

    /// Both copies as they are.
    pub(crate) fn copies(file: &dyn DiskFile) -> (io::Result<HeadCopy>, io::Result<HeadCopy>) {
        let copy = |at: u64| -> io::Result<HeadCopy> {
            let mut bytes = [0; BLOCK];
            read_full(file, &mut bytes, at)?;
            Ok(Head::decode(&bytes))
        };
        let [first, second] = COPIES.map(copy);
        (first, second)
    }

    /// Writes the header over one of its copies and syncs it.
    pub(crate) fn restore(&self, file: &dyn DiskFile, at: u64) -> io::Result<()> {
        write_all(file, &self.encode(), at)?;
        file.fdatasync()
    }

    /// Reads the checkpoint; `None` where it is damaged.
    pub(crate) fn read_checkpoint(&self, file: &dyn DiskFile) -> io::Result<Option<Vec<u8>>> {
        if file.length()? < self.data_start() {
            return Ok(None);
        }
        let mut bytes = vec![0; self.checkpoint_len as usize];
        let n = read_full(file, &mut bytes, CHECKPOINT)?;
        let whole = n == bytes.len() && is_whole(self.salt, &bytes, self.checkpoint_crc);
        Ok(whole.then_some(bytes))
    }
}

type HeadCopy = Result<Head, BadHead>;

/// Why there is no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadHead {
    /// Neither copy is whole.
    Damaged,
    /// Both copies say that they are of this other version.
    Version(u16),
    /// The header is whole and its records are written in a way that this program does not know.
    Codec(u8),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FORMAT, segment::PLAIN};

    #[test]
    fn a_header_survives_the_loss_of_either_copy_but_not_of_both() {
        let head = Head {
            version: FORMAT,
            codec: PLAIN,
            salt: 9,
            base: Seq(77),
            created: 5,
            checkpoint_len: 3,
            checkpoint_crc: 8,
        };
        let whole = head.encode();
        for bit in 0..whole.len() * 8 {
            let mut bad = whole;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Head::decode(&bad).is_err(), "bit {bit} went unnoticed");
        }
        assert_eq!(Head::decode(&whole), Ok(head));
    }
}
