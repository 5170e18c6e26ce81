//! The status as a page: what is in force and well first, what needs somebody last and marked with `!`.

use std::fmt::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use proto::Place;
use proto::link::KernelFacts;
use proto::query::{
    CertificateStatus, JournalStatus, PoliciesStatus, PolicyStatus, RelayStatus, SensorStatus,
    SinkStatus, SourceStatus, StatusReply,
};

use super::hex;
use proto::visible::text as visible;

/// How much of a digest tells it from others at a glance.
const SHORT: usize = 12;

/// The whole page. Control characters are shown: names come from files and other machines.
pub(super) fn page(reply: &StatusReply) -> String {
    let mut page = Page::default();
    if let Some(relay) = &reply.relay {
        page.relay(relay);
    }
    if let Some(journal) = &reply.journal {
        page.journal(journal);
    }
    if let Some(policies) = &reply.policies {
        page.policies(policies, &reply.sensors);
    }
    page.sensors(reply);
    page.sources(&reply.sources);
    page.sinks(&reply.sinks);
    page.certificates(&reply.certificates);
    page.losses(reply);
    page.text
}

#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    /// One line, indented by `depth`.
    fn line(&mut self, depth: usize, line: &str) {
        // Writing to a String does not fail.
        let _ = writeln!(
            self.text,
            "{:indent$}{}",
            "",
            visible(line).trim_end(),
            indent = depth * 2
        );
    }

    /// A section's first line: its name and what is to say of the whole.
    fn section(&mut self, name: &str, line: &str) {
        self.line(0, &format!("{name:<10}{line}"));
    }

    /// Rows with columns as wide as their widest cell.
    fn table(
        &mut self,
        depth: usize,
        head: &[&str],
        rows: &[Vec<String>],
        after: impl Fn(&mut Page, usize),
    ) {
        let cells = |row: &[String]| row.iter().map(|cell| visible(cell)).collect::<Vec<_>>();
        let head: Vec<String> = head.iter().map(|cell| cell.to_string()).collect();
        let rows: Vec<Vec<String>> = rows.iter().map(|row| cells(row)).collect();
        let widths: Vec<usize> = (0..head.len())
            .map(|at| {
                rows.iter()
                    .chain([&head])
                    .map(|row| row[at].chars().count())
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        let format = |row: &[String]| {
            let cells = row
                .iter()
                .zip(&widths)
                .map(|(cell, width)| format!("{cell:<width$}"));
            cells.collect::<Vec<_>>().join("  ")
        };
        self.line(depth, &format(&head));
        for (at, row) in rows.iter().enumerate() {
            self.line(depth, &format(row));
            after(self, at);
        }
    }

    fn relay(&mut self, relay: &RelayStatus) {
        let ready = if relay.ready { "ready" } else { "NOT READY" };
        let mut text = format!(
            "{ready}, version {}, cluster {}",
            relay.version, relay.cluster
        );
        // A reader of some namespaces is not told which relay it is, nor what passes through it.
        text += &match relay.id.as_str() {
            "" => "; what is told here is that of some namespaces only".to_owned(),
            id => {
                let up = yaml::Span(Duration::from_secs(relay.uptime_seconds));
                format!(", up {up}, id {id}")
            }
        };
        self.section("relay", &text);
        for reason in &relay.not_ready {
            self.line(1, &format!("! {reason}"));
        }
        let mut listeners: Vec<_> = relay.listeners.iter().collect();
        listeners.sort();
        for (name, address) in listeners {
            let clients = match (name.as_str(), relay.feed_clients) {
                ("feed", 1) => "  1 stream".to_string(),
                ("feed", clients) => format!("  {clients} streams"),
                _ => String::new(),
            };
            self.line(1, &format!("{name:<8}{address}{clients}"));
        }
    }

    fn journal(&mut self, journal: &JournalStatus) {
        let events = journal.next.saturating_sub(journal.first);
        let oldest = match journal.oldest_unix {
            0 => String::new(),
            time => format!(", oldest {} ago", ago(time)),
        };
        let bound = match journal.max_bytes {
            0 => String::new(),
            bound => format!(" of {}", size(bound)),
        };
        let mark = if journal.state == "writable" {
            ""
        } else {
            "! "
        };
        let state = &journal.state;
        if !journal.place.is_empty() {
            let place = &journal.place;
            self.section(
                "log",
                &format!("{mark}{state}, {events} events{oldest}, {place}"),
            );
        } else {
            self.section(
                "journal",
                &format!(
                    "{mark}{state}, {events} events in {}{bound}, {} segments{oldest}",
                    size(journal.bytes),
                    journal.segments
                ),
            );
        }
        for found in &journal.found {
            self.line(1, &format!("! found at the start: {found}"));
        }
    }

    fn policies(&mut self, policies: &PoliciesStatus, sensors: &[SensorStatus]) {
        let digest = short(&policies.digest);
        let count = policies.policies.len();
        let from = match policies.source.as_str() {
            "" => "no source is set".to_owned(),
            source => format!("from {source}"),
        };
        self.section(
            "policies",
            &format!("{count} in force, digest {digest}, {from}"),
        );
        if count > 0 {
            let rows: Vec<Vec<String>> = policies.policies.iter().map(policy_row).collect();
            self.table(
                1,
                &["NAMESPACE", "NAME", "KIND", "RULES", "FILE"],
                &rows,
                |page, at| {
                    page.not_enforced(&policies.policies[at], sensors);
                },
            );
        }
        if !policies.current {
            self.line(
                1,
                "! the newest reading is broken: the set above stays in force until this is mended",
            );
        }
        if let Some(rollout) = &policies.rollout {
            let mark = if rollout.state == "stopped" { "! " } else { "" };
            self.line(
                1,
                &format!(
                    "{mark}rollout {}: `cresset policy status` tells more",
                    rollout.state
                ),
            );
        }
        for problem in &policies.problems {
            let mark = if problem.warning {
                "warning"
            } else {
                "! error"
            };
            let mut place = problem.file.clone();
            if problem.line > 0 {
                let _ = write!(place, ":{}", problem.line);
            }
            if !problem.path.is_empty() {
                let _ = write!(place, ": {}", problem.path);
            }
            self.line(1, &format!("{mark}: {place}: {}", problem.message));
        }
    }

    /// What of a policy is in force nowhere, and what a node cannot do.
    fn not_enforced(&mut self, policy: &PolicyStatus, sensors: &[SensorStatus]) {
        if policy.expires_unix > 0 && policy.expires_unix <= now() {
            self.line(2, "! its time is over: it is in force nowhere");
        }
        for part in &policy.not_enforced {
            self.line(2, &format!("! not enforced: {part}"));
        }
        let name = format!("{}/{}", policy.namespace, policy.name);
        for sensor in sensors {
            for problem in sensor
                .problems
                .iter()
                .filter(|problem| problem.policy == name && !problem.refused)
            {
                let part = if problem.path.is_empty() {
                    problem.message.clone()
                } else {
                    format!("{}: {}", problem.path, problem.message)
                };
                // What is enforced nowhere need not be said again for each node.
                if !policy.not_enforced.contains(&part) {
                    self.line(2, &format!("! not enforced on {}: {part}", sensor.node));
                }
            }
        }
    }

    fn sensors(&mut self, reply: &StatusReply) {
        let connected = reply
            .sensors
            .iter()
            .filter(|sensor| sensor.connected)
            .count();
        match reply.sensors.len() {
            0 => self.section("sensors", "none has been seen"),
            all => self.section("sensors", &format!("{connected} of {all} connected")),
        }
        let policies = reply.policies.clone().unwrap_or_default();
        for sensor in &reply.sensors {
            self.sensor(sensor, policies.place(&sensor.rules));
        }
    }

    fn sensor(&mut self, sensor: &SensorStatus, place: Place) {
        let seen = match (sensor.connected, sensor.last_seen_unix) {
            (true, _) => "connected".to_string(),
            (false, 0) => "! away".to_string(),
            (false, time) => format!("! away for {}", ago(time)),
        };
        let seen = match sensor.silent_unix {
            0 => seen,
            since => format!("! SILENT for {}", ago(since)),
        };
        let rules = match (&sensor.rules[..], sensor.rules_applied, place) {
            ([], _, _) => "no rules yet".to_string(),
            (rules, false, _) => format!("! refused the rules {}", short(rules)),
            (_, _, Place::Current) => "rules current".to_string(),
            (_, _, Place::Canary) => "tries the new rules".to_string(),
            (_, _, Place::Held) => "keeps the rules before the trial".to_string(),
            (rules, _, Place::Other) => format!("older rules {}", short(rules)),
        };
        let workloads = sensor.workloads.len();
        self.line(
            1,
            &format!(
                "{}  {seen}, {rules}, {workloads} workloads, version {}",
                sensor.node, sensor.version
            ),
        );
        if let Some(off) = sensor.off.as_ref().filter(|_| sensor.connected) {
            let left = Duration::from_secs(off.until_unix.saturating_sub(now()));
            let left = yaml::Span(left);
            self.line(
                2,
                &format!("! policies are OFF here for {left} more: {}", off.reason),
            );
        }
        self.line(2, &sent(sensor));
        if sensor.refused_sessions > 0 {
            let (times, peer) = (sensor.refused_sessions, &sensor.refused_peer);
            self.line(
                2,
                &format!(
                    "! a second machine says that it is this one: {peer}, refused {times} times"
                ),
            );
        }
        if let Some(kernel) = &sensor.kernel {
            self.kernel(kernel);
        }
        for workload in &sensor.workloads {
            let policies = match &workload.policies[..] {
                [] => "no policy".to_string(),
                policies => policies.join(", "),
            };
            self.line(
                2,
                &format!(
                    "workload {}/{}: {policies}",
                    workload.namespace, workload.pod
                ),
            );
        }
        for problem in sensor.problems.iter().filter(|problem| problem.refused) {
            self.line(
                2,
                &format!(
                    "! refused for {}: {}: {}",
                    problem.policy, problem.path, problem.message
                ),
            );
        }
    }

    fn kernel(&mut self, kernel: &KernelFacts) {
        let tier = match kernel.tier {
            0 => "no tier".to_string(),
            tier => format!("tier {tier}"),
        };
        let why = if kernel.reason.is_empty() {
            String::new()
        } else {
            format!(": {}", kernel.reason)
        };
        self.line(
            2,
            &format!("{tier} on {} {}{why}", kernel.release, kernel.arch),
        );
        let rows: Vec<Vec<String>> = kernel
            .abilities
            .iter()
            .map(|ability| {
                vec![
                    ability.operation.clone(),
                    ability.how.clone(),
                    ability.reason.clone(),
                ]
            })
            .collect();
        if !rows.is_empty() {
            self.table(3, &["OPERATION", "HOW", ""], &rows, |_, _| {});
        }
    }

    fn sources(&mut self, sources: &[SourceStatus]) {
        if sources.is_empty() {
            return;
        }
        let connected = sources.iter().filter(|source| source.connected).count();
        self.section(
            "sources",
            &format!("{connected} of {} connected", sources.len()),
        );
        let rows: Vec<Vec<String>> = sources.iter().map(source_row).collect();
        let head = [
            "NAME", "ADDRESS", "STATE", "ALERTS", "LOGS", "MESSAGES", "LOST", "ERRORS",
        ];
        self.table(1, &head, &rows, |page, at| {
            let source = &sources[at];
            if !source.last_error.is_empty() {
                page.line(
                    2,
                    &format!(
                        "! {} ago: {}",
                        ago(source.last_error_unix),
                        source.last_error
                    ),
                );
            }
        });
    }

    fn certificates(&mut self, certificates: &[CertificateStatus]) {
        if certificates.is_empty() {
            return;
        }
        self.section("tls", "");
        for certificate in certificates {
            let left = certificate.expires_unix.saturating_sub(now());
            let when = match left {
                0 => "! EXPIRED".to_string(),
                left => format!("good for {}", yaml::Span(Duration::from_secs(left))),
            };
            self.line(1, &format!("{}  {when}", certificate.file));
        }
    }

    fn sinks(&mut self, sinks: &[SinkStatus]) {
        if sinks.is_empty() {
            return self.section("sinks", "none");
        }
        self.section("sinks", &sinks.len().to_string());
        let rows: Vec<Vec<String>> = sinks.iter().map(sink_row).collect();
        let head = [
            "NAME",
            "TYPE",
            "STATE",
            "PENDING",
            "LAG",
            "EVENTS/S",
            "DELIVERED",
            "FILTERED",
            "DEAD LETTERS",
            "EXPIRED",
            "CORRUPT",
        ];
        self.table(1, &head, &rows, |page, at| {
            let sink = &sinks[at];
            if !sink.paused_by.is_empty() {
                let since = ago(sink.paused_unix);
                page.line(2, &format!("! paused {since} ago by {}", sink.paused_by));
            }
            if !sink.last_error.is_empty() {
                page.line(
                    2,
                    &format!("! {} ago: {}", ago(sink.last_error_unix), sink.last_error),
                );
            }
        });
    }

    fn losses(&mut self, reply: &StatusReply) {
        let lost: Vec<Vec<String>> = reply
            .losses
            .iter()
            .filter(|loss| loss.count > 0)
            .map(|loss| {
                vec![
                    loss.r#where.clone(),
                    loss.class.clone(),
                    loss.count.to_string(),
                ]
            })
            .collect();
        if lost.is_empty() {
            return self.section("losses", "none");
        }
        self.section("losses", "");
        self.table(1, &["WHERE", "CLASS", "EVENTS"], &lost, |_, _| {});
    }
}

/// What of a sensor's events is here, what waits there, and what it lost.
fn sent(sensor: &SensorStatus) -> String {
    let streams = sensor.streams.iter().filter(|stream| stream.sequence > 0);
    let streams: Vec<String> = streams
        .map(|stream| {
            let class = stream.class().as_str_name();
            let class = class.trim_start_matches("STREAM_CLASS_").to_lowercase();
            format!("{class} up to {}", stream.sequence)
        })
        .collect();
    let here = match &streams[..] {
        [] => "no events yet".to_owned(),
        streams => streams.join(", "),
    };
    let waiting = match (sensor.spooled, sensor.lag_seconds) {
        (0, _) => "none waiting".to_owned(),
        (spooled, lag) => format!(
            "{spooled} waiting, the oldest for {}",
            yaml::Span(Duration::from_secs(lag))
        ),
    };
    let lost = match sensor.lost {
        0 => "none lost".to_owned(),
        lost => format!("! {lost} lost since its start"),
    };
    format!("{here}; {waiting}; {lost}")
}

fn policy_row(policy: &PolicyStatus) -> Vec<String> {
    let namespace = if policy.namespace.is_empty() {
        "-"
    } else {
        &policy.namespace
    };
    vec![
        namespace.to_string(),
        policy.name.clone(),
        policy.kind.clone(),
        policy.rules.to_string(),
        policy.file.clone(),
    ]
}

fn source_row(source: &SourceStatus) -> Vec<String> {
    let closed = source.streams.iter().any(|stream| !stream.open);
    let state = match (source.connected, source.since_unix) {
        (true, _) if closed => "! a stream is away".to_string(),
        (true, since) => format!("connected for {}", ago(since)),
        (false, 0) => "! never reached".to_string(),
        (false, _) => "! away".to_string(),
    };
    let events = |kind: usize| source.streams.get(kind).map_or(0, |stream| stream.events);
    let lost = source
        .streams
        .iter()
        .map(|stream| stream.rejected + stream.missed + stream.dropped);
    let counts = [events(0), events(1), events(2), lost.sum(), source.errors];
    [source.name.clone(), source.address.clone(), state]
        .into_iter()
        .chain(counts.map(|count| count.to_string()))
        .collect()
}

fn sink_row(sink: &SinkStatus) -> Vec<String> {
    let pace = [
        sink.pending.to_string(),
        seconds(sink.lag_seconds),
        format!("{:.0}", sink.rate),
    ];
    let counts = [
        sink.delivered,
        sink.filtered,
        sink.dead_lettered,
        sink.expired,
        sink.corrupt,
    ];
    let mark = if sink.state == "running" { "" } else { "! " };
    [
        sink.name.clone(),
        sink.r#type.clone(),
        format!("{mark}{}", sink.state),
    ]
    .into_iter()
    .chain(pace)
    .chain(counts.map(|count| count.to_string()))
    .collect()
}

/// Whole seconds, as people write them; `-` for none.
pub(crate) fn seconds(lag: f64) -> String {
    if lag < 1.0 {
        return "-".to_owned();
    }
    yaml::Span(Duration::from_secs(lag as u64)).to_string()
}

fn short(digest: &[u8]) -> String {
    let hex = hex(digest);
    hex.get(..SHORT).unwrap_or(&hex).to_string()
}

/// How long ago a unix second was, to the second.
fn ago(unix: u64) -> yaml::Span {
    yaml::Span(Duration::from_secs(now().saturating_sub(unix)))
}

/// Unix seconds.
fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

/// A number of bytes to three digits.
pub(crate) fn size(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (bytes as f64, 0); // three digits are shown
    while value >= 1024.0 && unit + 1 < units.len() {
        (value, unit) = (value / 1024.0, unit + 1);
    }
    if unit == 0 || value >= 100.0 {
        format!("{value:.0} {}", units[unit])
    } else {
        format!("{value:.1} {}", units[unit])
    }
}

#[cfg(test)]
mod tests;
