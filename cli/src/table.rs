//! Columns as wide as their widest cell. Control characters are shown: what stands in a table comes from other machines.

use proto::visible::text as visible;

/// The table with its head; every row has as many cells as the head.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let head: Vec<String> = head.iter().map(|cell| (*cell).to_owned()).collect();
    let mut lines = vec![head];
    let shown = |row: &Vec<String>| row.iter().map(|cell| visible(cell)).collect();
    lines.extend(rows.iter().map(shown));
    let widths = widths(&lines);
    lines.iter().map(|line| padded(line, &widths)).collect()
}

fn widths(lines: &[Vec<String>]) -> Vec<usize> {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |at: usize| {
        let cells = lines.iter().filter_map(|line| line.get(at));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    (0..columns).map(width).collect()
}

fn padded(line: &[String], widths: &[usize]) -> String {
    let cells: Vec<String> = line
        .iter()
        .zip(widths)
        .map(|(cell, width)| format!("{cell:<width$}"))
        .collect();
    format!("{}\n", cells.join("  ").trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_no_line_ends_with_spaces() {
        let rows = [
            vec!["a".to_owned(), "x\ny".to_owned()],
            vec!["long".to_owned(), String::new()],
        ];
        assert_eq!(table(&["N", "W"], &rows), "N     W\na     x\\ny\nlong\n");
    }
}
