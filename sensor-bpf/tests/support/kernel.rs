//! A kernel half that remembers what it was told and reports what the test says.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use proto::link::Ability;
use sensor_bpf::config::VisibilityClass;
use sensor_bpf::enforcer::{Enforcer, KernelLoss};
use sensor_bpf::lost::{Class, Place};
use sensor_bpf::observe::{Action, By, Call, Decision, Hook, Observation, Op, Outcome, Task};

/// What it remembers.
#[derive(Debug, Default)]
pub struct State {
    pub workloads: BTreeMap<u32, (PathBuf, u32)>,
    /// Set → generation and the paths that it blocks on exec.
    pub sets: BTreeMap<u32, u32>,
    /// What was written as each set.
    pub flats: BTreeMap<u32, policy::Flat>,
    pub pending: Vec<Observation>,
    pub lost: [u64; 2],
    /// What the next `write_set` answers.
    pub refuse: Option<String>,
    generations: u32,
}

/// Clones share the state.
#[derive(Debug, Clone, Default)]
pub struct FakeKernel(Arc<Mutex<State>>);

impl FakeKernel {
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// The kernel reports this.
    pub fn report(&self, observation: Observation) {
        self.state().pending.push(observation);
    }

    /// Which set judges a workload.
    pub fn set_of(&self, index: u32) -> u32 {
        self.state().workloads[&index].1
    }

    /// What the rules of a workload make of an operation.
    pub fn decides(&self, index: u32, operation: &policy::Operation) -> policy::Verdict<u32> {
        let state = self.state();
        state.flats[&state.workloads[&index].1].decide(operation)
    }
}

impl Enforcer for FakeKernel {
    fn tier(&self) -> u8 {
        3
    }

    fn abilities(&self) -> Vec<Ability> {
        [
            ("exec", "kill"),
            ("file", "audit"),
            ("network", "deny"),
            ("capabilities", "none"),
        ]
        .map(|(operation, how)| Ability {
            operation: operation.to_owned(),
            how: how.to_owned(),
            reason: String::new(),
        })
        .into()
    }

    fn reason(&self) -> String {
        "it is a fake".to_owned()
    }

    fn add_workload(&mut self, index: u32, cgroup: &Path, set: u32) -> Result<(), String> {
        self.state()
            .workloads
            .insert(index, (cgroup.to_owned(), set));
        Ok(())
    }

    fn remove_workload(&mut self, index: u32) {
        self.state().workloads.remove(&index);
    }

    fn visibility(&mut self, _: u32, _: &[VisibilityClass]) {}

    fn write_set(&mut self, set: u32, flat: &policy::Flat) -> Result<u32, String> {
        let mut state = self.state();
        if let Some(why) = state.refuse.take() {
            return Err(why);
        }
        state.generations += 1;
        let generation = state.generations;
        state.sets.insert(set, generation);
        state.flats.insert(set, flat.clone());
        Ok(generation)
    }

    fn point(&mut self, index: u32, set: u32) {
        self.state().workloads.get_mut(&index).unwrap().1 = set;
    }

    fn drop_set(&mut self, set: u32) {
        self.state().sets.remove(&set);
    }

    fn poll(&mut self, timeout: Duration, sink: &mut dyn FnMut(Observation)) -> io::Result<()> {
        let pending = std::mem::take(&mut self.state().pending);
        if pending.is_empty() {
            std::thread::sleep(timeout.min(Duration::from_millis(5)));
        }
        pending.into_iter().for_each(sink);
        Ok(())
    }

    fn lost(&self) -> Vec<KernelLoss> {
        let [verdicts, telemetry] = self.state().lost;
        [(Class::Verdict, verdicts), (Class::Telemetry, telemetry)]
            .map(|(class, total)| KernelLoss {
                place: Place::Ring,
                class,
                total,
                reason: "full",
            })
            .into()
    }
}

/// An exec of a workload, without a decision.
pub fn exec(workload: u32, exec_id: u64, line: &str) -> Observation {
    let args: Vec<String> = line.split(' ').map(str::to_owned).collect();
    Observation {
        time_ns: 1_700_000_000_000_000_000 + exec_id,
        task: Task {
            workload,
            exec_id,
            host_pid: 4_000_000 + exec_id as u32,
            uid: 1,
            ..Task::default()
        },
        op: Op::Exec {
            path: args[0].clone(),
            literal: args[0].clone(),
            args,
            parent_exe: "/bin/sh".to_owned(),
            call: Call::Execve,
        },
        result: 0,
        verdict: None,
        truncated: 0,
        display_only: 0,
    }
}

/// A file that this image opened.
pub fn open(workload: u32, exec_id: u64, path: &str) -> Observation {
    let op = Op::Open {
        path: path.to_owned(),
        flags: 0,
        call: Call::Openat,
        dirfd: -100,
        owner_uid: None,
    };
    Observation {
        op,
        ..exec(workload, exec_id, "/bin/x")
    }
}

/// The first rule of the workload's set killed this exec.
pub fn killed(kernel: &FakeKernel, observation: Observation) -> Observation {
    decided(kernel, observation, 0, Action::Block, Outcome::Killed)
}

/// A rule of the workload's set made this of it.
pub fn decided(
    kernel: &FakeKernel,
    observation: Observation,
    slot: u32,
    action: Action,
    outcome: Outcome,
) -> Observation {
    let set = kernel.set_of(observation.task.workload);
    let by = By::Rule {
        set,
        generation: kernel.state().sets[&set],
        slot,
    };
    let verdict = Decision {
        action,
        by,
        outcome,
        hook: Hook::ExecTracepoint,
        fault: false,
    };
    Observation {
        verdict: Some(verdict),
        ..observation
    }
}
