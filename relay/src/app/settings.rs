//! From the one configuration file to what each part wants.

use journal::Opened;
use proto::rules;

use super::StartError;
use crate::config::{self, Config};
use crate::ingest::{Budget, SilenceSettings};
use crate::log::Store;
use crate::{feed, ingest, policies};

/// How hard closed segments are compressed: Zstandard's own default.
const ZSTD_LEVEL: i32 = 3;

pub(super) async fn open_log(config: &Config) -> Result<Store, StartError> {
    match config.relay.log.kind {
        config::LogKind::Journal => open_journal(config).await,
        config::LogKind::Kafka => open_kafka(config).await,
    }
}

#[cfg(feature = "kafka")]
async fn open_kafka(config: &Config) -> Result<Store, StartError> {
    let data_dir = config.relay.data_dir.clone();
    let log = &config.relay.log;
    let settings = crate::log::kafka::Config {
        connection: log.connection(),
        topic: log.topic().to_owned(),
        partitions: log.partitions(),
        replication: log.replication,
        max_age: config.relay.retention.max_age.0,
    };
    // Waits for the brokers.
    let opening = tokio::task::spawn_blocking(move || Store::open_kafka(&data_dir, settings));
    Ok(opening.await??)
}

#[cfg(not(feature = "kafka"))]
async fn open_kafka(_: &Config) -> Result<Store, StartError> {
    // Settings that ask for it were refused when they were checked.
    Err(crate::log::OpenError::Kafka(exporters::kafka::WITHOUT.to_owned()).into())
}

async fn open_journal(config: &Config) -> Result<Store, StartError> {
    let data_dir = config.relay.data_dir.clone();
    let retention = &config.relay.retention;
    let settings = journal::Config {
        max_size: retention.max_size.0,
        max_age: retention.max_age.0,
        compression: match retention.compression {
            config::Compression::None => journal::Compression::None,
            config::Compression::Zstd => journal::Compression::Zstd { level: ZSTD_LEVEL },
        },
        // All that may come in at one time: a batch waits at the door or not at all, so a stream keeps its order.
        queue_bytes: Budget::events(ingest_config(config).budget) as u64,
        ..journal::Config::default()
    };
    // Recovery reads the disk.
    let (log, opened) =
        tokio::task::spawn_blocking(move || Store::open(&data_dir, settings)).await??;
    tell_opened(&opened);
    Ok(log)
}

fn tell_opened(opened: &Opened) {
    let Opened {
        created,
        committed,
        segments,
        cut_bytes,
        cursors,
        ..
    } = opened;
    tracing::info!(created, %committed, segments, cut_bytes, cursors, "journal open");
}

/// Where policies come from, and what holds where no rule does.
/// `upper` makes sources of the relays above.
pub(super) fn policies_config(config: &Config, upper: &policies::Upper) -> policies::Config {
    let posture = &config.policies.default_posture;
    let own = config.policies.sources.iter().map(policy_source);
    policies::Config {
        sources: own.chain(upper.sources(&sinks_of(config))).collect(),
        postures: rules::Postures {
            file: wire_posture(posture.file).into(),
            network: wire_posture(posture.network).into(),
            capabilities: wire_posture(posture.capabilities).into(),
            ..rules::Postures::default()
        },
        data_dir: Some(config.relay.data_dir.clone()),
    }
}

fn policy_source(source: &config::PolicySource) -> policies::SourceConfig {
    let config::PolicySource { kind, path, branch } = source;
    match kind {
        config::PolicySourceKind::Git => policies::SourceConfig::Git {
            path: path.clone(),
            branch: branch.clone(),
        },
        // Custom resources are refused when the configuration is checked.
        config::PolicySourceKind::Folder | config::PolicySourceKind::Crd => {
            policies::SourceConfig::Folder(path.clone())
        }
    }
}

fn wire_posture(posture: config::Posture) -> rules::Posture {
    match posture {
        config::Posture::Allow => rules::Posture::Allow,
        config::Posture::Audit => rules::Posture::Audit,
        config::Posture::Block => rules::Posture::Block,
    }
}

pub(super) fn ingest_config(config: &Config) -> ingest::Config {
    ingest::Config {
        // A machine that could not count so far could not hold it either.
        budget: usize::try_from(config.relay.ingest.budget.0).unwrap_or(usize::MAX),
        ..ingest::Config::default()
    }
}

pub(super) fn silence(config: &Config) -> SilenceSettings {
    let sensors = &config.relay.sensors;
    SilenceSettings {
        path: Some(config.relay.data_dir.join("sensors.json")),
        silent_after: sensors.silent_after.0,
        forget_after: sensors.forget_after.0,
    }
}

pub(super) fn feed_config(config: &Config) -> feed::Config {
    feed::Config {
        max_lag: config.relay.feeds.max_lag.0,
        cluster: config.cluster.clone(),
        host: host_name(),
        ..feed::Config::default()
    }
}

pub(super) fn host_name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

/// The sinks in the order of their names, which is the order in which they are shown.
pub(super) fn sinks_of(config: &Config) -> Vec<(String, exporters::SinkConfig)> {
    let sinks = config.sinks.iter();
    sinks
        .map(|(name, sink)| (name.clone(), sink.clone()))
        .collect()
}
