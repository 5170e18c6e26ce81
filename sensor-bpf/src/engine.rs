//! The thread that owns the kernel: everything that changes or reads rules, workloads and records happens on it, in order.
//!
//! ```text
//! control socket ─ register, unregister ─┐                      ┌─▶ verdicts  ─▶ spool
//! link           ─ rules ────────────────┼─▶ engine thread ─────┤
//! status         ─ status ───────────────┘    │   ▲            └─▶ telemetry ─▶ spool
//!                                             ▼   │ records
//!                                            kernel
//! ```
//! No locks: the state has one owner. Between two rounds of reading it takes the commands that wait. A full telemetry
//! queue costs the event, counted; a full verdict queue makes the engine wait, and then the kernel's ring is the queue.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc as std_mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use proto::link::{Ability, Off, RuleProblem, RuleStatus, Rules};
use tokio::sync::{mpsc, oneshot, watch};

use crate::cgroup::{Cgroup, Nursery};
use crate::config::VisibilityClass;
use crate::enforcer::Enforcer;
use crate::lost::{Class, Losses, Place};
use crate::rules_file::RulesFile;
use crate::sets::Sets;
use crate::teller::{Known, Outgoing, Teller};
use crate::workload::{Identity, IdentityError, Registry, Workload};

/// How long a round waits for records.
const ROUND: Duration = Duration::from_millis(20);
/// Between two looks at counters and unused sets.
const TICK: Duration = Duration::from_secs(1);
/// Policies are out of force for at most so long; who needs longer says it again.
const LONGEST_PAUSE: Duration = Duration::from_secs(24 * 3600);
/// Rounds of reading after the last workload ended.
const LAST_ROUNDS: u32 = 5;

/// Queues to the spool.
#[derive(Debug, Clone)]
pub struct Queues {
    /// Alerts and messages.
    pub verdicts: mpsc::Sender<Outgoing>,
    /// Logs.
    pub telemetry: mpsc::Sender<Outgoing>,
}

/// What the engine works with, besides the kernel.
#[derive(Debug)]
pub struct Parts {
    /// Where workloads' cgroups are made.
    pub nursery: Nursery,
    /// From observations to events.
    pub teller: Teller,
    /// Where events go.
    pub queues: Queues,
    /// Where losses are counted.
    pub losses: Losses,
    /// Where the accepted rules are kept.
    pub rules: RulesFile,
    /// Telemetry of workloads.
    pub visible: Vec<VisibilityClass>,
}

/// A registered workload, ready to be entered.
#[derive(Debug)]
pub struct Ready {
    /// Its index.
    pub index: u32,
    /// Its cgroup; dropping it ends the workload.
    pub cgroup: Cgroup,
    /// The tier that enforces its rules.
    pub tier: u8,
    /// Policies that select it.
    pub policies: Vec<String>,
}

/// Why a workload was not taken.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// Its identity cannot be carried.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Too many.
    #[error("{} workloads are registered; end one first", crate::workload::MOST - 1)]
    TooMany,
    /// No cgroup.
    #[error(transparent)]
    Cgroup(#[from] crate::cgroup::CgroupError),
    /// Its rules cannot be put in force.
    #[error(transparent)]
    Place(#[from] crate::sets::PlaceError),
    /// The kernel half refused it.
    #[error("the kernel refused the workload: {0}")]
    Kernel(String),
    /// The sensor is on its way out.
    #[error("the sensor is stopping")]
    Stopping,
}

/// Why policies were not put out of force, or back.
#[derive(Debug, thiserror::Error)]
pub enum PauseError {
    /// The rules of a workload cannot be put in place.
    #[error(transparent)]
    Place(#[from] crate::sets::PlaceError),
    /// Longer than anybody needs.
    #[error("at most {} hours", LONGEST_PAUSE.as_secs() / 3600)]
    TooLong,
    /// The sensor is on its way out.
    #[error("the sensor is stopping")]
    Stopping,
}

/// What a sensor says of itself.
#[derive(Debug, Clone, Default)]
pub struct Status {
    /// 1 LSM, 2 fmod_ret, 3 contain.
    pub tier: u8,
    /// Why not a better one.
    pub reason: String,
    /// By operation.
    pub abilities: Vec<Ability>,
    /// Digest of the rule set in force; empty without one.
    pub digest: bytes::Bytes,
    /// Digests of the policies held.
    pub held: Vec<bytes::Bytes>,
    /// What is not enforced here.
    pub problems: Vec<RuleProblem>,
    /// Workloads and the policies that select them.
    pub workloads: Vec<(Arc<Workload>, Vec<String>)>,
    /// Images known.
    pub images: u64,
    /// Policies are off on this node; none: they are in force.
    pub off: Option<Off>,
}

/// Policies are out of force.
struct Paused {
    until: Instant,
    /// The same as others are told it.
    told: Off,
}

enum Command {
    Register(
        Identity,
        PathBuf,
        oneshot::Sender<Result<Ready, RegisterError>>,
    ),
    Unregister(u32, oneshot::Sender<()>),
    Rules(Rules, oneshot::Sender<RuleStatus>),
    Status(oneshot::Sender<Status>),
    Pause(Duration, String, oneshot::Sender<Result<(), PauseError>>),
    Stop,
}

/// The way to the engine. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle {
    commands: std_mpsc::Sender<Command>,
    ruled: watch::Receiver<bool>,
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Command")
    }
}

