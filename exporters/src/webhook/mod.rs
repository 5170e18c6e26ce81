//! Any HTTP endpoint: a template, or a ready shape for chat, paging and security tools.
//!
//! ```text
//! records  json ndjson ocsf                            every event, many in a request
//! notices  slack pagerduty alertmanager falcosidekick  one message a group of alike events, with a count
//!          template                                    … or what the template makes of it
//! batch ─▶ groups (group_by) ─▶ as many messages as `rate` allows ─▶ the rest folded into one with its count
//! ```
//! **A flood becomes few messages and never silence.** A batch sends at least one message and waits in `send` until `rate`
//! allows it; meanwhile the journal holds what comes, and the next batch takes it together. Nothing is counted in memory
//! alone: an event is done when the message that counts it was taken.

mod address;
mod group;
mod rate;
mod shapes;
mod template;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use proto::FieldSet;
use reqwest::Method;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use yaml::{Node, Problem, Span};

use crate::config::{BatchLimits, Defaults};
use crate::http::{self, Auth, Compression, Http, Judged, Options, Proxy, Request, endpoint};
use crate::lines::unreadable;
use crate::offer::{self, Answer, Destination, Standing};
use crate::secret::Keys;
use crate::tls::ClientTls;
use crate::{
    Batch, BuildError, Carried, Context, Encoded, Failed, Outcome, Sink, Trial, Unavailable,
};

use address::Address;
use group::Group;
use rate::Budget;
use shapes::Writer;

config! {
    /// Settings of a `webhook` sink.
    pub struct Config {
        /// Where it goes. Required, unless it is a secret: then by `url_file` or `url_env`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub url: Option<String>,
        /// A file with the address, for chat services whose address is the secret.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub url_file: Option<PathBuf>,
        /// A variable with the address.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub url_env: Option<String>,
        /// What the destination understands. Required.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub shape: Option<Shape>,
        /// For `shape: template`: the body, in the language of Jinja.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub template: Option<String>,
        /// For `shape: template`. Default: `application/json`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub content_type: Option<String>,
        /// `POST` or `PUT`.
        pub method: Verb,
        /// For `shape: pagerduty`: a file with the integration's key.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub routing_key_file: Option<PathBuf>,
        /// For `shape: pagerduty`: a variable with the integration's key.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub routing_key_env: Option<String>,
        /// Fields whose values make events alike. Default: kind, policy, namespace, pod, operation, action.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub group_by: Option<Vec<GroupField>>,
        /// How many messages may go. Default: 20 a minute for slack, pagerduty and template, 60 for falcosidekick, 120 for
        /// alertmanager.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub rate: Option<RateConfig>,
        /// Credentials.
        pub auth: Auth,
        /// Encryption, for `https`.
        pub tls: ClientTls,
        /// A proxy in between.
        pub proxy: Proxy,
        /// Compression of requests; few such endpoints take it. Default: none.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub compression: Option<Compression>,
        /// Further headers.
        pub headers: BTreeMap<String, String>,
        /// For one request with its answer. Default: 30s.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub timeout: Option<Span>,
    }
}

/// Large batches, so that a flood is few messages; two seconds, so that a burst is one.
pub(crate) static DEFAULTS: Defaults = Defaults {
    batch: BatchLimits {
        max_events: 10_000,
        max_bytes: 16 << 20,
        max_delay: Duration::from_secs(2),
    },
    concurrency: 1,
    max_concurrency: 16,
    fields: FieldSet::All,
};

/// Records of one request.
const RECORDS: usize = 500;

/// What the destination understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Shape {
    /// What `template` says.
    Template,
    /// A list of events as JSON.
    Json,
    /// Events as JSON, one a line.
    Ndjson,
    /// A list of OCSF 1.3 events: Detection Finding, Process, File System, Network and Kernel Activity.
    Ocsf,
    /// An incoming webhook of Slack, or of what takes the same (Mattermost, Rocket.Chat).
    Slack,
    /// Alertmanager's API, version 2: `/api/v2/alerts`.
    Alertmanager,
    /// PagerDuty's Events API, version 2.
    Pagerduty,
    /// What Falco sends to Falcosidekick.
    Falcosidekick,
}

