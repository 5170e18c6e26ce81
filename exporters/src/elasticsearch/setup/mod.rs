//! What the server must hold before it holds events: lifecycles, index templates, read aliases.
//!
//! | who asks | [`Mode`] | what is missing | what differs |
//! |---|---|---|---|
//! | the sink, before its first event, each day, after the server was away, after a pause and after an index was made (`index.setup: auto`) | `Fill` | is made | stays as it is |
//! | `cresset sink setup NAME` | `Make` | is made | is put right |
//! | `cresset sink setup NAME --check` | `Look` | is told | is told |
//!
//! It is about the kinds of event that the sink's filter lets through. Each may be asked again and again. What the server does not allow is a step that was refused, and the next step follows.

mod alias;
mod differences;
mod piece;

use elasticsearch::http::Method;
use serde_json::Value;

use super::client::{Answer, Client, Unreached};
use super::index::{Indices, Layout};
use super::response::failure;
use super::settings::Config;
use super::template::Flavour;
use crate::Unavailable;
use crate::setup::{Mode, Report, SetupError, State, Step};

/// Why a step, or all of them, did not come about.
pub(super) enum Trouble {
    /// No host answers, or none has the time.
    Away(String),
    /// The server does not know who asks.
    Unknown(String),
    /// The server says no to this.
    Refused(String),
}

impl Trouble {
    pub(super) fn reason(self) -> String {
        match self {
            Trouble::Away(reason) | Trouble::Unknown(reason) | Trouble::Refused(reason) => reason,
        }
    }
}

impl From<Unreached> for Trouble {
    fn from(unreached: Unreached) -> Self {
        Trouble::Away(unreached.reason)
    }
}

/// For the sink itself; the answer is the cluster's id. A server that does not allow it is told of once, and events go all
/// the same; where an index is in the way of the name that events are read under, they wait.
pub(super) async fn make_missing(
    client: &Client,
    indices: &Indices,
    flavour: Flavour,
) -> Result<Option<String>, Unavailable> {
    let away = |trouble: Trouble| Unavailable::new(trouble.reason());
    let product = product(client).await.map_err(away)?;
    let cluster = product.as_ref().and_then(|product| product.cluster.clone());
    let report = steps(client, product, indices, flavour, Mode::Fill).await;
    let report = report.map_err(away)?;
    for Step { what, name, state } in report.steps {
        match state {
            State::Blocked(reason) => return Err(Unavailable::new(reason)),
            State::Made => tracing::info!(what, name, "the server was prepared for events"),
            State::Changed(told) => tracing::warn!(
                what,
                name,
                told = told.join(", "),
                "an index was made while its template was gone, so the server guessed its fields; it has its alias now. To have \
                 the fields right too, delete the index and send its events again with `cresset sink rewind`"
            ),
            State::Refused(reason) => tracing::warn!(
                what,
                name,
                reason,
                "the server was not prepared for events and may guess the types of their fields; run `cresset sink setup` \
                 as a user who may, or write `index: {{setup: manual}}`"
            ),
            _ => {}
        }
    }
    Ok(cluster)
}

/// The id that a cluster draws when it is made; none if it does not say.
pub(super) async fn cluster(client: &Client) -> Result<Option<String>, Unavailable> {
    let product = product(client).await;
    let product = product.map_err(|trouble| Unavailable::new(trouble.reason()))?;
    Ok(product.and_then(|product| product.cluster))
}

/// Sets up the server of a sink, or looks whether it is.
pub(crate) async fn run(
    config: &Config,
    flavour: Flavour,
    mode: Mode,
) -> Result<Report, SetupError> {
    let client = config.client().map_err(SetupError::Settings)?;
    let indices = Indices::of(config);
    let report = async {
        let product = product(&client).await?;
        steps(&client, product, &indices, flavour, mode).await
    };
    report.await.map_err(|trouble| match trouble {
        Trouble::Away(reason) => SetupError::Unreached(reason),
        Trouble::Unknown(reason) | Trouble::Refused(reason) => SetupError::Refused(reason),
    })
}

async fn steps(
    client: &Client,
    product: Option<Product>,
    indices: &Indices,
    flavour: Flavour,
    mode: Mode,
) -> Result<Report, Trouble> {
    let flavour = product.as_ref().map_or(flavour, |product| product.flavour);
    let mut taken = Vec::new();
    for kind in indices.kinds() {
        if indices.layout == Layout::Daily && alias::is_taken(client, indices.name(kind)).await? {
            taken.push(indices.name(kind).to_owned());
        }
    }
    let mut steps = Vec::new();
    for piece in piece::pieces(indices, flavour) {
        // The server refuses a template whose alias is the name of an index.
        if !(piece.has_alias() && taken.contains(&piece.name)) {
            steps.push(step(
                piece.what,
                &piece.name,
                piece.settle(client, mode).await,
            )?);
        }
    }
    if indices.layout == Layout::Daily {
        for kind in indices.kinds() {
            let name = indices.name(kind);
            let state = match taken.iter().any(|taken| taken == name) {
                true => Ok(State::Blocked(alias::taken(name))),
                false => alias::settle(client, indices, kind, flavour, mode).await,
            };
            steps.push(step("read alias", name, state)?);
        }
    }
    let server = product.map_or_else(|| "the server".to_owned(), |product| product.name);
    Ok(Report { server, steps })
}

fn step(what: &'static str, name: &str, state: Result<State, Trouble>) -> Result<Step, Trouble> {
    let state = match state {
        Err(Trouble::Refused(reason)) => State::Refused(reason),
        state => state?,
    };
    let name = name.to_owned();
    Ok(Step { what, name, state })
}

pub(super) struct Product {
    flavour: Flavour,
    /// What, which version and where.
    pub(super) name: String,
    /// The cluster's id.
    cluster: Option<String>,
}

/// What the server says it is; none if it does not say (a proxy in between, or a user who may not ask).
pub(super) async fn product(client: &Client) -> Result<Option<Product>, Trouble> {
    let answer = client.request(Method::Get, "", None).await?;
    if answer.status == 401 || answer.status >= 500 {
        return Err(refused(&answer, "GET /"));
    }
    let told: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let Some(version) = told["version"]["number"].as_str() else {
        return Ok(None);
    };
    let (flavour, word) = match told["version"]["distribution"] == "opensearch" {
        true => (Flavour::OpenSearch, "OpenSearch"),
        false => (Flavour::Elasticsearch, "Elasticsearch"),
    };
    let name = proto::visible::text(&format!("{word} {version} at {}", answer.host));
    // `_na_` until a new cluster has drawn one.
    let cluster = told["cluster_uuid"].as_str().filter(|id| *id != "_na_");
    Ok(Some(Product {
        flavour,
        name,
        cluster: cluster.map(str::to_owned),
    }))
}

fn refused(answer: &Answer, request: &str) -> Trouble {
    let reason = failure(answer.status, &answer.body);
    let reason = format!("{}: {request}: {reason}", answer.host);
    match answer.status {
        401 => Trouble::Unknown(format!("{reason}; look at the sink's `auth`")),
        408 | 429 | 500.. => Trouble::Away(reason),
        _ => Trouble::Refused(reason),
    }
}
