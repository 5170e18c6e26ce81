//! The result of a simulation: a page, a comment for a pull request, JSON.

use std::fmt::Write;

use jiff::Timestamp;
use proto::visible::text as visible;
use serde_json::{Value, json};

use super::super::asked::Outcome;
use super::super::check::counted;
use super::recorded::Class;
use super::tally::{Count, Decided, OfWorkload, Outcomes, Row};

/// How much of a digest tells it from others at a glance.
const SHORT: usize = 12;
/// What is left out of force is in the result as it is written: the result says what the policies mean.
const NOT_ENFORCED: &str =
    "Decided above as written, and left out of force by this version's sensor";
/// Most often it is a link: `/bin/sleep` in a rule, `/usr/bin/sleep` on record.
const UNKNOWN: &str =
    "a rule looks at what is not on record; --root DIR says where links in paths lead";
/// Rows of one workload in a comment.
const MAX_ROWS: usize = 20;

fn word(decided: &Decided) -> String {
    match decided {
        Decided::Sure(Outcome::Block, ..) => "would be blocked".to_owned(),
        Decided::Sure(Outcome::WouldBlock, ..) => "would be told as a block".to_owned(),
        Decided::Sure(Outcome::Audit, ..) => "would be told".to_owned(),
        Decided::Sure(Outcome::Pass, ..) => "passes".to_owned(),
        Decided::Unknown => "unknown".to_owned(),
    }
}

fn short(decided: &Decided) -> String {
    match decided {
        Decided::Sure(outcome, by, _) if by.is_empty() => outcome.to_string(),
        Decided::Sure(outcome, by, _) => format!("{outcome} by {by}"),
        Decided::Unknown => "unknown".to_owned(),
    }
}

fn by(row: &Row) -> String {
    match &row.decided {
        Decided::Sure(_, by, _) if row.rule.is_empty() => by.clone(),
        Decided::Sure(_, by, _) => format!("{by}: {}", row.rule),
        Decided::Unknown => UNKNOWN.to_owned(),
    }
}

