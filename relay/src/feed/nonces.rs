//! How a relay that reads other feeds finds out that it has been given its own.
//!
//! HealthCheck's nonce is drawn at random and remembered while the question is out. If this relay's own door hears that
//! number meanwhile, the question has come home, through whatever proxies and names.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Questions that are out; a cheap handle.
#[derive(Clone, Debug, Default)]
pub struct Nonces {
    /// Whether each of them was heard here.
    out: Arc<Mutex<HashMap<i32, bool>>>,
}

/// One question, until it is dropped.
#[derive(Debug)]
pub(crate) struct Asked {
    nonces: Nonces,
    nonce: i32,
}

impl Nonces {
    /// Draws a nonce to ask with.
    pub(crate) fn ask(&self) -> Asked {
        let mut out = self.lock();
        let is_free = |nonce: &i32| !out.contains_key(nonce);
        // Not negative, as KubeArmor's relay asks: 31 bits.
        let drawn = getrandom::u32().map(|bits| (bits >> 1) as i32).ok();
        // Without randomness any number that is not out will do.
        let nonce = drawn
            .filter(is_free)
            .or_else(|| (0..i32::MAX).find(is_free))
            .unwrap_or_default();
        out.insert(nonce, false);
        Asked {
            nonces: self.clone(),
            nonce,
        }
    }

    /// Somebody asked this relay with `nonce`.
    pub(crate) fn hear(&self, nonce: i32) {
        if let Some(heard) = self.lock().get_mut(&nonce) {
            *heard = true;
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<i32, bool>> {
        self.out.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Asked {
    pub(crate) fn nonce(&self) -> i32 {
        self.nonce
    }

    pub(crate) fn was_heard_here(&self) -> bool {
        self.nonces
            .lock()
            .get(&self.nonce)
            .copied()
            .unwrap_or_default()
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.nonces.lock().remove(&self.nonce);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_that_comes_home_is_recognised_and_others_are_not() {
        let nonces = Nonces::default();
        let (one, other) = (nonces.ask(), nonces.ask());
        assert!(one.nonce() >= 0 && one.nonce() != other.nonce());
        nonces.hear(one.nonce());
        assert!(one.was_heard_here() && !other.was_heard_here());
        drop((one, other));
        assert!(nonces.lock().is_empty());
    }
}
