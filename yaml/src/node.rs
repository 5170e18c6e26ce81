//! The tree: what was written, and where.

use std::fmt::Write as _;
use std::sync::Arc;

use crate::problem::{Problem, Severity};
use crate::scalar::{self, Scalar};

/// A value of a document with its place: file, line, column and path from the document's root.
#[derive(Clone, Debug)]
pub struct Node {
    pub(crate) file: Arc<str>,
    pub(crate) line: u32,
    pub(crate) column: u32,
    pub(crate) place: Arc<Place>,
    pub(crate) value: Value,
}

#[derive(Clone, Debug)]
pub(crate) enum Value {
    /// `plain` scalars have a type by their look; quoted and block ones are text.
    Scalar {
        text: Box<str>,
        plain: bool,
    },
    List(Vec<Node>),
    Map(Vec<Entry>),
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: Box<str>,
    pub(crate) line: u32,
    pub(crate) column: u32,
    pub(crate) value: Node,
}

/// A node's path, as a chain to the root.
#[derive(Debug)]
pub(crate) struct Place {
    parent: Option<Arc<Place>>,
    step: Step,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Root,
    Key(Box<str>),
    Index(usize),
}

impl Place {
    pub(crate) fn root() -> Arc<Place> {
        Arc::new(Place {
            parent: None,
            step: Step::Root,
        })
    }

    fn child(parent: &Arc<Place>, step: Step) -> Arc<Place> {
        Arc::new(Place {
            parent: Some(parent.clone()),
            step,
        })
    }

    fn render(&self, out: &mut String) {
        if let Some(parent) = &self.parent {
            parent.render(out);
        }
        // Writing to a String cannot fail.
        let _ = match &self.step {
            Step::Root => Ok(()),
            Step::Index(index) => write!(out, "[{index}]"),
            Step::Key(key) if !is_word(key) => write!(out, "[{key:?}]"),
            Step::Key(key) if out.is_empty() => write!(out, "{key}"),
            Step::Key(key) => write!(out, ".{key}"),
        };
    }
}

fn is_word(key: &str) -> bool {
    !key.is_empty()
        && key
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
}

impl Node {
    /// An empty mapping, for a file that says nothing.
    pub fn empty(file: &str) -> Node {
        Node {
            line: 1,
            column: 1,
            ..Node::made(file, Value::Map(Vec::new()))
        }
    }

    pub(crate) fn made(file: &str, value: Value) -> Node {
        Node {
            file: file.into(),
            line: 0,
            column: 0,
            place: Place::root(),
            value,
        }
    }

    /// The file this node was read from, as its reader named it.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Line, from 1; 0 for a node that an environment variable made.
    pub fn line(&self) -> u32 {
        self.line
    }

    /// Column, from 1; 0 for a node that an environment variable made.
    pub fn column(&self) -> u32 {
        self.column
    }

    /// Path from the document's root, as in `spec.process.matchPaths[0].path`.
    pub fn path(&self) -> String {
        let mut out = String::new();
        self.place.render(&mut out);
        out
    }

