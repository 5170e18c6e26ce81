//! A relay's place with settings that are edited, and what `cresset` says of it.

use std::io::Write;
use std::process::{Output, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::support::program::Place;
use crate::support::{self, eventually};

pub(crate) const SOON: Duration = Duration::from_secs(60);

pub(crate) const ARCHIVE: &str =
    "archive: {type: file, path: DIR/events.jsonl, fields: all, start: beginning}";

pub(crate) struct Scene {
    pub(crate) place: Place,
}

impl Scene {
    pub(crate) fn new(relay: &str, sinks: &str) -> Scene {
        Scene {
            place: Place::new(relay, sinks),
        }
    }

    pub(crate) fn cresset(&self, command: &[&str]) -> Output {
        let mut cresset = support::program("cresset");
        cresset.args(command);
        cresset.arg("--socket").arg(self.place.path("admin.sock"));
        cresset.output().expect("cresset runs")
    }

    /// The same with what it said, and its exit code.
    pub(crate) fn said(&self, command: &[&str]) -> (Option<i32>, String) {
        let output = self.cresset(command);
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).expect("text"))
    }

    /// Puts another text in place of one in the settings.
    #[track_caller]
    pub(crate) fn edit(&self, from: &str, to: &str) {
        let file = self.place.path("relay.yaml");
        let text = std::fs::read_to_string(&file).expect("settings");
        let dir = self.place.path("");
        let here =
            |text: &str| text.replace("DIR", dir.to_str().expect("text").trim_end_matches('/'));
        let (from, to) = (here(from), here(to));
        assert!(text.contains(&from), "{from} is not in\n{text}");
        std::fs::write(file, text.replace(&from, &to)).expect("settings");
    }

    pub(crate) fn import(&self, namespace: &str, count: usize) {
        self.import_of("p", namespace, count);
    }

    /// The same of one pod.
    pub(crate) fn import_of(&self, pod: &str, namespace: &str, count: usize) {
        let line = format!(
            "{{\"Type\":\"MatchedPolicy\",\"PodName\":\"{pod}\",\"NamespaceName\":\"{namespace}\",\"Operation\":\"File\",\"PolicyName\":\"p\",\"Action\":\"Block\"}}\n"
        );
        let mut import = support::program("cresset");
        import
            .args(["import", "-", "--socket"])
            .arg(self.place.path("admin.sock"));
        let mut child = import
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("cresset import");
        let mut stdin = child.stdin.take().expect("a pipe");
        stdin
            .write_all(line.repeat(count).as_bytes())
            .expect("taken");
        drop(stdin);
        assert!(child.wait().expect("an end").success());
    }

    /// What the file sink has.
    pub(crate) fn archived(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.place.path("events.jsonl")).unwrap_or_default();
        text.lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect()
    }

    /// The alerts in it, once there are so many.
    #[track_caller]
    pub(crate) fn alerts(&self, namespace: &str, count: usize) -> Vec<Value> {
        eventually(&format!("{count} alerts of {namespace}"), SOON, || {
            let mut all = self.archived();
            all.retain(|event| event["NamespaceName"] == namespace);
            (all.len() >= count).then_some(all)
        })
    }
}
