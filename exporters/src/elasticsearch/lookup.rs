//! Whether the cluster has a document, asked of the cluster itself.

use std::time::Duration;

use elasticsearch::http::Method;
use serde_json::Value;
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::client::Client;
use super::response::failure;
use crate::Found;

/// What a look may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the cluster says of the document at a place. Blocks the thread, which must be one of a runtime that may be blocked.
pub(super) fn look_up(client: &Client, place: String) -> Found {
    let Ok(runtime) = Handle::try_current() else {
        return Found::unseen(place);
    };
    let asked = async { timeout(PATIENCE, ask(client, &place)).await };
    match runtime.block_on(asked) {
        Ok(Ok(())) => Found::seen(place),
        Ok(Err(why)) => Found::unseen(format!("{place} ({why})")),
        Err(_) => Found::unseen(format!(
            "{place} (no answer within {} s)",
            PATIENCE.as_secs()
        )),
    }
}

async fn ask(client: &Client, place: &str) -> Result<(), String> {
    let answer = client.request(Method::Get, place, None).await;
    let answer = answer.map_err(|unreached| format!("cannot be asked: {}", unreached.reason))?;
    let told: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    match (answer.status, told["found"].as_bool()) {
        (_, Some(true)) => Ok(()),
        (_, Some(false)) => Err("it is not there now".to_owned()),
        (404, None) => Err("the index is not there now".to_owned()),
        (403, _) => Err("the sink's user may write and not read".to_owned()),
        (status, None) => Err(failure(status, &answer.body)),
    }
}
