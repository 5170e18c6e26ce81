//! What the types let through: listeners that would tell everybody everything, and keys of later versions.

use std::collections::BTreeSet;
use std::time::Duration;

use yaml::{Node, Problem};

use super::{Address, Config, Listen, PolicySourceKind, Rollout, Tls, telemetry};
use crate::access;

/// Kinds of sink that the file's language has and a build may lack (feature `kafka`).
const LATER_SINKS: [&str; 1] = ["kafka"];

/// Smallest journal: below that it would be all segment heads.
const MIN_JOURNAL: u64 = 64 << 20;

/// Least memory for what comes in: a few of the largest batches.
const MIN_INGEST: u64 = 64 << 20;

/// Most: the journal's queue takes an eighth, and that at most 1 GiB.
const MAX_INGEST: u64 = 8 << 30;

/// Shortest life of a certificate: what tests can wait for.
const MIN_LIFETIME: Duration = Duration::from_secs(10);

/// Nobody watches canaries for longer.
const LONGEST_HOLD: Duration = Duration::from_secs(30 * 24 * 3600);

/// Least silence that is told: two of the sensors' words, and one more.
const MIN_SILENCE: yaml::Span = yaml::Span(std::time::Duration::from_secs(5));

/// What stands behind a key that cannot be used yet.
const LATER: &str = "not available in this version; take it out";

/// Adds every problem of settings that were read.
pub(super) fn check(config: &Config, node: &Node, problems: &mut Vec<Problem>) {
    let mut checker = Checker { node, problems };
    checker.version(config.version);
    super::log::check(config, node, checker.problems);
    checker.link(config);
    checker.feed(config);
    checker.tls(config);
    access::check(&config.relay.access, node, checker.problems);
    checker.local("relay.listen.admin", &config.relay.listen.admin, true);
    for (key, listen) in [
        ("relay.listen.feed", &config.relay.listen.feed),
        ("relay.listen.link", &config.relay.listen.link),
        ("relay.listen.http", &config.relay.listen.http),
    ] {
        checker.local(key, listen, false);
    }
    checker.policies(config);
    checker.retention(config);
    checker.sensors(config);
    checker.limits(config);
    checker.ingest(config);
    checker.sources(config);
    checker.data_dir(config);
    checker.sinks(config);
    telemetry::check(&config.relay.telemetry, node, checker.problems);
}

/// Says plainly that a kind of sink comes later, in place of "unknown".
pub(super) fn later_sinks(node: &Node, problems: &mut [Problem]) {
    let Some(sinks) = node.get("sinks") else {
        return;
    };
    for (_, sink) in sinks.entries() {
        let Some(kind) = sink.key("type").filter(|kind| {
            kind.as_str()
                .is_some_and(|word| LATER_SINKS.contains(&word))
        }) else {
            continue;
        };
        let path = kind.path();
        if let Some(problem) = problems.iter_mut().find(|problem| problem.path == path) {
            let word = kind.as_str().unwrap_or_default();
            problem.message = format!(
                "sinks of type `{word}` are {LATER}, or use one of {}",
                known_sinks(&problem.message)
            );
        }
    }
}

/// The kinds that this version has, as the reader lists them behind the unknown one.
fn known_sinks(message: &str) -> &str {
    message
        .find("`stdout`")
        .and_then(|at| message.get(at..))
        .unwrap_or("`stdout`, `file`")
}

struct Checker<'a> {
    node: &'a Node,
    problems: &'a mut Vec<Problem>,
}

