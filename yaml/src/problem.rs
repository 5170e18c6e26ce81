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

/// Takes out what checks, from the problem `read` on, say of a key that could not be read: it was left out, so they call it
/// missing, and the reading has told what is wrong with it or with one of its items.
pub fn drop_echoes(problems: &mut Vec<Problem>, read: usize) {
    let checked = problems.split_off(read.min(problems.len()));
    let broken = |path: &str| {
        let of_it = |rest: &str| rest.is_empty() || rest.starts_with('[');
        let read = problems.iter().filter(|problem| problem.is_error());
        read.filter_map(|problem| problem.path.strip_prefix(path))
            .any(of_it)
    };
    let news = |problem: &Problem| problem.path.is_empty() || !broken(&problem.path);
    let news: Vec<Problem> = checked.into_iter().filter(news).collect();
    problems.extend(news);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_a_key_that_could_not_be_read_is_no_news() {
        let at = |path: &str| Problem {
            path: path.to_owned(),
            ..Problem::whole_file("a.yaml", "wrong")
        };
        let read = [at("sink.shape"), at("sink.brokers[0].port"), at("")];
        let checked = [
            "sink.shape",
            "sink.brokers",
            "sink",
            "sink.shape.x",
            "",
            "sink.sha",
        ];
        let mut problems: Vec<Problem> = read.into_iter().chain(checked.map(at)).collect();
        drop_echoes(&mut problems, 3);
        let left: Vec<&str> = problems.iter().skip(3).map(|left| &*left.path).collect();
        assert_eq!(left, ["sink", "sink.shape.x", "", "sink.sha"]);
    }
}
