//! Globs over paths: AppArmor's language, in which the policies in the field are written.
//!
//! ```text
//! *      any run of characters but `/`, also none     /var/log/*.log
//! **     any run of characters                        /opt/**
//! ?      one character but `/`                        /etc/rc?.d
//! [a-z]  one of these; [^a-z], [!a-z] none of these   /dev/tty[0-9]
//! {a,b}  either; may nest                             /usr/{s,}bin/nc
//! \x     x itself
//! ```
//! After a `/` that ends the text before it, `*` and `**` stand for at least one character, as AppArmor has it: `/etc/**`
//! is about everything below `/etc` and not about `/etc/`.
//!
//! A glob becomes an automaton without back-tracking: a set of states is carried over the path, so the time is the
//! length of the path times that of the glob, whatever either holds. States are bounded by [`MAX_STATES`].

use std::fmt;

/// How long a glob may be, in bytes.
pub const MAX_GLOB: usize = 1024;
/// How many states one may have. A character is one or two.
const MAX_STATES: usize = 4096;
/// How deep braces may nest.
const MAX_BRACES: usize = 8;

/// A compiled glob.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Glob {
    text: String,
    states: Vec<State>,
}

/// What a state does; `usize` is the state after it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum State {
    /// Takes one character.
    Take(Take, usize),
    /// Goes on in two places at once.
    Fork(usize, usize),
    Accept,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Take {
    Char(char),
    Any,
    NotSlash,
    /// Never `/`.
    Class {
        not: bool,
        ranges: Vec<(char, char)>,
    },
}

impl Take {
    fn takes(&self, c: char) -> bool {
        match self {
            Take::Char(own) => *own == c,
            Take::Any => true,
            Take::NotSlash => c != '/',
            Take::Class { not, ranges } => {
                c != '/' && ranges.iter().any(|(from, to)| (*from..=*to).contains(&c)) != *not
            }
        }
    }
}

/// What is wrong with a glob, and at which byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadGlob {
    at: usize,
    why: &'static str,
}

impl fmt::Display for BadGlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (at character {})", self.why, self.at + 1)
    }
}

impl std::error::Error for BadGlob {}

/// A glob as it was read, before it has states.
enum Part {
    One(Take),
    /// Any run of these; `true`: at least one.
    Run(Take, bool),
    Either(Vec<Vec<Part>>),
}

impl Glob {
    /// Compiles a glob.
    ///
    /// # Errors
    /// [`BadGlob`]: brackets or braces that are not closed, ranges that go backwards, or more than the bounds above.
    pub fn new(text: &str) -> Result<Glob, BadGlob> {
        if text.len() > MAX_GLOB {
            return Err(BadGlob {
                at: MAX_GLOB,
                why: "longer than 1024 bytes; split the pattern",
            });
        }
        let mut reader = Reader {
            chars: text.chars().collect(),
            at: 0,
            depth: 0,
        };
        let parts = reader.parts(false, true)?;
        let mut builder = Builder {
            states: vec![State::Accept],
        };
        let start = builder.all(&parts, 0);
        if builder.states.len() > MAX_STATES {
            return Err(BadGlob {
                at: 0,
                why: "needs too many states; split the pattern",
            });
        }
        // The start is the last state, where matching begins.
        builder.states.push(State::Fork(start, start));
        Ok(Glob {
            text: text.to_owned(),
            states: builder.states,
        })
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the whole path is matched.
    pub fn matches(&self, path: &str) -> bool {
        let mut now = Carried::new(self.states.len());
        let mut next = Carried::new(self.states.len());
        now.enter(&self.states, self.states.len() - 1);
        for c in path.chars() {
            next.clear();
            for at in 0..now.list.len() {
                if let State::Take(take, then) = &self.states[now.list[at]]
                    && take.takes(c)
                {
                    next.enter(&self.states, *then);
                }
            }
            std::mem::swap(&mut now, &mut next);
            if now.list.is_empty() {
                return false;
            }
        }
        now.list.iter().any(|at| self.states[*at] == State::Accept)
    }

    /// The directory in front of the first special character, with its closing `/`; what is named literally.
    pub(crate) fn prefix(&self) -> &str {
        let special = self.text.find(['*', '?', '[', '{', '\\']);
        let literal = &self.text[..special.unwrap_or(self.text.len())];
        &literal[..literal.rfind('/').map_or(0, |at| at + 1)]
    }
}

/// A text in which every special character stands for itself.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '*' | '?' | '[' | '{' | '}' | ',' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

impl fmt::Debug for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Glob({})", self.text)
    }
}

