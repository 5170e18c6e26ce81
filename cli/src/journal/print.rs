//! Reports as tables, as lines and as JSON.

use std::fmt::Write;
use std::path::Path;

use journal::inspect::{CursorReport, Problem, Report, SegmentReport};
use journal::repair::Step;
use proto::visible::text as visible;
use serde_json::{Value, json};

use super::step_json;
use crate::status::size;

/// What `inspect` prints.
pub(super) fn tables(path: &Path, report: &Report) -> String {
    let mut text = summary(path, report);
    let segments = report.segments.iter().map(segment_row).collect();
    table(
        &mut text,
        [
            "FIRST",
            "LAST",
            "RECORDS",
            "BYTES",
            "STATE",
            "STORED",
            "FROM",
            "TO",
            "SAVED STATE",
        ],
        segments,
    );
    let cursors = report.cursors.iter().map(cursor_row).collect();
    table(
        &mut text,
        [
            "CURSOR",
            "POSITION",
            "LAG",
            "DELIVERED",
            "FILTERED",
            "DEAD LETTERS",
            "EXPIRED",
            "CORRUPT",
            "STATE",
        ],
        cursors,
    );
    for cursor in &report.cursors {
        expired(&mut text, cursor);
    }
    text += &problems(report);
    for name in &report.aside {
        line(&mut text, &format!("kept aside: {name}"));
    }
    for name in &report.foreign {
        line(&mut text, &format!("not the journal's: {name}"));
    }
    text
}

/// What `verify` prints.
pub(super) fn verdict(path: &Path, report: &Report) -> String {
    let mut text = problems(report);
    text += &summary(path, report);
    let told = match (report.problems.len(), report.lost()) {
        (0, _) => "no problem".to_owned(),
        (problems, lost) => format!(
            "{}, {} lost",
            count(problems as u64, "problem"),
            count(lost, "record")
        ),
    };
    line(&mut text, &told);
    text
}

/// What `repair` did, or would do.
pub(super) fn steps(word: &str, steps: &[Step]) -> String {
    let mut text = String::new();
    for step in steps {
        line(&mut text, &format!("{word}: {step}"));
    }
    if steps.is_empty() {
        line(&mut text, "nothing to repair");
    }
    text
}

fn summary(path: &Path, report: &Report) -> String {
    let mut text = format!(
        "{}: {} records, {} to {}, in {} segments of {}",
        path.display(),
        report.records(),
        report.first(),
        report.committed(),
        report.segments.len(),
        size(report.bytes()),
    );
    if let Some(format) = report.format {
        let _ = write!(text, "; format {format}");
    }
    if let Some(holder) = &report.holder {
        let _ = write!(text, "; in use by {holder}");
    }
    let mut out = String::new();
    line(&mut out, &text);
    out
}

/// `1 record`, `2 records`
fn count(n: u64, what: &str) -> String {
    let plural = if n == 1 { "" } else { "s" };
    format!("{n} {what}{plural}")
}

fn problems(report: &Report) -> String {
    let mut text = String::new();
    for problem in &report.problems {
        line(&mut text, &problem.to_string());
    }
    text
}

fn segment_row(segment: &SegmentReport) -> [String; 9] {
    [
        segment.base.to_string(),
        segment.last.to_string(),
        segment.records.to_string(),
        size(segment.bytes),
        segment.state.to_string(),
        stored(segment),
        time(segment.times.0),
        time(segment.times.1),
        size(segment.checkpoint_bytes),
    ]
}

/// How the records are stored, and what that saves.
fn stored(segment: &SegmentReport) -> String {
    match segment.compressed {
        false => "plain".to_owned(),
        true => format!(
            "zstd {:.1}:1",
            segment.plain_bytes as f64 / segment.bytes.max(1) as f64
        ),
    }
}

fn cursor_row(cursor: &CursorReport) -> [String; 9] {
    let account = &cursor.account;
    let state = match (cursor.readable, cursor.state_bytes) {
        (false, _) => "unreadable".to_owned(),
        (true, None) => "none".to_owned(),
        (true, Some(bytes)) => size(bytes as u64),
    };
    [
        cursor.name.clone(),
        cursor.position.to_string(),
        cursor.lag.to_string(),
        account.delivered.to_string(),
        account.filtered.to_string(),
        account.dead_lettered.to_string(),
        (account.expired + cursor.overtaken).to_string(),
        account.corrupt.to_string(),
        state,
    ]
}

