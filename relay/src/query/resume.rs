//! Where a client may go on later: eight bytes of sequence, big-endian, and the relay's id.
//!
//! ```text
//! sees all      sequence 8 ‖ relay id
//! limited       nonce 8 ‖ sequence XOR k 8 ‖ tag 8 ‖ relay id        k, tag: SHA-256 over secret, nonce (and sequence)
//! ```
//! A sequence means something in one journal only. A relay whose data folder was made anew numbers from 1 again under
//! another id, and a token of the old one must not hide the new one's first events. With a log that relays share the id names
//! this life of this relay and the log: another relay, or another life, goes on a little before that place, since it may have
//! put events of the same moment in another order. To a reader who may see some
//! namespaces only, the sequence would say how much happens in the others.

use journal::Seq;
use sha2::{Digest, Sha256};

use crate::log::Numbering;

/// Makes and reads tokens; a cheap handle.
#[derive(Clone, Debug)]
pub(super) struct Tokens {
    relay: String,
    /// What all ids of a shared log end with; empty: nobody else numbers alike.
    log: String,
    secret: [u8; 32],
}

/// What a token says.
#[derive(Debug, PartialEq)]
pub(super) enum Resume {
    /// Go on after this event.
    After(Seq),
    /// Go on a little before this event: who numbered it put those of one moment in an order of its own.
    Near(Seq),
    /// It is of another journal.
    Elsewhere,
}

impl Tokens {
    pub(super) fn new(relay: &str, secret: [u8; 32]) -> Self {
        Self {
            relay: relay.to_owned(),
            log: String::new(),
            secret,
        }
    }

    /// For a log whose numbers are `numbering`.
    pub(super) fn numbered(mut self, numbering: &Numbering) -> Self {
        if let Numbering::Shared { log, life } = numbering {
            let hash: [u8; 32] = Sha256::digest(log).into();
            self.log = hash[..8].iter().map(|byte| format!("{byte:02x}")).collect();
            self.relay = format!("{life}{}", self.log);
        }
        self
    }

    /// The token for going on after `seq`.
    pub(super) fn token(&self, seq: Seq, limited: bool) -> Vec<u8> {
        let sequence = seq.0.to_be_bytes();
        if !limited {
            return [&sequence, self.relay.as_bytes()].concat();
        }
        // Not guessable and not repeated: what is hidden differs for every event, and so does what hides it.
        let nonce = self.hash(&[b"nonce", &sequence]);
        let hidden = xor(sequence, self.hash(&[b"hide", &nonce]));
        let tag = self.hash(&[b"tag", &nonce, &sequence]);
        [&nonce, &hidden, &tag, self.relay.as_bytes()].concat()
    }

    /// Reads a token; none if it never was one.
    pub(super) fn read(&self, token: &[u8], limited: bool) -> Option<Resume> {
        if !limited {
            let (sequence, id) = token.split_first_chunk()?;
            return Some(self.place(id, *sequence));
        }
        let (nonce, rest) = token.split_first_chunk::<8>()?;
        let (hidden, rest) = rest.split_first_chunk::<8>()?;
        let (tag, id) = rest.split_first_chunk::<8>()?;
        let sequence = xor(*hidden, self.hash(&[b"hide", nonce]));
        let genuine = *tag == self.hash(&[b"tag", nonce, &sequence]);
        if !genuine && id == self.relay.as_bytes() {
            return None;
        }
        Some(self.place(id, sequence))
    }

    fn place(&self, id: &[u8], sequence: [u8; 8]) -> Resume {
        let seq = Seq(u64::from_be_bytes(sequence));
        if id == self.relay.as_bytes() {
            Resume::After(seq)
        } else if !self.log.is_empty() && id.ends_with(self.log.as_bytes()) {
            Resume::Near(seq)
        } else {
            Resume::Elsewhere
        }
    }

    /// Eight bytes that only this relay can make.
    fn hash(&self, parts: &[&[u8]]) -> [u8; 8] {
        let mut hash = Sha256::new_with_prefix(self.secret);
        parts.iter().for_each(|part| hash.update(part));
        let whole: [u8; 32] = hash.finalize().into();
        std::array::from_fn(|at| whole[at])
    }
}

fn xor(a: [u8; 8], b: [u8; 8]) -> [u8; 8] {
    std::array::from_fn(|at| a[at] ^ b[at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_for_the_journal_it_came_from_only() {
        let (here, there) = (Tokens::new("a1b2", [1; 32]), Tokens::new("ffff", [2; 32]));
        for limited in [false, true] {
            let token = here.token(Seq(77), limited);
            assert_eq!(here.read(&token, limited), Some(Resume::After(Seq(77))));
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
        let token = tokens("kafka c log", "0123").token(Seq(77), false);
        for (reader, expected) in [
            (tokens("kafka c log", "0123"), Resume::After(Seq(77))),
            (tokens("kafka c log", "4567"), Resume::Near(Seq(77))),
            (tokens("kafka c other", "0123"), Resume::Elsewhere),
            (Tokens::new("a1b2", [1; 32]), Resume::Elsewhere),
        ] {
            assert_eq!(reader.read(&token, false), Some(expected));
        }
    }

    #[test]
    fn a_limited_reader_learns_and_forges_nothing() {
        let tokens = Tokens::new("a1b2", [7; 32]);
        let token = tokens.token(Seq(77), true);
        assert!(!token.windows(8).any(|bytes| bytes == 77_u64.to_be_bytes()));
        for at in 0..24 {
            let mut forged = token.clone();
            forged[at] ^= 1;
            assert_eq!(tokens.read(&forged, true), None, "byte {at}");
        }
        assert_eq!(tokens.read(&tokens.token(Seq(77), false), true), None);
    }
}
