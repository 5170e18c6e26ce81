//! Who this sensor is: node name, machine id, and an identity that survives restarts.

use std::io::{self, Write};
use std::path::Path;

use proto::StreamId;

/// The host name.
pub fn host_name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

/// The machine id of `/etc/machine-id` (machine-id(5)), else the node's name.
pub fn machine_id(node: &str) -> String {
    let id = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
    let id = id.trim();
    if id.is_empty() || id == "uninitialized" {
        node.to_owned()
    } else {
        id.to_owned()
    }
}

/// The sensor's identity: the file's first line; drawn and written at the first start.
pub fn sensor_id(file: &Path) -> io::Result<String> {
    match std::fs::read_to_string(file) {
        Ok(text) => {
            let id = text.lines().next().unwrap_or_default().trim().to_owned();
            if id.is_empty() || id.len() > 253 {
                return Err(io::Error::other(
                    "its first line is no identity; remove the file for a new one",
                ));
            }
            Ok(id)
        }
        Err(why) if why.kind() == io::ErrorKind::NotFound => draw(file),
        Err(why) => Err(why),
    }
}

fn draw(path: &Path) -> io::Result<String> {
    let id = format!("{}{}", StreamId::random(), StreamId::random());
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)?;
    writeln!(file, "{id}")?;
    file.sync_all()?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_drawn_once() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("id");
        let first = sensor_id(&file).unwrap();
        assert_eq!(first.len(), 32);
        assert_eq!(sensor_id(&file).unwrap(), first);
    }

    #[test]
    fn a_chosen_identity_is_kept_and_an_empty_one_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("id");
        std::fs::write(&file, "node-7\n").unwrap();
        assert_eq!(sensor_id(&file).unwrap(), "node-7");
        std::fs::write(&file, "\n").unwrap();
        assert!(sensor_id(&file).is_err());
    }
}
