//! `cresset logs`: events as they happen, or as they happened.
//!
//! ```text
//! flags ─▶ WatchRequest ─▶ relay's query service ──────────────────────┬─▶ Printer ─▶ stdout or a file
//!            └─ a relay that is KubeArmor's ─▶ feeder.LogService ─▶ filter ┘
//! ```
//! The relay filters. KubeArmor's own relay cannot, and has no history: there the stream is filtered here, with the
//! same code.

mod kubearmor;
mod output;

use std::collections::HashMap;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use clap::{Args, ValueEnum};
use futures::{FutureExt, Stream, StreamExt};
use proto::query::watch_reply::Is;
use proto::query::{Filter, WatchReply, WatchRequest};
use proto::{EventId, FieldSet, Kind, link};
use tonic::{Code, Status};

use crate::connect::{Relay, RelayArgs, Trouble};
use crate::print::Format;
use output::{Output, Stop, Target};

/// Watch events as they happen, or read them from the relay's journal
#[derive(Args, Clone, Debug)]
#[command(after_help = HELP)]
pub(crate) struct LogsArgs {
    #[command(flatten)]
    relay: RelayArgs,

    /// Which events: what policies say, what the system does, or both
    #[arg(long, alias = "logFilter", value_enum, default_value_t = Which::Policy)]
    filter: Which,

    /// How events look
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,

    /// One line of JSON for each event; the same as -o json
    #[arg(long)]
    json: bool,

    /// Which fields JSON has
    #[arg(long, value_enum, default_value_t = Fields::Kubearmor)]
    fields: Fields,

    /// Events since this: a duration back from now (10m, 2h, 7d) or a time (RFC 3339)
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<i64>,

    /// Events from this place in the relay's journal on (`cresset status` and `cresset journal inspect` show places)
    #[arg(long, value_name = "SEQUENCE", conflicts_with = "since")]
    from: Option<u64>,

    /// Events before this: a duration back from now (10m, 2h, 7d) or a time (RFC 3339)
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<i64>,

    /// Only the last N events of the past that match; 0: none of it
    #[arg(long, value_name = "N")]
    tail: Option<u64>,

    /// Stay for what happens after the past given with --since, --from, --until or --tail
    #[arg(short, long)]
    follow: bool,

    /// Stop after N events
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    limit: u64,

    #[command(flatten)]
    only: Only,

    /// Where events go: stdout, none, or a file to append to
    #[arg(
        long = "logPath",
        value_name = "PATH",
        default_value = "stdout",
        hide = true
    )]
    log_path: Target,

    /// Where messages go: none, stdout, or a file to append to
    #[arg(
        long = "msgPath",
        value_name = "PATH",
        default_value = "none",
        hide = true
    )]
    msg_path: Target,
}

/// What the relay lets pass.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Only events of")]
struct Only {
    /// Namespace (expression, case ignored)
    #[arg(
        short,
        long,
        value_name = "RE",
        default_value = "",
        hide_default_value = true
    )]
    namespace: String,

    /// All of these labels
    #[arg(short, long, value_name = "KEY=VALUE", value_delimiter = ',', value_parser = label)]
    labels: Vec<(String, String)>,

    /// Pod (expression, case ignored)
    #[arg(long, value_name = "RE", default_value = "", hide_default_value = true)]
    pod: String,

    /// Container (expression, case ignored)
    #[arg(long, value_name = "RE", default_value = "", hide_default_value = true)]
    container: String,

    /// Operation: Process, File, Network, … (expression, case ignored)
    #[arg(long, value_name = "RE", default_value = "", hide_default_value = true)]
    operation: String,

    /// Type: MatchedPolicy, ContainerLog, … (expression, case ignored)
    #[arg(
        long = "type",
        alias = "logType",
        value_name = "RE",
        default_value = "",
        hide_default_value = true
    )]
    type_: String,

    /// Action: Block, Audit, … (expression, case ignored)
    #[arg(long, value_name = "RE", default_value = "", hide_default_value = true)]
    action: String,

    /// Policy (expression, case ignored)
    #[arg(long, value_name = "RE", default_value = "", hide_default_value = true)]
    policy: String,

    /// At least this severity
    #[arg(
        long,
        value_name = "1-10",
        value_parser = clap::value_parser!(u32).range(0..=10),
        default_value_t = 0,
        hide_default_value = true
    )]
    min_severity: u32,

    /// Source, the program that acted (expression)
    #[arg(long, value_name = "RE", default_value = "", hide_default_value = true)]
    source: String,

    /// Resource, what was acted upon (expression)
    #[arg(long, value_name = "RE", default_value = "", hide_default_value = true)]
    resource: String,
}

/// What every expression has in common, and how it is used.
const HELP: &str = "\
An expression is a regular expression that is searched for anywhere in its field; ^shop$ is the whole field.
An event that lacks the field is left out.

Examples:
  cresset logs                                  alerts as they happen
  cresset logs --filter all --since 10m -f      all of the last ten minutes, and what follows
  cresset logs -n shop --pod '^cart-' --json    for a script";

