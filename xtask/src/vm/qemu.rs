//! One boot: qemu without acceleration, serial console in, exit code out.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Ends the machine whichever way the function is left.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Boots, streams the console, and gives the exit code that the guest's init printed.
pub(crate) fn boot(kernel: &Path, initramfs: &Path, append: &str, timeout: u64) -> Result<i32> {
    let start = Instant::now();
    let line = format!("console=ttyS0 quiet panic=-1 mitigations=off {append}");
    let child = Command::new("qemu-system-x86_64")
        .args([
            "-accel", "tcg", "-cpu", "max", "-machine", "q35", "-smp", "2", "-m", "1536",
        ])
        .args([
            "-nographic",
            "-no-reboot",
            "-nodefaults",
            "-serial",
            "stdio",
        ])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(initramfs)
        .args(["-append", line.trim_end()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start qemu-system-x86_64")?;
    let mut machine = Machine(child);
    let stdout = machine
        .0
        .stdout
        .take()
        .context("qemu has no standard output")?;
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).split(b'\n') {
            let Ok(line) = line else { break };
            if sender
                .send(String::from_utf8_lossy(&line).into_owned())
                .is_err()
            {
                break;
            }
        }
    });
    let deadline = start + Duration::from_secs(timeout);
    let mut code = None;
    loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                let line = line.trim_end();
                println!("| {line}");
                if let Some(n) = line.split("CRESSET-SUITE-EXIT ").nth(1) {
                    code = n.trim().parse().ok();
                }
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                bail!("the guest did not end within {timeout} s")
            }
        }
    }
    println!("guest ran {:.1} s", start.elapsed().as_secs_f32());
    code.context("the guest ended without telling the suite's exit code")
}
