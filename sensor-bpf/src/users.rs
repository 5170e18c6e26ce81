//! Names of users, for the events of the host: what `/etc/passwd` says (passwd(5)).
//!
//! Read when the first name is asked for, again when a user is unknown, and now and then in case one was renamed. Users
//! that only a directory service knows have no name here: their events carry the number alone.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Least time between two readings for users that are unknown.
const AGAIN: Duration = Duration::from_secs(5);
/// How long a name is believed.
const FRESH: Duration = Duration::from_secs(600);

/// The names known.
#[derive(Debug)]
pub struct Users {
    file: PathBuf,
    names: HashMap<u32, String>,
    read: Option<Instant>,
}

impl Default for Users {
    fn default() -> Self {
        Self::new("/etc/passwd".into())
    }
}

impl Users {
    /// Names from this file.
    pub fn new(file: PathBuf) -> Self {
        Self {
            file,
            names: HashMap::new(),
            read: None,
        }
    }

    /// The name of a user; empty when it has none.
    pub fn name(&mut self, uid: u32, now: Instant) -> &str {
        let keep = if self.names.contains_key(&uid) {
            FRESH
        } else {
            AGAIN
        };
        if self
            .read
            .is_none_or(|read| now.duration_since(read) >= keep)
        {
            self.read(now);
        }
        self.names.get(&uid).map_or("", String::as_str)
    }

    /// A file that cannot be read, as while it is replaced, takes no name away.
    fn read(&mut self, now: Instant) {
        self.read = Some(now);
        let Ok(bytes) = std::fs::read(&self.file) else {
            return;
        };
        self.names.clear();
        for line in String::from_utf8_lossy(&bytes).lines() {
            if let Some((uid, name)) = entry(line) {
                // getpwuid(3) gives the first.
                self.names.entry(uid).or_insert(name);
            }
        }
    }
}

/// `name:password:uid:…`.
fn entry(line: &str) -> Option<(u32, String)> {
    let mut fields = line.split(':');
    let name = fields.next().filter(|name| !name.is_empty())?;
    let uid = fields.nth(1)?.parse().ok()?;
    Some((uid, name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users(text: &str) -> (tempfile::TempDir, Users) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("passwd");
        std::fs::write(&file, text).unwrap();
        (folder, Users::new(file))
    }

    #[test]
    fn a_user_has_the_first_name_that_the_file_gives() {
        let text = "root:x:0:0:root:/root:/bin/bash\ntoor:x:0:0::/:/bin/sh\nbroken\n:x:5::\nweb:x:33:33::/:\n";
        let (_folder, mut users) = users(text);
        let now = Instant::now();
        assert_eq!(users.name(0, now), "root");
        assert_eq!(users.name(33, now), "web");
        assert_eq!(users.name(5, now), "", "its entry has no name");
        assert_eq!(users.name(1000, now), "");
    }

    #[test]
    fn a_new_user_is_found_after_a_moment_and_not_looked_for_at_every_event() {
        let (folder, mut users) = users("root:x:0:0\n");
        let start = Instant::now();
        assert_eq!(users.name(1000, start), "");
        std::fs::write(folder.path().join("passwd"), "me:x:1000:1000\n").unwrap();
        assert_eq!(users.name(1000, start + AGAIN / 2), "");
        assert_eq!(users.name(0, start + AGAIN), "root", "known, so not read");
        assert_eq!(users.name(1000, start + AGAIN), "me");
    }

    #[test]
    fn a_renamed_user_is_noticed_and_a_missing_file_takes_no_name_away() {
        let (folder, mut users) = users("old:x:7:7\n");
        let start = Instant::now();
        assert_eq!(users.name(7, start), "old");
        std::fs::write(folder.path().join("passwd"), "new:x:7:7\n").unwrap();
        assert_eq!(users.name(7, start + FRESH), "new");
        std::fs::remove_file(folder.path().join("passwd")).unwrap();
        assert_eq!(users.name(7, start + FRESH * 2), "new");
    }
}
