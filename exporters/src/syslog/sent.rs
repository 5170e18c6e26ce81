//! Whether the other side's kernel has what was written.
//!
//! `SIOCOUTQ` (linux/sockios.h; tcp(7): "the amount of unsent data in the socket send queue", which for TCP counts what is
//! not acknowledged yet) is asked until it is 0. TLS writes straight into the socket, so it holds for both.

use std::io;
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::dial::Wire;

/// Between two looks, at first and at most: a round trip is shorter or longer than that.
const LOOK: (Duration, Duration) = (Duration::from_micros(200), Duration::from_millis(20));

/// Waits until everything is acknowledged. An error says that the connection does not stand any more.
pub(super) async fn acknowledged(wire: &Wire) -> io::Result<()> {
    let mut pause = LOOK.0;
    while unacknowledged(wire.tcp())? > 0 {
        if let Some(error) = wire.tcp().take_error()? {
            return Err(error);
        }
        sleep(pause).await;
        pause = (pause * 2).min(LOOK.1);
    }
    match stands(wire) {
        true => Ok(()),
        false => Err(io::Error::new(
            io::ErrorKind::ConnectionReset,
            "the receiver closed it while a batch was on its way",
        )),
    }
}

/// Whether neither an error nor the end has come from the other side. Receivers of syslog say nothing, so what can be read
/// is the end, or TLS talking to itself.
pub(super) fn stands(wire: &Wire) -> bool {
    let Ok(None) = wire.tcp().take_error() else {
        return false;
    };
    match peek(wire.tcp()) {
        Ok(0) => false,
        Ok(_) => true,
        Err(error) => error.kind() == io::ErrorKind::WouldBlock,
    }
}

fn peek(stream: &TcpStream) -> io::Result<usize> {
    let mut byte = [0_u8];
    // SAFETY: the descriptor is open as long as `stream` is borrowed, and `byte` has room for the one byte asked for.
    let peeked = unsafe {
        libc::recv(
            stream.as_raw_fd(),
            byte.as_mut_ptr().cast(),
            1,
            libc::MSG_PEEK | libc::MSG_DONTWAIT,
        )
    };
    usize::try_from(peeked).map_err(|_| io::Error::last_os_error())
}

fn unacknowledged(stream: &TcpStream) -> io::Result<libc::c_int> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: TIOCOUTQ, which is SIOCOUTQ for sockets, writes one int to its argument; the descriptor is open as long as
    // `stream` is borrowed.
    match unsafe { libc::ioctl(stream.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) } {
        0 => Ok(bytes),
        _ => Err(io::Error::last_os_error()),
    }
}
