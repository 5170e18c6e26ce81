//! A page that lives.

use std::io::{Read, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::process::Stdio;

use crate::scene::{ARCHIVE, SOON, Scene};
use crate::support::{self, eventually};

#[test]
fn top_lives_on_a_terminal_and_leaves_it_as_it_was() {
    let scene = Scene::new("", ARCHIVE);
    let relay = scene.place.start();
    let (master, slave) = terminal();
    let mut top = support::program("cresset");
    top.args(["top", "--relay", &relay.feed, "--interval", "200ms"]);
    let of = || Stdio::from(slave.try_clone().expect("a terminal"));
    let mut child = top
        .stdin(of())
        .stdout(of())
        .stderr(of())
        .spawn()
        .expect("cresset top");
    drop(slave);
    let shown = support::Lines::default();
    let mut screen = std::fs::File::from(master.try_clone().expect("a terminal"));
    let into = shown.clone();
    std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(length @ 1..) = screen.read(&mut bytes) {
            into.push(String::from_utf8_lossy(&bytes[..length]).into_owned());
        }
    });
    scene.import("shop", 10);
    for words in [
        "relay     ready",
        "sinks     1",
        "archive",
        "events/s in",
        "q quits",
    ] {
        eventually(words, SOON, || {
            shown.all().concat().contains(words).then_some(())
        });
    }
    std::fs::File::from(master).write_all(b"q").expect("a key");
    let ended = eventually("the end", SOON, || child.try_wait().expect("wait"));
    assert_eq!(ended.code(), Some(0));
    let text = shown.all().concat();
    assert!(
        text.contains("\u{1b}[?1049h") && text.contains("\u{1b}[?1049l"),
        "the other screen, and back"
    );
    let mut plain = support::program("cresset");
    let plain = plain
        .args(["top", "--relay", &relay.feed])
        .output()
        .expect("cresset top");
    assert_eq!(plain.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&plain.stderr).contains("cresset status"));
    relay.stop();
}

/// A pseudo-terminal of 120 columns.
fn terminal() -> (OwnedFd, OwnedFd) {
    let (mut master, mut slave) = (0, 0);
    let size = libc::winsize {
        ws_row: 30,
        ws_col: 120,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: both numbers are written before they are read, and name, settings and size are optional or live.
    let made = unsafe {
        libc::openpty(
            &raw mut master,
            &raw mut slave,
            std::ptr::null_mut(),
            std::ptr::null(),
            &raw const size,
        )
    };
    assert_eq!(made, 0, "a pseudo-terminal");
    // SAFETY: openpty gave both, and nobody else has them.
    unsafe { (OwnedFd::from_raw_fd(master), OwnedFd::from_raw_fd(slave)) }
}
