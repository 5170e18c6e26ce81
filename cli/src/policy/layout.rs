//! A YAML file as a tree that keeps its comments, and the one form in which it is written.
//!
//! Block style, two spaces a level, lists of short scalars in one line, no anchors, quotes only where they are needed. What a
//! comment is, is not guessed: it is what can be taken out of its line without the file saying anything else.
//!
//! ```text
//! text ─▶ comments(text)            lines and texts
//!     └─▶ yaml::parse ─▶ Tree ◀── each comment to the first key or item below it, or to the last one on its line
//!                         └─▶ written ─▶ parsed again: must say the same, else nothing is written
//! ```

use yaml::Node;

/// Lists of scalars longer than this are written one item a line.
const WIDTH: usize = 100;
/// Lines that may hold a comment; each is tried by reading the file without it.
const MAX_CANDIDATES: usize = 400;

/// A value with what was said about it.
#[derive(Clone, Debug, Default)]
pub(super) struct Tree {
    pub(super) value: Value,
    said: Said,
}

/// Comments, without `#`.
#[derive(Clone, Debug, Default)]
struct Said {
    /// On lines of their own before the value.
    above: Vec<String>,
    /// Behind it.
    beside: Option<String>,
}

#[derive(Clone, Debug)]
pub(super) enum Value {
    /// `plain`: without quotes, so that its look says its type.
    Scalar {
        text: String,
        plain: bool,
    },
    List(Vec<Tree>),
    Map(Vec<(String, Tree)>),
}

impl Default for Value {
    fn default() -> Value {
        Value::Map(Vec::new())
    }
}

/// A whole file.
#[derive(Clone, Debug, Default)]
pub(super) struct File {
    pub(super) documents: Vec<Tree>,
    /// Comments after everything.
    below: Vec<String>,
    /// Comments could not be told from text, and are lost.
    pub(super) lost_comments: bool,
}

/// A comment: its line from 1, whether it stands alone there, its text.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Comment {
    line: u32,
    alone: bool,
    text: String,
}

impl File {
    /// Reads a file.
    ///
    /// # Errors
    /// The first thing that is wrong with it as YAML.
    pub(super) fn read(name: &str, text: &str) -> Result<File, String> {
        let (nodes, problems) = yaml::parse(name, text);
        if let Some(problem) = problems.iter().find(|problem| problem.is_error()) {
            return Err(problem.to_string());
        }
        let mut file = File {
            documents: nodes.iter().map(Tree::of).collect(),
            ..File::default()
        };
        match comments(name, text, &file) {
            Some(comments) => file.attach(comments, &nodes),
            None => file.lost_comments = true,
        }
        Ok(file)
    }

    /// Gives each comment to what it is about.
    fn attach(&mut self, comments: Vec<Comment>, nodes: &[Node]) {
        let mut lines = Vec::new();
        for node in nodes {
            lines_of(node, node.line(), &mut lines);
        }
        let mut said = self.said();
        let mut below = Vec::new();
        for comment in comments {
            let on = lines.iter().rposition(|line| *line == comment.line);
            let after = lines.iter().position(|line| *line > comment.line);
            match (on.filter(|_| !comment.alone), after) {
                (Some(at), _) if said[at].beside.is_none() => said[at].beside = Some(comment.text),
                (_, Some(at)) => said[at].above.push(comment.text),
                (_, None) => below.push(comment.text),
            }
        }
        self.below = below;
    }

    /// Everything that comments can be about, in the order in which it is written.
    fn said(&mut self) -> Vec<&mut Said> {
        let mut said = Vec::new();
        for document in &mut self.documents {
            document.said(&mut said);
        }
        said
    }

    /// The file in its one form.
    pub(super) fn written(&self) -> String {
        let mut out = String::new();
        for (at, document) in self.documents.iter().enumerate() {
            if at > 0 {
                out.push_str("---\n");
            }
            above(&document.said.above, 0, &mut out);
            match &document.value {
                Value::Map(entries) if !entries.is_empty() => map(entries, 0, &mut out),
                Value::List(items) if !items.is_empty() => list(items, 0, &mut out),
                value => out += &format!("{}\n", inline(value)),
            }
        }
        above(&self.below, 0, &mut out);
        out
    }

    /// Whether both say the same, comments and the order of keys aside.
    pub(super) fn says_the_same(&self, other: &File) -> bool {
        let pairs = self.documents.iter().zip(&other.documents);
        self.documents.len() == other.documents.len() && pairs.into_iter().all(|(a, b)| same(a, b))
    }

    /// How many comments it holds.
    pub(super) fn comments(&mut self) -> usize {
        let below = self.below.len();
        let said = self.said();
        let kept = said
            .iter()
            .map(|said| said.above.len() + usize::from(said.beside.is_some()));
        kept.sum::<usize>() + below
    }
}

