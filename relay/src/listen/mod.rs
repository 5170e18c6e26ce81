//! Listeners: bound before anything runs, each with its own encryption, and each connection for itself.
//!
//! ```text
//! accept ─ room? ─▶ TLS ─▶ HTTP/2 ─▶ gRPC routes
//!             │       │        └─ no HTTP/2, or none in time ─┐
//!             │       └─ no handshake ────────────────────────┴▶ counted, this connection closed, nobody else notices
//!             └─ too many: who asks nothing goes (`places`); if all are busy, wait in the kernel's backlog
//! ```
//! The loop is written here and not left to tonic's server because that one says nothing of connections that fail:
//! garbage on a port has to move a counter.

mod bind;
mod bounded;
mod complaints;
mod files;
mod gate;
mod grpc;
mod places;
mod tls;

pub(crate) use bind::{Bound, bind};
pub(crate) use bounded::Bounded;
pub(crate) use complaints::Complaints;
pub(crate) use files::raise_limit;
pub(crate) use grpc::{Connections, Grpc, Limits};
pub(crate) use tls::{Certificates, Clients, Material, TlsFiles};

pub use bind::BindError;
pub use tls::TlsError;

use std::net::SocketAddr;

use tonic::codegen::http::Extensions;
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};

/// The address that a call comes from; none over a Unix socket.
pub(crate) fn remote_addr(call: &Extensions) -> Option<SocketAddr> {
    let plain = call.get::<TcpConnectInfo>();
    let tls = || call.get::<TlsConnectInfo<TcpConnectInfo>>();
    let info = plain.or_else(|| tls().map(TlsConnectInfo::get_ref));
    info.and_then(TcpConnectInfo::remote_addr)
}
