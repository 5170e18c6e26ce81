//! Events on the way to somebody's eyes.
//!
//! Into a file or a pipe go exactly the bytes that karmor prints. On a terminal the same text gets a colour, and
//! characters that command a terminal (escape sequences, line feeds inside a value, marks that turn the direction of
//! writing) are shown instead of obeyed: a process may call itself whatever it likes.

use std::io::IsTerminal;

use anstyle::{AnsiColor, Style};
use proto::fields::{self, FieldType, Table};
use proto::{EventId, FieldSet, Kind, Malformed, View, json, text};

/// How events look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// A block of lines for each event, as karmor prints it
    Text,
    /// One line of JSON for each event
    Json,
    /// JSON over several lines
    PrettyJson,
}

/// Turns events into what is printed.
#[derive(Debug)]
pub(crate) struct Printer {
    format: Format,
    /// Show control characters instead of sending them.
    escape: bool,
    colours: bool,
    out: Vec<u8>,
}

impl Printer {
    /// For standard output: careful and coloured on a terminal, exact elsewhere.
    pub(crate) fn for_stdout(format: Format) -> Printer {
        let stdout = std::io::stdout();
        let terminal = stdout.is_terminal();
        let colours =
            terminal && anstream::AutoStream::choice(&stdout) != anstream::ColorChoice::Never;
        Printer {
            format,
            escape: terminal,
            colours,
            out: Vec::new(),
        }
    }

    /// For a file: exact.
    pub(crate) fn exact(format: Format) -> Printer {
        Printer {
            format,
            escape: false,
            colours: false,
            out: Vec::new(),
        }
    }

    /// One event, with the newline at its end.
    ///
    /// # Errors
    /// The payload is not an event.
    pub(crate) fn event(
        &mut self,
        kind: Kind,
        payload: &[u8],
        id: Option<EventId>,
    ) -> Result<&[u8], Malformed> {
        self.out.clear();
        match self.format {
            Format::Text => self.text(kind, payload)?,
            Format::Json => self.json(kind, payload, id)?,
            Format::PrettyJson => {
                self.json(kind, payload, id)?;
                self.out = json::pretty(&self.out);
            }
        }
        if self.format != Format::Text {
            self.out.push(b'\n');
        }
        Ok(&self.out)
    }

    fn json(&mut self, kind: Kind, payload: &[u8], id: Option<EventId>) -> Result<(), Malformed> {
        json::write(kind, payload, id, FieldSet::KubeArmor, &mut self.out)?;
        if self.escape && String::from_utf8_lossy(&self.out).contains(is_command) {
            // JSON has escaped the ASCII ones already; of what is left, all stands inside strings.
            let text = String::from_utf8_lossy(&self.out);
            let escaped: String = text
                .chars()
                .map(|c| json_escaped(c).unwrap_or_else(|| c.to_string()))
                .collect();
            self.out = escaped.into_bytes();
        }
        Ok(())
    }

    fn text(&mut self, kind: Kind, payload: &[u8]) -> Result<(), Malformed> {
        if !self.escape {
            return text::write(kind, payload, &mut self.out);
        }
        let payload = shown(kind, payload);
        text::write(kind, &payload, &mut self.out)?;
        if self.colours {
            self.out = coloured(style(kind, &payload), &self.out);
        }
        Ok(())
    }
}

/// Block red, Audit yellow, everything else quiet.
fn style(kind: Kind, payload: &[u8]) -> Style {
    let colour = |colour: AnsiColor| Style::new().fg_color(Some(colour.into())).bold();
    let view = View::read(kind, payload);
    match (kind, view.action) {
        (Kind::Alert, action) if action.starts_with("Block") => colour(AnsiColor::Red),
        (Kind::Alert, action) if action.starts_with("Audit") => colour(AnsiColor::Yellow),
        (Kind::Message, _) if matches!(view.level, "WARN" | "ERROR") => colour(AnsiColor::Yellow),
        _ => Style::new().dimmed(),
    }
}

/// Colours the head of an event and the lines that say what was done.
fn coloured(style: Style, text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + 64);
    for (at, line) in text.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let told = at == 0 || line.starts_with(b"Action: ") || line.starts_with(b"Result: ");
        if told {
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            out.extend(style.render().to_string().bytes());
            out.extend(line);
            out.extend(style.render_reset().to_string().bytes());
            out.push(b'\n');
        } else {
            out.extend(line);
        }
    }
    out
}

