//! A part of the events instead of all.
//!
//! ```yaml
//! sample: {log: 0.1}      # every alert and message, one log in ten
//! ```
//!
//! Which ones is decided by the event's id alone, so it is the same choice after a restart, at another relay and for a
//! resend, and a smaller share is part of a larger one: an event that a sink of 1 % has is in a sink of 10 %, too. What is
//! left out counts as filtered.

use proto::{Event, EventId, Kind};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The share of each kind that goes out, above 0 and up to 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SampleConfig {
    /// Of alerts.
    pub alert: f64,
    /// Of logs.
    pub log: f64,
    /// Of messages.
    pub message: f64,
}

impl Default for SampleConfig {
    fn default() -> Self {
        SampleConfig {
            alert: 1.0,
            log: 1.0,
            message: 1.0,
        }
    }
}

/// The shares, ready for use.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    config: SampleConfig,
    /// By kind: ids below it go out; none: all do.
    below: [Option<u64>; 4],
}

impl Sample {
    /// Makes the shares ready.
    #[must_use]
    pub fn new(config: SampleConfig) -> Self {
        let mut below = [None; 4];
        for (kind, share) in shares(config) {
            // Two to the power of 64; the conversion stops at the largest number.
            below[kind as usize] =
                (share < 1.0).then_some((share * 18_446_744_073_709_551_616.0) as u64);
        }
        Sample { config, below }
    }

    /// Whether the event is among those that go out.
    #[must_use]
    pub fn keeps(&self, event: &Event) -> bool {
        self.below[event.kind as usize].is_none_or(|below| place(event.id) < below)
    }

    /// The first share that is none: its key and value.
    pub(crate) fn out_of_range(&self) -> Option<(&'static str, f64)> {
        let wrong = |share: f64| !(share > 0.0 && share <= 1.0);
        shares(self.config)
            .into_iter()
            .find(|(_, share)| wrong(*share))
            .map(|(kind, share)| (key(kind), share))
    }
}

impl Default for Sample {
    fn default() -> Self {
        Sample::new(SampleConfig::default())
    }
}

fn shares(config: SampleConfig) -> [(Kind, f64); 3] {
    [
        (Kind::Alert, config.alert),
        (Kind::Log, config.log),
        (Kind::Message, config.message),
    ]
}

fn key(kind: Kind) -> &'static str {
    match kind {
        Kind::Alert => "sample.alert",
        Kind::Log => "sample.log",
        Kind::Message => "sample.message",
    }
}

/// Where an id falls among all numbers of 64 bits, evenly. Part of the contract between relays: it never changes.
fn place(EventId { stream, sequence }: EventId) -> u64 {
    mix(u64::from_be_bytes(stream.0) ^ mix(sequence))
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}

#[cfg(test)]
mod tests {
    use proto::StreamId;

    use super::*;

    fn log(sequence: u64) -> Event {
        Event {
            kind: Kind::Log,
            id: EventId {
                stream: StreamId(*b"a stream"),
                sequence,
            },
            payload: Vec::new().into(),
        }
    }

    fn kept(share: f64) -> Vec<u64> {
        let sample = Sample::new(SampleConfig {
            log: share,
            ..Default::default()
        });
        (1..=10_000).filter(|&n| sample.keeps(&log(n))).collect()
    }

    #[test]
    fn about_the_share_is_kept_and_a_smaller_share_is_part_of_a_larger() {
        let (tenth, hundredth) = (kept(0.1), kept(0.01));
        assert!((850..1150).contains(&tenth.len()), "{}", tenth.len());
        assert!((60..140).contains(&hundredth.len()), "{}", hundredth.len());
        assert!(hundredth.iter().all(|n| tenth.binary_search(n).is_ok()));
        assert_eq!(kept(1.0).len(), 10_000);
    }

    #[test]
    fn the_choice_is_the_same_for_ever() {
        assert_eq!(kept(0.001)[..3], [574, 1503, 3756]);
    }

    #[test]
    fn other_kinds_are_left_alone() {
        let sample = Sample::new(SampleConfig {
            log: 1e-9,
            ..Default::default()
        });
        let alert = Event {
            kind: Kind::Alert,
            ..log(1)
        };
        assert!(sample.keeps(&alert) && !sample.keeps(&log(1)));
    }
}
