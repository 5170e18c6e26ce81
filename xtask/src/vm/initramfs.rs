//! The guest's whole world: busybox, our programs linked statically, and an init that runs one suite.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::workspace::{self, check};

const TRIPLE: &str = "x86_64-unknown-linux-gnu";
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
    let built = workspace::target().join(TRIPLE).join("vm");
    check(
        cargo()
            .args([
                "build",
                "--package",
                "relay",
                "--package",
                "sensor-bpf",
                "--package",
                "cli",
            ])
            .guest(),
    )?;
    let suite_program = build_suite(suite)?;
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
    for program in PROGRAMS {
        install(&built.join(program), &root.join("bin").join(program))?;
    }
    install(&suite_program, &root.join("bin/suite"))?;
    fs::write(root.join("init"), INIT)?;
    fs::set_permissions(root.join("init"), fs::Permissions::from_mode(0o755))?;
    fs::write(
        root.join("etc/machine-id"),
        "c0ffee00c0ffee00c0ffee00c0ffee00\n",
    )?;
    pack(&root)
}

fn cargo() -> Command {
    let mut cargo = workspace::cargo();
    // Build scripts and procedural macros are built for the host because a target is named: the flag reaches only the guest's programs.
    cargo
        .env("RUSTFLAGS", "-Ctarget-feature=+crt-static")
        .env("LIBBPF_SYS_LIBRARY_PATH", "/usr/lib/x86_64-linux-gnu");
    cargo
}

trait GuestBuild {
    fn guest(&mut self) -> &mut Self;
}

impl GuestBuild for Command {
    fn guest(&mut self) -> &mut Self {
        self.args([
            "--target",
            TRIPLE,
            "--profile",
            "vm",
            "--no-default-features",
            "--features",
            "cli/static",
        ])
    }
}

fn build_suite(suite: &str) -> Result<PathBuf> {
    let mut command = cargo();
    command
        .args(["test", "--no-run", "--package", "cli", "--test", suite])
        .guest()
        .args(["--message-format", "json-render-diagnostics"])
        .stderr(Stdio::inherit());
    let out = workspace::output(&mut command)?;
    out.lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == suite)
        .find_map(|message| Some(PathBuf::from(message["executable"].as_str()?)))
        .with_context(|| format!("cargo built no test program {suite}"))
}

fn install(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// Packs a folder in the kernel's `newc` form, lightly compressed.
fn pack(root: &Path) -> Result<PathBuf> {
    let image = root.with_extension("cpio.gz");
    let script = "find . | cpio --quiet -o -H newc | gzip -1 > \"$0\"";
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
