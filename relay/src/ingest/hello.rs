//! The first message of a sensor, checked.

use proto::{Digest, LINK_VERSION, StreamId, link};

/// Streams that one sensor may announce: two for each of its starts whose events are not all delivered.
const MAX_STREAMS: usize = 256;

/// Bytes of a sensor's id: a DNS name fits.
const MAX_ID: usize = 253;

/// A sensor that said who it is.
#[derive(Debug, Clone)]
pub(super) struct Hello {
    pub(super) message: link::Hello,
    pub(super) streams: Vec<StreamId>,
    pub(super) rules: Option<Digest>,
    pub(super) blobs: Vec<Digest>,
}

/// Why a first message is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadHello {
    #[error("the first message has to be Hello")]
    NotHello,
    #[error("the connection ended before Hello")]
    Nothing,
    #[error("no Hello within {0:?}")]
    Late(std::time::Duration),
    #[error("link version {0}; this relay speaks version {LINK_VERSION} and its neighbours")]
    Version(u32),
    #[error("a sensor id of {0} bytes; it needs 1 to {MAX_ID}")]
    Id(usize),
    #[error("{0} streams; at most {MAX_STREAMS} can be announced")]
    Streams(usize),
    #[error("a stream id of {0} bytes; expected 8")]
    Stream(usize),
    #[error("a digest of {0} bytes; expected 32")]
    Digest(usize),
}

impl Hello {
    pub(super) fn check(first: link::FromSensor) -> Result<Self, BadHello> {
        let Some(link::from_sensor::Is::Hello(mut message)) = first.is else {
            return Err(BadHello::NotHello);
        };
        if !proto::understands(message.version) {
            return Err(BadHello::Version(message.version));
        }
        if message.sensor.is_empty() || message.sensor.len() > MAX_ID {
            return Err(BadHello::Id(message.sensor.len()));
        }
        if message.streams.len() > MAX_STREAMS {
            return Err(BadHello::Streams(message.streams.len()));
        }
        let stream =
            |bytes: &[u8]| StreamId::try_from(bytes).map_err(|_| BadHello::Stream(bytes.len()));
        let digest =
            |bytes: &[u8]| Digest::try_from(bytes).map_err(|_| BadHello::Digest(bytes.len()));
        let streams = message
            .streams
            .iter()
            .map(|spooled| stream(&spooled.stream))
            .collect::<Result<_, _>>()?;
        let blobs = std::mem::take(&mut message.blobs)
            .iter()
            .map(|blob| digest(blob))
            .collect::<Result<_, _>>()?;
        let rules = if message.rules.is_empty() {
            None
        } else {
            Some(digest(&message.rules)?)
        };
        Ok(Self {
            message,
            streams,
            rules,
            blobs,
        })
    }
}
