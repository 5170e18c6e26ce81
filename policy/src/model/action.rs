//! How an action is written.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::{Serialize, Serializer};

use crate::rule::Action;

const ACTIONS: &[&str] = &["Allow", "Audit", "Block"];

/// Any case is read: files from the field have `audit` and `BLOCK`, too.
impl<'de> Deserialize<'de> for Action {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Action, D::Error> {
        struct Word;
        impl Visitor<'_> for Word {
            type Value = Action;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`Allow`, `Audit` or `Block`")
            }
            fn visit_str<E: de::Error>(self, word: &str) -> Result<Action, E> {
                match word.to_ascii_lowercase().as_str() {
                    "allow" => Ok(Action::Allow),
                    "audit" => Ok(Action::Audit),
                    "block" => Ok(Action::Block),
                    _ => Err(E::unknown_variant(word, ACTIONS)),
                }
            }
        }
        from.deserialize_str(Word)
    }
}

impl Serialize for Action {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(match self {
            Action::Allow => "Allow",
            Action::Audit => "Audit",
            Action::Block => "Block",
        })
    }
}

impl JsonSchema for Action {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Action".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "enum": ACTIONS})
    }
}
