//! Secrets, which stand in a file or an environment variable and never in the settings themselves.
//!
//! ```yaml
//! sasl: {username: cresset, password_file: /etc/cresset/kafka.pw}   # or password_env: KAFKA_PASSWORD
//! ```
//!
//! So a configuration can be printed, mailed and kept in Git. A sink declares two keys, `NAME_file` and `NAME_env`, names
//! them once in [`Keys`], checks them there and opens the [`Secret`] when it is built:
//!
//! ```text
//! settings ─ Keys ─▶ Source ─ open ─▶ Secret ─ current() ─▶ Text ─ expose() ─▶ the request
//!                                       ▲ the file changed, or refused() after the destination said no
//! ```
//! What prints any of these prints the path or the variable's name, never the value.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use yaml::{Node, Problem, Severity};

use crate::stamp::Stamp;

/// Tokens and passwords are short; a longer file is some other file.
const MAX_BYTES: u64 = 64 << 10;

/// The two keys that name one secret in the settings, of which at most one is given.
#[derive(Clone, Copy, Debug)]
pub struct Keys<'a> {
    /// What the keys begin with, with the path to it: `sasl.password` for `sasl.password_file` and `sasl.password_env`.
    pub name: &'static str,
    /// Value of the key that ends in `_file`.
    pub file: Option<&'a Path>,
    /// Value of the key that ends in `_env`.
    pub env: Option<&'a str>,
}

impl Keys<'_> {
    /// Where the secret is, if there is one.
    #[must_use]
    pub fn source(&self) -> Option<Source> {
        match (self.file, self.env) {
            (Some(path), _) => Some(Source::File(path.to_owned())),
            (None, Some(name)) => Some(Source::Env(name.to_owned())),
            (None, None) => None,
        }
    }

    /// The secret, if the settings name one.
    ///
    /// # Errors
    /// It cannot be read; the error names the file or the variable.
    pub fn open(&self) -> Result<Option<Secret>, BadSecret> {
        self.source().map(Secret::open).transpose()
    }

    /// Reports a secret that is not there. A variable may be another one where the program runs, so that is a warning.
    pub fn look(&self, node: &Node, problems: &mut Vec<Problem>) {
        let Some(Err(why)) = self.source().map(|source| source.read()) else {
            return;
        };
        let (key, severity) = match self.file {
            Some(_) => ("file", Severity::Error),
            None => ("env", Severity::Warning),
        };
        problems.push(Problem {
            severity,
            ..node.problem_at(&format!("{}_{key}", self.name), why.to_string())
        });
    }

    /// Reports what cannot work. `node` is where the sink's settings stand.
    pub fn check(&self, node: &Node, problems: &mut Vec<Problem>) {
        let name = self.name;
        let mut wrong = |key: &str, message: String| problems.push(node.problem_at(key, message));
        if self.file.is_some() && self.env.is_some() {
            let word = name.rsplit('.').next().unwrap_or(name);
            let message = format!("leave out this or `{word}_env`: there is one {word}");
            wrong(&format!("{name}_file"), message);
        }
        if self.file.is_some_and(|path| !path.is_absolute()) {
            let message =
                "must begin with `/`, or it would depend on where the program was started";
            wrong(&format!("{name}_file"), message.to_owned());
        }
        if self.env.is_some_and(|name| !is_variable(name)) {
            let message = "names no environment variable; use letters, digits and `_`";
            wrong(&format!("{name}_env"), message.to_owned());
        }
    }
}

fn is_variable(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Where a secret is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Alone in a file; line ends behind it do not count.
    File(PathBuf),
    /// In an environment variable of this program.
    Env(String),
}

/// A secret that cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the secret in {place} cannot be used: {why}")]
pub struct BadSecret {
    place: String,
    why: String,
}

impl Source {
    /// Reads the secret.
    ///
    /// # Errors
    /// The file or the variable is not there, empty, or no text.
    pub fn read(&self) -> Result<Text, BadSecret> {
        let text = match self {
            Source::File(path) => read_file(path),
            Source::Env(name) => std::env::var(name).map_err(|error| error.to_string()),
        };
        let text = text.map_err(|why| self.bad(why))?;
        let text = text.trim_end_matches(['\r', '\n']);
        if text.is_empty() {
            return Err(self.bad("it is empty"));
        }
        if text.contains(['\r', '\n', '\0']) {
            return Err(
                self.bad("it has more than one line, or a zero byte; write the secret alone")
            );
        }
        Ok(Text(text.to_owned()))
    }

    fn bad(&self, why: impl Into<String>) -> BadSecret {
        BadSecret {
            place: self.to_string(),
            why: why.into(),
        }
    }

    fn stamp(&self) -> Stamp {
        match self {
            Source::File(path) => Stamp::of([path]),
            Source::Env(_) => Stamp::default(),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::File(path) => write!(f, "{}", path.display()),
            Source::Env(name) => write!(f, "${name}"),
        }
    }
}

fn read_file(path: &Path) -> Result<String, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| error.to_string())?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err("it is longer than 64 KiB".to_owned());
    }
    String::from_utf8(bytes).map_err(|_| "it is no UTF-8 text".to_owned())
}

/// The secret itself. Shown as `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Text(String);

impl Text {
    /// The characters, for the request and nothing else.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A secret that follows its file.
pub struct Secret {
    source: Source,
    held: Mutex<Held>,
}

struct Held {
    text: Arc<Text>,
    stamp: Stamp,
}

impl Secret {
    /// Reads the secret for the first time.
    ///
    /// # Errors
    /// As [`Source::read`].
    pub fn open(source: Source) -> Result<Self, BadSecret> {
        // Before reading: a change in between is then seen at the next look.
        let stamp = source.stamp();
        let text = Arc::new(source.read()?);
        Ok(Secret {
            source,
            held: Mutex::new(Held { text, stamp }),
        })
    }

