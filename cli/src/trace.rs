//! `cresset trace`: where events are, as pages or as JSON.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use prost::Message as _;
use proto::operate::{AtSink, Journaled, Spooled, TraceManyRequest, TraceReply, TraceRequest};
use proto::{EventId, FieldSet, Kind, feeder, visible};
use serde_json::{Value, json};

use crate::connect::{AdminArgs, Relay, Trouble, say};
use crate::table::table;

/// Ids that a relay is asked for at one time.
const TOGETHER: usize = 10_000;

/// Which events, of which relay
#[derive(Args, Clone, Debug)]
pub(crate) struct TraceArgs {
    #[command(flatten)]
    admin: AdminArgs,

    /// The event's id: 32 hex digits
    #[arg(value_name = "EVENT_ID", required_unless_present = "from_file")]
    id: Option<EventId>,

    /// Many events: a file with an id a line, or `-`. Answers come as they are found, as one JSON object a line with `-o json`;
    /// the events themselves are left out, and destinations are not asked
    #[arg(long, value_name = "FILE", conflicts_with = "id")]
    from_file: Option<PathBuf>,

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
/// An unreachable relay, a file that holds something else, an output that cannot be written.
pub(crate) async fn trace(args: TraceArgs) -> Result<ExitCode, Trouble> {
    let all_there = match (&args.from_file, args.id) {
        (Some(file), _) => {
            let ids = ids(file)?;
            many(&args.admin.connect().await?, &ids, args.output).await?
        }
        (None, Some(id)) => one(&args.admin.connect().await?, id, args.output).await?,
        // clap asks for one of them.
        (None, None) => return Err(Trouble::Usage("which event?".to_owned())),
    };
    Ok(if all_there {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn one(relay: &Relay, id: EventId, output: Format) -> Result<bool, Trouble> {
    let request = TraceRequest {
        id: id.to_bytes().to_vec().into(),
    };
    let reply = relay.operate().trace(request).await;
    let reply = reply.map_err(|status| relay.trouble(status))?.into_inner();
    say(&match output {
        Format::Text => page(id, &reply),
        Format::Json => format!("{:#}\n", whole(id, &reply)),
    })?;
    Ok(is_somewhere(&reply))
}

/// Asks for all of them, some at a time; answers come as they are found.
async fn many(relay: &Relay, ids: &[EventId], output: Format) -> Result<bool, Trouble> {
    let (mut there, mut nowhere) = (0_u64, 0_u64);
    for ids in ids.chunks(TOGETHER) {
        let ids = ids.iter().map(|id| id.to_bytes().to_vec().into()).collect();
        let request = TraceManyRequest { ids };
        let replies = relay.operate().trace_many(request).await;
        let mut replies = replies
            .map_err(|status| relay.trouble(status))?
            .into_inner();
        while let Some(reply) = next(relay, &mut replies).await? {
            let id = EventId::try_from(&reply.id[..])
                .map_err(|why| Trouble::Local(format!("the relay's answer has no id: {why}")))?;
            say(&match output {
                Format::Text => format!("{}\n", page(id, &reply)),
                Format::Json => format!("{}\n", whole(id, &reply)),
            })?;
            *(if is_somewhere(&reply) {
                &mut there
            } else {
                &mut nowhere
            }) += 1;
        }
    }
    eprintln!("cresset: {there} events are somewhere, {nowhere} are nowhere");
    Ok(nowhere == 0)
}

async fn next(
    relay: &Relay,
    replies: &mut tonic::Streaming<TraceReply>,
) -> Result<Option<TraceReply>, Trouble> {
    replies
        .message()
        .await
        .map_err(|status| relay.trouble(status))
}

/// The ids of a file, each once and in order; empty lines mean nothing.
fn ids(file: &Path) -> Result<Vec<EventId>, Trouble> {
    let failed = |why: std::io::Error| Trouble::Local(format!("{}: {why}", file.display()));
    let text = if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin()
            .read_to_string(&mut text)
            .map(|_| text)
            .map_err(failed)?
    } else {
        std::fs::read_to_string(file).map_err(failed)?
    };
    let mut ids = parse_ids(&text)
        .map_err(|(line, why)| Trouble::Usage(format!("{}:{line}: {why}", file.display())))?;
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}

fn parse_ids(text: &str) -> Result<Vec<EventId>, (usize, proto::BadId)> {
    let lines = text.lines().map(str::trim).enumerate();
    let lines = lines.filter(|(_, line)| !line.is_empty());
    lines
        .map(|(at, line)| line.parse().map_err(|why| (at + 1, why)))
        .collect()
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
        Some(journal) => place(journal),
        None => format!("log       not there: {}\n", visible::text(&reply.note)),
    };
    if let Some(journal) = &reply.journal
        && let Some(event) = event(journal)
    {
        text += &format!("what      {}\n", visible::text(&event));
    }
    for loss in &reply.losses {
        let (place, why) = (visible::text(&loss.r#where), visible::text(&loss.reason));
        let (count, message) = (loss.count, loss.sequence);
        text += &format!("lost      one of {count} events counted at {place}: {why}");
        text += &match message {
            0 => "\n".to_owned(),
            _ => format!(" (message {message} in the journal)\n"),
        };
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

fn place(journal: &Journaled) -> String {
    let time = when(journal.time_ns);
    match &journal.topic {
        None => format!(
            "journal   event {}, segment {:020}.seg, journaled {time}\n",
            journal.sequence, journal.segment,
        ),
        Some(topic) => format!(
            "log       partition {}, offset {}, kept {time}, taken by relay {}; {}\n",
            topic.partition,
            topic.offset,
            visible::text(&topic.relay),
            visible::text(&topic.name)
        ),
    }
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
            "topic": journal.topic.as_ref().map(|topic| json!({
                "name": topic.name, "partition": topic.partition, "offset": topic.offset, "relay": topic.relay,
            })),
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
    fn ids_stand_one_a_line_and_a_bad_one_is_told_with_its_line() {
        let id = "0badc0de00000001000000000000002a";
        let ids = parse_ids(&format!("{id}\n\n  {id}\n")).unwrap();
        assert_eq!(ids.len(), 2);
        assert_eq!(parse_ids(&format!("{id}\n\nhello\n")).unwrap_err().0, 3);
    }

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
