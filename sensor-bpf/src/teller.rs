//! From observations to encoded events: process table, redaction, rendering, visibility, throttle.
//!
//! A record may arrive before the exec record of the image that made it, because they come through different rings. Such an
//! observation waits for one round of reading; if the image is still unknown then, `/proc` is asked.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use prost::Message;
use proto::Kind;

use crate::config::VisibilityClass;
use crate::lost::{Class, Losses, Place};
use crate::observe::{By, Observation, Op, Outcome};
use crate::process::{self, Image, Processes};
use crate::redact::Redact;
use crate::render::{self, Context, Node, Rendered};
use crate::sets::Sets;
use crate::throttle::{Fate, Throttle};
use crate::workload::Registry;

/// Images kept; about 64 MiB at worst.
const IMAGES: usize = 65_536;
/// Observations that may wait for their image.
const WAITING: usize = 4096;

/// An encoded event on its way to the spool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// Which stream it belongs to.
    pub class: Class,
    /// Which message it is.
    pub kind: Kind,
    /// Unix time in nanoseconds.
    pub time: u64,
    /// The encoded message.
    pub payload: Bytes,
}

/// Who else must be asked.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// The workloads.
    pub workloads: &'a Registry,
    /// The rules.
    pub sets: &'a Sets,
}

/// Turns observations into events.
#[derive(Debug)]
pub struct Teller {
    node: Node,
    visible: BTreeSet<VisibilityClass>,
    redact: Redact,
    throttle: Throttle,
    losses: Losses,
    images: Processes,
    waiting: Vec<Observation>,
}

impl Teller {
    /// `visible`: the classes of workloads' operations that become Logs.
    pub fn new(
        node: Node,
        visible: BTreeSet<VisibilityClass>,
        redact: Redact,
        throttle: Throttle,
        losses: Losses,
    ) -> Self {
        let images = Processes::new(IMAGES);
        Self {
            node,
            visible,
            redact,
            throttle,
            losses,
            images,
            waiting: Vec::new(),
        }
    }

    /// Takes what one round of reading gave, and tells it and what waited for it, in the order in which it happened.
    pub fn tell(
        &mut self,
        mut round: Vec<Observation>,
        known: Known<'_>,
        now: Instant,
        send: &mut dyn FnMut(Outgoing),
    ) {
        let waited = std::mem::take(&mut self.waiting);
        let mut late = Vec::new();
        round.sort_by_key(|observation| observation.time_ns);
        for observation in round {
            if self.must_wait(&observation) {
                late.push(observation);
            } else {
                self.one(&observation, known, now, send);
            }
        }
        for observation in waited {
            self.one(&observation, known, now, send);
        }
        for observation in late {
            // Its image may have come later in the same round.
            if self.waiting.len() < WAITING && self.must_wait(&observation) {
                self.waiting.push(observation);
            } else {
                self.one(&observation, known, now, send);
            }
        }
    }

    /// How many images are known.
    pub fn images(&self) -> usize {
        self.images.count()
    }

    fn must_wait(&mut self, observation: &Observation) -> bool {
        let task = &observation.task;
        let needs_image = !matches!(observation.op, Op::Exec { .. } | Op::Exit { .. });
        needs_image && task.exec_id != 0 && self.images.get(task.exec_id, task.host_pid).is_none()
    }

