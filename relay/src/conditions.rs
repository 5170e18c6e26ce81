//! What the program around the relay finds wanting, such as a sensor beside it that ended: said in readiness and status.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What is wanting, by part; a cheap handle.
#[derive(Debug, Clone, Default)]
pub struct Conditions {
    wanting: Arc<Mutex<BTreeMap<String, String>>>,
}

impl Conditions {
    /// Says what is wrong with a part, in place of what was said of it before.
    pub fn set(&self, part: &str, why: &str) {
        self.lock().insert(part.to_owned(), why.to_owned());
    }

    /// Says that nothing is wrong with a part.
    pub fn clear(&self, part: &str) {
        self.lock().remove(part);
    }

    /// Everything that is wrong, as `part: why`.
    pub(crate) fn list(&self) -> Vec<String> {
        let wanting = self.lock();
        wanting
            .iter()
            .map(|(part, why)| format!("{part}: {why}"))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.wanting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
