//! Protobuf fields, written by number.

use bytes::BufMut as _;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

/// Where `feeder.Alert` and `feeder.Log` have the same field under different numbers.
pub(crate) struct Layout {
    pub(crate) kind: u32,
    pub(crate) source: u32,
    pub(crate) operation: u32,
    pub(crate) resource: u32,
    pub(crate) data: u32,
    pub(crate) result: u32,
    pub(crate) image: u32,
    pub(crate) parent: u32,
    pub(crate) process: u32,
    pub(crate) host_ppid: u32,
    pub(crate) labels: u32,
    pub(crate) owner: u32,
    pub(crate) cwd: u32,
    pub(crate) exec_event: u32,
    pub(crate) node_id: u32,
    pub(crate) event_data: u32,
}

impl Layout {
    pub(crate) const ALERT: Layout = Layout {
        kind: 17,
        source: 18,
        operation: 19,
        resource: 20,
        data: 21,
        result: 23,
        image: 24,
        parent: 25,
        process: 26,
        host_ppid: 27,
        labels: 29,
        owner: 31,
        cwd: 32,
        exec_event: 36,
        node_id: 38,
        event_data: 43,
    };
    pub(crate) const LOG: Layout = Layout {
        kind: 13,
        source: 14,
        operation: 15,
        resource: 16,
        data: 17,
        result: 18,
        image: 19,
        parent: 20,
        process: 21,
        host_ppid: 22,
        labels: 23,
        owner: 24,
        cwd: 25,
        exec_event: 27,
        node_id: 28,
        event_data: 33,
    };
}

/// A message that is being written.
pub(crate) struct Fields<'a>(&'a mut Vec<u8>);

impl<'a> Fields<'a> {
    /// Begins a message in place of what is in `out`.
    pub(crate) fn new(out: &'a mut Vec<u8>) -> Self {
        out.clear();
        Self(out)
    }

    pub(crate) fn number(&mut self, number: u32, value: u64) {
        // A zero is what an absent field means.
        if value != 0 {
            encode_key(number, WireType::Varint, self.0);
            encode_varint(value, self.0);
        }
    }

    pub(crate) fn fixed64(&mut self, number: u32, value: u64) {
        encode_key(number, WireType::SixtyFourBit, self.0);
        self.0.put_u64_le(value);
    }

    pub(crate) fn bytes(&mut self, number: u32, value: &[u8]) {
        encode_key(number, WireType::LengthDelimited, self.0);
        encode_varint(value.len() as u64, self.0);
        self.0.extend_from_slice(value);
    }

    pub(crate) fn text(&mut self, number: u32, value: &str) {
        self.bytes(number, value.as_bytes());
    }

    /// Texts with commas between them.
    pub(crate) fn joined(&mut self, number: u32, texts: &[&str]) {
        let length = texts.iter().map(|text| text.len() + 1).sum::<usize>() - 1;
        encode_key(number, WireType::LengthDelimited, self.0);
        encode_varint(length as u64, self.0);
        for (at, text) in texts.iter().enumerate() {
            if at > 0 {
                self.0.push(b',');
            }
            self.0.extend_from_slice(text.as_bytes());
        }
    }

    /// A message whose fields 1, 2, … are these texts; what is empty is left out.
    pub(crate) fn texts(&mut self, number: u32, texts: &[impl AsRef<str>]) {
        let shown = || {
            let numbered = (1..).zip(texts.iter().map(AsRef::as_ref));
            numbered.filter(|(_, text)| !text.is_empty())
        };
        let length: usize = shown()
            .map(|(_, text)| 1 + encoded_len_varint(text.len() as u64) + text.len())
            .sum();
        encode_key(number, WireType::LengthDelimited, self.0);
        encode_varint(length as u64, self.0);
        for (number, text) in shown() {
            self.text(number, text);
        }
    }

    /// Fields that were written before.
    pub(crate) fn raw(&mut self, fields: &[u8]) {
        self.0.extend_from_slice(fields);
    }
}
