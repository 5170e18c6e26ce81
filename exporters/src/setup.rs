//! Setting up a destination before it is used, or looking whether it is set up: `cresset sink setup NAME [--check]`.
//!
//! Most destinations need nothing. One that does says step by step what it found and what it did.

use crate::{SinkConfig, elasticsearch};

/// Whether the destination is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// What is missing is made, what differs is put right.
    Make,
    /// What is missing is made, what differs stays as it is.
    Fill,
    /// Nothing is changed.
    Look,
}

/// What was found and done.
#[derive(Clone, Debug)]
pub struct Report {
    /// The destination in its own words.
    pub server: String,
    /// One thing after the other.
    pub steps: Vec<Step>,
}

/// One thing that the destination must have.
#[derive(Clone, Debug)]
pub struct Step {
    /// What sort of thing.
    pub what: &'static str,
    /// Its name.
    pub name: String,
    /// How it is.
    pub state: State,
}

/// How a thing is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// As it should be.
    Same,
    /// Not there.
    Missing,
    /// There, and these are not as they should be.
    Differs(Vec<String>),
    /// It was not there and is now.
    Made,
    /// These were not as they should be and are now.
    Changed(Vec<String>),
    /// The destination does not allow it, in its own words.
    Refused(String),
    /// Something else is in the way, which only its owner can decide about.
    Blocked(String),
}

impl State {
    /// Nothing is left to do.
    #[must_use]
    pub fn is_good(&self) -> bool {
        matches!(self, State::Same | State::Made | State::Changed(_))
    }
}

/// The destination could not be set up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetupError {
    /// The settings cannot be used.
    #[error("{0}")]
    Settings(String),
    /// It could not be reached.
    #[error("{0}")]
    Unreached(String),
    /// It said no.
    #[error("{0}")]
    Refused(String),
}

/// Sets up the destination of a sink; none if sinks of this type need nothing.
///
/// # Errors
/// [`SetupError`]; what was made before it stays, and the next call goes on from there.
pub async fn run(config: &SinkConfig, mode: Mode) -> Result<Option<Report>, SetupError> {
    use elasticsearch::Flavour;
    let (config, flavour) = match config {
        SinkConfig::Elasticsearch(config) => (config, Flavour::Elasticsearch),
        SinkConfig::OpenSearch(config) => (config, Flavour::OpenSearch),
        _ => return Ok(None),
    };
    elasticsearch::setup::run(config, flavour, mode)
        .await
        .map(Some)
}
