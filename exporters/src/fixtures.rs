//! Events and batches for the sinks' tests.

use std::sync::Arc;

use prost::Message as _;
use proto::{Event, EventId, Kind, StreamId, feeder};

use crate::{Batch, Carried, Encoded};

/// A message of the feed and the kind that it is.
pub(crate) trait Payload {
    fn kind(&self) -> Kind;
    fn bytes(&self) -> Vec<u8>;
}

macro_rules! payload {
    ($($message:ident)*) => { $(
        impl Payload for feeder::$message {
            fn kind(&self) -> Kind {
                Kind::$message
            }
            fn bytes(&self) -> Vec<u8> {
                self.encode_to_vec()
            }
        }
    )* };
}

payload! { Alert Log Message }

/// An alert whose bytes no renderer can read.
pub(crate) struct Broken;

impl Payload for Broken {
    fn kind(&self) -> Kind {
        Kind::Alert
    }
    fn bytes(&self) -> Vec<u8> {
        vec![0x0a, 200]
    }
}

pub(crate) fn alert_named(pod: &str) -> Box<dyn Payload> {
    Box::new(feeder::Alert {
        pod_name: pod.into(),
        ..Default::default()
    })
}

pub(crate) fn broken() -> Box<dyn Payload> {
    Box::new(Broken)
}

impl Payload for Box<dyn Payload> {
    fn kind(&self) -> Kind {
        self.as_ref().kind()
    }
    fn bytes(&self) -> Vec<u8> {
        self.as_ref().bytes()
    }
}

/// A batch of these events, numbered from 1.
pub(crate) fn batch_of<P: Payload>(payloads: impl IntoIterator<Item = P>) -> Arc<Batch> {
    let stream = StreamId(*b"fixtures");
    let events = payloads.into_iter().zip(1..).map(|(payload, sequence)| {
        Carried::from(Encoded::new(Event {
            kind: payload.kind(),
            id: EventId { stream, sequence },
            payload: payload.bytes().into(),
        }))
    });
    Arc::new(Batch::new(events.collect()))
}
