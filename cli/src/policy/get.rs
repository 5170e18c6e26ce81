//! `cresset policy get`: the policies in force at the relay.

use std::collections::HashSet;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use proto::policies::Document;
use proto::query::StatusRequest;
use proto::visible::text as visible;
use serde_json::Value;

use super::fmt::formatted;
use super::loaded::now;
use super::{remote, words};
use crate::connect::{Relay, RelayArgs, Trouble, say};

/// Show the policies in force
#[derive(Args)]
pub(crate) struct GetArgs {
    /// Only the policy of this name
    name: Option<String>,

    /// Only those of this namespace
    #[arg(
        short,
        long,
        value_name = "NAMESPACE",
        default_value = "",
        hide_default_value = true
    )]
    namespace: String,

    /// How they are shown
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,

    #[command(flatten)]
    relay: RelayArgs,

    /// Ask the relay whose data folder this is, through DIR/admin.sock
    #[arg(long, value_name = "DIR", conflicts_with = "relay")]
    data: Option<std::path::PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A line each
    Table,
    /// A line each, with its file and what is not enforced
    Wide,
    /// As files that can be applied
    Yaml,
    /// One JSON list
    Json,
}

/// Runs `cresset policy get`; exits 1 when a name was given and is not there.
///
/// # Errors
/// A relay that cannot be reached; an output that cannot be written.
pub(super) async fn run(args: &GetArgs) -> Result<ExitCode, Trouble> {
    let relay = remote::reading(&args.relay, args.data.as_deref()).await?;
    let name = args.name.as_deref().unwrap_or_default();
    let documents = remote::documents(&relay, &args.namespace, name).await?;
    if documents.is_empty() && args.name.is_some() {
        return Err(Trouble::Local(format!("no policy {name} is in force")));
    }
    let trial = match args.output {
        Format::Table | Format::Wide => on_trial(&relay).await?,
        Format::Yaml | Format::Json => HashSet::new(),
    };
    say(&match args.output {
        Format::Table => table(&documents, &trial, false),
        Format::Wide => table(&documents, &trial, true),
        Format::Yaml => yaml(&documents)?,
        Format::Json => format!(
            "{:#}\n",
            Value::Array(documents.iter().map(object).collect())
        ),
    })?;
    Ok(ExitCode::SUCCESS)
}

/// The policies, `namespace/name`, that only canaries have, and in mode audit.
async fn on_trial(relay: &Relay) -> Result<HashSet<String>, Trouble> {
    let reply = relay.query().status(StatusRequest {}).await;
    let reply = reply.map_err(|status| relay.trouble(status))?.into_inner();
    let rollout = reply.policies.and_then(|policies| policies.rollout);
    Ok(rollout
        .into_iter()
        .flat_map(|rollout| rollout.policies)
        .collect())
}

/// Whether a policy that the relay has is in force.
fn state(document: &Document, trial: &HashSet<String>) -> String {
    let title = match document.namespace.as_str() {
        "" => document.name.clone(),
        namespace => format!("{namespace}/{}", document.name),
    };
    let end = i64::try_from(document.expires_unix).unwrap_or(i64::MAX);
    match end {
        1.. if end <= now().0 => format!("ended {}", words::time(end)),
        _ if trial.contains(&title) => "on trial".to_owned(),
        _ => "in force".to_owned(),
    }
}

fn object(document: &Document) -> Value {
    serde_json::from_slice(&document.json).unwrap_or_default()
}

fn yaml(documents: &[Document]) -> Result<String, Trouble> {
    let mut texts = Vec::new();
    for document in documents {
        let json = String::from_utf8_lossy(&document.json);
        texts.push(formatted(&document.name, &json).map_err(Trouble::Local)?);
    }
    Ok(texts.join("---\n"))
}

fn table(documents: &[Document], trial: &HashSet<String>, wide: bool) -> String {
    let mut head = vec!["NAMESPACE", "NAME", "KIND", "RULES", "STATE"];
    if wide {
        head.extend(["NOT ENFORCED", "FROM"]);
    }
    let mut rows: Vec<Vec<String>> = vec![head.into_iter().map(str::to_owned).collect()];
    for document in documents {
        let mut row = vec![
            document.namespace.clone(),
            document.name.clone(),
            document.kind.clone(),
            document.rules.to_string(),
            state(document, trial),
        ];
        if wide {
            row.push(document.not_enforced.len().to_string());
            row.push(format!("{}:{}", document.file, document.line));
        }
        rows.push(row.iter().map(|cell| visible(cell)).collect());
    }
    columns(&rows)
}

/// Rows with columns as wide as their widest cell.
pub(super) fn columns(rows: &[Vec<String>]) -> String {
    let count = rows.first().map_or(0, Vec::len);
    let width = |at: usize| {
        let cells = rows.iter().filter_map(|row| row.get(at));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..count).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths);
        let cells: Vec<String> = cells
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}
