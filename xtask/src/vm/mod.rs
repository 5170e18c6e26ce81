//! `cargo xtask vm`: a real kernel with a real BPF LSM, booted in seconds under emulation.
//!
//! ```text
//! Debian package ─▶ vmlinuz ──┐
//! cargo build ─▶ initramfs ─▶ qemu -accel tcg ─▶ /init runs the suite ─▶ serial console ─▶ exit code
//! ```
//! The guest has no disk and no network: what it needs is in the initramfs, and what it says comes over the serial line. Its
//! last line `CRESSET-SUITE-EXIT n` carries the suite's exit code.

mod initramfs;
mod kernel;
mod qemu;

use anyhow::{Result, bail};

use crate::workspace;

/// The kernel series that are proven, oldest first.
pub(crate) const KERNELS: &[&str] = &["6.1", "6.12"];

/// What to boot and run.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Kernel series
    #[arg(long, default_value = "6.12", value_parser = ["6.1", "6.12"])]
    kernel: String,
    /// Whether `bpf` is among the active security modules
    #[arg(long, default_value = "on", value_parser = ["on", "off"])]
    lsm: String,
    /// More words for the kernel command line, such as `preempt=full`
    #[arg(long, default_value = "")]
    append: String,
    /// The suite: a test program of `cli` with its own `main`
    #[arg(default_value = "vm_enforce")]
    suite: String,
    /// Seconds until the guest is stopped
    #[arg(long, default_value_t = 180)]
    timeout: u64,
}

impl Args {
    pub(crate) fn with_lsm(kernel: &str) -> Self {
        Self {
            kernel: kernel.to_owned(),
            lsm: "on".to_owned(),
            append: String::new(),
            suite: "vm_enforce".to_owned(),
            timeout: 180,
        }
    }
}

/// Why no virtual machine can be run here, if so.
pub(crate) fn missing() -> Option<String> {
    [
        "qemu-system-x86_64",
        "busybox",
        "cpio",
        "apt-get",
        "dpkg-deb",
    ]
    .iter()
    .find(|program| !workspace::on_path(program))
    .map(|program| format!("{program} is not installed; `make setup` names its package"))
}

pub(crate) fn run(args: &Args) -> Result<()> {
    if let Some(reason) = missing() {
        bail!("{reason}");
    }
    let image = kernel::fetch(&args.kernel)?;
    let initramfs = initramfs::build(&args.suite)?;
    let mut append = args.append.clone();
    if args.lsm == "off" {
        append.push_str(" lsm=landlock,yama,apparmor");
    }
    let code = qemu::boot(&image, &initramfs, &append, args.timeout)?;
    if code != 0 {
        bail!(
            "suite {} on kernel {} ended with {code}",
            args.suite,
            args.kernel
        );
    }
    Ok(())
}
