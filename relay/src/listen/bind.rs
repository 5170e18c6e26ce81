//! Taking a port or a socket file, or saying who has it.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::net::{TcpListener, UnixListener};

use crate::config::Address;

/// Connections that may wait for `accept`, as tokio asks for TCP.
const BACKLOG: i32 = 1024;

/// An address could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody else listens there.
    #[error(
        "cannot listen on {address} for {listener}: it is in use; {look} shows by whom; stop that program, or give another relay.listen.{listener}"
    )]
    InUse {
        /// `feed`, `link`, `http` or `admin`.
        listener: &'static str,
        /// The address.
        address: Address,
        /// A command to find out.
        look: String,
    },
    /// Anything else.
    #[error("cannot listen on {address} for {listener}: {source}; check relay.listen.{listener}")]
    Other {
        /// `feed`, `link`, `http` or `admin`.
        listener: &'static str,
        /// The address.
        address: Address,
        /// Why.
        source: io::Error,
    },
}

/// A listener that is ready to accept.
#[derive(Debug)]
pub(crate) enum Bound {
    Tcp(TcpListener),
    Unix(
        UnixListener,
        #[allow(dead_code, reason = "held for its Drop")] SocketFile,
    ),
}

impl Bound {
    /// Where it listens: the port that the kernel chose, where 0 was asked for.
    #[cfg(test)]
    pub(crate) fn address(&self) -> io::Result<Address> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(Address::Tcp),
            Self::Unix(_, file) => Ok(Address::Unix(file.0.clone())),
        }
    }
}

/// Removes the socket's name when dropped.
#[derive(Debug)]
pub(crate) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // The next start replaces a name that could not be removed.
        let _ = fs::remove_file(&self.0);
    }
}

/// Takes an address for the listener of this name.
pub(crate) async fn bind(listener: &'static str, address: &Address) -> Result<Bound, BindError> {
    let bound = match address {
        Address::Tcp(tcp) => bind_tcp(*tcp).await,
        Address::Unix(path) => bind_unix(path),
    };
    bound.map_err(|source| {
        let address = address.clone();
        if source.kind() == io::ErrorKind::AddrInUse {
            let look = match &address {
                Address::Tcp(tcp) => format!("`ss -ltnp 'sport = :{}'`", tcp.port()),
                Address::Unix(path) => format!("`ss -lxp 'src {}'`", path.display()),
            };
            BindError::InUse {
                listener,
                address,
                look,
            }
        } else {
            BindError::Other {
                listener,
                address,
                source,
            }
        }
    })
}

async fn bind_tcp(address: SocketAddr) -> io::Result<Bound> {
    TcpListener::bind(address).await.map(Bound::Tcp)
}

fn bind_unix(path: &Path) -> io::Result<Bound> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    remove_left_over(path)?;
    let listener = UnixListener::from_std(private_socket(path)?.into())?;
    Ok(Bound::Unix(listener, SocketFile(path.to_owned())))
}

/// A socket file that nobody listens on was left by a crash.
fn remove_left_over(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(why) => Err(why),
        Ok(found) if !found.file_type().is_socket() => Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "something that is not a socket has this name",
        )),
        Ok(_) => match UnixStream::connect(path) {
            Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
            Err(_) => fs::remove_file(path),
        },
    }
}

/// A listening socket whose file has mode 0600 from the first moment: Linux takes the mode of the socket's own inode,
/// so it is set before the name exists.
fn private_socket(path: &Path) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[tokio::test]
    async fn a_port_in_use_is_named_with_the_way_to_find_its_holder() {
        let first = bind("link", &"127.0.0.1:0".parse().unwrap()).await.unwrap();
        let error = bind("feed", &first.address().unwrap())
            .await
            .unwrap_err()
            .to_string();
        let Address::Tcp(address) = first.address().unwrap() else {
            panic!("a port was asked for")
        };
        assert!(error.contains(&address.to_string()), "{error}");
        assert!(
            error.contains(&format!("ss -ltnp 'sport = :{}'", address.port())),
            "{error}"
        );
        assert!(error.contains("relay.listen.feed"), "{error}");
    }

    #[tokio::test]
    async fn a_socket_file_is_private_replaced_when_left_over_and_never_taken_from_the_living() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/admin.sock");
        let address = Address::Unix(path.clone());
        let first = bind("admin", &address).await.unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert!(matches!(
            bind("admin", &address).await,
            Err(BindError::InUse { .. })
        ));
        let Bound::Unix(listener, file) = first else {
            panic!("a socket was asked for")
        };
        drop(listener);
        std::mem::forget(file);
        assert!(path.exists(), "as after a crash");
        drop(bind("admin", &address).await.unwrap());
        assert!(!path.exists());
        fs::write(&path, "precious").unwrap();
        assert!(bind("admin", &address).await.is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }
}
