//! What the programs say of themselves: log lines on standard error, as text or as JSON. Standard output is for events.
//!
//! Which lines are written can be changed while the program runs, and the latest are kept in memory for the administrator
//! (`cresset support-bundle`).

use std::collections::VecDeque;
use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};

use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, reload};

pub use crate::config::Format;

/// Bytes of log lines that are kept in memory.
const KEPT: usize = 256 << 10;

/// Logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The filter's words make no sense.
    #[error("`{filter}` is not a log filter: {source}; write as in `info` or `relay=debug,info`")]
    Filter {
        /// What was given.
        filter: String,
        /// Why.
        source: tracing_subscriber::filter::ParseError,
    },
    /// Something else has set up logging in this process.
    #[error("logging is set up already")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
    /// Logging is gone.
    #[error("logging cannot be changed: {0}")]
    Gone(#[from] reload::Error),
}

/// The logging of this process; a cheap handle.
#[derive(Clone)]
pub struct Logging {
    filter: reload::Handle<EnvFilter, Registry>,
    /// The filter was given on the command line or by the environment, which go before the file.
    fixed: bool,
    latest: Latest,
}

impl Logging {
    /// Writes the lines that `filter` wants from now on; false: the command line or the environment says which.
    ///
    /// # Errors
    /// The filter cannot be read; the old one stays.
    pub fn set(&self, filter: &str) -> Result<bool, InitError> {
        if !self.fixed {
            self.filter.reload(parsed(filter)?)?;
        }
        Ok(!self.fixed)
    }

    /// The latest lines, oldest first.
    #[must_use]
    pub fn latest(&self) -> String {
        let kept = self.latest.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (one, other) = kept.as_slices();
        let bytes = [one, other].concat();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        // The first one was cut where the room ended.
        match text.split_once('\n') {
            Some((_, whole)) if bytes.len() >= KEPT => whole.to_owned(),
            _ => text,
        }
    }
}

/// Sets up logging for this process. `given` (by default `$RUST_LOG`) says which lines are written, else `configured` does.
///
/// # Errors
/// A filter cannot be read, or logging is set up already.
pub fn init(format: Format, given: Option<&str>, configured: &str) -> Result<Logging, InitError> {
    let from_environment = std::env::var(EnvFilter::DEFAULT_ENV).ok();
    let given = given
        .or(from_environment.as_deref())
        .filter(|words| !words.is_empty());
    let filter = parsed(given.unwrap_or(configured))?;
    let (filter, handle) = reload::Layer::new(filter);
    let latest = Latest::default();
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(latest.clone())
        .with_target(false);
    let registry = tracing_subscriber::registry().with(filter);
    match format {
        Format::Text => registry
            .with(lines.with_ansi(io::stderr().is_terminal()))
            .try_init()?,
        Format::Json => registry.with(lines.json().flatten_event(true)).try_init()?,
    }
    Ok(Logging {
        filter: handle,
        fixed: given.is_some(),
        latest,
    })
}

fn parsed(words: &str) -> Result<EnvFilter, InitError> {
    EnvFilter::try_new(words).map_err(|source| InitError::Filter {
        filter: words.to_owned(),
        source,
    })
}

/// Standard error, and the latest lines in memory.
#[derive(Clone, Default)]
struct Latest(Arc<Mutex<VecDeque<u8>>>);

impl<'a> MakeWriter<'a> for Latest {
    type Writer = Latest;

    fn make_writer(&'a self) -> Latest {
        self.clone()
    }
}

impl Write for Latest {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let over = (kept.len() + line.len())
            .saturating_sub(KEPT)
            .min(kept.len());
        kept.drain(..over);
        kept.extend(line);
        drop(kept);
        io::stderr().write_all(line)?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_lines_are_kept_and_the_oldest_go() {
        let mut latest = Latest::default();
        let line = format!("{}\n", "x".repeat(1023));
        for _ in 0..300 {
            // Not to standard error here.
            let mut kept = latest.0.lock().unwrap();
            kept.extend(line.as_bytes());
            drop(kept);
        }
        latest.write_all(b"the last one\n").unwrap();
        let (_, filter) = reload::Layer::new(EnvFilter::new("info"));
        let logging = Logging {
            filter,
            fixed: false,
            latest,
        };
        let text = logging.latest();
        assert!(text.len() <= KEPT && text.ends_with("the last one\n"));
        assert!(
            text.lines()
                .all(|line| line.len() == 1023 || line == "the last one")
        );
    }
}
