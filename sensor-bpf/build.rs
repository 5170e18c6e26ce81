//! Compiles the kernel half with clang and generates the Rust types of its records and maps from the object's BTF.

use std::path::PathBuf;

use libbpf_cargo::SkeletonBuilder;

fn main() {
    println!("cargo::rerun-if-changed=src/bpf");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").unwrap_or_default());
    let warnings = [
        "-Wall",
        "-Wextra",
        "-Wno-unused-parameter",
        "-Werror",
        "-mcpu=v3",
    ];
    let built = SkeletonBuilder::new()
        .source("src/bpf/sensor.bpf.c")
        .obj(out.join("sensor.bpf.o"))
        .reference_obj(true)
        .clang_args(warnings)
        .build_and_generate(out.join("sensor.skel.rs"));
    if let Err(error) = built {
        println!(
            "cargo::error=the kernel half does not build (needs clang 14 or newer): {error:#}"
        );
    }
}
