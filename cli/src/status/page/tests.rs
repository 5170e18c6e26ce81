use proto::link::{Ability, Off, RuleProblem};
use proto::query::{LossStatus, PolicyProblem, SourceStream};

use super::*;

fn reply() -> StatusReply {
    let policy = PolicyStatus {
        namespace: "shop".into(),
        name: "no-sleep".into(),
        kind: "KubeArmorPolicy".into(),
        file: "/p/a.yaml".into(),
        rules: 2,
        not_enforced: vec!["spec.dns: needs a resolver".into()],
        expires_unix: 1,
    };
    let problem = RuleProblem {
        policy: "shop/no-sleep".into(),
        path: "spec.file.matchPaths[0]".into(),
        message: "files are not denied on tier 3".into(),
        refused: false,
    };
    let everywhere = RuleProblem {
        path: "spec.dns".into(),
        message: "needs a resolver".into(),
        ..problem.clone()
    };
    StatusReply {
        relay: Some(RelayStatus {
            version: "0.1.0".into(),
            ready: true,
            uptime_seconds: 3700,
            listeners: [("feed".to_string(), "127.0.0.1:1".to_string())].into(),
            feed_clients: 2,
            ..Default::default()
        }),
        sensors: vec![SensorStatus {
            node: "node-a".into(),
            connected: true,
            off: Some(Off {
                until_unix: 1,
                reason: "a test".into(),
            }),
            rules: vec![7; 32].into(),
            rules_applied: true,
            kernel: Some(KernelFacts {
                tier: 3,
                abilities: vec![Ability {
                    operation: "exec".into(),
                    how: "kill".into(),
                    reason: String::new(),
                }],
                ..Default::default()
            }),
            problems: vec![problem, everywhere],
            ..Default::default()
        }],
        policies: Some(PoliciesStatus {
            digest: vec![7; 32].into(),
            policies: vec![policy],
            problems: vec![PolicyProblem {
                file: "/p/b.yaml".into(),
                line: 3,
                path: "spec".into(),
                message: "is \x1b[2Jbroken".into(),
                ..Default::default()
            }],
            current: false,
            source: "folder /p".into(),
            rollout: None,
        }),
        sinks: vec![SinkStatus {
            name: "console".into(),
            r#type: "stdout".into(),
            state: "retrying".into(),
            delivered: 12,
            last_error: "closed".into(),
            ..Default::default()
        }],
        losses: vec![LossStatus {
            r#where: "ring".into(),
            class: "verdict".into(),
            count: 3,
        }],
        journal: None,
        certificates: vec![CertificateStatus {
            file: "/tls/server.crt".into(),
            expires_unix: 1,
        }],
        sources: vec![SourceStatus {
            name: "old".into(),
            r#type: "kubearmor".into(),
            address: "node-b:32767".into(),
            streams: [7, 8, 9]
                .map(|events| SourceStream {
                    events,
                    rejected: 1,
                    missed: 1,
                    ..Default::default()
                })
                .into(),
            errors: 4,
            last_error: "connection refused".into(),
            ..Default::default()
        }],
    }
}

#[test]
fn a_page_says_what_is_in_force_and_marks_what_needs_somebody() {
    let page = page(&reply());
    for line in [
        "relay     ready, version 0.1.0",
        "  feed    127.0.0.1:1  2 streams\n",
        "  NAMESPACE  NAME      KIND             RULES  FILE\n",
        "  shop       no-sleep  KubeArmorPolicy  2      /p/a.yaml\n",
        "    ! its time is over: it is in force nowhere\n",
        "    ! not enforced: spec.dns: needs a resolver\n",
        "    ! not enforced on node-a: spec.file.matchPaths[0]: files are not denied on tier 3\n",
        "  ! the newest reading is broken",
        "  ! error: /p/b.yaml:3: spec: is \\x1b[2Jbroken\n",
        "  node-a  connected, rules current, 0 workloads",
        "    ! policies are OFF here for ",
        "      exec       kill\n",
        "sources   0 of 1 connected\n",
        "  old   node-b:32767  ! never reached  7       8     9         6     4\n",
        " ago: connection refused\n",
        "  /tls/server.crt  ! EXPIRED\n",
        "  console  stdout  ! retrying  0        -    0         12 ",
        "    no events yet; none waiting; none lost\n",
        "  ring   verdict  3\n",
    ] {
        assert!(page.contains(line), "{line:?} is not in\n{page}");
    }
    assert_eq!(page.matches("needs a resolver").count(), 1, "{page}");
}

#[test]
fn sizes_have_three_digits() {
    assert_eq!(
        [0, 1023, 1536, 20 << 30].map(size),
        ["0 B", "1023 B", "1.5 KiB", "20.0 GiB"]
    );
}
