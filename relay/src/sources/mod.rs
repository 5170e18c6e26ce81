//! Events from daemons that know nothing of Cresset: KubeArmor's, or whatever else serves `feeder.LogService`.
//!
//! ```text
//! daemon ══ three watches ══▶ ingest's checks, ids, budget ─▶ journal ─▶ as events of sensors
//! ```
//! They are read as KubeArmor's relay reads its daemons, so a relay of ours can stand where that one stood before anyone
//! replaces a daemon. A daemon numbers nothing, keeps nothing and hears no acknowledgement: what it sends while nobody
//! is connected is gone, and what is lost on the way only it could tell. Events get their ids at arrival, from a stream
//! that is drawn for each source at each start.
//!
//! - Nothing is read that cannot be journaled. A full journal or budget holds the daemon's window, and its own queue
//!   (1,000 of each kind in KubeArmor) decides what it drops.
//! - One bad event is counted and told; its stream goes on. One stream that ends begins again; the others go on.
//! - A relay that reads its own feed would fill its disk with one event. It hears its own HealthCheck and refuses.

mod account;
mod client;
mod config;
mod daemon;
mod deframe;
mod tls;
mod watch;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use prometheus::Registry;
use prost::Message as _;
use proto::query::{LossStatus, SourceStatus};
use proto::{Kind, feeder};
use tokio::sync::watch as flag;
use tokio::task::JoinSet;
use tracing::Instrument as _;

use crate::feed::Nonces;
use crate::ingest::{Door, Importer, Ingest};
use crate::log::unix_nanoseconds;
use crate::losses::Origin;

use self::account::{Account, Metrics, kind_word};
use self::client::Windows;
use self::config::{Address, BadAddress};
use self::daemon::Daemon;

pub use self::config::{KubeArmor, SourceConfig, SourceTls};

/// Bytes that all daemons together may send ahead.
const AHEAD: usize = 32 << 20;

/// The smallest and the largest window of a stream: what RFC 9113 starts with, and one event.
const WINDOW: (usize, usize) = (65_535, 1 << 20);

/// Between two looks at what is to be told.
const LOOK: Duration = Duration::from_secs(1);

/// A source that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("source {name}: {why}")]
pub struct BuildError {
    name: String,
    why: String,
}

/// All daemons.
pub(crate) struct Sources {
    daemons: Vec<Daemon>,
    teller: Teller,
}

impl Sources {
    /// Reads certificates; connects to nobody yet. Events go to `ingest`, and what they lack is told by `origin`.
    ///
    /// # Errors
    /// A certificate that cannot be used, or two parts claim one metric.
    pub(crate) fn build(
        config: &BTreeMap<String, SourceConfig>,
        ingest: &Ingest,
        nonces: &Nonces,
        origin: Origin,
        registry: &Registry,
    ) -> Result<Self, BuildError> {
        let metrics = Metrics::new(registry).map_err(|why| of("metrics", why))?;
        let count = config.values().map(|source| source.addresses().len()).sum();
        let windows = windows(count);
        let mut daemons = Vec::new();
        for (name, source) in config {
            let SourceConfig::KubeArmor(settings) = source;
            if let Some(files) = &settings.tls {
                tls::connector(files).map_err(|why| of(name, why))?;
            }
            let importer = ingest.importer(Door::Source);
            for text in &settings.addresses {
                let address = Address::read(text, settings.tls.is_some())
                    .map_err(|why: BadAddress| of(name, why))?;
                let account = Account::new(&metrics, name, source.kind(), &address.to_string());
                daemons.push(Daemon {
                    address,
                    tls: settings.tls.clone(),
                    windows,
                    account,
                    importer: importer.clone(),
                    nonces: nonces.clone(),
                });
            }
        }
        let accounts = daemons
            .iter()
            .map(|daemon| daemon.account.clone())
            .collect();
        let teller = Teller {
            accounts,
            importer: ingest.importer(Door::Relay),
            origin,
        };
        Ok(Self { daemons, teller })
    }

    /// Reads the state of all daemons whenever it is asked.
    pub(crate) fn status(&self) -> impl Fn() -> Vec<SourceStatus> + Send + Sync + use<> {
        let accounts = self.teller.accounts.clone();
        move || accounts.iter().map(Account::status).collect()
    }

    /// Reads all daemons until `stop` is true; ends once what was read is journaled.
    pub(crate) async fn run(self, stop: flag::Receiver<bool>) {
        let mut tasks = JoinSet::new();
        for daemon in self.daemons {
            let (source, address) = (daemon.account.source(), daemon.account.address());
            let span = tracing::error_span!("source", name = source, address);
            tasks.spawn(daemon.run(stop.clone()).instrument(span));
        }
        tasks.spawn(self.teller.run(stop));
        while tasks.join_next().await.is_some() {}
    }
}

fn of(name: &str, why: impl ToString) -> BuildError {
    BuildError {
        name: name.to_owned(),
        why: why.to_string(),
    }
}

/// What all of them lost, for the list of losses.
pub(crate) fn losses(sources: &[SourceStatus]) -> Vec<LossStatus> {
    account::losses(sources)
}

/// An equal part of what all may send ahead, for each stream of each of `daemons`. The connection's window is larger than
/// its three streams', so that HealthCheck is answered however full they are.
fn windows(daemons: usize) -> Windows {
    let stream = (AHEAD / (4 * daemons.max(1))).clamp(WINDOW.0, WINDOW.1) as u32; // at most 1 MiB
    Windows {
        stream,
        connection: 4 * stream,
    }
}

/// Tells of events that were rejected, as an event. What a daemon tells of itself comes as an event anyway.
struct Teller {
    accounts: Vec<Account>,
    importer: Importer,
    origin: Origin,
}

impl Teller {
    async fn run(self, mut stop: flag::Receiver<bool>) {
        let mut told = vec![[0; 3]; self.accounts.len()];
        let mut stopping = false;
        while !stopping {
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                _ = stop.wait_for(|stop| *stop) => stopping = true,
            }
            for (account, told) in self.accounts.iter().zip(&mut told) {
                for (kind, told) in Kind::ALL.into_iter().zip(told) {
                    let (rejected, why) = account.rejections(kind);
                    // What cannot be told now is told when the journal takes events again.
                    if rejected > *told && self.tell(account, kind, rejected - *told, &why).await {
                        *told = rejected;
                    }
                }
            }
        }
    }

    async fn tell(&self, account: &Account, kind: Kind, count: u64, why: &str) -> bool {
        let (source, address, class) = (account.source(), account.address(), kind_word(kind));
        tracing::warn!(
            source,
            address,
            class,
            count,
            why,
            "events of a source are no events"
        );
        let plural = if count == 1 { "" } else { "s" };
        let text = format!(
            "source {source} ({address}): {count} {class}{plural} could not be taken, the last one because {why}"
        );
        let lost = feeder::Lost {
            r#where: format!("source {source}"),
            class: class.to_owned(),
            count,
            reason: why.to_owned(),
            ..feeder::Lost::default()
        };
        let message = self.origin.warning(unix_nanoseconds(), text, lost);
        let payload = Bytes::from(message.encode_to_vec());
        self.importer
            .import(vec![(Kind::Message, payload)])
            .await
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_share_one_budget_and_leave_room_for_a_health_check() {
        for (daemons, stream) in [(0, 1 << 20), (1, 1 << 20), (32, 262_144), (10_000, 65_535)] {
            let windows = windows(daemons);
            assert_eq!(windows.stream, stream, "{daemons}");
            assert!(windows.connection > 3 * windows.stream);
        }
    }
}
