//! One settings file with the environment over it, as every program of the project reads it.

use std::path::Path;

use crate::{Node, Problem, parse};

/// What environment variables that stand for keys begin with: `CRESSET__A__B=value` is the key `a.b`.
const PREFIX: &str = "CRESSET__";

/// Reads a settings file (none: an empty one) and sets what the environment says over it. A file that cannot be read is
/// an error among the problems.
pub fn settings(file: Option<&Path>, environment: &[(String, String)]) -> (Node, Vec<Problem>) {
    let Some(path) = file else {
        return settings_text("settings", "", environment);
    };
    let name = path.display().to_string();
    match std::fs::read_to_string(path) {
        Ok(text) => settings_text(&name, &text, environment),
        Err(why) => {
            let message = format!("cannot read it: {why}; give the path of a configuration file");
            (
                Node::empty(&name),
                vec![Problem::whole_file(&name, message)],
            )
        }
    }
}

/// Like [`settings`], for the text of a file called `name`.
pub fn settings_text(
    name: &str,
    text: &str,
    environment: &[(String, String)],
) -> (Node, Vec<Problem>) {
    let (mut documents, mut problems) = parse(name, text);
    if documents.len() > 1 {
        problems.push(Problem::whole_file(
            name,
            "more than one document; keep the first",
        ));
    }
    let mut node = match documents.is_empty() {
        true => Node::empty(name),
        false => documents.swap_remove(0),
    };
    for (variable, value) in environment {
        let Some(path) = variable.strip_prefix(PREFIX) else {
            continue;
        };
        let path = path.to_lowercase();
        let keys: Vec<&str> = path.split("__").collect();
        if keys.iter().any(|key| key.is_empty()) {
            let message = format!("{variable} names no key; write {PREFIX}SECTION__KEY");
            problems.push(Problem::whole_file("environment", message));
        } else {
            node.set(&keys, value);
        }
    }
    (node, problems)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    #[test]
    fn the_environment_stands_over_the_file() {
        let over = environment(&[("CRESSET__A__B", "2"), ("PATH", "/bin")]);
        let (node, problems) = settings_text("f", "a: {b: 1, c: 3}", &over);
        assert!(problems.is_empty(), "{problems:?}");
        assert_eq!(node.get("a.b").and_then(Node::as_str), Some("2"));
        assert_eq!(node.get("a.c").and_then(Node::as_str), Some("3"));
    }

    #[test]
    fn a_variable_without_a_key_a_second_document_and_a_missing_file_are_told() {
        let (_, problems) =
            settings_text("f", "a: 1\n---\nb: 2", &environment(&[("CRESSET__", "1")]));
        let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert!(
            told.iter()
                .any(|line| line.contains("more than one document")),
            "{told:?}"
        );
        assert!(
            told.iter()
                .any(|line| line.contains("CRESSET__ names no key")),
            "{told:?}"
        );
        let (_, problems) = settings(Some(Path::new("/nowhere/cresset.yaml")), &[]);
        assert!(problems.iter().any(Problem::is_error), "{problems:?}");
    }
}
