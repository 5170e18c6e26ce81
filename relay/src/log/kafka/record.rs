//! An event as a record of the topic, and back.

use bytes::Bytes;
use journal::{Entry, Seq};
use proto::Kind;
use rdkafka::message::{
    BorrowedMessage, Header, Headers as _, Message as _, OwnedHeaders, Timestamp,
};

/// The header: the kind, then the relay that took the event.
const HEADER: &str = "cresset";

/// What a record weighs besides its key and value: the header, and what the broker's format puts around it.
pub(super) const AROUND: usize = 160;

/// A place in a partition as readers number it.
pub(super) fn number(offset: i64) -> u64 {
    u64::try_from(offset).unwrap_or(0) + 1
}

/// The place that a reader's number stands for.
pub(super) fn offset(number: u64) -> i64 {
    i64::try_from(number.saturating_sub(1)).unwrap_or(i64::MAX)
}

/// A record that was read.
#[derive(Clone, Debug)]
pub(super) struct Read {
    pub(super) partition: i32,
    pub(super) offset: i64,
    /// Milliseconds since 1970.
    pub(super) time: i64,
    /// 0: the record is none of ours.
    kind: u8,
    relay: Bytes,
    value: Bytes,
}

/// What goes with every event of a kind.
pub(super) fn headers(kind: Kind, relay: &str) -> OwnedHeaders {
    let mut value = vec![u8::from(kind)];
    value.extend_from_slice(relay.as_bytes());
    OwnedHeaders::new().insert(Header {
        key: HEADER,
        value: Some(&value),
    })
}

impl Read {
    pub(super) fn new(message: &BorrowedMessage<'_>) -> Read {
        let time = match message.timestamp() {
            Timestamp::CreateTime(time) | Timestamp::LogAppendTime(time) => time,
            Timestamp::NotAvailable => 0,
        };
        let header = message
            .headers()
            .and_then(|headers| headers.iter().find(|header| header.key == HEADER))
            .and_then(|header| header.value)
            .and_then(<[u8]>::split_first);
        let (kind, relay) = header.map_or((0, &[][..]), |(kind, relay)| (*kind, relay));
        Read {
            partition: message.partition(),
            offset: message.offset(),
            time,
            kind,
            relay: Bytes::copy_from_slice(relay),
            value: Bytes::copy_from_slice(message.payload().unwrap_or_default()),
        }
    }

    /// Whether this relay took it.
    pub(super) fn is_of(&self, relay: &str) -> bool {
        self.relay == relay.as_bytes()
    }

    /// The relay that took it.
    pub(super) fn relay(&self) -> Bytes {
        self.relay.clone()
    }

    /// What it weighs in memory.
    pub(super) fn weight(&self) -> usize {
        self.value.len() + size_of::<Entry>()
    }

    /// In the order of all partitions.
    pub(super) fn order(&self) -> (i64, i32, i64) {
        (self.time, self.partition, self.offset)
    }

    pub(super) fn entry(self, seq: u64) -> Entry {
        Entry {
            seq: Seq(seq),
            kind: self.kind,
            time: u64::try_from(self.time).unwrap_or(0) * 1_000_000,
            payload: self.value,
        }
    }
}
