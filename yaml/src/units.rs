//! Quantities as people write them: `20GiB`, `1h30m`.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::{Serialize, Serializer};

/// A number of bytes: `20GiB`, `8MiB`, `64k`, `4096`. `k M G T` (also `kB MB GB TB`) are powers of 1000, `Ki Mi Gi Ti`
/// (also `KiB …`) powers of 1024; large and small letters alike.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(pub u64);

/// A length of time: `500ms`, `30s`, `1h30m`, `7d`. Units: `ns us ms s m h d w`; a day is 24 hours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(pub Duration);

/// A text that is no quantity; says what one looks like.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {what}")]
pub struct BadUnit {
    text: String,
    what: &'static str,
}

const A_SIZE: &str = "a size; write a number of bytes or as in `64k`, `8MiB`, `20GiB`";
const A_SPAN: &str = "a length of time; write as in `500ms`, `30s`, `1h30m`, `7d`";

// === impl Size ===

impl FromStr for Size {
    type Err = BadUnit;

    fn from_str(text: &str) -> Result<Size, BadUnit> {
        size(text.trim()).map(Size).ok_or_else(|| BadUnit {
            text: text.to_owned(),
            what: A_SIZE,
        })
    }
}

fn size(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    let unit = unit.trim_start().to_ascii_lowercase();
    let factor: u64 = match unit.strip_suffix('b').unwrap_or(&unit) {
        "" => 1,
        "k" => 1000,
        "m" => 1000 * 1000,
        "g" => 1000 * 1000 * 1000,
        "t" => 1000 * 1000 * 1000 * 1000,
        "ki" => 1 << 10,
        "mi" => 1 << 20,
        "gi" => 1 << 30,
        "ti" => 1 << 40,
        _ => return None,
    };
    scaled(number, factor)
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
        let fits = |shift: &u32| self.0 > 0 && self.0.trailing_zeros() >= *shift;
        match units.iter().find(|(shift, _)| fits(shift)) {
            Some((shift, unit)) => write!(f, "{}{unit}", self.0 >> shift),
            None => write!(f, "{}", self.0),
        }
    }
}

// === impl Span ===

impl FromStr for Span {
    type Err = BadUnit;

    fn from_str(text: &str) -> Result<Span, BadUnit> {
        let bad = || BadUnit {
            text: text.to_owned(),
            what: A_SPAN,
        };
        let nanos = nanos(text.trim()).ok_or_else(bad)?;
        Ok(Span(Duration::from_nanos(nanos)))
    }
}

const TIMES: [(&str, u64); 8] = [
    ("w", 7 * 86_400_000_000_000),
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

fn nanos(text: &str) -> Option<u64> {
    if text == "0" {
        return Some(0);
    }
    let (mut rest, mut total) = (text, 0u64);
    while !rest.is_empty() {
        let (number, after) = split(rest)?;
        let end = after
            .find(|c: char| !c.is_ascii_lowercase() && c != 'µ')
            .unwrap_or(after.len());
        let unit = after[..end].replace('µ', "u");
        let (_, factor) = TIMES.iter().find(|(name, _)| *name == unit)?;
        total = total.checked_add(scaled(number, *factor)?)?;
        rest = after[end..].trim_start();
    }
    (!text.is_empty()).then_some(total)
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = u64::try_from(self.0.as_nanos()).unwrap_or(u64::MAX);
        if rest == 0 {
            return f.write_str("0s");
        }
        // Weeks are read but never written: `7d` stays `7d`.
        for (unit, factor) in &TIMES[1..] {
            if rest >= *factor {
                write!(f, "{}{unit}", rest / factor)?;
                rest %= factor;
            }
        }
        Ok(())
    }
}

// === both ===

/// A decimal number and what follows it.
fn split(text: &str) -> Option<(&str, &str)> {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, rest) = text.split_at(end);
    number
        .starts_with(|c: char| c.is_ascii_digit())
        .then_some((number, rest))
}

/// `number * factor`, exact for up to nine decimals; `None` past `u64`.
fn scaled(number: &str, factor: u64) -> Option<u64> {
    let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
    if part.is_empty() || part.len() > 9 || part.contains('.') {
        return None;
    }
    let whole: u128 = whole.parse::<u64>().ok()?.into();
    let part: u128 = part.parse::<u64>().ok()?.into();
    let scale = 10u128.pow(u32::try_from(number.split_once('.').map_or(1, |(_, p)| p.len())).ok()?);
    let total = (whole * scale + part).checked_mul(factor.into())? / scale;
    u64::try_from(total).ok()
}

macro_rules! quantity {
    ($name:ident, $what:expr, $pattern:literal, $types:expr, $example:literal) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<$name, D::Error> {
                struct Read;
                impl Visitor<'_> for Read {
                    type Value = $name;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($what)
                    }
                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$name, E> {
                        text.parse().map_err(E::custom)
                    }
                    fn visit_u64<E: de::Error>(self, number: u64) -> Result<$name, E> {
                        self.visit_str(&number.to_string())
                    }
                }
                from.deserialize_any(Read)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }
            fn inline_schema() -> bool {
                true
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({"type": $types, "pattern": $pattern, "examples": [$example]})
            }
        }
    };
}

quantity!(
    Size,
    "a size such as `64k`, `8MiB`, `20GiB`",
    r"^[0-9.]+ *([kKmMgGtT]i?)?[bB]?$",
    ["string", "integer"],
    "20GiB"
);
quantity!(
    Span,
    "a length of time such as `500ms`, `30s`, `1h30m`, `7d`",
    r"^0$|^([0-9.]+(ns|us|µs|ms|s|m|h|d|w) *)+$",
    ["string"],
    "1h30m"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_people_write_them_and_come_back() {
        for (text, bytes) in [
            ("20GiB", 20 << 30),
            ("8MiB", 8 << 20),
            ("64k", 64_000),
            ("64 KB", 64_000),
            ("1.5Gi", 3 << 29),
            ("4096", 4096),
            ("0", 0),
        ] {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
            assert_eq!(Size(bytes).to_string().parse(), Ok(Size(bytes)));
        }
        for bad in [
            "",
            "GiB",
            "-1",
            "1.2.3k",
            "5 bananas",
            "99999999999TiB",
            "1e3",
            ".",
        ] {
            assert!(bad.parse::<Size>().is_err(), "{bad}");
        }
        assert_eq!(Size(20 << 30).to_string(), "20GiB");
        assert_eq!(Size(1500).to_string(), "1500");
    }

    #[test]
    fn spans_read_as_people_write_them_and_come_back() {
        for (text, nanos) in [
            ("7d", 604_800_000_000_000),
            ("500ms", 500_000_000),
            ("1h30m", 5_400_000_000_000),
            ("1.5s", 1_500_000_000),
            ("10us", 10_000),
            ("1w", 604_800_000_000_000),
            ("0", 0),
        ] {
            let span = Span(Duration::from_nanos(nanos));
            assert_eq!(text.parse(), Ok(span), "{text}");
            assert_eq!(span.to_string().parse(), Ok(span));
        }
        for bad in ["", "5", "5x", "m", "1h-30m", "99999999w", "1..5s"] {
            assert!(bad.parse::<Span>().is_err(), "{bad}");
        }
        assert_eq!(
            "90m".parse::<Span>().map(|s| s.to_string()),
            Ok("1h30m".to_owned())
        );
    }
}
