//! Grafana Loki, by its push API (`POST /loki/api/v1/push`, JSON).
//!
//! ```text
//! event ─▶ labels (few, bounded) ─ choose the stream
//!       ├▶ structured metadata    ─ pod, policy, event id, …: searched without being indexed
//!       └▶ line                   ─ JSON or text
//! ```
//! - **Labels are bounded.** Each combination is a stream that Loki keeps open. Beyond `max_streams` combinations an event's
//!   field labels all become `other`; the values are in its metadata.
//! - **Order.** One push at a time, and in a push each stream by time, so a stream only goes backwards where two sensors'
//!   clocks do.
//! - **Resends are harmless**: Loki drops an entry that it has with the same time, line and metadata.
//! - What Loki refuses (400: too old, too long) is found by halving; it becomes a dead letter with Loki's words.

mod push;
mod trial;

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use proto::{FieldSet, Kind, View};
use reqwest::Url;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use yaml::{Node, Problem, Span};

use crate::config::{BatchLimits, Defaults};
use crate::http::{Auth, Compression, Http, Judged, Options, Proxy, Request, endpoint};
use crate::lines::{Format, Lines, unreadable};
use crate::offer::{self, Answer, Destination, Standing};
use crate::tls::ClientTls;
use crate::{
    Batch, BuildError, Carried, Context, Encoded, Failed, Outcome, Sink, Trial, Unavailable, told,
};

use push::Entry;

config! {
    /// Settings of a `loki` sink.
    pub struct Config {
        /// Where Loki is, as in `http://loki:3100`. Required.
        pub url: String,
        /// `X-Scope-OrgID`, where Loki has several tenants.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub tenant: Option<String>,
        /// Labels that are the same for all events. Default: `job: cresset`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub labels: Option<BTreeMap<String, String>>,
        /// Fields that become labels. Default: kind, cluster, namespace, operation.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub label_fields: Option<Vec<LabelField>>,
        /// Combinations of label values, at most. Default: 1000.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub max_streams: Option<u32>,
        /// `json` or `text`.
        pub format: Format,
        /// Leaves the structured metadata out, for Loki before 3.0.
        pub no_metadata: bool,
        /// Credentials.
        pub auth: Auth,
        /// Encryption, for `https`.
        pub tls: ClientTls,
        /// A proxy in between.
        pub proxy: Proxy,
        /// Compression of requests.
        pub compression: Compression,
        /// Further headers.
        pub headers: BTreeMap<String, String>,
        /// For one request with its answer. Default: 30s.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub timeout: Option<Span>,
    }
}

/// Loki likes batches of a megabyte at most, and one at a time keeps the order.
pub(crate) static DEFAULTS: Defaults = Defaults {
    batch: BatchLimits {
        max_events: 2000,
        max_bytes: 1 << 20,
        max_delay: Duration::from_secs(1),
    },
    concurrency: 1,
    max_concurrency: 1,
    fields: FieldSet::All,
};

/// A field that may be a label: few values each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LabelField {
    /// `alert`, `log` or `message`.
    Kind,
    /// ClusterName.
    Cluster,
    /// HostName.
    Host,
    /// NamespaceName.
    Namespace,
    /// ContainerName.
    Container,
    /// PolicyName.
    Policy,
    /// Operation.
    Operation,
    /// Action.
    Action,
    /// Severity.
    Severity,
    /// Level of messages.
    Level,
}

const LABEL_FIELDS: [LabelField; 4] = [
    LabelField::Kind,
    LabelField::Cluster,
    LabelField::Namespace,
    LabelField::Operation,
];

impl LabelField {
    const ALL: [LabelField; 10] = [
        LabelField::Kind,
        LabelField::Cluster,
        LabelField::Host,
        LabelField::Namespace,
        LabelField::Container,
        LabelField::Policy,
        LabelField::Operation,
        LabelField::Action,
        LabelField::Severity,
        LabelField::Level,
    ];

    fn read<'a>(self, view: &View<'a>) -> (&'static str, &'a str) {
        match self {
            LabelField::Kind => ("kind", word(view.kind)),
            LabelField::Cluster => ("cluster", view.cluster),
            LabelField::Host => ("host", view.host),
            LabelField::Namespace => ("namespace", view.namespace),
            LabelField::Container => ("container", view.container_name),
            LabelField::Policy => ("policy", view.policy),
            LabelField::Operation => ("operation", view.operation),
            LabelField::Action => ("action", view.action),
            LabelField::Severity => ("severity", view.severity),
            LabelField::Level => ("level", view.level),
        }
    }
}

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Alert => "alert",
        Kind::Log => "log",
        Kind::Message => "message",
    }
}

impl Config {
    fn options<'a>(&'a self, headers: &'a BTreeMap<String, String>) -> Options<'a> {
        Options {
            tls: &self.tls,
            proxy: &self.proxy,
            auth: &self.auth,
            headers,
            compression: self.compression,
            timeout: self
                .timeout
                .map_or(Duration::from_secs(30), |Span(time)| time),
        }
    }

    fn all_headers(&self) -> BTreeMap<String, String> {
        let tenant = self
            .tenant
            .iter()
            .map(|t| ("X-Scope-OrgID".to_owned(), t.clone()));
        self.headers.clone().into_iter().chain(tenant).collect()
    }

    /// Reports files and variables that are not there.
    pub(crate) fn look(&self, node: &Node, problems: &mut Vec<Problem>) {
        self.options(&self.all_headers()).look(node, problems);
    }

