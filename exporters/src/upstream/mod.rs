//! Another relay, by the link that sensors use: one relay of relays for many clusters.
//!
//! ```text
//! sensors ══▶ relay of a cluster ─ journal ─▶ this sink ══ link ══▶ upstream relay ─ journal ─▶ its own sinks and feeds
//! ```
//! - **Events keep their ids**: the sensors' streams are forwarded under their own names, so the upstream relay drops what it
//!   has, whichever way it came, and an event counts once however often it is sent.
//! - **Events keep their bytes**, the cluster's name among them.
//! - An event is done when the upstream relay has it on disk: the link's `Ack`.
//! - **Policies flow down** with `policies: true`: the upstream relay's are one more source of this relay's, which hands them to
//!   its sensors ([`Policies`]). Rules that the session offers are for sensors and are not taken up.

mod policies;
mod session;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use proto::FieldSet;
use reqwest::Url;
use tokio::sync::Mutex;
use tonic::transport::Channel;
use yaml::{Node, Problem, Span};

use crate::config::{BatchLimits, Defaults};
use crate::dial::Dial;
use crate::http::{Proxy, endpoint};
use crate::tls::ClientTls;
use crate::{Batch, BuildError, Carried, Context, Failed, Outcome, Sink, Trial, Unavailable};

pub use policies::{Policies, Texts};

use session::{Failure, Session, told};

config! {
    /// Settings of a `relay` sink.
    pub struct Config {
        /// The upstream relay's link, as in `https://relay.example:9481`. Required.
        pub url: String,
        /// What this relay is called there; each relay needs a name of its own. Required.
        pub name: String,
        /// Encryption, for `https`; a relay wants a client certificate.
        pub tls: ClientTls,
        /// A proxy in between.
        pub proxy: Proxy,
        /// Take up its policies, too, as one more source of this relay's. Default: false.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        pub policies: bool,
        /// For a batch to be on the upstream relay's disk. Default: 30s.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub timeout: Option<Span>,
    }
}

/// One batch of the link at a time keeps the order of each stream.
pub(crate) static DEFAULTS: Defaults = Defaults {
    batch: BatchLimits {
        max_events: 4000,
        max_bytes: 2 << 20,
        max_delay: Duration::from_millis(50),
    },
    concurrency: 1,
    max_concurrency: 1,
    fields: FieldSet::All,
};

impl Config {
    fn timeout(&self) -> Duration {
        self.timeout
            .map_or(Duration::from_secs(30), |Span(time)| time)
    }

    /// Reports files and variables that are not there.
    pub(crate) fn look(&self, node: &Node, problems: &mut Vec<Problem>) {
        self.tls.look("tls", node, problems);
        self.proxy.keys().look(node, problems);
    }

    pub(crate) fn check(&self, node: &Node, problems: &mut Vec<Problem>) {
        self.tls.check("tls", node, problems);
        self.proxy.check(node, problems);
        let mut wrong = |path: &str, message: String| problems.push(node.problem_at(path, message));
        if let Err(why) = address(&self.url) {
            wrong("url", why);
        }
        if self.name.is_empty() || self.name.len() > 253 {
            wrong(
                "name",
                "is missing or too long; use 1 to 253 bytes, another name in each cluster"
                    .to_owned(),
            );
        }
        if !(Duration::from_millis(100)..=Duration::from_secs(600)).contains(&self.timeout()) {
            wrong("timeout", "use 100ms to 10m".to_owned());
        }
    }
}

fn address(text: &str) -> Result<Url, String> {
    match text {
        "" => Err("is missing; write as in `url: https://relay.example:9481`".to_owned()),
        text => endpoint(text),
    }
}

/// The way to the upstream relay; nothing is connected yet.
fn way(name: &str, config: &Config) -> Result<(Dial, Channel), BuildError> {
    let bad = |why: String| BuildError::new(name, why);
    let url = address(&config.url).map_err(bad)?;
    let encrypted = url.scheme() == "https";
    if encrypted {
        config
            .tls
            .client_config(&["h2"])
            .map_err(|e| bad(e.to_string()))?;
    }
    let dial = Dial {
        host: url.host_str().unwrap_or_default().to_owned(),
        port: url.port_or_known_default().unwrap_or(9481),
        tls: encrypted.then(|| config.tls.clone()),
        protocols: &["h2"],
        proxy: config.proxy.clone(),
    };
    let channel = dial.clone().channel(&url).map_err(bad)?;
    Ok((dial, channel))
}

/// The sink.
pub struct Upstream {
    dial: Dial,
    channel: Channel,
    name: String,
    timeout: Duration,
    session: Mutex<Option<Session>>,
}

impl Upstream {
    /// Makes the sink; nothing is connected yet.
    ///
    /// # Errors
    /// A file that the settings name cannot be used.
    pub fn build(name: &str, config: &Config, _context: &Context) -> Result<Self, BuildError> {
        let (dial, channel) = way(name, config)?;
        Ok(Upstream {
            channel,
            dial,
            name: config.name.clone(),
            timeout: config.timeout(),
            session: Mutex::default(),
        })
    }

    async fn open(&self) -> Result<Session, Unavailable> {
        Session::open(self.channel.clone(), &self.name)
            .await
            .map_err(Failure::into)
    }
}

impl Upstream {
    /// The session that stands, or one that is opened now: the upstream relay takes one at a time from each name.
    async fn greet(&self) -> Result<((), String), String> {
        let mut held = self.session.lock().await;
        if held.is_none() {
            *held = Some(self.open().await.map_err(|away| away.reason)?);
        }
        Ok(((), format!("it knows this relay as {}", self.name)))
    }
}

#[async_trait]
impl Sink for Upstream {
    async fn send(&self, batch: Arc<Batch>) -> Result<Vec<Outcome>, Unavailable> {
        let mut held = self.session.lock().await;
        let forwarded = tokio::time::timeout(self.timeout, async {
            // Taken out: whatever ends this early ends the session, and what was under way is sent again.
            if let Some(mut session) = held.take().filter(Session::has_room) {
                // It may have ended while nobody looked; one that is new decides.
                if let Ok(outcomes) = session.forward(&batch).await {
                    return Ok::<_, Unavailable>((session, outcomes));
                }
            }
            let mut session = self.open().await?;
            let outcomes = session.forward(&batch).await.map_err(Unavailable::from)?;
            Ok((session, outcomes))
        });
        match forwarded.await {
            Ok(Ok((session, outcomes))) => {
                *held = Some(session);
                Ok(outcomes)
            }
            Ok(Err(away)) => Err(away),
            Err(_) => Err(Unavailable::new(format!(
                "the upstream relay did not write a batch within {:?}",
                self.timeout
            ))),
        }
    }

    async fn test(&self, event: Carried, trial: &Trial) -> Result<(), Failed> {
        self.dial.try_out(trial).await?;
        trial.step("authenticate", self.greet()).await?;
        let batch = Arc::new(Batch::new(vec![event]));
        trial
            .write_told(self.send(batch), "the upstream relay has it on disk")
            .await
    }
}
