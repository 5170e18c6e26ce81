//! A reader's regular expression, with memory that is known.
//!
//! Expressions come from whoever reaches the feed. A dozen characters may compile to a mebibyte, and the automaton that is
//! built while searching may take several more, once a thread that searches. So here an expression has one such
//! automaton, of bounded size, and says what it takes: readers have that of a budget that they share ([`super::memory`]).

use std::sync::{Mutex, MutexGuard, PoisonError};

use regex_automata::Input;
use regex_automata::meta::{BuildError, Cache, Config, Regex};
use regex_automata::util::syntax;

use super::BadFilter;

/// Most bytes of an expression's text.
const MAX_TEXT: usize = 4 << 10;
/// Most bytes that one expression may compile to.
const MAX_COMPILED: usize = 1 << 20;
/// Bytes of the automaton that is built while searching, for each direction; a search that needs more begins it anew. An
/// expression that cannot be searched for with so little is searched for without one, slowly.
const MAX_STATES: usize = 256 << 10;
/// Characters of a text that are told where it is wrong.
const TOLD: usize = 120;

/// With regard to case, or without.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Case {
    Counts,
    Ignored,
}

/// A compiled expression.
#[derive(Debug)]
pub(crate) struct Expression {
    regex: Regex,
    /// Of the one reader whose filter it is.
    cache: Mutex<Cache>,
}

impl Expression {
    /// # Errors
    /// It is none, or too large; `field` is named.
    pub(super) fn new(
        field: &'static str,
        text: &str,
        case: Case,
    ) -> Result<Expression, BadFilter> {
        if text.len() > MAX_TEXT {
            return Err(BadFilter::Long {
                field,
                bytes: text.len(),
                most: MAX_TEXT,
            });
        }
        let config = Config::new()
            .nfa_size_limit(Some(MAX_COMPILED))
            .hybrid_cache_capacity(MAX_STATES);
        let regex = Regex::builder()
            .configure(config)
            .syntax(syntax::Config::new().case_insensitive(case == Case::Ignored))
            .build(text)
            .map_err(|error| bad(field, text, &error))?;
        let cache = Mutex::new(regex.create_cache());
        Ok(Expression { regex, cache })
    }

    /// Whether it is found anywhere in `text`.
    pub(crate) fn is_match(&self, text: &str) -> bool {
        let input = Input::new(text).earliest(true);
        let mut cache = self.cache();
        self.regex.search_half_with(&mut cache, &input).is_some()
    }

    /// Bytes that it takes now.
    pub(super) fn size(&self) -> usize {
        self.regex.memory_usage() + self.cache().memory_usage()
    }

    /// Gives back what searching took.
    pub(super) fn forget(&self) {
        *self.cache() = self.regex.create_cache();
    }

    /// Whatever a panic left in it, a search begins with what it needs.
    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bad(field: &'static str, text: &str, error: &BuildError) -> BadFilter {
    let expression = beginning(text);
    match (error.size_limit(), error.syntax_error()) {
        (Some(most), _) => BadFilter::Large {
            field,
            expression,
            most,
        },
        (None, syntax) => BadFilter::Expression {
            field,
            expression,
            reason: syntax.map_or_else(|| error.to_string(), |e| reason(text, &e.to_string())),
        },
    }
}

/// What is wrong, shown in the text where that is short.
fn reason(text: &str, told: &str) -> String {
    let short = text.chars().count() <= TOLD;
    let last = told.rsplit_once("error: ").filter(|_| !short);
    last.map_or(told, |(_, last)| last).to_owned()
}

/// As much of a text as people look at.
fn beginning(text: &str) -> String {
    match text.char_indices().nth(TOLD) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expression(text: &str) -> Expression {
        Expression::new("source", text, Case::Ignored).unwrap()
    }

    #[test]
    fn searching_takes_bounded_memory_and_gives_it_back() {
        let texts = [
            "shop",
            "^(cart|shop)-",
            r"\w+-\d+$",
            r"[\pL\d]{6}.*\w{4}x?",
            r"(a|b|c|ab|bc)*[\pL]{9}.*#",
        ];
        for text in texts {
            let expression = expression(text);
            let least = expression.size();
            for n in 0_u32..2_000 {
                let word: String = (0..200)
                    .filter_map(|at| char::from_u32(0x60 + (n.wrapping_mul(31) + at * at) % 0x600))
                    .collect();
                expression.is_match(&word);
            }
            let most = expression.size();
            assert!(most <= least + (1 << 20), "{text}: {most} after {least}");
            expression.forget();
            assert_eq!(expression.size(), least, "{text}");
        }
    }

    #[test]
    fn what_people_ask_for_is_small() {
        for text in ["shop", "^shop$", "^(cart|shop)-", "/usr/bin/.*sh$"] {
            let size = expression(text).size();
            assert!(size <= 256 << 10, "{text}: {size}");
        }
    }

    #[test]
    fn what_is_long_or_large_is_refused_in_few_words() {
        let long = Expression::new("pod", &"a".repeat(5_000), Case::Counts).unwrap_err();
        assert_eq!(
            long.to_string(),
            "the expression for pod has 5000 bytes, and 4096 are the most"
        );
        let large = Expression::new("pod", r"\pL{2000}", Case::Counts);
        let large = large.unwrap_err().to_string();
        assert!(large.contains("for pod is too large"), "{large}");
        let wrong = Expression::new("pod", &format!("({}", "é".repeat(1_000)), Case::Counts);
        let told = wrong.unwrap_err().to_string();
        assert!(
            told.ends_with("unclosed group") && told.len() < 1_000,
            "{told}"
        );
    }
}
