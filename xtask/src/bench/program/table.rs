//! What was measured, as a table for people and as JSON for programs.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

/// One line of a table.
#[derive(Clone)]
pub(crate) struct Row {
    case: &'static str,
    what: String,
    cells: Vec<Cell>,
    /// What was wrong; nothing: the run was right.
    problems: Vec<String>,
}

#[derive(Clone)]
struct Cell {
    name: String,
    value: f64,
    decimals: usize,
}

impl Row {
    pub(crate) fn new(case: &'static str, what: impl Into<String>) -> Self {
        Row {
            case,
            what: what.into(),
            cells: Vec::new(),
            problems: Vec::new(),
        }
    }

    /// A figure; NaN where there is none.
    pub(crate) fn put(&mut self, name: impl Into<String>, value: f64, decimals: usize) {
        self.cells.push(Cell {
            name: name.into(),
            value,
            decimals,
        });
    }

    /// Something that must hold.
    pub(crate) fn must(&mut self, holds: bool, else_: impl FnOnce() -> String) {
        if !holds {
            self.problems.push(else_());
        }
    }

    pub(crate) fn failed(&mut self, why: impl Into<String>) {
        self.problems.push(why.into());
    }

    pub(crate) fn is_right(&self) -> bool {
        self.problems.is_empty()
    }

    pub(crate) fn to_json(&self) -> Value {
        let cells = self.cells.iter().map(|cell| {
            let number = serde_json::Number::from_f64(cell.value);
            (cell.name.clone(), number.map_or(Value::Null, Value::Number))
        });
        json!({
            "case": self.case,
            "what": self.what,
            "figures": cells.collect::<Map<String, Value>>(),
            "right": self.is_right(),
            "problems": self.problems,
        })
    }
}

/// Rows with the same columns, one below the other, as a Markdown table; what was wrong below it.
pub(crate) fn render(rows: &[Row]) -> String {
    let mut out = String::new();
    let columns = |row: &Row| -> Vec<String> {
        let names = row.cells.iter().map(|cell| cell.name.clone());
        [row.case.to_owned()].into_iter().chain(names).collect()
    };
    for group in rows.chunk_by(|a, b| columns(a) == columns(b)) {
        let mut lines = vec![columns(&group[0])];
        lines.extend(group.iter().map(line));
        let width = |at: usize| {
            let cells = lines.iter().map(|line| line[at].chars().count());
            cells.max().unwrap_or_default()
        };
        let widths: Vec<usize> = (0..lines[0].len()).map(width).collect();
        for (at, line) in lines.iter().enumerate() {
            let cells = line.iter().zip(&widths).enumerate();
            let cells = cells.map(|(at, (cell, &width))| match at {
                0 => format!("{cell:<width$}"),
                _ => format!("{cell:>width$}"),
            });
            let _ = writeln!(out, "| {} |", cells.collect::<Vec<_>>().join(" | "));
            if at == 0 {
                let rules = widths.iter().enumerate().map(|(at, &width)| match at {
                    0 => format!(":{}", "-".repeat(width.saturating_sub(1))),
                    _ => format!("{}:", "-".repeat(width.saturating_sub(1))),
                });
                let _ = writeln!(out, "| {} |", rules.collect::<Vec<_>>().join(" | "));
            }
        }
        for row in group {
            for problem in &row.problems {
                let _ = writeln!(out, "FAILED {} {}: {problem}", row.case, row.what);
            }
        }
        out.push('\n');
    }
    out
}

fn line(row: &Row) -> Vec<String> {
    let what = match row.is_right() {
        true => row.what.clone(),
        false => format!("{} (FAILED)", row.what),
    };
    let cells = row
        .cells
        .iter()
        .map(|cell| number(cell.value, cell.decimals));
    [what].into_iter().chain(cells).collect()
}

/// With spaces between thousands: `1 234.5`; a dash for what there is not.
fn number(value: f64, decimals: usize) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    let text = format!("{value:.decimals$}");
    let (whole, rest) = match text.split_once('.') {
        Some((whole, fraction)) => (whole, format!(".{fraction}")),
        None => (text.as_str(), String::new()),
    };
    let digits: Vec<char> = whole.chars().collect();
    let groups: Vec<String> = digits
        .rchunks(3)
        .rev()
        .map(|group| group.iter().collect())
        .collect();
    groups.join(" ") + &rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_with_the_same_columns_share_a_table_and_problems_stand_below() {
        let mut one = Row::new("ingest", "one");
        one.put("events/s", 1_234_567.0, 0);
        let mut two = Row::new("ingest", "two");
        two.put("events/s", f64::NAN, 0);
        two.failed("acknowledged 5, journaled 4");
        let mut other = Row::new("idle", "alone");
        other.put("MiB", 12.34, 1);
        let wanted = "\
| ingest       |  events/s |
| :----------- | --------: |
| one          | 1 234 567 |
| two (FAILED) |         – |
FAILED ingest two: acknowledged 5, journaled 4

| idle  |  MiB |
| :---- | ---: |
| alone | 12.3 |

";
        assert_eq!(render(&[one, two, other]), wanted);
    }
}