fn time(seconds: i64) -> String {
    let time = Timestamp::from_second(seconds).unwrap_or(Timestamp::UNIX_EPOCH);
    time.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

/// Rows worth telling: all but what passes in silence.
fn telling(workload: &OfWorkload) -> impl Iterator<Item = &(Row, Count)> {
    let rows = workload.rows.iter().rev(); // block first, after what is not known
    rows.filter(|(row, _)| !matches!(row.decided, Decided::Sure(Outcome::Pass, ..)))
}

fn passing(workload: &OfWorkload) -> u64 {
    workload.of(|decided| matches!(decided, Decided::Sure(Outcome::Pass, ..)))
}

fn head(result: &Outcomes) -> String {
    format!(
        "{} ({}) against {} in force ({}), on the record from {} to {}",
        counted(result.policies.1, "policy", "policies"),
        &result.policies.0[..SHORT],
        result.in_force.1,
        &result.in_force.0[..SHORT],
        time(result.period.from),
        time(result.period.to),
    )
}

fn coverage(result: &Outcomes) -> String {
    let (recorded, judged) = result.classes();
    if judged == 0 {
        return "coverage 0%: no rule is about anything of the record".to_owned();
    }
    if result.workloads.is_empty() {
        return format!("coverage 0%: nothing is on record of {judged} judged classes");
    }
    format!(
        "coverage {:.0}%: {:.0}% of the operations decided, {recorded} of {judged} judged classes recorded",
        result.coverage().floor(),
        result.decided().floor(),
    )
}

/// A page to read.
pub(super) fn text(result: &Outcomes) -> String {
    let mut page = String::new();
    // Writing to a String does not fail.
    let _ = writeln!(page, "{}", head(result));
    for workload in &result.workloads {
        of_workload(workload, &mut page);
    }
    if result.workloads.is_empty() {
        let _ = writeln!(
            page,
            "\nno operation of any workload is on record in that time"
        );
    }
    evidence(result, &mut page);
    if !result.not_enforced.is_empty() {
        let _ = writeln!(page, "\n{NOT_ENFORCED}");
        shortfall(result).for_each(|line| {
            let _ = writeln!(page, "  ! {}", visible(&line));
        });
    }
    let _ = writeln!(page, "\n{}", coverage(result));
    page
}

/// The first of what is left out of force, and how much more there is.
fn shortfall(result: &Outcomes) -> impl Iterator<Item = String> {
    let all = &result.not_enforced;
    let more = all.len().saturating_sub(MAX_ROWS);
    let rest = (more > 0).then(|| format!("{more} more: `cresset policy explain` names them"));
    all.iter().take(MAX_ROWS).cloned().chain(rest)
}

fn of_workload(workload: &OfWorkload, page: &mut String) {
    let operations = counted(
        usize::try_from(workload.operations()).unwrap_or(usize::MAX),
        "operation",
        "operations",
    );
    let _ = writeln!(
        page,
        "\n{} ({}): {operations}",
        visible(&workload.name),
        visible(&workload.who)
    );
    for (row, count) in telling(workload) {
        let _ = writeln!(
            page,
            "  {:<25}{:>8}  {}",
            word(&row.decided),
            count.count,
            visible(&by(row))
        );
        for (sample, at) in &count.samples {
            let _ = writeln!(
                page,
                "  {:<25}{:>8}    {}  {}",
                "",
                "",
                time(*at),
                visible(sample)
            );
        }
    }
    let _ = writeln!(page, "  {:<25}{:>8}", "passes", passing(workload));
    if workload.changes.is_empty() {
        let _ = writeln!(page, "  nothing changes against what is in force");
    } else {
        let _ = writeln!(page, "  changes against what is in force:");
    }
    for ((was, is), count) in &workload.changes {
        let change = format!("{} -> {}", short(was), short(is));
        let sample = count.samples.first().map_or("", |(sample, _)| sample);
        let _ = writeln!(
            page,
            "  {:>8}  {}, as in {}",
            count.count,
            visible(&change),
            visible(sample)
        );
    }
}

fn evidence(result: &Outcomes, page: &mut String) {
    let _ = writeln!(page, "\nevidence, events by class");
    let width = result
        .workloads
        .iter()
        .map(|one| one.name.chars().count())
        .max()
        .unwrap_or(0)
        .max(8);
    let mut line = format!("  {:<width$}", "workload");
    for class in columns(result) {
        let _ = write!(line, "  {:>12}", class.name());
    }
    let _ = writeln!(page, "{line}");
    for workload in &result.workloads {
        let mut line = format!("  {:<width$}", visible(&workload.name));
        for class in columns(result) {
            let _ = write!(line, "  {:>12}", cell(workload, class));
        }
        let _ = writeln!(page, "{line}");
    }
    for note in notes(result) {
        let _ = writeln!(page, "  ! {}", visible(&note));
    }
}

/// The classes that are on record or judged.
fn columns(result: &Outcomes) -> Vec<Class> {
    let of = |class: &Class| {
        let mut all = result.workloads.iter();
        all.any(|one| one.classes.contains_key(class) || one.missing.contains(class))
    };
    Class::ALL.into_iter().filter(of).collect()
}

/// `!`: judged and not recorded.
fn cell(workload: &OfWorkload, class: Class) -> String {
    match workload.classes.get(&class) {
        Some(count) => count.to_string(),
        None if workload.missing.contains(&class) => "none !".to_owned(),
        None => "-".to_owned(),
    }
}

/// What the record lacks.
fn notes(result: &Outcomes) -> Vec<String> {
    let mut notes = Vec::new();
    for workload in &result.workloads {
        for class in &workload.missing {
            notes.push(format!(
                "{}: {} is judged and nothing of it is on record; is it visible (sensor.visibility), did it happen?",
                workload.name,
                class.name()
            ));
        }
        if workload.throttled > 0 {
            notes.push(format!(
                "{}: {} notices that alerts were throttled; those that followed are missing",
                workload.name, workload.throttled
            ));
        }
        if workload.unclear > 0 {
            notes.push(format!(
                "{}: {} events are cut off",
                workload.name, workload.unclear
            ));
        }
    }
    for title in result.unmet.keys() {
        notes.push(format!(
            "policy {title} is about no workload of the record: nothing of it was simulated; is its selector right?"
        ));
    }
    for (place, count) in &result.lost {
        notes.push(format!("{count} events were lost ({place})"));
    }
    if result.unclear > 0 {
        notes.push(format!("{} events say too little", result.unclear));
    }
    notes
}

// === markdown ===

/// A comment for a pull request.
pub(super) fn markdown(result: &Outcomes) -> String {
    let blocked: u64 = result
        .workloads
        .iter()
        .map(|one| one.of(|decided| matches!(decided, Decided::Sure(Outcome::Block, ..))))
        .sum();
    let mut page =
        format!("### Policy simulation: {blocked} operations would have been blocked\n\n");
    let _ = writeln!(page, "{}. **{}.**\n", head(result), coverage(result));
    for workload in &result.workloads {
        section(workload, &mut page);
    }
    recorded(result, &mut page);
    let notes = notes(result);
    if !notes.is_empty() {
        let _ = writeln!(page, "<details><summary>What the record lacks</summary>\n");
        notes.iter().for_each(|note| {
            let _ = writeln!(page, "- {}", escaped(note));
        });
        let _ = writeln!(page, "\n</details>");
    }
    if !result.not_enforced.is_empty() {
        let _ = writeln!(page, "\n<details><summary>{NOT_ENFORCED}</summary>\n");
        shortfall(result).for_each(|line| {
            let _ = writeln!(page, "- {}", escaped(&line));
        });
        let _ = writeln!(page, "\n</details>");
    }
    page
}

/// The evidence, as a table.
fn recorded(result: &Outcomes, page: &mut String) {
    let columns = columns(result);
    if result.workloads.is_empty() || columns.is_empty() {
        return;
    }
    let names: Vec<&str> = columns.iter().map(|class| class.name()).collect();
    let _ = writeln!(
        page,
        "<details><summary>Evidence, events by class</summary>\n\n| workload | {} |\n|---|{}",
        names.join(" | "),
        "---:|".repeat(columns.len())
    );
    for workload in &result.workloads {
        let cells: Vec<String> = columns.iter().map(|class| cell(workload, *class)).collect();
        let _ = writeln!(
            page,
            "| {} | {} |",
            escaped(&workload.name),
            cells.join(" | ")
        );
    }
    let _ = writeln!(page, "\n</details>\n");
}

fn section(workload: &OfWorkload, page: &mut String) {
    let _ = writeln!(
        page,
        "**{}** ({}), {} operations\n",
        escaped(&workload.name),
        escaped(&workload.who),
        workload.operations()
    );
    let _ = writeln!(page, "| | count | by | for example |\n|---|---:|---|---|");
    let rows: Vec<_> = telling(workload).collect();
    for (row, count) in rows.iter().take(MAX_ROWS) {
        let sample = count.samples.first().map_or("", |(sample, _)| sample);
        let _ = writeln!(
            page,
            "| {} | {} | {} | {} |",
            word(&row.decided),
            count.count,
            escaped(&by(row)),
            escaped(sample)
        );
    }
    if rows.len() > MAX_ROWS {
        let _ = writeln!(page, "| {} more | | | |", rows.len() - MAX_ROWS);
    }
    let _ = writeln!(page, "| passes | {} | | |\n", passing(workload));
    if workload.changes.is_empty() {
        let _ = writeln!(page, "Nothing changes against what is in force.\n");
    } else {
        let _ = writeln!(page, "| change | count | for example |\n|---|---:|---|");
        for ((was, is), count) in workload.changes.iter().take(MAX_ROWS) {
            let sample = count.samples.first().map_or("", |(sample, _)| sample);
            let _ = writeln!(
                page,
                "| {} → {} | {} | {} |",
                escaped(&short(was)),
                escaped(&short(is)),
                count.count,
                escaped(sample)
            );
        }
        page.push('\n');
    }
}

/// Names come from workloads: they neither end a cell nor make a link of it.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in visible(text).chars() {
        if "\\`*_{}[]<>()#+!|~@".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

// === JSON ===

/// One JSON object.
pub(super) fn json(result: &Outcomes) -> String {
    let (recorded, judged) = result.classes();
    let value = json!({
        "from_unix": result.period.from,
        "to_unix": result.period.to,
        "in_force": {"digest": result.in_force.0, "policies": result.in_force.1},
        "simulated": {"digest": result.policies.0, "policies": result.policies.1},
        "workloads": result.workloads.iter().map(workload).collect::<Vec<_>>(),
        "lost": result.lost,
        "unclear": result.unclear,
        "about_nothing_recorded": result.unmet,
        "not_enforced": result.not_enforced,
        "coverage": {
            "percent": result.coverage(),
            "operations_percent": result.decided(),
            "classes_recorded": recorded,
            "classes_judged": judged,
        },
    });
    format!("{value:#}\n")
}

fn workload(workload: &OfWorkload) -> Value {
    let classes: serde_json::Map<String, Value> = workload
        .classes
        .iter()
        .map(|(class, count)| (class.name().to_owned(), json!(count)))
        .collect();
    let row = |(row, count): &(Row, Count)| json!({"verdict": verdict(&row.decided), "rule": row.rule, "count": count.count, "samples": samples(count)});
    let change = |((was, is), count): &((Decided, Decided), Count)| json!({"before": verdict(was), "after": verdict(is), "count": count.count, "samples": samples(count)});
    json!({
        "name": workload.name,
        "identity": workload.who,
        "recorded": classes,
        "judged": workload.judged,
        "not_recorded": workload.missing,
        "throttled": workload.throttled,
        "unclear": workload.unclear,
        "first_unix": workload.first,
        "last_unix": workload.last,
        "verdicts": workload.rows.iter().map(row).collect::<Vec<_>>(),
        "changes": workload.changes.iter().map(change).collect::<Vec<_>>(),
    })
}

fn verdict(decided: &Decided) -> Value {
    match decided {
        Decided::Sure(outcome, by, rule) => {
            json!({"outcome": outcome, "by": by, "rule": format!("{rule:016x}")})
        }
        Decided::Unknown => json!({"outcome": "unknown"}),
    }
}

fn samples(count: &Count) -> Vec<Value> {
    let sample = |(sample, at): &(String, i64)| json!({"operation": sample, "time_unix": at});
    count.samples.iter().map(sample).collect()
}
