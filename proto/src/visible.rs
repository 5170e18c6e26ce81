//! Events for a terminal: characters that command one (escape sequences, line feeds inside a value, marks that turn the
//! direction of writing) are shown instead of obeyed. A process may call itself whatever it likes.
//!
//! What goes into files, pipes and sockets is never changed by this: there the bytes are the contract.

use crate::Kind;
use crate::rewrite::{self, Change};

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
    let written = rewrite::texts(kind, payload, |part| match part.text.contains(is_command) {
        true => Change::To(text(part.text)),
        false => Change::Keep,
    });
    written.unwrap_or_else(|| payload.to_vec())
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
