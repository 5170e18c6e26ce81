//! What policies make of operations, as the workload sees it.

use std::process::Command;

use crate::scene::workload;
use crate::score::Score;

/// Every operation once, by workloads and by nobody.
pub(crate) fn outcomes(score: &mut Score) {
    let cases: &[(&str, &[&str], &str)] = &[
        ("a free program runs", &["exec", "/opt/allowed"], "ran"),
        (
            "a blocked program is refused",
            &["exec", "/opt/blocked"],
            "EACCES",
        ),
        (
            "a symbolic link does not help",
            &["exec", "/opt/alias"],
            "EACCES",
        ),
        (
            "nor does a detour in the path",
            &["exec", "/opt/../opt//blocked"],
            "EACCES",
        ),
        (
            "a closed folder is closed to its depth",
            &["exec", "/opt/closed/deep/tool"],
            "EACCES",
        ),
        ("an audited program runs", &["exec", "/opt/audited"], "ran"),
        (
            "a blocked file cannot be read",
            &["read", "/data/secret"],
            "EACCES",
        ),
        ("nor appended to", &["append", "/data/secret"], "EACCES"),
        (
            "nor read by a symbolic link",
            &["read", "/data/alias"],
            "EACCES",
        ),
        (
            "nor below a blocked folder",
            &["read", "/data/vault/deep/key"],
            "EACCES",
        ),
        (
            "an audited file can be read",
            &["read", "/data/watched"],
            "ok",
        ),
        ("another file can be read", &["read", "/data/free"], "ok"),
        (
            "a blocked file cannot be unlinked",
            &["unlink", "/data/secret"],
            "EACCES",
        ),
        (
            "nor renamed",
            &["rename", "/data/secret", "/data/other"],
            "EACCES",
        ),
        (
            "nor linked",
            &["link", "/data/secret", "/data/hard"],
            "EACCES",
        ),
        ("nor truncated", &["truncate", "/data/secret"], "EACCES"),
        ("UDP is refused", &["udp"], "EACCES"),
        ("TCP is not", &["tcp"], "ok"),
        (
            "a blocked capability is refused",
            &["chown", "/data/free"],
            "EPERM",
        ),
        ("an audited one is granted", &["chroot", "/"], "ok"),
        (
            "a system call that a policy names passes",
            &["mkdir", "/data/made"],
            "ok",
        ),
    ];
    for (what, act, want) in cases {
        let command: Vec<&str> = ["/opt/allowed", "act"]
            .iter()
            .chain(*act)
            .copied()
            .collect();
        score.case(what, &workload("vm", "app=vm", &command), want);
    }
    let strict = |path| {
        workload(
            "allow",
            "app=strict",
            &[path, "act", "exec", "/opt/allowed"],
        )
    };
    score.case(
        "an allow-list with posture block refuses the rest",
        &strict("/opt/open/tool"),
        "EACCES",
    );
    let tried = ["/opt/allowed", "act", "exec", "/opt/audited"];
    score.case(
        "an allow-list in mode audit refuses nothing",
        &workload("trial", "app=trial", &tried),
        "ran",
    );
    let outside = Command::new("/opt/allowed")
        .args(["act", "exec", "/opt/blocked"])
        .output();
    let said = outside.map(|out| String::from_utf8_lossy(&out.stdout).trim().to_owned());
    score.case(
        "outside the workload nothing is refused",
        &said.unwrap_or_default(),
        "ran",
    );
}
