//! `cargo xtask soak`: the tests that get better the longer they run, with numbers of one's own.
//!
//! It is the same code that `make test` runs with small numbers; what is found is found again with the seed that is printed.
//! The programs under test are copied first, so that building goes on beside it.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::workspace;

/// What to run, and how long.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Kill the relay so many times at random moments, and hold what is there against what was acknowledged
    #[arg(long, value_name = "N")]
    kills: Option<u64>,
    /// So many random histories of the journal on a simulated disk that forgets, tears and fails
    #[arg(long, value_name = "N")]
    histories: Option<u64>,
    /// For so many seconds: readers that come and go by the hundred a second, a thousand that wait, some that stop reading
    #[arg(long, value_name = "SECONDS")]
    churn: Option<u64>,
    /// Send so many events beside a hung, a dead and a slow sink, and show what that costs the others
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "800000")]
    isolation: Option<u64>,
    /// Begin with this seed
    #[arg(long, value_name = "SEED")]
    seed: Option<u64>,
    /// Build with this profile [default: dev; --churn, --isolation: release]
    #[arg(long, value_name = "PROFILE")]
    profile: Option<String>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let runs = [
        ("kills", args.kills, "cli", "CRESSET_KILLS", "dev"),
        (
            "histories",
            args.histories,
            "journal",
            "CRESSET_HISTORIES",
            "dev",
        ),
        ("churn", args.churn, "cli", "CRESSET_CHURN", "release"),
        (
            "isolation",
            args.isolation,
            "cli",
            "CRESSET_ISOLATION",
            "release",
        ),
    ];
    let mut any = false;
    for (test, count, package, variable, usual) in runs {
        let Some(count) = count else { continue };
        any = true;
        let profile = args.profile.as_deref().unwrap_or(usual);
        let mut cargo = cargo(&["test", "-p", package, "--test", test], profile);
        cargo.args(["--", "--nocapture"]);
        cargo.env(variable, count.to_string());
        if let Some(seed) = args.seed {
            cargo.env("CRESSET_SEED", seed.to_string());
        }
        if package == "cli" {
            cargo.env("CRESSET_PROGRAMS", programs(test, profile)?);
        }
        workspace::check(&mut cargo)?;
    }
    if any {
        Ok(())
    } else {
        bail!("say what: --kills N, --histories N, --churn SECONDS or --isolation")
    }
}

fn cargo(args: &[&str], profile: &str) -> Command {
    let mut cargo = workspace::cargo();
    cargo.args(args).args(["--profile", profile]);
    cargo
}

/// Builds the programs and copies them to a folder of this run's own.
fn programs(run: &str, profile: &str) -> Result<PathBuf> {
    workspace::check(&mut cargo(
        &["build", "-p", "relay", "-p", "cli", "--bins"],
        profile,
    ))?;
    let built = workspace::target().join(if profile == "dev" { "debug" } else { profile });
    let own = workspace::target().join("soak").join(run);
    std::fs::create_dir_all(&own)?;
    for program in ["cresset", "cresset-relay"] {
        // One that runs cannot be overwritten, but replaced.
        let new = own.join(format!("{program}.new"));
        std::fs::copy(built.join(program), &new)
            .and_then(|_| std::fs::rename(&new, own.join(program)))
            .with_context(|| format!("cannot copy {program} to {}", own.display()))?;
    }
    Ok(own)
}
