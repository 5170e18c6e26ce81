//! The short way through the door: a sender of ours writes events without surprises, and those are let in with a few
//! comparisons a field.
//!
//! ```text
//! payload ─ plain? ─ yes ─▶ in
//!              └──── no ──▶ the long way, which says what is wrong, or that nothing is
//! ```
//! "No" is no verdict, so this may be as strict as is convenient. Whatever gets a "yes" passes the long way, too.

use crate::check::ID_FIELD;
use crate::fields::{FieldType, How, Table};

/// Keys of a map's entry (<https://protobuf.dev/programming-guides/proto3/#maps>): both texts are length-delimited.
const ENTRY_KEY: usize = 1 << 3 | 2;
const ENTRY_VALUE: usize = 2 << 3 | 2;
/// The key of the field that no sender may send.
const ID_KEY: usize = (ID_FIELD as usize) << 3 | 2;

/// Whether these are known fields with their own wire types and good text, and nothing else.
pub(crate) fn plain(table: &Table, bytes: &[u8]) -> bool {
    all(
        bytes,
        |key| match key {
            ID_KEY => How::Not,
            key => table.place(key).how,
        },
        |key, message| {
            matches!(
                table.by_number(key as u32 >> 3).map(|field| field.ty),
                Some(FieldType::Message(nested)) if plain(nested, message)
            )
        },
    )
}

/// An entry of a map: key and value.
fn entry(bytes: &[u8]) -> bool {
    let how = |key| match key {
        ENTRY_KEY | ENTRY_VALUE => How::Text,
        _ => How::Not,
    };
    all(bytes, how, |_, _| false)
}

/// Whether all fields are as `how` says of their keys; `message` judges those in it.
#[inline(always)]
fn all(bytes: &[u8], how: impl Fn(usize) -> How, message: impl Fn(usize, &[u8]) -> bool) -> bool {
    let mut at = 0;
    while at < bytes.len() {
        let Some((key, from)) = short(bytes, at) else {
            return false;
        };
        let how = how(key);
        let end = match how {
            How::Not => None,
            How::Int32 | How::Uint32 | How::OptionalUint32 | How::Whole64 => {
                varint_end(bytes, from)
            }
            How::Fixed64 => Some(from + 8),
            How::Text | How::TextList | How::TextMap | How::Message | How::Bytes => {
                let value = short(bytes, from)
                    .and_then(|(length, from)| bytes.get(from..from + length).zip(Some(from)));
                let Some((value, from)) = value else {
                    return false;
                };
                let good = match how {
                    How::Text | How::TextList => is_utf8(value),
                    How::TextMap => entry(value),
                    How::Message => message(key, value),
                    _ => true,
                };
                good.then_some(from + value.len())
            }
        };
        match end {
            Some(end) => at = end,
            None => return false,
        }
    }
    at == bytes.len()
}

/// A varint of one or two bytes, and where it ends.
#[inline(always)]
pub(crate) fn short(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    let first = usize::from(*bytes.get(at)?);
    if first < 0x80 {
        return Some((first, at + 1));
    }
    let second = usize::from(*bytes.get(at + 1)?);
    (second < 0x80).then_some((first & 0x7f | second << 7, at + 2))
}

/// Where a varint ends. One of ten bytes, a negative number, goes the long way: its last byte has a say.
#[inline(always)]
fn varint_end(bytes: &[u8], from: usize) -> Option<usize> {
    let rest = bytes.get(from..)?;
    let last = rest.iter().take(9).position(|&byte| byte < 0x80)?;
    Some(from + last + 1)
}

/// Whether `bytes` are UTF-8. Almost all text is short and ASCII, and then this is a few words long.
#[inline]
pub(crate) fn is_utf8(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut seen = words
        .iter()
        .fold(0, |seen, word| seen | u64::from_ne_bytes(*word));
    match bytes.last_chunk::<8>() {
        Some(last) => seen |= u64::from_ne_bytes(*last),
        None => rest.iter().for_each(|&byte| seen |= u64::from(byte)),
    }
    seen & 0x8080_8080_8080_8080 == 0 || std::str::from_utf8(bytes).is_ok()
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::event::Kind;
    use crate::feeder;
    use crate::fields::table;

    #[test]
    fn text_is_judged_as_the_standard_library_judges_it() {
        for length in 0..40 {
            let mut text = vec![b'x'; length];
            assert!(is_utf8(&text));
            for at in 0..length {
                for byte in [0x7f, 0x80, 0xc3, 0xff] {
                    text[at] = byte;
                    assert_eq!(is_utf8(&text), std::str::from_utf8(&text).is_ok());
                }
                text[at] = b'x';
            }
        }
        assert!(is_utf8("한글 é 🔥".as_bytes()));
    }

    #[test]
    fn an_ordinary_event_goes_the_short_way_and_one_cut_short_does_not() {
        let alert = feeder::Alert {
            timestamp: 1_767_225_600,
            pod_name: "cart".into(),
            host_pid: 4_000_000,
            owner: Some(feeder::Podowner {
                name: "cart".into(),
                ..Default::default()
            }),
            event_data: [("Syscall".to_owned(), "SYS_OPENAT".to_owned())].into(),
            args: vec!["x".repeat(300), "é".into()],
            exec_id: 7,
            policy_digest: vec![1; 32],
            ..Default::default()
        };
        let bytes = alert.encode_to_vec();
        assert!(plain(table(Kind::Alert), &bytes));
        let ends: Vec<usize> = (0..bytes.len())
            .filter(|&end| plain(table(Kind::Alert), &bytes[..end]))
            .collect();
        // Only where one of the nine fields ends.
        assert_eq!(ends.len(), 9, "{ends:?}");
    }

    #[test]
    fn what_a_sender_may_not_send_or_what_is_not_known_goes_the_long_way() {
        for (number, ty) in [(100, 2), (99, 2), (1, 2), (2, 0)] {
            let mut bytes = Vec::new();
            prost::encoding::encode_varint(number << 3 | ty, &mut bytes);
            bytes.push(0);
            assert!(!plain(table(Kind::Alert), &bytes), "{number}");
        }
    }
}
