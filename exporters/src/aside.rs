//! Work of milliseconds, off the runtime.
//!
//! A batch is encoded in one go, and a runtime of few threads has many sinks: one that wrote thousands of events in its turn
//! would make all others wait for theirs, and one that gave its turn up after every few would wait for all others each time. On
//! threads of their own the kernel shares the machine among them.

/// Does the work on a thread that may block. Dropping this future does not end the work.
pub(crate) async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        // The fan-out tells of panics; a cancelled task means that the program ends.
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => std::future::pending().await,
        },
    }
}
