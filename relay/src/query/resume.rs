//! Where a client may go on later: eight bytes of sequence, big-endian, and the relay's id.
//!
//! ```text
//! sees all      sequence 8 ‖ id ‖ mark
//! limited       nonce 8 ‖ tag 8 ‖ id ‖ (sequence 8 ‖ mark) XOR k         k, tag: SHA-256 over secret, nonce (and what is hidden)
//! id            of the relay, 16 digits: a journal is its own            mark: the event's id, 16 bytes
//!               of this life of it and of the log, 16 digits each: a log that relays share    mark: a place that all of them know
//! ```
//! A sequence means something in one journal only. A relay whose data folder was made anew numbers from 1 again under
//! another id, and a token of the old one must not hide the new one's first events. One that was restored from a snapshot gives
//! numbers out a second time under its id: there the event's own id says that its number is another event's now. With a log that relays share, the sequence is
//! good in this life of this relay, while it knows its own order; to every other relay of the log, and later, the mark says
//! which records were read, by partition and offset. To a reader who may see some namespaces only, both would say how much
//! happens in the others. The secret is the log's, so what one relay hid another finds.

use journal::Seq;
use sha2::{Digest, Sha256};

use crate::log::Numbering;

/// Makes and reads tokens; a cheap handle.
#[derive(Clone, Debug)]
pub(super) struct Tokens {
    id: String,
    /// What all ids of a shared log end with; empty: nobody else numbers alike.
    log: String,
    secret: [u8; 32],
}

/// What a token says.
#[derive(Debug, PartialEq)]
pub(super) enum Resume {
    /// Go on after this event of this journal.
    After {
        /// Its number.
        seq: Seq,
        /// Its id, as the journal has it; empty in tokens of old.
        event: Vec<u8>,
    },
    /// The same in a log that relays share: by the number, if it is of this life of this relay, or else by the mark.
    Shared {
        /// The number.
        seq: Option<Seq>,
        /// The place that all relays know.
        mark: Vec<u8>,
    },
    /// It is of another journal.
    Elsewhere,
}

impl Tokens {
    pub(super) fn new(relay: &str, secret: [u8; 32]) -> Self {
        Self {
            id: relay.to_owned(),
            log: String::new(),
            secret,
        }
    }

    /// For a log whose numbers are `numbering`.
    pub(super) fn numbered(mut self, numbering: &Numbering) -> Self {
        if let Numbering::Shared { log, life } = numbering {
            let hash: [u8; 32] = Sha256::digest(log).into();
            self.log = hash[..8].iter().map(|byte| format!("{byte:02x}")).collect();
            self.id = format!("{life}{}", self.log);
        }
        self
    }

    /// The token for going on after `seq`, which others find by `mark`.
    pub(super) fn token(&self, seq: Seq, mark: &[u8], limited: bool) -> Vec<u8> {
        let sequence = seq.0.to_be_bytes();
        if !limited {
            return [&sequence, self.id.as_bytes(), mark].concat();
        }
        // Not guessable and not repeated: what is hidden differs for every event, and so does what hides it.
        let nonce = self.hash(&[b"nonce", self.id.as_bytes(), &sequence]);
        let mut hidden = [&sequence, mark].concat();
        let tag = self.hash(&[b"tag", &nonce, &hidden]);
        self.hide(&nonce, &mut hidden);
        [&nonce, &tag, self.id.as_bytes(), &hidden].concat()
    }

    /// Reads a token; none if it never was one.
    pub(super) fn read(&self, token: &[u8], limited: bool) -> Option<Resume> {
        if !limited {
            let (sequence, rest) = token.split_first_chunk()?;
            let (id, mark) = rest.split_at_checked(self.id.len()).unwrap_or((rest, &[]));
            return Some(self.place(id, *sequence, mark));
        }
        let (nonce, rest) = token.split_first_chunk::<8>()?;
        let (tag, rest) = rest.split_first_chunk::<8>()?;
        let Some((id, hidden)) = rest.split_at_checked(self.id.len()) else {
            return Some(Resume::Elsewhere);
        };
        if !self.knows(id) {
            return Some(Resume::Elsewhere);
        }
        let mut open = hidden.to_vec();
        self.hide(nonce, &mut open);
        if *tag != self.hash(&[b"tag", nonce, &open]) {
            return None;
        }
        let (sequence, mark) = open.split_first_chunk()?;
        Some(self.place(id, *sequence, mark))
    }

