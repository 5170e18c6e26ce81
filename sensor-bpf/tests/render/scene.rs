//! The workload, images and observations that the tests tell of.

use crate::support::slot_rule;
use proto::feeder::{Alert, Log};
use sensor_bpf::observe::{Action, By, Call, Decision, Hook, Observation, Op, Outcome, Task};
use sensor_bpf::process::Image;
use sensor_bpf::render::{self, Context, Node, Rendered, Whose};
use sensor_bpf::workload::{Identity, Workload};

pub(crate) fn workload() -> Workload {
    let identity = Identity {
        namespace: "multiubuntu".to_owned(),
        name: "ubuntu-1".to_owned(),
        labels: [("group", "group-1"), ("app", "demo")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into(),
        container: "ubuntu-1-container".to_owned(),
        image: "kubearmor/ubuntu-w-utils:latest@sha256:1".to_owned(),
        owner: Some(sensor_bpf::workload::Owner {
            kind: "Deployment".to_owned(),
            name: "ubuntu-1-deployment".to_owned(),
            namespace: "multiubuntu".to_owned(),
        }),
    };
    Workload {
        index: 7,
        labels: identity.labels_text(),
        identity,
        container_id: "sensor-1-7".to_owned(),
        root: "/".into(),
        cgroup: "/sys/fs/cgroup/cresset/sensor-1/7".into(),
    }
}

pub(crate) fn image(exe: &str, args: &[&str], parent: &str) -> Image {
    let args = args.iter().map(|arg| (*arg).to_owned()).collect();
    Image::new(exe.to_owned(), exe, args, parent.to_owned())
}

pub(crate) fn seen(op: Op) -> Observation {
    Observation {
        time_ns: 1_700_000_000_123_456_789,
        task: Task {
            workload: 7,
            exec_id: 41,
            parent_exec_id: 40,
            host_pid: 2001,
            host_tid: 2001,
            host_ppid: 2000,
            pid: 12,
            ppid: 1,
            uid: 1000,
            comm: "cat".to_owned(),
            cwd: "/root".to_owned(),
            tty: Some("pts0".to_owned()),
        },
        op,
        result: 0,
        verdict: None,
        truncated: 0,
        display_only: 0,
    }
}

pub(crate) fn judged(op: Op, action: Action, by: By, outcome: Outcome, hook: Hook) -> Observation {
    let verdict = Some(Decision {
        action,
        by,
        outcome,
        hook,
        fault: false,
    });
    Observation {
        verdict,
        ..seen(op)
    }
}

pub(crate) const RULE: By = By::Rule {
    set: 1,
    generation: 1,
    slot: 0,
};

pub(crate) fn exec() -> Op {
    Op::Exec {
        path: "/usr/bin/apt".to_owned(),
        literal: "/usr/bin/apt".to_owned(),
        args: vec!["apt".to_owned(), "update".to_owned()],
        parent_exe: "/bin/bash".to_owned(),
        call: Call::Execve,
    }
}

pub(crate) fn open(call: Call) -> Op {
    Op::Open {
        path: "/etc/shadow".to_owned(),
        flags: 0,
        call,
        dirfd: -100,
        owner_uid: Some(0),
    }
}

pub(crate) fn raw_icmp() -> Op {
    Op::Socket {
        family: 2,
        kind: 3,
        protocol: 1,
    }
}

pub(crate) fn syscall(name: &str, arguments: [u64; 5], path: &str) -> Op {
    Op::Syscall {
        number: policy::syscall(name).unwrap(),
        arguments,
        path: path.to_owned(),
        other: String::new(),
        file_system: String::new(),
        dirfd: -100,
    }
}

pub(crate) fn apt() -> Image {
    image("/usr/bin/apt", &["apt", "update"], "/bin/bash")
}

pub(crate) fn cat() -> Image {
    image("/bin/cat", &["cat", "/etc/shadow"], "/bin/bash")
}

pub(crate) fn ping() -> Image {
    image("/usr/bin/ping", &["ping", "10.0.0.1"], "/bin/bash")
}

pub(crate) fn rendered(tier: u8, image: &Image, observation: &Observation) -> Vec<Rendered> {
    told_of(Whose::Workload(&workload()), tier, image, observation)
}

pub(crate) fn told_of(
    whose: Whose<'_>,
    tier: u8,
    image: &Image,
    observation: &Observation,
) -> Vec<Rendered> {
    let node = Node {
        cluster: "default".to_owned(),
        name: "node-1".to_owned(),
        id: "0123456789abcdef".to_owned(),
        tier,
    };
    let mut rule = slot_rule("ksp-group-1-proc-path-block", 5, &["MITRE", "T1"], "no");
    // Written as it was decided: no policy in mode audit.
    let audited = |verdict: &Decision| verdict.action == Action::Audit;
    if observation.verdict.as_ref().is_some_and(audited) {
        rule.action = policy::Action::Audit;
    }
    let by_rule = observation
        .verdict
        .is_some_and(|verdict| verdict.by == RULE);
    let digest = [9; 32];
    let rule = by_rule.then_some(&rule);
    render::events(
        &Context {
            node: &node,
            whose,
            image,
            rule,
            digest: &digest,
        },
        observation,
    )
}

pub(crate) fn alert(tier: u8, image: &Image, observation: &Observation) -> Alert {
    match rendered(tier, image, observation).as_slice() {
        [Rendered::Alert(alert)] => (**alert).clone(),
        other => panic!("not one alert: {other:?}"),
    }
}

pub(crate) fn logs(image: &Image, observation: &Observation) -> Vec<Log> {
    let log = |event| match event {
        Rendered::Log(log) => *log,
        other => panic!("no log: {other:?}"),
    };
    rendered(3, image, observation)
        .into_iter()
        .map(log)
        .collect()
}

pub(crate) fn log(image: &Image, observation: &Observation) -> Log {
    let mut logs = logs(image, observation);
    assert_eq!(logs.len(), 1, "{logs:?}");
    logs.remove(0)
}

/// Operation, Source, Resource, Data, Enforcer / Action / Result.
pub(crate) fn row(alert: &Alert) -> [String; 5] {
    let Alert {
        operation,
        source,
        resource,
        data,
        enforcer,
        action,
        result,
        ..
    } = alert.clone();
    [
        operation,
        source,
        resource,
        data,
        format!("{enforcer} / {action} / {result}"),
    ]
}

pub(crate) fn log_row(log: &Log) -> [String; 5] {
    let Log {
        operation,
        source,
        resource,
        data,
        result,
        ..
    } = log.clone();
    [operation, source, resource, data, result]
}
