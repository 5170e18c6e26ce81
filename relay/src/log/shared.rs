//! What can be asked of a log that relays share, whichever of them took an event and whichever delivers it.

use std::ops::ControlFlow;

use bytes::Bytes;
use journal::{Entry, ReadError, Seq};

/// All of a log that relays share.
pub trait Shared: Send + Sync {
    /// The next record of every partition that a sink is to be given, by the relay that feeds it: of the sum that this relay
    /// keeps, if it is one. None: no relay has begun there. Blocks.
    ///
    /// # Errors
    /// The brokers.
    fn stands(&self, sink: &str) -> Result<Vec<Option<Seq>>, ReadError>;

    /// Shows records until `look` breaks off: those of these partitions, or all; a stretch after the other, the newest first,
    /// each in order. There is no index. Blocks.
    ///
    /// Where it was broken off the answer is since when (unix nanoseconds) there is nothing that was not shown.
    ///
    /// # Errors
    /// The brokers.
    fn backwards(
        &self,
        partitions: Option<&[usize]>,
        look: &mut dyn FnMut(Placed) -> ControlFlow<()>,
    ) -> Result<Option<u64>, ReadError>;
}

/// A record and where it is.
#[derive(Clone, Debug)]
pub struct Placed {
    /// Its partition.
    pub partition: i32,
    /// The relay that took it.
    pub relay: Bytes,
    /// What it is, with its number in the partition: its offset and one.
    pub entry: Entry,
}
