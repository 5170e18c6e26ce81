//! The accounts as a page of /metrics shows them. They have to add up at every moment.
#![allow(dead_code, unreachable_pub, reason = "each test program uses its part")]

use std::collections::BTreeMap;

use journal::account::{self, Books};
use journal::{Ledger, Seq};

/// A page of /metrics, by name and labels as they stand there.
pub struct Page(BTreeMap<String, f64>);

impl Page {
    pub fn read(text: &str) -> Page {
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        let samples = samples.filter_map(|line| line.rsplit_once(' '));
        Page(
            samples
                .filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
                .collect(),
        )
    }

    /// One figure; 0 if it is not there.
    pub fn get(&self, name: &str) -> u64 {
        self.0.get(name).map_or(0, |value| *value as u64)
    }

    /// What became of the events of a door.
    pub fn door(&self, door: &str, outcome: &str) -> u64 {
        self.get(&format!(
            r#"cresset_ingest_events_total{{door="{door}",outcome="{outcome}"}}"#
        ))
    }

    /// One figure of a sink, as in `delivered_total`.
    pub fn sink(&self, sink: &str, what: &str) -> u64 {
        let of_sink = format!(r#"cresset_sink_{what}{{sink="{sink}","#);
        let found = self.0.iter().find(|(name, _)| name.starts_with(&of_sink));
        found.map_or(0, |(_, value)| *value as u64)
    }

    fn labels(&self, metric: &str, label: &str) -> Vec<String> {
        let open = format!("{metric}{{");
        let of_metric = self.0.keys().filter_map(|name| name.strip_prefix(&open));
        let values = of_metric.filter_map(|labels| {
            labels
                .split(&format!("{label}=\""))
                .nth(1)?
                .split('"')
                .next()
        });
        values.map(str::to_owned).collect()
    }

    /// Whether every account balances.
    pub fn check(&self) -> Result<(), String> {
        for door in self.labels("cresset_ingest_received_events_total", "door") {
            self.check_books(&self.ledger(&door))
                .map_err(|why| format!("door {door}: {why}"))?;
        }
        self.check_books(&self.journal())
            .map_err(|why| format!("journal: {why}"))?;
        for sink in self.labels("cresset_sink_journaled_total", "sink") {
            self.check_sink(&sink)?;
        }
        match self.get("cresset_journal_accounts_broken") {
            0 => Ok(()),
            _ => Err("the journal found its own books broken".to_owned()),
        }
    }

    /// Whether, with nothing on its way, what the doors acknowledged is what the journal took.
    pub fn check_at_rest(&self) -> Result<(), String> {
        self.check()?;
        let doors = self.labels("cresset_ingest_received_events_total", "door");
        let told: u64 = doors
            .iter()
            .map(|door| self.door(door, "acknowledged"))
            .sum();
        let journaled = self.get("cresset_journal_acknowledged_events_total");
        if told == journaled {
            Ok(())
        } else {
            Err(format!(
                "the doors acknowledged {told}, the journal {journaled}"
            ))
        }
    }

    fn check_books(&self, books: &Books) -> Result<(), String> {
        account::check(books, None).map_err(|violation| violation.to_string())
    }

    fn ledger(&self, door: &str) -> Books {
        let of = |metric: &str| self.get(&format!(r#"{metric}{{door="{door}"}}"#));
        let ledger = Ledger {
            received: of("cresset_ingest_received_events_total"),
            acknowledged: self.door(door, "acknowledged"),
            refused: self.door(door, "refused") + self.door(door, "rejected"),
            duplicate: self.door(door, "duplicate"),
            in_flight: of("cresset_ingest_in_flight_events"),
        };
        Books {
            ledger,
            ..Books::default()
        }
    }

    fn journal(&self) -> Books {
        let of = |what: &str| self.get(&format!("cresset_journal_{what}"));
        let bound = of("max_bytes");
        Books {
            first: Seq(of("first_sequence")),
            committed: Seq(of("next_sequence").saturating_sub(1)),
            segments: Vec::new(),
            bytes: of("bytes"),
            // One segment more, which is at most half of the bound.
            bound: bound + (64 << 20).min(bound / 2),
            ledger: Ledger {
                received: of("received_events_total"),
                acknowledged: of("acknowledged_events_total"),
                refused: of("refused_events_total"),
                duplicate: 0,
                in_flight: of("in_flight_events"),
            },
            cursors: Vec::new(),
        }
    }

    fn check_sink(&self, sink: &str) -> Result<(), String> {
        let parts = [
            "delivered_total",
            "filtered_total",
            "dead_lettered_total",
            "expired_total",
            "corrupt_total",
            "pending",
        ]
        .map(|what| (what, self.sink(sink, what)));
        let journaled = self.sink(sink, "journaled_total");
        let sum: u64 = parts.iter().map(|(_, count)| count).sum();
        if sum == journaled {
            Ok(())
        } else {
            Err(format!("sink {sink}: journaled {journaled} ≠ {parts:?}"))
        }
    }
}
