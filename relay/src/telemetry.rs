//! What the programs say of themselves: log lines on standard error, as text or as JSON. Standard output is for events.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// For people; in colour on a terminal.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

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
}

/// Sets up logging for this process. `filter` (by default `$RUST_LOG`, else `info`) says which lines are written.
///
/// # Errors
/// The filter cannot be read, or logging is set up already.
pub fn init(format: Format, filter: Option<&str>) -> Result<(), InitError> {
    let from_environment = std::env::var(EnvFilter::DEFAULT_ENV).ok();
    let words = filter
        .or(from_environment.as_deref())
        .filter(|words| !words.is_empty())
        .unwrap_or("info");
    let filter = EnvFilter::try_new(words).map_err(|source| InitError::Filter {
        filter: words.to_owned(),
        source,
    })?;
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_target(false);
    let registry = tracing_subscriber::registry().with(filter);
    match format {
        Format::Text => registry
            .with(lines.with_ansi(std::io::stderr().is_terminal()))
            .try_init()?,
        Format::Json => registry.with(lines.json().flatten_event(true)).try_init()?,
    }
    Ok(())
}
