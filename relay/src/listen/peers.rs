//! How many connections each address has, so that one of them cannot take the room of all others.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// The count of every address with a connection; a cheap handle.
#[derive(Clone, Debug)]
pub(super) struct Peers {
    most: usize,
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl Peers {
    /// At most so many connections of one address.
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            open: Arc::default(),
        }
    }

    /// Counts a connection until the answer is dropped; none when its address has as many as it may. A Unix socket has no
    /// address.
    pub(super) fn enter(&self, address: Option<IpAddr>) -> Option<Entered> {
        let Some(address) = address.map(|address| address.to_canonical()) else {
            return Some(Entered(None));
        };
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(address).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Entered(Some((self.clone(), address))))
    }

    fn leave(&self, address: IpAddr) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                open.remove(&address);
            }
        }
    }
}

/// A connection that is counted.
#[derive(Debug)]
pub(super) struct Entered(Option<(Peers, IpAddr)>);

impl Drop for Entered {
    fn drop(&mut self) {
        if let Some((peers, address)) = self.0.take() {
            peers.leave(address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_is_bounded_and_others_are_not_touched() {
        let peers = Peers::new(2);
        let (a, b): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let first = peers.enter(Some(a)).unwrap();
        let mapped = peers
            .enter(Some("::ffff:10.0.0.1".parse().unwrap()))
            .unwrap();
        assert!(peers.enter(Some(a)).is_none());
        assert!(peers.enter(Some(b)).is_some() && peers.enter(None).is_some());
        drop(first);
        assert!(peers.enter(Some(a)).is_some());
        drop(mapped);
        assert!(
            peers.open.lock().unwrap().is_empty(),
            "nobody is remembered"
        );
    }
}
