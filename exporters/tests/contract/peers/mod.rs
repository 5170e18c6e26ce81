//! Destinations for the contract: scripted, strict about the form of what they get, with a memory of what they have.

pub(crate) mod elasticsearch;
pub(crate) mod file;
pub(crate) mod kafka;
pub(crate) mod loki;
pub(crate) mod otlp;
pub(crate) mod relay;
pub(crate) mod syslog;
pub(crate) mod webhook;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How a destination behaves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Mood {
    Taking,
    /// Not now; again in 7 seconds, where the protocol can say so.
    Busy,
    /// What has this word in it (every text has the empty one) is refused with "I do not like it".
    Refusing(&'static str),
    /// What has this word in it is not taken, the others are; only how many is told (OTLP).
    AllBut(&'static str),
    /// Ends the connection once it has read something, without having kept it.
    Breaking,
}

/// A scripted destination.
pub(crate) trait Peer: Sized {
    /// Begins to listen there.
    async fn start(at: SocketAddr) -> Self;
    /// The settings of a sink that goes there.
    fn settings(at: &str) -> String;
    fn memory(&self) -> &Memory;
    /// How long a pod's name must be for a batch of 20 to be more than its kernel takes unread.
    const BULK: usize = 4;
    /// The steps of a trial that goes well.
    const STEPS: &[&str];
    /// The step that fails where nobody listens.
    const AWAY: &str = "connect";
    /// False: it cannot behave so.
    fn feels(&self, mood: Mood) -> bool {
        self.memory().feels(mood);
        true
    }

    fn at(&self) -> String {
        self.memory().0.lock().unwrap().at.clone()
    }

    /// The ids of the events that it has, in the order in which they came.
    fn has(&self) -> Vec<String> {
        self.memory().ids()
    }

    /// The pod's name of an event that it has.
    fn pod(&self, id: &str) -> String {
        let state = self.memory().0.lock().unwrap();
        let kept = state.kept.iter().find(|(kept, _)| kept == id);
        kept.map(|(_, pod)| pod.clone()).unwrap_or_default()
    }

    /// Waits until it has so many events. Syslog has no answers, so its reader may be behind its kernel.
    async fn settled(&self, count: usize) {
        for _ in 0..3000 {
            if self.has().len() >= count {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{} of {count} events arrived", self.has().len());
    }
}

/// What a destination remembers; a cheap handle.
#[derive(Clone)]
pub(crate) struct Memory(Arc<Mutex<State>>);

struct State {
    at: String,
    mood: Mood,
    kept: Vec<(String, String)>,
}

impl Memory {
    pub(crate) fn new(at: SocketAddr) -> Self {
        Memory(Arc::new(Mutex::new(State {
            at: at.to_string(),
            mood: Mood::Taking,
            kept: Vec::new(),
        })))
    }

    pub(crate) fn feels(&self, mood: Mood) {
        self.0.lock().unwrap().mood = mood;
    }

    pub(crate) fn mood(&self) -> Mood {
        self.0.lock().unwrap().mood
    }

    /// Keeps these events (id, pod).
    pub(crate) fn keep(&self, events: impl IntoIterator<Item = (String, String)>) {
        self.0.lock().unwrap().kept.extend(events);
    }

    pub(crate) fn ids(&self) -> Vec<String> {
        let state = self.0.lock().unwrap();
        state.kept.iter().map(|(id, _)| id.clone()).collect()
    }

    /// Whether it refuses one of these.
    pub(crate) fn refuses(&self, events: &[(String, String)]) -> bool {
        match self.mood() {
            Mood::Refusing(word) => events.iter().any(|(_, pod)| pod.contains(word)),
            _ => false,
        }
    }
}
