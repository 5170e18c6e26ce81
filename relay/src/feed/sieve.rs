//! Threads for readers whose filters take time.
//!
//! A regular expression can cost more than the event that it looks at, and there may be many readers with some each. On the
//! threads that serve everybody, sensors would wait for them: 64 such readers took two thirds of what ingest did a second.
//! So they run on threads of their own, half as many as the machine has cores, behind all others in the kernel's queue
//! (`nice`, which is a thread's own on Linux: sched(7)). Such a reader lags where the machine is busy, and then it is told
//! what it missed, as every reader is that is late.

use std::num::NonZero;
use std::sync::OnceLock;

use futures::{Stream, StreamExt as _};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// A tenth of what the others get where both want all.
const NICE: i32 = 10;

/// The threads; there are none before the first such reader.
#[derive(Default)]
pub(crate) struct Sieve(OnceLock<Option<Runtime>>);

impl Sieve {
    /// The same stream, made over there: one item ahead of who takes them. Where the system gives no threads it is made here.
    pub(crate) fn strain<T, S>(&self, stream: S) -> impl Stream<Item = T> + Send + use<T, S>
    where
        T: Send + 'static,
        S: Stream<Item = T> + Send + 'static,
    {
        let Some(runtime) = self.0.get_or_init(start) else {
            return stream.left_stream();
        };
        let (give, take) = mpsc::channel(1);
        runtime.spawn(async move {
            let mut stream = std::pin::pin!(stream);
            loop {
                let next = tokio::select! {
                    biased;
                    () = give.closed() => return,
                    next = stream.next() => next,
                };
                let Some(item) = next else { return };
                if give.send(item).await.is_err() {
                    return;
                }
            }
        });
        ReceiverStream::new(take).right_stream()
    }
}

impl Drop for Sieve {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take().flatten() {
            // Whoever drops this may be a task, which must not wait.
            runtime.shutdown_background();
        }
    }
}

fn start() -> Option<Runtime> {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    let runtime = Builder::new_multi_thread()
        .worker_threads((cores / 2).max(1))
        .thread_name("filters")
        .on_thread_start(|| {
            // Refused, it is as important as the others.
            let _ = rustix::process::nice(NICE);
        })
        .enable_time()
        .build();
    runtime
        .inspect_err(
            |error| tracing::warn!(%error, "no threads for filters; they run among all else"),
        )
        .ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn what_is_strained_is_the_same_and_made_by_threads_that_let_others_go_first() {
        let sieve = Sieve::default();
        let made = futures::stream::iter(0..100).map(|n| (n, rustix::process::nice(0).unwrap()));
        let own = rustix::process::nice(0).unwrap();
        let strained: Vec<_> = sieve.strain(made).collect().await;
        let expected: Vec<_> = (0..100).map(|n| (n, (own + NICE).min(19))).collect();
        assert_eq!(strained, expected);
        assert_eq!(rustix::process::nice(0).unwrap(), own, "only there");
    }

    #[tokio::test]
    async fn a_stream_that_nobody_takes_from_any_more_is_let_go() {
        let sieve = Sieve::default();
        let held = Arc::new(());
        let with = held.clone();
        let stream = sieve.strain(futures::stream::pending::<()>().map(move |()| with.clone()));
        assert_eq!(Arc::strong_count(&held), 2);
        drop(stream);
        tokio::time::timeout(Duration::from_secs(60), async {
            while Arc::strong_count(&held) > 1 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .unwrap();
    }
}
