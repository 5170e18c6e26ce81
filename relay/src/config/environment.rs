//! The environment names of KubeArmor's relay, as sinks of ours: whoever replaces it keeps its manifest.
//!
//! Names and meanings are those of kubearmor-relay-server (632123b, `relay-server/server/relayServer.go`). A row of
//! [`SINKS`] says how the settings of one sink follow from them, as they would stand in the file; a sink of that name in
//! the file wins. Nothing else of that relay is said by environment.

use serde_json::{Value, json};
use yaml::{Problem, Severity};

use super::Config;

/// What the environment was when the settings were read.
pub(super) struct Environment<'a>(pub(super) &'a [(String, String)]);

impl Environment<'_> {
    /// A variable that is set to something.
    fn get(&self, name: &str) -> Option<&str> {
        let pair = self.0.iter().find(|(known, _)| known == name);
        pair.map(|(_, value)| value.as_str())
            .filter(|value| !value.is_empty())
    }

    /// Set to `true` in any case.
    fn says(&self, name: &str) -> bool {
        self.get(name)
            .is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }
}

/// A sink that is asked for by the environment.
struct Row {
    /// Its key under `sinks`.
    name: &'static str,
    /// Its settings, if it is asked for.
    settings: fn(&Environment<'_>) -> Option<Value>,
}

const SINKS: &[Row] = &[
    Row {
        name: "kubearmor-stdout",
        settings: standard_output,
    },
    Row {
        name: "kubearmor-elasticsearch",
        settings: elasticsearch,
    },
    Row {
        name: "kubearmor-opensearch",
        settings: opensearch,
    },
];

/// A line of JSON an event.
fn standard_output(environment: &Environment<'_>) -> Option<Value> {
    let kinds = [
        ("ENABLE_STDOUT_ALERTS", "alert"),
        ("ENABLE_STDOUT_LOGS", "log"),
        ("ENABLE_STDOUT_MSGS", "message"),
    ];
    let asked = kinds.iter().filter(|(name, _)| environment.says(name));
    let kinds: Vec<&str> = asked.map(|(_, kind)| *kind).collect();
    (!kinds.is_empty())
        .then(|| json!({"type": "stdout", "format": "json", "filter": {"kinds": kinds}}))
}

/// Alerts, as its Elasticsearch adapter sends them, but each once.
fn elasticsearch(environment: &Environment<'_>) -> Option<Value> {
    (environment.get("ENABLE_DASHBOARDS") == Some("true"))
        .then(|| search(environment, "elasticsearch", "ES", &["alert"]))
}

/// Alerts and logs in one index, as its OpenSearch adapter sends them.
fn opensearch(environment: &Environment<'_>) -> Option<Value> {
    (environment.get("ENABLE_OPENSEARCH_DASHBOARD") == Some("true"))
        .then(|| search(environment, "opensearch", "OS", &["alert", "log"]))
}

/// `PREFIX_URL`, `PREFIX_USERNAME` and so on. Certificates are left unchecked only where the variable says `true`; that relay
/// takes any word for it.
fn search(environment: &Environment<'_>, kind: &str, prefix: &str, kinds: &[&str]) -> Value {
    let get = |name: &str| environment.get(&format!("{prefix}_{name}"));
    let index = get("ALERTS_INDEX").unwrap_or("kubearmor-alerts");
    let mut sink = json!({
        "type": kind,
        "endpoints": [get("URL").unwrap_or("http://localhost:9200")],
        "fields": "kubearmor",
        "filter": {"kinds": kinds},
        "index": {"layout": "fixed", "alert": index, "log": index, "message": index},
    });
    if let (Some(user), Some(_)) = (get("USERNAME"), get("PASSWORD")) {
        let password = format!("{prefix}_PASSWORD");
        sink["auth"] = json!({"username": user, "password_env": password});
    }
    if let Some(file) = get("CA_CERT_PATH") {
        sink["tls"]["ca_file"] = json!(file);
    }
    if environment.says(&format!("{prefix}_ALLOW_INSECURE_TLS")) {
        sink["tls"]["insecure_skip_verify"] = json!(true);
    }
    sink
}

/// Adds the sinks that the environment asks for.
pub(super) fn add_sinks(
    config: &mut Config,
    environment: &Environment<'_>,
    problems: &mut Vec<Problem>,
) {
    for row in SINKS {
        let Some(settings) = (row.settings)(environment) else {
            continue;
        };
        if config.sinks.contains_key(row.name) {
            continue;
        }
        // JSON is YAML, and what a variable holds stands in it as a string, whatever it is.
        let (documents, _) = yaml::parse("environment", &settings.to_string());
        let mut found = Vec::new();
        let sink = documents
            .first()
            .and_then(|node| exporters::SinkConfig::read(node, Severity::Error, &mut found));
        for problem in &mut found {
            (problem.line, problem.column) = (0, 0);
            problem.path = format!("sinks.{}.{}", row.name, problem.path);
        }
        problems.append(&mut found);
        config
            .sinks
            .extend(sink.map(|sink| (row.name.to_owned(), sink)));
    }
}
