//! Policies from a real folder: what is in force after which change, and what is told.
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use proto::rules;
use relay::Registry;
use relay::policies::{self, Config, CurrentSet, SourceConfig};
use tempfile::TempDir;
use tokio::sync::watch;

const BLOCK_SLEEP: &str = "
apiVersion: security.kubearmor.com/v1
kind: KubeArmorPolicy
metadata:
  name: NAME
  namespace: multiubuntu
spec:
  severity: 5
  selector:
    matchLabels:
      group: group-1
  process:
    matchPaths:
    - path: /bin/sleep
  action: Block
";

fn policy(name: &str) -> String {
    BLOCK_SLEEP.replace("NAME", name)
}

/// A folder, and the policies part that watches it.
struct Watched {
    folder: TempDir,
    registry: Registry,
    current: watch::Receiver<Arc<CurrentSet>>,
    task: tokio::task::JoinHandle<()>,
}

impl Watched {
    fn start(files: &[(&str, &str)]) -> Watched {
        let folder = tempfile::tempdir().expect("a folder");
        let policies = folder.path().join("policies");
        std::fs::create_dir(&policies).expect("a folder");
        for (name, text) in files {
            std::fs::write(policies.join(name), text).expect("written");
        }
        Watched::on(folder, policies)
    }

    fn on(folder: TempDir, policies: PathBuf) -> Watched {
        let registry = Registry::new();
        let config = Config {
            sources: vec![SourceConfig::Folder(policies)],
            postures: rules::Postures::default(),
            data_dir: Some(folder.path().to_owned()),
        };
        let built = policies::build(config, &registry).expect("built");
        let current = built.current();
        Watched {
            folder,
            registry,
            current,
            task: tokio::spawn(built.run(|_| {})),
        }
    }

    /// Another start with the same data, after the first was ended.
    fn again(self) -> Watched {
        self.task.abort();
        let policies = self.path("");
        Watched::on(self.folder, policies)
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join("policies").join(file)
    }

    fn write(&self, file: &str, text: &str) {
        std::fs::write(self.path(file), text).expect("written");
    }

    fn set(&self) -> Arc<CurrentSet> {
        self.current.borrow().clone()
    }

    /// The names in force.
    fn names(&self) -> Vec<String> {
        names(&self.set())
    }

    /// Waits for a change to what satisfies `done`; how long it took.
    async fn until(&mut self, what: &str, done: impl Fn(&CurrentSet) -> bool) -> Duration {
        let began = Instant::now();
        let waited = self.current.wait_for(|set| done(set));
        let limit = Duration::from_secs(60);
        let came = tokio::time::timeout(limit, waited).await.map(|_| ());
        assert!(
            came.is_ok(),
            "{what}: not within {limit:?}: {:?}",
            self.set()
        );
        began.elapsed()
    }

    fn metric(&self, name: &str) -> f64 {
        let families = self.registry.gather();
        let family = families
            .iter()
            .find(|family| family.name() == name)
            .expect("a metric of that name");
        family.get_metric()[0].get_gauge().get_value()
    }
}

fn names(set: &CurrentSet) -> Vec<String> {
    set.policies
        .iter()
        .map(|policy| policy.name.clone())
        .collect()
}

fn errors(set: &CurrentSet) -> Vec<String> {
    set.problems
        .iter()
        .filter(|problem| problem.is_error())
        .map(|problem| problem.to_string())
        .collect()
}

#[tokio::test]
async fn every_policy_file_of_the_folder_and_its_subfolders_is_in_force() {
    let watched = Watched::start(&[
        ("a.yaml", &policy("one")),
        ("b.YML", &[policy("two"), policy("three")].join("---")),
        ("notes.txt", "not a policy"),
        (".hidden.yaml", "not: [a policy"),
    ]);
    let folder = watched.path("more/deep");
    std::fs::create_dir_all(&folder).expect("folders");
    let watched = watched.again();
    std::fs::write(folder.join("c.json"), json("four")).expect("written");
    let watched = watched.again();
    assert_eq!(watched.names(), ["four", "one", "three", "two"]);
    let set = watched.set();
    assert!(set.current && set.problems.is_empty(), "{:?}", set.problems);
    assert_eq!(set.ruleset.blobs.len(), 4);
    let two = set
        .policies
        .iter()
        .find(|policy| policy.name == "two")
        .expect("two");
    assert!(two.file.ends_with("/b.YML"), "{}", two.file);
    assert_eq!(
        (two.namespace.as_str(), two.kind.as_str(), two.rules),
        ("multiubuntu", "KubeArmorPolicy", 1)
    );
    assert_eq!(
        (
            watched.metric("cresset_policies"),
            watched.metric("cresset_policy_set_current")
        ),
        (4.0, 1.0)
    );
}