impl Checker<'_> {
    fn say(&mut self, path: &str, message: impl Into<String>) {
        self.problems.push(self.node.problem_at(path, message));
    }

    fn version(&mut self, version: u32) {
        if version != 1 {
            self.say(
                "version",
                format!("version {version} of this file is unknown; this program reads version 1"),
            );
        }
    }

    /// Sensors tell what machines do and take rules: off this machine only with certificates on both sides.
    fn link(&mut self, config: &Config) {
        let link = &config.relay.listen.link;
        let certificates = config.relay.tls.as_ref();
        if !link.address.is_local() {
            if link.insecure || certificates.is_none() {
                self.say(
                    "relay.listen.link",
                    format!("plaintext for sensors on {}, which others can reach; give relay.tls or listen on 127.0.0.1", link.address),
                );
            } else if certificates.is_some_and(|tls| !tls.knows_clients()) {
                self.say("relay.tls", "sensors need certificates of their own; give client_ca_file, which signed them");
            }
        }
    }

    /// Somebody has to come in.
    fn limits(&mut self, config: &Config) {
        let limits = &config.relay.limits;
        for (key, most) in [
            ("relay.limits.connections", limits.connections),
            ("relay.limits.handshakes", limits.handshakes),
        ] {
            if most == 0 {
                self.say(key, "nobody could connect; use 1 or more");
            }
        }
    }

    /// A listener shows a certificate and has its key.
    fn tls(&mut self, config: &Config) {
        let lacks = config.relay.tls.as_ref().is_some_and(|tls| {
            let files = [&tls.cert_file, &tls.key_file];
            let none = files.iter().all(|file| file.is_none());
            let both = files.iter().all(|file| file.is_some());
            tls.dir.is_none() && !both && !(tls.enrolment && none)
        });
        if lacks {
            self.say(
                "relay.tls",
                "give cert_file and key_file, or dir: FOLDER with server.crt and server.key, or enrolment: true for an authority of the relay's own",
            );
        }
        if let Some(tls) = &config.relay.tls {
            self.enrolment(tls);
        }
    }

    fn enrolment(&mut self, tls: &Tls) {
        if !tls.enrolment && (tls.lifetime.is_some() || !tls.names.is_empty()) {
            self.say(
                "relay.tls",
                "names and lifetime are those of certificates that the relay gives; add enrolment: true, or take them out",
            );
        }
        if tls
            .lifetime
            .is_some_and(|lifetime| lifetime.0 < MIN_LIFETIME)
        {
            self.say(
                "relay.tls.lifetime",
                "less than 10s; sensors would do nothing but renew: give 1h to 30d",
            );
        }
    }

    /// Old readers know no TLS, so plaintext off this machine is possible, but only when it is asked for by name.
    fn feed(&mut self, config: &Config) {
        let feed = &config.relay.listen.feed;
        if !feed.address.is_local() && !feed.insecure && config.relay.tls.is_none() {
            self.say(
                "relay.listen.feed",
                format!(
                    "plaintext on {0} lets whoever reaches it read every event; give relay.tls, or write {{address: \"{0}\", insecure: true}}",
                    feed.address
                ),
            );
        }
    }

    /// The administrator's door is a Unix socket; the others are ports.
    fn local(&mut self, path: &str, listen: &Listen, unix: bool) {
        match (&listen.address, unix) {
            (Address::Tcp(_), true) => {
                self.say(
                    path,
                    "a port would let everybody administer the relay; write unix:/PATH",
                );
            }
            (Address::Unix(_), false) => self.say(
                path,
                "a Unix socket here is not available in this version; write IP:PORT",
            ),
            _ => {}
        }
    }

    fn policies(&mut self, config: &Config) {
        for (index, source) in config.policies.sources.iter().enumerate() {
            let path = format!("policies.sources[{index}]");
            let twice = config.policies.sources[..index].contains(source);
            match source.kind {
                PolicySourceKind::Crd => self.say(
                    &format!("{path}.type"),
                    "this kind of source is not available in this version; write `folder` or `git`",
                ),
                _ if source.path.as_os_str().is_empty() => {
                    self.say(&path, "a source needs its path; add `path: /DIR`");
                }
                _ if twice => self.say(&path, "this source is listed already; take it out"),
                PolicySourceKind::Folder if source.branch.is_some() => self.say(
                    &format!("{path}.branch"),
                    "a folder has no branch; write `type: git` for a checkout",
                ),
                PolicySourceKind::Folder | PolicySourceKind::Git => {}
            }
        }
        if let Some(rollout) = &config.policies.rollout {
            self.rollout(rollout);
        }
        if config.policies.policy_service && !config.relay.listen.feed.address.is_local() {
            self.say(
                "policies.policy_service",
                "whoever reaches the feed could change policies: put relay.listen.feed on 127.0.0.1, or leave this out",
            );
        }
    }

    fn rollout(&mut self, rollout: &Rollout) {
        let Rollout {
            canary,
            hold,
            stop_on,
        } = rollout;
        if canary.is_empty() {
            self.say(
                "policies.rollout.canary",
                "no labels are those of every sensor; write the labels of those that try a set first",
            );
        }
        if hold.0 < Duration::from_secs(1) || hold.0 > LONGEST_HOLD {
            self.say("policies.rollout.hold", "between 1s and 30d");
        }
        if !(stop_on.blocked_rate.is_finite() && stop_on.blocked_rate >= 0.0) {
            self.say(
                "policies.rollout.stop_on.blocked_rate",
                "a number of operations a minute, 0 or more",
            );
        }
    }

    fn retention(&mut self, config: &Config) {
        let retention = &config.relay.retention;
        if retention.max_size.0 < MIN_JOURNAL {
            self.say("relay.retention.max_size", "less than 64MiB; give it more");
        }
    }

    fn sensors(&mut self, config: &Config) {
        let sensors = &config.relay.sensors;
        if sensors.silent_after < MIN_SILENCE {
            self.say(
                "relay.sensors.silent_after",
                "less than 5s; a busy network would make silence of it: give it more",
            );
        }
        if sensors.forget_after < sensors.silent_after {
            self.say(
                "relay.sensors.forget_after",
                "shorter than silent_after; who is forgotten cannot be missed: give it more",
            );
        }
    }

    fn ingest(&mut self, config: &Config) {
        let budget = config.relay.ingest.budget.0;
        if !(MIN_INGEST..=MAX_INGEST).contains(&budget) {
            self.say("relay.ingest.budget", "give it 64MiB to 8GiB");
        }
    }

    fn sinks(&mut self, config: &Config) {
        let mut counting = None;
        for (name, sink) in &config.sinks {
            let key = self.node.get("sinks").and_then(|sinks| sinks.key(name));
            if matches!(sink, exporters::SinkConfig::Prometheus(_))
                && let Some(first) = counting.replace(name)
            {
                let why = format!(
                    "there can be only one prometheus sink, and `{first}` is one: both would show the same counters; remove one"
                );
                self.problems.push(key.unwrap_or(self.node).problem(why));
            }
            if let Some(why) = exporters::name_problem(name) {
                self.problems.push(key.unwrap_or(self.node).problem(why));
            }
            if let Some(node) = key {
                sink.check(node, self.problems);
            }
        }
    }

    fn sources(&mut self, config: &Config) {
        let mut seen = BTreeSet::new();
        for (name, source) in &config.sources {
            let key = self.node.get("sources").and_then(|all| all.key(name));
            let node = key.unwrap_or(self.node);
            if exporters::name_problem(name).is_some() {
                self.problems.push(node.problem(format!(
                    "`{name}` cannot name a source; use 1 to 63 of a-z 0-9 - _, a letter or digit first"
                )));
            }
            source.check(node, self.problems);
            for address in source.addresses() {
                if !seen.insert(address) {
                    self.problems.push(node.problem_at(
                        "addresses",
                        format!(
                            "{address} stands here twice, so its events would come twice; keep one"
                        ),
                    ));
                }
            }
        }
    }

    fn data_dir(&mut self, config: &Config) {
        if config.relay.data_dir.as_os_str().is_empty() {
            self.say(
                "relay.data_dir",
                "empty; give a folder, or take the key out for the default",
            );
        }
    }
}
