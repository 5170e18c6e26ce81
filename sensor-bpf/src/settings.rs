//! File and environment to settings, with every problem at its line.

use std::path::Path;

use serde::Deserialize;
use serde::de::IgnoredAny;
use yaml::{Node, Problem, Severity};

use crate::config::{Config, SensorConfig};

/// The whole file as the sensor sees it: the other parts' sections are theirs to read.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Document {
    version: Option<u32>,
    cluster: Option<String>,
    sensor: Option<SensorConfig>,
    #[serde(rename = "relay")]
    _relay: IgnoredAny,
    #[serde(rename = "sources")]
    _sources: IgnoredAny,
    #[serde(rename = "sinks")]
    _sinks: IgnoredAny,
    #[serde(rename = "policies")]
    _policies: IgnoredAny,
}

impl Config {
    /// Reads a configuration file, then `CRESSET__SENSOR__KEY` and `CRESSET__CLUSTER` of the environment over it.
    ///
    /// # Errors
    /// Every problem found, when at least one is an error.
    pub fn load<E>(file: &Path, environment: E) -> Result<Self, Vec<Problem>>
    where
        E: IntoIterator<Item = (String, String)>,
    {
        let environment: Vec<(String, String)> = environment.into_iter().collect();
        let (node, mut problems) = yaml::settings(Some(file), &environment);
        let config = Self::read(&node, &mut problems);
        config
            .filter(|_| !problems.iter().any(Problem::is_error))
            .ok_or(problems)
    }

    /// Reads a document. What comes back may be used unless a problem is an error.
    pub fn read(node: &Node, problems: &mut Vec<Problem>) -> Option<Self> {
        let Document {
            version,
            cluster,
            sensor,
            ..
        } = node.read(Severity::Error, problems)?;
        let read = problems.len();
        if let Some(version) = version.filter(|version| *version != 1) {
            let message =
                format!("version {version} of this file is unknown; this program reads version 1");
            problems.push(node.problem_at("version", message));
        }
        let defaults = Self::default();
        let config = Self {
            cluster: cluster.unwrap_or(defaults.cluster),
            sensor: sensor.unwrap_or(defaults.sensor),
        };
        problems.extend(
            config
                .check()
                .into_iter()
                .map(|why| node.problem_at(&why.path, why.message)),
        );
        yaml::drop_echoes(problems, read);
        Some(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn load(text: &str, environment: &[(&str, &str)]) -> Result<Config, Vec<String>> {
        let mut file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let environment = environment
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        let name = file.path().display().to_string();
        Config::load(file.path(), environment).map_err(|problems| {
            problems
                .iter()
                .map(|p| p.to_string().replace(&name, "FILE"))
                .collect()
        })
    }

    #[test]
    fn the_sensor_reads_its_section_and_leaves_the_others_alone() {
        let text = "version: 1\ncluster: prod\nrelay: {whatever: [1]}\nsinks: {a: {type: kafka}}\n\
                    sensor:\n  contain: all\n  spool: {max_size: 64MiB}\n";
        let config = load(text, &[("CRESSET__SENSOR__NODE", "n1"), ("PATH", "/bin")]).unwrap();
        assert_eq!(config.cluster, "prod");
        assert_eq!(config.sensor.contain, crate::config::Contain::All);
        assert_eq!(config.sensor.spool.max_size.0, 64 << 20);
        assert_eq!(config.sensor.node.as_deref(), Some("n1"));
    }

    #[test]
    fn an_empty_file_is_all_defaults() {
        assert_eq!(load("", &[]).unwrap(), Config::default());
    }

    #[test]
    fn every_problem_comes_with_its_line() {
        let text = "version: 2\nsensor:\n  contian: all\n  relay: [\"http://relay.example:9481\"]\n  throttle: {alerts_per_second: many}\n";
        let problems = load(text, &[]).unwrap_err();
        let heads: Vec<String> = problems
            .iter()
            .map(|problem| problem.split(": ").take(2).collect::<Vec<_>>().join(": "))
            .collect();
        for expected in [
            "FILE:1: version",
            "FILE:3: sensor.contian",
            "FILE:4: sensor.relay[0]",
            "FILE:5: sensor.throttle.alerts_per_second",
        ] {
            assert!(
                heads.iter().any(|head| head == expected),
                "{expected} not in {problems:?}"
            );
        }
    }
}