impl Handle {
    /// Makes a workload's cgroup and puts its rules in force; when this returns, it can be entered.
    pub async fn register(
        &self,
        identity: Identity,
        root: PathBuf,
    ) -> Result<Ready, RegisterError> {
        let asked = self
            .ask(|reply| Command::Register(identity, root, reply))
            .await;
        asked.ok_or(RegisterError::Stopping)?
    }

    /// Waits until a rule set is in force, this one of the last run or a relay's, for at most so long. False: there is none.
    pub async fn wait_for_rules(&self, at_most: Duration) -> bool {
        let mut ruled = self.ruled.clone();
        let first = tokio::time::timeout(at_most, ruled.wait_for(|ruled| *ruled)).await;
        matches!(first, Ok(Ok(_)))
    }

    /// The workload has ended: its tasks are gone.
    pub async fn unregister(&self, index: u32) {
        // A stopping engine has forgotten it already.
        let _ = self.ask(|reply| Command::Unregister(index, reply)).await;
    }

    /// Applies a rule set whole or refuses it whole, in the order of the calls, whoever waits for the answer when. None:
    /// the engine is stopping.
    pub fn rules(&self, rules: Rules) -> impl Future<Output = Option<RuleStatus>> + use<> {
        let (reply, answer) = oneshot::channel();
        // An engine that is gone drops the reply, and the answer says so.
        let _ = self.commands.send(Command::Rules(rules, reply));
        async move { answer.await.ok() }
    }

    /// How things are. None: the engine is stopping.
    pub async fn status(&self) -> Option<Status> {
        self.ask(Command::Status).await
    }

    /// Puts all policies out of force for so long; zero: back in force. A restart of the sensor ends it, too.
    pub async fn pause(&self, length: Duration, reason: String) -> Result<(), PauseError> {
        if length > LONGEST_PAUSE {
            return Err(PauseError::TooLong);
        }
        let asked = self
            .ask(|reply| Command::Pause(length, reason, reply))
            .await;
        asked.ok_or(PauseError::Stopping)?
    }

    /// Reads what is left, then ends the thread.
    pub fn stop(&self) {
        // An engine that is gone needs no telling.
        let _ = self.commands.send(Command::Stop);
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).ok()?;
        answer.await.ok()
    }
}

/// Starts the thread. `load` makes the kernel half on it, since that need not be movable.
///
/// Errors: what `load` says, or the thread cannot be started.
pub fn start<K, E>(
    load: impl FnOnce() -> Result<K, E> + Send + 'static,
    parts: impl FnOnce(&K) -> Parts + Send + 'static,
) -> Result<(Handle, JoinHandle<()>), E>
where
    K: Enforcer,
    E: Send + From<std::io::Error> + 'static,
{
    let (commands, inbox) = std_mpsc::channel();
    let (rule, ruled) = watch::channel(false);
    let (loaded, outcome) = std_mpsc::channel();
    let thread = std::thread::Builder::new()
        .name("engine".to_owned())
        .spawn(move || {
            match load() {
                Ok(kernel) => {
                    let parts = parts(&kernel);
                    let engine = Engine::new(kernel, parts, inbox, rule);
                    // Whoever waits for this is the function below.
                    let _ = loaded.send(Ok(()));
                    engine.run();
                }
                Err(why) => drop(loaded.send(Err(why))),
            }
        })?;
    match outcome.recv() {
        Ok(Ok(())) => Ok((Handle { commands, ruled }, thread)),
        Ok(Err(why)) => Err(why),
        Err(_) => Err(E::from(std::io::Error::other(
            "the engine thread ended while loading",
        ))),
    }
}

