//! Files that the settings name: whether they are there, told with file, line and key before anything is started.
//!
//! Apart from [`super::check`], which needs nothing but the text: a configuration may be checked on another machine.

use std::fs::File;
use std::path::Path;

use yaml::{Node, Problem};

use super::{Config, LogKind};
use crate::sources::SourceConfig;

impl Config {
    /// Adds what the settings name and what is not there, or is not what it should be. A variable that is not set is a warning.
    pub fn look(&self, node: &Node, problems: &mut Vec<Problem>) {
        self.look_for_own(node, problems);
        if self.relay.log.kind == LogKind::Kafka
            && let Some(log) = node.get("relay").and_then(|relay| relay.get("log"))
        {
            self.relay.log.connection().look(log, problems);
        }
        for (name, sink) in &self.sinks {
            // Those of KubeArmor's variables stand nowhere, and name no files.
            if let Some(node) = node.get("sinks").and_then(|sinks| sinks.key(name)) {
                sink.look(node, problems);
            }
        }
    }

    /// The files of the relay's doors and sources.
    fn look_for_own(&self, node: &Node, problems: &mut Vec<Problem>) {
        let mut look = |path: String, file: Option<&Path>| {
            if let Some(why) = file.and_then(missing) {
                problems.push(node.problem_at(&path, why));
            }
        };
        if let Some(tls) = &self.relay.tls {
            look("relay.tls.cert_file".to_owned(), tls.cert_file.as_deref());
            look("relay.tls.key_file".to_owned(), tls.key_file.as_deref());
            look(
                "relay.tls.client_ca_file".to_owned(),
                tls.client_ca_file.as_deref(),
            );
        }
        for (at, entry) in self.relay.access.iter().enumerate() {
            look(
                format!("relay.access[{at}].token_file"),
                entry.token_file.as_deref(),
            );
        }
        for (name, source) in &self.sources {
            let SourceConfig::KubeArmor(source) = source;
            if let Some(tls) = &source.tls {
                look(format!("sources.{name}.tls.ca_file"), Some(&tls.ca_file));
                look(
                    format!("sources.{name}.tls.cert_file"),
                    tls.cert_file.as_deref(),
                );
                look(
                    format!("sources.{name}.tls.key_file"),
                    tls.key_file.as_deref(),
                );
            }
        }
    }
}

fn missing(file: &Path) -> Option<String> {
    let why = File::open(file).err()?;
    Some(format!("{} cannot be used: {why}", file.display()))
}
