//! `sinks`: events in, and out to every kind of sink that people have in one relay.
//!
//! Local ones write here; the others go to fakes that say yes to everything, in processes of their own, or (`--real`) to
//! the real Kafka and Elasticsearch of the tests. A row says which.

use anyhow::Result;

use crate::args::FakeKind;
use crate::disk;
use crate::relay::Relay;
use crate::scene::{self, Bench, Folder, Moment, Spent};
use crate::sensors::{Fleet, Load};
use crate::sinks::{Fake, Real};
use crate::table::Row;

/// A sink by its name, and the lines that set it up; FOLDER is the case's own, AT where its destination listens.
struct Kind {
    name: &'static str,
    lines: &'static [&'static str],
    to: To,
}

/// Where a kind's events go.
enum To {
    Here,
    /// A fake, and the real server by its name where there is one.
    Away(FakeKind, Option<&'static str>),
}

const SINKS: &[Kind] = &[
    Kind {
        name: "stdout",
        lines: &["type: stdout", "format: json"],
        to: To::Here,
    },
    Kind {
        name: "file",
        lines: &[
            "type: file",
            "format: json",
            "path: FOLDER/out/events.jsonl",
            "rotate: {max_size: 64GiB}",
        ],
        to: To::Here,
    },
    Kind {
        name: "prometheus",
        lines: &["type: prometheus"],
        to: To::Here,
    },
    Kind {
        name: "kafka",
        lines: &["type: kafka", "brokers: ['AT']"],
        to: To::Away(FakeKind::Kafka, Some("kafka")),
    },
    Kind {
        name: "elasticsearch",
        lines: &[
            "type: elasticsearch",
            "endpoints: ['http://AT']",
            "index: {setup: manual}",
        ],
        to: To::Away(FakeKind::Bulk, Some("elasticsearch")),
    },
    Kind {
        name: "otlp",
        lines: &["type: otlp", "endpoint: 'http://AT'"],
        to: To::Away(FakeKind::Logs, None),
    },
];

/// So many events at most: 0.75 KB each in the journal and 1.4 KB in the file, below 4 GB together.
const MOST: u64 = 1_500_000;
/// Bound of the journal, in bytes: above what is sent, so that nothing expires.
const LIMIT: u64 = 4 << 30;
/// What the disk must have.
const NEED: u64 = 4 << 30;

pub(crate) async fn run(bench: &Bench) -> Result<Vec<Row>> {
    let all: Vec<&str> = names(|_| true).collect();
    let local: Vec<&str> = names(|to| matches!(to, To::Here)).collect();
    let paced = Some(100_000.0);
    let mut wanted = vec![
        (
            "six sinks (3 fakes), flat out".to_owned(),
            all.clone(),
            None,
            MOST,
        ),
        (
            "six sinks (3 fakes), 100 k/s".to_owned(),
            all.clone(),
            paced,
            MOST,
        ),
        // Nobody lags: what an event costs where all that can be shared is.
        (
            "six sinks (3 fakes), 40 k/s".to_owned(),
            all.clone(),
            Some(40_000.0),
            MOST,
        ),
        (
            "local sinks, flat out".to_owned(),
            local.clone(),
            None,
            MOST,
        ),
        ("local sinks, 100 k/s".to_owned(), local, paced, MOST),
    ];
    for name in &all {
        wanted.push((format!("{name} only, flat out"), vec![name], None, MOST / 2));
    }
    let mut rows = Vec::new();
    for (what, names, rate, most) in wanted {
        if bench.wants(&what) {
            let there = There::fakes(&names)?;
            let row = Row::new("sinks", what);
            rows.push(measure(bench, row, &names, &there, &load(bench, rate, most)).await?);
        }
    }
    let what = "six sinks (real kafka, elasticsearch), flat out";
    if bench.real && bench.wants(what) {
        let there = There::real(bench, &all)?;
        let row = Row::new("sinks", what.to_owned());
        rows.push(measure(bench, row, &all, &there, &load(bench, None, MOST / 4)).await?);
    }
    println!(
        "sinks: stdout goes to /dev/null; kafka, elasticsearch and otlp to fakes unless a row says real"
    );
    Ok(rows)
}

fn load(bench: &Bench, rate: Option<f64>, most: u64) -> Load {
    Load {
        most,
        ..bench.load(4, rate)
    }
}

fn names(wanted: impl Fn(&To) -> bool) -> impl Iterator<Item = &'static str> {
    SINKS
        .iter()
        .filter(move |kind| wanted(&kind.to))
        .map(|kind| kind.name)
}

