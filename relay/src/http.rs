//! The small HTTP door: is the process alive, do events get through, and all figures.

mod ports;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use exporters::Page;
use prometheus::Registry;
use proto::query::SinkStatus;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::listen::Bounded;

pub(crate) use self::ports::OwnPorts;

/// Connections at one time, a quarter of them from one address. Who comes when there are as many takes the place of the one that
/// was answered longest ago.
const CONNECTIONS: usize = 256;

/// A connection that says nothing for so long is let go; Prometheus opens a new one.
const SILENCE: Duration = Duration::from_secs(60);

/// Names what is not ready, each with its reason; nothing when events get through.
pub(crate) type Readiness = Arc<dyn Fn() -> Vec<String> + Send + Sync>;

/// What every sink does: shown beside readiness, of which it is no part.
pub(crate) type Sinks = Arc<dyn Fn() -> Vec<SinkStatus> + Send + Sync>;

#[derive(Clone)]
struct Door {
    registry: Registry,
    readiness: Readiness,
    sinks: Sinks,
}

/// Serves until `stop` is true.
pub(crate) async fn serve(
    listener: TcpListener,
    registry: Registry,
    readiness: Readiness,
    sinks: Sinks,
    mut stop: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let routes = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "alive\n" }))
        .route("/readyz", get(ready))
        .fallback(not_found)
        .with_state(Door {
            registry,
            readiness,
            sinks,
        });
    let stopped = async move {
        // An error says that the sender is gone, which is the end as well.
        let _ = stop.wait_for(|stop| *stop).await;
    };
    let listener = Bounded::new(listener, CONNECTIONS, SILENCE);
    axum::serve(listener, routes)
        .with_graceful_shutdown(stopped)
        .await
}

async fn metrics(State(door): State<Door>, headers: HeaderMap) -> Response {
    figures(&door.registry, &headers)
}

/// The registry in the form that the scraper prefers.
fn figures(registry: &Registry, headers: &HeaderMap) -> Response {
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok());
    match Page::new(&registry.gather(), accept) {
        Ok(Page { content_type, body }) => {
            ([(header::CONTENT_TYPE, content_type)], body).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn ready(State(door): State<Door>) -> Response {
    let not_ready = (door.readiness)();
    let status = if not_ready.is_empty() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let sinks = (door.sinks)();
    let sinks: Map<String, Value> = sinks.iter().map(sink).collect();
    let body = json!({"ready": not_ready.is_empty(), "not_ready": not_ready, "sinks": sinks});
    (status, axum::Json(body)).into_response()
}

/// One sink that is down makes nothing unready: its events wait for it.
fn sink(sink: &SinkStatus) -> (String, Value) {
    let mut shown = json!({"state": sink.state, "pending": sink.pending});
    if sink.state != "running" && !sink.last_error.is_empty() {
        shown["last_error"] = json!(sink.last_error);
    }
    (sink.name.clone(), shown)
}

async fn not_found(uri: Uri) -> Response {
    let text = format!(
        "nothing at {}; there are /metrics (figures), /healthz (the process is alive) and /readyz (events get through)\n",
        uri.path()
    );
    (StatusCode::NOT_FOUND, text).into_response()
}
