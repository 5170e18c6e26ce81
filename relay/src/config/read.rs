//! File and environment to settings.

use std::path::Path;

use yaml::{Node, Problem, Severity};

use super::environment::{self, Environment};
use super::{Config, check};

/// Settings that have no error.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What the parts are built from.
    pub config: Config,
    /// What is odd but does not stop the relay.
    pub warnings: Vec<Problem>,
    /// Where the settings stand in the file.
    node: Node,
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

    /// The same, if the files are there that it names; problems that are none of those are told with them.
    ///
    /// # Errors
    /// Every problem, warnings included, when a file is missing or not what it should be.
    pub fn looked(mut self) -> Result<Self, Vec<Problem>> {
        self.config.look(&self.node, &mut self.warnings);
        match self.warnings.iter().any(Problem::is_error) {
            true => Err(self.warnings),
            false => Ok(self),
        }
    }

    /// A problem with what stands at `path`, as in `sinks.siem`, that only shows when the settings are used.
    #[must_use]
    pub fn problem_at(&self, path: &str, message: impl Into<String>) -> Problem {
        self.node.problem_at(path, message)
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
                node: node.clone(),
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
        let read = problems.len();
        environment::add_sinks(&mut config, &Environment(environment), problems);
        check::check(&config, node, problems);
        yaml::drop_echoes(problems, read);
        Some(config)
    }
}
