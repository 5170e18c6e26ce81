//! What a plain scalar means, by the core schema of YAML 1.2.2, section 10.3.2.

/// A plain scalar, resolved.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Scalar<'a> {
    Null,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(&'a str),
}

pub(crate) fn resolve(text: &str) -> Scalar<'_> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Scalar::Null,
        "true" | "True" | "TRUE" => return Scalar::Bool(true),
        "false" | "False" | "FALSE" => return Scalar::Bool(false),
        ".nan" | ".NaN" | ".NAN" => return Scalar::Float(f64::NAN),
        _ => {}
    }
    integer(text)
        .or_else(|| float(text))
        .unwrap_or(Scalar::Text(text))
}

/// The booleans of YAML 1.1 that files for Kubernetes still use, where a boolean is wanted.
pub(crate) fn boolean(text: &str) -> Option<bool> {
    match text {
        "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Some(true),
        "no" | "No" | "NO" | "off" | "Off" | "OFF" => Some(false),
        _ => match resolve(text) {
            Scalar::Bool(value) => Some(value),
            _ => None,
        },
    }
}

fn integer(text: &str) -> Option<Scalar<'_>> {
    if let Some(hex) = text.strip_prefix("0x") {
        return digits(hex).then(|| u64::from_str_radix(hex, 16).ok().map(Scalar::Unsigned))?;
    }
    if let Some(octal) = text.strip_prefix("0o") {
        return digits(octal).then(|| u64::from_str_radix(octal, 8).ok().map(Scalar::Unsigned))?;
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if unsigned.is_empty() || !unsigned.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    if text.starts_with('-') {
        return text.parse().ok().map(Scalar::Signed);
    }
    unsigned.parse().ok().map(Scalar::Unsigned)
}

fn digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit())
}

fn float(text: &str) -> Option<Scalar<'_>> {
    let (negative, rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if matches!(rest, ".inf" | ".Inf" | ".INF") {
        return Some(Scalar::Float(if negative {
            f64::NEG_INFINITY
        } else {
            f64::INFINITY
        }));
    }
    let numeric = |b: u8| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-');
    let plausible = rest.bytes().all(numeric) && rest.bytes().any(|b| b.is_ascii_digit());
    if !plausible || rest.starts_with(['-', '+', 'e', 'E']) {
        return None;
    }
    text.parse().ok().map(Scalar::Float)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_words_mean_what_the_core_schema_says() {
        assert_eq!(resolve("~"), Scalar::Null);
        assert_eq!(resolve("True"), Scalar::Bool(true));
        assert_eq!(resolve("yes"), Scalar::Text("yes"));
        assert_eq!(resolve("012"), Scalar::Unsigned(12));
        assert_eq!(resolve("-7"), Scalar::Signed(-7));
        assert_eq!(resolve("+7"), Scalar::Unsigned(7));
        assert_eq!(resolve("0x1F"), Scalar::Unsigned(31));
        assert_eq!(resolve("0o17"), Scalar::Unsigned(15));
        assert_eq!(resolve("0x"), Scalar::Text("0x"));
        assert_eq!(resolve("1.5e3"), Scalar::Float(1500.0));
        assert_eq!(resolve("-.inf"), Scalar::Float(f64::NEG_INFINITY));
        assert_eq!(resolve("1.2.3"), Scalar::Text("1.2.3"));
        assert_eq!(resolve("127.0.0.1:80"), Scalar::Text("127.0.0.1:80"));
        assert_eq!(resolve("e5"), Scalar::Text("e5"));
        assert_eq!(boolean("off"), Some(false));
    }
}
