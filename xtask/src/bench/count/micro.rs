//! One piece of code in a loop, to be counted by callgrind: `cresset-count CASE EVENTS FOLDER`.
//!
//! Everything before the loop is the same for every number of events, so the difference between two numbers is the loop
//! alone. Nothing depends on time, threads or the machine.

use std::future::Future as _;
use std::hint::black_box;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use anyhow::{Result, bail, ensure};
use bytes::{Bytes, BytesMut};
use journal::{Config, Journal, RealDisk, Record, Seq};
use prost::Message as _;
use proto::link::{FromSensor, from_sensor};
use proto::{Event, EventId, FieldSet, Kind, StreamId, View};

use super::args::MicroCase;
use super::events::{Class, Maker};
use super::filter::{Filter, FilterConfig};

/// Different events that the loops go over.
const POOL: usize = 500;
/// Events of a batch and of an append; numbers of events are multiples of it.
const BATCH: usize = 1000;
/// Whenever it runs, it is this moment: 2026-01-01T00:00:00Z, in nanoseconds.
const NOW: u64 = 1_767_225_600_000_000_000;
const STREAM: StreamId = StreamId(*b"callgrnd");

/// Goes over `events` events. `folder` is an empty one for those who need files.
pub(crate) fn run(case: MicroCase, events: usize, folder: &Path) -> Result<()> {
    ensure!(
        events.is_multiple_of(BATCH),
        "{events} is no multiple of {BATCH}"
    );
    let pool = pool();
    let each = pool.iter().cycle().take(events);
    match case {
        MicroCase::Check => each.for_each(|event| {
            let _ = black_box(proto::check(event.kind, &event.payload));
        }),
        MicroCase::Receive => receive(events)?,
        MicroCase::View => each.for_each(|event| {
            black_box(View::read(event.kind, &event.payload));
        }),
        MicroCase::Filter => {
            let filter = filter();
            each.for_each(|event| {
                black_box(filter.wants(event));
            });
        }
        MicroCase::Frame => frame(each),
        MicroCase::JsonKubearmor => render(each, |event, out| {
            proto::json::write(event.kind, &event.payload, None, FieldSet::KubeArmor, out)
        })?,
        MicroCase::JsonAll => render(each, |event, out| {
            let id = Some(event.id);
            proto::json::write(event.kind, &event.payload, id, FieldSet::All, out)
        })?,
        MicroCase::Text => render(each, |event, out| {
            proto::text::write(event.kind, &event.payload, out)
        })?,
        MicroCase::Append => append(&open(folder)?, &pool, events)?,
        MicroCase::Read => read(open(folder)?, &pool, events)?,
    }
    Ok(())
}

/// One alert in five, as sensors send them.
fn pool() -> Vec<Event> {
    let mut maker = Maker::new(1, 0);
    let event = |n: u64| {
        let kind = if n.is_multiple_of(5) {
            Kind::Alert
        } else {
            Kind::Log
        };
        let payload = Bytes::copy_from_slice(maker.event(kind, NOW + n * 1000));
        let id = EventId {
            stream: STREAM,
            sequence: n + 1,
        };
        Event { kind, id, payload }
    };
    (0..POOL as u64).map(event).collect()
}

fn render<'a>(
    events: impl Iterator<Item = &'a Event>,
    write: impl Fn(&Event, &mut Vec<u8>) -> Result<(), proto::Malformed>,
) -> Result<()> {
    let mut out = Vec::with_capacity(64 << 10);
    for event in events {
        out.clear();
        write(event, &mut out)?;
        black_box(&out);
    }
    Ok(())
}

/// As the link gives it: the message out of its bytes, the batch out of the message, every event checked.
fn receive(events: usize) -> Result<()> {
    let batch = Maker::new(1, 0).batch(Class::Telemetry, STREAM, 1, BATCH, NOW);
    let message = FromSensor {
        is: Some(from_sensor::Is::Batch(batch)),
    };
    let bytes = Bytes::from(message.encode_to_vec());
    for _ in 0..events / BATCH {
        let message = FromSensor::decode(bytes.clone())?;
        let Some(from_sensor::Is::Batch(batch)) = message.is else {
            bail!("a batch is no batch");
        };
        black_box(proto::batch::receive(batch)?);
    }
    Ok(())
}

/// Conditions of every sort that a sink may have.
fn filter() -> Filter {
    Filter::new(FilterConfig {
        min_severity: 5,
        namespaces: vec!["shop".to_owned(), "payments".to_owned(), "data".to_owned()],
        actions: vec!["Block".to_owned()],
        operations: vec!["Process".to_owned(), "File".to_owned()],
        ..FilterConfig::default()
    })
}

/// As the feed sends it.
fn frame<'a>(events: impl Iterator<Item = &'a Event>) {
    let records: Vec<(u8, Bytes)> = pool()
        .iter()
        .map(|event| (event.kind.into(), event.to_journal()))
        .collect();
    let mut out = BytesMut::with_capacity(64 << 10);
    for (_, (kind, record)) in events.zip(records.iter().cycle()) {
        if let Ok(event) = Event::from_journal(*kind, record.clone()) {
            out.clear();
            event.put_with_id(&mut out);
            black_box(&out);
        }
    }
}

/// A journal whose work is done by whoever calls it.
struct Stepped {
    journal: Journal,
    stepper: std::cell::RefCell<journal::Stepper>,
}

fn open(folder: &Path) -> Result<Stepped> {
    let disk = Arc::new(RealDisk::open(folder)?);
    let (journal, _, stepper) = Journal::open_stepped(disk, Config::default(), Box::new(()))?;
    Ok(Stepped {
        journal,
        stepper: stepper.into(),
    })
}

/// As the relay journals a batch: id and payload in one piece, one group.
fn append(stepped: &Stepped, pool: &[Event], events: usize) -> Result<()> {
    let mut each = pool.iter().cycle();
    for _ in 0..events / BATCH {
        let record = |event: &Event| Record {
            kind: event.kind.into(),
            time: NOW,
            payload: event.to_journal(),
        };
        let records = each.by_ref().take(BATCH).map(record).collect();
        let mut answer = pin!(stepped.journal.append(records));
        let mut context = Context::from_waker(Waker::noop());
        if answer.as_mut().poll(&mut context).is_pending() {
            stepped.stepper.borrow_mut().write(NOW);
        }
        match answer.as_mut().poll(&mut context) {
            Poll::Ready(range) => drop(black_box(range?)),
            Poll::Pending => bail!("the journal did not answer"),
        }
    }
    Ok(())
}

/// As feeds and sinks read.
fn read(stepped: Stepped, pool: &[Event], events: usize) -> Result<()> {
    append(&stepped, pool, 2 * BATCH)?;
    let mut reader = stepped.journal.reader(Seq(1));
    let mut left = events;
    while left > 0 {
        let block = reader.next(64 << 10)?;
        if block.is_empty() {
            reader.seek(Seq(1));
        }
        left = left.saturating_sub(block.entries.len());
        black_box(&block);
    }
    ensure!(stepped.journal.check().is_ok(), "the books do not balance");
    Ok(())
}
