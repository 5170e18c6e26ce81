//! `paced`: a steady rate, and how long acknowledgements take.

use anyhow::Result;

use super::ingest;
use crate::scene::Bench;
use crate::table::Row;

pub(crate) async fn run(bench: &Bench) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for thousands in [1, 10, 50, 100] {
        let what = format!("4 sensors, {thousands} k/s");
        if bench.wants(&what) {
            let load = bench.load(4, Some(f64::from(thousands) * 1000.0));
            rows.push(ingest::measure(bench, Row::new("paced", what), &load).await?);
        }
    }
    Ok(rows)
}