    pub(crate) fn check(&self, node: &Node, problems: &mut Vec<Problem>) {
        self.options(&self.all_headers()).check(node, problems);
        let mut wrong = |path: &str, message: String| problems.push(node.problem_at(path, message));
        if let Err(why) = push_url(&self.url) {
            wrong("url", why);
        }
        if !(1..=100_000).contains(&self.max_streams.unwrap_or(1000)) {
            wrong("max_streams", "use 1 to 100000".to_owned());
        }
        for name in self.labels.iter().flat_map(BTreeMap::keys) {
            if !is_label(name) {
                let message = "is no label name; use letters, digits and `_`, a letter first";
                wrong(&format!("labels.{name}"), message.to_owned());
            }
        }
        if self.format == Format::PrettyJson {
            wrong(
                "format",
                "use json or text: an entry is one line".to_owned(),
            );
        }
    }
}

fn is_label(name: &str) -> bool {
    let first = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    first && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Where Loki takes entries.
const PUSH: &str = "/loki/api/v1/push";

fn push_url(text: &str) -> Result<Url, String> {
    if text.is_empty() {
        return Err("is missing; write as in `url: http://loki:3100`".to_owned());
    }
    let mut url = endpoint(text)?;
    if url.path() == "/" {
        url.set_path(PUSH);
    }
    Ok(url)
}

/// The sink.
pub struct Loki {
    http: Http,
    url: Url,
    lines: Lines,
    labels: BTreeMap<String, String>,
    fields: Vec<LabelField>,
    metadata: bool,
    max_streams: usize,
    /// The combinations of field labels seen so far.
    streams: Mutex<HashSet<Vec<String>>>,
    standing: Standing,
}

impl Loki {
    /// Makes the sink; nothing is connected yet.
    ///
    /// # Errors
    /// A file that the settings name cannot be used.
    pub fn build(name: &str, config: &Config, _context: &Context) -> Result<Self, BuildError> {
        let bad = |why: String| BuildError::new(name, why);
        let job = || BTreeMap::from([("job".to_owned(), "cresset".to_owned())]);
        Ok(Loki {
            http: Http::build(&config.options(&config.all_headers())).map_err(bad)?,
            url: push_url(&config.url).map_err(bad)?,
            lines: Lines {
                format: config.format,
                fields: config.common().fields,
            },
            labels: config.labels.clone().unwrap_or_else(job),
            fields: config.label_fields.clone().unwrap_or(LABEL_FIELDS.to_vec()),
            metadata: !config.no_metadata,
            max_streams: config.max_streams.unwrap_or(1000) as usize,
            streams: Mutex::default(),
            standing: Standing::default(),
        })
    }

    fn stream(&self, view: &View<'_>) -> BTreeMap<String, String> {
        let values: Vec<_> = self.fields.iter().map(|field| field.read(view)).collect();
        let known = self.admit(
            values
                .iter()
                .map(|(_, value)| (*value).to_owned())
                .collect(),
        );
        let mut labels = self.labels.clone();
        for (name, value) in values {
            let value = if known { value } else { "other" };
            // An empty label is none.
            if !value.is_empty() {
                labels.insert(name.to_owned(), value.to_owned());
            }
        }
        labels
    }

    /// Whether this combination has a stream, or may still get one.
    fn admit(&self, values: Vec<String>) -> bool {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        if streams.contains(&values) {
            return true;
        }
        if streams.len() == self.max_streams {
            return false;
        }
        if streams.len() + 1 == self.max_streams {
            let most = self.max_streams;
            tracing::warn!(
                most,
                "max_streams is reached; new label values become `other`"
            );
        }
        streams.insert(values)
    }

    /// Every field that can be a label is among them: what `other` stands for is found here.
    fn metadata(&self, event: &Encoded, view: &View<'_>) -> BTreeMap<&'static str, String> {
        let pairs = LabelField::ALL.map(|field| field.read(view));
        let pairs = pairs.into_iter().chain([
            ("pod", view.pod),
            ("process", view.process),
            ("result", view.result),
        ]);
        let mut metadata = BTreeMap::from([("event_id", event.id().to_string())]);
        let there = pairs.filter(|(_, value)| !value.is_empty());
        metadata.extend(there.map(|(name, value)| (name, value.to_owned())));
        metadata
    }
}

#[async_trait]
impl Sink for Loki {
    async fn send(&self, batch: Arc<Batch>) -> Result<Vec<Outcome>, Unavailable> {
        offer::deliver(self, &batch).await
    }

    fn elsewhere(&self) {
        self.http.elsewhere();
    }

    async fn test(&self, event: Carried, trial: &Trial) -> Result<(), Failed> {
        trial::run(self, event, trial).await
    }
}

impl Destination for Loki {
    type Item = Entry;

    fn render(&self, event: &Encoded) -> Result<Entry, String> {
        let mut line = Vec::new();
        self.lines
            .write(event, &mut line)
            .map_err(|malformed| unreadable(event.kind(), &malformed))?;
        let view = event.view();
        let time = told::time(&view).unwrap_or_else(Timestamp::now);
        Ok(Entry {
            stream: self.stream(&view),
            nanoseconds: time.as_nanosecond(),
            // Texts of events are UTF-8, and so is what is made of them.
            line: String::from_utf8_lossy(&line).trim_end().to_owned(),
            metadata: match self.metadata {
                true => self.metadata(event, &view),
                false => BTreeMap::new(),
            },
        })
    }

    fn standing(&self) -> &Standing {
        &self.standing
    }

    async fn offer(&self, entries: &[&Entry]) -> Result<Answer, Unavailable> {
        let request = Request::post(&self.url, "application/json", push::body(entries));
        match self.http.send(request).await?.judge()? {
            Judged::Taken(_) => Ok(Answer::Taken),
            Judged::Refused(why) => Ok(Answer::Refused(why)),
        }
    }
}