/// Which records left before the consumer came to them.
fn expired(text: &mut String, cursor: &CursorReport) {
    for stretch in &cursor.expired {
        let which = match stretch.is_whole() {
            true => String::new(),
            false => format!("{} of ", stretch.count),
        };
        let (name, first, last) = (&cursor.name, stretch.first, stretch.end.0 - 1);
        line(
            text,
            &format!("expired at {name}: {which}{first} to {last}"),
        );
    }
}

/// Columns as wide as their widest cell; nothing for no rows.
fn table<const N: usize>(text: &mut String, head: [&str; N], rows: Vec<[String; N]>) {
    if rows.is_empty() {
        return;
    }
    let rows: Vec<[String; N]> = std::iter::once(head.map(str::to_owned))
        .chain(rows)
        .map(|row| row.map(|cell| visible(&cell)))
        .collect();
    let width = |at: usize| {
        let cells = rows.iter().filter_map(|row| row.get(at));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    for row in &rows {
        let cells = row.iter().enumerate();
        let padded: Vec<String> = cells
            .map(|(at, cell)| format!("{cell:<width$}", width = width(at)))
            .collect();
        line(text, &format!("  {}", padded.join("  ")));
    }
}

/// Names come from the disk: control characters are shown, not sent.
fn line(text: &mut String, line: &str) {
    text.push_str(visible(line).trim_end());
    text.push('\n');
}

/// Unix nanoseconds in UTC; a dash for none.
fn time(ns: u64) -> String {
    match jiff::Timestamp::from_nanosecond(i128::from(ns)) {
        Ok(time) if ns > 0 => time.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string(),
        _ => "-".to_owned(),
    }
}

/// The whole report, for programs.
pub(super) fn json(path: &Path, report: &Report) -> String {
    format!("{:#}\n", report_json(path, report))
}

/// A repair, for programs.
pub(super) fn repaired_json(path: &Path, steps: &[Step], left: &Report, done: bool) -> String {
    let value = json!({
        "done": done,
        "steps": steps.iter().map(step_json).collect::<Vec<_>>(),
        "journal": report_json(path, left),
    });
    format!("{value:#}\n")
}

fn report_json(path: &Path, report: &Report) -> Value {
    json!({
        "path": path.display().to_string(),
        "format": report.format,
        "holder": report.holder,
        "first": report.first().0,
        "committed": report.committed().0,
        "records": report.records(),
        "lost": report.lost(),
        "bytes": report.bytes(),
        "segments": report.segments.iter().map(segment_json).collect::<Vec<_>>(),
        "cursors": report.cursors.iter().map(cursor_json).collect::<Vec<_>>(),
        "problems": report.problems.iter().map(problem_json).collect::<Vec<_>>(),
        "aside": report.aside,
        "foreign": report.foreign,
    })
}

fn segment_json(segment: &SegmentReport) -> Value {
    json!({
        "name": segment.name,
        "first": segment.base.0,
        "last": segment.last.0,
        "records": segment.records,
        "bytes": segment.bytes,
        "stored": if segment.compressed { "zstd" } else { "plain" },
        "plain_bytes": segment.plain_bytes,
        "state": segment.state.to_string(),
        "created": time(segment.created),
        "from": time(segment.times.0),
        "to": time(segment.times.1),
        "saved_state_bytes": segment.checkpoint_bytes,
        "interrupted": segment.interrupted,
    })
}

fn cursor_json(cursor: &CursorReport) -> Value {
    let account = &cursor.account;
    json!({
        "name": cursor.name,
        "readable": cursor.readable,
        "position": cursor.position.0,
        "birth": cursor.birth.0,
        "lag": cursor.lag,
        "delivered": account.delivered,
        "filtered": account.filtered,
        "dead_lettered": account.dead_lettered,
        "expired": account.expired + cursor.overtaken,
        "corrupt": account.corrupt,
        "expired_stretches": cursor.expired.iter().map(|stretch| json!({
            "first": stretch.first.0, "last": stretch.end.0 - 1, "count": stretch.count,
        })).collect::<Vec<_>>(),
        "rewound": cursor.rewound,
        "state_bytes": cursor.state_bytes,
    })
}

fn problem_json(problem: &Problem) -> Value {
    json!({
        "file": problem.file,
        "offset": problem.offset,
        "first": problem.numbers.as_ref().map(|n| n.start.0),
        "last": problem.numbers.as_ref().map(|n| n.end.0.saturating_sub(1)),
        "fault": problem.fault.word(),
        "harm": problem.fault.harm().to_string(),
        "text": problem.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_utc_and_none_is_a_dash() {
        assert_eq!(time(0), "-");
        assert_eq!(time(1_700_000_000_123_456_789), "2023-11-14T22:13:20.123Z");
    }
}
