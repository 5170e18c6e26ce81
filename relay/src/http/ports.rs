//! Figures on further ports, for sinks that want one.
//!
//! A sink that changes keeps its port: the new one is made while the old one still shows its figures there, so a port shows
//! what was put on it last, and what was there before when that goes.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;
use exporters::{Pages, Served};
use prometheus::Registry;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

use super::{CONNECTIONS, SILENCE, figures};
use crate::listen::Bounded;

/// The ports that are served.
#[derive(Default)]
pub(crate) struct OwnPorts {
    open: Mutex<BTreeMap<SocketAddr, Weak<Port>>>,
}

/// What is shown on a port, the newest last.
type Shown = Arc<Mutex<Vec<(u64, Registry)>>>;

/// One port; it is closed when nobody shows anything there any more.
struct Port {
    shown: Shown,
    serving: AbortHandle,
}

impl Drop for Port {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// What one sink shows on a port.
struct Place {
    port: Arc<Port>,
    number: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        locked(&self.port.shown).retain(|(number, _)| *number != self.number);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pages for OwnPorts {
    fn serve(&self, address: SocketAddr, registry: Registry) -> io::Result<Served> {
        let mut open = locked(&self.open);
        let (address, port) = match open.get(&address).and_then(Weak::upgrade) {
            Some(port) => (address, port),
            None => bind(address)?,
        };
        open.insert(address, Arc::downgrade(&port));
        drop(open);
        let mut shown = locked(&port.shown);
        let number = shown.last().map_or(0, |(number, _)| number + 1);
        shown.push((number, registry));
        drop(shown);
        Ok(Served::new(address, Place { port, number }))
    }
}

fn bind(address: SocketAddr) -> io::Result<(SocketAddr, Arc<Port>)> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let listener = Bounded::new(TcpListener::from_std(listener)?, CONNECTIONS, SILENCE);
    let shown = Shown::default();
    let page = get(async |State(shown): State<Shown>, headers: HeaderMap| {
        let newest = locked(&shown).last().map(|(_, registry)| registry.clone());
        figures(&newest.unwrap_or_default(), &headers)
    });
    let routes = Router::new()
        .route("/metrics", page)
        .fallback(async || (StatusCode::NOT_FOUND, "nothing here; there is /metrics\n"))
        .with_state(shown.clone());
    let serving = tokio::spawn(async move { axum::serve(listener, routes).await }).abort_handle();
    Ok((address, Arc::new(Port { shown, serving })))
}
