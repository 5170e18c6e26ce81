//! OpenTelemetry's protocol for logs, over gRPC or HTTP: into a collector, and from there anywhere.
//!
//! ```text
//! batch ─▶ record of each event ─▶ grouped by resource (cluster, node, pod, container) ─▶ ExportLogsServiceRequest
//!           bytes to bytes          by its bytes                                           written once, for gRPC and HTTP
//!                                                                          ◀─ partial_success, RetryInfo, Retry-After
//! ```
//! Not on the SDK, whose processor queues and drops by itself. Nor on the protocol's messages: to build, copy and encode them
//! took 25 to 39 µs an event. They are what the tests hold the bytes against.
//!
//! - **Partial success** says how many records were refused and not which, and asks for nothing to be sent again. Weighed: to
//!   keep all of them as dead letters doubles none and names none; to send parts again names the bad one, and some of the good
//!   ones are there twice under one `log.record.uid`. The second is done (`offer/part.rs`): at least once is what sinks promise.
//! - A request that is refused as a whole is halved until the bad event is alone.

mod answer;
mod attribute;
mod grpc;
#[cfg(test)]
mod oracle;
mod plan;
mod record;
mod request;
mod resource;
#[cfg(test)]
mod tests;
mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use proto::FieldSet;
use reqwest::Url;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use yaml::{Node, Problem, Span};

use crate::aside::aside;
use crate::config::{BatchLimits, Defaults};
use crate::dial::Dial;
use crate::http::{Auth, Compression, Http, Options, Proxy, Request, endpoint};
use crate::offer::{self, Answer, Destination, Standing};
use crate::tls::ClientTls;
use crate::{
    Batch, BuildError, Carried, Context, Encoded, Failed, Outcome, Sink, Trial, Unavailable,
};

use grpc::Grpc;
use record::Item;
use resource::Extra;

config! {
    /// Settings of an `otlp` sink.
    pub struct Config {
        /// Where the collector is: `http://collector:4317` for gRPC, `http://collector:4318` for HTTP. Required.
        pub endpoint: String,
        /// `grpc` or `http`.
        pub protocol: Protocol,
        /// Credentials.
        pub auth: Auth,
        /// Encryption, for `https`.
        pub tls: ClientTls,
        /// A proxy in between.
        pub proxy: Proxy,
        /// For `protocol: http`: compression of requests. Default: gzip.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub compression: Option<Compression>,
        /// Further headers, such as a tenant's name.
        pub headers: BTreeMap<String, String>,
        /// Attributes of every resource, such as `deployment.environment.name`.
        pub resource: BTreeMap<String, String>,
        /// For one request with its answer. Default: 30s.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub timeout: Option<Span>,
    }
}

/// A request below the 4 MiB that gRPC servers take if not told otherwise: names make an event some 1.4 KiB larger. Several are
/// under way, as a collector's window of 64 KiB makes many round trips of each.
pub(crate) static DEFAULTS: Defaults = Defaults {
    batch: BatchLimits {
        max_events: 1024,
        max_bytes: 1 << 20,
        max_delay: Duration::from_millis(500),
    },
    concurrency: 4,
    max_concurrency: 64,
    fields: FieldSet::All,
};

/// How the protocol travels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// gRPC, port 4317.
    #[default]
    Grpc,
    /// Protobuf in HTTP, port 4318.
    Http,
}

impl Config {
    fn options(&self) -> Options<'_> {
        Options {
            tls: &self.tls,
            proxy: &self.proxy,
            auth: &self.auth,
            headers: &self.headers,
            compression: self.compression.unwrap_or_default(),
            timeout: self
                .timeout
                .map_or(Duration::from_secs(30), |Span(time)| time),
        }
    }

    /// Reports files and variables that are not there.
    pub(crate) fn look(&self, node: &Node, problems: &mut Vec<Problem>) {
        self.options().look(node, problems);
    }

    pub(crate) fn check(&self, node: &Node, problems: &mut Vec<Problem>) {
        self.options().check(node, problems);
        let mut wrong = |path: &str, message: String| problems.push(node.problem_at(path, message));
        if let Err(why) = address(&self.endpoint) {
            wrong("endpoint", why);
        }
        if self.protocol == Protocol::Grpc {
            self.check_metadata(&mut wrong);
        }
        if self.protocol == Protocol::Grpc && self.compression.is_some() {
            wrong("compression", "belongs to `protocol: http`".to_owned());
        }
        if self.common().fields == FieldSet::KubeArmor && self.fields.is_some() {
            // A record without the event's id could not be recognised when it comes again.
            wrong(
                "fields",
                "an OTLP record has all fields; leave this key out".to_owned(),
            );
        }
    }
}

