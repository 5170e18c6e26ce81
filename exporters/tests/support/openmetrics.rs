//! A strict reader of OpenMetrics 1.0: whatever the specification forbids and these figures could get wrong is an error.
#![allow(dead_code, unreachable_pub, reason = "each test program uses its part")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};

/// Names and values, in the order of the line.
pub type Labels = Vec<(String, String)>;

/// Bounds and counts of one histogram, by its other labels.
type Buckets = BTreeMap<Labels, Vec<(f64, f64)>>;

/// One line with a value.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    pub name: String,
    pub labels: Labels,
    pub value: f64,
}

/// Name, type and samples.
#[derive(Clone, Debug, Default)]
pub struct Family {
    pub name: String,
    pub kind: String,
    help: Option<String>,
    pub samples: Vec<Sample>,
}

/// The families of a page.
///
/// # Errors
/// The line, and what is wrong with it.
pub fn read(text: &str) -> Result<Vec<Family>, String> {
    let body = text
        .strip_suffix("# EOF\n")
        .ok_or("it does not end with # EOF")?;
    let mut families: Vec<Family> = Vec::new();
    for line in body.split_terminator('\n') {
        read_line(line, &mut families).map_err(|why| format!("{line:?}: {why}"))?;
    }
    if !body.is_empty() && !body.ends_with('\n') {
        return Err("its last line has no line feed".to_owned());
    }
    families.iter().try_for_each(check_family)?;
    check_names(&families)?;
    Ok(families)
}

fn read_line(line: &str, families: &mut Vec<Family>) -> Result<(), String> {
    if line.trim() != line || line.contains('\r') || line.is_empty() {
        return Err("spaces around it, or nothing in it".to_owned());
    }
    let Some(meta) = line.strip_prefix("# ") else {
        let sample = sample(line)?;
        let family = families.last_mut().ok_or("a sample without a family")?;
        family.samples.push(sample);
        return Ok(());
    };
    let mut parts = meta.splitn(3, ' ');
    let (word, name) = (parts.next().unwrap_or(""), parts.next().ok_or("no name")?);
    let rest = parts.next().unwrap_or("");
    let is_open = families
        .last()
        .is_some_and(|f| f.name == name && f.samples.is_empty());
    if !is_open {
        if families.iter().any(|family| family.name == name) {
            return Err("its family came before, or has samples already".to_owned());
        }
        families.push(Family {
            name: is_name(name).then(|| name.to_owned()).ok_or("not a name")?,
            ..Family::default()
        });
    }
    let family = families.last_mut().unwrap();
    match word {
        "TYPE" if family.kind.is_empty() => family.kind = rest.to_owned(),
        "HELP" if family.help.is_none() => family.help = Some(unescape(rest)?),
        _ => return Err("an unknown or repeated word".to_owned()),
    }
    Ok(())
}

fn is_name(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':');
    text.starts_with(|c: char| fits(c) && !c.is_ascii_digit()) && text.chars().all(fits)
}

fn unescape(text: &str) -> Result<String, String> {
    let (mut out, mut chars) = (String::new(), text.chars());
    while let Some(c) = chars.next() {
        out.push(match c {
            '\\' => match chars.next() {
                Some('n') => '\n',
                Some(c @ ('\\' | '"')) => c,
                other => return Err(format!("\\ before {other:?}")),
            },
            '"' => return Err("a bare quotation mark".to_owned()),
            c => c,
        });
    }
    Ok(out)
}

fn sample(line: &str) -> Result<Sample, String> {
    let end = line.find(['{', ' ']).ok_or("no value")?;
    let name = line[..end].to_owned();
    if !is_name(&name) {
        return Err("not a name".to_owned());
    }
    let (labels, rest) = match line[end..].strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (Vec::new(), &line[end..]),
    };
    let value = rest.strip_prefix(' ').ok_or("no space before the value")?;
    Ok(Sample {
        name,
        labels,
        value: number(value)?,
    })
}

