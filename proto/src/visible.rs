//! Events for a terminal: characters that command one (escape sequences, line feeds inside a value, marks that turn the
//! direction of writing) are shown instead of obeyed. A process may call itself whatever it likes.
//!
//! What goes into files, pipes and sockets is never changed by this: there the bytes are the contract.

use crate::Kind;
use crate::fields::{self, FieldType, Table};

/// Does a terminal obey it rather than show it?
#[must_use]
pub fn is_command(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn json_escaped(c: char) -> Option<String> {
    is_command(c).then(|| format!("\\u{:04x}", u32::from(c)))
}

/// A text with every such character written out.
#[must_use]
pub fn text(value: &str) -> String {
    let shown = |c: char| match c {
        '\n' => "\\n".to_string(),
        '\r' => "\\r".to_string(),
        '\t' => "\\t".to_string(),
        c if is_command(c) && u32::from(c) < 0x100 => format!("\\x{:02x}", u32::from(c)),
        c if is_command(c) => format!("\\u{:04x}", u32::from(c)),
        c => c.to_string(),
    };
    value.chars().map(shown).collect()
}

/// One line of JSON with every such character written as JSON does. The ASCII ones were escaped by who wrote the line; what
/// is left of them stands inside strings.
pub fn json(line: &mut Vec<u8>) {
    let Ok(written) = std::str::from_utf8(line) else {
        return; // no JSON of ours
    };
    if written.contains(is_command) {
        let escaped: String = written
            .chars()
            .map(|c| json_escaped(c).unwrap_or_else(|| c.to_string()))
            .collect();
        *line = escaped.into_bytes();
    }
}

/// The event with every such character of its texts written out. Bytes that are no event stay as they are, for the
/// renderer to refuse.
#[must_use]
pub fn event(kind: Kind, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len());
    match copy(payload, &Texts::Of(fields::table(kind)), &mut out) {
        Some(()) => out,
        None => payload.to_vec(),
    }
}

/// Which fields of a message are text.
enum Texts {
    Of(&'static Table),
    All,
}

/// Copies encoded fields, with their texts made visible. None: they are not well-formed.
fn copy(mut from: &[u8], texts: &Texts, out: &mut Vec<u8>) -> Option<()> {
    while !from.is_empty() {
        let start = from;
        let key = varint(&mut from)?;
        let fixed = match key & 7 {
            0 => {
                varint(&mut from)?;
                0
            }
            1 => 8,
            5 => 4,
            2 => {
                let length = usize::try_from(varint(&mut from)?).ok()?;
                let value = from.split_off(..length)?;
                put_varint(key, out);
                put_bytes(&copied(value, key >> 3, texts)?, out);
                continue;
            }
            _ => return None,
        };
        from.split_off(..fixed)?;
        out.extend_from_slice(&start[..start.len() - from.len()]);
    }
    Some(())
}

fn copied(value: &[u8], number: u64, texts: &Texts) -> Option<Vec<u8>> {
    let written = |value: &[u8]| {
        std::str::from_utf8(value)
            .ok()
            .map(|value| text(value).into_bytes())
    };
    let nested = |texts: Texts| {
        let mut out = Vec::new();
        copy(value, &texts, &mut out)?;
        Some(out)
    };
    let table = match texts {
        Texts::All => return written(value),
        Texts::Of(table) => table,
    };
    match table
        .by_number(u32::try_from(number).ok()?)
        .map(|field| field.ty)
    {
        Some(FieldType::Text | FieldType::TextList) => written(value),
        Some(FieldType::TextMap) => nested(Texts::All),
        Some(FieldType::Message(table)) => nested(Texts::Of(table)),
        _ => Some(value.to_vec()),
    }
}

fn varint(from: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *from.split_off_first()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn put_varint(value: u64, out: &mut Vec<u8>) {
    prost::encoding::encode_varint(value, out);
}

fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    put_varint(bytes.len() as u64, out); // usize is at most 64 bits
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_written_out_and_all_else_stays() {
        assert_eq!(
            text("\x1b[2J \u{202e}a\nb ä 火"),
            "\\x1b[2J \\u202ea\\nb ä 火"
        );
        let mut line = "{\"PodName\":\"\u{9b}2J\u{2066}é\"}".as_bytes().to_vec();
        json(&mut line);
        assert_eq!(
            String::from_utf8(line).unwrap(),
            "{\"PodName\":\"\\u009b2J\\u2066é\"}"
        );
    }

    #[test]
    fn bytes_that_are_no_event_stay_as_they_are() {
        assert_eq!(event(Kind::Alert, b"\x0a\xff"), b"\x0a\xff");
    }
}