impl Config {
    /// Values of keys that end in `-bin` are bytes in gRPC, and these are texts ("gRPC over HTTP2", "Custom-Metadata").
    fn check_metadata(&self, wrong: &mut dyn FnMut(&str, String)) {
        let is_binary = |name: &&String| name.to_ascii_lowercase().ends_with("-bin");
        let message =
            "names that end in -bin are for bytes in gRPC; take another, or `protocol: http`";
        for name in self.headers.keys().filter(is_binary) {
            wrong(&format!("headers.{name}"), message.to_owned());
        }
        if self
            .auth
            .header
            .as_ref()
            .is_some_and(|name| is_binary(&name))
        {
            wrong("auth.header", message.to_owned());
        }
    }
}

fn address(text: &str) -> Result<Url, String> {
    match text {
        "" => Err("is missing; write as in `endpoint: http://collector:4317`".to_owned()),
        text => endpoint(text),
    }
}

/// The sink.
pub struct Otlp {
    way: Way,
    extra: Arc<Extra>,
    standing: Standing,
}

enum Way {
    Grpc { dial: Box<Dial>, grpc: Box<Grpc> },
    Http { http: Box<Http>, url: Url },
}

impl Otlp {
    /// Makes the sink; nothing is connected yet.
    ///
    /// # Errors
    /// A file that the settings name cannot be used.
    pub fn build(name: &str, config: &Config, _context: &Context) -> Result<Self, BuildError> {
        let bad = |why: String| BuildError::new(name, why);
        let mut url = address(&config.endpoint).map_err(bad)?;
        let way = match config.protocol {
            Protocol::Grpc => {
                let dial = Box::new(dial(config, &url).map_err(bad)?);
                let grpc = Box::new(Grpc::build(config, &dial, url).map_err(bad)?);
                Way::Grpc { dial, grpc }
            }
            Protocol::Http => {
                if url.path() == "/" {
                    url.set_path("/v1/logs");
                }
                let http = Box::new(Http::build(&config.options()).map_err(bad)?);
                Way::Http { http, url }
            }
        };
        Ok(Otlp {
            way,
            extra: Arc::new(Extra::new(&config.resource)),
            standing: Standing::default(),
        })
    }
}

fn dial(config: &Config, url: &Url) -> Result<Dial, String> {
    let encrypted = url.scheme() == "https";
    if encrypted {
        // A file that cannot be used is told now and not at the first batch.
        config
            .tls
            .client_config(&["h2"])
            .map_err(|e| e.to_string())?;
    }
    Ok(Dial {
        host: url.host_str().unwrap_or_default().to_owned(),
        port: url.port_or_known_default().unwrap_or(4317),
        tls: encrypted.then(|| config.tls.clone()),
        protocols: &["h2"],
        proxy: config.proxy.clone(),
    })
}

#[async_trait]
impl Sink for Otlp {
    async fn send(&self, batch: Arc<Batch>) -> Result<Vec<Outcome>, Unavailable> {
        offer::deliver(self, &batch).await
    }

    fn elsewhere(&self) {
        match &self.way {
            Way::Grpc { grpc, .. } => grpc.elsewhere(),
            Way::Http { http, .. } => http.elsewhere(),
        }
    }

    async fn test(&self, event: Carried, trial: &Trial) -> Result<(), Failed> {
        match &self.way {
            Way::Grpc { dial, .. } => dial.try_out(trial).await?,
            Way::Http { http, url } => http.try_out(url, trial).await?,
        }
        trial.step("authenticate", self.empty()).await?;
        let batch = Arc::new(Batch::new(vec![event]));
        trial.write(self.send(batch)).await
    }
}

impl Otlp {
    /// Sends a request of `count` records.
    async fn export(&self, body: Vec<u8>, count: usize) -> Result<Answer, Unavailable> {
        match &self.way {
            Way::Grpc { grpc, .. } => grpc.export(body.into(), count).await,
            Way::Http { http, url } => {
                let request = Request::post(url, "application/x-protobuf", body);
                answer::http(http.send(request).await?, count)
            }
        }
    }

    /// A request of no records, which a collector answers like any other. It names a resource, so that its body is not empty.
    async fn empty(&self) -> Result<((), String), String> {
        match self.export(request::EMPTY.to_vec(), 0).await {
            Ok(Answer::Taken) => Ok(((), "the collector takes requests of this sink".to_owned())),
            Ok(Answer::Refused(reason) | Answer::AllBut(_, reason)) => {
                // Some want a record in it; who would not let us in says so otherwise.
                Ok((
                    (),
                    format!("it lets us in, and says of a request of nothing: {reason}"),
                ))
            }
            Err(away) => Err(away.reason),
        }
    }
}

impl Destination for Otlp {
    type Item = Item;

    fn render(&self, event: &Encoded) -> Result<Item, String> {
        Item::of(event, &self.extra)
    }

    async fn render_all(&self, batch: &Arc<Batch>) -> Vec<Result<Item, String>> {
        let (extra, batch) = (Arc::clone(&self.extra), Arc::clone(batch));
        aside(move || Item::all(&batch, &extra)).await
    }

    fn standing(&self) -> &Standing {
        &self.standing
    }

    async fn offer(&self, items: &[&Item]) -> Result<Answer, Unavailable> {
        let body = request::request(items, &self.extra);
        self.export(body, items.len()).await
    }
}
