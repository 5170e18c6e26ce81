//! `seeds TARGET FOLDER`: writes a target's seeds as files, for a fuzzer to begin with.
#![allow(clippy::expect_used)] // reason: a tool of the tests; what fails is shown

use std::path::PathBuf;

fn main() {
    let mut arguments = std::env::args_os().skip(1);
    let name = arguments.next().expect("a target's name");
    let folder: PathBuf = arguments.next().expect("a folder").into();
    let target = fuzz::TARGETS.iter().find(|target| target.name == name);
    std::fs::create_dir_all(&folder).expect("a folder");
    for (n, seed) in (target.expect("a target").seeds)().iter().enumerate() {
        std::fs::write(folder.join(format!("seed-{n}")), seed).expect("written");
    }
}
