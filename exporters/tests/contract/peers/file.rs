//! A file, which is away while a file stands where its folder must be.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde_json::Value;

use super::{Memory, Mood, Peer};

pub(crate) struct File {
    path: PathBuf,
    memory: Memory,
}

/// A folder of this address, which nobody else has.
fn folder(at: &str) -> PathBuf {
    let name = format!(
        "cresset-contract-{}-{}",
        std::process::id(),
        at.replace(':', "-")
    );
    std::env::temp_dir().join(name)
}

impl File {
    fn events(&self) -> Vec<(String, String)> {
        let text = fs::read_to_string(&self.path).unwrap_or_default();
        let event = |line: &str| {
            let event: Value = serde_json::from_str(line).expect("a line of JSON");
            let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
            (text("EventID"), text("PodName"))
        };
        text.lines().map(event).collect()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let folder = self.path.parent().expect("a folder");
        let _ = fs::remove_dir_all(folder);
    }
}

impl Peer for File {
    const STEPS: &[&str] = &["write", "read back"];
    const AWAY: &str = "write";

    async fn start(at: SocketAddr) -> Self {
        let folder = folder(&at.to_string());
        let _ = fs::remove_file(&folder);
        fs::create_dir_all(&folder).expect("a folder");
        File {
            path: folder.join("events.jsonl"),
            memory: Memory::new(at),
        }
    }

    fn settings(at: &str) -> String {
        let folder = folder(at);
        if !folder.exists() {
            fs::write(&folder, "a file where a folder must be").expect("written");
        }
        let path = folder.join("events.jsonl");
        format!("{{type: file, path: '{}', fields: all}}", path.display())
    }

    fn memory(&self) -> &Memory {
        &self.memory
    }

    /// A disk has no opinion of what is on it, and what it does when it is full is in `tests/file.rs`.
    fn feels(&self, mood: Mood) -> bool {
        mood == Mood::Taking
    }

    fn has(&self) -> Vec<String> {
        self.events().into_iter().map(|(id, _)| id).collect()
    }

    fn pod(&self, id: &str) -> String {
        let events = self.events();
        let found = events.into_iter().find(|(kept, _)| kept == id);
        found.map(|(_, pod)| pod).unwrap_or_default()
    }
}
