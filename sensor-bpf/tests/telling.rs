//! From observations to events: order, visibility, redaction, throttle.
#![allow(clippy::unwrap_used, clippy::panic)] // reason: a test that fails says so

mod support;

use std::collections::BTreeSet;
use std::time::Instant;

use prost::Message;
use proto::Kind;
use proto::feeder::{Alert, Log};
use sensor_bpf::config::{RedactField, Redaction, Visibility, VisibilityClass};
use sensor_bpf::kernel::HOST;
use sensor_bpf::lost::{Class, Losses, Place};
use sensor_bpf::observe::{Action, Address, By, Decision, Hook, Observation, Op, Outcome};
use sensor_bpf::redact::Redact;
use sensor_bpf::render::Node;
use sensor_bpf::sets::Sets;
use sensor_bpf::teller::{Known, Outgoing, Teller};
use sensor_bpf::throttle::Throttle;
use sensor_bpf::workload::{Identity, Registry, Workload};
use support::kernel::{exec, open};

struct Bench {
    teller: Teller,
    workloads: Registry,
    sets: Sets,
    losses: Losses,
}

impl Bench {
    fn new(visible: &[VisibilityClass], patterns: &[&str], per_second: u32) -> Self {
        let losses = Losses::default();
        let redactions: Vec<Redaction> = patterns
            .iter()
            .map(|pattern| Redaction {
                field: RedactField::Arguments,
                pattern: (*pattern).to_owned(),
                replace: "***".to_owned(),
            })
            .collect();
        let workloads: BTreeSet<_> = visible.iter().copied().collect();
        let host = BTreeSet::from([VisibilityClass::Process, VisibilityClass::File]);
        let visible = Visibility { workloads, host };
        let redact = Redact::new(&redactions).unwrap();
        let throttle = Throttle::new(per_second);
        let teller = Teller::new(Node::default(), visible, redact, throttle, losses.clone());
        let mut workloads = Registry::default();
        workloads.insert(Workload {
            index: 1,
            identity: Identity::default(),
            labels: String::new(),
            container_id: String::new(),
            root: "/".into(),
            cgroup: "/nowhere".into(),
        });
        Self {
            teller,
            workloads,
            sets: Sets::default(),
            losses,
        }
    }

    fn all() -> Self {
        use VisibilityClass::{Capabilities, File, Network, Process};
        Self::new(&[Process, File, Network, Capabilities], &[], 0)
    }

    fn round(&mut self, observations: Vec<Observation>) -> Vec<Outgoing> {
        let known = Known {
            workloads: &self.workloads,
            sets: &self.sets,
        };
        let mut sent = Vec::new();
        self.teller
            .tell(observations, known, Instant::now(), &mut |event| {
                sent.push(event)
            });
        sent
    }

    fn logs(&mut self, observations: Vec<Observation>) -> Vec<Log> {
        let sent = self.round(observations).into_iter();
        sent.filter(|event| event.kind == Kind::Log)
            .map(|event| Log::decode(event.payload).unwrap())
            .collect()
    }
}

fn audited(observation: Observation) -> Observation {
    let verdict = Decision {
        action: Action::Audit,
        by: By::Posture,
        outcome: Outcome::Passed,
        hook: Hook::SyscallExit,
        fault: false,
    };
    Observation {
        verdict: Some(verdict),
        ..observation
    }
}

#[test]
fn an_event_that_overtook_its_exec_still_knows_its_image() {
    let mut bench = Bench::all();
    let same_round = bench.logs(vec![open(1, 5, "/a"), exec(1, 5, "/bin/cat /a")]);
    assert_eq!(same_round[1].source, "/bin/cat /a");
    assert_eq!(bench.logs(vec![open(1, 6, "/b")]), []);
    let next_round = bench.logs(vec![exec(1, 6, "/bin/tac /b")]);
    assert_eq!(
        (
            next_round[1].source.as_str(),
            next_round[1].resource.as_str()
        ),
        ("/bin/tac /b", "/b")
    );
}

