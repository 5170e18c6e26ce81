//! `cresset sink test`.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use proto::link::EventKind;
use proto::sinks::{TestRequest, TestStep};
use proto::{EventId, visible};
use serde_json::json;

use super::steer::Name;
use crate::connect::{Relay, Trouble, say};

/// Which sink, and what it is tried with
#[derive(Args, Clone, Debug)]
pub(super) struct TestArgs {
    #[command(flatten)]
    sink: Name,

    /// Kind of the marked event [default: a message, or the first kind that the sink's filter wants]
    #[arg(long, value_enum)]
    kind: Option<Kind>,

    /// How the steps are told
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    Alert,
    Log,
    Message,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A line a step
    Text,
    /// One JSON object a step
    Json,
}

pub(super) async fn test(relay: &Relay, args: &TestArgs) -> Result<ExitCode, Trouble> {
    let kind = match args.kind {
        None => EventKind::Unspecified,
        Some(Kind::Alert) => EventKind::Alert,
        Some(Kind::Log) => EventKind::Log,
        Some(Kind::Message) => EventKind::Message,
    };
    let request = TestRequest {
        sink: args.sink.name.clone(),
        kind: kind.into(),
    };
    let failed = |status| relay.trouble(status);
    let mut steps = relay.sinks().test(request).await.map_err(failed)?;
    let mut last = None;
    while let Some(step) = steps.get_mut().message().await.map_err(failed)? {
        say(&match args.output {
            Format::Text => line(&step),
            Format::Json => object(&step),
        })?;
        last = Some(step);
    }
    let last = last.ok_or_else(|| {
        Trouble::Local("the sink ended the test without a step; see the relay's log".to_owned())
    })?;
    if args.output == Format::Text {
        say(&verdict(&args.sink.name, &last))?;
    }
    Ok(match last.ok {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

fn line(step: &TestStep) -> String {
    let verdict = if step.ok { "ok" } else { "FAILED" };
    let took = format!("{:.1} ms", micros(step).as_secs_f64() * 1e3);
    let detail = visible::text(&step.detail);
    format!("{verdict:<7} {:<13} {took:>10}  {detail}\n", step.name)
}

fn object(step: &TestStep) -> String {
    let object = json!({
        "step": step.name,
        "ok": step.ok,
        "detail": step.detail,
        "seconds": micros(step).as_secs_f64(),
        "event_id": id(step),
    });
    format!("{object}\n")
}

fn verdict(sink: &str, last: &TestStep) -> String {
    match last.ok {
        true => format!("{sink} takes events; the marked one is {}\n", id(last)),
        false => format!(
            "{sink} does not take events: the step `{}` failed\n",
            last.name
        ),
    }
}

fn micros(step: &TestStep) -> Duration {
    Duration::from_micros(step.micros)
}

fn id(step: &TestStep) -> String {
    EventId::try_from(&step.event_id[..]).map_or_else(|_| String::new(), |id| id.to_string())
}
