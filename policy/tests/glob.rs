//! The glob matcher against the plainest one there is.

use policy::Glob;
use proptest::prelude::*;

/// A part of a glob, and how it is written.
#[derive(Clone, Debug)]
enum Part {
    Char(char),
    Any,
    Star,
    Stars,
    Class(bool, Vec<char>),
    Either(Vec<Vec<Part>>),
}

fn text(parts: &[Part]) -> String {
    parts
        .iter()
        .map(|part| match part {
            Part::Char(c) => c.to_string(),
            Part::Any => "?".to_owned(),
            Part::Star => "*".to_owned(),
            Part::Stars => "**".to_owned(),
            Part::Class(not, chars) => {
                let not = if *not { "^" } else { "" };
                format!("[{not}{}]", chars.iter().collect::<String>())
            }
            Part::Either(choices) => {
                let choices: Vec<String> = choices.iter().map(|parts| text(parts)).collect();
                format!("{{{}}}", choices.join(","))
            }
        })
        .collect()
}

/// Every way of taking the text, tried one after the other. `some`: a star at the very end takes at least one.
fn naive(parts: &[Part], text: &[char], some: bool) -> bool {
    let Some((part, rest)) = parts.split_first() else {
        return text.is_empty();
    };
    let one = |good: &dyn Fn(char) -> bool| {
        text.first().is_some_and(|c| good(*c)) && naive(rest, &text[1..], some)
    };
    let run = |good: &dyn Fn(char) -> bool| {
        let least = usize::from(rest.is_empty() && some);
        let most = text.iter().take_while(|c| good(**c)).count();
        (least..=most).any(|taken| naive(rest, &text[taken..], some))
    };
    match part {
        Part::Char(own) => one(&|c| c == *own),
        Part::Any => one(&|c| c != '/'),
        Part::Class(not, chars) => one(&|c| c != '/' && chars.contains(&c) != *not),
        Part::Star => run(&|c| c != '/'),
        Part::Stars => run(&|_| true),
        Part::Either(choices) => choices.iter().any(|choice| {
            let whole: Vec<Part> = choice.iter().chain(rest).cloned().collect();
            naive(&whole, text, some)
        }),
    }
}

fn simple() -> impl Strategy<Value = Part> {
    prop_oneof![
        4 => prop::sample::select(vec!['a', 'b', '/', '/']).prop_map(Part::Char),
        1 => Just(Part::Any),
        1 => (any::<bool>(), prop::sample::subsequence(vec!['a', 'b', 'c'], 1..3)).prop_map(|(not, chars)| Part::Class(not, chars)),
    ]
}

/// Globs in which no two stars touch: `***` is one run, and says nothing of how it is to be read.
fn glob() -> impl Strategy<Value = Vec<Part>> {
    let star = prop::sample::select(vec![Part::Star, Part::Stars]);
    let either =
        prop::collection::vec(prop::collection::vec(simple(), 0..3), 1..3).prop_map(Part::Either);
    let piece = prop_oneof![5 => simple(), 2 => either].prop_map(|part| vec![part]);
    let pieces = prop::collection::vec((piece, prop::option::weighted(0.4, star)), 0..5);
    pieces.prop_map(|pieces| {
        let mut all = Vec::new();
        for (piece, star) in pieces {
            all.extend(piece);
            all.extend(star);
        }
        all
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_glob_matches_what_trying_everything_matches(parts in glob(), path in "[abc/]{0,7}") {
        let written = text(&parts);
        let glob = Glob::new(&written).map_err(|bad| TestCaseError::fail(format!("{written}: {bad}")))?;
        let chars: Vec<char> = path.chars().collect();
        let some = matches!(parts[..], [.., Part::Char('/'), Part::Star | Part::Stars]);
        prop_assert_eq!(glob.matches(&path), naive(&parts, &chars, some), "{} {}", written, path);
    }

    #[test]
    fn no_glob_panics(text in ".{0,40}", path in ".{0,40}") {
        if let Ok(glob) = Glob::new(&text) {
            let _ = glob.matches(&path);
        }
    }

    /// A text without special characters is itself.
    #[test]
    fn a_literal_is_itself(text in "/[a-z0-9._/-]{0,30}", other in "/[a-z0-9._/-]{0,30}") {
        let glob = Glob::new(&text).map_err(|bad| TestCaseError::fail(bad.to_string()))?;
        prop_assert!(glob.matches(&text));
        prop_assert_eq!(glob.matches(&other), text == other);
    }
}