#[test]
fn an_image_that_never_comes_costs_a_round_and_not_the_event() {
    let mut bench = Bench::all();
    let mut stranger = open(1, 7, "/a");
    stranger.task.comm = "ghost".to_owned();
    assert_eq!(bench.logs(vec![stranger]), []);
    let told = bench.logs(Vec::new());
    assert_eq!(
        (
            told.len(),
            told[0].source.as_str(),
            told[0].process_name.as_str()
        ),
        (1, "ghost", "")
    );
}

#[test]
fn a_process_that_runs_since_before_is_looked_up() {
    let mut bench = Bench::all();
    let mut mine = open(1, 8, "/a");
    mine.task.host_pid = std::process::id();
    bench.logs(vec![mine]);
    let told = bench.logs(Vec::new());
    assert_eq!(told[0].display_only, 8 | 16 | 32);
    assert_eq!(
        told[0].process_name,
        std::env::current_exe().unwrap().to_str().unwrap()
    );
}

#[test]
fn visibility_chooses_logs_and_never_alerts() {
    let mut bench = Bench::new(&[VisibilityClass::Process], &[], 0);
    let sent = bench.round(vec![
        exec(1, 5, "/bin/cat"),
        open(1, 5, "/a"),
        audited(open(1, 5, "/b")),
    ]);
    let kinds: Vec<_> = sent.iter().map(|event| (event.kind, event.class)).collect();
    assert_eq!(
        kinds,
        [(Kind::Log, Class::Telemetry), (Kind::Alert, Class::Verdict)]
    );
}

#[test]
fn opens_below_proc_and_sys_are_told_only_when_a_rule_minds() {
    let mut bench = Bench::all();
    bench.logs(vec![exec(1, 5, "/bin/cat")]);
    assert_eq!(
        bench.logs(vec![
            open(1, 5, "/proc/1/environ"),
            open(1, 5, "/sys/kernel")
        ]),
        []
    );
    assert_eq!(
        bench
            .round(vec![audited(open(1, 5, "/proc/1/environ"))])
            .len(),
        1
    );
}

#[test]
fn secrets_are_gone_from_every_text_of_an_event() {
    let mut bench = Bench::new(
        &[VisibilityClass::Process, VisibilityClass::File],
        &[r"token=\S+"],
        0,
    );
    let sent = bench.round(vec![
        exec(1, 5, "/bin/curl -d token=s3cret http://x"),
        open(1, 5, "/a"),
    ]);
    assert_eq!(sent.len(), 2);
    for event in &sent {
        let text = String::from_utf8_lossy(&event.payload);
        assert!(!text.contains("s3cret") && text.contains("***"), "{text}");
    }
    let log = Log::decode(sent[0].payload.clone()).unwrap();
    assert_eq!(log.resource, "/bin/curl -d *** http://x");
    assert_eq!(log.args, ["/bin/curl", "-d", "***", "http://x"]);
}

#[test]
fn a_denied_exec_does_not_change_who_acts() {
    let mut bench = Bench::all();
    let mut denied = exec(1, 5, "/bin/sleep 1");
    denied.verdict = Some(Decision {
        action: Action::Block,
        by: By::Posture,
        outcome: Outcome::Denied,
        hook: Hook::BprmCheck,
        fault: false,
    });
    let sent = bench.round(vec![exec(1, 5, "/bin/sh -c x"), denied, open(1, 5, "/a")]);
    let alert = Alert::decode(sent[1].payload.clone()).unwrap();
    assert_eq!(
        (alert.resource.as_str(), alert.process_name.as_str()),
        ("/bin/sleep 1", "/bin/sleep")
    );
    let log = Log::decode(sent[2].payload.clone()).unwrap();
    assert_eq!(log.source, "/bin/sh -c x");
}

