//! Logs of the host's own tasks: what they share with workloads' Logs, and what they leave empty.

use proto::feeder::Log;
use sensor_bpf::observe::{Call, Op};
use sensor_bpf::render::{Rendered, Whose};

use crate::scene::*;

fn told(user: &str, op: Op) -> Log {
    let mut observation = seen(op);
    observation.task.workload = sensor_bpf::kernel::HOST;
    match told_of(Whose::Host { user }, 3, &cat(), &observation).as_slice() {
        [Rendered::Log(log)] => (**log).clone(),
        other => panic!("not one log: {other:?}"),
    }
}

#[test]
fn a_host_log_names_its_user_and_no_workload() {
    let told = told("ada", open(Call::Openat));
    let workloads = log(&cat(), &seen(open(Call::Openat)));
    let expected = Log {
        r#type: "HostLog".to_owned(),
        user_name: "ada".to_owned(),
        namespace_name: String::new(),
        owner: None,
        pod_name: String::new(),
        labels: String::new(),
        container_id: String::new(),
        container_name: String::new(),
        container_image: String::new(),
        pid: told.host_pid,
        ppid: told.host_ppid,
        ..workloads.clone()
    };
    assert_eq!(told, expected);
    assert_eq!((told.host_pid, told.host_ppid), (2001, 2000));
    assert_eq!(told.source, "/bin/cat /etc/shadow");
    assert_eq!(
        (workloads.r#type.as_str(), workloads.user_name.as_str()),
        ("ContainerLog", "")
    );
}

#[test]
fn a_user_without_a_name_is_told_by_number() {
    let told = told("", open(Call::Openat));
    assert_eq!((told.user_name.as_str(), told.uid), ("", 1000));
}
