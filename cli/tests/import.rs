//! An import that is cut off says how many events went in.
#![allow(clippy::expect_used, clippy::panic)] // reason: a test that cannot go on has failed

mod support;

use std::io::{Read, Write};
use std::process::{Child, Stdio};
use std::time::Duration;

use support::program::{Place, Relay};
use support::{eventually, program};

/// More than one call takes, and not as much as two.
const LINES: usize = 7000;

/// `cresset import` of its standard input, which has so many lines and stays open.
fn importing(place: &Place, relay: &Relay) -> Child {
    let mut import = program("cresset");
    import.args(["import", "-", "--data"]).arg(place.path("."));
    let mut child = import
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("cresset import");
    let line = r#"{"PPID":0,"UID":0,"Type":"ContainerLog","PodName":"recorded"}"#;
    let stdin = child.stdin.as_mut().expect("piped");
    let text = format!("{line}\n").repeat(LINES);
    if let Err(why) = stdin.write_all(text.as_bytes()) {
        drop(child.stdin.take());
        let log = relay.running.stderr.text();
        panic!("it does not read: {why}; {:?}\n{log}", end(child));
    }
    child
}

/// Waits until the first call was answered and all lines of the second have been sent.
fn sent(relay: &Relay) {
    // A call writes a thousand at a time.
    relay.page_when("the lines arrive", |page| {
        page.door("import", "acknowledged") >= 6000
    });
}

/// Exit code, and what was said on both outputs.
fn end(mut child: Child) -> (Option<i32>, String) {
    let code = eventually("the import ends", Duration::from_secs(30), || {
        child.try_wait().expect("wait")
    });
    let (mut out, mut err) = (String::new(), String::new());
    child
        .stdout
        .take()
        .expect("piped")
        .read_to_string(&mut out)
        .expect("text");
    child
        .stderr
        .take()
        .expect("piped")
        .read_to_string(&mut err)
        .expect("text");
    (code.code(), out + &err)
}

fn told(text: &str) {
    let known = text.contains("cut off: 5000 events went in, and none to all of the ");
    assert!(known && text.contains(" after them\n"), "{text}");
}

#[test]
fn an_import_that_is_interrupted_says_how_many_events_went_in() {
    let place = Place::new("", "");
    let relay = place.start();
    let child = importing(&place, &relay);
    sent(&relay);
    // SAFETY: the pid is of a child that was not waited for.
    unsafe { libc::kill(child.id() as i32, libc::SIGINT) };
    let (code, text) = end(child);
    assert_eq!(code, Some(1), "{text}");
    told(&text);
    relay.stop();
}

#[test]
fn an_import_whose_relay_goes_away_says_how_many_events_went_in() {
    let place = Place::new("", "");
    let mut relay = place.start();
    let child = importing(&place, &relay);
    sent(&relay);
    relay.running.kill();
    let (code, text) = end(child);
    assert_eq!(code, Some(3), "{text}");
    told(&text);
    let relay = place.start();
    let there = relay.page().get("cresset_journal_next_sequence") - 1;
    assert!((6000..=LINES as u64).contains(&there), "{there}");
    relay.stop();
}

#[test]
fn an_import_of_more_than_one_call_counts_all_of_them() {
    let place = Place::new("", "");
    let relay = place.start();
    let mut child = importing(&place, &relay);
    drop(child.stdin.take());
    let (code, text) = end(child);
    assert_eq!((code, text.as_str()), (Some(0), "imported 7000 events\n"));
    let page = relay.page();
    assert_eq!(page.door("import", "acknowledged"), LINES as u64);
    relay.stop();
}
