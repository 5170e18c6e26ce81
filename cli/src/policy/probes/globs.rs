//! Paths on both sides of what a glob draws: each choice of it in turn, the others as plain as they can be.
//!
//! ```text
//! *  one, two or no characters, or a folder      ?  one or two       **  the same as *, across folders first
//! [a-cx]  both ends of each range, one outside   {a,b}  each, with its own choices
//! ```

/// More of one glob are not tried.
const MAX: usize = 256;

/// Texts that the glob is about, and ones that it just is not.
pub(super) fn samples(pattern: &str) -> Vec<String> {
    let parts = parts(pattern);
    let plain = |at: usize| parts[at].first().map_or("", String::as_str);
    let with = |at: usize, choice: &str| -> String {
        (0..parts.len())
            .map(|own| if own == at { choice } else { plain(own) })
            .collect()
    };
    let mut all = vec![with(parts.len(), "")];
    for (at, choices) in parts.iter().enumerate() {
        all.extend(choices.iter().skip(1).map(|choice| with(at, choice)));
    }
    all.truncate(MAX);
    all
}

/// The choices of each part, the plainest first.
fn parts(pattern: &str) -> Vec<Vec<String>> {
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    let chars: Vec<char> = pattern.chars().collect();
    let mut all: Vec<Vec<String>> = Vec::new();
    let mut at = 0;
    while let Some(c) = chars.get(at) {
        at += 1;
        all.push(match c {
            '*' if chars.get(at) == Some(&'*') => {
                at += 1;
                texts(&["a/b", "a", "ab", ""])
            }
            '*' => texts(&["a", "ab", "", "a/b"]),
            '?' => texts(&["a", "ab"]),
            '[' => class(upto(&chars, &mut at, ']')),
            '{' => either(upto(&chars, &mut at, '}')),
            '\\' => {
                at += 1;
                chars.get(at - 1).map(char::to_string).into_iter().collect()
            }
            c => vec![c.to_string()],
        });
    }
    all
}

/// What stands before the mark that closes; the place is behind it then.
fn upto<'c>(chars: &'c [char], at: &mut usize, close: char) -> &'c [char] {
    let start = *at;
    let mut depth = 0;
    while let Some(c) = chars.get(*at) {
        *at += 1;
        match c {
            '\\' => *at += 1,
            '{' if close == '}' => depth += 1,
            c if *c == close && depth == 0 => return &chars[start..*at - 1],
            '}' if close == '}' => depth -= 1,
            _ => {}
        }
    }
    chars.get(start..).unwrap_or_default()
}

fn class(inner: &[char]) -> Vec<String> {
    let not = matches!(inner.first(), Some('^' | '!'));
    let inner = &inner[usize::from(not)..];
    let inside: Vec<String> = inner
        .iter()
        .filter(|c| **c != '-' && **c != '\\')
        .map(char::to_string)
        .collect();
    let outside = ('!'..='~').find(|c| c.is_ascii_punctuation() && *c != '/' && !inner.contains(c));
    let outside = outside.map(|c| c.to_string());
    if not {
        outside.into_iter().chain(inside).collect()
    } else {
        inside.into_iter().chain(outside).collect()
    }
}

fn either(inner: &[char]) -> Vec<String> {
    let mut texts = vec![String::new()];
    let mut depth = 0;
    for c in inner {
        depth += i32::from(*c == '{') - i32::from(*c == '}');
        match (c, texts.last_mut()) {
            (',', _) if depth == 0 => texts.push(String::new()),
            (c, Some(text)) => text.push(*c),
            _ => {}
        }
    }
    texts
        .iter()
        .flat_map(|text| samples(text))
        .take(MAX)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::samples;

    #[test]
    fn every_choice_of_a_glob_is_tried_on_both_sides() {
        let tried = |pattern: &str, needed: &[&str]| {
            let all = samples(pattern);
            for one in needed {
                assert!(
                    all.iter().any(|own| own == one),
                    "{pattern}: {one}: {all:?}"
                );
            }
        };
        tried("/bin/{cat,{d,c}og}", &["/bin/cat", "/bin/dog", "/bin/cog"]);
        tried("/bin/[a-c]at", &["/bin/aat", "/bin/cat", "/bin/!at"]);
        tried("/bin/[^a-c]at", &["/bin/!at", "/bin/aat"]);
        tried("/bin/*.sh", &["/bin/a.sh", "/bin/ab.sh", "/bin/a/b.sh"]);
        tried(
            "/v/**/*.log",
            &["/v/a/b/a.log", "/v/a/a.log", "/v/a/b/ab.log"],
        );
        tried("/x\\*", &["/x*"]);
    }
}
