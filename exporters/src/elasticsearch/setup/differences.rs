//! What a server holds against what it should hold.
//!
//! A server writes back what it was given in a form of its own: more keys, numbers as text. So only what is wanted is looked at,
//! value by value; what somebody has added is theirs.

use serde_json::Value;

/// What of `want` is not so in `have`, each with its path.
pub(super) fn differences(want: &Value, have: &Value, path: &str, found: &mut Vec<String>) {
    match (want, have) {
        (Value::Object(want), Value::Object(have)) => {
            for (key, value) in want {
                let path = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                match have.get(key) {
                    Some(have) => differences(value, have, &path, found),
                    // The server leaves out what is empty.
                    None if is_empty(value) => {}
                    None => found.push(format!("{path} is missing")),
                }
            }
        }
        (Value::Array(want), Value::Array(have)) if want.len() == have.len() => {
            for (at, (want, have)) in want.iter().zip(have).enumerate() {
                differences(want, have, &format!("{path}[{at}]"), found);
            }
        }
        (want, have) if plain(want) == plain(have) => {}
        (want, have) => found.push(format!(
            "{path} is {}, should be {}",
            plain(have),
            plain(want)
        )),
    }
}

fn is_empty(value: &Value) -> bool {
    value.as_object().is_some_and(serde_json::Map::is_empty)
}

/// Numbers and truth values come back as text at times.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => proto::visible::text(text),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(want: Value, have: Value) -> Vec<String> {
        let mut found = Vec::new();
        differences(&want, &have, "", &mut found);
        found
    }

    #[test]
    fn what_the_server_writes_in_its_own_way_is_the_same() {
        let want = json!({ "a": { "n": 1, "b": true, "empty": {} }, "list": ["x"] });
        let have =
            json!({ "a": { "n": "1", "b": "true", "more": 2 }, "list": ["x"], "version": 3 });
        assert_eq!(found(want, have), [""; 0]);
    }

    #[test]
    fn what_differs_is_told_with_its_path_and_both_values() {
        let want = json!({ "m": { "ignore_above": 8191, "type": "keyword" }, "list": [{ "a": 1 }], "p": ["x", "y"] });
        let have = json!({ "m": { "ignore_above": 256 }, "list": [{ "a": 2 }], "p": ["x"] });
        assert_eq!(
            found(want, have),
            [
                "m.ignore_above is 256, should be 8191",
                "m.type is missing",
                "list[0].a is 2, should be 1",
                "p is [\"x\"], should be [\"x\",\"y\"]",
            ]
        );
    }
}
