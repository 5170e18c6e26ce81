//! A registry's figures as a page for scrapers: the text format, or OpenMetrics where it is asked for.
//!
//! The `prometheus` crate writes the text format only; the other is written here from the same families.
//! Specification: OpenMetrics 1.0 (<https://prometheus.io/docs/specs/om/open_metrics_spec/>). What differs:
//!
//! | | text | OpenMetrics |
//! |---|---|---|
//! | family of a counter `x_total` | `x_total` | `x`, its sample is `x_total` |
//! | a counter that is not called `…_total` | counter | unknown: the specification has no such counter |
//! | bounds (`le`, `quantile`) | `1` | `1.0` |
//! | quotation marks in `# HELP` | as they are | escaped |
//! | end | – | `# EOF` |

use std::collections::HashSet;
use std::fmt::Write as _;

use prometheus::proto::{LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Encoder as _, TextEncoder};

/// Media type of the page in OpenMetrics.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What a scraper is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// For the `Content-Type` header.
    pub content_type: String,
    /// The text.
    pub body: String,
}

impl Page {
    /// The families as a page in the form that `accept`, the request's header, prefers.
    ///
    /// # Errors
    /// Families that no page can hold: one without a name, say.
    pub fn new(families: &[MetricFamily], accept: Option<&str>) -> prometheus::Result<Page> {
        if accept.is_some_and(prefers_openmetrics) {
            return Ok(Page {
                content_type: OPENMETRICS.to_owned(),
                body: openmetrics(families),
            });
        }
        let encoder = TextEncoder::new();
        Ok(Page {
            content_type: encoder.format_type().to_owned(),
            body: encoder.encode_to_string(families)?,
        })
    }
}

/// RFC 9110 §12.5.1: whether OpenMetrics is named, in a version that is ours, and not liked less than text.
fn prefers_openmetrics(accept: &str) -> bool {
    let (mut open, mut text) = (0.0_f32, 0.0_f32);
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default().to_ascii_lowercase();
        let (mut quality, mut version) = (1.0, "1.0.0");
        for (key, value) in parts.filter_map(|part| part.split_once('=')) {
            match key.trim().to_ascii_lowercase().as_str() {
                "q" => quality = value.trim().parse().unwrap_or(0.0),
                "version" => version = value.trim().trim_matches('"'),
                _ => {}
            }
        }
        match media.as_str() {
            "application/openmetrics-text" if matches!(version, "1.0.0" | "0.0.1") => {
                open = open.max(quality);
            }
            "text/plain" => text = text.max(quality),
            _ => {}
        }
    }
    open > 0.0 && open >= text
}

fn openmetrics(families: &[MetricFamily]) -> String {
    let names: HashSet<&str> = families.iter().map(MetricFamily::name).collect();
    let mut out = String::new();
    for family in families {
        write_family(family, &names, &mut out);
    }
    out.push_str("# EOF\n");
    out
}

/// `names` are those of all families: a counter must not take another's.
fn write_family(family: &MetricFamily, names: &HashSet<&str>, out: &mut String) {
    let base = family
        .name()
        .strip_suffix("_total")
        .filter(|base| !names.contains(base));
    let (name, kind) = match (family.get_field_type(), base) {
        (MetricType::COUNTER, Some(base)) => (base, "counter"),
        (MetricType::GAUGE, _) => (family.name(), "gauge"),
        (MetricType::HISTOGRAM, _) => (family.name(), "histogram"),
        (MetricType::SUMMARY, _) => (family.name(), "summary"),
        _ => (family.name(), "unknown"),
    };
    // Writing to a String does not fail; here and below.
    let _ = writeln!(out, "# TYPE {name} {kind}");
    if !family.help().is_empty() {
        let _ = writeln!(out, "# HELP {name} {}", escaped(family.help()));
    }
    for metric in family.get_metric() {
        write_metric(family, metric, out);
    }
}

