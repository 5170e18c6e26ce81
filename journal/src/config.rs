//! The journal's settings.

use std::time::Duration;

/// Settings of one journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// A segment is sealed when it would grow past this many bytes (default 64 MiB). At most half of `max_size`.
    pub segment_bytes: u64,
    /// Bound of all segments together, in bytes (default 20 GiB); at most one segment more is ever used.
    pub max_size: u64,
    /// Records written longer ago go, once every cursor has passed them (default 7 days); a quarter or 5 seconds later at
    /// most, and the newest segment with the next append. `Duration::MAX`: never.
    pub max_age: Duration,
    /// Most bytes in one group commit (default 4 MiB); one append is never divided.
    pub group_bytes: u64,
    /// Bytes of appended records that may wait for the writer (default 16 MiB); further appends wait before it.
    pub queue_bytes: u64,
    /// Bytes of closed segments, newest first, that are left in the page cache for whoever reads them late (default 512 MiB).
    /// Older ones leave it once every cursor has passed them.
    pub warm_bytes: u64,
    /// A cursor is made durable at most once in this time (default 100 ms).
    pub cursor_sync: Duration,
    /// How sealed segments are stored (default: as they were written).
    pub compression: Compression,
    /// Bytes of records that are compressed together (default 128 KiB): what a search has to decompress, and what damage
    /// to one place costs at most.
    pub block_bytes: u64,
}

/// How sealed segments are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// As they were written. Segments that are compressed already stay so and are read.
    #[default]
    None,
    /// Compressed with Zstandard, in the background, some time after they were sealed.
    Zstd {
        /// 1 (fast) to 22 (small).
        level: i32,
    },
}

impl Default for Config {
    fn default() -> Config {
        Config {
            segment_bytes: 64 << 20,
            max_size: 20 << 30,
            max_age: Duration::from_secs(7 * 24 * 3600),
            group_bytes: 4 << 20,
            queue_bytes: 16 << 20,
            warm_bytes: 512 << 20,
            cursor_sync: Duration::from_millis(100),
            compression: Compression::None,
            block_bytes: 128 << 10,
        }
    }
}

impl Config {
    /// The same with values that fit each other.
    pub(crate) fn fitted(mut self) -> Config {
        self.max_size = self.max_size.max(8 << 10);
        self.segment_bytes = self.segment_bytes.clamp(4 << 10, self.max_size / 2);
        self.group_bytes = self.group_bytes.clamp(1, self.segment_bytes);
        // tokio's semaphore counts permits (bytes here) in 32 bits per request.
        self.queue_bytes = self.queue_bytes.clamp(1 << 10, 1 << 30);
        self.block_bytes = self.block_bytes.clamp(1 << 10, 4 << 20);
        self
    }
}
