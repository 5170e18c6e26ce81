//! Texts that stay on their line and can be read back: control characters are written out, and so is the backslash that
//! they are written with.

use proto::View;

use crate::told;

/// What happened, in one line.
pub(super) fn line(view: &View<'_>) -> String {
    escaped(&told::summary(view), &['\\'])
}

/// The text with a backslash before these characters, and control characters as `\n`, `\r`, `\t` or `\xNN`.
pub(super) fn escaped(text: &str, special: &[char]) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            c if special.contains(&c) => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out
}
