//! An incoming webhook of Slack: a line, what they have in common, and the first few events.
//!
//! Source: Slack, "Sending messages using incoming webhooks" and "Formatting text": `&`, `<` and `>` are escaped, nothing
//! else; a section holds 3,000 characters, escapes counted. A longer one would be refused with the whole message, so what an
//! event brings is cut after it was escaped: a process that is called `&&&&…` is told of like any other.

use serde_json::{Value, json};

use super::Told;
use crate::told;
use crate::webhook::group::Group;

/// Events that are shown by themselves.
const SHOWN: usize = 5;
/// Of a section, with escapes; marks need some more.
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

/// A text as Slack shows it, in at most so many characters with their escapes. A process may call itself `<!channel>`; it calls
/// nobody.
fn text(text: &str, most: usize) -> String {
    let (mut out, mut left) = (String::new(), most);
    for c in proto::visible::text(text).chars() {
        let mut one = [0; 4];
        let shown = match c {
            '&' => "&amp;",
            '<' => "&lt;",
            '>' => "&gt;",
            c => &*c.encode_utf8(&mut one),
        };
        let long = shown.chars().count();
        if long >= left {
            // The last character is for the mark.
            out.push('…');
            break;
        }
        left -= long;
        out.push_str(shown);
    }
    out
}
