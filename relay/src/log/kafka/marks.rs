//! Places that every relay of the log understands.
//!
//! ```text
//! "c" offsets of all partitions      what was read live: where its block begins
//! "t" milliseconds, 8 bytes          what is older than all blocks: there everybody reads in the order of time
//! ```
//! What lies before a mark was read by whoever has it. The way back is the same for both: the newest place of this relay's own
//! order before which lies nothing that lies behind the mark. What lies between the two is read again.

use bytes::Bytes;
use journal::{ReadError, Seq};

use super::cut::Cut;
use super::timeline::Timeline;
use crate::log::{Mark, Marked, Marks};

const CUT: u8 = b'c';
const TIME: u8 = b't';

impl Marks for Timeline {
    fn mark(&self, seq: Seq, time: u64) -> Mark {
        match self.block_of(seq) {
            Some((from, until)) => Mark {
                bytes: [&[CUT][..], &from.to_bytes()].concat().into(),
                until,
            },
            None => Mark {
                bytes: Bytes::from([&[TIME][..], &(time / 1_000_000).to_be_bytes()].concat()),
                until: seq.next(),
            },
        }
    }

    fn find(&self, mark: &[u8]) -> Result<Option<Marked>, ReadError> {
        let found = match mark.split_first() {
            Some((&CUT, cut)) => match Cut::from_bytes(cut) {
                Some(cut) => self.after(cut.of_length(self.topic().partitions()))?,
                None => return Ok(None),
            },
            Some((&TIME, time)) => match time.try_into().map(u64::from_be_bytes) {
                Ok(time) => Marked {
                    next: self.since(i64::try_from(time).unwrap_or(i64::MAX))?,
                    missed: 0,
                },
                Err(_) => return Ok(None),
            },
            _ => return Ok(None),
        };
        Ok(Some(found))
    }

    fn is_exact(&self, seq: Seq) -> bool {
        self.block_of(seq).is_some()
    }
}
