//! Problems as people and machines want them: lines, JSON, GitHub's annotations, SARIF.

use proto::visible::text as visible;
use serde_json::{Value, json};
use yaml::{Problem, Severity};

use super::shortfall::Note;

/// Most lines of text for one file's problems.
const LINES: usize = 100;

/// How problems are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// A line each
    Text,
    /// One JSON object
    Json,
    /// Annotations of a GitHub workflow
    Github,
    /// SARIF 2.1.0, for code scanning
    Sarif,
}

/// All problems in one text; machines get what sensors leave out of force, too.
pub(super) fn report(problems: &[Problem], notes: &[Note], format: Format) -> String {
    match format {
        Format::Text => problems
            .chunk_by(|one, next| one.file == next.file)
            .map(lines)
            .collect(),
        Format::Json => format!(
            "{:#}\n",
            json!({"problems": problems, "not_enforced": notes})
        ),
        Format::Github => {
            let problems = problems
                .iter()
                .map(|problem| annotation(word(problem.severity), problem));
            let notes = notes.iter().map(|note| annotation("notice", &told(note)));
            problems.chain(notes).collect()
        }
        Format::Sarif => format!("{:#}\n", sarif(problems, notes)),
    }
}

/// Lines for one file's problems. A file with very many has one fault that shows everywhere, or is none at all.
fn lines(problems: &[Problem]) -> String {
    let (told, rest) = problems.split_at(problems.len().min(LINES));
    let mut text: String = told.iter().map(line).collect();
    if let Some(first) = rest.first() {
        let errors = rest.iter().filter(|problem| problem.is_error()).count();
        let (file, count, warnings) = (visible(&first.file), rest.len(), rest.len() - errors);
        text += &format!(
            "{file}: {count} more problems ({errors} errors, {warnings} warnings); -o json has them all\n"
        );
    }
    text
}

/// A note in the place of its policy.
fn told(note: &Note) -> Problem {
    Problem {
        file: note.file.clone(),
        line: note.line,
        column: 0,
        path: note.policy.clone(),
        message: format!("not enforced:\n{}", note.parts.join("\n")),
        severity: Severity::Warning,
    }
}

/// `file:line:column: error: path: message`. What files hold is shown, not obeyed: it may move a reader's cursor.
pub(super) fn line(problem: &Problem) -> String {
    let mut text = visible(&problem.file);
    for number in [problem.line, problem.column]
        .into_iter()
        .take_while(|number| *number > 0)
    {
        text += &format!(":{number}");
    }
    text += &format!(": {}: ", word(problem.severity));
    if !problem.path.is_empty() {
        text += &format!("{}: ", visible(&problem.path));
    }
    format!("{text}{}\n", visible(&problem.message))
}

fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    }
}

/// A workflow command (docs.github.com, "Workflow commands for GitHub Actions"): `%` and LF are escaped, in
/// properties `:` and `,` too.
fn annotation(word: &str, problem: &Problem) -> String {
    let data = |text: &str| {
        let lines: Vec<String> = text.split('\n').map(visible).collect();
        lines.join("\n").replace('%', "%25").replace('\n', "%0A")
    };
    let property = |text: &str| data(text).replace(':', "%3A").replace(',', "%2C");
    let mut places = format!("file={}", property(&problem.file));
    if problem.line > 0 {
        places += &format!(",line={}", problem.line);
    }
    if problem.column > 0 {
        places += &format!(",col={}", problem.column);
    }
    if !problem.path.is_empty() {
        places += &format!(",title={}", property(&problem.path));
    }
    format!("::{word} {places}::{}\n", data(&problem.message))
}

/// OASIS SARIF 2.1.0: one run, one result a problem.
fn sarif(problems: &[Problem], notes: &[Note]) -> Value {
    let problems = problems
        .iter()
        .map(|problem| result("policy", word(problem.severity), problem));
    let notes = notes
        .iter()
        .map(|note| result("not-enforced", "note", &told(note)));
    let results: Vec<Value> = problems.chain(notes).collect();
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "cresset",
                "semanticVersion": env!("CARGO_PKG_VERSION"),
                "rules": [
                    {"id": "policy", "shortDescription": {"text": "A problem of a policy file"}},
                    {"id": "not-enforced", "shortDescription": {"text": "What this version's sensor leaves out of force"}},
                ],
            }},
            "results": results,
        }],
    })
}