/// A text that is not quoted and a quoted one are the same text; a number and a quoted number are not.
fn same(a: &Tree, b: &Tree) -> bool {
    match (&a.value, &b.value) {
        (Value::Scalar { text: a, plain: p }, Value::Scalar { text: b, plain: q }) => {
            a == b && (p == q || is_text(a))
        }
        (Value::List(a), Value::List(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Map(a), Value::Map(b)) => {
            let find = |key: &str| b.iter().find(|(other, _)| other == key);
            let equal = |(key, a): &(String, Tree)| find(key).is_some_and(|(_, b)| same(a, b));
            a.len() == b.len() && a.iter().all(equal)
        }
        _ => false,
    }
}

impl Tree {
    fn of(node: &Node) -> Tree {
        let value = if node.is_map() {
            let entries = node.entries();
            Value::Map(
                entries
                    .map(|(key, value)| (key.to_owned(), Tree::of(value)))
                    .collect(),
            )
        } else if node.is_list() {
            Value::List(node.items().iter().map(Tree::of).collect())
        } else {
            Value::Scalar {
                text: node.as_str().unwrap_or_default().to_owned(),
                plain: node.as_plain().is_some(),
            }
        };
        Tree {
            value,
            said: Said::default(),
        }
    }

    /// A text.
    pub(super) fn text(text: &str) -> Tree {
        let value = Value::Scalar {
            text: text.to_owned(),
            plain: is_text(text),
        };
        Tree {
            value,
            said: Said::default(),
        }
    }

    fn said<'t>(&'t mut self, into: &mut Vec<&'t mut Said>) {
        let Tree { value, said } = self;
        into.push(said);
        match value {
            Value::Scalar { .. } => {}
            Value::List(items) => items.iter_mut().for_each(|item| item.said(into)),
            Value::Map(entries) => entries.iter_mut().for_each(|(_, tree)| tree.said(into)),
        }
    }

    /// The value under a key of this mapping.
    pub(super) fn get(&self, key: &str) -> Option<&Tree> {
        match &self.value {
            Value::Map(entries) => entries
                .iter()
                .find(|(own, _)| own == key)
                .map(|(_, tree)| tree),
            _ => None,
        }
    }

    /// The text of a scalar.
    pub(super) fn as_str(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    fn is_scalar(&self) -> bool {
        matches!(self.value, Value::Scalar { .. })
    }

    fn is_silent(&self) -> bool {
        self.said.above.is_empty() && self.said.beside.is_none()
    }
}

/// The line of everything that [`Tree::said`] lists, in the same order. Of a value in a mapping it is its key's line.
fn lines_of(node: &Node, line: u32, into: &mut Vec<u32>) {
    into.push(line);
    for item in node.items() {
        lines_of(item, item.line(), into);
    }
    for ((_, value), line) in node.entries().zip(node.key_lines()) {
        lines_of(value, line, into);
    }
}

// === comments ===

/// Every comment of a text; none when there are more places to try than is sensible.
fn comments(name: &str, text: &str, file: &File) -> Option<Vec<Comment>> {
    let lines: Vec<&str> = text.lines().collect();
    let candidates = lines.iter().filter(|line| line.contains('#')).count();
    if candidates > MAX_CANDIDATES {
        return None;
    }
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let hashes = line.match_indices('#').map(|(place, _)| place);
        let open =
            |place: &usize| line[..*place].is_empty() || line[..*place].ends_with([' ', '\t']);
        for place in hashes.filter(open) {
            if says_the_same_without(name, &lines, at, place, file) {
                let before = line[..place].trim();
                found.push(Comment {
                    line: u32::try_from(at + 1).unwrap_or(u32::MAX),
                    alone: before.is_empty(),
                    text: line[place + 1..].trim().to_owned(),
                });
                break;
            }
        }
    }
    Some(found)
}

/// Something else in place of the rest of a line: a comment may say anything.
fn says_the_same_without(name: &str, lines: &[&str], at: usize, place: usize, file: &File) -> bool {
    let changed = format!("{}# {at}", &lines[at][..place]);
    let mut text = String::new();
    for (index, line) in lines.iter().enumerate() {
        text.push_str(if index == at { &changed } else { line });
        text.push('\n');
    }
    let (nodes, problems) = yaml::parse(name, &text);
    let documents: Vec<Tree> = nodes.iter().map(Tree::of).collect();
    let other = File {
        documents,
        ..File::default()
    };
    !problems.iter().any(yaml::Problem::is_error) && file.says_the_same(&other)
}

// === writing ===

fn indent(depth: usize, out: &mut String) {
    out.push_str(&"  ".repeat(depth));
}

fn above(comments: &[String], depth: usize, out: &mut String) {
    for comment in comments {
        indent(depth, out);
        out.push_str(format!("# {comment}").trim_end());
        out.push('\n');
    }
}

fn end(said: &Said, out: &mut String) {
    if let Some(comment) = &said.beside {
        out.push_str(format!("  # {comment}").trim_end());
    }
    out.push('\n');
}