/// karmor's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Which {
    /// Alerts
    Policy,
    /// Telemetry
    System,
    /// Both
    All,
}

impl Which {
    fn kinds(self) -> Vec<Kind> {
        match self {
            Which::Policy => vec![Kind::Alert],
            Which::System => vec![Kind::Log],
            Which::All => vec![Kind::Alert, Kind::Log],
        }
    }
}

/// An event on its way to the printer, or word of the stream itself.
enum Seen {
    Event {
        kind: Kind,
        payload: Bytes,
        id: Option<EventId>,
    },
    Gap {
        missed: u64,
        reason: String,
    },
    /// What follows is live.
    Live,
}

impl LogsArgs {
    fn kinds(&self) -> Vec<Kind> {
        let mut kinds = self.filter.kinds();
        if self.log_path == Target::None {
            kinds.clear();
        }
        if self.msg_path != Target::None {
            kinds.push(Kind::Message);
        }
        kinds
    }

    /// Only what happened, not what happens.
    fn is_history(&self) -> bool {
        self.asks_for_the_past() && !self.follow
    }

    fn asks_for_the_past(&self) -> bool {
        let times = self.since.is_some() || self.until.is_some();
        times || self.from.is_some() || self.tail.is_some()
    }

    /// `--tail 0`, as with kubectl.
    fn leaves_the_past_out(&self) -> bool {
        self.tail == Some(0)
    }

    fn request(&self) -> WatchRequest {
        let only = self.only.clone();
        let kinds = self
            .kinds()
            .into_iter()
            .map(|kind| link::EventKind::from(kind).into());
        WatchRequest {
            filter: Some(Filter {
                kinds: kinds.collect(),
                namespace: only.namespace,
                labels: only.labels.into_iter().collect::<HashMap<_, _>>(),
                pod: only.pod,
                container: only.container,
                operation: only.operation,
                r#type: only.type_,
                action: only.action,
                policy: only.policy,
                min_severity: only.min_severity,
                source: only.source,
                resource: only.resource,
            }),
            since_ns: self
                .since
                .filter(|_| !self.leaves_the_past_out())
                .unwrap_or(0),
            until_ns: self.until.unwrap_or(0),
            limit: self.limit,
            tail: self.tail.unwrap_or(0),
            follow: !self.is_history(),
            resume: Bytes::new(),
            complete: false,
            // No event has that place yet: what comes is what follows.
            from_sequence: match self.leaves_the_past_out() {
                true => u64::MAX,
                false => self.from.unwrap_or(0),
            },
        }
    }
}

/// What JSON has of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Fields {
    /// KubeArmor's, as karmor prints them
    Kubearmor,
    /// Also the event's id and what else is Cresset's own
    All,
}

impl From<Fields> for FieldSet {
    fn from(fields: Fields) -> FieldSet {
        match fields {
            Fields::Kubearmor => FieldSet::KubeArmor,
            Fields::All => FieldSet::All,
        }
    }
}

/// Runs `cresset logs` until the past is told, the limit is reached, or Ctrl-C.
///
/// # Errors
/// Wrong usage, an unreachable relay, a stream that breaks, an output that cannot be written.
pub(crate) async fn logs(args: LogsArgs) -> Result<ExitCode, Trouble> {
    let kinds = args.kinds();
    if kinds.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    let format = if args.json { Format::Json } else { args.output };
    // Messages obey --json only, as karmor's do.
    let messages = if args.json {
        Format::Json
    } else {
        Format::Text
    };
    let mut output = Output::open(&args.log_path, format, &args.msg_path, messages)?;
    output.show(args.fields.into());
    let relay = args.relay.connect().await?;
    let watched = async {
        let stream = watch(&relay, &args).await?;
        print(stream, &relay, &kinds, &mut output).await
    };
    tokio::select! {
        done = watched => done?,
        () = interrupted() => {}
    }
    match output.flush() {
        Ok(()) | Err(Stop::Closed) => Ok(ExitCode::SUCCESS),
        Err(Stop::Failed(trouble)) => Err(trouble),
    }
}

type Watched = std::pin::Pin<Box<dyn Stream<Item = Result<Seen, Status>> + Send>>;

/// Opens the stream at the relay's query service, or at what KubeArmor's relay has instead.
async fn watch(relay: &Relay, args: &LogsArgs) -> Result<Watched, Trouble> {
    let request = args.request();
    match relay.query().watch(request.clone()).await {
        Ok(stream) => Ok(Box::pin(
            stream
                .into_inner()
                .filter_map(async |reply| seen(reply).transpose()),
        )),
        Err(status) if status.code() == Code::Unimplemented => {
            if args.asks_for_the_past() {
                let reason = "it keeps no history, as KubeArmor's do not, or this is not a relay's feed; leave out --since, --from, --until and --tail, or name the feed";
                return Err(Trouble::Refused {
                    address: relay.address.clone(),
                    reason: reason.to_string(),
                });
            }
            kubearmor::watch(relay, request, &args.kinds()).await
        }
        Err(status) => Err(relay.trouble(status)),
    }
}

