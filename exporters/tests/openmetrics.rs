//! The page in OpenMetrics, read strictly.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/openmetrics.rs"]
mod openmetrics;

use exporters::Page;
use prometheus::{
    Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
};

fn page(registry: &Registry) -> Page {
    Page::new(&registry.gather(), Some("application/openmetrics-text")).unwrap()
}

fn registry() -> Registry {
    let registry = Registry::new();
    let counter = IntCounterVec::new(
        Opts::new("alerts_total", "Alerts by \"pod\",\nwith a \\."),
        &["pod", "node"],
    )
    .unwrap();
    counter.with_label_values(&["a\"b\\c\nd", ""]).inc_by(3);
    counter.with_label_values(&["ü", "node-a"]).inc();
    let odd = IntCounter::new("restarts", "A counter without the suffix.").unwrap();
    let lag = Gauge::new("lag_seconds", "How far behind.").unwrap();
    lag.set(-0.25);
    let options = HistogramOpts::new("took_seconds", "How long.").buckets(vec![0.005, 1.0, 2.5]);
    let took = Histogram::with_opts(options).unwrap();
    [0.001, 0.5, 7.0]
        .iter()
        .for_each(|seconds| took.observe(*seconds));
    // A gauge that has the name that the counter's family would get.
    let kept = IntGauge::new("kept", "On disk.").unwrap();
    let all = IntCounter::new("kept_total", "Ever.").unwrap();
    registry.register(Box::new(counter)).unwrap();
    registry.register(Box::new(odd)).unwrap();
    registry.register(Box::new(lag)).unwrap();
    registry.register(Box::new(took)).unwrap();
    registry.register(Box::new(kept)).unwrap();
    registry.register(Box::new(all)).unwrap();
    registry
}

#[test]
fn every_type_of_figure_is_read_back_as_it_was() {
    let Page { content_type, body } = page(&registry());
    assert_eq!(
        content_type,
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    );
    let families = openmetrics::read(&body).unwrap_or_else(|why| panic!("{why}\n{body}"));
    let kinds: Vec<(&str, &str)> = families
        .iter()
        .map(|family| (family.name.as_str(), family.kind.as_str()))
        .collect();
    assert_eq!(
        kinds,
        [
            ("alerts", "counter"),
            ("kept", "gauge"),
            ("kept_total", "unknown"),
            ("lag_seconds", "gauge"),
            ("restarts", "unknown"),
            ("took_seconds", "histogram"),
        ]
    );
    let nasty = families[0]
        .samples
        .iter()
        .find(|sample| sample.value == 3.0);
    let nasty = nasty.unwrap();
    assert_eq!(nasty.name, "alerts_total");
    assert_eq!(
        nasty.labels,
        [("node", ""), ("pod", "a\"b\\c\nd")].map(|(n, v)| (n.to_owned(), v.to_owned()))
    );
    assert!(
        body.contains("took_seconds_bucket{le=\"1.0\"} 2\n"),
        "{body}"
    );
}

#[test]
fn without_a_figure_there_is_the_end() {
    assert_eq!(page(&Registry::new()).body, "# EOF\n");
}

#[test]
fn who_does_not_ask_for_it_gets_the_text_format() {
    let page = Page::new(&registry().gather(), Some("*/*")).unwrap();
    assert_eq!(page.content_type, "text/plain; version=0.0.4");
    assert!(
        page.body.contains("# TYPE alerts_total counter\n"),
        "{}",
        page.body
    );
    assert!(openmetrics::read(&page.body).is_err());
}

#[test]
fn the_strict_reader_is_strict() {
    let good = "# TYPE a counter\n# HELP a x\na_total{b=\"c\"} 1\n# EOF\n";
    assert!(openmetrics::read(good).is_ok());
    for (from, to) in [
        ("a_total{", "a{"),
        ("# EOF\n", ""),
        ("# EOF\n", "# EOF\n\n"),
        ("} 1", "}  1"),
        ("} 1", "} -1"),
        ("} 1", "} one"),
        ("\"c\"", "\"c\\t\""),
        ("b=\"c\"", "b=\"c\",b=\"d\""),
        ("b=", "b:="),
        ("# HELP a x", "# HELP a \"x\""),
        ("# TYPE a counter\n", "# TYPE a counter\n# TYPE a counter\n"),
        ("# EOF", "# TYPE a_total gauge\na_total 2\n# EOF"),
        ("# EOF", "a_total{b=\"c\"} 2\n# EOF"),
        ("# EOF", "# HELP a again\n# EOF"),
    ] {
        let bad = good.replacen(from, to, 1);
        assert_ne!(bad, good);
        assert!(openmetrics::read(&bad).is_err(), "{bad}");
    }
}
