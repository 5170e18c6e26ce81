//! Lifecycles and index templates: named documents that are read, compared and written.

use bytes::Bytes;
use elasticsearch::http::Method;
use serde_json::Value;

use super::differences::differences;
use super::{Trouble, refused};
use crate::elasticsearch::client::{Body, Client};
use crate::elasticsearch::index::{Indices, Layout};
use crate::elasticsearch::lifecycle;
use crate::elasticsearch::template::{Flavour, index_template};
use crate::setup::{Mode, State};

/// One thing that the server must hold.
pub(super) struct Piece {
    pub(super) what: &'static str,
    pub(super) name: String,
    path: String,
    body: Value,
}

const TEMPLATE: &str = "index template";

pub(super) fn pieces(indices: &Indices, flavour: Flavour) -> Vec<Piece> {
    let mut pieces = Vec::new();
    if lifecycle::is_wanted(indices) {
        let folder = match flavour {
            Flavour::Elasticsearch => "_ilm/policy",
            Flavour::OpenSearch => "_plugins/_ism/policies",
        };
        pieces.extend(indices.kinds().map(|kind| Piece {
            what: "lifecycle",
            name: indices.name(kind).to_owned(),
            path: format!("{folder}/{}", indices.name(kind)),
            body: lifecycle::policy(indices, kind, flavour),
        }));
    }
    let mut named = Vec::new();
    for kind in indices.kinds() {
        let name = indices.name(kind);
        // Kinds that share one fixed index share its template: that of the first.
        if !named.contains(&name) {
            named.push(name);
            pieces.push(Piece {
                what: TEMPLATE,
                name: name.to_owned(),
                path: format!("_index_template/{name}"),
                body: index_template(indices, kind, flavour),
            });
        }
    }
    debug_assert!(indices.layout == Layout::Fixed || named.len() == indices.kinds().count());
    pieces
}

impl Piece {
    pub(super) fn has_alias(&self) -> bool {
        self.body["template"].get("aliases").is_some()
    }

    /// Compares, and makes or puts right what the mode says.
    pub(super) async fn settle(&self, client: &Client, mode: Mode) -> Result<State, Trouble> {
        let Some(held) = self.held(client).await? else {
            if mode == Mode::Look {
                return Ok(State::Missing);
            }
            self.put(client, None).await?;
            return Ok(State::Made);
        };
        let mut found = Vec::new();
        differences(&self.body, self.comparable(&held), "", &mut found);
        if found.is_empty() {
            return Ok(State::Same);
        }
        if mode != Mode::Make {
            return Ok(State::Differs(found));
        }
        self.put(client, Some(&held)).await?;
        Ok(State::Changed(found))
    }

    /// What the server has under this name, as it writes it.
    async fn held(&self, client: &Client) -> Result<Option<Value>, Trouble> {
        let answer = client.request(Method::Get, &self.path, None).await?;
        match answer.status {
            404 => Ok(None),
            200 => Ok(serde_json::from_slice(&answer.body).ok()),
            _ => Err(refused(&answer, &format!("GET {}", self.path))),
        }
    }

    async fn put(&self, client: &Client, held: Option<&Value>) -> Result<(), Trouble> {
        let mut path = self.path.clone();
        // OpenSearch takes a new version of a policy only from who has seen the last.
        if let Some((number, term)) = held.and_then(version) {
            path = format!("{path}?if_seq_no={number}&if_primary_term={term}");
        }
        let body = Body {
            bytes: Bytes::from(self.body.to_string()),
            ..Body::default()
        };
        let answer = client.request(Method::Put, &path, Some(body)).await?;
        match answer.status {
            200..=299 => Ok(()),
            _ => Err(refused(&answer, &format!("PUT {path}"))),
        }
    }

    /// Of what the server has, the part that compares with the body.
    fn comparable<'a>(&self, held: &'a Value) -> &'a Value {
        match self.what {
            TEMPLATE => &held["index_templates"][0]["index_template"],
            // ILM has the name above it, ISM has not.
            _ => held.get(&self.name).unwrap_or(held),
        }
    }
}

fn version(held: &Value) -> Option<(u64, u64)> {
    Some((held["_seq_no"].as_u64()?, held["_primary_term"].as_u64()?))
}
