//! `elk/` holds what `cresset sink setup` makes with the default settings, for those who set up their cluster by other means.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::path::Path;

#[test]
fn the_files_in_elk_follow_from_the_field_table() {
    let elk = Path::new(env!("CARGO_MANIFEST_DIR")).join("../elk");
    let files = exporters::elasticsearch::generated();
    if std::env::var_os("CRESSET_GENERATE").is_some() {
        for (name, text) in &files {
            let path = elk.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
    }
    for (name, text) in &files {
        let held = std::fs::read_to_string(elk.join(name)).unwrap_or_default();
        assert!(
            held == *text,
            "elk/{name} is not what the code says; run `cargo xtask generate`"
        );
    }
    // Nor is there a file that nothing makes.
    let made: BTreeSet<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
    for folder in ["elasticsearch", "opensearch"] {
        for entry in std::fs::read_dir(elk.join(folder)).unwrap() {
            let name = format!("{folder}/{}", entry.unwrap().file_name().display());
            assert!(
                made.contains(name.as_str()),
                "elk/{name} is made by nothing; remove it"
            );
        }
    }
}
