//! `cresset sink test`: who answers, whether it knows us, whether it takes an event, and whether the event is there.

use std::sync::Arc;

use elasticsearch::http::Method;
use serde_json::Value;

use super::Elasticsearch;
use super::client::Client;
use super::response::failure;
use super::setup::product;
use crate::dial::reach;
use crate::{Batch, Carried, Encoded, Failed, Sink as _, Trial};

pub(super) async fn run(sink: &Elasticsearch, event: Carried, trial: &Trial) -> Result<(), Failed> {
    let client = &sink.client;
    reach(trial, &client.first_hosts()).await?;
    if client.is_encrypted() {
        trial.step("TLS", answers(client)).await?;
    }
    trial.step("authenticate", authenticate(client)).await?;
    let place = sink.bodies.place(&event);
    trial
        .write(sink.send(Arc::new(Batch::new(vec![event.clone()]))))
        .await?;
    let read = async { read_back(client, &place?, &event).await };
    trial.step("read back", read).await
}

async fn answers(client: &Client) -> Result<((), String), String> {
    let answer = client.request(Method::Head, "", None).await;
    let answer = answer.map_err(|unreached| unreached.reason)?;
    Ok(((), format!("{} answers", answer.host)))
}

async fn authenticate(client: &Client) -> Result<((), String), String> {
    let found = product(client).await.map_err(|trouble| trouble.reason())?;
    let silent = || "it does not say what it is".to_owned();
    Ok(((), found.map_or_else(silent, |product| product.name)))
}

/// A document can be read by its id before it can be searched.
async fn read_back(client: &Client, index: &str, event: &Encoded) -> Result<((), String), String> {
    let path = format!("{index}/_doc/{}", event.id());
    let answer = client.request(Method::Get, &path, None).await;
    let answer = answer.map_err(|unreached| unreached.reason)?;
    if answer.status == 403 {
        return Ok(((), "the sink's user may write and not read".to_owned()));
    }
    let told: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    match told["found"] == true {
        true => Ok(((), format!("{index} has it"))),
        false => Err(format!("{path}: {}", failure(answer.status, &answer.body))),
    }
}
