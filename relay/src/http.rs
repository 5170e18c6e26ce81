//! The small HTTP door: is the process alive, do events get through, and all figures.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use exporters::{Page, Pages, Served};
use prometheus::Registry;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::AbortHandle;

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

/// Serves figures on further ports, for sinks that want one.
pub(crate) struct OwnPorts;

impl Pages for OwnPorts {
    fn serve(&self, address: SocketAddr, registry: Registry) -> std::io::Result<Served> {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let listener = Bounded::new(TcpListener::from_std(listener)?, CONNECTIONS, SILENCE);
        let page = get(
            async |State(registry): State<Registry>, headers: HeaderMap| {
                figures(&registry, &headers)
            },
        );
        let routes = Router::new()
            .route("/metrics", page)
            .fallback(async || (StatusCode::NOT_FOUND, "nothing here; there is /metrics\n"))
            .with_state(registry);
        let serving = tokio::spawn(async move { axum::serve(listener, routes).await });
        Ok(Served::new(address, Stop(serving.abort_handle())))
    }
}

/// Ends the serving when it is dropped.
struct Stop(AbortHandle);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