fn json(name: &str) -> String {
    format!(
        r#"{{"apiVersion": "security.kubearmor.com/v1", "kind": "KubeArmorPolicy",
            "metadata": {{"name": "{name}", "namespace": "multiubuntu"}},
            "spec": {{"selector": {{"matchLabels": {{"group": "g"}}}},
                      "process": {{"matchPaths": [{{"path": "/bin/ls"}}]}}, "action": "Audit"}}}}"#
    )
}

/// The promise is two seconds. A machine that was busy meanwhile is asked again; who only looked now and then, every five
/// seconds, would need luck with every edit.
async fn promptly(edits: impl AsyncFn() -> Duration) {
    let mut slowest = Vec::new();
    for _ in 0..3 {
        let took = edits().await;
        if took < Duration::from_secs(2) {
            return;
        }
        slowest.push(took);
    }
    panic!("the slowest edit of each attempt took {slowest:?}");
}

#[tokio::test]
async fn an_edit_is_in_force_in_under_two_seconds_however_it_is_made() {
    promptly(async || {
        let mut watched = Watched::start(&[("a.yaml", &policy("one"))]);
        tokio::time::sleep(Duration::from_millis(100)).await;
        let in_force = |name: &'static str| move |set: &CurrentSet| names(set) == [name];

        watched.write("a.yaml", &policy("written"));
        let written = watched.until("written in place", in_force("written")).await;

        watched.write(".a.yaml.swp", &policy("replaced"));
        std::fs::rename(watched.path(".a.yaml.swp"), watched.path("a.yaml")).expect("renamed");
        let replaced = watched
            .until("replaced by rename", in_force("replaced"))
            .await;

        std::fs::create_dir(watched.path("sub")).expect("a folder");
        std::fs::rename(watched.path("a.yaml"), watched.path("sub/b.yaml")).expect("moved");
        watched.write("sub/b.yaml", &policy("in-a-new-folder"));
        let below = watched
            .until("in a folder made meanwhile", in_force("in-a-new-folder"))
            .await;

        std::fs::remove_dir_all(watched.path("sub")).expect("removed");
        let removed = watched
            .until("removed", |set| set.policies.is_empty())
            .await;
        assert!(watched.set().current, "an empty folder is a set");
        written.max(replaced).max(below).max(removed)
    })
    .await;
}

#[tokio::test]
async fn a_mounted_config_map_changes_by_its_links() {
    promptly(async || {
        let folder = tempfile::tempdir().expect("a folder");
        let mount = folder.path().join("policies");
        let version = |name: &str| {
            let data = mount.join(format!("..{name}"));
            std::fs::create_dir_all(&data).expect("a folder");
            std::fs::write(data.join("a.yaml"), policy(name)).expect("written");
            std::os::unix::fs::symlink(format!("..{name}"), mount.join("..new")).expect("a link");
            std::fs::rename(mount.join("..new"), mount.join("..data")).expect("renamed");
        };
        version("first");
        std::os::unix::fs::symlink("..data/a.yaml", mount.join("a.yaml")).expect("a link");
        let mut watched = Watched::on(folder, mount.clone());
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(watched.names(), ["first"]);
        version("second");
        watched
            .until("the new version", |set| names(set) == ["second"])
            .await
    })
    .await;
}

#[tokio::test]
async fn a_broken_file_leaves_the_whole_last_good_set_in_force_and_all_problems_are_told() {
    let mut watched = Watched::start(&[("a.yaml", &policy("one")), ("b.yaml", &policy("two"))]);
    let good = watched.set();
    tokio::time::sleep(Duration::from_millis(100)).await;
    watched.write(
        "a.yaml",
        &policy("one")
            .replace("Block", "Blok")
            .replace("/bin/sleep", "bin/sleep"),
    );
    watched.write("b.yaml", &policy("two-changed"));
    watched.write("c.yaml", "kind: [");
    watched
        .until("the break is told", |set| {
            !set.current && errors(set).len() >= 3
        })
        .await;
    let set = watched.set();
    assert_eq!(names(&set), ["one", "two"]);
    assert_eq!(set.ruleset.manifest, good.ruleset.manifest);
    let errors = errors(&set).join("\n");
    assert!(
        errors.contains("/a.yaml:") && errors.contains("/c.yaml:"),
        "{errors}"
    );
    assert_eq!(watched.metric("cresset_policy_set_current"), 0.0);
    assert_eq!(
        watched.metric("cresset_policy_problems"),
        set.problems.len() as f64
    );

    std::fs::remove_file(watched.path("c.yaml")).expect("removed");
    watched.write("a.yaml", &policy("one"));
    watched.until("mended", |set| set.current).await;
    assert_eq!(watched.names(), ["one", "two-changed"]);
    assert_eq!(watched.metric("cresset_policy_problems"), 0.0);
}

