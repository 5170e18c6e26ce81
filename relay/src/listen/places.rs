//! The places of a listener: how many connections each address has, and who goes when there are too many.
//!
//! A sensor must get through whatever strangers do, so it does not wait for them. Where there is no place, the connection
//! on which nothing is asked gives up its own: first those on which no call was ever admitted, then the one that has
//! been idle for longest. A newcomer from a crowded address takes the place of one of that address only. Whoever came a
//! moment ago stays, or a herd that comes back after an outage would drive itself out for ever.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::gate::Calls;

/// A connection may be without a call for so long, whoever comes.
const PATIENCE: Duration = Duration::from_secs(2);

/// After a look that found nobody there is none for so long: looking costs, and newcomers cost their sender less.
const AGAIN: Duration = Duration::from_millis(100);

/// The connections of one listener; a cheap handle.
#[derive(Clone, Debug)]
pub(super) struct Places {
    per_peer: usize,
    handshakes: usize,
    there: Arc<Mutex<There>>,
}

#[derive(Debug, Default)]
struct There {
    next: u64,
    guests: HashMap<u64, Guest>,
    peers: HashMap<IpAddr, Counts>,
    /// When the last look found nobody who could go.
    nobody: Option<Instant>,
}

/// A connection as others see it.
#[derive(Debug)]
struct Guest {
    address: Option<IpAddr>,
    greeting: bool,
    calls: Arc<Calls>,
    leave: Arc<Notify>,
}

/// Connections of one address, and those of them that have not said their first words.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    open: usize,
    greeting: usize,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// Its address has as many connections as it may.
    Peer,
    /// Its address has as many unfinished handshakes as it may.
    Handshakes,
}

// === impl Places ===

impl Places {
    /// So many connections of one address, and so many unfinished handshakes among them.
    pub(super) fn new(per_peer: usize, handshakes: usize) -> Self {
        Self {
            per_peer,
            handshakes,
            there: Arc::default(),
        }
    }

    /// A place for a connection on which these calls are made. A Unix socket has no address.
    pub(super) fn enter(&self, address: Option<IpAddr>, calls: Arc<Calls>) -> Result<Place, Full> {
        let address = address.map(|address| address.to_canonical());
        let now = Instant::now();
        let mut there = self.lock();
        if let Some(address) = address {
            let own = |guest: &Guest| guest.address == Some(address);
            if there.counts(address).open >= self.per_peer && !there.dismiss(now, own) {
                return Err(Full::Peer);
            }
            let greeting = |guest: &Guest| own(guest) && guest.greeting;
            if there.counts(address).greeting >= self.handshakes && !there.dismiss(now, greeting) {
                return Err(Full::Handshakes);
            }
        }
        let leave = Arc::new(Notify::new());
        let number = there.add(Guest {
            address,
            greeting: true,
            calls,
            leave: leave.clone(),
        });
        drop(there);
        Ok(Place {
            places: self.clone(),
            number,
            leave,
        })
    }

    /// Sends somebody away, if there is anybody who asks nothing.
    pub(super) fn make_room(&self) {
        self.lock().dismiss(Instant::now(), |_| true);
    }

    fn lock(&self) -> MutexGuard<'_, There> {
        self.there.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl There ===

impl There {
    fn counts(&self, address: IpAddr) -> Counts {
        self.peers.get(&address).copied().unwrap_or_default()
    }

    fn add(&mut self, guest: Guest) -> u64 {
        if let Some(address) = guest.address {
            let counts = self.peers.entry(address).or_default();
            counts.open += 1;
            counts.greeting += 1;
        }
        self.next += 1;
        self.guests.insert(self.next, guest);
        self.next
    }

    fn greeted(&mut self, number: u64) {
        let Some(guest) = self.guests.get_mut(&number) else {
            return;
        };
        let was = std::mem::replace(&mut guest.greeting, false);
        let counts = guest
            .address
            .and_then(|address| self.peers.get_mut(&address));
        if let Some(counts) = counts.filter(|_| was) {
            counts.greeting -= 1;
        }
    }

    fn remove(&mut self, number: u64) -> Option<Guest> {
        let guest = self.guests.remove(&number)?;
        if let Some(address) = guest.address
            && let Some(counts) = self.peers.get_mut(&address)
        {
            counts.open -= 1;
            counts.greeting -= usize::from(guest.greeting);
            if counts.open == 0 {
                self.peers.remove(&address);
            }
        }
        Some(guest)
    }

