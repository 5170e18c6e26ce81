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

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures::future::join_all;
use prost::Message as _;
use proto::query::{LossStatus, SourceStatus};
use proto::{Kind, feeder};
use tokio::sync::{mpsc, oneshot, watch as flag};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::Instrument as _;

use crate::feed::Nonces;
use crate::ingest::{Door, Importer, Ingest};
use crate::log::unix_nanoseconds;
use crate::losses::Origin;
use crate::metrics::Registry;

use self::account::{Account, Metrics, kind_word};
use self::client::Windows;
use self::config::{Address, BadAddress};
use self::daemon::Daemon;

pub use self::config::{KubeArmor, SourceConfig, SourceTls};

/// Bytes that all daemons together may send ahead.
const AHEAD: usize = 32 << 20;

/// The smallest and the largest window of a stream: what RFC 9113 starts with, and one event.
const WINDOW: (usize, usize) = (65_535, 1 << 20);

/// How long a source whose settings changed may take to journal what it has read.
const HAND_OVER: Duration = Duration::from_secs(3);

/// Between two looks at what is to be told.
const LOOK: Duration = Duration::from_secs(1);

/// A source that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("source {name}: {why}")]
pub struct BuildError {
    name: String,
    why: String,
}

/// All daemons, before anybody reads them.
pub(crate) struct Sources {
    maker: Arc<Maker>,
    first: BTreeMap<String, SourceConfig>,
    accounts: Accounts,
    orders: (mpsc::Sender<Order>, mpsc::Receiver<Order>),
    teller: Teller,
}

/// What is known of every daemon that is read; a cheap handle.
type Accounts = Arc<ArcSwap<Vec<Account>>>;

/// Other sources from now on; told what came of each that is not as it was.
type Order = (
    BTreeMap<String, SourceConfig>,
    oneshot::Sender<Vec<(String, &'static str)>>,
);

/// Makes daemons of settings.
struct Maker {
    metrics: Metrics,
    importer: Importer,
    nonces: Nonces,
}

/// The way to change them; cheap to clone.
#[derive(Clone)]
pub(crate) struct Handle(mpsc::Sender<Order>);

impl Handle {
    /// Whether sources could be read with these settings.
    ///
    /// # Errors
    /// A certificate or an address that cannot be used.
    pub(crate) fn check(config: &BTreeMap<String, SourceConfig>) -> Result<(), BuildError> {
        for (name, SourceConfig::KubeArmor(settings)) in config {
            if let Some(files) = &settings.tls {
                tls::connector(files).map_err(|why| of(name, why))?;
            }
            for text in &settings.addresses {
                Address::read(text, settings.tls.is_some())
                    .map_err(|why: BadAddress| of(name, why))?;
            }
        }
        Ok(())
    }

    /// Makes these the sources, which were checked; tells which came, changed and went. Those that stay are read on.
    pub(crate) async fn change(
        &self,
        config: BTreeMap<String, SourceConfig>,
    ) -> Vec<(String, &'static str)> {
        let (done, told) = oneshot::channel();
        // Nobody reads them any more: the relay stops.
        if self.0.send((config, done)).await.is_err() {
            return Vec::new();
        }
        told.await.unwrap_or_default()
    }
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
        Handle::check(config)?;
        let metrics = Metrics::new(registry).map_err(|why| of("metrics", why))?;
        let accounts = Accounts::default();
        let maker = Maker {
            metrics,
            importer: ingest.importer(Door::Source),
            nonces: nonces.clone(),
        };
        Ok(Self {
            maker: Arc::new(maker),
            first: config.clone(),
            orders: mpsc::channel(1),
            teller: Teller {
                accounts: accounts.clone(),
                importer: ingest.importer(Door::Relay),
                origin,
            },
            accounts,
        })
    }

    /// The way to change them while they are read.
    pub(crate) fn handle(&self) -> Handle {
        Handle(self.orders.0.clone())
    }

    /// Reads the state of all daemons whenever it is asked.
    pub(crate) fn status(&self) -> impl Fn() -> Vec<SourceStatus> + Send + Sync + use<> {
        let accounts = self.accounts.clone();
        move || accounts.load().iter().map(Account::status).collect()
    }

    /// Reads all daemons until `stop` is true; ends once what was read is journaled.
    pub(crate) async fn run(self, mut stop: flag::Receiver<bool>) {
        let Self {
            maker,
            first,
            accounts,
            orders: (_, mut orders),
            teller,
        } = self;
        let telling = tokio::spawn(teller.run(stop.clone()));
        let mut reading = Reading {
            maker,
            accounts,
            read: BTreeMap::new(),
        };
        reading.change(first).await;
        loop {
            tokio::select! {
                () = told(&mut stop) => break,
                Some((config, done)) = orders.recv() => {
                    // Whoever asked may have left.
                    let _ = done.send(reading.change(config).await);
                }
            }
        }
        reading.end().await;
        // It ends by the same word; a panic in it is in the log.
        let _ = telling.await;
    }
}