#[test]
fn alerts_beyond_the_throttle_are_counted() {
    let mut bench = Bench::new(&[], &[], 2);
    let round = (0..10)
        .map(|n| audited(open(1, 0, &format!("/{n}"))))
        .collect();
    let alerts: Vec<_> = bench
        .round(round)
        .into_iter()
        .map(|e| Alert::decode(e.payload).unwrap())
        .collect();
    let types: Vec<_> = alerts.iter().map(|alert| alert.r#type.as_str()).collect();
    assert_eq!(types, ["MatchedPolicy", "MatchedPolicy", "SystemEvent"]);
    assert_eq!(bench.losses.totals()[&(Place::Throttle, Class::Verdict)], 7);
}

#[test]
fn records_of_an_unknown_workload_are_counted() {
    let mut bench = Bench::all();
    assert!(bench.round(vec![exec(9, 5, "/bin/cat")]).is_empty());
    assert_eq!(bench.losses.totals()[&(Place::Record, Class::Telemetry)], 1);
}

#[test]
fn ends_are_not_told() {
    let mut bench = Bench::all();
    let end = Observation {
        op: Op::Exit { code: 0 },
        ..exec(1, 5, "/bin/cat")
    };
    assert!(bench.round(vec![end]).is_empty());
}

// === the host ===

fn named(exec_id: u64, line: &str) -> Observation {
    let mut seen = exec(HOST, exec_id, line);
    seen.task.uid = 0;
    seen
}

#[test]
fn the_hosts_classes_are_its_own() {
    let mut bench = Bench::new(&[VisibilityClass::Network], &[], 0);
    let connect = |workload| Observation {
        op: Op::Listen {
            fd: 3,
            local: Address::Unix("/run/x".to_owned()),
        },
        ..exec(workload, 5, "/bin/x")
    };
    let told = bench.logs(vec![
        named(5, "/bin/cat /a"),
        open(HOST, 5, "/a"),
        connect(HOST),
        exec(1, 6, "/bin/tac"),
        open(1, 6, "/b"),
        Observation {
            task: exec(1, 6, "/bin/tac").task,
            ..connect(1)
        },
    ]);
    let told: Vec<_> = told
        .iter()
        .map(|log| (log.r#type.as_str(), log.operation.as_str()))
        .collect();
    assert_eq!(
        told,
        [
            ("HostLog", "Process"),
            ("HostLog", "File"),
            ("ContainerLog", "Network")
        ]
    );
}

#[test]
fn a_host_log_has_its_image_its_user_and_the_class_of_telemetry() {
    let mut bench = Bench::all();
    let sent = bench.round(vec![named(5, "/bin/cat /a"), open(HOST, 5, "/a")]);
    assert!(sent.iter().all(|event| event.class == Class::Telemetry));
    let logs: Vec<_> = sent
        .into_iter()
        .map(|event| Log::decode(event.payload).unwrap())
        .collect();
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let root = passwd
        .lines()
        .find(|line| line.split(':').nth(2) == Some("0"));
    let root = root.and_then(|line| line.split(':').next()).unwrap_or("");
    assert_eq!(logs[0].user_name, root);
    assert_eq!(
        (logs[1].source.as_str(), logs[1].resource.as_str()),
        ("/bin/cat /a", "/a")
    );
}

#[test]
fn a_host_process_from_before_is_looked_up_at_once_and_marked() {
    let mut bench = Bench::all();
    let mut mine = open(HOST, 0, "/a");
    mine.task.host_pid = std::process::id();
    let told = bench.logs(vec![mine]);
    assert_eq!(told[0].display_only, 8 | 16 | 32);
    assert_eq!(
        told[0].process_name,
        std::env::current_exe().unwrap().to_str().unwrap()
    );
}

#[test]
fn much_that_happens_on_the_host_makes_no_workloads_image_forgotten() {
    let mut bench = Bench::all();
    bench.logs(vec![exec(1, 5, "/sbin/daemon -x")]);
    for round in 0..7 {
        let ids = 10_000 * round + 100..10_000 * (round + 1) + 100;
        bench.round(ids.map(|id| named(id, "/bin/true")).collect());
    }
    let told = bench.logs(vec![open(1, 5, "/a")]);
    assert_eq!(told[0].source, "/sbin/daemon -x");
}
