//! Policies of relays above this one: a source for each `relay` sink that says `policies: true`.
//!
//! ```text
//! upper relay ══ Downlink.Follow ══▶ task ─▶ Offer ─▶ read, checked and kept like every source ─▶ this relay's sensors
//! ```
//! A link that breaks changes nothing: what was heard last stays in force, also over a restart, and status says since when.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use exporters::{BuildError, SinkConfig, upstream};
use tokio::task::JoinHandle;

use super::{Handle, Offer, SourceConfig};

/// Between two attempts, at most; the first comes at once.
const MAX_WAIT: Duration = Duration::from_secs(15);

/// The relays above; a cheap handle.
#[derive(Clone, Default)]
pub(crate) struct Upper(Arc<Mutex<BTreeMap<String, Above>>>);

/// One of them.
struct Above {
    config: upstream::Config,
    offer: Offer,
    /// None: not begun.
    task: Option<JoinHandle<()>>,
}

impl Drop for Above {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// The sinks whose relays hand policies down.
fn above(sinks: &[(String, SinkConfig)]) -> impl Iterator<Item = (&String, &upstream::Config)> {
    sinks.iter().filter_map(|(name, sink)| match sink {
        SinkConfig::Upstream(config) if config.policies => Some((name, config)),
        _ => None,
    })
}

/// Whether sinks differ in whose policies are taken up.
pub(crate) fn differ(one: &[(String, SinkConfig)], other: &[(String, SinkConfig)]) -> bool {
    !above(one).eq(above(other))
}

impl Upper {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Above>> {
        // Every change is one insert or removal.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The sources that the sinks make. One whose sink has not changed goes on as it is; one without a sink ends.
    pub(crate) fn sources(&self, sinks: &[(String, SinkConfig)]) -> Vec<SourceConfig> {
        let mut relays = self.lock();
        relays.retain(|name, _| above(sinks).any(|(sink, _)| sink == name));
        let source = |(name, config): (&String, &upstream::Config)| {
            let same = |above: &&Above| above.config == *config;
            let offer = relays.get(name).map(|above| above.offer.clone());
            let offer = offer.unwrap_or_default();
            if relays.get(name).filter(same).is_none() {
                let fresh = Above {
                    config: config.clone(),
                    offer: offer.clone(),
                    task: None,
                };
                relays.insert(name.clone(), fresh);
            }
            SourceConfig::Offered(source_name(name), offer)
        };
        above(sinks).map(source).collect()
    }

    /// Begins to hear those that are new. Needs a runtime.
    ///
    /// # Errors
    /// The first settings that cannot be used; the others are heard, and [`Upper::sources`] has them all.
    pub(crate) fn follow(&self, policies: &Handle) -> Result<(), BuildError> {
        let mut followed = Ok(());
        for (name, above) in self
            .lock()
            .iter_mut()
            .filter(|(_, above)| above.task.is_none())
        {
            let way = match upstream::Policies::build(name, &above.config) {
                Ok(way) => way,
                Err(why) => {
                    followed = followed.and(Err(why));
                    continue;
                }
            };
            let heard = Heard {
                name: source_name(name),
                offer: above.offer.clone(),
                policies: policies.clone(),
            };
            above.task = Some(tokio::spawn(heard.run(way)));
        }
        followed
    }
}

fn source_name(sink: &str) -> String {
    format!("relay {sink}")
}

/// What becomes of what is heard.
struct Heard {
    name: String,
    offer: Offer,
    policies: Handle,
}

impl Heard {
    async fn run(self, way: upstream::Policies) {
        let mut wait = Duration::from_millis(200);
        loop {
            let mut heard = false;
            let why = way
                .follow(|texts| {
                    heard = true;
                    self.take(texts);
                })
                .await;
            wait = match heard {
                true => Duration::from_millis(200),
                false => (2 * wait).min(MAX_WAIT),
            };
            if self.offer.trouble(format!(
                "the upstream relay is not heard, its last good policies stay in force: {why}"
            )) {
                tracing::warn!(
                    source = self.name,
                    why,
                    "no policies from the upstream relay"
                );
                self.policies.reread();
            }
            tokio::time::sleep(wait).await;
        }
    }

    fn take(&self, texts: upstream::Texts) {
        tracing::info!(
            source = self.name,
            policies = texts.len(),
            "policies from the upstream relay"
        );
        let own = |(file, text): (String, String)| (format!("{}: {file}", self.name), text);
        self.offer.replace(texts.into_iter().map(own).collect());
        self.policies.reread();
    }
}
