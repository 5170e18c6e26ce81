//! `cargo xtask generate`: files in the repository that follow from tables in the code.
//!
//! A file is made where its table is: by a test of that crate, which writes the files when [`WRITE`] is set and holds them to
//! the table otherwise. So the suite holds them at no further cost, and this command needs no crate but the one it asks.

use anyhow::Result;

use crate::workspace;

/// Tells the tests to write.
const WRITE: &str = "CRESSET_GENERATE";

/// Crates whose test `generated` makes files.
const CRATES: [&str; 3] = ["exporters", "policy", "relay"];

/// Whether to write.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Change nothing; fail where a file is not what the code says
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    for name in CRATES {
        let mut cargo = workspace::cargo();
        cargo.args(["test", "--quiet", "--package", name, "--test", "generated"]);
        match args.check {
            true => cargo.env_remove(WRITE),
            false => cargo.env(WRITE, "1"),
        };
        workspace::check(&mut cargo)?;
    }
    Ok(())
}