/// The method of the request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verb {
    /// As almost everybody wants it.
    #[default]
    Post,
    /// As some want it.
    Put,
}

/// A field by which events are alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum GroupField {
    /// Alert, Log or Message.
    Kind,
    /// ClusterName.
    Cluster,
    /// HostName.
    Host,
    /// NamespaceName.
    Namespace,
    /// PodName.
    Pod,
    /// ContainerName.
    Container,
    /// PolicyName.
    Policy,
    /// Severity.
    Severity,
    /// Operation.
    Operation,
    /// Action.
    Action,
    /// ProcessName.
    Process,
    /// Resource.
    Resource,
    /// Result.
    Result,
}

const GROUP_BY: [GroupField; 6] = [
    GroupField::Kind,
    GroupField::Policy,
    GroupField::Namespace,
    GroupField::Pod,
    GroupField::Operation,
    GroupField::Action,
];

/// So many messages in such a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RateConfig {
    /// Messages, from 1.
    pub messages: u32,
    /// In this time.
    pub per: Span,
}

impl Shape {
    /// Whether every event stands in a request by itself.
    fn is_records(self) -> bool {
        matches!(self, Shape::Json | Shape::Ndjson | Shape::Ocsf)
    }

    /// Of messages, where nothing else is said. People read some a minute, and a template mostly ends in a chat too;
    /// Falcosidekick hands each to every output it has, and those have bounds of their own; Alertmanager groups what it
    /// gets, but keeps each set of labels in memory. Records have none: every event is wanted.
    fn rate(self) -> Option<RateConfig> {
        let messages = match self {
            Shape::Slack | Shape::Pagerduty | Shape::Template => 20,
            Shape::Falcosidekick => 60,
            Shape::Alertmanager => 120,
            Shape::Json | Shape::Ndjson | Shape::Ocsf => return None,
        };
        Some(RateConfig {
            messages,
            per: Span(Duration::from_secs(60)),
        })
    }
}

impl Config {
    fn url_keys(&self) -> Keys<'_> {
        Keys {
            name: "url",
            file: self.url_file.as_deref(),
            env: self.url_env.as_deref(),
        }
    }

    fn routing_keys(&self) -> Keys<'_> {
        Keys {
            name: "routing_key",
            file: self.routing_key_file.as_deref(),
            env: self.routing_key_env.as_deref(),
        }
    }

    fn options(&self) -> Options<'_> {
        Options {
            tls: &self.tls,
            proxy: &self.proxy,
            auth: &self.auth,
            headers: &self.headers,
            compression: self.compression.unwrap_or(Compression::None),
            timeout: self
                .timeout
                .map_or(Duration::from_secs(30), |Span(time)| time),
        }
    }

    /// Reports files and variables that are not there.
    pub(crate) fn look(&self, node: &Node, problems: &mut Vec<Problem>) {
        self.options().look(node, problems);
        self.url_keys().look(node, problems);
        self.routing_keys().look(node, problems);
    }

    pub(crate) fn check(&self, node: &Node, problems: &mut Vec<Problem>) {
        self.options().check(node, problems);
        self.url_keys().check(node, problems);
        self.routing_keys().check(node, problems);
        let mut wrong = |path: &str, message: String| problems.push(node.problem_at(path, message));
        match (&self.url, self.url_keys().source()) {
            (None, None) => wrong(
                "url",
                "is missing; write url, or url_file where the address is a secret".to_owned(),
            ),
            (Some(_), Some(_)) => wrong("url", "leave out this or url_file".to_owned()),
            (Some(text), None) => match endpoint(text) {
                Err(why) => wrong("url", why),
                Ok(url) if address::is_secret(&url) => wrong("url", address::ADVICE.to_owned()),
                Ok(_) => {}
            },
            (None, Some(_)) => {}
        }
        self.check_shape(&mut wrong);
        if let Some(RateConfig { messages, per }) = self.rate
            && (messages == 0 || per.0 < Duration::from_secs(1))
        {
            wrong("rate", "use at least 1 message and 1s".to_owned());
        }
        if self.group_by.as_ref().is_some_and(Vec::is_empty) {
            wrong("group_by", "name at least one field".to_owned());
        }
    }

    fn check_shape(&self, wrong: &mut dyn FnMut(&str, String)) {
        let Some(shape) = self.shape else {
            let message = "is missing; use template, json, ndjson, ocsf, slack, alertmanager, pagerduty or falcosidekick";
            return wrong("shape", message.to_owned());
        };
        match (&self.template, shape == Shape::Template) {
            (None, true) => wrong("template", "is missing; write the body".to_owned()),
            (Some(_), false) => wrong("template", "belongs to `shape: template`".to_owned()),
            (Some(text), true) => {
                if let Err(why) = template::Template::new(text) {
                    wrong("template", why);
                }
            }
            (None, false) => {}
        }
        if (shape == Shape::Pagerduty) != self.routing_keys().source().is_some() {
            let message =
                "`shape: pagerduty` and a routing_key_file (or routing_key_env) go together";
            wrong("routing_key_file", message.to_owned());
        }
        if shape.is_records() && (self.group_by.is_some() || self.rate.is_some()) {
            let message =
                "this shape sends every event; group_by and rate belong to messages for people";
            wrong("shape", message.to_owned());
        }
        if !shape.is_records() && self.concurrency.is_some_and(|batches| batches > 1) {
            let message = "this shape makes messages of what stands in one batch, which go in order; leave this key out";
            wrong("concurrency", message.to_owned());
        }
    }
}