fn result(rule: &str, level: &str, problem: &Problem) -> Value {
    let text = if problem.path.is_empty() {
        problem.message.clone()
    } else {
        format!("{}: {}", problem.path, problem.message)
    };
    let mut place = json!({"artifactLocation": {"uri": problem.file}});
    if problem.line > 0 {
        place["region"] = json!({"startLine": problem.line, "startColumn": problem.column.max(1)});
    }
    json!({
        "ruleId": rule,
        "level": level,
        "message": {"text": text},
        "locations": [{"physicalLocation": place}],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(severity: Severity) -> Problem {
        Problem {
            file: "a,b.yaml".into(),
            line: 3,
            column: 5,
            path: "spec.action".into(),
            message: "50% of\nit".into(),
            severity,
        }
    }

    #[test]
    fn each_format_names_file_line_path_and_severity() {
        let problems = [
            problem(Severity::Error),
            Problem::whole_file("c.yaml", "gone"),
        ];
        assert_eq!(
            report(&problems, &[], Format::Text),
            "a,b.yaml:3:5: error: spec.action: 50% of\\nit\nc.yaml: error: gone\n"
        );
        assert_eq!(
            report(&problems, &[], Format::Github),
            "::error file=a%2Cb.yaml,line=3,col=5,title=spec.action::50%25 of%0Ait\n::error file=c.yaml::gone\n"
        );
        let sarif: Value = serde_json::from_str(&report(&problems, &[], Format::Sarif)).unwrap();
        let results = &sarif["runs"][0]["results"];
        assert_eq!(results[0]["level"], "error");
        let place = &results[0]["locations"][0]["physicalLocation"];
        assert_eq!(place["region"]["startLine"], 3);
        let whole = &results[1]["locations"][0]["physicalLocation"];
        assert_eq!(
            (&whole["region"], &whole["artifactLocation"]["uri"]),
            (&Value::Null, &json!("c.yaml"))
        );
        let json: Value = serde_json::from_str(&report(
            &[problem(Severity::Warning)],
            &[note()],
            Format::Json,
        ))
        .unwrap();
        assert_eq!(json["problems"][0]["severity"], "warning");
        assert_eq!(json["not_enforced"][0]["parts"][0], "process: curl: why");
    }

    #[test]
    fn a_file_full_of_problems_is_told_in_so_many_lines_and_the_next_one_whole() {
        let mut problems = vec![problem(Severity::Error); LINES + 3];
        problems[LINES + 1].severity = Severity::Warning;
        problems.push(Problem::whole_file("c.yaml", "gone"));
        let text = report(&problems, &[], Format::Text);
        assert_eq!(text.lines().count(), LINES + 2);
        assert!(text.ends_with(
            "a,b.yaml: 3 more problems (2 errors, 1 warnings); -o json has them all\nc.yaml: error: gone\n"
        ), "{text}");
    }

    fn note() -> Note {
        Note {
            file: "a.yaml".into(),
            line: 1,
            policy: "shop/p".into(),
            parts: vec!["process: curl: why".into()],
        }
    }

    #[test]
    fn what_sensors_leave_out_is_a_notice_in_its_policys_place() {
        assert_eq!(report(&[], &[note()], Format::Text), "");
        assert_eq!(
            report(&[], &[note()], Format::Github),
            "::notice file=a.yaml,line=1,title=shop/p::not enforced:%0Aprocess: curl: why\n"
        );
        let sarif: Value = serde_json::from_str(&report(&[], &[note()], Format::Sarif)).unwrap();
        let result = &sarif["runs"][0]["results"][0];
        assert_eq!(
            (&result["level"], &result["ruleId"]),
            (&json!("note"), &json!("not-enforced"))
        );
    }
}
