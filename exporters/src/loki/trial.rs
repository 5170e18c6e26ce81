//! `cresset sink test`: whether Loki can be reached, lets us in, takes an entry, and finds it again.
//!
//! Source: Loki's HTTP API, `GET /loki/api/v1/labels` and `GET /loki/api/v1/query_range`.

use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use serde_json::Value;
use tokio::time::sleep;

use super::{Loki, PUSH};
use crate::http::{Judged, Request};
use crate::offer::Destination as _;
use crate::{Batch, Carried, Encoded, Failed, Sink as _, Trial};

/// An entry can be found as soon as it is in; behind several ingesters that may take a moment.
const LOOKS: u32 = 10;
const PAUSE: Duration = Duration::from_millis(500);
/// Before and after the entry's own time, in nanoseconds.
const AROUND: i128 = 60_000_000_000;

pub(super) async fn run(loki: &Loki, event: Carried, trial: &Trial) -> Result<(), Failed> {
    loki.http.try_out(&loki.url, trial).await?;
    if let Some(labels) = beside(&loki.url, "labels") {
        trial.step("authenticate", let_in(loki, labels)).await?;
    }
    let batch = Arc::new(Batch::new(vec![event.clone()]));
    trial.write(loki.send(batch)).await?;
    let Some(range) = beside(&loki.url, "query_range") else {
        return Ok(());
    };
    trial.step("read back", found(loki, range, &event)).await
}

/// The address of another of Loki's doors; none where pushes go to an address of somebody's own.
fn beside(push: &Url, name: &str) -> Option<Url> {
    let prefix = push.path().strip_suffix(PUSH)?;
    let mut url = push.clone();
    url.set_path(&format!("{prefix}/loki/api/v1/{name}"));
    Some(url)
}

async fn let_in(loki: &Loki, labels: Url) -> Result<((), String), String> {
    let answer = loki.http.send(Request::get(labels)).await;
    let answer = answer.map_err(|away| away.reason)?;
    match answer.status.as_u16() {
        // Who may only write is told so, and what stands before Loki may only know how to push.
        403..=405 | 501 => Ok(((), "it answers; this sink may not read there".to_owned())),
        _ => match answer.judge().map_err(|away| away.reason)? {
            Judged::Taken(_) => Ok(((), "it lets us in".to_owned())),
            Judged::Refused(why) => Err(why),
        },
    }
}

async fn found(loki: &Loki, range: Url, event: &Encoded) -> Result<((), String), String> {
    let url = query(loki, range, event)?;
    for _ in 0..LOOKS {
        let answer = loki.http.send(Request::get(url.clone())).await;
        let answer = answer.map_err(|away| away.reason)?;
        if matches!(answer.status.as_u16(), 401 | 403..=405 | 501) {
            return Ok(((), "this sink may write and not read".to_owned()));
        }
        let told: Value = match answer.judge().map_err(|away| away.reason)? {
            Judged::Taken(body) => serde_json::from_slice(&body).unwrap_or_default(),
            Judged::Refused(why) => return Err(why),
        };
        let streams = told["data"]["result"].as_array();
        if streams.is_some_and(|streams| !streams.is_empty()) {
            return Ok(((), "Loki finds it by its id".to_owned()));
        }
        sleep(PAUSE).await;
    }
    Err("Loki took it and does not find it; look at its own log".to_owned())
}

/// The range of the entry's time, its stream, and its id.
fn query(loki: &Loki, mut range: Url, event: &Encoded) -> Result<Url, String> {
    let entry = loki.render(event)?;
    let labels = entry.stream.iter();
    let labels: Vec<String> = labels
        .map(|(name, value)| format!("{name}={value:?}"))
        .collect();
    let id = event.id();
    let wanted = match loki.metadata {
        true => format!("| event_id=\"{id}\""),
        false => format!("|= \"{id}\""),
    };
    range
        .query_pairs_mut()
        .append_pair("query", &format!("{{{}}} {wanted}", labels.join(",")))
        .append_pair("start", &(entry.nanoseconds - AROUND).to_string())
        .append_pair("end", &(entry.nanoseconds + AROUND).to_string())
        .append_pair("limit", "1");
    Ok(range)
}