    /// Where it is.
    #[must_use]
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// The secret as it is now: read again if its file is another than at the last look. A file that is gone or broken
    /// leaves the last one in use.
    #[must_use]
    pub fn current(&self) -> Arc<Text> {
        let stamp = self.source.stamp();
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if stamp != held.stamp {
            self.read_again(&mut held, stamp);
        }
        Arc::clone(&held.text)
    }

    /// The destination refused the secret. Reads it again, whatever the file's times say; true if it is another now.
    pub fn refused(&self) -> bool {
        let stamp = self.source.stamp();
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        self.read_again(&mut held, stamp)
    }

    fn read_again(&self, held: &mut Held, stamp: Stamp) -> bool {
        match self.source.read() {
            Ok(text) => {
                let other = text != *held.text;
                *held = Held {
                    text: Arc::new(text),
                    stamp,
                };
                other
            }
            Err(error) => {
                tracing::warn!(%error, "the secret that was read before stays in use");
                false
            }
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Secret").field(&self.source).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn written(bytes: &[u8]) -> (tempfile::TempDir, Source) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        fs::write(&path, bytes).unwrap();
        (folder, Source::File(path))
    }

    #[test]
    fn line_ends_behind_a_secret_do_not_count_and_spaces_do() {
        for bytes in ["s3 cret ", "s3 cret \n", "s3 cret \r\n\n"] {
            let (_folder, source) = written(bytes.as_bytes());
            assert_eq!(source.read().unwrap().expose(), "s3 cret ");
        }
    }

    #[test]
    fn what_is_no_secret_is_refused_with_the_file_and_without_its_text() {
        let long = "x".repeat(70_000);
        for (bytes, why) in [
            (&b"\n"[..], "empty"),
            (b"hush\nhush", "more than one line"),
            (b"hush\0", "zero byte"),
            (b"hush\xff", "UTF-8"),
            (long.as_bytes(), "64 KiB"),
        ] {
            let (_folder, source) = written(bytes);
            let error = Secret::open(source.clone()).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
            assert!(error.contains(&source.to_string()), "{error}");
            assert!(!error.contains("hush"), "{error}");
        }
        let missing = Source::File("/nowhere/token".into()).read().unwrap_err();
        assert!(missing.to_string().contains("/nowhere/token"), "{missing}");
        let missing = Source::Env("CRESSET_TEST_NOT_SET".into())
            .read()
            .unwrap_err();
        assert!(missing.to_string().contains("$CRESSET_TEST_NOT_SET"));
    }

    #[test]
    fn nothing_prints_the_secret() {
        let (_folder, source) = written(b"hush");
        let secret = Secret::open(source).unwrap();
        let shown = format!("{secret:?} {:?}", secret.current());
        assert!(shown.contains("token") && shown.contains("***"), "{shown}");
        assert!(!shown.contains("hush"), "{shown}");
    }

    #[test]
    fn a_changed_file_is_seen_and_a_lost_one_leaves_the_last_secret() {
        let (folder, source) = written(b"one");
        let path = folder.path().join("token");
        let secret = Secret::open(source).unwrap();
        assert!(!secret.refused());
        fs::write(&path, b"another").unwrap();
        assert_eq!(secret.current().expose(), "another");
        fs::remove_file(&path).unwrap();
        assert_eq!(secret.current().expose(), "another");
        fs::write(&path, b"third").unwrap();
        assert!(secret.refused());
        assert_eq!(secret.current().expose(), "third");
    }

    #[test]
    fn a_secret_that_is_not_there_is_told_with_its_place() {
        let (nodes, _) = yaml::parse(
            "c.yaml",
            "auth:\n  token_file: /nowhere/token\n  token_env: CRESSET_TEST_NOT_SET\n",
        );
        let look = |file, env| {
            let name = "auth.token";
            let mut problems = Vec::new();
            Keys { name, file, env }.look(&nodes[0], &mut problems);
            problems
        };
        let [file] = &look(Some(Path::new("/nowhere/token")), None)[..] else {
            panic!("one problem");
        };
        let told = file.to_string();
        assert!(told.starts_with("c.yaml:2: auth.token_file: "), "{told}");
        assert!(file.is_error() && told.contains("/nowhere/token"), "{told}");
        let [env] = &look(None, Some("CRESSET_TEST_NOT_SET"))[..] else {
            panic!("one problem");
        };
        let told = env.to_string();
        assert!(
            told.contains("auth.token_env: ") && !env.is_error(),
            "{told}"
        );
        assert!(look(None, None).is_empty() && look(None, Some("PATH")).is_empty());
    }

    #[test]
    fn keys_that_cannot_work_are_told_with_their_place() {
        let (nodes, _) = yaml::parse(
            "c.yaml",
            "sasl:\n  password_file: pw\n  password_env: 'A B'\n",
        );
        let keys = Keys {
            name: "sasl.password",
            file: Some(Path::new("pw")),
            env: Some("A B"),
        };
        let mut problems = Vec::new();
        keys.check(&nodes[0], &mut problems);
        let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), 3, "{told:?}");
        assert!(
            told[0].starts_with("c.yaml:2: sasl.password_file:"),
            "{told:?}"
        );
        assert!(
            told[2].starts_with("c.yaml:3: sasl.password_env:"),
            "{told:?}"
        );
    }
}