/// The destinations of some sinks; they end with this value.
#[derive(Default)]
struct There {
    fakes: Vec<(&'static str, Fake)>,
    servers: Vec<(&'static str, Real)>,
}

impl There {
    fn fakes(names: &[&str]) -> Result<There> {
        Self::start(names, |_| Ok(None))
    }

    /// Real servers where there are such.
    fn real(bench: &Bench, names: &[&str]) -> Result<There> {
        Self::start(names, |server| {
            Real::start(server, &bench.folder.join(server)).map(Some)
        })
    }

    fn start(names: &[&str], real: impl Fn(&str) -> Result<Option<Real>>) -> Result<There> {
        let mut there = There::default();
        for kind in SINKS.iter().filter(|kind| names.contains(&kind.name)) {
            let To::Away(fake, server) = kind.to else {
                continue;
            };
            match server.map(&real).transpose()?.flatten() {
                Some(server) => there.servers.push((kind.name, server)),
                None => there.fakes.push((kind.name, Fake::start(fake)?)),
            }
        }
        Ok(there)
    }

    fn at(&self, name: &str) -> &str {
        let fakes = self.fakes.iter().map(|(name, fake)| (*name, &fake.address));
        let servers = self
            .servers
            .iter()
            .map(|(name, real)| (*name, &real.address));
        let mut all = fakes.chain(servers);
        all.find(|(of, _)| *of == name)
            .map_or("", |(_, at)| at.as_str())
    }
}

/// The settings of some sinks that write here, with `more` lines in each.
pub(super) fn settings(folder: &Folder, names: &[&str], more: &[&str]) -> String {
    settings_of(folder, names, &There::default(), more)
}

fn settings_of(folder: &Folder, names: &[&str], there: &There, more: &[&str]) -> String {
    let folder = folder.path().display().to_string();
    let mut text = "sinks:\n".to_owned();
    for Kind { name, lines, .. } in SINKS.iter().filter(|kind| names.contains(&kind.name)) {
        text += &format!("  {name}:\n");
        for line in lines.iter().chain(more) {
            let line = line
                .replace("FOLDER", &folder)
                .replace("AT", there.at(name));
            text += &format!("    {line}\n");
        }
    }
    text
}

async fn measure(
    bench: &Bench,
    mut row: Row,
    names: &[&str],
    there: &There,
    load: &Load,
) -> Result<Row> {
    let folder = Folder::make(bench, NEED)?;
    let probe = disk::sync_times(folder.path())?;
    let more = settings_of(&folder, names, there, &[]);
    let relay = Relay::start(&bench.program, folder.path(), LIMIT, &more).await?;
    let fleet = Fleet::start(relay.link, load).await?;
    let totals = fleet.totals.clone();
    let begun = Moment::now(&relay, &totals)?;
    scene::warm_up().await;
    let spent = scene::window(bench, &relay, &fleet, load).await?;
    let metrics = relay.metrics().await?;
    let lag = |sink: &&str| metrics.sink("pending", sink);
    let lag = names.iter().map(lag).fold(0.0, f64::max);
    let sent = fleet.finish().await?;
    let wanted = scene::total(&sent);
    let drained = scene::caught_up(&mut row, &relay, names, wanted).await?;
    let whole = Spent::between(&begun, &Moment::now(&relay, &totals)?);
    spent.put_rates(&mut row);
    row.put("through all sinks/s", whole.rate(wanted as f64), 0);
    row.put("lag at end", lag, 0);
    row.put("drained after s", drained.as_secs_f64(), 1);
    row.put("relay µs/event", whole.relay_us(wanted as f64), 2);
    scene::put_acks(&mut row, &totals.times());
    scene::put_memory(&mut row, &relay)?;
    scene::put_disk(&mut row, &probe);
    let metrics = scene::check_metrics(&mut row, &relay, &sent).await?;
    check_losses(&mut row, &metrics, names);
    if names.contains(&"prometheus") {
        let counted = metrics.sum("cresset_events_total");
        row.must(counted == wanted as f64, || {
            format!("prometheus counted {counted} of {wanted} events")
        });
    }
    scene::stop(&mut row, relay, &folder, &sent).await?;
    if names.contains(&"file") {
        let lines = disk::lines(&folder.path().join("out/events.jsonl"))?;
        row.must(lines == wanted, || {
            format!("the file has {lines} lines of {wanted} events")
        });
    }
    Ok(row)
}

fn check_losses(row: &mut Row, metrics: &crate::relay::Metrics, names: &[&str]) {
    for sink in names {
        for figure in [
            "dead_lettered_total",
            "expired_total",
            "corrupt_total",
            "filtered_total",
        ] {
            let lost = metrics.sink(figure, sink);
            row.must(lost == 0.0, || format!("{sink}: {figure} is {lost}"));
        }
    }
}
