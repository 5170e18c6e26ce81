//! What of the journal stays in the page cache.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use journal::{Account, Config, CursorOptions, Journal, Start, Stepper, sim::SimDisk};
use support::sized;

#[test]
fn segments_that_all_have_passed_are_given_back_once_but_for_the_newest() {
    let disk = SimDisk::new(1);
    let config = Config {
        segment_bytes: 8 << 10,
        // Two of them.
        warm_bytes: 20 << 10,
        ..Config::default()
    };
    let (journal, _, mut stepper) =
        Journal::open_stepped(disk.disk(), config, Box::new(())).unwrap();
    let fill = |stepper: &mut Stepper, segments| {
        while journal.stats().segments < segments {
            support::append(&journal, stepper, vec![sized(1, 900)]).unwrap();
        }
        stepper.keep(0);
    };
    let bases = || {
        let names = disk.names().into_iter();
        names.filter(|n| n.ends_with(".seg")).collect::<Vec<_>>()
    };
    fill(&mut stepper, 3);
    assert!(disk.given_back().is_empty());
    fill(&mut stepper, 5);
    assert_eq!(disk.given_back(), bases()[..2], "nobody reads any of them");

    let options = CursorOptions {
        start: Start::Beginning,
        ..CursorOptions::default()
    };
    let cursor = journal.cursor("c", options).unwrap();
    fill(&mut stepper, 8);
    assert_eq!(disk.given_back(), bases()[..2], "the cursor needs the rest");
    let end = journal.committed().next();
    let account = Account {
        delivered: end.0 - 1,
        ..Account::default()
    };
    let mut advance = Box::pin(cursor.advance(end, account, None));
    assert!(support::poll(&mut advance).is_pending());
    stepper.keep(0);
    stepper.keep(0);
    assert_eq!(disk.given_back(), bases()[..5]);
    journal.check().unwrap();
}
