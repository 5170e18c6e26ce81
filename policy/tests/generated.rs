//! The custom resource definitions in `deploy/crd` are those of the types; `cargo xtask generate` writes them.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests: a failure here is the test's"
)]

use std::path::Path;

use policy::{Kind, crd, crd_file};
use serde_json::Value;

#[test]
fn the_resource_definitions_are_those_of_the_types() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/crd");
    let write = std::env::var_os("CRESSET_GENERATE").is_some();
    for kind in Kind::ALL {
        let path = folder.join(crd_file(kind));
        let text = format!(
            "# Made by `cargo xtask generate` from policy/src/model.rs; do not edit.\n{}",
            yaml(&crd(kind))
        );
        if write {
            std::fs::write(&path, &text).unwrap();
        }
        let there = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            there == text,
            "{} is not what the types say; run `cargo xtask generate`",
            path.display()
        );
    }
}

/// A value as YAML in block style, without a closing empty line.
fn yaml(value: &Value) -> String {
    let mut out = String::new();
    block(value, 0, &mut out);
    out
}

fn block(value: &Value, depth: usize, out: &mut String) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                out.push_str(&format!("{indent}{}:", word(key)));
                after(value, depth, out);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                let mut inner = String::new();
                block(item, depth + 1, &mut inner);
                // The first line of the item stands behind the dash.
                out.push_str(&format!("{indent}- {}", inner.trim_start_matches(' ')));
            }
        }
        _ => out.push_str(&format!("{indent}{}\n", scalar(value))),
    }
}

fn after(value: &Value, depth: usize, out: &mut String) {
    let nested = match value {
        Value::Object(map) => !map.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    };
    if nested {
        out.push('\n');
        block(value, depth + 1, out);
    } else {
        out.push_str(&format!(" {}\n", scalar(value)));
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => word(text),
        other => other.to_string(),
    }
}

/// Plain where that is safe, else in JSON's quotes, which are YAML's.
fn word(text: &str) -> String {
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/'))
        && !["true", "false", "null", "yes", "no", "on", "off", "y", "n"]
            .contains(&text.to_ascii_lowercase().as_str());
    if plain {
        text.to_owned()
    } else {
        Value::from(text).to_string()
    }
}
