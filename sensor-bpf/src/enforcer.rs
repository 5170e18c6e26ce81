//! The seam to the kernel: what the engine asks of it, and nothing more.
//!
//! Two implementations: the real one below, and a fake in the tests, so that everything above the kernel runs without
//! one: registration, rules, rendering, spool and link.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use proto::link::Ability;

use crate::config::{Contain, SensorConfig, VisibilityClass};
use crate::kernel::{self, Events, Kernel, KernelConfig};
use crate::lost::{Class, Place};
use crate::observe::Observation;

/// What the kernel half can be asked.
pub trait Enforcer {
    /// 1 LSM, 2 fmod_ret, 3 contain.
    fn tier(&self) -> u8;

    /// What the tier can do to each operation.
    fn abilities(&self) -> Vec<Ability>;

    /// Why there is no better tier; empty on tier 1.
    fn reason(&self) -> String;

    /// What it put into the kernel, to be looked for when the sensor has ended.
    fn programs(&self) -> Vec<kernel::Loaded> {
        Vec::new()
    }

    /// Labels whatever enters this empty cgroup. Errors: text for the person who asked.
    fn add_workload(&mut self, index: u32, cgroup: &Path, set: u32) -> Result<(), String>;

    /// The workload is gone.
    fn remove_workload(&mut self, index: u32);

    /// Which operations of a workload become records even without a decision.
    fn visibility(&mut self, index: u32, classes: &[VisibilityClass]);

    /// Writes a set's rules and gives the generation. Errors: text for the policy's author.
    fn write_set(&mut self, set: u32, flat: &policy::Flat) -> Result<u32, String>;

    /// From now on this set judges the workload.
    fn point(&mut self, index: u32, set: u32);

    /// No workload has this set any more and no program is still reading it.
    fn drop_set(&mut self, set: u32);

    /// Hands over what there is, waiting at most this long for something.
    fn poll(&mut self, timeout: Duration, sink: &mut dyn FnMut(Observation)) -> io::Result<()>;

    /// What the kernel half lost since the start; always the same kinds in the same order.
    fn lost(&self) -> Vec<KernelLoss>;
}

/// One kind of loss in the kernel half.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KernelLoss {
    /// Where.
    pub place: Place,
    /// Of what.
    pub class: Class,
    /// How many, since the start.
    pub total: u64,
    /// Why.
    pub reason: &'static str,
}

/// The kernel that this machine runs.
#[derive(Debug)]
pub struct Native {
    kernel: Kernel,
    events: Events,
    enforce_for: Option<Duration>,
}

impl Native {
    /// Loads and attaches the best tier that works, and shows of the host what the settings ask for.
    ///
    /// # Errors
    /// What this kernel, or this process, lacks.
    pub fn load(settings: &SensorConfig, cgroup2: &Path) -> Result<Self, kernel::LoadError> {
        let contain = match settings.contain {
            Contain::Default => kernel::Contain::Default,
            Contain::All => kernel::Contain::All,
            Contain::None => kernel::Contain::None,
        };
        let config = KernelConfig {
            contain,
            cgroup2: cgroup2.to_owned(),
            tier_limit: None,
        };
        let (kernel, events) = Kernel::load(config)?;
        let host: Vec<_> = settings.visibility.host.iter().copied().collect();
        kernel.host_visibility(visibility(&host))?;
        let enforce_for = settings.enforce_for.map(|span| span.0);
        Ok(Self {
            kernel,
            events,
            enforce_for,
        })
    }
}

impl Enforcer for Native {
    fn tier(&self) -> u8 {
        self.kernel.tier()
    }

    fn abilities(&self) -> Vec<Ability> {
        let abilities = self.kernel.probe().abilities.iter();
        let told = |ability: &kernel::Ability| Ability {
            operation: ability.operation.to_owned(),
            how: ability.how.to_owned(),
            reason: ability.reason.to_owned(),
        };
        abilities.map(told).collect()
    }

    fn reason(&self) -> String {
        self.kernel.probe().reason.clone()
    }

    fn programs(&self) -> Vec<kernel::Loaded> {
        self.kernel.programs()
    }

    fn add_workload(&mut self, index: u32, cgroup: &Path, set: u32) -> Result<(), String> {
        let deadline = self.enforce_for.map(|time| Instant::now() + time);
        self.kernel
            .add_workload(index, cgroup, set, deadline)
            .map_err(|why| why.to_string())
    }

    fn remove_workload(&mut self, index: u32) {
        self.kernel.remove_workload(index);
    }

    fn visibility(&mut self, index: u32, classes: &[VisibilityClass]) {
        self.kernel.visibility(index, visibility(classes));
    }

    fn write_set(&mut self, set: u32, flat: &policy::Flat) -> Result<u32, String> {
        self.kernel
            .write_set(set, flat)
            .map_err(|why| why.to_string())
    }

    fn point(&mut self, index: u32, set: u32) {
        self.kernel.point(index, set);
    }

    fn drop_set(&mut self, set: u32) {
        self.kernel.drop_set(set);
    }

    fn poll(&mut self, timeout: Duration, sink: &mut dyn FnMut(Observation)) -> io::Result<()> {
        self.events.poll(timeout, sink).map(|_| ())
    }

    fn lost(&self) -> Vec<KernelLoss> {
        let lost = self.kernel.lost();
        let loss = |place, class, total, reason| KernelLoss {
            place,
            class,
            total,
            reason,
        };
        let full = "no room in the kernel's ring";
        let unreadable = "records that are none: the two halves are of different builds";
        let unlabelled = "tasks that found no memory for a label are not watched";
        vec![
            loss(Place::Ring, Class::Verdict, lost.verdicts.total(), full),
            loss(Place::Ring, Class::Telemetry, lost.telemetry.total(), full),
            loss(
                Place::Record,
                Class::Verdict,
                self.events.unreadable(),
                unreadable,
            ),
            loss(Place::Task, Class::Verdict, lost.unlabelled, unlabelled),
        ]
    }
}

fn visibility(classes: &[VisibilityClass]) -> kernel::Visibility {
    kernel::Visibility {
        process: classes.contains(&VisibilityClass::Process),
        file: classes.contains(&VisibilityClass::File),
        network: classes.contains(&VisibilityClass::Network),
        capabilities: classes.contains(&VisibilityClass::Capabilities),
    }
}
