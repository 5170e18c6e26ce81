//! Text → tree. The parser's events are folded into nodes; limits, anchors, merge keys (`<<`), tags and
//! duplicate keys are judged here, so that everything above sees a plain tree.

use std::collections::HashMap;
use std::sync::Arc;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};

use crate::node::{Entry, Node, Place, Value};
use crate::problem::Problem;

/// How deep a document may nest.
pub const MAX_DEPTH: usize = 64;
/// How many nodes a file may have, expanded aliases included.
pub const MAX_NODES: usize = 1_000_000;
/// How much text aliases may expand to in one file, in bytes; each copied node counts 64 bytes besides.
pub const MAX_ALIASED: usize = 10 << 20;

/// Reads every document of a file. Documents that are wholly empty are left out. After a syntax error the documents
/// before it are still returned, and the error is among the problems.
pub fn parse(file: &str, text: &str) -> (Vec<Node>, Vec<Problem>) {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut builder = Builder::new(file);
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let going = match event {
            Ok((event, span)) => builder.take(event, span),
            Err(error) => {
                let marker = error.marker();
                builder.problem(position(marker.line(), marker.col()), syntax(error.info()));
                false
            }
        };
        if !going {
            break;
        }
    }
    (builder.documents, builder.problems)
}

/// [`parse`] for bytes of unknown origin: what is not UTF-8 is a problem with its line.
pub fn parse_bytes(file: &str, bytes: &[u8]) -> (Vec<Node>, Vec<Problem>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => parse(file, text),
        Err(error) => {
            let before = &bytes[..error.valid_up_to()];
            let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
            let mut problem =
                Problem::whole_file(file, "this is not UTF-8 text; save the file as UTF-8");
            problem.line = u32::try_from(line).unwrap_or(u32::MAX);
            (Vec::new(), vec![problem])
        }
    }
}

fn syntax(info: &str) -> String {
    match info {
        // The scanner's own bound on `[` and `{`, which it meets before the builder counts.
        "recursion limit exceeded" => too_deep(),
        _ => format!("this is not YAML: {info}"),
    }
}

fn too_deep() -> String {
    format!("nested more than {MAX_DEPTH} levels deep; flatten the document")
}

type Position = (u32, u32);

fn position(line: usize, column: usize) -> Position {
    let narrow = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    (narrow(line), narrow(column.saturating_add(1)))
}

struct Builder {
    file: Arc<str>,
    documents: Vec<Node>,
    problems: Vec<Problem>,
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    aliased: usize,
}

/// A list or mapping whose end has not come yet.
struct Open {
    at: Position,
    anchor: usize,
    inside: Inside,
}

enum Inside {
    List(Vec<Node>),
    Map(Mapping),
}

#[derive(Default)]
struct Mapping {
    entries: Vec<Entry>,
    /// The values of `<<`.
    merged: Vec<Node>,
    /// The key whose value is awaited.
    key: Option<Key>,
}

/// A mapping's key; `None` text for a list or mapping used as a key, which is reported and dropped.
struct Key {
    at: Position,
    text: Option<Box<str>>,
    plain: bool,
}

impl Mapping {
    /// Takes a key or the value of the last one; false for a key that cannot be one.
    fn take(&mut self, node: Node) -> bool {
        match self.key.take() {
            None => {
                let at = (node.line, node.column);
                let (text, plain) = match node.value {
                    Value::Scalar { text, plain } => (Some(text), plain),
                    Value::List(_) | Value::Map(_) => (None, false),
                };
                let good = text.is_some();
                self.key = Some(Key { at, text, plain });
                good
            }
            Some(Key { text: None, .. }) => true,
            Some(Key {
                text: Some(text),
                plain: true,
                ..
            }) if &*text == "<<" => {
                self.merged.push(node);
                true
            }
            Some(Key {
                at: (line, column),
                text: Some(key),
                ..
            }) => {
                self.entries.push(Entry {
                    key,
                    line,
                    column,
                    value: node,
                });
                true
            }
        }
    }
}

