//! `cresset config`: the one configuration file, checked, shown whole, and explained.
//!
//! Relay and sensor read their own sections of it; here both read it, so that every problem is found in one pass.

mod reload;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::connect::{Trouble, say};
use clap::{Args, Subcommand};
use serde_json::{Map, Value};
use yaml::{Node, Problem};

/// The configuration file.
#[derive(Args)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Find every problem of a file, with its line; exits 1 when there is one
    Check {
        /// The file
        file: PathBuf,
        /// Do not look whether the files and variables are there that it names: they are on another machine
        #[arg(long)]
        no_files: bool,
    },
    /// Print the whole configuration: the file, the environment over it, and every default
    Show {
        /// The file; without it, the defaults
        file: Option<PathBuf>,
    },
    /// Have the running relay take up its file again; what did not change runs on, and a broken file changes nothing
    #[command(
        after_help = "Exits with 0 when it is done, 1 when the file is refused and nothing was changed, 3 when no relay answers."
    )]
    Reload(reload::ReloadArgs),
    /// Print the JSON schema: every key, its meaning and its default
    Schema,
}

/// What one file says to both programs.
pub(crate) struct Both {
    pub(crate) relay: relay::Config,
    pub(crate) sensor: sensor_bpf::Config,
    pub(crate) warnings: Vec<Problem>,
}

/// Reads a file (none: the defaults) and the environment over it.
///
/// # Errors
/// Every problem, in the order of the lines.
pub(crate) fn load(file: Option<&Path>) -> Result<Both, Vec<Problem>> {
    read(file, |_, _, _| {})
}

/// The same, and the files have to be there that the relay's settings name.
///
/// # Errors
/// As [`load`].
pub(crate) fn load_with_files(file: Option<&Path>) -> Result<Both, Vec<Problem>> {
    read(file, relay::Config::look)
}

fn read(
    file: Option<&Path>,
    look: impl FnOnce(&relay::Config, &Node, &mut Vec<Problem>),
) -> Result<Both, Vec<Problem>> {
    let environment: Vec<(String, String)> = std::env::vars().collect();
    let (node, mut problems) = yaml::settings(file, &environment);
    let relay = relay::Config::read(&node, &environment, &mut problems);
    if let Some(relay) = &relay {
        look(relay, &node, &mut problems);
    }
    let sensor = sensor_bpf::Config::read(&node, &mut problems);
    let problems = ordered(problems);
    match (relay, sensor) {
        (Some(relay), Some(sensor)) if !problems.iter().any(Problem::is_error) => Ok(Both {
            relay,
            sensor,
            warnings: problems,
        }),
        _ => Err(problems),
    }
}

/// By place; a problem of a key that both programs read is told once.
fn ordered(mut problems: Vec<Problem>) -> Vec<Problem> {
    problems.sort_by_key(|problem| (problem.line, problem.column));
    let mut seen = BTreeSet::new();
    problems.retain(|problem| seen.insert((problem.line, problem.path.clone())));
    problems
}

/// Runs `cresset config …`.
///
/// # Errors
/// The output cannot be written.
pub(crate) async fn config(args: ConfigArgs) -> Result<ExitCode, Trouble> {
    match args.command {
        Command::Check { file, no_files } => check(&file, no_files),
        Command::Show { file } => show(file.as_deref()),
        Command::Reload(args) => reload::reload(&args).await,
        Command::Schema => schema(),
    }
}

