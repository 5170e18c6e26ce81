//! Every target over its seeds and its corpus, as they are and bent here and there.
#![allow(clippy::expect_used, clippy::panic)] // reason: a test that cannot go on has failed

use std::path::Path;

use fuzz::{TARGETS, Target};
use journal::sim::Random;

/// Variants of each input.
const BENT: u64 = 150;

fn inputs(target: &Target) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target.name);
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .expect("a corpus")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| !path.ends_with(".gitkeep"))
        .collect();
    files.sort();
    let read = files
        .into_iter()
        .map(|path| std::fs::read(path).expect("a file"));
    (target.seeds)().into_iter().chain(read).collect()
}

/// Flips, cuts, doubles, overwrites.
fn bend(bytes: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..1 + random.below(4) {
        let len = bytes.len() as u64;
        let at = random.below(len) as usize;
        let some = 1 + random.below(16) as usize;
        let range = at..(at + some).min(bytes.len());
        match random.below(5) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
            1 if !bytes.is_empty() => {
                bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5) as usize]
            }
            2 => {
                bytes.drain(range);
            }
            3 => {
                let part = bytes[range].to_vec();
                bytes.splice(at..at, part);
            }
            _ => bytes.truncate(at),
        }
    }
    bytes
}

fn over_its_corpus(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name);
    let target = target.expect("a target");
    for (n, input) in (0..).zip(inputs(target)) {
        (target.run)(&input);
        let mut random = Random::new(n);
        for _ in 0..BENT {
            let bent = bend(&input, &mut random);
            let run = std::panic::catch_unwind(|| (target.run)(&bent));
            if let Err(why) = run {
                let folder = std::env::temp_dir().join(format!("fuzz-{name}"));
                std::fs::write(&folder, &bent).expect("written");
                println!("the input is in {}", folder.display());
                std::panic::resume_unwind(why);
            }
        }
    }
}

#[test]
fn segment() {
    over_its_corpus("segment");
}

#[test]
fn cursor() {
    over_its_corpus("cursor");
}

#[cfg(feature = "doors")]
#[test]
fn batch() {
    over_its_corpus("batch");
}

#[cfg(feature = "doors")]
#[test]
fn config() {
    over_its_corpus("config");
}

#[cfg(feature = "doors")]
#[test]
fn filter() {
    over_its_corpus("filter");
}

#[cfg(feature = "doors")]
#[test]
fn policy() {
    over_its_corpus("policy");
}

#[cfg(feature = "doors")]
#[test]
fn rules() {
    over_its_corpus("rules");
}