fn map(entries: &[(String, Tree)], depth: usize, out: &mut String) {
    for (at, (key, tree)) in entries.iter().enumerate() {
        entry(key, tree, depth, at > 0, out);
    }
}

/// `indented`: false for the first entry of an item, which stands behind its dash.
fn entry(key: &str, tree: &Tree, depth: usize, indented: bool, out: &mut String) {
    if indented {
        above(&tree.said.above, depth, out);
        indent(depth, out);
    }
    out.push_str(&scalar(key, is_text(key)));
    out.push(':');
    match &tree.value {
        Value::Map(entries) if !entries.is_empty() => {
            end(&tree.said, out);
            map_below(entries, depth + 1, out);
        }
        Value::List(items) if !fits(items, key.len() + depth * 2) => {
            end(&tree.said, out);
            list(items, depth + 1, out);
        }
        Value::Scalar { text, .. } if is_block(text) => {
            out.push_str(block_head(text));
            end(&tree.said, out);
            block(text, depth + 1, out);
        }
        value => {
            let text = inline(value);
            if !text.is_empty() {
                out.push(' ');
                out.push_str(&text);
            }
            end(&tree.said, out);
        }
    }
}

fn map_below(entries: &[(String, Tree)], depth: usize, out: &mut String) {
    for (key, tree) in entries {
        entry(key, tree, depth, true, out);
    }
}

fn list(items: &[Tree], depth: usize, out: &mut String) {
    for item in items {
        above(&item.said.above, depth, out);
        if let Value::Map(entries) = &item.value
            && let Some((_, first)) = entries.first()
        {
            // What is said of the first key stands above the dash.
            above(&first.said.above, depth, out);
        }
        indent(depth, out);
        out.push_str("- ");
        match &item.value {
            Value::Map(entries) if !entries.is_empty() => map(entries, depth + 1, out),
            Value::List(inner) if !fits(inner, depth * 2) => {
                out.truncate(out.trim_end().len());
                end(&item.said, out);
                list(inner, depth + 1, out);
            }
            Value::Scalar { text, .. } if is_block(text) => {
                out.truncate(out.trim_end().len());
                out.push_str(block_head(text));
                end(&item.said, out);
                block(text, depth + 1, out);
            }
            value => {
                out.push_str(&inline(value));
                end(&item.said, out);
            }
        }
    }
}

/// Short scalars without comments: in one line.
fn fits(items: &[Tree], before: usize) -> bool {
    items
        .iter()
        .all(|item| item.is_scalar() && item.is_silent())
        && before + items.iter().map(|item| flow(item).len() + 2).sum::<usize>() <= WIDTH
}

fn inline(value: &Value) -> String {
    match value {
        Value::Scalar { text, plain } => scalar(text, *plain),
        Value::List(items) => {
            let items: Vec<String> = items.iter().map(flow).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Map(_) => "{}".to_owned(),
    }
}

/// A scalar between brackets, where more characters mean something.
fn flow(item: &Tree) -> String {
    match &item.value {
        Value::Scalar { text, plain } if *plain && text.contains([',', '[', ']', '{', '}']) => {
            quoted(text)
        }
        Value::Scalar { text, .. } if text.is_empty() || text.contains('\n') => quoted(text),
        Value::Scalar { text, plain } => scalar(text, *plain),
        _ => String::new(),
    }
}

/// As it was when it was plain; else as plain as its text allows.
fn scalar(text: &str, plain: bool) -> String {
    if (plain && !text.contains('\n')) || is_text(text) {
        text.to_owned()
    } else {
        quoted(text)
    }
}

/// JSON's strings are YAML's double-quoted ones.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Whether YAML reads this, without quotes and between brackets, as this very text.
fn is_text(text: &str) -> bool {
    let word = |c: char| c.is_alphanumeric() || "_-./ ()=+@;*?^~'".contains(c);
    let reserved = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    text.starts_with(|c: char| c.is_alphabetic() || c == '/')
        && text.chars().all(word)
        && !text.ends_with(' ')
        && !reserved.contains(&text.to_ascii_lowercase().as_str())
}

/// Text of several lines that a literal block can hold.
fn is_block(text: &str) -> bool {
    let lines = || text.lines();
    text.contains('\n')
        && !text.starts_with(['\n', ' '])
        && lines().all(|line| line == line.trim_end())
        && !text.chars().any(|c| c.is_control() && c != '\n')
}

/// `|` keeps one closing line feed, `|-` none, `|+` all.
fn block_head(text: &str) -> &'static str {
    match text.len() - text.trim_end_matches('\n').len() {
        0 => " |-",
        1 => " |",
        _ => " |+",
    }
}

fn block(text: &str, depth: usize, out: &mut String) {
    for line in text.lines() {
        if !line.is_empty() {
            indent(depth, out);
        }
        out.push_str(line);
        out.push('\n');
    }
}