    /// Sends away who has asked nothing for longest among `these`; false: all of them are busy, or new.
    fn dismiss(&mut self, now: Instant, these: impl Fn(&Guest) -> bool) -> bool {
        if self.nobody.is_some_and(|nobody| now < nobody + AGAIN) {
            return false;
        }
        let idle = self.guests.iter().filter_map(|(number, guest)| {
            let idle = guest.calls.idle().filter(|idle| *idle >= PATIENCE)?;
            let known = guest.calls.any();
            these(guest).then_some(((known, Reverse(idle)), *number))
        });
        let leaves = idle.min().map(|(_, number)| number);
        self.nobody = leaves.is_none().then_some(now);
        let leaves = leaves.and_then(|number| self.remove(number));
        // Heard also by who does not listen yet.
        leaves.inspect(|guest| guest.leave.notify_one()).is_some()
    }
}

/// A connection's place, until this is dropped or another one has it.
#[derive(Debug)]
pub(super) struct Place {
    places: Places,
    number: u64,
    leave: Arc<Notify>,
}

impl Place {
    /// It has said its first words.
    pub(super) fn greeted(&self) {
        self.places.lock().greeted(self.number);
    }

    /// Ends when the place is another one's.
    pub(super) async fn taken(&self) {
        self.leave.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.lock().remove(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    /// Calls of a connection that has been without one for so long.
    fn quiet(idle: Duration) -> Arc<Calls> {
        Arc::new(Calls::since(Instant::now().checked_sub(idle).unwrap()))
    }

    async fn is_taken(place: &Place) -> bool {
        tokio::time::timeout(Duration::from_millis(20), place.taken())
            .await
            .is_ok()
    }

    #[tokio::test]
    async fn one_address_is_bounded_and_others_are_not_touched() {
        let places = Places::new(2, 2);
        let enter = |address: &str| places.enter(ip(address), quiet(Duration::ZERO));
        let first = enter("10.0.0.1").unwrap();
        let mapped = enter("::ffff:10.0.0.1").unwrap();
        assert_eq!(enter("10.0.0.1").unwrap_err(), Full::Peer);
        assert!(enter("10.0.0.2").is_ok());
        assert!(places.enter(None, quiet(LONG)).is_ok());
        drop(first);
        assert!(enter("10.0.0.1").is_ok());
        drop(mapped);
        let there = places.lock();
        assert!(there.peers.is_empty() && there.guests.is_empty());
    }

    #[tokio::test]
    async fn who_has_asked_nothing_for_longest_makes_room_and_who_was_served_last_of_all() {
        let places = Places::new(3, 3);
        let (busy, served) = (quiet(LONG), quiet(4 * LONG));
        let call = Calls::begin(&busy);
        drop(Calls::begin(&served));
        served.set_last(Instant::now().checked_sub(4 * LONG).unwrap());
        let enter = |calls| places.enter(ip("10.0.0.1"), calls).unwrap();
        let other = places.enter(ip("10.0.0.2"), quiet(9 * LONG)).unwrap();
        let all = [enter(busy), enter(served), enter(quiet(LONG))];
        let newcomer = enter(quiet(Duration::ZERO));
        assert!(
            is_taken(&all[2]).await,
            "a stranger goes before a known one"
        );
        let second = enter(quiet(Duration::ZERO));
        assert!(is_taken(&all[1]).await, "idle, and the newcomers are new");
        let none = places.enter(ip("10.0.0.1"), quiet(Duration::ZERO));
        assert_eq!(none.unwrap_err(), Full::Peer);
        assert!(!is_taken(&all[0]).await && !is_taken(&other).await);
        drop((call, newcomer, second));
        places.lock().nobody = None;
        places.make_room();
        assert!(is_taken(&other).await, "room for anybody is anybody's");
    }

    #[tokio::test]
    async fn unfinished_handshakes_are_bounded_and_who_has_spoken_does_not_count() {
        let places = Places::new(9, 1);
        let enter = |idle| places.enter(ip("10.0.0.1"), quiet(idle));
        let spoken = enter(LONG).unwrap();
        spoken.greeted();
        spoken.greeted();
        let silent = enter(Duration::ZERO).unwrap();
        assert_eq!(enter(LONG).unwrap_err(), Full::Handshakes);
        drop(silent);
        let silent = enter(LONG).unwrap();
        places.lock().nobody = None;
        let next = enter(Duration::ZERO).unwrap();
        assert!(is_taken(&silent).await && !is_taken(&spoken).await);
        drop((silent, next, spoken));
        assert!(places.lock().peers.is_empty());
    }
}
