//! The small HTTP door: is the process alive, do events get through, and all figures.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus::{Encoder, Registry, TextEncoder};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::listen::Bounded;

/// Connections at one time.
const CONNECTIONS: usize = 256;

/// A connection that says nothing for so long is let go; Prometheus opens a new one.
const SILENCE: Duration = Duration::from_secs(60);

/// Names what is not ready, each with its reason; nothing when events get through.
pub(crate) type Readiness = Arc<dyn Fn() -> Vec<String> + Send + Sync>;

#[derive(Clone)]
struct Door {
    registry: Registry,
    readiness: Readiness,
}

/// Serves until `stop` is true.
pub(crate) async fn serve(
    listener: TcpListener,
    registry: Registry,
    readiness: Readiness,
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

async fn metrics(State(door): State<Door>) -> Response {
    let encoder = TextEncoder::new();
    let mut text = Vec::new();
    match encoder.encode(&door.registry.gather(), &mut text) {
        Ok(()) => (
            [(header::CONTENT_TYPE, encoder.format_type().to_owned())],
            text,
        )
            .into_response(),
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
    let body = json!({"ready": not_ready.is_empty(), "not_ready": not_ready});
    (status, axum::Json(body)).into_response()
}

async fn not_found(uri: Uri) -> Response {
    let text = format!(
        "nothing at {}; there are /metrics (figures), /healthz (the process is alive) and /readyz (events get through)\n",
        uri.path()
    );
    (StatusCode::NOT_FOUND, text).into_response()
}
