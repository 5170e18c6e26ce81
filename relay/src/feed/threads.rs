//! Threads for readers of the past: what they read may wait for a disk, or for a broker that does not answer for half a minute.
//!
//! The pool is everybody's: dead letters, cursors and the log's own end need threads of it, too. So readers have a share of it
//! and wait for each other there, however many they are. It is the pool of the runtime that made the share: readers run on
//! others, too ([`super::sieve`]), and what one reads there is shared with those who must not wait for it.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::Semaphore;

/// Readers that read at one time; the pool has 512 threads.
const READERS: usize = 64;

/// The share; a cheap handle.
#[derive(Clone, Debug)]
pub(crate) struct Threads {
    places: Arc<Semaphore>,
    pool: Option<Handle>,
}

impl Default for Threads {
    fn default() -> Self {
        Threads::new(READERS)
    }
}

impl Threads {
    /// A share of so many.
    pub(crate) fn new(most: usize) -> Self {
        Threads {
            places: Arc::new(Semaphore::new(most)),
            pool: Handle::try_current().ok(),
        }
    }

    /// Does what blocks. Whoever stops waiting for it leaves the thread to it until it ends.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        let place = Arc::clone(&self.places).acquire_owned().await;
        let work = move || {
            let done = work();
            drop(place);
            done
        };
        let done = match &self.pool {
            Some(pool) => pool.spawn_blocking(work),
            None => tokio::task::spawn_blocking(work),
        };
        match done.await {
            Ok(done) => done,
            // The task only ends early when the runtime does, and this one with it; or else it panicked.
            Err(ended) => match ended.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => std::future::pending().await,
            },
        }
    }
}

#[cfg(test)]
#[allow(clippy::expect_used, reason = "a test that cannot go on has failed")]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn readers_that_hang_leave_threads_to_everybody_else() {
        let threads = Threads::default();
        let (release, released) = mpsc::channel::<()>();
        let released = Arc::new(std::sync::Mutex::new(released));
        let hanging: Vec<_> = (0..600)
            .map(|_| {
                let (threads, released) = (threads.clone(), Arc::clone(&released));
                // Ends when the sender is dropped.
                tokio::spawn(async move {
                    threads
                        .run(move || drop(released.lock().map(|end| end.recv())))
                        .await;
                })
            })
            .collect();
        let other =
            tokio::time::timeout(Duration::from_secs(60), tokio::task::spawn_blocking(|| 7));
        let other = other.await.expect("a thread is free").expect("it ran");
        assert_eq!(other, 7);
        drop(release);
        for reader in hanging {
            reader.await.expect("it ends");
        }
    }
}