    fn one(
        &mut self,
        observation: &Observation,
        known: Known<'_>,
        now: Instant,
        send: &mut dyn FnMut(Outgoing),
    ) {
        let task = &observation.task;
        if let Op::Exit { .. } = observation.op {
            self.images.exit(task.exec_id, task.host_pid, now);
            return;
        }
        let image = self.image(observation);
        let Some(workload) = known.workloads.get(task.workload) else {
            let class = class(observation);
            self.losses.count(
                Place::Record,
                class,
                1,
                "its workload is not known any more",
            );
            return;
        };
        let telemetry = observation.verdict.is_none();
        if telemetry
            && (!self.wanted(&observation.op) || known.sets.allows(task.workload, &observation.op))
        {
            return;
        }
        let found = match observation.verdict.map(|decision| decision.by) {
            Some(By::Rule {
                set,
                generation,
                slot,
            }) => known.sets.rule(set, generation, slot),
            _ => None,
        };
        let rule = found.as_ref().and_then(|(slots, at)| slots.get(*at));
        let digest = known.sets.digest();
        let node = &self.node;
        let context = Context {
            node,
            workload,
            image: &image,
            rule,
            digest: &digest,
        };
        for event in render::events(&context, observation) {
            match event {
                Rendered::Alert(alert) => self.alert(*alert, observation, now, send),
                Rendered::Log(log) if self.wanted(&observation.op) => send(Outgoing {
                    class: Class::Telemetry,
                    kind: Kind::Log,
                    time: observation.time_ns,
                    payload: log.encode_to_vec().into(),
                }),
                Rendered::Log(_) => {}
            }
        }
    }

    fn alert(
        &mut self,
        mut alert: proto::feeder::Alert,
        observation: &Observation,
        now: Instant,
        send: &mut dyn FnMut(Outgoing),
    ) {
        if self
            .throttle
            .judge(observation.task.workload, &mut alert, now)
            == Fate::Drop
        {
            self.losses.count(
                Place::Throttle,
                Class::Verdict,
                1,
                "more alerts than throttle.alerts_per_second",
            );
            return;
        }
        let payload = alert.encode_to_vec().into();
        send(Outgoing {
            class: Class::Verdict,
            kind: Kind::Alert,
            time: observation.time_ns,
            payload,
        });
    }

    /// The image that acts; of an exec, the new one, which the table then knows.
    fn image(&mut self, observation: &Observation) -> Arc<Image> {
        let task = &observation.task;
        let Op::Exec {
            path,
            literal,
            args,
            parent_exe,
            ..
        } = &observation.op
        else {
            return self.acting_image(observation);
        };
        let mut args = args.clone();
        self.redact.arguments(&mut args);
        let image = Image::new(path.clone(), literal, args, parent_exe.clone());
        let denied = observation
            .verdict
            .is_some_and(|decision| decision.outcome == Outcome::Denied);
        if denied || observation.result < 0 {
            return Arc::new(image);
        }
        self.images.exec(task.exec_id, task.host_pid, image)
    }

    fn acting_image(&mut self, observation: &Observation) -> Arc<Image> {
        let task = &observation.task;
        if let Some(image) = self.images.get(task.exec_id, task.host_pid) {
            return image;
        }
        let found = process::from_proc(
            Path::new("/proc"),
            task.host_pid,
            task.host_ppid,
            &self.redact,
        );
        match found {
            Some(image) if task.exec_id != 0 => {
                self.images.exec(task.exec_id, task.host_pid, image)
            }
            Some(image) => Arc::new(image),
            None => Arc::new(Image {
                command: task.comm.clone(),
                ..Image::default()
            }),
        }
    }

    fn wanted(&self, op: &Op) -> bool {
        let class = match op {
            Op::Exec { .. } | Op::Exit { .. } => VisibilityClass::Process,
            Op::Open { path, .. } if pseudo(path) => return false,
            Op::Open { .. } | Op::Unlink { .. } | Op::Rename { .. } => VisibilityClass::File,
            Op::Capability { .. } | Op::Syscall { .. } => VisibilityClass::Capabilities,
            _ => VisibilityClass::Network,
        };
        self.visible.contains(&class)
    }
}

/// KubeArmor leaves opens below /proc and /sys out of its telemetry.
fn pseudo(path: &str) -> bool {
    path.starts_with("/proc/") || path.starts_with("/sys/")
}

fn class(observation: &Observation) -> Class {
    if observation.verdict.is_some() {
        Class::Verdict
    } else {
        Class::Telemetry
    }
}
