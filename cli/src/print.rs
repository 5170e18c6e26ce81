//! Events on the way to somebody's eyes.
//!
//! Into a file or a pipe go exactly the bytes that karmor prints. On a terminal the same text gets a colour, and
//! characters that command a terminal (escape sequences, line feeds inside a value, marks that turn the direction of
//! writing) are shown instead of obeyed: a process may call itself whatever it likes.

use std::io::IsTerminal;

use anstyle::{AnsiColor, Style};
use proto::{EventId, FieldSet, Kind, Malformed, View, json, text, visible};

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
    /// Of JSON.
    fields: FieldSet,
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
            fields: FieldSet::KubeArmor,
            escape: terminal,
            colours,
            out: Vec::new(),
        }
    }

    /// For a file: exact.
    pub(crate) fn exact(format: Format) -> Printer {
        Printer {
            format,
            fields: FieldSet::KubeArmor,
            escape: false,
            colours: false,
            out: Vec::new(),
        }
    }

    /// JSON with these fields.
    pub(crate) fn show(&mut self, fields: FieldSet) {
        self.fields = fields;
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
        json::write(kind, payload, id, self.fields, &mut self.out)?;
        if self.escape {
            visible::json(&mut self.out);
        }
        Ok(())
    }

    fn text(&mut self, kind: Kind, payload: &[u8]) -> Result<(), Malformed> {
        if !self.escape {
            return text::write(kind, payload, &mut self.out);
        }
        let payload = visible::event(kind, payload);
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
    fn json_has_the_id_of_an_event_when_all_fields_are_asked_for_and_only_then() {
        let id = EventId {
            stream: proto::StreamId([1; 8]),
            sequence: 2,
        };
        let mut printer = Printer::exact(Format::Json);
        let printed = |printer: &mut Printer| {
            let line = printer.event(Kind::Alert, &alert(), Some(id)).unwrap();
            String::from_utf8(line.to_vec()).unwrap()
        };
        assert!(!printed(&mut printer).contains("EventID"));
        printer.show(FieldSet::All);
        let line = printed(&mut printer);
        assert!(
            line.contains(r#""EventID":"01010101010101010000000000000002""#),
            "{line}"
        );
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
            fields: FieldSet::KubeArmor,
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
            fields: FieldSet::KubeArmor,
            escape: true,
            colours: false,
            out: Vec::new(),
        };
        let line = String::from_utf8(printer.event(Kind::Alert, &alert(), None).unwrap().to_vec())
            .unwrap();
        assert!(
            line.contains("\\u202ex") && !line.trim_end().contains(visible::is_command),
            "{line}"
        );
    }

    #[test]
    fn colours_go_around_whole_lines_and_change_nothing_else() {
        let mut printer = Printer {
            format: Format::Text,
            fields: FieldSet::KubeArmor,
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
                fields: FieldSet::KubeArmor,
                escape: true,
                colours: true,
                out: Vec::new(),
            };
            assert!(printer.event(Kind::Alert, bytes, None).is_err());
        }
    }
}
