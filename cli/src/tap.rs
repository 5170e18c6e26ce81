//! `cresset tap`: what a sink is about to send, and what comes back, as it happens.
//!
//! The sink never waits for whoever looks on; what was too much for this reader is told as a number.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use proto::query::WatchedEvent;
use proto::sinks::tap_reply::Is;
use proto::sinks::{Answered, Refused, TapReply, TapRequest};
use proto::{EventId, FieldSet, Kind, visible};
use serde_json::{Value, json};

use crate::connect::{AdminArgs, Trouble, say};
use crate::logs::interrupted;
use crate::print::{Format, Printer};

/// Look on while a sink sends
#[derive(Args, Clone, Debug)]
pub(crate) struct TapArgs {
    #[command(flatten)]
    admin: AdminArgs,

    /// The sink's name in the configuration file
    #[arg(value_name = "SINK")]
    sink: String,

    /// Stop after N events, once their destination has answered
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    limit: u64,

    /// How events look; with json what comes back is JSON too
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

/// Runs `cresset tap` until the limit is reached, the relay stops, or Ctrl-C.
///
/// # Errors
/// An unreachable relay, an unknown sink, an output that cannot be written.
pub(crate) async fn tap(args: TapArgs) -> Result<ExitCode, Trouble> {
    let relay = args.admin.connect().await?;
    let failed = |status| relay.trouble(status);
    let request = TapRequest {
        sink: args.sink.clone(),
        limit: args.limit,
    };
    let mut replies = relay.sinks().tap(request).await.map_err(failed)?;
    eprintln!("Started to tap {}", args.sink);
    let mut printer = Printer::for_stdout(args.output);
    let shown = async {
        while let Some(reply) = replies.get_mut().message().await.map_err(failed)? {
            say(&text(&reply, args.output, &mut printer))?;
        }
        Ok(())
    };
    tokio::select! {
        done = shown => done?,
        () = interrupted() => {}
    }
    Ok(ExitCode::SUCCESS)
}

fn text(reply: &TapReply, format: Format, printer: &mut Printer) -> String {
    let Some(is) = &reply.is else {
        return String::new();
    };
    match (is, format) {
        (is, Format::Json) => format!("{}\n", object(is)),
        (Is::Sent(sent), _) => {
            let head = format!(
                "→ batch {}: {}\n",
                sent.batch,
                count(sent.events.len() as u64)
            );
            let events = sent.events.iter().map(|event| printed(event, printer));
            events.fold(head, |text, event| text + &event)
        }
        (Is::Answered(answered), _) => came_back(answered),
        (Is::Missed(events), _) => {
            format!("… missed {}: this reader was too slow\n", count(*events))
        }
    }
}

fn count(events: u64) -> String {
    match events {
        1 => "1 event".to_owned(),
        events => format!("{events} events"),
    }
}

fn printed(event: &WatchedEvent, printer: &mut Printer) -> String {
    let printed = Kind::try_from(event.kind())
        .map_err(|error| error.to_string())
        .and_then(|kind| {
            let text = printer.event(kind, &event.payload, None);
            text.map(|text| String::from_utf8_lossy(text).into_owned())
                .map_err(|error| error.to_string())
        });
    printed.unwrap_or_else(|why| format!("{}: cannot be printed: {why}\n", id(&event.id)))
}

fn came_back(answered: &Answered) -> String {
    let took = Duration::from_micros(answered.micros).as_secs_f64() * 1e3;
    let batch = answered.batch;
    if !answered.away.is_empty() {
        let why = visible::text(&answered.away);
        return format!("← batch {batch} after {took:.1} ms: nothing was taken: {why}\n");
    }
    let head = format!(
        "← batch {batch} after {took:.1} ms: {} taken, {} not\n",
        answered.done, answered.not_done
    );
    let lines = answered.refused.iter().map(refused);
    lines.fold(head, |text, line| text + &line)
}

fn refused(refused: &Refused) -> String {
    let fate = match refused.for_good {
        true => "dead letter",
        false => "again",
    };
    let why = visible::text(&refused.reason);
    format!("  {} {fate}: {why}\n", id(&refused.id))
}

fn id(bytes: &[u8]) -> String {
    EventId::try_from(bytes).map_or_else(|_| String::new(), |id| id.to_string())
}

fn object(is: &Is) -> Value {
    match is {
        Is::Sent(sent) => {
            let events: Vec<Value> = sent.events.iter().map(event).collect();
            json!({"sent": {"batch": sent.batch, "events": events}})
        }
        Is::Answered(answered) => {
            let refused = |refused: &Refused| json!({"event_id": id(&refused.id), "dead_letter": refused.for_good, "reason": refused.reason});
            json!({"answered": {
                "batch": answered.batch,
                "seconds": Duration::from_micros(answered.micros).as_secs_f64(),
                "taken": answered.done,
                "not_taken": answered.not_done,
                "refused": answered.refused.iter().map(refused).collect::<Vec<_>>(),
                "away": answered.away,
            }})
        }
        Is::Missed(events) => json!({"missed": events}),
    }
}

/// An event as JSON with all fields; null where it is none.
fn event(event: &WatchedEvent) -> Value {
    let mut json = Vec::new();
    let written = Kind::try_from(event.kind()).ok().and_then(|kind| {
        let id = EventId::try_from(&event.id[..]).ok();
        proto::json::write(kind, &event.payload, id, FieldSet::All, &mut json).ok()
    });
    written
        .and_then(|()| serde_json::from_slice(&json).ok())
        .unwrap_or_default()
}
