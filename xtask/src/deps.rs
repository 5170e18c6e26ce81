//! `cargo xtask deps`: a crate may use only the crates that its row names. A way back is impossible then, so data
//! flows one way.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail};
use cargo_metadata::{DependencyKind, MetadataCommand};

/// Crate → the crates of this workspace that it may depend on (tests excepted).
const TABLE: &[(&str, &[&str])] = &[
    ("proto", &[]),
    ("yaml", &[]),
    ("journal", &[]),
    ("policy", &["proto", "yaml"]),
    ("exporters", &["proto", "yaml"]),
    ("sensor-bpf", &["proto", "yaml", "journal", "policy"]),
    (
        "relay",
        &["proto", "yaml", "journal", "policy", "exporters"],
    ),
    (
        "cli",
        &[
            "proto",
            "yaml",
            "journal",
            "policy",
            "exporters",
            "sensor-bpf",
            "relay",
        ],
    ),
    ("fuzz", &["proto", "journal", "policy", "relay"]),
    (
        "xtask",
        &[
            "proto",
            "yaml",
            "journal",
            "policy",
            "exporters",
            "sensor-bpf",
            "relay",
            "cli",
        ],
    ),
];

pub(crate) fn run() -> Result<()> {
    let metadata = MetadataCommand::new()
        .current_dir(crate::workspace::root())
        .no_deps()
        .exec()?;
    let table: BTreeMap<&str, BTreeSet<&str>> = TABLE
        .iter()
        .map(|(name, may)| (*name, may.iter().copied().collect()))
        .collect();
    let mut problems = Vec::new();
    for package in metadata.workspace_packages() {
        let name = package.name.as_str();
        let Some(may) = table.get(name) else {
            problems.push(format!(
                "{name}: has no row in the table of xtask/src/deps.rs"
            ));
            continue;
        };
        for dependency in &package.dependencies {
            let used = dependency.name.as_str();
            let ours = table.contains_key(used) && dependency.path.is_some();
            if ours && dependency.kind != DependencyKind::Development && !may.contains(used) {
                problems.push(format!("{name}: may not depend on {used}"));
            }
        }
    }
    if problems.is_empty() {
        println!("deps: {} crates keep to the table", table.len());
        return Ok(());
    }
    for problem in &problems {
        eprintln!("{problem}");
    }
    bail!("{} dependency problems", problems.len());
}