/// What a reply says; nothing for one from a newer relay.
fn seen(reply: Result<WatchReply, Status>) -> Result<Option<Seen>, Status> {
    Ok(match reply?.is {
        Some(Is::Event(event)) => {
            let kind = Kind::try_from(event.kind())
                .map_err(|error| Status::data_loss(error.to_string()))?;
            Some(Seen::Event {
                kind,
                payload: event.payload,
                id: EventId::try_from(&event.id[..]).ok(),
            })
        }
        Some(Is::Gap(gap)) => Some(Seen::Gap {
            missed: gap.missed,
            reason: gap.reason,
        }),
        Some(Is::Live(_)) => Some(Seen::Live),
        None => None,
    })
}

/// Prints a stream to its end. What is printed is flushed as soon as nothing more is waiting.
async fn print(
    mut stream: Watched,
    relay: &Relay,
    kinds: &[Kind],
    output: &mut Output,
) -> Result<(), Trouble> {
    loop {
        let next = match stream.next().now_or_never() {
            Some(next) => next,
            None => {
                if let Err(stop) = output.flush() {
                    return stop.into_result();
                }
                stream.next().await
            }
        };
        let Some(seen) = next else { return Ok(()) };
        match seen.map_err(|status| relay.trouble(status))? {
            Seen::Event { kind, payload, id } => {
                if let Err(stop) = output.event(kind, &payload, id) {
                    return stop.into_result();
                }
            }
            Seen::Gap { missed, reason } => eprintln!("cresset: missed {missed} events: {reason}"),
            Seen::Live => kinds.iter().for_each(|kind| {
                eprintln!("Started to watch {}s", kind.name().to_lowercase());
            }),
        }
    }
}

/// Waits for Ctrl-C or SIGTERM; both are the normal end of watching.
pub(crate) async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    match (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    ) {
        (Ok(mut interrupt), Ok(mut terminate)) => {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        }
        // Without handlers the signals end the program by themselves.
        _ => std::future::pending().await,
    }
}

/// A duration back from now or RFC 3339, as unix nanoseconds.
pub(crate) fn time(text: &str) -> Result<i64, String> {
    let unix = match text.parse::<yaml::Span>() {
        Ok(span) => now().saturating_sub(span.0),
        Err(_) => match text.parse::<jiff::Timestamp>() {
            Ok(time) => {
                Duration::try_from(time.as_duration()).map_err(|_| "is before 1970".to_string())?
            }
            Err(_) => {
                return Err(
                    "write a duration (10m, 2h, 7d) or a time (2026-01-31T12:00:00Z)".to_string(),
                );
            }
        },
    };
    i64::try_from(unix.as_nanos()).map_err(|_| "is too far in the future".to_string())
}

fn now() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_string(), value.to_string())),
        _ => Err("write KEY=VALUE".to_string()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        logs: LogsArgs,
    }

    fn parse(line: &str) -> LogsArgs {
        Program::try_parse_from(["logs"].into_iter().chain(line.split_whitespace()))
            .unwrap()
            .logs
    }

    #[test]
    fn nothing_said_is_live_alerts_as_text() {
        let args = parse("");
        let request = args.request();
        assert!(request.follow && request.since_ns == 0 && request.limit == 0);
        assert_eq!(request.filter.unwrap().kinds, [1]);
        assert_eq!(args.output, Format::Text);
    }

    #[test]
    fn a_past_is_told_and_left_unless_followed() {
        for past in [
            "--since 10m",
            "--until 1h",
            "--tail 5",
            "--since 2026-01-01T00:00:00Z",
        ] {
            assert!(!parse(past).request().follow, "{past}");
            assert!(parse(&format!("{past} -f")).request().follow, "{past} -f");
        }
        let none = parse("--tail 0 --since 10m -f").request();
        assert_eq!((none.since_ns, none.from_sequence), (0, u64::MAX));
        assert_eq!(
            parse("--since 2026-01-01T00:00:00Z").request().since_ns,
            1_767_225_600_000_000_000
        );
    }

    #[test]
    fn karmors_spellings_are_understood() {
        let karmor = parse(
            "--gRPC h:1 --logFilter all --logType Matched --logPath none --msgPath stdout -o pretty-json",
        );
        assert_eq!(karmor.relay.relay.as_deref(), Some("h:1"));
        assert_eq!(karmor.request().filter.unwrap().r#type, "Matched");
        assert_eq!(karmor.kinds(), [Kind::Message]);
        assert_eq!(parse("--logFilter all").kinds(), [Kind::Alert, Kind::Log]);
        assert_eq!(parse("-l a=b,c=d --labels e=").only.labels.len(), 3);
    }

    #[test]
    fn what_is_no_time_or_label_is_refused() {
        for bad in [
            "--since yesterday",
            "--since 1969-01-01T00:00:00Z",
            "-l novalue",
            "--filter none",
            "--limit -1",
        ] {
            assert!(
                Program::try_parse_from(["logs"].into_iter().chain(bad.split_whitespace()))
                    .is_err(),
                "{bad}"
            );
        }
    }
}
