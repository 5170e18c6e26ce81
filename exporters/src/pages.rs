//! Pages of figures on ports of their own: the program around the sinks serves them, a sink only says what is on one.

use std::io;
use std::net::SocketAddr;

use prometheus::Registry;

/// Serves pages. The relay does, with its bounded HTTP listener.
pub trait Pages: Send + Sync {
    /// Takes the address and serves the registry's figures at `/metrics` there until the answer is dropped.
    ///
    /// # Errors
    /// The address cannot be taken.
    fn serve(&self, address: SocketAddr, figures: Registry) -> io::Result<Served>;
}

/// A page that is served for as long as this lives.
pub struct Served {
    /// Where, with the port that the kernel chose where 0 was asked for.
    pub address: SocketAddr,
    _guard: Box<dyn Send + Sync>,
}

impl Served {
    /// `guard` ends the serving when it is dropped.
    #[must_use]
    pub fn new(address: SocketAddr, guard: impl Send + Sync + 'static) -> Self {
        Served {
            address,
            _guard: Box::new(guard),
        }
    }
}