/// A set of states, each at most once.
struct Carried {
    list: Vec<usize>,
    there: Vec<bool>,
}

impl Carried {
    fn new(states: usize) -> Carried {
        Carried {
            list: Vec::with_capacity(states.min(64)),
            there: vec![false; states],
        }
    }

    fn clear(&mut self) {
        self.list.drain(..).for_each(|at| self.there[at] = false);
    }

    /// Adds a state and all that it leads to without a character.
    fn enter(&mut self, states: &[State], from: usize) {
        let mut open = vec![from];
        while let Some(at) = open.pop() {
            if std::mem::replace(&mut self.there[at], true) {
                continue;
            }
            self.list.push(at);
            if let State::Fork(one, other) = states[at] {
                open.extend([other, one]);
            }
        }
    }
}

// === reading ===

struct Reader {
    chars: Vec<char>,
    at: usize,
    depth: usize,
}

impl Reader {
    fn bad<T>(&self, at: usize, why: &'static str) -> Result<T, BadGlob> {
        Err(BadGlob { at, why })
    }

    /// Reads to the end, or in braces to the next `,` or `}`. `last`: nothing follows these parts.
    fn parts(&mut self, braces: bool, last: bool) -> Result<Vec<Part>, BadGlob> {
        let mut parts = Vec::new();
        while let Some(&c) = self.chars.get(self.at) {
            if braces && matches!(c, ',' | '}') {
                break;
            }
            let part = self.part(c, last)?;
            parts.push(part);
        }
        Ok(parts)
    }

    fn part(&mut self, c: char, last: bool) -> Result<Part, BadGlob> {
        let begin = self.at;
        self.at += 1;
        match c {
            '*' => {
                let before = begin.checked_sub(1).and_then(|at| self.chars.get(at));
                let mut all = false;
                while self.chars.get(self.at) == Some(&'*') {
                    self.at += 1;
                    all = true;
                }
                let ends = last && self.at == self.chars.len();
                let take = if all { Take::Any } else { Take::NotSlash };
                Ok(Part::Run(take, ends && before == Some(&'/')))
            }
            '?' => Ok(Part::One(Take::NotSlash)),
            '[' => Ok(Part::One(self.class(begin)?)),
            '{' => self.either(begin, last),
            '\\' => match self.chars.get(self.at) {
                Some(&c) => {
                    self.at += 1;
                    Ok(Part::One(Take::Char(c)))
                }
                None => self.bad(begin, "`\\` has nothing behind it; write `\\\\` for itself"),
            },
            c => Ok(Part::One(Take::Char(c))),
        }
    }

    fn class(&mut self, begin: usize) -> Result<Take, BadGlob> {
        let not = matches!(self.chars.get(self.at), Some('^' | '!'));
        self.at += usize::from(not);
        let mut ranges = Vec::new();
        loop {
            let first = self.at;
            let from = match self.chars.get(self.at) {
                Some(']') if !ranges.is_empty() => {
                    self.at += 1;
                    return Ok(Take::Class { not, ranges });
                }
                Some(_) => self.member(begin)?,
                None => {
                    return self.bad(
                        begin,
                        "`[` is not closed; add `]`, or write `\\[` for itself",
                    );
                }
            };
            let range = self.chars.get(self.at) == Some(&'-')
                && self.chars.get(self.at + 1).is_some_and(|c| *c != ']');
            let to = if range {
                self.at += 1;
                self.member(begin)?
            } else {
                from
            };
            if to < from {
                return self.bad(first, "a range that goes backwards; turn it round");
            }
            ranges.push((from, to));
        }
    }

    fn member(&mut self, begin: usize) -> Result<char, BadGlob> {
        let escaped = self.chars.get(self.at) == Some(&'\\');
        self.at += usize::from(escaped);
        let Some(&c) = self.chars.get(self.at) else {
            return self.bad(
                begin,
                "`[` is not closed; add `]`, or write `\\[` for itself",
            );
        };
        self.at += 1;
        Ok(c)
    }