fn check(file: &Path, no_files: bool) -> Result<ExitCode, Trouble> {
    let loaded = match no_files {
        true => load(Some(file)),
        false => load_with_files(Some(file)),
    };
    let problems = loaded.map_or_else(|problems| problems, |both| both.warnings);
    let mut text: String = problems.iter().map(|told| format!("{told}\n")).collect();
    let broken = problems.iter().any(Problem::is_error);
    if !broken {
        text.push_str(&format!("{}: no problem\n", file.display()));
    }
    say(&text)?;
    Ok(if broken {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn show(file: Option<&Path>) -> Result<ExitCode, Trouble> {
    let both = match load(file) {
        Ok(both) => both,
        Err(problems) => {
            problems.iter().for_each(|problem| eprintln!("{problem}"));
            return Ok(ExitCode::FAILURE);
        }
    };
    let whole = serde_json::to_value(&both.relay).and_then(|mut whole| {
        whole["sensor"] = serde_json::to_value(&both.sensor.sensor)?;
        Ok(whole)
    });
    let mut text = String::new();
    emit(&whole.map_err(unwritable)?, 0, &mut text);
    say(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn unwritable(error: serde_json::Error) -> Trouble {
    Trouble::Local(format!("the settings cannot be written out: {error}"))
}

/// Block YAML of a tree of JSON: maps and lists of maps one below the other, lists of scalars in one line.
fn emit(value: &Value, depth: usize, out: &mut String) {
    let Value::Object(map) = value else {
        out.push_str(&inline(value));
        out.push('\n');
        return;
    };
    for (key, value) in map {
        out.push_str(&"  ".repeat(depth));
        out.push_str(&inline(&Value::String(key.clone())));
        out.push(':');
        match value {
            Value::Object(inner) if !inner.is_empty() => {
                out.push('\n');
                emit(value, depth + 1, out);
            }
            other => {
                out.push(' ');
                out.push_str(&inline(other));
                out.push('\n');
            }
        }
    }
}

/// Flow YAML in one line.
fn inline(value: &Value) -> String {
    match value {
        Value::String(text) if is_plain(text) => text.clone(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(inline).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(map) => {
            let pairs: Vec<String> = map
                .iter()
                .map(|(k, v)| format!("{}: {}", inline(&Value::String(k.clone())), inline(v)))
                .collect();
            format!("{{{}}}", pairs.join(", "))
        }
        other => other.to_string(),
    }
}

/// Whether YAML reads the text as the same text without quotes.
fn is_plain(text: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
    let reserved = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && text.chars().all(word)
        && !reserved.contains(&text.to_ascii_lowercase().as_str())
}

fn schema() -> Result<ExitCode, Trouble> {
    let mut whole = relay::schema().to_value();
    let sensor = schemars::schema_for!(sensor_bpf::Config).to_value();
    merge(&mut whole, &sensor, "$defs");
    merge(&mut whole, &sensor, "properties");
    let text = serde_json::to_string_pretty(&whole).map_err(unwritable)?;
    say(&(text + "\n"))?;
    Ok(ExitCode::SUCCESS)
}

/// Adds to a section of one schema what another has and it has not.
fn merge(whole: &mut Value, part: &Value, section: &str) {
    let Some(part) = part[section].as_object() else {
        return;
    };
    let Some(whole) = whole.as_object_mut() else {
        return;
    };
    let section = whole
        .entry(section)
        .or_insert_with(|| Value::Object(Map::new()));
    let Some(section) = section.as_object_mut() else {
        return;
    };
    for (key, value) in part {
        section.entry(key.clone()).or_insert_with(|| value.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_reads_back_as_the_same() {
        let both = load(None).unwrap();
        let whole = serde_json::to_value(&both.relay).unwrap();
        let mut text = String::new();
        emit(&whole, 0, &mut text);
        let (documents, problems) = yaml::parse("shown", &text);
        assert!(problems.is_empty(), "{problems:?}\n{text}");
        let mut problems = Vec::new();
        let again = relay::Config::read(&documents[0], &[], &mut problems);
        assert_eq!(problems, [], "{text}");
        assert_eq!(again.unwrap(), both.relay);
    }

    #[test]
    fn words_that_yaml_would_read_as_something_else_are_quoted() {
        let shown = |text: &str| inline(&Value::String(text.to_owned()));
        assert_eq!(shown("no"), "\"no\"");
        assert_eq!(shown("7d"), "\"7d\"");
        assert_eq!(shown("a: b"), "\"a: b\"");
        assert_eq!(shown("/var/lib/cresset"), "/var/lib/cresset");
    }

    #[test]
    fn the_schema_has_the_sections_of_both_programs() {
        let mut whole = relay::schema().to_value();
        merge(
            &mut whole,
            &schemars::schema_for!(sensor_bpf::Config).to_value(),
            "properties",
        );
        for section in ["relay", "sinks", "policies", "sensor", "cluster", "version"] {
            assert!(whole["properties"].get(section).is_some(), "{section}");
        }
    }
}
