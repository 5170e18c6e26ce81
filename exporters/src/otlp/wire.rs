//! Protobuf, written straight into a buffer: as much of it as a request of logs needs.
//!
//! Keys are given as the byte that they are on the wire, number and type together; no message of OTLP that is written here
//! has a field above 15. Source: <https://protobuf.dev/programming-guides/encoding/>.

/// How many bytes a number takes as a varint.
#[inline]
pub(super) fn varint_len(value: usize) -> usize {
    // Seven bits a byte, and one byte for 0.
    (usize::BITS - (value | 1).leading_zeros()).div_ceil(7) as usize
}

/// Writes a number as a varint.
#[inline]
pub(super) fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// How many bytes a field of so many bytes takes with its key.
#[inline]
pub(super) fn field_len(length: usize) -> usize {
    1 + varint_len(length) + length
}

/// Writes what stands before the bytes of a field.
#[inline]
pub(super) fn header(key: u8, length: usize, out: &mut Vec<u8>) {
    out.push(key);
    varint(length as u64, out);
}

/// Writes a text, bytes, or a message that is encoded already.
#[inline]
pub(super) fn field(key: u8, content: &[u8], out: &mut Vec<u8>) {
    header(key, content.len(), out);
    out.extend_from_slice(content);
}

/// Writes a number of 64 bits.
#[inline]
pub(super) fn fixed64(key: u8, number: u64, out: &mut Vec<u8>) {
    out.push(key);
    out.extend_from_slice(&number.to_le_bytes());
}

/// Writes a message whose length is not known before. One of 128 bytes or more is moved once, to make room for its length.
pub(super) fn nested<R>(key: u8, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>) -> R) -> R {
    out.extend_from_slice(&[key, 0]);
    let start = out.len();
    let written = write(out);
    let length = out.len() - start;
    if let Ok(short @ 0..0x80) = u8::try_from(length) {
        out[start - 1] = short;
    } else {
        make_room(start, length, out);
    }
    written
}

#[cold]
fn make_room(start: usize, length: usize, out: &mut Vec<u8>) {
    let more = varint_len(length) - 1;
    out.resize(out.len() + more, 0);
    out.copy_within(start..start + length, start + more);
    let mut rest = length;
    for byte in &mut out[start - 1..start + more] {
        *byte = rest as u8 | 0x80;
        rest >>= 7;
    }
    out[start + more - 1] &= 0x7f;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_take_the_bytes_that_prost_gives_them() {
        for bit in 0..64 {
            for value in [1_u64 << bit, (1_u64 << bit) - 1, u64::MAX] {
                let (mut ours, mut theirs) = (Vec::new(), Vec::new());
                varint(value, &mut ours);
                prost::encoding::encode_varint(value, &mut theirs);
                assert_eq!(ours, theirs, "{value}");
                assert_eq!(varint_len(value as usize), theirs.len(), "{value}");
            }
        }
    }

    #[test]
    fn a_message_has_its_length_before_it_whatever_that_is() {
        for length in [0, 1, 127, 128, 300, 16_383, 16_384, 3_000_000] {
            let content: Vec<u8> = (0..length).map(|n: usize| n as u8).collect();
            let (mut ours, mut theirs) = (b"before".to_vec(), b"before".to_vec());
            nested(0x12, &mut ours, |out| out.extend_from_slice(&content));
            field(0x12, &content, &mut theirs);
            assert_eq!(ours, theirs, "{length}");
            assert_eq!(field_len(length), ours.len() - b"before".len(), "{length}");
        }
    }
}
