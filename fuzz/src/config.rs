//! A settings file, and the environment over it.
//!
//! ```text
//! file │ a line "---env" │ NAME=VALUE, one a line
//! ```

use relay::Settings;

/// Reads it; every problem can be told.
pub fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let (file, environment) = text.split_once("\n---env\n").unwrap_or((text, ""));
    let pairs = environment.lines().filter_map(|line| line.split_once('='));
    let pairs: Vec<_> = pairs
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    match Settings::parse("relay.yaml", file, pairs) {
        Ok(settings) => {
            settings
                .warnings
                .iter()
                .for_each(|problem| assert!(!problem.is_error()));
        }
        Err(problems) => {
            assert!(problems.iter().any(|problem| problem.is_error()));
            assert!(
                problems
                    .iter()
                    .all(|problem| !problem.to_string().is_empty())
            );
        }
    }
}

/// Settings with something of everything, settings with mistakes, and the environment.
pub fn seeds() -> Vec<Vec<u8>> {
    let whole = "version: 1
cluster: prod
relay:
  data_dir: /tmp/x
  listen: {feed: 127.0.0.1:0, link: {address: 0.0.0.0:1, insecure: true}, admin: \"unix:/tmp/a\"}
  retention: {max_age: 7d, max_size: 20GiB, compression: zstd}
  feeds: {max_lag: 60s}
sources: {old: {type: kubearmor, addresses: [\"[::1]:32000\"]}}
sinks:
  console: {type: stdout, format: text, filter: {kinds: [alert], min_severity: 3}}
  archive: {type: file, path: /tmp/y, rotate: {max_size: 1MiB, keep: 2}, retry: {initial: 500ms, max: 30s}}
policies: {sources: [{type: folder, path: /tmp/p}]}
---env
CRESSET__RELAY__FEEDS__MAX_LAG=5s
ENABLE_STDOUT_ALERTS=true
";
    let wrong = "relay: {retention: {max_age: -1s, max_size: 99999999999GiB}, listen: &a [*a]}\nsinks: {a/b: {type: nothing}}\nsinks: 3\n";
    vec![whole.as_bytes().to_vec(), wrong.as_bytes().to_vec()]
}
