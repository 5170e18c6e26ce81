//! Secrets in arguments are replaced here, before an event is written anywhere.
//!
//! Each argument is looked at alone and then the joined command line, so that both `token=abc` and
//! `--password hunter2` can be matched. An argument that was changed alone is joined changed.

use std::borrow::Cow;

use regex::Regex;

use crate::config::{RedactField, Redaction};

/// The compiled replacements, in the order of the settings.
#[derive(Debug, Default, Clone)]
pub struct Redact {
    arguments: Vec<(Regex, String)>,
}

/// A pattern that does not compile.
#[derive(Debug, thiserror::Error)]
#[error("redaction pattern {pattern:?}: {source}")]
pub struct RedactError {
    pattern: String,
    source: regex::Error,
}

impl Redact {
    /// Compiles the patterns of the settings.
    pub fn new(redactions: &[Redaction]) -> Result<Self, RedactError> {
        let mut arguments = Vec::new();
        for Redaction {
            field: RedactField::Arguments,
            pattern,
            replace,
        } in redactions
        {
            let regex = Regex::new(pattern).map_err(|source| RedactError {
                pattern: pattern.clone(),
                source,
            })?;
            arguments.push((regex, replace.clone()));
        }
        Ok(Self { arguments })
    }

    /// One text: an argument, or a whole command line.
    pub fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut text = Cow::Borrowed(text);
        for (regex, replace) in &self.arguments {
            if let Cow::Owned(changed) = regex.replace_all(&text, replace.as_str()) {
                text = Cow::Owned(changed);
            }
        }
        text
    }

    /// Arguments in place, and what a reader of the whole line would still see.
    ///
    /// A match that spans arguments (`--password hunter2`) cannot be put back into a list word by word, so the
    /// words after the first change become one.
    pub fn arguments(&self, arguments: &mut Vec<String>) {
        if self.arguments.is_empty() {
            return;
        }
        for argument in arguments.iter_mut() {
            if let Cow::Owned(changed) = self.text(argument) {
                *argument = changed;
            }
        }
        let line = arguments.join(" ");
        if let Cow::Owned(changed) = self.text(&line)
            && changed != line
        {
            *arguments = rest_as_one(arguments, &changed);
        }
    }
}

/// Keeps the leading arguments that are unchanged in `line`, the rest as one.
fn rest_as_one(arguments: &[String], line: &str) -> Vec<String> {
    let mut kept = Vec::new();
    let mut rest = line;
    for argument in arguments {
        match rest
            .strip_prefix(argument.as_str())
            .and_then(|after| after.strip_prefix(' '))
        {
            Some(after) => {
                kept.push(argument.clone());
                rest = after;
            }
            None => break,
        }
    }
    kept.push(rest.to_owned());
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redact(patterns: &[(&str, &str)]) -> Redact {
        let list: Vec<Redaction> = patterns
            .iter()
            .map(|(pattern, replace)| Redaction {
                field: RedactField::Arguments,
                pattern: (*pattern).to_owned(),
                replace: (*replace).to_owned(),
            })
            .collect();
        Redact::new(&list).unwrap()
    }

    fn run(redact: &Redact, arguments: &[&str]) -> Vec<String> {
        let mut list: Vec<String> = arguments.iter().map(|text| (*text).to_owned()).collect();
        redact.arguments(&mut list);
        list
    }

    #[test]
    fn a_secret_in_one_argument_goes_and_the_others_stay() {
        let redact = redact(&[(r"(?i)(password|token)=\S+", "***")]);
        assert_eq!(
            run(&redact, &["curl", "-d", "Token=abc", "http://x/?a=1"]),
            ["curl", "-d", "***", "http://x/?a=1"]
        );
    }

    #[test]
    fn a_secret_that_spans_arguments_goes_too() {
        let redact = redact(&[(r"(--password) \S+", "$1 ***")]);
        assert_eq!(
            run(
                &redact,
                &["mysql", "-u", "root", "--password", "hunter2", "-h", "db"]
            ),
            ["mysql", "-u", "root", "--password", "*** -h db"]
        );
    }

    #[test]
    fn groups_can_be_kept_and_several_patterns_run_in_order() {
        let redact = redact(&[(r"(token)=\S+", "$1=X"), ("X", "Y")]);
        assert_eq!(run(&redact, &["token=1"]), ["token=Y"]);
    }

    #[test]
    fn without_patterns_nothing_is_touched() {
        assert_eq!(run(&Redact::default(), &["a b", "c"]), ["a b", "c"]);
    }
}
