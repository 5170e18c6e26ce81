//! Where a thread writes lines that are kept: next to each other, in pieces of memory that many lines share.
//!
//! An allocation a line is one that is freed by some other thread, and at the rate of events that costs as much as the half
//! of writing it. A piece lives as long as any of its lines, so it is small: what one line holds beside itself is bounded.

use std::cell::RefCell;

use bytes::{Bytes, BytesMut};

/// Of shared memory; a longer line has memory of its own.
const PIECE: usize = 16 << 10;
/// Kept to write the next line in; what a longer one took is given back.
const KEPT: usize = 64 << 10;

#[derive(Default)]
struct Pen {
    line: Vec<u8>,
    piece: BytesMut,
}

thread_local! {
    /// Only between two lines is anything in it, and nothing that anybody could see.
    static PEN: RefCell<Pen> = RefCell::default();
}

/// Writes a line, and gives back what it was told about it.
///
/// # Errors
/// Those of `write`; nothing is kept then.
pub(crate) fn write<T, E>(
    write: impl FnOnce(&mut Vec<u8>) -> Result<T, E>,
) -> Result<(Bytes, T), E> {
    PEN.with_borrow_mut(|pen| {
        pen.line.clear();
        let told = write(&mut pen.line)?;
        Ok((pen.keep(), told))
    })
}

impl Pen {
    fn keep(&mut self) -> Bytes {
        if self.line.len() > PIECE / 4 {
            let line = Bytes::copy_from_slice(&self.line);
            self.line.clear();
            self.line.shrink_to(KEPT);
            return line;
        }
        if self.piece.capacity() < self.line.len() {
            self.piece = BytesMut::with_capacity(PIECE);
        }
        self.piece.extend_from_slice(&self.line);
        self.piece.split().freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(line: &[u8]) -> Bytes {
        let written: Result<_, ()> = write(|out| {
            out.extend_from_slice(line);
            Ok(())
        });
        written.unwrap().0
    }

    #[test]
    fn lines_of_every_length_stay_as_they_were_written() {
        let text: Vec<u8> = (0..3 * PIECE).map(|n| n as u8).collect();
        let lengths = [0, 1, 700, 1400, PIECE / 4, PIECE / 4 + 1, PIECE, 3 * PIECE];
        let lines: Vec<Bytes> = (0..100)
            .flat_map(|_| lengths.map(|length| kept(&text[..length])))
            .collect();
        for (n, line) in lines.iter().enumerate() {
            assert_eq!(line, &text[..lengths[n % lengths.len()]]);
        }
    }

    #[test]
    fn short_lines_lie_beside_each_other_and_long_ones_do_not_stay() {
        let (first, second) = (kept(&[1; 500]), kept(&[2; 500]));
        assert_eq!(first.as_ptr() as usize + 500, second.as_ptr() as usize);
        kept(&vec![0; 1 << 20]);
        PEN.with_borrow(|pen| assert!(pen.line.capacity() <= KEPT));
    }

    #[test]
    fn what_fails_leaves_nothing() {
        let failed = write(|out| {
            out.push(7);
            Err::<(), _>("no")
        });
        assert_eq!(failed.unwrap_err(), "no");
        assert_eq!(kept(b"x"), "x");
    }
}
