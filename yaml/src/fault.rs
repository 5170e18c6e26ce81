//! Why a node did not read: serde's error, kept in parts so that it can be placed, mended and said well.

use std::fmt;

use serde::de::{self, Expected, Unexpected};

use crate::nearest::nearest;
use crate::node::Node;

/// An error of one attempt to read. `site` is the node at fault, once known.
#[derive(Debug)]
pub(crate) struct Fault<'t> {
    pub(crate) kind: Kind,
    pub(crate) site: Option<&'t Node>,
    /// Where the key stands, when the key and not its value is at fault.
    pub(crate) key: Option<(u32, u32)>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kind {
    UnknownField {
        field: String,
        allowed: &'static [&'static str],
    },
    UnknownVariant {
        found: String,
        allowed: &'static [&'static str],
    },
    Missing {
        field: &'static str,
    },
    MissingTag {
        allowed: &'static [&'static str],
    },
    Type {
        found: String,
        expected: String,
    },
    Other(String),
}

impl<'t> Fault<'t> {
    pub(crate) fn new(kind: Kind) -> Fault<'t> {
        Fault {
            kind,
            site: None,
            key: None,
        }
    }

    /// Places the fault at `node` unless something deeper has claimed it.
    pub(crate) fn at(mut self, node: &'t Node) -> Fault<'t> {
        self.site.get_or_insert(node);
        self
    }

    pub(crate) fn at_key(mut self, value: &'t Node, key: (u32, u32)) -> Fault<'t> {
        if self.site.is_none() {
            (self.site, self.key) = (Some(value), Some(key));
        }
        self
    }

    /// What is wrong and what to do, for the node at fault.
    pub(crate) fn message(&self, node: &Node) -> String {
        match &self.kind {
            Kind::UnknownField { field, allowed } => unknown("field", field, allowed),
            Kind::UnknownVariant { found, allowed } => unknown("value", found, allowed),
            Kind::Missing { field } => match node.key(field) {
                Some(value) if value.is_null() => format!("`{field}` has no value; give it one"),
                _ => format!("`{field}` is missing; add it"),
            },
            Kind::MissingTag { allowed } => {
                format!("`type` is missing; add one of {}", list(allowed))
            }
            Kind::Type { found, expected } => {
                format!("expected {expected}, found {found}{}", hint(node, expected))
            }
            Kind::Other(message) => message.clone(),
        }
    }
}

fn unknown(what: &str, found: &str, allowed: &[&str]) -> String {
    match nearest(found, allowed.iter().copied()) {
        Some(near) if what == "field" => {
            format!("unknown {what} `{found}`; did you mean `{near}`?")
        }
        Some(near) => format!(
            "unknown {what} `{found}`; did you mean `{near}`? (allowed: {})",
            list(allowed)
        ),
        None if allowed.is_empty() => {
            format!("unknown {what} `{found}`; nothing may stand here, remove it")
        }
        None => format!("unknown {what} `{found}`; allowed here: {}", list(allowed)),
    }
}

fn list(words: &[&str]) -> String {
    words
        .iter()
        .map(|word| format!("`{word}`"))
        .collect::<Vec<_>>()
        .join(", ")
}

fn hint(node: &Node, expected: &str) -> &'static str {
    let quoted = matches!(&node.value, crate::node::Value::Scalar { plain: false, .. });
    let wanted = expected.contains("number") || expected.starts_with("true");
    let text = node.as_str().unwrap_or_default();
    let typed = text.parse::<f64>().is_ok() || crate::scalar::boolean(text).is_some();
    if quoted && wanted && typed {
        "; remove the quotes"
    } else {
        ""
    }
}

impl de::Error for Fault<'_> {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Fault::new(Kind::Other(message.to_string()))
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Fault::new(Kind::Type {
            found: describe(&found),
            expected: plainly(&expected.to_string()),
        })
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        de::Error::invalid_type(found, expected)
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Fault::new(Kind::UnknownVariant {
            found: variant.to_owned(),
            allowed: expected,
        })
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Fault::new(Kind::UnknownField {
            field: field.to_owned(),
            allowed: expected,
        })
    }

    fn missing_field(field: &'static str) -> Self {
        Fault::new(Kind::Missing { field })
    }
}

impl fmt::Display for Fault<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.site {
            Some(node) => f.write_str(&self.message(node)),
            None => write!(f, "{:?}", self.kind),
        }
    }
}

impl std::error::Error for Fault<'_> {}

fn describe(found: &Unexpected<'_>) -> String {
    match found {
        Unexpected::Bool(value) => format!("`{value}`"),
        Unexpected::Unsigned(value) => format!("the number {value}"),
        Unexpected::Signed(value) => format!("the number {value}"),
        Unexpected::Float(value) => format!("the number {value}"),
        Unexpected::Char(value) => format!("the text `{value}`"),
        Unexpected::Str(value) => format!("the text `{}`", shorten(value)),
        Unexpected::Unit | Unexpected::Option => "nothing".to_owned(),
        Unexpected::Seq => "a list".to_owned(),
        Unexpected::Map => "a mapping".to_owned(),
        other => other.to_string(),
    }
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Serde's words for what it wanted, in words for people.
fn plainly(expected: &str) -> String {
    let words = match expected {
        "a string" | "str" | "string" => "text",
        "a boolean" => "true or false",
        "a sequence" => "a list",
        "a map" => "a mapping (`key: value`)",
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" | "u64" | "usize" => "a whole number, 0 or more",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        "unit" => "nothing",
        _ if expected.starts_with("struct ") => "a mapping (`key: value`)",
        _ => expected,
    };
    words.to_owned()
}
