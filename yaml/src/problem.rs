//! One thing that is wrong with a file, said so that its writer can mend it.

use std::fmt;

use serde::Serialize;

/// How much a problem matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth telling; what was read may be used.
    Warning,
    /// What was read must not be used.
    Error,
}

/// What is wrong, where, and what to do about it. Shown as `file:line: path: message`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The file as its reader named it.
    pub file: String,
    /// Line, from 1; 0 where there is no line (an environment variable, a whole file).
    pub line: u32,
    /// Column, from 1; 0 where there is none.
    pub column: u32,
    /// Where in the document: `spec.process.matchPaths[0].path`; empty for the document itself.
    pub path: String,
    /// What is wrong and what to do.
    pub message: String,
    /// Whether what was read may still be used.
    pub severity: Severity,
}

impl Problem {
    /// An error about a file as a whole.
    pub fn whole_file(file: &str, message: impl Into<String>) -> Problem {
        Problem {
            file: file.to_owned(),
            line: 0,
            column: 0,
            path: String::new(),
            message: message.into(),
            severity: Severity::Error,
        }
    }

    /// Whether this problem forbids using what was read.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        if !self.path.is_empty() {
            write!(f, ": {}", self.path)?;
        }
        write!(f, ": {}", self.message)
    }
}
