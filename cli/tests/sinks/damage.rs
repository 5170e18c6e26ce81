//! Dead letters that the disk does not give back: counted and told once, and in nobody's way.

use std::path::PathBuf;

use serde_json::Value;

use super::support::program;
use super::support::program::{Place, Relay};
use super::{SOON, Scene, Web, eventually};

const LETTERS: &str = "data/dead-letters/chat/00000000000000000001.seg";

/// A destination that took three events and refused six.
fn scene(web: &Web) -> Scene {
    let sinks = format!(
        "chat: {{type: webhook, shape: ndjson, url: \"http://{}/\", start: beginning, \
         filter: {{kinds: [alert]}}, batch: {{max_delay: 100ms}}, retry: {{initial: 20ms, max: 100ms}}}}, \
         archive: {{type: file, path: DIR/events.jsonl, fields: all, start: beginning}}",
        web.at
    );
    let scene = Scene {
        place: Place::new("", &sinks),
    };
    let relay = scene.place.start();
    scene.import(&["a", "b", "c"]);
    eventually("it takes some", SOON, || {
        (web.pods() == ["a", "b", "c"]).then_some(())
    });
    scene.import(&[
        "poison-1", "poison-2", "poison-3", "poison-4", "poison-5", "poison-6",
    ]);
    eventually("it refuses the others", SOON, || {
        (scene.sink("chat")["dead_letters"] == 6).then_some(())
    });
    relay.stop();
    scene
}

impl Scene {
    /// Changes the bytes of the dead letters from where these words stand.
    fn damage(&self, words: &str, change: impl FnOnce(&mut Vec<u8>, usize)) {
        let file: PathBuf = self.place.path(LETTERS);
        let mut bytes = std::fs::read(&file).expect("letters");
        let mut places = bytes.windows(words.len());
        let at = places.position(|at| at == words.as_bytes());
        change(&mut bytes, at.expect("the words"));
        std::fs::write(&file, bytes).expect("written");
    }

    /// The pods of the letters that are listed.
    fn letters(&self) -> Vec<String> {
        let list = self.cresset(&["dlq", "list", "chat", "-o", "json"]);
        let letters = list.lines().map(|line| {
            let letter: Value = serde_json::from_str(line).expect("JSON");
            letter["event"]["PodName"]
                .as_str()
                .expect("a pod")
                .to_owned()
        });
        letters.collect()
    }

    /// So many are kept and lost, by whatever says so.
    fn says(&self, relay: &Relay, kept: u64, lost: u64) {
        assert_eq!(self.letters().len() as u64, kept);
        assert_eq!(self.sink("chat")["dead_letters"], kept);
        let page = relay.page();
        let chat = |what: &str| {
            page.get(&format!(
                "cresset_sink_dead_letters{what}{{sink=\"chat\",type=\"webhook\"}}"
            ))
        };
        assert_eq!((chat(""), chat("_dropped_total")), (kept, lost));
        let status: Value = serde_json::from_str(&self.status("json")).expect("JSON");
        let losses = status["losses"].as_array().expect("a list");
        let damage = losses
            .iter()
            .find(|loss| loss["where"] == "dead letter damage");
        let damage = damage.expect("a line of it");
        assert_eq!(
            (&damage["class"], &damage["count"]),
            (&"chat".into(), &lost.into())
        );
    }

    fn status(&self, output: &str) -> String {
        let mut cresset = program("cresset");
        cresset.args(["status", "-o", output, "--data"]);
        let output = cresset.arg(self.folder()).output().expect("cresset runs");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("text")
    }

    /// How many letters each event of a loss told of.
    fn told(&self) -> Vec<u64> {
        let events = self.archived();
        let lost = events.iter().map(|event| &event["Lost"]);
        let lost = lost.filter(|lost| lost["Where"] == "dead letter damage");
        lost.map(|lost| lost["Count"].as_u64().expect("a number"))
            .collect()
    }

    #[track_caller]
    fn when_told(&self, wanted: &[u64]) {
        eventually(&format!("{wanted:?} are told"), SOON, || {
            (self.told() == wanted).then_some(())
        });
    }
}

#[test]
fn damaged_dead_letters_are_counted_and_told_once_and_the_others_are_there() {
    let web = Web::start(200);
    let scene = scene(&web);
    scene.damage("poison-3", |bytes, at| bytes[at] ^= 1);
    let relay = scene.place.start();
    scene.says(&relay, 5, 1);
    scene.when_told(&[1]);
    let status = scene.status("text");
    assert!(
        status.contains("! found at the start: 1 dead letter of sink chat lost"),
        "{status}"
    );
    relay.stop();

    let relay = scene.place.start();
    scene.says(&relay, 5, 1);
    assert!(!scene.status("text").contains("found at the start"));
    relay.stop();

    scene.damage("poison-5", |bytes, at| bytes.truncate(at));
    let relay = scene.place.start();
    scene.says(&relay, 3, 3);
    scene.when_told(&[1, 2]);
    assert_eq!(scene.letters(), ["poison-1", "poison-2", "poison-4"]);
    relay.stop();

    let relay = scene.place.start();
    scene.says(&relay, 3, 3);
    // A destination that refuses whatever comes is waited for.
    scene.import(&["d"]);
    eventually("it takes one", SOON, || {
        web.pods().contains(&"d".to_owned()).then_some(())
    });
    scene.import(&["poison-7"]);
    eventually("a new one", SOON, || {
        (scene.sink("chat")["dead_letters"] == 4).then_some(())
    });
    assert_eq!(
        scene.letters(),
        ["poison-1", "poison-2", "poison-4", "poison-7"]
    );
    let said = scene.cresset(&["dlq", "drop", "chat", "--all"]);
    assert_eq!(said, "chat: 4 dropped\n");
    scene.says(&relay, 0, 3);
    relay.stop();

    let relay = scene.place.start();
    scene.says(&relay, 0, 3);
    // An event that is told after all others of this life.
    scene.import(&["last"]);
    eventually("it is there", SOON, || {
        scene.pods().contains(&"last".to_owned()).then_some(())
    });
    assert_eq!(scene.told(), [1, 2]);
    relay.stop();
}
