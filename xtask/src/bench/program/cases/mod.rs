//! What is measured. One module a case; each gives the rows of its table.

mod backlog;
mod distribute;
mod feeds;
mod idle;
mod ingest;
mod overload;
mod paced;
mod sinks;

use anyhow::Result;

use super::args::Case;
use super::scene::Bench;
use super::table::Row;

/// Runs one case.
///
/// # Errors
/// It could not be measured. What was measured and found wrong is in the rows.
pub(crate) async fn run(case: Case, bench: &Bench) -> Result<Vec<Row>> {
    match case {
        Case::Ingest => ingest::run(bench).await,
        Case::Sinks => sinks::run(bench).await,
        Case::Feeds => feeds::run(bench).await,
        Case::Paced => paced::run(bench).await,
        Case::Overload => overload::run(bench).await,
        Case::Backlog => backlog::run(bench).await,
        Case::Idle => idle::run(bench).await,
        Case::Distribute => distribute::run(bench).await,
    }
}
