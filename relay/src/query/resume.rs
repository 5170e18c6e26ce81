//! Where a client may go on later: eight bytes of sequence, big-endian, and the relay's id.
//!
//! A sequence means something in one journal only. A relay whose data folder was made anew numbers from 1 again under
//! another id, and a token of the old one must not hide the new one's first events.

use journal::Seq;

/// The token for going on after `seq`.
pub(super) fn token(relay: &str, seq: Seq) -> Vec<u8> {
    [&seq.0.to_be_bytes(), relay.as_bytes()].concat()
}

/// What a token says.
#[derive(Debug, PartialEq)]
pub(super) enum Resume {
    /// Go on after this event.
    After(Seq),
    /// It is of another journal.
    Elsewhere,
}

/// Reads a token; none if it never was one.
pub(super) fn read(token: &[u8], relay: &str) -> Option<Resume> {
    let (seq, id) = token.split_first_chunk()?;
    let same = id == relay.as_bytes();
    Some(if same {
        Resume::After(Seq(u64::from_be_bytes(*seq)))
    } else {
        Resume::Elsewhere
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_for_the_journal_it_came_from_only() {
        let token = token("a1b2", Seq(77));
        assert_eq!(read(&token, "a1b2"), Some(Resume::After(Seq(77))));
        assert_eq!(read(&token, "ffff"), Some(Resume::Elsewhere));
        assert_eq!(read(b"short", "a1b2"), None);
    }
}
