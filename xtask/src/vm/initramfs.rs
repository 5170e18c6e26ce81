//! The guest's whole world: busybox, our programs with the libraries that they load, and an init that runs one suite.
//!
//! The programs are those that every other test runs, so they are built once; without what a debugger reads.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::workspace::{self, check};

/// What the workspace's tests are built with.
const BENCH: &str = "xtask/bench";
const PROGRAMS: &[&str] = &["cresset", "cresset-relay", "cresset-sensor"];
const APPLETS: &[&str] = &[
    "sh", "mount", "mkdir", "cat", "ls", "ip", "poweroff", "sleep", "dmesg", "true", "reboot",
];

/// Runs as process 1: mounts what the programs look for, runs the suite, tells its exit code, powers off.
const INIT: &str = r#"#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t cgroup2 none /sys/fs/cgroup
mount -t securityfs none /sys/kernel/security
mount -t bpf none /sys/fs/bpf
mount -t tracefs none /sys/kernel/tracing
mount -t tmpfs tmp /tmp
ip link set lo up
echo "guest: kernel $(cat /proc/sys/kernel/osrelease), lsm $(cat /sys/kernel/security/lsm)"
export PATH=/bin HOME=/tmp CRESSET_GUEST=1
/bin/suite
echo "CRESSET-SUITE-EXIT $?"
poweroff -f
"#;

/// Builds the programs and packs them with `suite`, a test target of the crate `cli`.
pub(crate) fn build(suite: &str) -> Result<PathBuf> {
    let programs = build_programs(suite)?;
    let root = workspace::target().join("vm/root");
    if root.exists() {
        fs::remove_dir_all(&root)?;
    }
    for dir in ["bin", "proc", "sys", "dev", "tmp", "run", "etc", "var/lib"] {
        fs::create_dir_all(root.join(dir))?;
    }
    install(Path::new("/bin/busybox"), &root.join("bin/busybox"))
        .or_else(|_| install(Path::new("/usr/bin/busybox"), &root.join("bin/busybox")))?;
    for applet in APPLETS {
        symlink("busybox", root.join("bin").join(applet))?;
    }
    for (name, program) in &programs {
        let name = if name == suite { "suite" } else { name };
        install_program(program, &root, name)?;
    }
    fs::write(root.join("init"), INIT)?;
    fs::set_permissions(root.join("init"), fs::Permissions::from_mode(0o755))?;
    fs::write(
        root.join("etc/machine-id"),
        "c0ffee00c0ffee00c0ffee00c0ffee00\n",
    )?;
    pack(&root)
}

/// The programs and the suite by name, and where they are. One command builds them: asked for without a test, cargo would
/// leave out what only tests need of a dependency, and build half of them once more.
fn build_programs(suite: &str) -> Result<Vec<(String, PathBuf)>> {
    let mut command = workspace::cargo();
    command
        .args(["build", "--workspace", "--features", BENCH])
        .args(["--message-format", "json-render-diagnostics"])
        .args(["--test", suite]);
    for program in PROGRAMS {
        command.args(["--bin", program]);
    }
    let out = workspace::output(&mut command)?;
    let messages = out
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let built: Vec<(String, PathBuf)> = messages
        .filter_map(|message| {
            let name = message["target"]["name"].as_str()?;
            let wanted = name == suite || PROGRAMS.contains(&name);
            let path = message["executable"].as_str().filter(|_| wanted)?;
            Some((name.to_owned(), path.into()))
        })
        .collect();
    for name in PROGRAMS.iter().chain([&suite]) {
        if !built.iter().any(|(built, _)| built == name) {
            bail!("cargo built no program {name}");
        }
    }
    Ok(built)
}

/// A program without its debug information, and the libraries that it loads where it looks for them.
fn install_program(from: &Path, root: &Path, name: &str) -> Result<()> {
    let to = root.join("bin").join(name);
    check(
        Command::new("strip")
            .args(["--strip-debug", "-o"])
            .args([&to, from]),
    )?;
    for library in libraries(from)? {
        let there = root.join(library.strip_prefix("/")?);
        if !there.exists() {
            fs::create_dir_all(there.parent().context("a library at the root")?)?;
            install(&library, &there)?;
        }
    }
    Ok(())
}

/// The paths in what ldd(1) says: `name => path (address)`, or `path (address)` for the loader.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let said = workspace::output(Command::new("ldd").arg(program))?;
    if let Some(line) = said.lines().find(|line| line.contains("not found")) {
        bail!("{} needs what is not there: {line}", program.display());
    }
    let words = said.lines().flat_map(str::split_whitespace);
    Ok(words
        .filter(|word| word.starts_with('/'))
        .map(PathBuf::from)
        .collect())
}

fn install(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// Packs a folder in the kernel's `newc` form. Not compressed: to unpack takes an emulated kernel longer than to read.
fn pack(root: &Path) -> Result<PathBuf> {
    let image = root.with_extension("cpio");
    let script = "find . | cpio --quiet -o -H newc > \"$0\"";
    let status = Command::new("sh")
        .current_dir(root)
        .args(["-c", script])
        .arg(&image)
        .status()?;
    if !status.success() {
        bail!("cannot pack {}", image.display());
    }
    Ok(image)
}
