//! gRPC messages out of the bytes of a response, whatever the far side sends.
//!
//! ```text
//! data │ 0 · length · message │ 0 · length · mess│age │ 0 · length (too large) · skipped … │ …
//! ```
//! A generated client ends its stream at a message over its limit, and sets aside as much memory as a header asks
//! for. Here such a message is counted and skipped as it comes, so one of them costs itself and nothing else.
//! (Format: gRPC over HTTP/2, Length-Prefixed-Message.)

use bytes::{Buf, Bytes, BytesMut};

/// Bytes of the header: compressed or not, and the length.
const HEADER: usize = 5;

/// What came out.
#[derive(Debug, PartialEq)]
pub(super) enum Item {
    /// A message.
    Message(Bytes),
    /// A message of so many bytes, which are gone.
    TooLarge(usize),
}

/// A header that cannot be.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message is marked {0} where 0 (not compressed) was agreed upon")]
pub(super) struct BadFrame(u8);

/// Takes a stream of bytes apart.
#[derive(Debug)]
pub(super) struct Deframer {
    limit: usize,
    state: State,
    /// Parts of a header, or of a message, that came so far.
    begun: BytesMut,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Header,
    Message(usize),
    /// Bytes still to come of a message that is too large.
    Skip(usize),
}

impl Deframer {
    /// Messages of up to `limit` bytes are kept.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            state: State::Header,
            begun: BytesMut::new(),
        }
    }

    /// Takes the next bytes. Whole messages are slices of them, nothing is copied.
    pub(super) fn take(&mut self, mut data: Bytes, out: &mut Vec<Item>) -> Result<(), BadFrame> {
        loop {
            match self.state {
                State::Header => {
                    let Some(mut header) = self.part(&mut data, HEADER) else {
                        return Ok(());
                    };
                    self.state = self.begin(header.get_u8(), header.get_u32() as usize, out)?;
                }
                State::Message(length) => {
                    let Some(message) = self.part(&mut data, length) else {
                        return Ok(());
                    };
                    out.push(Item::Message(message));
                    self.state = State::Header;
                }
                State::Skip(left) => {
                    let now = left.min(data.len());
                    data.advance(now);
                    if now < left {
                        self.state = State::Skip(left - now);
                        return Ok(());
                    }
                    self.state = State::Header;
                }
            }
        }
    }

    fn begin(&self, mark: u8, length: usize, out: &mut Vec<Item>) -> Result<State, BadFrame> {
        match mark {
            0 if length > self.limit => {
                out.push(Item::TooLarge(length));
                Ok(State::Skip(length))
            }
            0 => Ok(State::Message(length)),
            mark => Err(BadFrame(mark)),
        }
    }

    /// The next `length` bytes, once they have all come.
    fn part(&mut self, data: &mut Bytes, length: usize) -> Option<Bytes> {
        if self.begun.is_empty() && data.len() >= length {
            return Some(data.split_to(length));
        }
        let now = (length - self.begun.len()).min(data.len());
        self.begun.extend_from_slice(&data.split_to(now));
        (self.begun.len() == length).then(|| self.begun.split().freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(message: &[u8]) -> Vec<u8> {
        [&[0][..], &(message.len() as u32).to_be_bytes(), message].concat()
    }

    #[test]
    fn messages_are_the_same_however_the_bytes_are_cut() {
        let sent: Vec<Vec<u8>> = [0, 1, 7, 100, 101, 300, 3]
            .map(|size| vec![size as u8; size])
            .into();
        let bytes = Bytes::from(
            sent.iter()
                .flat_map(|message| frame(message))
                .collect::<Vec<_>>(),
        );
        let expected: Vec<Item> = sent
            .into_iter()
            .map(|message| match message.len() {
                large @ 101.. => Item::TooLarge(large),
                _ => Item::Message(message.into()),
            })
            .collect();
        for cut in 1..=bytes.len() {
            let (mut deframer, mut out) = (Deframer::new(100), Vec::new());
            for part in bytes.chunks(cut) {
                deframer
                    .take(Bytes::copy_from_slice(part), &mut out)
                    .unwrap();
            }
            assert_eq!(out, expected, "cut every {cut}");
        }
    }

    #[test]
    fn a_length_that_was_only_claimed_takes_no_memory() {
        let (mut deframer, mut out) = (Deframer::new(100), Vec::new());
        deframer
            .take(
                Bytes::from_static(&[0, 0xff, 0xff, 0xff, 0xff, 1, 2]),
                &mut out,
            )
            .unwrap();
        assert_eq!(out, [Item::TooLarge(u32::MAX as usize)]);
        assert!(deframer.begun.capacity() < 100);
    }

    #[test]
    fn what_is_compressed_without_being_asked_is_refused() {
        let refused =
            Deframer::new(100).take(Bytes::from_static(&[1, 0, 0, 0, 0]), &mut Vec::new());
        assert_eq!(refused, Err(BadFrame(1)));
    }
}
