//! A listener for the HTTP door that admits so many connections and lets go of those that say nothing.
//!
//! A probe must get through whatever others do, so nobody waits for room: who comes takes the place of the connection that was
//! answered longest ago (of its own address, when that has its share). Who only holds connections, or drips into
//! them, is never answered and goes first.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, Sleep, sleep};

/// After an error such as "too many open files", so that trying again does not burn time.
const BREATH: Duration = Duration::from_millis(100);

/// Takes every connection, and keeps so many.
pub(crate) struct Bounded {
    listener: TcpListener,
    guests: Guests,
    silence: Duration,
}

impl Bounded {
    /// At most `connections` at one time, each of which may be silent for `silence`.
    pub(crate) fn new(listener: TcpListener, connections: usize, silence: Duration) -> Self {
        Self {
            listener,
            guests: Guests::new(connections),
            silence,
        }
    }
}

impl axum::serve::Listener for Bounded {
    type Io = Admitted;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Admitted, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    let admitted = Admitted {
                        stream,
                        silence: self.silence,
                        deadline: Box::pin(sleep(self.silence)),
                        guest: self.guests.enter(peer.ip()),
                        guests: self.guests.clone(),
                    };
                    return (admitted, peer);
                }
                Err(error) => {
                    tracing::warn!(%error, listener = "http", "cannot accept a connection");
                    sleep(BREATH).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// Who is there; a cheap handle.
#[derive(Clone)]
struct Guests {
    most: usize,
    of_one_address: usize,
    there: Arc<Mutex<Vec<Arc<Guest>>>>,
}

/// A connection as others see it.
struct Guest {
    address: IpAddr,
    /// When it was last answered; at first, when it came.
    answered: Mutex<Instant>,
    /// Its place is somebody else's.
    dismissed: AtomicBool,
    waker: AtomicWaker,
}

impl Guests {
    fn new(most: usize) -> Self {
        Self {
            most,
            of_one_address: (most / 4).max(1),
            there: Arc::default(),
        }
    }

    /// A place for a connection from `address`, which may be another one's until now.
    fn enter(&self, address: IpAddr) -> Arc<Guest> {
        let guest = Arc::new(Guest {
            address: address.to_canonical(),
            answered: Mutex::new(Instant::now()),
            dismissed: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        });
        let mut there = self.lock();
        let own = |other: &&Arc<Guest>| other.address == guest.address;
        let leaves = if there.iter().filter(own).count() >= self.of_one_address {
            there
                .iter()
                .filter(own)
                .min_by_key(|other| other.answered())
        } else if there.len() >= self.most {
            there.iter().min_by_key(|other| other.answered())
        } else {
            None
        };
        if let Some(leaves) = leaves.cloned() {
            there.retain(|other| !Arc::ptr_eq(other, &leaves));
            leaves.dismiss();
        }
        there.push(guest.clone());
        guest
    }

    fn leave(&self, guest: &Arc<Guest>) {
        self.lock().retain(|other| !Arc::ptr_eq(other, guest));
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Guest>>> {
        self.there.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Guest {
    fn answered(&self) -> Instant {
        *self.answered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self) {
        *self.answered.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn dismiss(&self) {
        self.dismissed.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// An error for one that has no place any more; it is woken when that comes.
    fn stay(&self, context: &Context<'_>) -> io::Result<()> {
        self.waker.register(context.waker());
        match self.dismissed.load(Ordering::Acquire) {
            true => Err(io::ErrorKind::ConnectionAborted.into()),
            false => Ok(()),
        }
    }
}

/// A connection; using it fails after too long a silence of the other side, or when its place is another one's.
pub(crate) struct Admitted {
    stream: TcpStream,
    silence: Duration,
    deadline: Pin<Box<Sleep>>,
    guest: Arc<Guest>,
    guests: Guests,
}

impl Admitted {
    /// What came of asking the other side: that it moved, or an error when it has not for too long.
    fn heard<T>(
        &mut self,
        context: &mut Context<'_>,
        asked: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if asked.is_ready() {
            let next = Instant::now() + self.silence;
            self.deadline.as_mut().reset(next);
            return asked;
        }
        ready!(self.deadline.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.guests.leave(&self.guest);
    }
}

impl AsyncRead for Admitted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.guest.stay(context)?;
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.heard(context, read)
    }
}

impl AsyncWrite for Admitted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.guest.stay(context)?;
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        if matches!(written, Poll::Ready(Ok(_))) {
            self.guest.answer();
        }
        self.heard(context, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use axum::serve::Listener as _;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpSocket;

    use super::*;

    const LONG: Duration = Duration::from_secs(600);

    async fn bounded(connections: usize, silence: Duration) -> (Bounded, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (Bounded::new(listener, connections, silence), address)
    }

    /// Comes from `from` and is admitted: both ends.
    async fn come(bounded: &mut Bounded, to: SocketAddr, from: &str) -> (TcpStream, Admitted) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
        let (near, (far, _)) = tokio::join!(socket.connect(to), bounded.accept());
        (near.unwrap(), far)
    }

    async fn fails_with(connection: &mut Admitted) -> io::ErrorKind {
        let read = tokio::time::timeout(Duration::from_secs(60), connection.read_u8());
        read.await.unwrap().unwrap_err().kind()
    }

    #[tokio::test]
    async fn a_connection_that_says_nothing_is_let_go() {
        let (mut bounded, to) = bounded(8, Duration::from_millis(50)).await;
        let (_near, mut far) = come(&mut bounded, to, "127.0.0.1").await;
        assert_eq!(fails_with(&mut far).await, io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn one_that_takes_no_answer_is_let_go() {
        let (mut bounded, to) = bounded(8, Duration::from_millis(50)).await;
        let (_near, mut far) = come(&mut bounded, to, "127.0.0.1").await;
        let answer = vec![0; 64 << 20];
        let written = tokio::time::timeout(Duration::from_secs(60), far.write_all(&answer));
        let error = written.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn who_comes_takes_the_place_of_who_was_answered_longest_ago() {
        let (mut bounded, to) = bounded(2, LONG).await;
        let (_a, mut answered) = come(&mut bounded, to, "127.0.0.1").await;
        let (mut b, mut drips) = come(&mut bounded, to, "127.0.0.2").await;
        answered.write_u8(1).await.unwrap();
        b.write_u8(1).await.unwrap();
        drips.read_u8().await.unwrap();
        let (_c, _far) = come(&mut bounded, to, "127.0.0.3").await;
        assert_eq!(
            fails_with(&mut drips).await,
            io::ErrorKind::ConnectionAborted
        );
        answered.write_u8(1).await.unwrap();
        drop(drips);
        assert_eq!(bounded.guests.lock().len(), 2);
    }

    #[tokio::test]
    async fn one_address_takes_its_own_places_only() {
        let (mut bounded, to) = bounded(8, LONG).await;
        let (_a, mut other) = come(&mut bounded, to, "127.0.0.1").await;
        let mut many = Vec::new();
        for _ in 0..3 {
            many.push(come(&mut bounded, to, "127.0.0.2").await);
        }
        let (_, first) = &mut many[0];
        assert_eq!(fails_with(first).await, io::ErrorKind::ConnectionAborted);
        other.write_u8(1).await.unwrap();
        assert_eq!(bounded.guests.lock().len(), 3);
    }
}
