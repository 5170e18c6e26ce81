//! An event as lines of text: what stdout and files hold.

use proto::{FieldSet, Kind, Malformed, visible};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::batch::Encoded;

/// How an event is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// As `karmor logs` prints it. Fields of ours are not shown.
    Text,
    /// One object a line, as KubeArmor's relay writes it.
    #[default]
    Json,
    /// The same, indented by two spaces.
    PrettyJson,
}

/// A format and the fields it shows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lines {
    pub(crate) format: Format,
    pub(crate) fields: FieldSet,
}

impl Lines {
    /// Appends the event and its newline; on error `out` is as it was.
    pub(crate) fn write(self, event: &Encoded, out: &mut Vec<u8>) -> Result<(), Malformed> {
        match self.format {
            Format::Text => {
                let inner = event.event();
                return proto::text::write(inner.kind, &inner.payload, out);
            }
            Format::Json => event.put_json(self.fields, out)?,
            Format::PrettyJson => {
                let compact = event.json(self.fields)?;
                out.extend_from_slice(&proto::json::pretty(&compact));
            }
        }
        out.push(b'\n');
        Ok(())
    }

    /// As [`Lines::write`], for a terminal: characters that would command it are shown.
    pub(crate) fn write_visible(self, event: &Encoded, out: &mut Vec<u8>) -> Result<(), Malformed> {
        if self.format == Format::Text {
            let inner = event.event();
            let payload = visible::event(inner.kind, &inner.payload);
            return proto::text::write(inner.kind, &payload, out);
        }
        let mut line = event.json(self.fields)?.into_owned();
        visible::json(&mut line);
        if self.format == Format::PrettyJson {
            line = proto::json::pretty(&line);
        }
        out.append(&mut line);
        out.push(b'\n');
        Ok(())
    }
}

/// The reason a sink gives for an event that no renderer can read.
pub(crate) fn unreadable(kind: Kind, malformed: &Malformed) -> String {
    format!("cannot be printed as {kind}: {malformed}")
}
