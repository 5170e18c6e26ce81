//! The accounts: what went in, what came of it, and the identities that must hold at every moment.
//!
//! ```text
//! received          = acknowledged + refused + duplicate + in flight                          (a Ledger)
//! position − birth  = delivered + filtered + dead-lettered + expired + corrupt − rewound      (each cursor)
//! birth ≤ position ≤ committed + 1        first ≤ committed + 1        bytes ≤ bound + one segment
//! every number belongs to one segment: each begins after the one before it
//! from one moment to the next: first, committed and position + rewound never go back, birth stays
//! ```
//!
//! [`check`] is the only place that knows them: tests, the model of the random histories and the journal's own
//! run-time assertion ([`crate::Journal::check`], which holds each moment against the last) all call it.

use std::ops::{Add, AddAssign};

use crate::Seq;

/// What became of the records that a cursor has passed, in records, since the cursor's birth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Handed over and confirmed.
    pub delivered: u64,
    /// Not wanted by the consumer's filter.
    pub filtered: u64,
    /// Refused by the destination for good and kept elsewhere, with the reason.
    pub dead_lettered: u64,
    /// Removed by retention before the consumer came to them.
    pub expired: u64,
    /// Unreadable: damaged on disk, or (told apart when the journal was opened) interrupted by a crash before they were
    /// acknowledged.
    pub corrupt: u64,
}

impl Account {
    /// All records passed.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.delivered + self.filtered + self.dead_lettered + self.expired + self.corrupt
    }

    /// The same of numbers that may be anything; none if they do not fit.
    pub(crate) fn checked_total(&self) -> Option<u64> {
        let Account {
            delivered,
            filtered,
            dead_lettered,
            expired,
            corrupt,
        } = *self;
        [filtered, dead_lettered, expired, corrupt]
            .into_iter()
            .try_fold(delivered, u64::checked_add)
    }
}

impl Add for Account {
    type Output = Account;

    fn add(mut self, other: Account) -> Account {
        self += other;
        self
    }
}

impl AddAssign for Account {
    fn add_assign(&mut self, other: Account) {
        let Account {
            delivered,
            filtered,
            dead_lettered,
            expired,
            corrupt,
        } = other;
        self.delivered += delivered;
        self.filtered += filtered;
        self.dead_lettered += dead_lettered;
        self.expired += expired;
        self.corrupt += corrupt;
    }
}

/// What became of the records that were offered, in records, since the journal was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Offered.
    pub received: u64,
    /// Answered "yes": on disk.
    pub acknowledged: u64,
    /// Answered "no", with the reason.
    pub refused: u64,
    /// Known already and so dropped (never by the journal itself, which knows no event).
    pub duplicate: u64,
    /// Not answered yet.
    pub in_flight: u64,
}

/// A cursor as [`check`] sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CursorBooks {
    /// The cursor's name.
    pub name: String,
    /// Where it began.
    pub birth: Seq,
    /// The next record to deliver, as its owner last said.
    pub position: Seq,
    /// What became of the records it passed.
    pub account: Account,
    /// Records that it went back over by explicit rewinds.
    pub rewound: u64,
}

/// A journal as [`check`] sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Books {
    /// Oldest record that is kept.
    pub first: Seq,
    /// Newest record that may be read; 0 before the first.
    pub committed: Seq,
    /// Where the segments begin, oldest first.
    pub segments: Vec<Seq>,
    /// Bytes in segments.
    pub bytes: u64,
    /// What `bytes` may reach: the size bound and one segment.
    pub bound: u64,
    /// The appends.
    pub ledger: Ledger,
    /// All cursors.
    pub cursors: Vec<CursorBooks>,
}

/// An identity that does not hold: a bug, never a state of the disk.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the books do not balance: {0}; please report it with the journal kept aside")]
pub struct Violation(pub String);

/// Checks every identity of the drawing above, of these books and of their way from `before`.
///
/// # Errors
/// The first identity that does not hold, with its figures.
pub fn check(books: &Books, before: Option<&Books>) -> Result<(), Violation> {
    check_moment(books)?;
    before.map_or(Ok(()), |before| check_way(before, books))
}

fn check_way(before: &Books, books: &Books) -> Result<(), Violation> {
    let grows = |what: &str, from: Seq, to: Seq| {
        ensure(from <= to, || {
            format!("{what} went back from {from} to {to}")
        })
    };
    grows("first", before.first, books.first)?;
    grows("committed", before.committed, books.committed)?;
    for cursor in &books.cursors {
        let Some(old) = before.cursors.iter().find(|old| old.name == cursor.name) else {
            continue;
        };
        let passed = |cursor: &CursorBooks| Seq(cursor.position.0 + cursor.rewound);
        let name = &cursor.name;
        grows(&format!("cursor {name}"), passed(old), passed(cursor))?;
        ensure(old.birth == cursor.birth, || {
            format!(
                "cursor {name} was born at {} and now at {}",
                old.birth, cursor.birth
            )
        })?;
    }
    Ok(())
}