fn labels(mut rest: &str) -> Result<(Labels, &str), String> {
    let mut labels = Labels::new();
    loop {
        if let Some(after) = rest.strip_prefix('}') {
            return Ok((labels, after));
        }
        if !labels.is_empty() {
            rest = rest.strip_prefix(',').ok_or("no comma between labels")?;
        }
        let (name, after) = rest.split_once("=\"").ok_or("no label")?;
        if !is_name(name) || name.contains(':') || labels.iter().any(|(known, _)| known == name) {
            return Err(format!("{name:?} is no name of a label, or comes twice"));
        }
        let mut escaped = false;
        let end = after.find(|c| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        let end = end.ok_or("a label value without an end")?;
        labels.push((name.to_owned(), unescape(&after[..end])?));
        rest = &after[end + 1..];
    }
}

fn number(text: &str) -> Result<f64, String> {
    let plain = |c: char| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-');
    match text {
        "NaN" => Ok(f64::NAN),
        "+Inf" => Ok(f64::INFINITY),
        "-Inf" => Ok(f64::NEG_INFINITY),
        _ if text.chars().all(plain) => text.parse().map_err(|_| format!("{text:?} is no number")),
        _ => Err(format!("{text:?} is no number")),
    }
}

fn suffixes(kind: &str) -> Result<&'static [&'static str], String> {
    Ok(match kind {
        "counter" => &["_total"],
        "gauge" | "unknown" => &[""],
        "histogram" => &["_bucket", "_count", "_sum"],
        "summary" => &["", "_count", "_sum"],
        other => return Err(format!("{other:?} is no type")),
    })
}

fn check_family(family: &Family) -> Result<(), String> {
    let Family {
        name,
        kind,
        samples,
        ..
    } = family;
    let known = suffixes(kind).map_err(|why| format!("{name}: {why}"))?;
    let mut seen = BTreeSet::new();
    for sample in samples {
        let fits = known.iter().any(|s| sample.name == format!("{name}{s}"));
        if !fits {
            return Err(format!(
                "{}: not a sample of the {kind} {name}",
                sample.name
            ));
        }
        let mut labels = sample.labels.clone();
        labels.sort();
        if !seen.insert((sample.name.clone(), labels)) {
            return Err(format!("{}: the same labels twice", sample.name));
        }
        if kind == "counter" && (sample.value.is_nan() || sample.value < 0.0) {
            return Err(format!("{}: a counter of {}", sample.name, sample.value));
        }
    }
    if kind == "histogram" {
        check_buckets(family)
    } else {
        Ok(())
    }
}

fn check_buckets(family: &Family) -> Result<(), String> {
    let mut buckets = Buckets::new();
    for sample in family
        .samples
        .iter()
        .filter(|s| s.name.ends_with("_bucket"))
    {
        let mut labels = sample.labels.clone();
        let at = labels
            .iter()
            .position(|(name, _)| name == "le")
            .ok_or("a bucket without le")?;
        let (_, le) = labels.remove(at);
        if !le.contains(['.', 'e']) && le != "+Inf" {
            return Err(format!("le={le:?} is not canonical"));
        }
        buckets
            .entry(labels)
            .or_default()
            .push((number(&le)?, sample.value));
    }
    for (labels, buckets) in buckets {
        let grows = buckets
            .windows(2)
            .all(|w| w[0].0 < w[1].0 && w[0].1 <= w[1].1);
        let last = buckets.last().unwrap();
        let count = family
            .samples
            .iter()
            .find(|s| s.name.ends_with("_count") && s.labels == labels);
        if !grows || last.0 != f64::INFINITY || count.is_none_or(|count| count.value != last.1) {
            return Err(format!("{}: buckets {buckets:?}", family.name));
        }
    }
    Ok(())
}

/// A sample belongs to one family.
fn check_names(families: &[Family]) -> Result<(), String> {
    let mut names = BTreeSet::new();
    for family in families {
        for suffix in suffixes(&family.kind)? {
            let name = format!("{}{suffix}", family.name);
            if !names.insert(name.clone()) {
                return Err(format!("{name} could be of two families"));
            }
        }
    }
    Ok(())
}
