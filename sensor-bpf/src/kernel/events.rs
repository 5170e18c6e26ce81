//! The reading end of the two rings.
//!
//! Programs never wake the reader for a record; they do when a quarter of a ring is full. Otherwise the reader looks
//! every [`LOOK`]: a record costs its writer tens of nanoseconds instead of a wake-up.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use libbpf_rs::{MapCore, RingBuffer, RingBufferBuilder};

use crate::decode::decode;
use crate::observe::Observation;

/// Longest time that a record waits without a wake-up.
const LOOK: Duration = Duration::from_millis(20);
/// Records taken at once, so that a flood cannot grow memory.
const MOST: usize = 8192;

type Queue = Arc<Mutex<Vec<Observation>>>;

/// Records, in the order of each ring; decisions, exec and exit before the rest.
pub struct Events {
    verdicts: RingBuffer<'static>,
    telemetry: RingBuffer<'static>,
    queue: Queue,
    clock: Arc<AtomicU64>,
    unreadable: Arc<AtomicU64>,
    /// Keeps the programs attached while someone reads.
    kernel: super::Kernel,
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

impl Events {
    pub(super) fn new(
        verdicts: &dyn MapCore,
        telemetry: &dyn MapCore,
        kernel: super::Kernel,
    ) -> Result<Self, libbpf_rs::Error> {
        let queue = Queue::default();
        let clock = Arc::new(AtomicU64::new(0));
        let unreadable = Arc::new(AtomicU64::new(0));
        let ring = |map: &dyn MapCore| {
            let (queue, clock, unreadable) = (queue.clone(), clock.clone(), unreadable.clone());
            let mut builder = RingBufferBuilder::new();
            builder.add(map, move |bytes| {
                match decode(bytes, clock.load(Ordering::Relaxed)) {
                    Some(seen) => queue
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(seen),
                    None => _ = unreadable.fetch_add(1, Ordering::Relaxed),
                }
                0
            })?;
            builder.build()
        };
        Ok(Self {
            verdicts: ring(verdicts)?,
            telemetry: ring(telemetry)?,
            queue: queue.clone(),
            clock: clock.clone(),
            unreadable: unreadable.clone(),
            kernel,
        })
    }

    /// Hands over what there is, waiting at most `timeout` for something. Returns how many there were.
    pub fn poll(
        &mut self,
        timeout: Duration,
        sink: &mut dyn FnMut(Observation),
    ) -> io::Result<usize> {
        let end = Instant::now() + timeout;
        loop {
            let taken = self.take(sink)?;
            let left = end.saturating_duration_since(Instant::now());
            if taken > 0 || left.is_zero() {
                return Ok(taken);
            }
            self.sleep(left.min(LOOK))?;
        }
    }

    /// Records that were no records: 0, unless the two halves are of different builds.
    pub fn unreadable(&self) -> u64 {
        self.unreadable.load(Ordering::Relaxed)
    }

    /// The programs that these records come from.
    pub fn kernel(&self) -> &super::Kernel {
        &self.kernel
    }

    fn take(&mut self, sink: &mut dyn FnMut(Observation)) -> io::Result<usize> {
        self.clock.store(boot_to_unix(), Ordering::Relaxed);
        for ring in [&self.verdicts, &self.telemetry] {
            let code = ring.consume_raw_n(MOST);
            if code < 0 {
                return Err(io::Error::from_raw_os_error(-code));
            }
        }
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = std::mem::take(&mut *queue);
        drop(queue);
        let count = seen.len();
        seen.into_iter().for_each(sink);
        Ok(count)
    }

    /// Until a ring is a quarter full, or `time` has passed.
    fn sleep(&self, time: Duration) -> io::Result<()> {
        let wait = |ring: &RingBuffer<'_>| libc::pollfd {
            fd: ring.epoll_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        let mut waits = [wait(&self.verdicts), wait(&self.telemetry)];
        let milliseconds = i32::try_from(time.as_millis().max(1)).unwrap_or(i32::MAX);
        // SAFETY: the array is valid for its length for the whole call.
        let code = unsafe { libc::poll(waits.as_mut_ptr(), 2, milliseconds) };
        if code < 0 {
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
        Ok(())
    }
}

/// Nanoseconds to add to CLOCK_BOOTTIME to get Unix time, as of now.
fn boot_to_unix() -> u64 {
    use rustix::time::{ClockId, clock_gettime};
    let nanoseconds = |clock| {
        let time = clock_gettime(clock);
        i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)
    };
    let offset = nanoseconds(ClockId::Realtime) - nanoseconds(ClockId::Boottime);
    u64::try_from(offset).unwrap_or(0)
}
