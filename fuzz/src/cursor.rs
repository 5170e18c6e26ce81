//! A cursor's file.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};

use journal::inspect::{Depth, inspect};
use journal::repair::repair;
use journal::{Account, CursorOptions, Seq, Start};

use crate::disk::{aside, fresh, open};

/// One that was made, and one that moved and has a state.
pub fn seeds() -> Vec<Vec<u8>> {
    vec![sample(false), sample(true)]
}

fn sample(moved: bool) -> Vec<u8> {
    let disk = fresh();
    let (journal, _, mut stepper) = open(&disk).expect("a journal");
    let options = CursorOptions {
        start: Start::Beginning,
        ..CursorOptions::default()
    };
    let cursor = journal.cursor("a", options).expect("a cursor");
    if moved {
        let state = Some("a state".into());
        let mut advance = pin!(cursor.advance(Seq(1), Account::default(), state));
        let mut context = Context::from_waker(Waker::noop());
        assert!(advance.as_mut().poll(&mut context).is_pending());
        stepper.keep(0);
    }
    disk.contents("a.cursor").expect("its file")
}

/// Opens the journal with it, takes the cursor, moves it, and opens again.
pub fn run(bytes: &[u8]) {
    let disk = fresh();
    disk.put("a.cursor", bytes.to_vec());
    inspect(&*disk.disk(), Depth::Everything).ok();
    let repaired = disk.copy(7);
    repair(&repaired.disk(), aside).ok();
    for disk in [disk, repaired] {
        let Ok((journal, _, mut stepper)) = open(&disk) else {
            continue;
        };
        let cursor = journal.cursor("a", CursorOptions::default());
        let place = cursor.ok().map(|cursor| {
            assert!(cursor.position() <= journal.committed().next());
            (cursor.position(), cursor.state())
        });
        stepper.keep(0);
        stepper.close(0);
        let (journal, ..) = open(&disk).expect("it opened before");
        let cursor = journal.cursor("a", CursorOptions::default());
        let again = cursor
            .ok()
            .map(|cursor| (cursor.position(), cursor.state()));
        assert_eq!(place, again, "the cursor is elsewhere after a restart");
    }
}
