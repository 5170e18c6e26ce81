//! Who retried or dropped which dead letters, and when: for whoever asks later what became of one.
//!
//! ```text
//! DATA/dead-letters/SINK.settled     "MILLISECONDS FIRST LAST retried|dropped WHO" a line, of letters in a row
//! DATA/dead-letters/SINK.settled.1   the one before it, once that was full
//! ```
//! The cursor says which letters are done with; a line says more, and comes after it: where one is missing (a crash in
//! between, lines of long ago) a letter is done with all the same.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::Fate;

/// A file is full at this size: some thousand acts.
const FULL: u64 = 256 << 10;

/// What somebody did to letters in a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::fanout) struct Act {
    first: u64,
    last: u64,
    pub(in crate::fanout) fate: Fate,
    /// Unix milliseconds.
    pub(in crate::fanout) at: u64,
    pub(in crate::fanout) by: String,
}

/// The file of one sink.
pub(super) struct Acts(PathBuf);

impl Acts {
    /// Beside the sink's dead letters, whose names have no `.`.
    pub(super) fn beside(letters: &Path) -> Acts {
        Acts(letters.with_extension("settled"))
    }

    fn before(&self) -> PathBuf {
        self.0.with_extension("settled.1")
    }

    /// Blocks for the disk.
    pub(super) fn add(&self, letters: &[u64], fate: Fate, at: u64, by: &str) -> io::Result<()> {
        if fs::metadata(&self.0).is_ok_and(|file| file.len() >= FULL) {
            fs::rename(&self.0, self.before())?;
        }
        let lines = rows(letters).into_iter().map(|(first, last)| {
            let by = by.replace(char::is_control, " ");
            let act = Act {
                first,
                last,
                fate,
                at,
                by,
            };
            act.line()
        });
        let lines: String = lines.collect();
        let mut options = OpenOptions::new();
        let mut file = options
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&self.0)?;
        file.write_all(lines.as_bytes())?;
        file.sync_data()
    }

    /// All that is known, oldest first.
    pub(super) fn read(&self) -> Vec<Act> {
        let texts = [self.before(), self.0.clone()].map(|file| fs::read(file).unwrap_or_default());
        let texts = texts.iter().map(|text| String::from_utf8_lossy(text));
        let acts = texts.flat_map(|text| text.lines().filter_map(Act::read).collect::<Vec<_>>());
        acts.collect()
    }
}

impl Act {
    pub(super) fn is_of(&self, letter: u64) -> bool {
        (self.first..=self.last).contains(&letter)
    }

    fn line(&self) -> String {
        let Act {
            first,
            last,
            fate,
            at,
            by,
        } = self;
        let fate = match fate {
            Fate::Retried => "retried",
            Fate::Dropped => "dropped",
            Fate::Damaged => "damaged",
        };
        // What stood before a crash cut it off is no line of its own.
        format!("\n{at} {first} {last} {fate} {by}\n")
    }

    fn read(line: &str) -> Option<Act> {
        let mut words = line.splitn(5, ' ');
        let mut number = || words.next()?.parse().ok();
        let (at, first, last) = (number()?, number()?, number()?);
        let fate = match words.next()? {
            "retried" => Fate::Retried,
            "dropped" => Fate::Dropped,
            _ => return None,
        };
        let by = words.next()?.to_owned();
        Some(Act {
            first,
            last,
            fate,
            at,
            by,
        })
    }
}

/// Letters in a row as first and last.
fn rows(letters: &[u64]) -> Vec<(u64, u64)> {
    let mut rows: Vec<(u64, u64)> = Vec::new();
    for &letter in letters {
        match rows.last_mut() {
            Some((_, last)) if *last + 1 == letter => *last = letter,
            _ => rows.push((letter, letter)),
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_act_is_found_again_by_its_letters_and_a_line_that_was_cut_off_hides_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let acts = Acts::beside(&folder.path().join("siem"));
        assert_eq!(acts.read(), []);
        acts.add(&[1, 2, 3, 7], Fate::Dropped, 5, "uid 0,\npid 1")
            .unwrap();
        let cut = fs::read_to_string(&acts.0).unwrap() + "17 4";
        fs::write(&acts.0, cut).unwrap();
        acts.add(&[4], Fate::Retried, 6, "uid 1").unwrap();
        let read = acts.read();
        let of = |letter| read.iter().find(|act| act.is_of(letter));
        assert_eq!(
            of(3).map(|act| (act.fate, act.at, act.by.as_str())),
            Some((Fate::Dropped, 5, "uid 0, pid 1"))
        );
        assert_eq!(
            of(4).map(|act| (act.fate, act.at, act.by.as_str())),
            Some((Fate::Retried, 6, "uid 1"))
        );
        assert_eq!(of(5), None);
        assert_eq!(read.len(), 3);
    }

    #[test]
    fn a_full_file_makes_room_and_stays_for_one_more_time() {
        let folder = tempfile::tempdir().unwrap();
        let acts = Acts::beside(&folder.path().join("siem"));
        fs::write(&acts.0, "1 1 1 dropped me\n".repeat(FULL as usize / 17 + 1)).unwrap();
        acts.add(&[2], Fate::Dropped, 2, "me").unwrap();
        assert!(acts.read().iter().any(|act| act.is_of(1)));
        assert!(fs::metadata(&acts.0).unwrap().len() < 100);
    }
}
