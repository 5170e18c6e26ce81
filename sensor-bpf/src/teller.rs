//! From observations to encoded events: process table, redaction, rendering, visibility, throttle.
//!
//! A record may arrive before the exec record of the image that made it, because they come through different rings. Such an
//! observation waits for one round of reading; if the image is still unknown then, `/proc` is asked.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use prost::Message;
use proto::Kind;

use crate::config::{Visibility, VisibilityClass};
use crate::kernel::HOST;
use crate::lost::{Class, Losses, Place};
use crate::observe::{By, Observation, Op, Outcome, Task};
use crate::process::{self, Asked, Image, Processes};
use crate::redact::Redact;
use crate::render::{self, Context, Node, Rendered, Whose};
use crate::sets::Sets;
use crate::throttle::{Fate, Throttle};
use crate::users::Users;
use crate::workload::Registry;

/// Images kept; about 64 MiB at worst.
const IMAGES: usize = 65_536;
/// Images of the host kept, apart from workloads': much that happens on the host makes no workload's image forgotten.
const HOST_IMAGES: usize = 16_384;
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
    visible: Visibility,
    redact: Redact,
    throttle: Throttle,
    losses: Losses,
    images: Processes,
    host_images: Processes,
    asked: Asked,
    users: Users,
    waiting: Vec<Observation>,
}

impl Teller {
    /// Something about this sensor that everybody who watches should know, as an event among the verdicts.
    pub fn notice(&self, text: String) -> Outgoing {
        let time = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let message = proto::feeder::Message {
            timestamp: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
            updated_time: proto::updated_time(nanoseconds),
            cluster_name: self.node.cluster.clone(),
            host_name: self.node.name.clone(),
            r#type: "Message".to_owned(),
            level: "WARN".to_owned(),
            message: text,
            ..proto::feeder::Message::default()
        };
        Outgoing {
            class: Class::Verdict,
            kind: Kind::Message,
            time: nanoseconds,
            payload: message.encode_to_vec().into(),
        }
    }

    /// `visible`: the classes of operations that become Logs.
    pub fn new(
        node: Node,
        visible: Visibility,
        redact: Redact,
        throttle: Throttle,
        losses: Losses,
    ) -> Self {
        let (asked, users) = Default::default();
        Self {
            node,
            visible,
            redact,
            throttle,
            losses,
            images: Processes::new(IMAGES),
            host_images: Processes::new(HOST_IMAGES),
            asked,
            users,
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
        self.images.count() + self.host_images.count()
    }

    /// What the host does comes through one ring, so its exec comes before it, or never.
    fn must_wait(&mut self, observation: &Observation) -> bool {
        let task = &observation.task;
        let needs_image = !matches!(observation.op, Op::Exec { .. } | Op::Exit { .. });
        let may_come = task.workload != HOST && task.exec_id != 0;
        needs_image && may_come && self.images.get(task.exec_id, task.host_pid).is_none()
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
            self.table(task).exit(task.exec_id, task.host_pid, now);
            return;
        }
        let image = self.image(observation, now);
        let workload = known.workloads.get(task.workload);
        if workload.is_none() && task.workload != HOST {
            let class = class(observation);
            self.losses.count(
                Place::Record,
                class,
                1,
                "its workload is not known any more",
            );
            return;
        }
        let telemetry = observation.verdict.is_none();
        if telemetry
            && (!self.wanted(observation) || known.sets.allows(task.workload, &observation.op))
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
        let whose = match workload {
            Some(workload) => Whose::Workload(workload),
            None => Whose::Host {
                user: self.users.name(task.uid, now),
            },
        };
        let node = &self.node;
        let context = Context {
            node,
            whose,
            image: &image,
            rule,
            digest: &digest,
        };
        for event in render::events(&context, observation) {
            match event {
                Rendered::Alert(alert) => self.alert(*alert, observation, now, send),
                Rendered::Log(log) if self.wanted(observation) => send(Outgoing {
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
    fn image(&mut self, observation: &Observation, now: Instant) -> Arc<Image> {
        let task = &observation.task;
        let Op::Exec {
            path,
            literal,
            args,
            parent_exe,
            ..
        } = &observation.op
        else {
            return self.acting_image(task, now);
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
        self.table(task).exec(task.exec_id, task.host_pid, image)
    }

    fn acting_image(&mut self, task: &Task, now: Instant) -> Arc<Image> {
        if let Some(image) = self.table(task).get(task.exec_id, task.host_pid) {
            return image;
        }
        let redact = &self.redact;
        let ask = || process::from_proc(Path::new("/proc"), task.host_pid, task.host_ppid, redact);
        let found = match task.exec_id {
            0 => self.asked.image(task.host_pid, now, ask),
            exec_id => ask().map(|image| self.table(task).exec(exec_id, task.host_pid, image)),
        };
        found.unwrap_or_else(|| {
            Arc::new(Image {
                command: task.comm.clone(),
                ..Image::default()
            })
        })
    }

    fn table(&mut self, task: &Task) -> &mut Processes {
        if task.workload == HOST {
            &mut self.host_images
        } else {
            &mut self.images
        }
    }

    fn wanted(&self, observation: &Observation) -> bool {
        let class = match &observation.op {
            Op::Exec { .. } | Op::Exit { .. } => VisibilityClass::Process,
            Op::Open { path, .. } if pseudo(path) => return false,
            Op::Open { .. } | Op::Unlink { .. } | Op::Rename { .. } => VisibilityClass::File,
            Op::Capability { .. } | Op::Syscall { .. } => VisibilityClass::Capabilities,
            _ => VisibilityClass::Network,
        };
        let visible = if observation.task.workload == HOST {
            &self.visible.host
        } else {
            &self.visible.workloads
        };
        visible.contains(&class)
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
