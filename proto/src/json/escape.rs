//! JSON strings as Go writes them.
//!
//! Almost every string of an event is plain ASCII, so the common case is one comparison pass, eight or sixteen bytes at
//! a time, and one copy. Only text with something to escape, or beyond ASCII, is looked at letter by letter.

use crate::check::{Malformed, utf8};

/// Appends `text` in quotes. `name` is the field, for the error.
#[inline]
pub(super) fn quoted(text: &[u8], name: &'static str, out: &mut Vec<u8>) -> Result<(), Malformed> {
    out.push(b'"');
    if plain(text) {
        out.extend_from_slice(text);
    } else {
        escaped(utf8(text, name)?, out);
    }
    out.push(b'"');
    Ok(())
}

/// Whether `text` is ASCII that stands for itself. What is left behind the last whole step is looked at together with
/// bytes before it, once more.
#[inline]
fn plain(text: &[u8]) -> bool {
    if let Some(last) = text.last_chunk::<16>() {
        let (blocks, _) = text.as_chunks::<16>();
        blocks.iter().all(none_special) && none_special(last)
    } else if let (Some(first), Some(last)) = (text.first_chunk::<8>(), text.last_chunk::<8>()) {
        !(word_special(u64::from_le_bytes(*first)) | word_special(u64::from_le_bytes(*last)))
    } else if let (Some(first), Some(last)) = (text.first_chunk::<4>(), text.last_chunk::<4>()) {
        let (first, last) = (u32::from_le_bytes(*first), u32::from_le_bytes(*last));
        !word_special(u64::from(first) << 32 | u64::from(last))
    } else {
        !text.iter().any(|&byte| special(byte))
    }
}

/// Written so that the compiler compares sixteen bytes at once.
#[inline]
fn none_special(bytes: &[u8; 16]) -> bool {
    !bytes
        .iter()
        .fold(false, |found, &byte| found | special(byte))
}

/// Whether one of eight bytes is special: borrows tell which bytes are below a bound or zero (Warren, "Hacker's Delight",
/// 6-1). Two letters that differ in one bit are found together by setting it.
#[inline]
fn word_special(word: u64) -> bool {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let below = |word: u64, bound: u64| word.wrapping_sub(EACH * bound) & !word;
    let is = |word: u64, byte: u8| below(word ^ (EACH * u64::from(byte)), 1);
    let found = word
        | below(word, 0x20)
        | is(word, b'\\')
        | is(word | (EACH * u64::from(b'<' ^ b'>')), b'>')
        | is(word | (EACH * u64::from(b'"' ^ b'&')), b'&');
    found & (EACH * 0x80) != 0
}

/// Not ASCII, a control character, or one of the five that are escaped.
#[inline]
fn special(byte: u8) -> bool {
    // As a signed number, anything beyond ASCII is negative.
    ((byte as i8) < 0x20)
        | (byte == b'"')
        | (byte == b'\\')
        | (byte == b'<')
        | (byte == b'>')
        | (byte == b'&')
}

#[cold]
fn escaped(text: &str, out: &mut Vec<u8>) {
    let bytes = text.as_bytes();
    let mut copied = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        let (code, length): ([u8; 6], usize) = match byte {
            b'"' | b'\\' => ([b'\\', byte, 0, 0, 0, 0], 2),
            b'\n' => (*b"\\n\0\0\0\0", 2),
            b'\r' => (*b"\\r\0\0\0\0", 2),
            b'\t' => (*b"\\t\0\0\0\0", 2),
            0x08 => (*b"\\b\0\0\0\0", 2),
            0x0c => (*b"\\f\0\0\0\0", 2),
            0..0x20 | b'<' | b'>' | b'&' => (unicode(u16::from(byte)), 6),
            // U+2028 and U+2029 are E2 80 A8 and E2 80 A9; JavaScript once took them for line ends.
            0xe2 => match bytes.get(at + 1..at + 3) {
                Some(&[0x80, last @ (0xa8 | 0xa9)]) => {
                    (unicode(0x2000 | u16::from(last - 0x80)), 6)
                }
                _ => continue,
            },
            _ => continue,
        };
        out.extend_from_slice(&bytes[copied..at]);
        out.extend_from_slice(&code[..length]);
        copied = at + if byte == 0xe2 { 3 } else { 1 };
    }
    out.extend_from_slice(&bytes[copied..]);
}

fn unicode(code: u16) -> [u8; 6] {
    let digit = |shift: u16| b"0123456789abcdef"[usize::from(code >> shift & 15)];
    [b'\\', b'u', digit(12), digit(8), digit(4), digit(0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quote(text: &str) -> String {
        let mut out = Vec::new();
        quoted(text.as_bytes(), "Data", &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn plain_text_is_copied_at_every_length() {
        for length in 0..70 {
            let text = "x/ ~\u{7f}"
                .chars()
                .cycle()
                .take(length)
                .collect::<String>();
            assert_eq!(quote(&text), format!("\"{text}\""));
        }
    }

    #[test]
    fn a_special_byte_is_found_at_every_place() {
        for length in 1..40 {
            for place in 0..length {
                let mut text = "x".repeat(length);
                text.replace_range(place..=place, "&");
                assert_eq!(
                    quote(&text),
                    format!("\"{}\"", text.replace('&', "\\u0026"))
                );
            }
        }
    }

    #[test]
    fn every_byte_is_judged_alike_at_every_length() {
        for byte in 0..=u8::MAX {
            for length in 1..20 {
                for at in 0..length {
                    let mut text = vec![b'x'; length];
                    text[at] = byte;
                    assert_eq!(plain(&text), !special(byte), "{byte} at {at} of {length}");
                }
            }
        }
    }

    #[test]
    fn escapes_are_those_of_go() {
        assert_eq!(
            quote("\"\\\n\r\t\u{8}\u{c}\0\u{1b}\u{1f}<>&/\u{7f}"),
            r#""\"\\\n\r\t\b\f\u0000\u001b\u001f\u003c\u003e\u0026/"#.to_owned() + "\u{7f}\""
        );
        assert_eq!(
            quote("한글 é 🔥 a\u{2028}b\u{2029}\u{2030}"),
            "\"한글 é 🔥 a\\u2028b\\u2029\u{2030}\""
        );
    }

    #[test]
    fn what_is_not_utf8_is_an_error() {
        for bytes in [&b"\xff"[..], b"plain \xe2\x80", b"0123456789abcdef\xe2"] {
            let error = quoted(bytes, "Data", &mut Vec::new());
            assert_eq!(error, Err(Malformed::Utf8 { name: "Data" }));
        }
    }
}