struct Engine<K> {
    kernel: K,
    parts: Parts,
    inbox: std_mpsc::Receiver<Command>,
    workloads: Registry,
    sets: Sets,
    counted: Vec<u64>,
    ticked: Instant,
    ruled: watch::Sender<bool>,
    paused: Option<Paused>,
}

impl<K: Enforcer> Engine<K> {
    fn new(
        kernel: K,
        parts: Parts,
        inbox: std_mpsc::Receiver<Command>,
        ruled: watch::Sender<bool>,
    ) -> Self {
        let (workloads, sets) = Default::default();
        let (counted, ticked) = (Vec::new(), Instant::now());
        let mut engine = Self {
            kernel,
            parts,
            inbox,
            workloads,
            sets,
            counted,
            ticked,
            ruled,
            paused: None,
        };
        engine.restore();
        engine
    }

    /// The rules of the last run, until a relay says otherwise.
    fn restore(&mut self) {
        match self.parts.rules.load() {
            Ok(None) => {}
            Ok(Some(rules)) => {
                let status = self.put(rules);
                match status.problems.iter().find(|problem| problem.refused) {
                    None => tracing::info!("the rules accepted last are in force"),
                    Some(why) => {
                        tracing::warn!(why = why.message, "the rules on disk are not usable")
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "the rules on disk cannot be read"),
        }
    }

    fn run(mut self) {
        while self.commands() {
            self.round(ROUND);
            self.tick();
        }
        for _ in 0..LAST_ROUNDS {
            self.round(ROUND);
        }
        self.count_kernel_losses();
    }

    /// Takes the commands that wait; false: stop.
    fn commands(&mut self) -> bool {
        loop {
            match self.inbox.try_recv() {
                Ok(Command::Stop) | Err(std_mpsc::TryRecvError::Disconnected) => return false,
                Ok(command) => self.command(command),
                Err(std_mpsc::TryRecvError::Empty) => return true,
            }
        }
    }

    /// An answer that nobody waits for any more is dropped; a workload then ends with it.
    fn command(&mut self, command: Command) {
        match command {
            Command::Register(identity, root, reply) => {
                let answer = self.register(identity, root);
                if let Err(Ok(ready)) = reply.send(answer) {
                    self.unregister(ready.index);
                }
            }
            Command::Unregister(index, reply) => {
                self.unregister(index);
                let _ = reply.send(());
            }
            Command::Rules(rules, reply) => {
                let _ = reply.send(self.apply(rules));
            }
            Command::Status(reply) => {
                let _ = reply.send(self.status());
            }
            Command::Pause(length, reason, reply) => {
                let _ = reply.send(self.pause(length, &reason));
            }
            Command::Stop => {}
        }
    }

    fn register(&mut self, identity: Identity, root: PathBuf) -> Result<Ready, RegisterError> {
        let identity = identity.checked()?;
        let index = self
            .workloads
            .free(Instant::now())
            .ok_or(RegisterError::TooMany)?;
        let cgroup = self.parts.nursery.make(index)?;
        let workload = Workload {
            index,
            labels: identity.labels_text(),
            container_id: cgroup.name(),
            root,
            cgroup: cgroup.path().to_owned(),
            identity,
        };
        let set = self.sets.place(&mut self.kernel, &workload)?;
        if let Err(why) = self.kernel.add_workload(index, cgroup.path(), set) {
            self.sets.leave(index, Instant::now());
            return Err(RegisterError::Kernel(why));
        }
        self.kernel.visibility(index, &self.parts.visible);
        let policies = self.sets.policies(&workload.identity);
        self.workloads.insert(workload);
        Ok(Ready {
            index,
            cgroup,
            tier: self.kernel.tier(),
            policies,
        })
    }

    fn unregister(&mut self, index: u32) {
        let now = Instant::now();
        self.kernel.remove_workload(index);
        self.sets.leave(index, now);
        self.workloads.end(index, now);
    }

    fn put(&mut self, rules: Rules) -> RuleStatus {
        let status = self
            .sets
            .apply(&mut self.kernel, &self.workloads, rules, Instant::now());
        if status.applied {
            self.ruled.send_replace(true);
        }
        status
    }

    fn apply(&mut self, rules: Rules) -> RuleStatus {
        let status = self.put(rules);
        if status.applied
            && let Some(saved) = self.sets.save()
            && let Err(error) = self.parts.rules.save(&saved)
        {
            tracing::warn!(%error, "the accepted rules cannot be kept on disk");
        }
        status
    }

    fn pause(&mut self, length: Duration, reason: &str) -> Result<(), PauseError> {
        let now = Instant::now();
        let paused = !length.is_zero();
        let was = self.paused.is_some();
        self.sets
            .pause(&mut self.kernel, &self.workloads, paused, now)?;
        self.paused = paused.then(|| Paused {
            until: now + length,
            told: off(length, reason),
        });
        if paused || was {
            let text = if paused {
                format!(
                    "ALL POLICIES ARE OFF on this node for {}s: {reason}",
                    length.as_secs()
                )
            } else {
                format!("policies are in force again on this node: {reason}")
            };
            tracing::warn!(notice = text, "policies");
            let event = self.parts.teller.notice(text);
            send(&self.parts.queues, &self.parts.losses, event);
        }
        Ok(())
    }

    fn status(&self) -> Status {
        let workloads = self
            .workloads
            .live()
            .map(|workload| (Arc::clone(workload), self.sets.policies(&workload.identity)));
        Status {
            tier: self.kernel.tier(),
            reason: self.kernel.reason(),
            abilities: self.kernel.abilities(),
            digest: self.sets.digest(),
            held: self.sets.held(),
            problems: self.sets.problems(&self.kernel),
            workloads: workloads.collect(),
            images: self.parts.teller.images() as u64,
            off: self.paused.as_ref().map(|paused| paused.told.clone()),
        }
    }

    fn round(&mut self, wait: Duration) {
        let mut round = Vec::new();
        if let Err(error) = self
            .kernel
            .poll(wait, &mut |observation| round.push(observation))
        {
            tracing::warn!(%error, "reading the kernel's rings failed");
            std::thread::sleep(wait);
        }
        let known = Known {
            workloads: &self.workloads,
            sets: &self.sets,
        };
        let (queues, losses) = (&self.parts.queues, &self.parts.losses);
        self.parts
            .teller
            .tell(round, known, Instant::now(), &mut |event| {
                send(queues, losses, event)
            });
    }

    fn tick(&mut self) {
        let now = Instant::now();
        if now.duration_since(self.ticked) < TICK {
            return;
        }
        self.ticked = now;
        let paused = self.paused.as_ref();
        if paused.is_some_and(|paused| paused.until <= now)
            && let Err(error) = self.pause(Duration::ZERO, "the time is over")
        {
            tracing::error!(%error, "policies cannot be put back in force; trying again");
        }
        self.sets.expire(&mut self.kernel, &self.workloads, now);
        self.sets.tick(&mut self.kernel, now);
        self.count_kernel_losses();
    }

    fn count_kernel_losses(&mut self) {
        let lost = self.kernel.lost();
        self.counted.resize(lost.len(), 0);
        for (loss, counted) in lost.into_iter().zip(&mut self.counted) {
            let new = loss.total.saturating_sub(*counted);
            self.parts
                .losses
                .count(loss.place, loss.class, new, loss.reason);
            *counted = loss.total;
        }
    }
}

/// For so long from now, by the wall clock.
fn off(length: Duration, reason: &str) -> Off {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    Off {
        until_unix: (since.unwrap_or_default() + length).as_secs(),
        reason: reason.to_owned(),
    }
}

fn send(queues: &Queues, losses: &Losses, event: Outgoing) {
    let class = event.class;
    let sent = match class {
        Class::Verdict => queues.verdicts.blocking_send(event).is_ok(),
        Class::Telemetry => queues.telemetry.try_send(event).is_ok(),
    };
    if !sent {
        losses.count(Place::Spool, class, 1, "the queue to the spool is full");
    }
}