/// The sink.
pub struct Webhook {
    http: Http,
    address: Address,
    method: Method,
    shape: Shape,
    writer: Writer,
    fields: FieldSet,
    group_by: Vec<GroupField>,
    budget: Option<Budget>,
    standing: Standing,
}

impl Webhook {
    /// Makes the sink; nothing is connected yet.
    ///
    /// # Errors
    /// A file that the settings name cannot be used, or the template is none.
    pub fn build(name: &str, config: &Config, _context: &Context) -> Result<Self, BuildError> {
        let bad = |why: String| BuildError::new(name, why);
        let open = |keys: Keys<'_>| keys.open().map_err(|why| bad(why.to_string()));
        let shape = config.shape.unwrap_or(Shape::Json);
        let address = match open(config.url_keys())? {
            Some(secret) => Address::Secret(secret),
            None => Address::Plain(endpoint(config.url.as_deref().unwrap_or("")).map_err(bad)?),
        };
        let template = config.template.as_deref().map(template::Template::new);
        let writer = Writer {
            sink: name.to_owned(),
            shape,
            routing_key: open(config.routing_keys())?,
            template: template.transpose().map_err(bad)?,
            content_type: config.content_type.clone(),
        };
        Ok(Webhook {
            http: Http::build(&config.options()).map_err(bad)?,
            address,
            method: match config.method {
                Verb::Post => Method::POST,
                Verb::Put => Method::PUT,
            },
            shape,
            writer,
            fields: config.common().fields,
            group_by: config.group_by.clone().unwrap_or(GROUP_BY.to_vec()),
            budget: config.rate.or(shape.rate()).map(Budget::new),
            standing: Standing::default(),
        })
    }

    async fn post(&self, body: Vec<u8>) -> Result<Judged, Unavailable> {
        let request = Request {
            method: self.method.clone(),
            url: self.address.url()?,
            content_type: self.writer.content_type(),
            body,
        };
        let mut answer = self.http.send(request).await?;
        self.hide(&mut answer);
        if let (401 | 403 | 404, Address::Secret(secret)) = (answer.status.as_u16(), &self.address)
        {
            secret.refused();
        }
        answer.judge()
    }

    /// Takes out what a refusal repeats of the address and of the key in the body, where these are secrets.
    fn hide(&self, answer: &mut http::Answer) {
        if answer.status.is_success() {
            return;
        }
        self.address.hide(answer);
        if let Some(key) = &self.writer.routing_key {
            answer.hide(key.current().expose());
        }
    }

    /// Every event, some hundreds a request.
    async fn records(&self, batch: &Batch) -> Result<Vec<Outcome>, Unavailable> {
        let mut outcomes = Vec::with_capacity(batch.len());
        for part in batch.events().chunks(RECORDS) {
            match offer::deliver(self, &Arc::new(Batch::new(part.to_vec()))).await {
                Ok(settled) => outcomes.extend(settled),
                Err(away) if outcomes.is_empty() => return Err(away),
                Err(away) => {
                    outcomes.resize(batch.len(), later(away));
                    break;
                }
            }
        }
        Ok(outcomes)
    }

