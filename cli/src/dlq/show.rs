//! `cresset dlq list` and `show`.

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use proto::sinks::Letter;
use proto::{EventId, FieldSet, Kind, View, visible};
use serde_json::{Value, json};

use super::Which;
use crate::connect::{Relay, Trouble, say};
use crate::print::Printer;
use crate::table::table;

/// Rows whose columns are made equally wide; a longer list goes on with columns of its own.
const ROWS: usize = 1000;

/// How they look
#[derive(Args, Clone, Debug)]
pub(super) struct ListArgs {
    #[command(flatten)]
    which: Which,

    /// A table, or JSON
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

/// How they look
#[derive(Args, Clone, Debug)]
pub(super) struct ShowArgs {
    #[command(flatten)]
    which: Which,

    /// A page, or JSON
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// To read
    Text,
    /// One JSON object a letter
    Json,
}

const HEAD: [&str; 6] = [
    "REFUSED",
    "KIND",
    "EVENT",
    "NAMESPACE",
    "OPERATION",
    "REASON",
];

pub(super) async fn list(relay: &Relay, args: &ListArgs) -> Result<ExitCode, Trouble> {
    let mut rows = Vec::new();
    let mut count = 0;
    let write = |rows: &mut Vec<Vec<String>>| say(&table(&HEAD, &std::mem::take(rows)));
    each(relay, &args.which, |letter| {
        count += 1;
        if args.output == Format::Json {
            return say(&line(&letter));
        }
        rows.push(row(&letter));
        if rows.len() == ROWS {
            write(&mut rows)?;
        }
        Ok(())
    })
    .await?;
    if !rows.is_empty() {
        write(&mut rows)?;
    } else if count == 0 && args.output == Format::Text {
        say(&format!("{}: no dead letters like that\n", args.which.sink))?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn show(relay: &Relay, args: &ShowArgs) -> Result<ExitCode, Trouble> {
    let mut printer = Printer::for_stdout(crate::print::Format::Text);
    let mut count = 0;
    each(relay, &args.which, |letter| {
        count += 1;
        match args.output {
            Format::Text => say(&page(&letter, &mut printer)),
            Format::Json => say(&line(&letter)),
        }
    })
    .await?;
    if count == 0 && args.output == Format::Text {
        say(&format!("{}: no dead letters like that\n", args.which.sink))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn each(
    relay: &Relay,
    which: &Which,
    mut letter: impl FnMut(Letter) -> Result<(), Trouble>,
) -> Result<(), Trouble> {
    let failed = |status| relay.trouble(status);
    let request = which.request();
    let letters = relay.sinks().list_letters(request).await;
    let mut letters = letters.map_err(failed)?.into_inner();
    while let Some(found) = letters.message().await.map_err(failed)? {
        letter(found)?;
    }
    Ok(())
}

fn kind(letter: &Letter) -> Option<Kind> {
    Kind::try_from(letter.kind()).ok()
}

fn id(letter: &Letter) -> String {
    EventId::try_from(&letter.id[..]).map_or_else(|_| String::new(), |id| id.to_string())
}

/// As RFC 3339, in seconds.
fn time(letter: &Letter) -> String {
    let time = jiff::Timestamp::from_second(letter.time_ns / 1_000_000_000);
    time.map_or_else(|_| String::new(), |time| time.to_string())
}

fn row(letter: &Letter) -> Vec<String> {
    let Some(kind) = kind(letter) else {
        let blank = || String::new();
        let why = letter.unreadable.clone();
        return vec![time(letter), blank(), blank(), blank(), blank(), why];
    };
    let view = View::read(kind, &letter.payload);
    vec![
        time(letter),
        kind.name().to_lowercase(),
        id(letter),
        view.namespace.to_owned(),
        view.operation.to_owned(),
        letter.reason.clone(),
    ]
}

fn page(letter: &Letter, printer: &mut Printer) -> String {
    let mut page = format!("Refused: {}\n", time(letter));
    let mut add = |name: &str, value: &str| {
        if !value.is_empty() {
            page += &format!("{name}: {}\n", visible::text(value));
        }
    };
    let Some(kind) = kind(letter) else {
        add("Unreadable", &letter.unreadable);
        return page + "\n";
    };
    add("Event", &id(letter));
    if letter.sequence > 0 {
        add("Journal", &letter.sequence.to_string());
    }
    add("Reason", &letter.reason);
    for line in letter.answer.lines() {
        add("Answer", line);
    }
    match printer.event(kind, &letter.payload, None) {
        Ok(text) => page += &String::from_utf8_lossy(text),
        Err(malformed) => page += &format!("the event cannot be printed: {malformed}\n"),
    }
    page + "\n"
}

fn line(letter: &Letter) -> String {
    let mut object = json!({"number": letter.number, "refused": time(letter)});
    let mut put = |key: &str, value: Value| object[key] = value;
    match kind(letter) {
        None => put("unreadable", letter.unreadable.clone().into()),
        Some(kind) => {
            put("event_id", id(letter).into());
            if letter.sequence > 0 {
                put("journal", letter.sequence.into());
            }
            put("reason", letter.reason.clone().into());
            put("answer", letter.answer.clone().into());
            put("kind", kind.name().to_lowercase().into());
            put("event", event(kind, letter));
        }
    }
    format!("{object}\n")
}

/// The event as JSON with all fields; null where it is none.
fn event(kind: Kind, letter: &Letter) -> Value {
    let id = EventId::try_from(&letter.id[..]).ok();
    let mut json = Vec::new();
    let written = proto::json::write(kind, &letter.payload, id, FieldSet::All, &mut json);
    written
        .ok()
        .and_then(|()| serde_json::from_slice(&json).ok())
        .unwrap_or_default()
}
