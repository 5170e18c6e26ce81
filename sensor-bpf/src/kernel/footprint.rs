//! What one load put into the kernel, by number, so that afterwards one can see that all of it is gone.

use std::os::fd::AsFd;

use libbpf_rs::Program;
use libbpf_rs::skel::Skel;

use super::Kernel;

/// A program in the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The kernel's number for it; not used again while this kernel runs.
    pub id: u32,
    /// Its name in `bpf/`.
    pub name: String,
}

impl Kernel {
    /// The programs that this load put into the kernel.
    pub fn programs(&self) -> Vec<Loaded> {
        let programs = self
            .0
            .skel
            .object()
            .progs()
            .filter(|program| program.autoload());
        let numbered = programs.filter_map(|program| {
            let id = Program::id_from_fd(program.as_fd()).ok()?;
            Some(Loaded {
                id,
                name: program.name().to_string_lossy().into_owned(),
            })
        });
        numbered.collect()
    }
}

/// Those of the programs that are still in the kernel, by name.
pub fn still_loaded(programs: &[Loaded]) -> Vec<String> {
    let there = programs
        .iter()
        .filter(|program| Program::fd_from_id(program.id).is_ok());
    there.map(|program| program.name.clone()).collect()
}
