//! What `cresset top` shows, as lines: pure, of two looks at the relay.

use std::time::{Duration, Instant};

use proto::query::{SensorStatus, SinkStatus, StatusReply};
use proto::visible;

use crate::status::{seconds, size};
use crate::table::table;

/// One look.
pub(super) struct Seen {
    pub(super) at: Instant,
    pub(super) reply: StatusReply,
}

/// The page; rates come from what changed since the look before.
pub(super) fn page(now: &Seen, before: Option<&Seen>) -> Vec<String> {
    let reply = &now.reply;
    let mut lines = vec![relay(reply), journal(now, before)];
    let not_ready = reply.relay.iter().flat_map(|relay| &relay.not_ready);
    lines.extend(not_ready.map(|why| format!("! {}", visible::text(why))));
    lines.push(String::new());
    lines.push(sensors_line(reply));
    if !reply.sensors.is_empty() {
        let current = reply.policies.as_ref().map(|policies| &policies.digest[..]);
        let rows: Vec<Vec<String>> = reply
            .sensors
            .iter()
            .map(|sensor| sensor_row(sensor, current.unwrap_or_default()))
            .collect();
        push_table(&mut lines, &SENSORS, &rows);
    }
    lines.push(String::new());
    lines.push(format!("sinks     {}", reply.sinks.len()));
    if !reply.sinks.is_empty() {
        let rows: Vec<Vec<String>> = reply.sinks.iter().map(sink_row).collect();
        push_table(&mut lines, &SINKS, &rows);
    }
    lines.push(String::new());
    lines.push(losses(reply));
    lines.push("q quits".to_owned());
    lines
}

const SENSORS: [&str; 9] = [
    "NODE", "STATE", "TIER", "VERSION", "RULES", "SEQUENCE", "SPOOLED", "LAG", "LOST",
];

const SINKS: [&str; 9] = [
    "NAME",
    "TYPE",
    "STATE",
    "EVENTS/S",
    "PENDING",
    "LAG",
    "DELIVERED",
    "DEAD LETTERS",
    "LAST ERROR",
];

fn push_table(lines: &mut Vec<String>, head: &[&str], rows: &[Vec<String>]) {
    let text = table(head, rows);
    lines.extend(text.lines().map(|line| format!("  {line}")));
}

fn relay(reply: &StatusReply) -> String {
    let Some(relay) = &reply.relay else {
        return "relay     says nothing of itself".to_owned();
    };
    let ready = if relay.ready { "ready" } else { "NOT READY" };
    let up = yaml::Span(Duration::from_secs(relay.uptime_seconds));
    let (version, cluster, feeds) = (&relay.version, &relay.cluster, relay.feed_clients);
    let line = format!(
        "relay     {ready}, version {version}, cluster {cluster}, up {up}, {feeds} feed streams"
    );
    visible::text(&line)
}

fn journal(now: &Seen, before: Option<&Seen>) -> String {
    let Some(journal) = &now.reply.journal else {
        return "journal   not shown to this reader".to_owned();
    };
    let was = before.and_then(|seen| Some((seen.at, seen.reply.journal.as_ref()?.next)));
    let rate = match was {
        Some((at, next)) if now.at > at => {
            let seconds = now.at.duration_since(at).as_secs_f64();
            format!(
                "{:.0} events/s in, ",
                journal.next.saturating_sub(next) as f64 / seconds
            )
        }
        _ => String::new(),
    };
    format!(
        "journal   {}, {rate}{} events in {} of {}",
        journal.state,
        journal.next.saturating_sub(journal.first),
        size(journal.bytes),
        size(journal.max_bytes)
    )
}

fn sensors_line(reply: &StatusReply) -> String {
    let connected = reply.sensors.iter().filter(|sensor| sensor.connected);
    format!(
        "sensors   {} of {} connected",
        connected.count(),
        reply.sensors.len()
    )
}

fn sensor_row(sensor: &SensorStatus, current: &[u8]) -> Vec<String> {
    let tier = sensor.kernel.as_ref().map_or(0, |kernel| kernel.tier);
    let rules = match (&sensor.rules[..], sensor.rules_applied) {
        ([], _) => "none",
        (_, false) => "! refused",
        (rules, true) if rules == current => "current",
        _ => "older",
    };
    let newest = sensor.streams.iter().map(|stream| stream.sequence).max();
    vec![
        sensor.node.clone(),
        if sensor.connected {
            "connected"
        } else {
            "! away"
        }
        .to_owned(),
        tier.to_string(),
        sensor.version.clone(),
        rules.to_owned(),
        newest.unwrap_or_default().to_string(),
        sensor.spooled.to_string(),
        seconds(sensor.lag_seconds as f64),
        sensor.lost.to_string(),
    ]
}

fn sink_row(sink: &SinkStatus) -> Vec<String> {
    let error = if sink.state == "running" {
        ""
    } else {
        &sink.last_error
    };
    vec![
        sink.name.clone(),
        sink.r#type.clone(),
        sink.state.clone(),
        format!("{:.0}", sink.rate),
        sink.pending.to_string(),
        seconds(sink.lag_seconds),
        sink.delivered.to_string(),
        sink.dead_letters.to_string(),
        error.to_owned(),
    ]
}

fn losses(reply: &StatusReply) -> String {
    let total: u64 = reply.losses.iter().map(|loss| loss.count).sum();
    match total {
        0 => "losses    none".to_owned(),
        lost => format!("losses    {lost} events; `cresset status` says where"),
    }
}

#[cfg(test)]
mod tests {
    use proto::query::{JournalStatus, RelayStatus};

    use super::*;

    #[test]
    fn rates_come_from_what_changed_and_what_others_wrote_is_shown_and_not_obeyed() {
        let reply = |next: u64| StatusReply {
            relay: Some(RelayStatus {
                ready: true,
                version: "1.0".to_owned(),
                cluster: "prod".to_owned(),
                ..RelayStatus::default()
            }),
            journal: Some(JournalStatus {
                state: "writable".to_owned(),
                first: 1,
                next,
                max_bytes: 1 << 30,
                ..JournalStatus::default()
            }),
            sinks: vec![SinkStatus {
                name: "siem".to_owned(),
                r#type: "elasticsearch".to_owned(),
                state: "retrying".to_owned(),
                rate: 12.4,
                pending: 7,
                lag_seconds: 90.0,
                last_error: "refused\u{1b}[2J".to_owned(),
                ..SinkStatus::default()
            }],
            ..StatusReply::default()
        };
        let start = Instant::now();
        let before = Seen {
            at: start,
            reply: reply(100),
        };
        let now = Seen {
            at: start + Duration::from_secs(2),
            reply: reply(300),
        };
        let text = page(&now, Some(&before)).join("\n");
        assert!(text.contains("100 events/s in, 299 events"), "{text}");
        assert!(text.contains("siem  elasticsearch  retrying  12"), "{text}");
        assert!(text.contains("1m30s") || text.contains("90s"), "{text}");
        assert!(
            text.contains("refused\\x1b[2J") && !text.contains('\u{1b}'),
            "{text}"
        );
        assert!(!page(&before, None).join("\n").contains("events/s in"));
    }
}