/// Does a terminal obey it rather than show it?
fn is_command(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn json_escaped(c: char) -> Option<String> {
    is_command(c).then(|| format!("\\u{:04x}", u32::from(c)))
}

/// A text with every such character written out.
pub(crate) fn visible(text: &str) -> String {
    let shown = |c: char| match c {
        '\n' => "\\n".to_string(),
        '\r' => "\\r".to_string(),
        '\t' => "\\t".to_string(),
        c if is_command(c) && u32::from(c) < 0x100 => format!("\\x{:02x}", u32::from(c)),
        c if is_command(c) => format!("\\u{:04x}", u32::from(c)),
        c => c.to_string(),
    };
    text.chars().map(shown).collect()
}

/// The event with every such character of its texts written out. Bytes that are no event stay as they are, for the
/// renderer to refuse.
fn shown(kind: Kind, payload: &[u8]) -> Vec<u8> {
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
    let text = |value: &[u8]| {
        std::str::from_utf8(value)
            .ok()
            .map(|text| visible(text).into_bytes())
    };
    let nested = |texts: Texts| {
        let mut out = Vec::new();
        copy(value, &texts, &mut out)?;
        Some(out)
    };
    let table = match texts {
        Texts::All => return text(value),
        Texts::Of(table) => table,
    };
    match table
        .by_number(u32::try_from(number).ok()?)
        .map(|field| field.ty)
    {
        Some(FieldType::Text | FieldType::TextList) => text(value),
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
    use prost::Message;
    use proto::feeder::{Alert, Podowner};

    use super::*;

    fn alert() -> Vec<u8> {
        let alert = Alert {
            updated_time: "2026-01-01T00:00:00.123456Z".into(),
            host_pid: 7,
            source: "/bin/\x1b[2Jsh\n== Alert ==".into(),
            owner: Some(Podowner {
                name: "\u{202e}x".into(),
                ..Default::default()
            }),
            event_data: [("K".to_string(), "a\rb".to_string())].into(),
            a_tags: vec!["t\tt".into()],
            action: "Block".into(),
            rule_id: 3,
            ..Default::default()
        };
        alert.encode_to_vec()
    }

    #[test]
    fn a_file_gets_exactly_the_bytes_of_the_renderers() {
        let mut text = Vec::new();
        text::write(Kind::Alert, &alert(), &mut text).unwrap();
        assert_eq!(
            Printer::exact(Format::Text)
                .event(Kind::Alert, &alert(), None)
                .unwrap(),
            text
        );
        let mut line = Vec::new();
        json::write(Kind::Alert, &alert(), None, FieldSet::KubeArmor, &mut line).unwrap();
        let pretty = [json::pretty(&line), b"\n".to_vec()].concat();
        line.push(b'\n');
        assert_eq!(
            Printer::exact(Format::Json)
                .event(Kind::Alert, &alert(), None)
                .unwrap(),
            line
        );
        assert_eq!(
            Printer::exact(Format::PrettyJson)
                .event(Kind::Alert, &alert(), None)
                .unwrap(),
            pretty
        );
    }

    #[test]
    fn a_terminal_is_shown_control_characters_and_not_given_them() {
        let mut printer = Printer {
            format: Format::Text,
            escape: true,
            colours: false,
            out: Vec::new(),
        };
        let text = String::from_utf8(printer.event(Kind::Alert, &alert(), None).unwrap().to_vec())
            .unwrap();
        assert!(
            text.contains("Source: /bin/\\x1b[2Jsh\\n== Alert ==\n"),
            "{text}"
        );
        assert!(
            text.contains("ATags: [t\\tt]") && text.contains("map[K:a\\rb]"),
            "{text}"
        );
        assert!(
            text.contains("Owner: map[Name:\\u202ex]") && text.contains("HostPID: 7\n"),
            "{text}"
        );
        assert_eq!(
            text.matches("== Alert").count(),
            2,
            "one head, one harmless value"
        );
        let mut printer = Printer {
            format: Format::Json,
            escape: true,
            colours: false,
            out: Vec::new(),
        };
        let line = String::from_utf8(printer.event(Kind::Alert, &alert(), None).unwrap().to_vec())
            .unwrap();
        assert!(
            line.contains("\\u202ex") && !line.trim_end().contains(is_command),
            "{line}"
        );
    }

    #[test]
    fn colours_go_around_whole_lines_and_change_nothing_else() {
        let mut printer = Printer {
            format: Format::Text,
            escape: true,
            colours: true,
            out: Vec::new(),
        };
        let text = String::from_utf8(printer.event(Kind::Alert, &alert(), None).unwrap().to_vec())
            .unwrap();
        assert!(
            text.starts_with("\x1b[1m\x1b[31m== Alert / 2026-01-01 00:00:00.123456 ==\x1b[0m\n"),
            "{text:?}"
        );
        assert!(text.contains("\x1b[31mAction: Block\x1b[0m\n"), "{text:?}");
    }

    #[test]
    fn broken_bytes_are_an_error_and_nothing_worse() {
        for bytes in [&b"\x0a\xff"[..], b"\x0a", b"\x9a\x06", b"\x0b"] {
            let mut printer = Printer {
                format: Format::Text,
                escape: true,
                colours: true,
                out: Vec::new(),
            };
            assert!(printer.event(Kind::Alert, bytes, None).is_err());
        }
    }
}
