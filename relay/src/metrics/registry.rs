//! The registry that all parts share; it also knows what each figure means, so that the page about them is made of it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::core::Collector;
use prometheus::proto::MetricFamily;

/// What the parts register their metrics in; a cheap handle.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    shown: prometheus::Registry,
    known: Arc<Mutex<BTreeMap<String, Described>>>,
}

/// One metric, as the page about them tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// Its name.
    pub name: String,
    /// `counter` or `gauge`.
    pub kind: &'static str,
    /// Its labels, in their order.
    pub labels: Vec<String>,
    /// What it means.
    pub help: String,
}

impl Registry {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Registry {
        Registry::default()
    }

    /// Shows a collector's metrics from now on.
    ///
    /// # Errors
    /// They are shown already.
    pub fn register(&self, collector: Box<dyn Collector>) -> prometheus::Result<()> {
        let described: Vec<Described> = collector
            .desc()
            .into_iter()
            .map(|desc| Described {
                name: desc.fq_name.clone(),
                kind: kind(&desc.fq_name),
                labels: desc.variable_labels.clone(),
                help: desc.help.clone(),
            })
            .collect();
        self.shown.register(collector)?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.extend(
            described
                .into_iter()
                .map(|metric| (metric.name.clone(), metric)),
        );
        Ok(())
    }

    /// All figures of this moment.
    #[must_use]
    pub fn gather(&self) -> Vec<MetricFamily> {
        self.shown.gather()
    }

    /// The same for who only shows it.
    pub(crate) fn shown(&self) -> prometheus::Registry {
        self.shown.clone()
    }

    /// Every metric that is registered, by name.
    #[must_use]
    pub fn described(&self) -> Vec<Described> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.values().cloned().collect()
    }
}

/// By its name: counters end in `_total` (Prometheus' naming), and there are no histograms.
fn kind(name: &str) -> &'static str {
    if name.ends_with("_total") {
        "counter"
    } else {
        "gauge"
    }
}
