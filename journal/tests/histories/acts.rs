//! What people do with a journal: append, write, compress, move a cursor.

use std::{sync::Arc, task::Poll};

use bytes::Bytes;
use journal::{Account, AppendError, Cursor, CursorError, Record, Seq};

use super::history::{Answer, Fate, History, Moving, NAMES, Waiting, head};
use super::support::poll;

impl History {
    pub(super) fn append(&mut self) {
        for _ in 0..1 + self.random.below(3) {
            let mut records = Vec::new();
            for _ in 0..1 + self.random.below(5) {
                let len = if self.random.one_in(20) {
                    5_000
                } else {
                    self.random.below(900)
                };
                let mut text = format!("{}:", self.next_payload);
                self.next_payload += 1;
                text.push_str(&"x".repeat(len as usize));
                let payload = Bytes::from(text);
                self.offered.insert(payload.clone(), Fate::Doubt);
                records.push(Record {
                    kind: len as u8,
                    time: self.now,
                    payload,
                });
            }
            let payloads: Vec<_> = records.iter().map(|r| r.payload.clone()).collect();
            self.say(|| {
                format!(
                    "append {} records from {:?}",
                    payloads.len(),
                    head(&payloads[0])
                )
            });
            let Some((journal, _)) = &self.open else {
                return;
            };
            let journal = journal.clone();
            let mut answer: Answer<_, _> = Box::pin(async move { journal.append(records).await });
            assert!(poll(&mut answer).is_pending());
            self.waiting.push(Waiting { payloads, answer });
        }
    }

    pub(super) fn write(&mut self) {
        let Some((_, stepper)) = &mut self.open else {
            return;
        };
        stepper.write(self.now);
        self.answers();
    }

    /// Takes the answers that came.
    pub(super) fn answers(&mut self) {
        for mut waiting in std::mem::take(&mut self.waiting) {
            let answer = match poll(&mut waiting.answer) {
                Poll::Pending => {
                    self.waiting.push(waiting);
                    continue;
                }
                Poll::Ready(answer) => answer,
            };
            self.say(|| format!("answer for {:?}: {answer:?}", head(&waiting.payloads[0])));
            match answer {
                Ok(range) => {
                    assert_eq!(range.end.0 - range.start.0, waiting.payloads.len() as u64);
                    for (seq, payload) in (range.start.0..).zip(waiting.payloads) {
                        let before = self.records.insert(seq, payload.clone());
                        assert_eq!(before, None, "number {seq} was given twice");
                        self.offered.insert(payload, Fate::Acknowledged(seq));
                        self.told.acknowledged += 1;
                    }
                }
                Err(AppendError::Full { .. } | AppendError::TooLarge { .. }) => {
                    self.told.full += 1;
                    for payload in waiting.payloads {
                        self.offered.insert(payload, Fate::Refused);
                    }
                }
                Err(AppendError::Failed { .. } | AppendError::Closed) => self.told.failed += 1,
            }
        }
    }

    /// Compresses on: a block, or as far as there is something to do.
    pub(super) fn pack(&mut self) {
        let Some((_, stepper)) = &mut self.open else {
            return;
        };
        let mut left = if self.random.one_in(2) {
            1 + self.random.below(4)
        } else {
            u64::MAX
        };
        while left > 0 && stepper.pack() {
            left -= 1;
        }
        self.say(|| "pack".into());
    }

    pub(super) fn cursor(&mut self, n: usize) -> Option<Arc<Cursor>> {
        let (journal, _) = self.open.as_ref()?;
        let known = &mut self.cursors[n];
        if known.handle.is_none() {
            let cursor = journal.cursor(NAMES[n], known.options).ok()?;
            if !known.made {
                known.made = true;
                // It may be older than this answer, and overtaken by a removal that is not durable yet.
                known.at_least = cursor.position().0 - cursor.account().total();
                known.at_most = cursor.position().0;
            }
            known.handle = Some(Arc::new(cursor));
        }
        known.handle.clone()
    }

    pub(super) fn advance(&mut self) {
        let n = self.random.below(2) as usize;
        let Some(cursor) = self.cursor(n) else { return };
        let Some((journal, _)) = &self.open else {
            return;
        };
        let position = cursor.position().0;
        let room = journal.committed().0 + 1 - position;
        let by = self.random.below(room + 1);
        let filtered = self.random.below(by + 1);
        let delta = Account {
            delivered: by - filtered,
            filtered,
            ..Account::default()
        };
        let state = self.random.one_in(4).then(|| {
            let len = if self.random.one_in(5) { 9_000 } else { 30 };
            let mut state = (position + by).to_le_bytes().to_vec();
            state.resize(len, 7);
            Bytes::from(state)
        });
        let to = position + by;
        self.say(|| format!("cursor {} from {position} to {to}", NAMES[n]));
        let mut answer: Answer<(), CursorError> =
            Box::pin(async move { cursor.advance(Seq(to), delta, state).await });
        assert!(poll(&mut answer).is_pending());
        self.cursors[n].at_most = self.cursors[n].at_most.max(to);
        self.moving.push(Moving {
            cursor: n,
            to,
            answer,
        });
    }

    pub(super) fn rewind(&mut self) {
        let n = self.random.below(2) as usize;
        let Some(cursor) = self.cursor(n) else { return };
        let Some((journal, stepper)) = &mut self.open else {
            return;
        };
        let first = journal.first().0;
        let position = cursor.position().0;
        let to = first + self.random.below(position - first + 1);
        let mut answer: Answer<Seq, CursorError> =
            Box::pin(async move { cursor.rewind(Seq(to), None).await });
        assert!(poll(&mut answer).is_pending());
        stepper.keep(self.now);
        self.say(|| format!("cursor {} rewound to {to}", NAMES[n]));
        self.cursors[n].at_least = self.cursors[n].at_least.min(to);
        self.moves();
    }

    pub(super) fn keep(&mut self) {
        let Some((_, stepper)) = &mut self.open else {
            return;
        };
        stepper.keep(self.now);
        self.say(|| "keep".into());
        self.moves();
    }

    pub(super) fn moves(&mut self) {
        for mut moving in std::mem::take(&mut self.moving) {
            match poll(&mut moving.answer) {
                Poll::Pending => self.moving.push(moving),
                Poll::Ready(Ok(())) => {
                    let known = &mut self.cursors[moving.cursor];
                    // A later rewind may be durable in the same write.
                    let now = known.handle.as_ref().map_or(moving.to, |c| c.position().0);
                    known.at_least = known.at_least.max(moving.to.min(now));
                    self.told.moves += 1;
                }
                Poll::Ready(Err(_)) => {}
            }
        }
    }
}