#[tokio::test]
async fn a_start_beside_a_broken_file_goes_on_with_the_last_good_set() {
    let watched = Watched::start(&[("a.yaml", &policy("one"))]);
    let good = watched.set();
    watched.write("a.yaml", "spec: [");
    let watched = watched.again();
    let set = watched.set();
    assert!(!set.current);
    assert_eq!(
        (names(&set), &set.ruleset.manifest),
        (vec!["one".to_owned()], &good.ruleset.manifest)
    );
    assert_eq!(set.ruleset.blobs, good.ruleset.blobs);

    std::fs::remove_dir_all(watched.path("")).expect("removed");
    let watched = watched.again();
    assert_eq!(
        watched.names(),
        ["one"],
        "a folder that is gone is no empty folder"
    );
    assert!(!watched.set().current);
}

#[tokio::test]
async fn a_kept_set_that_was_tampered_with_or_is_of_another_folder_is_not_used() {
    let watched = Watched::start(&[("a.yaml", &policy("one"))]);
    watched.write("a.yaml", "spec: [");
    let saved = watched.folder.path().join("policies.last");
    let mut bytes = std::fs::read(&saved).expect("kept");
    let at = bytes
        .windows(5)
        .position(|window| window == b"sleep")
        .expect("the path is in it");
    bytes[at] = b'b';
    std::fs::write(&saved, &bytes).expect("written");
    let watched = watched.again();
    assert_eq!(watched.names(), [""; 0]);
    bytes[at] = b's';
    std::fs::write(&saved, &bytes).expect("written");
    let watched = watched.again();
    assert_eq!(watched.names(), ["one"], "as it was stored");
    watched.task.abort();
    let elsewhere = watched.folder.path().join("elsewhere");
    assert_eq!(
        Watched::on(watched.folder, elsewhere).names(),
        [""; 0],
        "another folder"
    );
}

#[tokio::test]
async fn a_missing_folder_is_told_and_watched_for() {
    promptly(async || {
        let folder = tempfile::tempdir().expect("a folder");
        let policies = folder.path().join("policies");
        let mut watched = Watched::on(folder, policies.clone());
        let set = watched.set();
        assert!(
            set.policies.is_empty() && set.problems[0].message.contains("no such folder"),
            "{set:?}"
        );
        assert_eq!(set.status().problems.len(), 1);
        std::fs::create_dir(&policies).expect("a folder");
        watched.write("a.yaml", &policy("one"));
        watched
            .until("it appeared", |set| {
                names(set) == ["one"] && set.problems.is_empty()
            })
            .await;
        watched.write("a.yaml", &policy("two"));
        watched
            .until("it is watched", |set| names(set) == ["two"])
            .await
    })
    .await;
}

#[tokio::test]
async fn a_policy_that_is_there_twice_is_a_problem_that_names_both_places() {
    let watched = Watched::start(&[("a.yaml", &policy("one")), ("b.yaml", &policy("one"))]);
    let set = watched.set();
    let errors = errors(&set).join("\n");
    assert!(
        !set.current && errors.contains("a.yaml") && errors.contains("b.yaml"),
        "{errors}"
    );
}

#[tokio::test]
async fn what_is_no_readable_file_is_a_problem_and_not_an_end() {
    let watched = Watched::start(&[("a.yaml", &policy("one"))]);
    std::fs::write(watched.path("b.yaml"), b"\xff\xfe").expect("written");
    std::os::unix::fs::symlink("nowhere.yaml", watched.path("c.yaml")).expect("a link");
    std::os::unix::fs::symlink(Path::new("."), watched.path("loop")).expect("a link");
    let watched = watched.again();
    let set = watched.set();
    let errors = errors(&set).join("\n");
    assert!(
        errors.contains("b.yaml: cannot read it: it is not UTF-8 text"),
        "{errors}"
    );
    assert!(
        errors.contains("c.yaml: cannot read it: No such file"),
        "{errors}"
    );
    assert_eq!(names(&set), ["one"], "kept from the start before");
}
