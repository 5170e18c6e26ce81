//! The last good texts of every source on disk, so that they outlive the relay.
//!
//! ```text
//! SHA-256 of what follows, hex, line feed
//! {"folder /etc/cresset/policies": [["a.yaml", "apiVersion: …"], …], …}
//! ```
//! The file is replaced whole. Texts are used again by the source of the same name only: somebody who points the relay at
//! another folder wants that folder's policies or none. A file that was changed by somebody else is not used at all.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use super::applied::replace;
use super::folder::Text;

/// Source → file → text.
type Kept = BTreeMap<String, Vec<(String, String)>>;

/// What was stored, by source; nothing when there is none or it is not as it was stored.
pub(super) fn load(path: &Path) -> BTreeMap<String, Vec<Text>> {
    let bytes = fs::read(path).unwrap_or_default();
    let texts = |texts: Vec<(String, String)>| {
        let text = |(file, text)| Text { file, text };
        texts.into_iter().map(text).collect()
    };
    let kept = whole(&bytes).and_then(|json| serde_json::from_slice::<Kept>(json).ok());
    kept.unwrap_or_default()
        .into_iter()
        .map(|(source, own)| (source, texts(own)))
        .collect()
}

fn whole(bytes: &[u8]) -> Option<&[u8]> {
    let split = bytes.iter().position(|byte| *byte == b'\n')?;
    let (digest, json) = (&bytes[..split], &bytes[split + 1..]);
    (digest == digest_of(json).as_bytes()).then_some(json)
}

fn digest_of(json: &[u8]) -> String {
    policy::blob_digest(json).to_string()
}

/// Stores texts by source, unless they are there already.
pub(super) fn store<'t>(
    path: &Path,
    sources: impl Iterator<Item = (String, &'t [Text])>,
) -> io::Result<()> {
    let pair = |text: &Text| (text.file.clone(), text.text.clone());
    let kept: Kept = sources
        .map(|(source, texts)| (source, texts.iter().map(pair).collect()))
        .collect();
    let json = serde_json::to_vec(&kept).map_err(io::Error::other)?;
    let mut bytes = digest_of(&json).into_bytes();
    bytes.push(b'\n');
    bytes.extend(json);
    if fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    replace(path, &bytes)
}
