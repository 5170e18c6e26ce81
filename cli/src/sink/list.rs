//! `cresset sink list`.

use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Args, ValueEnum};
use proto::query::{SinkStatus, StatusRequest};
use proto::visible;
use serde_json::Value;

use crate::connect::{Relay, Trouble, say};
use crate::status;
use crate::table::table;

/// How the list looks
#[derive(Args, Clone, Debug)]
pub(super) struct ListArgs {
    /// A table, or JSON
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A table to read
    Text,
    /// One JSON array
    Json,
}

pub(super) async fn list(relay: &Relay, args: &ListArgs) -> Result<ExitCode, Trouble> {
    let reply = relay
        .query()
        .status(StatusRequest {})
        .await
        .map_err(|status| relay.trouble(status))?;
    let sinks = reply.into_inner().sinks;
    say(&match args.output {
        Format::Text => page(&sinks, now()),
        Format::Json => json(&sinks),
    })?;
    Ok(ExitCode::SUCCESS)
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}

fn json(sinks: &[SinkStatus]) -> String {
    let all: Vec<Value> = sinks.iter().map(status::sink).collect();
    format!("{:#}\n", Value::from(all))
}

const HEAD: [&str; 7] = [
    "NAME",
    "TYPE",
    "STATE",
    "PENDING",
    "DELIVERED",
    "FILTERED",
    "DEAD LETTERS",
];

/// The table, and under it what needs somebody.
fn page(sinks: &[SinkStatus], now: u64) -> String {
    if sinks.is_empty() {
        return "no sinks; name some under `sinks` in the configuration file\n".to_owned();
    }
    let rows: Vec<Vec<String>> = sinks.iter().map(row).collect();
    let notes = sinks.iter().flat_map(|sink| notes(sink, now));
    notes.fold(table(&HEAD, &rows), |page, note| {
        page + &visible::text(&note) + "\n"
    })
}

fn row(sink: &SinkStatus) -> Vec<String> {
    let numbers = [
        sink.pending,
        sink.delivered,
        sink.filtered,
        sink.dead_letters,
    ];
    [&sink.name, &sink.r#type, &sink.state]
        .into_iter()
        .cloned()
        .chain(numbers.map(|number| number.to_string()))
        .collect()
}

fn notes(sink: &SinkStatus, now: u64) -> Vec<String> {
    let ago = |unix: u64| yaml::Span(Duration::from_secs(now.saturating_sub(unix)));
    let name = &sink.name;
    let mut notes = Vec::new();
    if !sink.paused_by.is_empty() {
        notes.push(format!(
            "! {name}: paused {} ago by {}; `cresset sink resume {name}` lets it go on",
            ago(sink.paused_unix),
            sink.paused_by
        ));
    }
    if sink.dead_letters > 0 {
        notes.push(format!(
            "! {name}: {} events refused for good; `cresset dlq list {name}` says why",
            sink.dead_letters
        ));
    }
    if sink.expired + sink.corrupt > 0 {
        notes.push(format!(
            "! {name}: {} events lost: {} left the journal before they were sent, {} were damaged in it",
            sink.expired + sink.corrupt,
            sink.expired,
            sink.corrupt
        ));
    }
    if !sink.last_error.is_empty() {
        let mark = if sink.state == "running" { ' ' } else { '!' };
        notes.push(format!(
            "{mark} {name}: {} ago: {}",
            ago(sink.last_error_unix),
            sink.last_error
        ));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_somebody_stands_under_the_table() {
        let well = SinkStatus {
            name: "archive".into(),
            r#type: "file".into(),
            state: "running".into(),
            delivered: 12,
            ..SinkStatus::default()
        };
        let sick = SinkStatus {
            name: "siem".into(),
            r#type: "elasticsearch".into(),
            state: "paused".into(),
            pending: 7,
            dead_letters: 2,
            last_error: "403 Forbidden\u{1b}[2J".into(),
            last_error_unix: 940,
            paused_by: "uid 0, pid 7".into(),
            paused_unix: 970,
            ..SinkStatus::default()
        };
        assert_eq!(
            page(&[well, sick], 1000),
            "NAME     TYPE           STATE    PENDING  DELIVERED  FILTERED  DEAD LETTERS\n\
             archive  file           running  0        12         0         0\n\
             siem     elasticsearch  paused   7        0          0         2\n\
             ! siem: paused 30s ago by uid 0, pid 7; `cresset sink resume siem` lets it go on\n\
             ! siem: 2 events refused for good; `cresset dlq list siem` says why\n\
             ! siem: 1m ago: 403 Forbidden\\x1b[2J\n"
        );
        assert!(page(&[], 0).contains("under `sinks`"));
    }
}