async fn told(stop: &mut flag::Receiver<bool>) {
    // An error says that nobody is left to tell, which is the end as well.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// The sources that are read.
struct Reading {
    maker: Arc<Maker>,
    accounts: Accounts,
    read: BTreeMap<String, Read>,
}

/// One source that is read.
struct Read {
    config: SourceConfig,
    accounts: Vec<Account>,
    stop: flag::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Reading {
    /// Makes these the sources: those that stay are read on.
    async fn change(
        &mut self,
        config: BTreeMap<String, SourceConfig>,
    ) -> Vec<(String, &'static str)> {
        let mut changes = Vec::new();
        let gone = self
            .read
            .iter()
            .filter(|(name, read)| config.get(*name) != Some(&read.config));
        let gone: Vec<String> = gone.map(|(name, _)| name.clone()).collect();
        for name in gone {
            if let Some(read) = self.read.remove(&name) {
                read.end(HAND_OVER).await;
            }
            let how = if config.contains_key(&name) {
                "changed"
            } else {
                "removed"
            };
            changes.push((name, how));
        }
        let windows = windows(config.values().map(|source| source.addresses().len()).sum());
        for (name, config) in config {
            if !self.read.contains_key(&name) {
                if !changes.iter().any(|(known, _)| *known == name) {
                    changes.push((name.clone(), "added"));
                }
                let read = self.maker.read(&name, config, windows);
                self.read.insert(name, read);
            }
        }
        let accounts = self.read.values().flat_map(|read| read.accounts.clone());
        self.accounts.store(Arc::new(accounts.collect()));
        changes
    }

    /// Ends all of them once what they had read is journaled.
    async fn end(self) {
        let all = self.read.into_values().map(|read| read.end(Duration::MAX));
        join_all(all).await;
    }
}

impl Read {
    /// Ends once what was read is journaled, or is cut off.
    async fn end(mut self, within: Duration) {
        self.stop.send_replace(true);
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        if timeout(within, ended).await.is_err() {
            tracing::warn!(
                "a source did not end in time: what it had read and the journal had not taken is gone"
            );
        }
    }
}

impl Maker {
    /// Begins to read a source that was checked.
    fn read(&self, name: &str, config: SourceConfig, windows: Windows) -> Read {
        let SourceConfig::KubeArmor(settings) = &config;
        let (stop, stopped) = flag::channel(false);
        let (mut tasks, mut accounts) = (JoinSet::new(), Vec::new());
        for text in &settings.addresses {
            let address = match Address::read(text, settings.tls.is_some()) {
                Ok(address) => address,
                Err(why) => {
                    tracing::error!(source = name, %why, "an address that was good is no more");
                    continue;
                }
            };
            let account = Account::new(&self.metrics, name, config.kind(), &address.to_string());
            accounts.push(account.clone());
            let span = tracing::error_span!("source", name, address = account.address());
            let daemon = Daemon {
                address,
                tls: settings.tls.clone(),
                windows,
                account,
                importer: self.importer.clone(),
                nonces: self.nonces.clone(),
            };
            tasks.spawn(daemon.run(stopped.clone()).instrument(span));
        }
        Read {
            config,
            accounts,
            stop,
            tasks,
        }
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
    accounts: Accounts,
    importer: Importer,
    origin: Origin,
}

impl Teller {
    async fn run(self, mut stop: flag::Receiver<bool>) {
        // By source and address, whose counters go on when its settings change.
        let mut told: HashMap<(String, String), [u64; 3]> = HashMap::new();
        let mut stopping = false;
        while !stopping {
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                _ = stop.wait_for(|stop| *stop) => stopping = true,
            }
            for account in self.accounts.load_full().iter() {
                let key = (account.source().to_owned(), account.address().to_owned());
                let told = told.entry(key).or_default();
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
