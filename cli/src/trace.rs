//! `cresset trace`: where one event is, as a page or as JSON.

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use prost::Message as _;
use proto::operate::{AtSink, Journaled, Spooled, TraceReply, TraceRequest};
use proto::{EventId, FieldSet, Kind, feeder, visible};
use serde_json::{Value, json};

use crate::connect::{AdminArgs, Trouble, say};
use crate::table::table;

/// Which event, of which relay
#[derive(Args, Clone, Debug)]
pub(crate) struct TraceArgs {
    #[command(flatten)]
    admin: AdminArgs,

    /// The event's id: 32 hex digits
    #[arg(value_name = "EVENT_ID")]
    id: EventId,

    /// How the answer looks
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A page to read
    Text,
    /// One JSON object
    Json,
}

/// Runs `cresset trace`.
///
/// # Errors
/// An unreachable relay, an output that cannot be written.
pub(crate) async fn trace(args: TraceArgs) -> Result<ExitCode, Trouble> {
    let relay = args.admin.connect().await?;
    let id = args.id.to_bytes().to_vec().into();
    let reply = relay
        .operate()
        .trace(TraceRequest { id })
        .await
        .map_err(|status| relay.trouble(status))?
        .into_inner();
    say(&match args.output {
        Format::Text => page(args.id, &reply),
        Format::Json => format!("{:#}\n", whole(args.id, &reply)),
    })?;
    Ok(if is_somewhere(&reply) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// It is in a place, was in one, or is counted as lost.
fn is_somewhere(reply: &TraceReply) -> bool {
    let spooled = reply.spool.as_ref().is_some_and(|spool| spool.in_spool);
    reply.received || spooled || !reply.losses.is_empty()
}

const HEAD: [&str; 5] = ["SINK", "TYPE", "OUTCOME", "WHEN", "WHERE, OR WHY"];

fn page(id: EventId, reply: &TraceReply) -> String {
    let mut text = format!("event     {id}\n");
    if let Some(spool) = &reply.spool {
        text += &format!("sensor    {}\n", visible::text(&spooled(spool)));
    }
    text += &match &reply.journal {
        Some(journal) => format!("journal   {}\n", journaled(journal)),
        None => format!("journal   not there: {}\n", visible::text(&reply.note)),
    };
    if let Some(journal) = &reply.journal
        && let Some(event) = event(journal)
    {
        text += &format!("what      {}\n", visible::text(&event));
    }
    for loss in &reply.losses {
        let (place, why) = (visible::text(&loss.r#where), visible::text(&loss.reason));
        let (count, message) = (loss.count, loss.sequence);
        text += &format!(
            "lost      one of {count} events counted at {place}: {why} (message {message} in the journal)\n"
        );
    }
    if !reply.sinks.is_empty() {
        let rows: Vec<Vec<String>> = reply.sinks.iter().map(row).collect();
        text += &table(&HEAD, &rows);
    }
    text
}

fn spooled(spool: &Spooled) -> String {
    let Spooled {
        sensor,
        connected,
        in_spool,
        first,
        end,
    } = spool;
    let seen = if *connected { "connected" } else { "away" };
    let held = if *in_spool {
        format!(
            "waits in its spool, or has not been made yet (its spool began at {first} when it connected)"
        )
    } else if first < end {
        format!("its spool held {first} to {} when it connected", end - 1)
    } else {
        "its spool was empty when it connected".to_owned()
    };
    format!("{sensor}, {seen}; {held}")
}

fn journaled(journal: &Journaled) -> String {
    format!(
        "event {}, segment {:020}.seg, journaled {}",
        journal.sequence,
        journal.segment,
        when(journal.time_ns)
    )
}

/// Kind, workload and what it did, in one line.
fn event(journal: &Journaled) -> Option<String> {
    let kind = Kind::try_from(journal.kind()).ok()?;
    let view = proto::View::read(kind, &journal.payload);
    let words = [view.namespace, view.pod, view.operation, view.resource];
    let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
    let text = match kind {
        Kind::Message => feeder::Message::decode(&journal.payload[..]).ok()?.message,
        Kind::Alert | Kind::Log => words.join(" "),
    };
    Some(format!("{}: {text}", kind.name()))
}

fn row(at: &AtSink) -> Vec<String> {
    let where_or_why = match (at.place.as_str(), at.reason.as_str()) {
        ("", why) => why.to_owned(),
        (place, "") => place.to_owned(),
        (place, why) => format!("{place}; {why}"),
    };
    let time = match at.time_ns {
        0 => "-".to_owned(),
        time => when(time),
    };
    vec![
        at.sink.clone(),
        at.r#type.clone(),
        at.outcome.clone(),
        time,
        where_or_why,
    ]
}

/// To the second: that is how finely a sink's passing is noted.
fn when(unix_ns: i64) -> String {
    let time = Timestamp::from_nanosecond(i128::from(unix_ns)).unwrap_or_default();
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn whole(id: EventId, reply: &TraceReply) -> Value {
    json!({
        "id": id.to_string(),
        "received": reply.received,
        "sensor": reply.spool.as_ref().map(|spool| json!({
            "sensor": spool.sensor, "connected": spool.connected, "in_spool": spool.in_spool,
            "first": spool.first, "end": spool.end,
        })),
        "journal": reply.journal.as_ref().map(|journal| json!({
            "sequence": journal.sequence, "segment": journal.segment, "time_ns": journal.time_ns,
            "event": shown(id, journal),
        })),
        "note": reply.note,
        "sinks": reply.sinks.iter().map(|at| json!({
            "sink": at.sink, "type": at.r#type, "outcome": at.outcome, "time_ns": at.time_ns,
            "reason": at.reason, "place": at.place,
        })).collect::<Vec<_>>(),
        "losses": reply.losses.iter().map(|loss| json!({
            "sequence": loss.sequence, "where": loss.r#where, "count": loss.count, "reason": loss.reason,
        })).collect::<Vec<_>>(),
    })
}

/// The event itself, as `cresset logs --json` shows it.
fn shown(id: EventId, journal: &Journaled) -> Option<Value> {
    let kind = Kind::try_from(journal.kind()).ok()?;
    let mut out = Vec::new();
    proto::json::write(kind, &journal.payload, Some(id), FieldSet::All, &mut out).ok()?;
    serde_json::from_slice(&out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_says_where_an_event_is_and_what_became_of_it() {
        let at = |sink: &str, outcome: &str, reason: &str, place: &str| AtSink {
            sink: sink.to_owned(),
            r#type: "file".to_owned(),
            outcome: outcome.to_owned(),
            time_ns: if place.is_empty() {
                0
            } else {
                1_767_225_600_000_000_000
            },
            reason: reason.to_owned(),
            place: place.to_owned(),
        };
        let reply = TraceReply {
            received: true,
            journal: Some(Journaled {
                sequence: 42,
                segment: 1,
                time_ns: 1_767_225_600_000_000_000,
                ..Journaled::default()
            }),
            sinks: vec![
                at("archive", "delivered", "", "/var/log/events.jsonl"),
                at("siem", "pending", "3 events wait before it\u{1b}[2J", ""),
            ],
            ..TraceReply::default()
        };
        let id: EventId = "0badc0de00000001000000000000002a".parse().unwrap();
        assert_eq!(
            page(id, &reply),
            "event     0badc0de00000001000000000000002a\n\
             journal   event 42, segment 00000000000000000001.seg, journaled 2026-01-01T00:00:00Z\n\
             SINK     TYPE  OUTCOME    WHEN                  WHERE, OR WHY\n\
             archive  file  delivered  2026-01-01T00:00:00Z  /var/log/events.jsonl\n\
             siem     file  pending    -                     3 events wait before it\\x1b[2J\n"
        );
        assert!(is_somewhere(&reply));
        let nowhere = TraceReply {
            note: "this relay knows nothing of its stream".to_owned(),
            ..TraceReply::default()
        };
        assert!(!is_somewhere(&nowhere));
        assert!(page(id, &nowhere).contains("not there: this relay knows nothing"));
    }
}
