//! What stands for the sink in a program without librdkafka: settings that name it are refused with the reason.

use std::sync::Arc;

use async_trait::async_trait;

use super::{Config, WITHOUT};
use crate::{Batch, BuildError, Context, Outcome, Sink, Unavailable};

/// A sink that there is none of.
pub enum Kafka {}

impl Kafka {
    /// Refuses.
    ///
    /// # Errors
    /// Always.
    pub fn build(name: &str, _config: &Config, _context: &Context) -> Result<Self, BuildError> {
        Err(BuildError::new(name, WITHOUT))
    }
}

#[async_trait]
impl Sink for Kafka {
    async fn send(&self, _batch: Arc<Batch>) -> Result<Vec<Outcome>, Unavailable> {
        match *self {}
    }
}
