//! What the relay was told of it all.

use std::time::Duration;

use serde_json::Value;

use crate::scene::status;
use crate::score::Score;
use crate::support::{eventually, program};

/// The alerts of the relay's history.
pub(crate) fn alerts() -> Vec<Value> {
    // The last alert is known to have arrived when the newest workload's has.
    eventually("the alerts arrive", Duration::from_secs(20), || {
        let out = program("cresset")
            .args([
                "logs",
                "--relay",
                "127.0.0.1:32767",
                "--since",
                "10m",
                "--filter",
                "policy",
                "--json",
            ])
            .output()
            .expect("cresset logs");
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let alerts: Vec<Value> = text
            .lines()
            .filter_map(|l| serde_json::from_str(l).ok())
            .collect();
        alerts
            .iter()
            .any(|a| a["Action"] == "Audit (Block)" && a["NamespaceName"] == "trial")
            .then_some(alerts)
    })
}

/// Every case must have its alert.
pub(crate) fn told(score: &mut Score, alerts: &[Value], tier: &str) {
    let rows: &[(&str, &[(&str, &str)])] = &[
        (
            "the blocked program is told",
            &[
                ("PolicyName", "vm-process"),
                ("Operation", "Process"),
                ("Action", "Block"),
                ("Severity", "7"),
                ("Result", "Permission denied"),
                ("Enforcer", "BPFLSM"),
                ("Data", "lsm=SECURITY_BPRM_CHECK"),
                ("NamespaceName", "vm"),
                ("PodName", "case"),
                ("ProcessName", "/opt/blocked"),
                ("Tags", "VM"),
            ],
        ),
        (
            "the audited program is told",
            &[
                ("PolicyName", "vm-process"),
                ("Operation", "Process"),
                ("Action", "Audit"),
                ("Result", "Passed"),
                ("Enforcer", "eBPF Monitor"),
                ("ProcessName", "/opt/audited"),
            ],
        ),
        (
            "the blocked file is told",
            &[
                ("PolicyName", "vm-file"),
                ("Operation", "File"),
                ("Action", "Block"),
                ("Resource", "/data/secret"),
                ("Result", "Permission denied"),
                ("Enforcer", "BPFLSM"),
                ("Data", "lsm=FILE_OPEN"),
            ],
        ),
        (
            "the audited file is told",
            &[
                ("PolicyName", "vm-file"),
                ("Action", "Audit"),
                ("Resource", "/data/watched"),
                ("Result", "Passed"),
            ],
        ),
        (
            "the blocked socket is told",
            &[
                ("PolicyName", "vm-network"),
                ("Operation", "Network"),
                ("Action", "Block"),
                ("Enforcer", "BPFLSM"),
            ],
        ),
        (
            "the blocked capability is told",
            &[
                ("PolicyName", "vm-named"),
                ("Operation", "Capabilities"),
                ("Resource", "CAP_CHOWN"),
                ("Data", "lsm=CAPABLE CAP_CHOWN"),
                ("Action", "Block"),
                ("Result", "Permission denied"),
                ("Enforcer", "BPFLSM"),
            ],
        ),
        (
            "the audited capability is told",
            &[
                ("PolicyName", "vm-named"),
                ("Operation", "Capabilities"),
                ("Resource", "CAP_SYS_CHROOT"),
                ("Action", "Audit"),
                ("Result", "Passed"),
            ],
        ),
        (
            "the named system call is told",
            &[
                ("PolicyName", "vm-named"),
                ("Operation", "Syscall"),
                ("Resource", "/data/made"),
                ("Data", "syscall=SYS_MKDIR"),
                ("Action", "Audit"),
                ("Result", "Passed"),
            ],
        ),
        (
            "the posture is told",
            &[
                ("PolicyName", "DefaultPosture"),
                ("Action", "Block"),
                ("NamespaceName", "allow"),
            ],
        ),
        (
            "what an allow-list on trial would stop is told as its posture",
            &[
                ("PolicyName", "DefaultPosture"),
                ("Action", "Audit (Block)"),
                ("Result", "Passed"),
                ("Enforcer", "eBPF Monitor"),
                ("Operation", "Process"),
                ("ProcessName", "/opt/audited"),
                ("NamespaceName", "trial"),
            ],
        ),
    ];
    for (what, wanted) in rows {
        let found = alerts
            .iter()
            .any(|alert| wanted.iter().all(|(key, value)| alert[*key] == **value));
        score.case(what, if found { "told" } else { "not told" }, "told");
    }
    let text = status().unwrap_or_default();
    let said = text.contains(&format!("tier {tier}"));
    score.case(
        "the status names the tier",
        if said { tier } else { "another" },
        tier,
    );
}
