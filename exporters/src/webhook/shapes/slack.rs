//! An incoming webhook of Slack: a line, what they have in common, and the first few events.
//!
//! Source: Slack, "Sending messages using incoming webhooks" and "Formatting text": `&`, `<` and `>` are escaped, nothing
//! else; a section holds 3,000 characters.

use serde_json::{Value, json};

use super::Told;
use crate::told;
use crate::webhook::group::Group;

/// Events that are shown by themselves.
const SHOWN: usize = 5;
/// Of a section; escapes and marks need some more.
const TEXT: usize = 2500;

pub(super) fn message(sink: &str, group: &Group<'_>, told_of: &Told) -> Value {
    let mark = match super::grade(group.gravity) {
        "critical" => ":red_circle:",
        "error" => ":large_orange_circle:",
        "warning" => ":large_yellow_circle:",
        _ => ":white_circle:",
    };
    let title = format!("{mark} *{}*", text(&told_of.title, 500));
    let mut blocks = vec![section(&title)];
    if group.count() > 1 {
        let lines: Vec<String> = group
            .events()
            .take(SHOWN)
            .map(|event| {
                format!(
                    "• {}",
                    text(&told::summary(&event.view()), TEXT / SHOWN - 10)
                )
            })
            .collect();
        blocks.push(section(&lines.join("\n")));
    }
    let key = text(&group.name(), 300);
    let times = match told_of.first == told_of.last {
        true => told_of.first.clone(),
        false => format!("{} – {}", told_of.first, told_of.last),
    };
    let context = format!("{key} · {times} · cresset/{sink}");
    blocks.push(json!({"type": "context", "elements": [{"type": "mrkdwn", "text": context}]}));
    json!({"text": text(&told_of.title, 500), "blocks": blocks})
}

fn section(text: &str) -> Value {
    json!({"type": "section", "text": {"type": "mrkdwn", "text": text}})
}

/// A process may call itself `<!channel>`; it calls nobody.
fn text(text: &str, characters: usize) -> String {
    told::cut(&proto::visible::text(text), characters)
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
