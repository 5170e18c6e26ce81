//! The name that daily indices are read under: given by their template, and here to those that were made before it.

use std::collections::BTreeMap;

use bytes::Bytes;
use elasticsearch::http::Method;
use proto::Kind;
use serde_json::{Value, json};

use super::{Trouble, refused};
use crate::elasticsearch::client::{Body, Client};
use crate::elasticsearch::index::Indices;
use crate::elasticsearch::lifecycle;
use crate::elasticsearch::template::Flavour;
use crate::setup::{Mode, State};

/// Indices that a name or pattern stands for, with their aliases.
type Found = BTreeMap<String, Value>;

async fn find(client: &Client, pattern: &str) -> Result<Found, Trouble> {
    let path = format!("{pattern}/_alias");
    let answer = client.request(Method::Get, &path, None).await?;
    match answer.status {
        200 => Ok(serde_json::from_slice(&answer.body).unwrap_or_default()),
        404 => Ok(Found::new()),
        _ => Err(refused(&answer, &format!("GET {path}"))),
    }
}

/// Whether an index stands where the alias should. Who may not look is not told.
pub(super) async fn is_taken(client: &Client, name: &str) -> Result<bool, Trouble> {
    match find(client, name).await {
        Ok(found) => Ok(found.contains_key(name)),
        Err(Trouble::Refused(_)) => Ok(false),
        Err(trouble) => Err(trouble),
    }
}

/// What to do then.
pub(super) fn taken(name: &str) -> String {
    format!(
        "there is an index `{name}` already, perhaps of KubeArmor's relay, so days cannot be read under this name; \
         write `index: {{layout: fixed}}` to go on with that index, or another name under `index`"
    )
}

/// Finds the indices that lack the alias, and gives it to them unless the mode is to look: their template was not there when
/// they were made. So they have no lifecycle either, and get that, too, where it is a setting of the index.
pub(super) async fn settle(
    client: &Client,
    indices: &Indices,
    kind: Kind,
    flavour: Flavour,
    mode: Mode,
) -> Result<State, Trouble> {
    let name = indices.name(kind);
    let found = find(client, &indices.pattern(kind)).await?;
    let lacking = |index: &(&String, &Value)| index.1["aliases"].get(name).is_none();
    let without: Vec<&String> = found
        .iter()
        .filter(lacking)
        .map(|(index, _)| index)
        .collect();
    if without.is_empty() {
        return Ok(State::Same);
    }
    let told = without
        .iter()
        .map(|index| format!("{index} was made without it"));
    let told = told.collect();
    if mode == Mode::Look {
        return Ok(State::Differs(told));
    }
    let add = |index: &&String| json!({ "add": { "index": index, "alias": name } });
    let actions: Vec<Value> = without.iter().map(add).collect();
    say(
        client,
        Method::Post,
        "_aliases",
        json!({ "actions": actions }),
    )
    .await?;
    if flavour == Flavour::Elasticsearch && lifecycle::is_wanted(indices) {
        for index in without {
            let settings = json!({ "index": { "lifecycle": { "name": name } } });
            say(client, Method::Put, &format!("{index}/_settings"), settings).await?;
        }
    }
    Ok(State::Changed(told))
}

async fn say(client: &Client, method: Method, path: &str, body: Value) -> Result<(), Trouble> {
    let body = Body {
        bytes: Bytes::from(body.to_string()),
        ..Body::default()
    };
    let answer = client.request(method, path, Some(body)).await?;
    match answer.status {
        200 => Ok(()),
        _ => Err(refused(&answer, path)),
    }
}
