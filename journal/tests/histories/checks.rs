//! What always holds.

use std::collections::BTreeMap;

use journal::{Journal, Seq};

use super::history::{BOUND, Fate, History, NAMES, SEGMENT, head, mark};

impl History {
    /// What a reader finds is what was acknowledged.
    pub(super) fn check_reading(&mut self) {
        let Some((journal, _)) = &self.open else {
            return;
        };
        let (first, committed) = (journal.first().0, journal.committed().0);
        let from = 1 + self.random.below(committed + 2);
        let mut reader = journal.reader(Seq(from));
        let mut at = from;
        let mut failures = 0;
        loop {
            let block = match reader.next(1 << self.random.below(16)) {
                Ok(block) => block,
                Err(_) if self.disk.is_down() => return,
                Err(_) => {
                    failures += 1;
                    assert!(failures < 10);
                    continue;
                }
            };
            if block.is_empty() {
                break;
            }
            let mut skipped = block
                .skipped
                .iter()
                .flat_map(|r| r.start.0..r.end.0)
                .peekable();
            let mut entries = block.entries.iter().peekable();
            for seq in at..block.next.0 {
                if skipped.next_if_eq(&seq).is_some() {
                    let gone = seq < first || !self.records.contains_key(&seq);
                    assert!(
                        gone,
                        "acknowledged record {seq} was skipped: {:?}",
                        block.skipped
                    );
                } else {
                    let entry = entries.next().unwrap();
                    assert_eq!(entry.seq.0, seq);
                    assert_eq!(self.records.get(&seq), Some(&entry.payload), "record {seq}");
                }
            }
            assert_eq!((entries.next(), skipped.next()), (None, None));
            at = block.next.0;
        }
        assert_eq!(at, from.max(committed + 1));
    }

    pub(super) fn time(&mut self) {
        let Some((journal, _)) = &self.open else {
            return;
        };
        let first = journal.first().0;
        let time = self.now.saturating_sub(self.random.below(60_000_000_000));
        let Ok(seq) = journal.seek_time(time) else {
            return;
        };
        assert!(seq.0 >= first && seq.0 <= journal.committed().0 + 1);
    }

    pub(super) fn invariants(&mut self) {
        let Some((journal, _)) = &self.open else {
            return;
        };
        journal.check().unwrap();
        for (n, known) in self.cursors.iter().enumerate() {
            if let Some(cursor) = &known.handle {
                assert!(
                    cursor.position().0 >= known.at_least,
                    "cursor {} went back",
                    NAMES[n]
                );
            }
        }
        if self.disk.is_down() {
            return;
        }
        let used: usize = self
            .disk
            .names()
            .iter()
            .filter(|n| n.ends_with(".seg") || n.ends_with(".zst.tmp"))
            .map(|n| self.disk.contents(n).unwrap().len())
            .sum();
        // What a failed write left behind the end of a segment is not counted by the journal.
        assert!(used as u64 <= BOUND + 2 * SEGMENT, "{used} bytes on disk");
        // The fold has seen exactly what is committed.
        let expected: u64 = self
            .records
            .iter()
            .map(|(seq, payload)| mark(*seq, payload))
            .sum();
        assert_eq!(*self.fold.lock().unwrap(), expected, "the fold differs");
    }

    /// Acknowledged ⊆ recovered, and whatever else is there was offered and never refused.
    pub(super) fn recovered(&mut self, journal: &Journal) {
        let first = journal.first().0;
        let mut reader = journal.reader(Seq(1));
        let mut found = BTreeMap::new();
        loop {
            let Ok(block) = reader.next(1 << 20) else {
                continue;
            };
            if block.is_empty() {
                break;
            }
            found.extend(block.entries.into_iter().map(|e| (e.seq.0, e.payload)));
        }
        for (seq, payload) in self.records.range(first..) {
            assert_eq!(
                found.get(seq),
                Some(payload),
                "seed {}: record {seq} is lost",
                self.seed
            );
        }
        for (seq, payload) in found {
            if self.records.contains_key(&seq) {
                continue;
            }
            match self.offered.get(&payload) {
                Some(Fate::Doubt) => {}
                other => panic!(
                    "seed {}: {seq} holds {:?}, which was {other:?}",
                    self.seed,
                    head(&payload)
                ),
            }
            self.offered
                .insert(payload.clone(), Fate::Acknowledged(seq));
            self.records.insert(seq, payload);
        }
        let last = self.records.last_key_value().map_or(0, |(seq, _)| *seq);
        assert!(journal.committed().0 >= last);
    }
}