    /// One message a group, as many as may go now.
    async fn notices(&self, batch: &Batch) -> Result<Vec<Outcome>, Unavailable> {
        let groups = group::of(batch, &self.group_by);
        let may = match &self.budget {
            Some(budget) if !groups.is_empty() => budget.take(groups.len()).await,
            _ => groups.len(),
        };
        self.say(batch, groups, may).await
    }

    /// So many messages at most: the rest is folded into the last.
    async fn say(
        &self,
        batch: &Batch,
        groups: Vec<Group<'_>>,
        may: usize,
    ) -> Result<Vec<Outcome>, Unavailable> {
        let mut outcomes = vec![None; batch.len()];
        // One a message.
        let mut told: Vec<Outcome> = Vec::new();
        for group in group::fold(groups, may) {
            let outcome = self.next(&group, &told).await?;
            for place in group.places() {
                outcomes[place] = Some(outcome.clone());
            }
            let stop = matches!(outcome, Outcome::Retry { .. });
            told.push(outcome);
            if stop {
                break;
            }
        }
        self.standing.learn(&told);
        let rest = told.pop().unwrap_or_else(|| {
            later(Unavailable::new(
                "the event is in no group; please report it",
            ))
        });
        let outcomes = outcomes.into_iter();
        Ok(outcomes
            .map(|o| o.unwrap_or_else(|| rest.clone()))
            .collect())
    }

    /// What becomes of a message, after what became of those before it.
    async fn next(&self, group: &Group<'_>, told: &[Outcome]) -> Result<Outcome, Unavailable> {
        if self.standing.is_enough(told) {
            return Ok(later(Unavailable::new(
                "it refused the messages before this one",
            )));
        }
        match self.notice(group).await {
            Err(away) if !told.is_empty() => Ok(later(away)),
            answered => answered,
        }
    }

    async fn notice(&self, group: &Group<'_>) -> Result<Outcome, Unavailable> {
        let body = match self.writer.notice(group) {
            Ok(body) => body,
            Err(reason) => return Ok(Outcome::Reject { reason }),
        };
        Ok(match self.post(body).await? {
            Judged::Taken(_) => Outcome::Done,
            Judged::Refused(reason) => Outcome::Refuse { reason },
        })
    }
}

fn later(away: Unavailable) -> Outcome {
    Outcome::Retry {
        after: away.after,
        reason: away.reason,
    }
}

#[async_trait]
impl Sink for Webhook {
    async fn send(&self, batch: Arc<Batch>) -> Result<Vec<Outcome>, Unavailable> {
        match self.shape.is_records() {
            true => self.records(&batch).await,
            false => self.notices(&batch).await,
        }
    }

    fn elsewhere(&self) {
        self.http.elsewhere();
    }

    async fn test(&self, event: Carried, trial: &Trial) -> Result<(), Failed> {
        let url = match self.address.url() {
            Ok(url) => url,
            Err(away) => return trial.step("resolve", async { Err(away.reason) }).await,
        };
        self.http.try_out(&url, trial).await?;
        // It answers nothing but messages, so who we are it says to this one. Who tries does not wait for `rate`.
        let batch = Batch::new(vec![event]);
        let sending = async {
            match self.shape.is_records() {
                true => self.records(&batch).await,
                false => self.say(&batch, group::of(&batch, &self.group_by), 1).await,
            }
        };
        trial.write(sending).await
    }
}

impl Destination for Webhook {
    type Item = Vec<u8>;

    fn render(&self, event: &Encoded) -> Result<Vec<u8>, String> {
        match self.shape {
            Shape::Ocsf => shapes::ocsf::event(event),
            _ => match event.json(self.fields) {
                Ok(json) => Ok(json.into_owned()),
                Err(malformed) => Err(unreadable(event.kind(), &malformed)),
            },
        }
    }

    fn standing(&self) -> &Standing {
        &self.standing
    }

    async fn offer(&self, items: &[&Vec<u8>]) -> Result<Answer, Unavailable> {
        Ok(match self.post(self.writer.records(items)).await? {
            Judged::Taken(_) => Answer::Taken,
            Judged::Refused(why) => Answer::Refused(why),
        })
    }
}