    fn either(&mut self, begin: usize, last: bool) -> Result<Part, BadGlob> {
        self.depth += 1;
        if self.depth > MAX_BRACES {
            return self.bad(begin, "braces nest more than 8 deep; split the pattern");
        }
        let mut choices = Vec::new();
        loop {
            choices.push(self.parts(true, last)?);
            let end = self.chars.get(self.at).copied();
            self.at += 1;
            match end {
                Some(',') => {}
                Some(_) => break,
                None => {
                    return self.bad(
                        begin,
                        "`{` is not closed; add `}`, or write `\\{` for itself",
                    );
                }
            }
        }
        self.depth -= 1;
        Ok(Part::Either(choices))
    }
}

// === building ===

struct Builder {
    states: Vec<State>,
}

impl Builder {
    fn push(&mut self, state: State) -> usize {
        self.states.push(state);
        self.states.len() - 1
    }

    /// The state that begins these parts, which lead to `then`.
    fn all(&mut self, parts: &[Part], then: usize) -> usize {
        parts
            .iter()
            .rev()
            .fold(then, |then, part| self.one(part, then))
    }

    fn one(&mut self, part: &Part, then: usize) -> usize {
        match part {
            Part::One(take) => self.push(State::Take(take.clone(), then)),
            Part::Run(take, some) => {
                let fork = self.push(State::Fork(then, then));
                let take = self.push(State::Take(take.clone(), fork));
                self.states[fork] = State::Fork(take, then);
                if *some { take } else { fork }
            }
            Part::Either(choices) => {
                let starts: Vec<usize> =
                    choices.iter().map(|parts| self.all(parts, then)).collect();
                let both = |one, other| self.push(State::Fork(one, other));
                starts.into_iter().rev().reduce(both).unwrap_or(then)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(glob: &str, path: &str) -> bool {
        Glob::new(glob).is_ok_and(|glob| glob.matches(path))
    }

    #[test]
    fn each_special_character_means_what_the_table_says() {
        let good = [
            ("/var/log/*.log", "/var/log/a.log"),
            ("/var/log/*.log", "/var/log/.log"),
            ("/opt/**", "/opt/a/b"),
            ("/opt/**/nc", "/opt/a/b/nc"),
            ("/etc/rc?.d", "/etc/rc3.d"),
            ("/dev/tty[0-9]", "/dev/tty7"),
            ("/dev/tty[^0-9]", "/dev/ttyS"),
            ("/dev/tty[!0-9]", "/dev/ttyS"),
            ("/usr/{s,}bin/{nc,{a,b}c}", "/usr/bin/bc"),
            ("/a\\*", "/a*"),
            ("/[]]", "/]"),
            ("/a-[a-]", "/a--"),
            ("/{a,b}*", "/b"),
        ];
        for (glob, path) in good {
            assert!(matches(glob, path), "{glob} {path}");
        }
        let bad = [
            ("/var/log/*.log", "/var/log/a/b.log"),
            ("/opt/**", "/opt/"),
            ("/opt/*", "/opt/"),
            ("/opt/**", "/opt"),
            ("/etc/rc?.d", "/etc/rc/.d"),
            ("/dev/tty[^0-9]", "/dev/tty/"),
            ("/a\\*", "/ab"),
            ("/a", "/ab"),
            ("/ab", "/a"),
            ("*.sh", "/x.sh"),
        ];
        for (glob, path) in bad {
            assert!(!matches(glob, path), "{glob} {path}");
        }
    }

    #[test]
    fn what_is_not_closed_is_said_with_its_place() {
        let why = |glob: &str| {
            Glob::new(glob)
                .err()
                .map(|bad| bad.to_string())
                .unwrap_or_default()
        };
        assert!(why("/a[b").ends_with("(at character 3)"), "{}", why("/a[b"));
        assert!(why("/{a,b").contains("`{` is not closed"));
        assert!(why("/[z-a]").contains("backwards"));
        assert!(why("/a\\").contains("nothing behind it"));
        assert!(why(&"{".repeat(9)).contains("8 deep"));
        assert!(why(&"a".repeat(1025)).contains("1024"));
    }

    #[test]
    fn the_literal_directory_in_front_is_found() {
        let prefix = |text: &str| {
            Glob::new(text)
                .map(|glob| glob.prefix().to_owned())
                .unwrap_or_default()
        };
        assert_eq!(prefix("/bin/*"), "/bin/");
        assert_eq!(prefix("/usr/lo*/x"), "/usr/");
        assert_eq!(prefix("/usr/bin/nc"), "/usr/bin/");
        assert_eq!(prefix("*"), "");
    }
}