fn write_metric(family: &MetricFamily, metric: &Metric, out: &mut String) {
    let mut line = |suffix: &str, bound: Option<(&str, f64)>, value: f64| {
        let labels = labels(metric.get_label(), bound);
        let name = family.name();
        let _ = writeln!(out, "{name}{suffix}{labels} {}", number(value));
    };
    match family.get_field_type() {
        MetricType::COUNTER => line("", None, metric.get_counter().get_value()),
        MetricType::GAUGE => line("", None, metric.get_gauge().get_value()),
        MetricType::HISTOGRAM => {
            let histogram = metric.get_histogram();
            let count = histogram.get_sample_count() as f64; // exact up to 2^53
            let buckets = histogram.get_bucket().iter();
            for bucket in buckets.filter(|bucket| bucket.upper_bound().is_finite()) {
                let below = bucket.cumulative_count() as f64;
                line("_bucket", Some(("le", bucket.upper_bound())), below);
            }
            line("_bucket", Some(("le", f64::INFINITY)), count);
            line("_sum", None, histogram.get_sample_sum());
            line("_count", None, count);
        }
        MetricType::SUMMARY => {
            let summary = metric.get_summary();
            for quantile in summary.get_quantile() {
                let bound = Some(("quantile", quantile.quantile()));
                line("", bound, quantile.value());
            }
            line("_sum", None, summary.sample_sum());
            line("_count", None, summary.sample_count() as f64);
        }
        // Nobody here makes one, and the crate's model shows no value of it.
        MetricType::UNTYPED => {}
    }
}

fn labels(pairs: &[LabelPair], bound: Option<(&str, f64)>) -> String {
    let pairs = pairs
        .iter()
        .map(|pair| format!("{}=\"{}\"", pair.name(), escaped(pair.value())));
    let bound = bound.map(|(name, bound)| format!("{name}=\"{}\"", canonical(bound)));
    let all: Vec<String> = pairs.chain(bound).collect();
    if all.is_empty() {
        String::new()
    } else {
        format!("{{{}}}", all.join(","))
    }
}

/// In label values and help alike.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
    out
}

fn number(value: f64) -> String {
    match value {
        f64::INFINITY => "+Inf".to_owned(),
        f64::NEG_INFINITY => "-Inf".to_owned(),
        value => value.to_string(),
    }
}

/// A bound that is a whole number has a point, so that all exporters write it alike.
fn canonical(bound: f64) -> String {
    let text = number(bound);
    if text.bytes().all(|b| b.is_ascii_digit() || b == b'-') {
        text + ".0"
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openmetrics_is_sent_only_where_it_is_liked_at_least_as_much() {
        // What Prometheus 2.42 and 3.0 send, then others.
        for yes in [
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=0.0.4;q=0.5",
            "Application/OpenMetrics-Text",
            "text/plain, application/openmetrics-text; version=\"1.0.0\"",
        ] {
            assert!(prefers_openmetrics(yes), "{yes}");
        }
        for no in [
            "",
            "*/*",
            "text/html,application/xhtml+xml,*/*;q=0.8",
            "text/plain;version=0.0.4;q=1,*/*;q=0.1",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;version=2.0.0",
            "application/openmetrics-text;q=0.3,text/plain;q=0.4",
            "application/openmetrics-text;q=much",
        ] {
            assert!(!prefers_openmetrics(no), "{no}");
        }
    }

    #[test]
    fn numbers_and_bounds_are_written_as_the_specification_has_them() {
        let numbers = [
            0.0,
            3.0,
            0.25,
            -1.5,
            f64::INFINITY,
            f64::NEG_INFINITY,
            f64::NAN,
        ];
        assert_eq!(
            numbers.map(number),
            ["0", "3", "0.25", "-1.5", "+Inf", "-Inf", "NaN"]
        );
        assert_eq!(
            [1.0, 0.005, f64::INFINITY, -2.0].map(canonical),
            ["1.0", "0.005", "+Inf", "-2.0"]
        );
    }
}
