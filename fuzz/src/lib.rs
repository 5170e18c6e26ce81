//! Entry points for bytes that others wrote: files that a disk changed, and what comes through a door.
//!
//! Each module has one function `run(bytes)` that must come back whatever the bytes are, and checks what has to hold of what
//! it made of them. `cargo xtask fuzz` runs them under libFuzzer (so does cargo-fuzz); the test runs them over the corpus,
//! bent here and there. Corpus files are inputs that found a way of their own, few and small.
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a target that finds something fails"
)]

#[cfg(feature = "doors")]
pub mod batch;
#[cfg(feature = "doors")]
pub mod config;
pub mod cursor;
mod disk;
#[cfg(feature = "doors")]
pub mod filter;
#[cfg(feature = "doors")]
pub mod policy;
#[cfg(feature = "doors")]
pub mod rules;
pub mod segment;

/// A target.
#[derive(Clone, Copy)]
pub struct Target {
    /// Of its corpus' folder and its program.
    pub name: &'static str,
    /// Fails by panicking.
    pub run: fn(&[u8]),
    /// Well-formed input of the present formats, to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target {
        name: "segment",
        run: segment::run,
        seeds: segment::seeds,
    },
    Target {
        name: "cursor",
        run: cursor::run,
        seeds: cursor::seeds,
    },
    #[cfg(feature = "doors")]
    Target {
        name: "batch",
        run: batch::run,
        seeds: batch::seeds,
    },
    #[cfg(feature = "doors")]
    Target {
        name: "config",
        run: config::run,
        seeds: config::seeds,
    },
    #[cfg(feature = "doors")]
    Target {
        name: "filter",
        run: filter::run,
        seeds: filter::seeds,
    },
    #[cfg(feature = "doors")]
    Target {
        name: "policy",
        run: policy::run,
        seeds: policy::seeds,
    },
    #[cfg(feature = "doors")]
    Target {
        name: "rules",
        run: rules::run,
        seeds: rules::seeds,
    },
];

/// What a target's program does before it fuzzes: with [`SEEDS`] in the environment it writes its seeds into that folder,
/// for a fuzzer to begin with, and ends.
///
/// A program of its own for that could not be linked: what it is made of counts its coverage, for a fuzzer that it lacks.
pub fn begin(name: &str) {
    let Some(folder) = std::env::var_os(SEEDS).map(std::path::PathBuf::from) else {
        return;
    };
    let target = TARGETS.iter().find(|target| target.name == name);
    std::fs::create_dir_all(&folder).expect("a folder");
    for (n, seed) in (target.expect("a target").seeds)().iter().enumerate() {
        std::fs::write(folder.join(format!("seed-{n}")), seed).expect("written");
    }
    std::process::exit(0);
}

/// The environment variable that has a target's program write its seeds.
pub const SEEDS: &str = "CRESSET_FUZZ_SEEDS";