    /// Whether an id is this relay's, or that of another on the same log.
    fn knows(&self, id: &[u8]) -> bool {
        id == self.id.as_bytes() || !self.log.is_empty() && id.ends_with(self.log.as_bytes())
    }

    fn place(&self, id: &[u8], sequence: [u8; 8], mark: &[u8]) -> Resume {
        let seq = Seq(u64::from_be_bytes(sequence));
        match self.knows(id) {
            false => Resume::Elsewhere,
            true if self.log.is_empty() => Resume::After {
                seq,
                event: mark.to_vec(),
            },
            true => Resume::Shared {
                seq: (id == self.id.as_bytes()).then_some(seq),
                mark: mark.to_vec(),
            },
        }
    }

    /// Hides bytes, or shows what is hidden.
    fn hide(&self, nonce: &[u8; 8], bytes: &mut [u8]) {
        for (part, at) in bytes.chunks_mut(8).zip(0_u32..) {
            let key = self.hash(&[b"hide", nonce, &at.to_be_bytes()]);
            part.iter_mut()
                .zip(key)
                .for_each(|(byte, key)| *byte ^= key);
        }
    }

    /// Eight bytes that only this relay, and those that share its log, can make.
    fn hash(&self, parts: &[&[u8]]) -> [u8; 8] {
        let mut hash = Sha256::new_with_prefix(self.secret);
        parts.iter().for_each(|part| hash.update(part));
        let whole: [u8; 32] = hash.finalize().into();
        std::array::from_fn(|at| whole[at])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_for_the_journal_it_came_from_only() {
        let (here, there) = (Tokens::new("a1b2", [1; 32]), Tokens::new("ffff", [2; 32]));
        for limited in [false, true] {
            let token = here.token(Seq(77), b"an event", limited);
            let (seq, event) = (Seq(77), b"an event".to_vec());
            assert_eq!(
                here.read(&token, limited),
                Some(Resume::After { seq, event })
            );
            assert_eq!(there.read(&token, limited), Some(Resume::Elsewhere));
            assert_eq!(here.read(b"short", limited), None);
        }
    }

    #[test]
    fn relays_on_one_log_take_up_each_others_tokens() {
        let tokens = |log: &str, life: &str| {
            let (log, life) = (log.to_owned(), life.to_owned());
            Tokens::new("a1b2", [1; 32]).numbered(&Numbering::Shared { log, life })
        };
        let shared = |seq| {
            let mark = b"a place".to_vec();
            Resume::Shared { seq, mark }
        };
        for limited in [false, true] {
            let token = tokens("kafka c log", "0123").token(Seq(77), b"a place", limited);
            for (reader, expected) in [
                (tokens("kafka c log", "0123"), shared(Some(Seq(77)))),
                (tokens("kafka c log", "4567"), shared(None)),
                (tokens("kafka c other", "0123"), Resume::Elsewhere),
                (Tokens::new("a1b2", [1; 32]), Resume::Elsewhere),
            ] {
                assert_eq!(reader.read(&token, limited), Some(expected));
            }
        }
    }

    #[test]
    fn a_limited_reader_learns_and_forges_nothing() {
        let tokens = Tokens::new("a1b2", [7; 32]);
        let token = tokens.token(Seq(77), b"a place of all", true);
        assert!(!token.windows(8).any(|bytes| bytes == 77_u64.to_be_bytes()));
        assert!(!token.windows(5).any(|bytes| bytes == b"place"));
        for at in (0..16).chain(20..token.len()) {
            let mut forged = token.clone();
            forged[at] ^= 1;
            assert_eq!(tokens.read(&forged, true), None, "byte {at}");
        }
        assert_eq!(tokens.read(&tokens.token(Seq(77), b"", false), true), None);
    }
}
