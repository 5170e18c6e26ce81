//! What stands before the message: priority, version, time, names and structured data (RFC 5424, section 6).

use jiff::Timestamp;
use proto::{Kind, View};

use crate::{Encoded, told};

/// What is the same in every message of a sink.
pub(super) struct Header {
    pub(super) facility: u8,
    pub(super) app_name: String,
    pub(super) enterprise: u32,
}

impl Header {
    /// Everything up to the message, with the space before it.
    pub(super) fn begin(&self, event: &Encoded, view: &View<'_>) -> Vec<u8> {
        let time = told::time(view).unwrap_or_else(Timestamp::now);
        // RFC 5424 has no nanoseconds; events have microseconds.
        let time = time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ");
        let priority = u32::from(self.facility) * 8 + severity(view);
        let (host, app) = (name(view.host, 255), &self.app_name);
        let msgid = match view.kind {
            Kind::Alert => "alert",
            Kind::Log => "log",
            Kind::Message => "message",
        };
        let mut data = format!(
            "[cresset@{} id=\"{}\" kind=\"{}\"",
            self.enterprise,
            event.id(),
            view.kind
        );
        for (key, value) in [
            ("cluster", view.cluster),
            ("namespace", view.namespace),
            ("pod", view.pod),
            ("policy", view.policy),
        ] {
            if !value.is_empty() {
                data.push_str(&format!(" {key}=\"{}\"", quoted(value)));
            }
        }
        format!("<{priority}>1 {time} {host} {app} - {msgid} {data}] ").into_bytes()
    }
}

/// 0 emergency to 7 debug. Alerts: from 9 critical, from 6 error, from 3 warning, else notice.
fn severity(view: &View<'_>) -> u32 {
    match (view.kind, told::gravity(view)) {
        (Kind::Alert, 9..) => 2,
        (Kind::Alert, 6..) => 3,
        (Kind::Alert, 3..) => 4,
        (Kind::Alert, _) => 5,
        (Kind::Message, 7..) => 3,
        (Kind::Message, 5..) => 4,
        (_, 0) => 7,
        _ => 6,
    }
}

/// Whether the text can be a name: printable ASCII without spaces.
pub(super) fn is_name(text: &str, most: usize) -> bool {
    (1..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// A name as it may stand there; `-` for none. Other characters become `_`: the event itself has the whole name.
fn name(text: &str, most: usize) -> String {
    let fit = |c: char| if c.is_ascii_graphic() { c } else { '_' };
    match text.is_empty() {
        true => "-".to_owned(),
        false => text.chars().take(most).map(fit).collect(),
    }
}

/// A value of structured data: `"`, `\` and `]` are escaped (section 6.3.3). Many receivers end a line at a control
/// character, so it is written as rsyslog writes one that it receives (`$EscapeControlCharactersOnReceive`): `#` and three
/// octal digits. Unlike there nothing is lost: a `#` that three octal digits follow is written as `#043` itself.
fn quoted(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for (at, c) in value.char_indices() {
        match c {
            '"' | '\\' | ']' => out.extend(['\\', c]),
            c if c.is_control() || c == '#' && is_octal(&value[at + 1..]) => {
                out.push_str(&format!("#{:03o}", u32::from(c)));
            }
            c => out.push(c),
        }
    }
    out
}

/// Whether the text begins with three octal digits.
fn is_octal(text: &str) -> bool {
    let digits = text.as_bytes().get(..3);
    digits.is_some_and(|digits| digits.iter().all(|digit| matches!(digit, b'0'..=b'7')))
}