fn check_moment(books: &Books) -> Result<(), Violation> {
    let Ledger {
        received,
        acknowledged,
        refused,
        duplicate,
        in_flight,
    } = books.ledger;
    ensure(
        received == acknowledged + refused + duplicate + in_flight,
        || {
            format!(
                "received {received} ≠ acknowledged {acknowledged} + refused {refused} + duplicate {duplicate} + in flight {in_flight}"
            )
        },
    )?;
    let (first, committed) = (books.first.0, books.committed.0);
    ensure(first <= committed + 1, || {
        format!("first {first} is past committed {committed}")
    })?;
    let segments = &books.segments;
    ensure(segments.is_sorted_by(|a, b| a < b), || {
        format!("segments begin at {segments:?}")
    })?;
    let (bytes, bound) = (books.bytes, books.bound);
    ensure(bytes <= bound, || {
        format!("{bytes} bytes on disk, bound {bound}")
    })?;
    books
        .cursors
        .iter()
        .try_for_each(|cursor| check_cursor(cursor, committed))
}

fn check_cursor(cursor: &CursorBooks, committed: u64) -> Result<(), Violation> {
    let CursorBooks {
        name,
        birth,
        position,
        account,
        rewound,
    } = cursor;
    ensure(birth <= position || *rewound > 0, || {
        format!("cursor {name} at {position} is before its birth at {birth}")
    })?;
    ensure(position.0 <= committed + 1, || {
        format!("cursor {name} at {position} is past committed {committed}")
    })?;
    let total = account.total();
    ensure(position.0 + rewound == birth.0 + total, || {
        format!(
            "cursor {name}: position {position} + rewound {rewound} ≠ birth {birth} + total {total} of {account:?}"
        )
    })
}

fn ensure(holds: bool, what: impl FnOnce() -> String) -> Result<(), Violation> {
    if holds {
        Ok(())
    } else {
        Err(Violation(what()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn books() -> Books {
        let account = Account {
            delivered: 4,
            filtered: 1,
            dead_lettered: 1,
            expired: 2,
            corrupt: 1,
        };
        Books {
            first: Seq(5),
            committed: Seq(20),
            segments: vec![Seq(5), Seq(9)],
            bytes: 10,
            bound: 10,
            ledger: Ledger {
                received: 9,
                acknowledged: 5,
                refused: 2,
                duplicate: 1,
                in_flight: 1,
            },
            cursors: vec![CursorBooks {
                name: "a".into(),
                birth: Seq(3),
                position: Seq(10),
                account,
                rewound: 2,
            }],
        }
    }

    #[test]
    fn balanced_books_pass() {
        assert_eq!(check(&books(), Some(&books())), Ok(()));
    }

    #[test]
    fn each_unbalanced_figure_is_found() {
        let spoil: [fn(&mut Books); 7] = [
            |b| b.segments[0] = Seq(9),
            |b| b.ledger.received += 1,
            |b| b.first = Seq(22),
            |b| b.bytes += 1,
            |b| b.cursors[0].position = Seq(11),
            |b| b.cursors[0].account.corrupt += 1,
            |b| b.committed = Seq(8),
        ];
        for (n, spoil) in spoil.iter().enumerate() {
            let mut bad = books();
            spoil(&mut bad);
            assert!(check(&bad, None).is_err(), "case {n} passed");
        }
    }

    #[test]
    fn what_goes_back_is_found() {
        let earlier: [fn(&mut Books); 4] = [
            |b| b.first = Seq(6),
            |b| b.committed = Seq(21),
            |b| b.cursors[0].birth = Seq(2),
            |b| {
                b.cursors[0].position = Seq(11);
                b.cursors[0].account.delivered += 1;
            },
        ];
        for (n, change) in earlier.iter().enumerate() {
            let mut before = books();
            change(&mut before);
            assert!(check(&books(), Some(&before)).is_err(), "case {n} passed");
        }
    }

    #[test]
    fn a_rewind_goes_back_and_says_so() {
        let mut after = books();
        after.cursors[0].position = Seq(8);
        after.cursors[0].rewound += 2;
        assert_eq!(check(&after, Some(&books())), Ok(()));
    }
}