    /// The text of a scalar, whatever its type.
    pub fn as_str(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    /// The text of a scalar that was written without quotes and has its type by its look.
    pub fn as_plain(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, plain: true } => Some(text),
            _ => None,
        }
    }

    /// Whether this is a plain `null`, `~` or nothing at all.
    pub fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, plain: true } if scalar::resolve(text) == Scalar::Null)
    }

    /// Whether this is a mapping.
    pub fn is_map(&self) -> bool {
        matches!(self.value, Value::Map(_))
    }

    /// Whether this is a list.
    pub fn is_list(&self) -> bool {
        matches!(self.value, Value::List(_))
    }

    /// The items of a list; nothing for other nodes.
    pub fn items(&self) -> &[Node] {
        match &self.value {
            Value::List(items) => items,
            _ => &[],
        }
    }

    /// The entries of a mapping in the order they were written; nothing for other nodes.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.map().iter().map(|entry| (&*entry.key, &entry.value))
    }

    /// The line of each key of a mapping, in the order of [`Node::entries`].
    pub fn key_lines(&self) -> impl Iterator<Item = u32> {
        self.map().iter().map(|entry| entry.line)
    }

    pub(crate) fn map(&self) -> &[Entry] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The value under one key of this mapping; the key is taken as it is, dots and all.
    pub fn key(&self, key: &str) -> Option<&Node> {
        self.map()
            .iter()
            .find(|entry| &*entry.key == key)
            .map(|entry| &entry.value)
    }

    /// The node at a path such as `spec.process.matchPaths[0].path` or
    /// `spec.selector.matchLabels["kubearmor.io/container.name"]`.
    pub fn get(&self, path: &str) -> Option<&Node> {
        steps(path)?
            .iter()
            .try_fold(self, |node, step| node.step(step))
    }

    fn step(&self, step: &Step) -> Option<&Node> {
        match step {
            Step::Root => Some(self),
            Step::Key(key) => self.key(key),
            Step::Index(index) => self.items().get(*index),
        }
    }

    /// This mapping without one key, for a reader that has dealt with that key itself.
    pub fn without(&self, key: &str) -> Node {
        let mut copy = self.clone();
        if let Value::Map(entries) = &mut copy.value {
            entries.retain(|entry| &*entry.key != key);
        }
        copy
    }

    /// An error at this node.
    pub fn problem(&self, message: impl Into<String>) -> Problem {
        Problem {
            file: self.file.to_string(),
            line: self.line,
            column: self.column,
            path: self.path(),
            message: message.into(),
            severity: Severity::Error,
        }
    }

    /// An error at a path below this node, whose line is that of the deepest part that exists.
    pub fn problem_at(&self, path: &str, message: impl Into<String>) -> Problem {
        let mut node = self;
        for step in steps(path).unwrap_or_default() {
            match node.step(&step) {
                Some(child) => node = child,
                None => break,
            }
        }
        let base = self.path();
        let joint = if base.is_empty() || path.is_empty() || path.starts_with('[') {
            ""
        } else {
            "."
        };
        Problem {
            path: format!("{base}{joint}{path}"),
            ..node.problem(message)
        }
    }

    /// Puts a scalar at `path`, making mappings on the way: how an environment variable overrides a file. A text
    /// that opens with `[` or `{` and reads as YAML becomes that list or mapping. Replaces what stands there.
    pub fn set(&mut self, path: &[&str], scalar: &str) {
        match path {
            [] => {
                self.value = overriding(scalar);
                (self.file, self.line, self.column) = ("environment".into(), 0, 0);
            }
            [first, rest @ ..] => self.slot(first).set(rest, scalar),
        }
        self.settle(self.place.clone());
    }

    /// The child that an override's step names; an index only where the list has it.
    fn slot(&mut self, step: &str) -> &mut Node {
        let index = step
            .parse::<usize>()
            .ok()
            .filter(|index| *index < self.items().len());
        if index.is_none() && !self.is_map() {
            self.value = Value::Map(Vec::new());
        }
        let made = || Node::made("environment", Value::Map(Vec::new()));
        match &mut self.value {
            Value::List(items) => &mut items[index.unwrap_or(0)],
            Value::Map(entries) => {
                let found = entries.iter().position(|entry| &*entry.key == step);
                let at = found.unwrap_or_else(|| {
                    entries.push(Entry {
                        key: step.into(),
                        line: 0,
                        column: 0,
                        value: made(),
                    });
                    entries.len() - 1
                });
                &mut entries[at].value
            }
            // Invariant: what is neither a map nor a list that has this index was made a map above.
            Value::Scalar { .. } => unreachable!("invariant: made a mapping above"),
        }
    }

    /// Gives this node its place and everything below it theirs.
    pub(crate) fn settle(&mut self, place: Arc<Place>) {
        match &mut self.value {
            Value::Scalar { .. } => {}
            Value::List(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    item.settle(Place::child(&place, Step::Index(index)));
                }
            }
            Value::Map(entries) => {
                for entry in entries {
                    entry
                        .value
                        .settle(Place::child(&place, Step::Key(entry.key.clone())));
                }
            }
        }
        self.place = place;
    }

    /// Direct children: items or values.
    pub(crate) fn children(&self) -> Vec<&Node> {
        match &self.value {
            Value::Scalar { .. } => Vec::new(),
            Value::List(items) => items.iter().collect(),
            Value::Map(entries) => entries.iter().map(|entry| &entry.value).collect(),
        }
    }
}

fn overriding(text: &str) -> Value {
    if text.trim_start().starts_with(['[', '{']) {
        let (mut documents, problems) = crate::parse("environment", text);
        if let (Some(mut node), true, true) =
            (documents.pop(), documents.is_empty(), problems.is_empty())
        {
            node.unplace();
            return node.value;
        }
    }
    Value::Scalar {
        text: text.into(),
        plain: true,
    }
}

impl Node {
    /// Forgets lines, which mean nothing for a value out of the environment.
    fn unplace(&mut self) {
        (self.line, self.column) = (0, 0);
        match &mut self.value {
            Value::Scalar { .. } => {}
            Value::List(items) => items.iter_mut().for_each(Node::unplace),
            Value::Map(entries) => {
                for entry in entries {
                    (entry.line, entry.column) = (0, 0);
                    entry.value.unplace();
                }
            }
        }
    }
}

/// `a.b[0]["c.d"]` in steps; `None` where the brackets make no sense.
fn steps(path: &str) -> Option<Vec<Step>> {
    let mut steps = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(quoted) = rest.strip_prefix("[\"") {
            let end = quoted.find("\"]")?;
            steps.push(Step::Key(quoted[..end].into()));
            rest = &quoted[end + 2..];
        } else if let Some(index) = rest.strip_prefix('[') {
            let end = index.find(']')?;
            steps.push(Step::Index(index[..end].parse().ok()?));
            rest = &index[end + 1..];
        } else {
            rest = rest.strip_prefix('.').unwrap_or(rest);
            let end = rest.find(['.', '[']).unwrap_or(rest.len());
            steps.push(Step::Key(rest[..end].into()));
            rest = &rest[end..];
        }
    }
    Some(steps)
}