impl Builder {
    fn new(file: &str) -> Builder {
        Builder {
            file: file.into(),
            documents: Vec::new(),
            problems: Vec::new(),
            open: Vec::new(),
            anchors: HashMap::new(),
            nodes: 0,
            aliased: 0,
        }
    }

    fn problem(&mut self, (line, column): Position, message: impl Into<String>) {
        let problem = Problem::whole_file(&self.file, message);
        self.problems.push(Problem {
            line,
            column,
            ..problem
        });
    }

    /// Takes one event; false when the file must be given up.
    fn take(&mut self, event: Event<'_>, span: Span) -> bool {
        let at = position(span.start.line(), span.start.col());
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let plain = self.plain(at, style, tag.as_deref());
                let node = self.node(
                    at,
                    Value::Scalar {
                        text: text.into(),
                        plain,
                    },
                );
                self.close(node, anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                self.collection_tag(at, tag.as_deref());
                self.begin(Open {
                    at,
                    anchor,
                    inside: Inside::List(Vec::new()),
                })
            }
            Event::MappingStart(anchor, tag) => {
                self.collection_tag(at, tag.as_deref());
                self.begin(Open {
                    at,
                    anchor,
                    inside: Inside::Map(Mapping::default()),
                })
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(open) => self.end(open),
                None => true,
            },
            Event::Alias(anchor) => self.alias(at, anchor),
            Event::DocumentStart(_) | Event::DocumentEnd => {
                self.anchors.clear();
                true
            }
            Event::StreamStart | Event::StreamEnd | Event::Nothing => true,
        }
    }

    fn node(&self, (line, column): Position, value: Value) -> Node {
        Node {
            file: self.file.clone(),
            line,
            column,
            place: Place::root(),
            value,
        }
    }

    fn begin(&mut self, open: Open) -> bool {
        if self.open.len() >= MAX_DEPTH {
            self.problem(open.at, too_deep());
            return false;
        }
        self.open.push(open);
        true
    }

    fn end(&mut self, open: Open) -> bool {
        let value = match open.inside {
            Inside::List(items) => Value::List(items),
            Inside::Map(mapping) => Value::Map(self.finish_map(mapping)),
        };
        let node = self.node(open.at, value);
        self.close(node, open.anchor)
    }

    /// A whole node: remembers it under its anchor and hands it to what is open around it.
    fn close(&mut self, node: Node, anchor: usize) -> bool {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            self.problem(
                (node.line, node.column),
                format!("more than {MAX_NODES} values; split the file"),
            );
            return false;
        }
        if anchor != 0 && !self.remember(anchor, &node) {
            return false;
        }
        let at = (node.line, node.column);
        let good = match self.open.last_mut().map(|open| &mut open.inside) {
            None => {
                self.document(node);
                true
            }
            Some(Inside::List(items)) => {
                items.push(node);
                true
            }
            Some(Inside::Map(mapping)) => mapping.take(node),
        };
        if !good {
            self.problem(
                at,
                "a key must be one word, not a list or mapping; quote it if it is text",
            );
        }
        true
    }

    fn remember(&mut self, anchor: usize, node: &Node) -> bool {
        let (nodes, bytes, _) = weigh(node);
        let good = self.expand((node.line, node.column), nodes, bytes);
        if good {
            self.anchors.insert(anchor, node.clone());
        }
        good
    }

    /// Accounts for a copy of a subtree; false when there have been too many.
    fn expand(&mut self, at: Position, nodes: usize, bytes: usize) -> bool {
        self.aliased = self.aliased.saturating_add(bytes + 64 * nodes);
        if self.aliased > MAX_ALIASED || self.nodes > MAX_NODES {
            self.problem(
                at,
                "the anchors and aliases of this file expand to more than 10 MiB; use fewer",
            );
            return false;
        }
        true
    }

    fn document(&mut self, mut node: Node) {
        if !node.is_null() {
            node.settle(Place::root());
            self.documents.push(node);
        }
    }

    fn alias(&mut self, at: Position, anchor: usize) -> bool {
        let Some(original) = self.anchors.get(&anchor) else {
            self.problem(
                at,
                "this alias stands inside the value that it names; write the value out",
            );
            return false;
        };
        let (nodes, bytes, depth) = weigh(original);
        if self.open.len() + depth > MAX_DEPTH {
            self.problem(
                at,
                format!("this alias nests more than {MAX_DEPTH} levels deep; write less into it"),
            );
            return false;
        }
        let copy = original.clone();
        self.nodes += nodes;
        self.expand(at, nodes, bytes) && self.close(copy, 0)
    }

    /// Whether a scalar's type is to be told from its look.
    fn plain(&mut self, at: Position, style: ScalarStyle, tag: Option<&Tag>) -> bool {
        match tag {
            None => style == ScalarStyle::Plain,
            Some(tag) if tag.is_yaml_core_schema() && tag.suffix == "str" => false,
            Some(tag)
                if tag.is_yaml_core_schema()
                    && matches!(tag.suffix.as_str(), "int" | "float" | "bool" | "null") =>
            {
                true
            }
            Some(tag) if tag.handle.is_empty() && tag.suffix == "!" => false,
            Some(tag) => {
                self.bad_tag(at, tag);
                false
            }
        }
    }

    fn collection_tag(&mut self, at: Position, tag: Option<&Tag>) {
        if let Some(tag) = tag
            && !(tag.is_yaml_core_schema() && matches!(tag.suffix.as_str(), "map" | "seq"))
        {
            self.bad_tag(at, tag);
        }
    }

    fn bad_tag(&mut self, at: Position, tag: &Tag) {
        self.problem(
            at,
            format!(
                "the tag `{}{}` means nothing here; remove it",
                tag.handle, tag.suffix
            ),
        );
    }

    /// Refuses keys that are given twice and takes in what `<<` points to.
    fn finish_map(&mut self, mapping: Mapping) -> Vec<Entry> {
        let Mapping {
            entries,
            merged,
            key: _,
        } = mapping;
        let mut seen: HashMap<Box<str>, u32> = HashMap::with_capacity(entries.len());
        let mut kept: Vec<Entry> = Vec::with_capacity(entries.len());
        for entry in entries {
            if let Some(first) = seen.get(&entry.key) {
                let message = format!(
                    "`{}` is given twice (first on line {first}); keep one",
                    entry.key
                );
                self.problem((entry.line, entry.column), message);
            } else {
                seen.insert(entry.key.clone(), entry.line);
                kept.push(entry);
            }
        }
        for node in merged {
            self.merge(node, &mut kept, &mut seen);
        }
        kept
    }

    fn merge(&mut self, node: Node, kept: &mut Vec<Entry>, seen: &mut HashMap<Box<str>, u32>) {
        let at = (node.line, node.column);
        match node.value {
            Value::Map(entries) => {
                for entry in entries {
                    if !seen.contains_key(&entry.key) {
                        seen.insert(entry.key.clone(), entry.line);
                        kept.push(entry);
                    }
                }
            }
            Value::List(items) if items.iter().all(Node::is_map) => {
                for item in items {
                    self.merge(item, kept, seen);
                }
            }
            _ => self.problem(at, "`<<` takes a mapping or a list of mappings"),
        }
    }
}

/// Nodes, bytes of text and depth of a subtree.
fn weigh(node: &Node) -> (usize, usize, usize) {
    let own = match &node.value {
        Value::Scalar { text, .. } => text.len(),
        Value::List(_) => 0,
        Value::Map(entries) => entries.iter().map(|entry| entry.key.len()).sum(),
    };
    let mut total = (1, own, 1);
    for child in node.children() {
        let (nodes, bytes, depth) = weigh(child);
        total = (total.0 + nodes, total.1 + bytes, total.2.max(depth + 1));
    }
    total
}
