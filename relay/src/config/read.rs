//! File and environment to settings.

use std::path::Path;

use yaml::{Node, Problem, Severity};

use super::{Config, check};

/// Settings that have no error.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What the parts are built from.
    pub config: Config,
    /// What is odd but does not stop the relay.
    pub warnings: Vec<Problem>,
}

impl Settings {
    /// Reads a file (none: the defaults), then the environment over it.
    ///
    /// # Errors
    /// Every problem found, warnings included, when at least one is an error.
    pub fn load<E>(file: Option<&Path>, environment: E) -> Result<Self, Vec<Problem>>
    where
        E: IntoIterator<Item = (String, String)>,
    {
        let environment: Vec<(String, String)> = environment.into_iter().collect();
        let (node, problems) = yaml::settings(file, &environment);
        Self::of(&node, problems, &environment)
    }

    /// Reads the text of a file called `name`, then the environment over it.
    ///
    /// # Errors
    /// Every problem found, warnings included, when at least one is an error.
    pub fn parse<E>(name: &str, text: &str, environment: E) -> Result<Self, Vec<Problem>>
    where
        E: IntoIterator<Item = (String, String)>,
    {
        let environment: Vec<(String, String)> = environment.into_iter().collect();
        let (node, problems) = yaml::settings_text(name, text, &environment);
        Self::of(&node, problems, &environment)
    }

    fn of(
        node: &Node,
        mut problems: Vec<Problem>,
        environment: &[(String, String)],
    ) -> Result<Self, Vec<Problem>> {
        let config = Config::read(node, environment, &mut problems);
        let failed = problems.iter().any(Problem::is_error);
        match config {
            Some(config) if !failed => Ok(Self {
                config,
                warnings: problems,
            }),
            _ => Err(problems),
        }
    }
}

impl Config {
    /// Reads a document. None only beside an error in `problems`.
    pub fn read(
        node: &Node,
        environment: &[(String, String)],
        problems: &mut Vec<Problem>,
    ) -> Option<Self> {
        let mut found = Vec::new();
        // An empty document is a tree of nulls, which has all the defaults.
        let read = if node.is_null() {
            Some(Self::default())
        } else {
            node.read(Severity::Error, &mut found)
        };
        check::later_sinks(node, &mut found);
        problems.append(&mut found);
        let mut config: Self = read?;
        standard_output(&mut config, environment);
        check::check(&config, node, problems);
        Some(config)
    }
}

/// The name of the sink that KubeArmor's environment names ask for.
const STANDARD_OUTPUT: &str = "kubearmor-stdout";

/// KubeArmor's relay prints a JSON line an event when told so by these names; so does this one.
fn standard_output(config: &mut Config, environment: &[(String, String)]) {
    let asked = |wanted: &str| {
        environment
            .iter()
            .any(|(name, value)| name == wanted && value.eq_ignore_ascii_case("true"))
    };
    let kinds: Vec<&str> = [
        ("ENABLE_STDOUT_ALERTS", "alert"),
        ("ENABLE_STDOUT_LOGS", "log"),
        ("ENABLE_STDOUT_MSGS", "message"),
    ]
    .into_iter()
    .filter_map(|(name, kind)| asked(name).then_some(kind))
    .collect();
    if kinds.is_empty() {
        return;
    }
    let text = format!(
        "{{type: stdout, format: json, filter: {{kinds: [{}]}}}}",
        kinds.join(", ")
    );
    let (documents, _) = yaml::parse("environment", &text);
    let sink = documents
        .first()
        .and_then(|node| node.read(Severity::Error, &mut Vec::new()));
    if let Some(sink) = sink {
        config
            .sinks
            .entry(STANDARD_OUTPUT.to_owned())
            .or_insert(sink);
    }
}
