//! The workload: what it is asked to do, and how it says what came of it.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

/// Does one thing and prints what came of it.
pub(crate) fn act(args: &[String]) -> ExitCode {
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["say", text] => {
            println!("{text}");
            return ExitCode::SUCCESS;
        }
        ["exec", path] => Err(Command::new(path).args(["act", "say", "ran"]).exec()),
        ["read", path] => fs::read(path).map(|_| ()),
        ["append", path] => fs::OpenOptions::new().append(true).open(path).map(|_| ()),
        ["unlink", path] => fs::remove_file(path),
        ["rename", from, to] => fs::rename(from, to),
        ["link", from, to] => fs::hard_link(from, to),
        ["truncate", path] => truncate(path),
        ["udp"] => std::net::UdpSocket::bind("127.0.0.1:0").map(|_| ()),
        ["chown", path] => std::os::unix::fs::chown(path, Some(1), Some(1)),
        ["chroot", path] => std::os::unix::fs::chroot(path),
        ["mkdir", path] => fs::create_dir(path),
        ["tcp"] => std::net::TcpListener::bind("127.0.0.1:0").map(|_| ()),
        other => {
            println!("unknown act {other:?}");
            return ExitCode::from(2);
        }
    };
    println!(
        "{}",
        outcome.map_or_else(|error| name(&error), |()| "ok".to_owned())
    );
    ExitCode::SUCCESS
}

fn truncate(path: &str) -> std::io::Result<()> {
    let path = std::ffi::CString::new(path)?;
    // SAFETY: a valid C string.
    match unsafe { libc::truncate(path.as_ptr(), 0) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

fn name(error: &std::io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EACCES) => "EACCES".to_owned(),
        Some(libc::EPERM) => "EPERM".to_owned(),
        Some(libc::ENOENT) => "ENOENT".to_owned(),
        _ => error.to_string(),
    }
}
