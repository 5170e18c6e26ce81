//! A new set reaches everybody in steps: first the canaries try it, then all run it, or nobody does.
//!
//! ```text
//! policies ─▶ new set ─▶ waiting ─ a canary runs it ─▶ holding ─ time is over ─▶ everybody runs it
//!                           └────────── refused ──────────┤
//!                                                         └─ would stop too much ─▶ stopped: nobody runs it
//! ```
//! A canary goes on running the set in force; the new and changed policies stand beside it in mode audit
//! ([`policy::Trial`]), so nothing is let through on its node meanwhile. What they would have stopped comes as alerts
//! `Audit (Block)` under the digest of the trial, and is counted where all events are: in the journal, from the place
//! where the trial began. A relay that starts again counts the same events, and the hold goes on.
//!
//! The hold begins when the first canary runs the trial; a trial without canaries waits. The first set of all goes to
//! everybody, for there is none to stay with; so does one that only takes policies away or changes postures, which a
//! trial cannot tell anything of; and so does the empty set of a break-glass.

mod kept;
mod observer;
mod stage;
mod status;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use journal::Seq;
use policy::{RuleSet, Trial};
use proto::Digest;
use proto::query::RolloutStatus;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::audit::{Act, Actor, Audit};
use crate::distribute::{Distributor, Offered, OnTrial};
use crate::log::View;
use crate::metrics::Registry;
use crate::policies::CurrentSet;

use self::kept::{Kept, Progress};
use self::observer::Observer;
use self::stage::{Next, Trying};
use self::status::Metrics;

/// How often a trial is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Orders that wait.
const ORDERS: usize = 4;

/// How new sets are tried.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Config {
    /// Sensors with all of these labels try a set first.
    pub(crate) canary: BTreeMap<String, String>,
    /// For so long.
    pub(crate) hold: Duration,
    /// Operations a minute, on all canaries together, that the new policies may stop.
    pub(crate) blocked_rate: f64,
}

/// The rollout: what sensors are offered while the policies change.
pub(crate) struct Rollout {
    config: Option<Config>,
    current: watch::Receiver<Arc<CurrentSet>>,
    log: Arc<dyn View>,
    file: Option<PathBuf>,
    state: State,
    offered: watch::Sender<Arc<Offered>>,
    shown: Shown,
    metrics: Metrics,
    orders: (mpsc::Sender<Order>, mpsc::Receiver<Order>),
    /// What happened before anybody could be told.
    untold: Option<(Actor, Act)>,
}

/// What is to be seen from outside.
type Shown = Arc<Mutex<Option<RolloutStatus>>>;

struct State {
    /// What everybody runs who tries nothing; none before the first set.
    stable: Option<Arc<RuleSet>>,
    trying: Option<Trying>,
    observer: Option<Observer>,
}

/// The way to it; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Handle {
    shown: Shown,
    orders: mpsc::Sender<Order>,
}

/// What an administrator wants of a trial.
#[derive(Debug)]
pub(crate) struct Order {
    /// False: it stops.
    pub(crate) go_on: bool,
    /// The trial that is meant; none: whichever there is.
    pub(crate) trial: Option<Digest>,
    pub(crate) reason: String,
    pub(crate) actor: Actor,
    reply: oneshot::Sender<Result<Digest, String>>,
}

impl Handle {
    /// How the trial stands; none: there is none.
    pub(crate) fn status(&self) -> Option<RolloutStatus> {
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        shown.clone()
    }

    /// Ends a trial. Gives the digest of what everybody is to run.
    ///
    /// # Errors
    /// There is no such trial.
    pub(crate) async fn steer(
        &self,
        go_on: bool,
        trial: Option<Digest>,
        reason: String,
        actor: Actor,
    ) -> Result<Digest, String> {
        let (reply, answer) = oneshot::channel();
        let order = Order {
            go_on,
            trial,
            reason,
            actor,
            reply,
        };
        let stopping = || "the relay is stopping".to_owned();
        self.orders.send(order).await.map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())?
    }
}

/// Puts the rollout in place with what is in force now. Without a configuration every set goes to everybody.
///
/// # Errors
/// Two parts claim one metric.
pub(crate) fn build(
    config: Option<Config>,
    current: watch::Receiver<Arc<CurrentSet>>,
    log: Arc<dyn View>,
    file: Option<PathBuf>,
    registry: &Registry,
) -> Result<Rollout, prometheus::Error> {
    let first = current.borrow().ruleset.clone();
    let mut rollout = Rollout {
        config,
        current,
        log,
        file,
        state: State {
            stable: None,
            trying: None,
            observer: None,
        },
        offered: watch::channel(Arc::new(Offered::to_all(first))).0,
        shown: Shown::default(),
        metrics: Metrics::new(registry)?,
        orders: mpsc::channel(ORDERS),
        untold: None,
    };
    let kept = rollout.restore();
    rollout.untold = rollout.take(kept);
    rollout.publish();
    Ok(rollout)
}

impl Rollout {
    /// What sensors are to run, now and after every change.
    pub(crate) fn offered(&self) -> watch::Receiver<Arc<Offered>> {
        self.offered.subscribe()
    }

    pub(crate) fn handle(&self) -> Handle {
        Handle {
            shown: self.shown.clone(),
            orders: self.orders.0.clone(),
        }
    }

    /// Follows the policies and the trials until dropped.
    pub(crate) async fn run(mut self, distributor: Distributor, audit: Audit) {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tell(&audit, self.untold.take());
        loop {
            let told = tokio::select! {
                changed = self.current.changed() => match changed {
                    Ok(()) => self.take(None),
                    // The policies' side is gone: the relay stops.
                    Err(_) => return,
                },
                seen = observed(&mut self.state.observer) => {
                    if let Some(trying) = &mut self.state.trying {
                        trying.count(seen);
                    }
                    self.look(&distributor)
                }
                _ = look.tick(), if self.state.trying.is_some() => self.look(&distributor),
                Some(order) = self.orders.1.recv() => self.obey(order),
            };
            self.publish();
            tell(&audit, told);
        }
    }

    /// Takes up what was kept of a trial.
    fn restore(&mut self) -> Option<Progress> {
        let file = self.file.as_ref()?;
        if self.config.is_none() {
            kept::forget(file);
            return None;
        }
        let Kept { stable, progress } = kept::load(file)?;
        self.state.stable = Some(Arc::new(stable));
        progress
    }

    /// Looks what the policies say now; what there is to tell.
    fn take(&mut self, kept: Option<Progress>) -> Option<(Actor, Act)> {
        let current = self.current.borrow_and_update().clone();
        let Some(config) = self.config.clone() else {
            self.offer(Offered::to_all(current.ruleset.clone()));
            return None;
        };
        if current.paused {
            // The trial, if there is one, is still there when the break-glass is over.
            self.offer(Offered::to_all(current.ruleset.clone()));
            return None;
        }
        let target = current.ruleset.clone();
        let same = |trying: &Trying| trying.target.digest() == target.digest();
        if self.state.trying.as_ref().is_some_and(same) {
            self.offer_trial(&config);
            return None;
        }
        let trial = self.state.stable.as_ref();
        match trial.and_then(|stable| Trial::of(&target, stable)) {
            None => {
                self.adopt(target);
                None
            }
            Some(trial) => self.begin(&config, target, trial, kept),
        }
    }

    fn begin(
        &mut self,
        config: &Config,
        target: Arc<RuleSet>,
        trial: Trial,
        kept: Option<Progress>,
    ) -> Option<(Actor, Act)> {
        let kept = kept.filter(|kept| kept.target == target.digest());
        let known = kept.is_some();
        let progress = kept.unwrap_or_else(|| Progress {
            target: target.digest(),
            from: Seq(self.log.committed().0 + 1),
            since: None,
            stopped: None,
        });
        let trying = Trying::new(target, trial, progress);
        let act = Act {
            action: "try",
            target: format!("policies {}", short(trying.target.digest())),
            detail: format!(
                "{} on sensors with {}, for {}",
                trying.trial.policies.join(", "),
                words(&config.canary),
                yaml::Span(config.hold)
            ),
        };
        self.state.observer = None;
        if trying.progress.stopped.is_none() {
            self.state.observer = Some(Observer::start(&*self.log, &trying));
        }
        self.state.trying = Some(trying);
        self.keep();
        self.offer_trial(config);
        (!known).then_some((Actor::Relay, act))
    }

    /// Looks whether the trial is over.
    fn look(&mut self, distributor: &Distributor) -> Option<(Actor, Act)> {
        let config = self.config.clone()?;
        let trying = self.state.trying.as_mut()?;
        let canaries = distributor.canaries(&config.canary, trying.digest());
        let before = trying.progress.clone();
        let next = trying.look(&config, canaries, unix_seconds(), Instant::now());
        if before != trying.progress {
            self.keep();
        }
        match next {
            Next::Wait => None,
            Next::Adopt => self.finish(true, Actor::Relay, ""),
            Next::Stop(why) => self.finish(false, Actor::Relay, &why),
        }
    }

    /// Ends the trial: everybody runs the new set, or nobody.
    fn finish(&mut self, good: bool, actor: Actor, why: &str) -> Option<(Actor, Act)> {
        let trying = self.state.trying.as_mut()?;
        let account = trying.account(why);
        let act = Act {
            action: if good { "roll out" } else { "stop rolling out" },
            target: format!("policies {}", short(trying.target.digest())),
            detail: account.clone(),
        };
        self.metrics.ended(good);
        if good {
            let target = trying.target.clone();
            self.adopt(target);
        } else {
            trying.progress.stopped = Some(account);
            self.state.observer = None;
            self.keep();
            self.offer_stable();
        }
        Some((actor, act))
    }

    fn obey(&mut self, order: Order) -> Option<(Actor, Act)> {
        let meant = |trying: &&Trying| order.trial.is_none_or(|trial| trial == trying.digest());
        let trying = self.state.trying.as_ref().filter(meant);
        let refused = match trying {
            None => Some("there is no such trial; `cresset policy status` shows the one that is"),
            Some(trying) if trying.progress.stopped.is_some() && !order.go_on => {
                Some("it is stopped already")
            }
            Some(_) => None,
        };
        let (answer, told) = match refused {
            Some(why) => (Err(why.to_owned()), None),
            None => {
                let told = self.finish(order.go_on, order.actor, &order.reason);
                let stable = self.state.stable.as_ref();
                (Ok(stable.map_or(Digest([0; 32]), |set| set.digest())), told)
            }
        };
        // Who asked may be gone; it is done all the same.
        let _ = order.reply.send(answer);
        told
    }

    /// The set is everybody's.
    fn adopt(&mut self, target: Arc<RuleSet>) {
        (self.state.trying, self.state.observer) = (None, None);
        self.state.stable = Some(target);
        self.keep();
        self.offer_stable();
    }

    fn offer_trial(&self, config: &Config) {
        let (Some(stable), Some(trying)) = (&self.state.stable, &self.state.trying) else {
            return;
        };
        let trial = OnTrial {
            canary: config.canary.clone(),
            set: trying.set.clone(),
        };
        self.offer(Offered {
            everybody: stable.clone(),
            trial: trying.progress.stopped.is_none().then_some(trial),
        });
    }

    fn offer_stable(&self) {
        if let Some(stable) = &self.state.stable {
            self.offer(Offered::to_all(stable.clone()));
        }
    }

    /// While the glass is broken nothing else is offered.
    fn offer(&self, offered: Offered) {
        let current = self.current.borrow();
        let offered = match current.paused {
            true => Offered::to_all(current.ruleset.clone()),
            false => offered,
        };
        self.offered.send_if_modified(|now| {
            let changed = **now != offered;
            if changed {
                *now = Arc::new(offered);
            }
            changed
        });
    }

    fn keep(&self) {
        let (Some(file), Some(stable)) = (&self.file, &self.state.stable) else {
            return;
        };
        let progress = self.state.trying.as_ref().map(|trying| &trying.progress);
        if let Err(error) = kept::store(file, stable, progress) {
            let file = file.display();
            tracing::error!(%file, %error, "cannot keep the rollout for the next start");
        }
    }

    fn publish(&self) {
        let status = self.config.as_ref().and_then(|config| {
            let (stable, trying) = (self.state.stable.as_ref()?, self.state.trying.as_ref()?);
            Some(trying.status(config, stable.digest()))
        });
        self.metrics.set(status.as_ref());
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = status;
    }
}

/// Tells beside everything else: a journal that refuses events must not hold a rollout.
fn tell(audit: &Audit, what: Option<(Actor, Act)>) {
    if let Some((actor, act)) = what {
        let audit = audit.clone();
        tokio::spawn(async move { audit.tell(actor, act).await });
    }
}

/// What an observer sees; nothing without one.
async fn observed(observer: &mut Option<Observer>) -> Vec<observer::Seen> {
    match observer {
        Some(observer) => observer.next().await,
        None => std::future::pending().await,
    }
}

/// Labels as people write them.
fn words(labels: &BTreeMap<String, String>) -> String {
    let all = labels.iter().map(|(key, value)| format!("{key}={value}"));
    all.collect::<Vec<_>>().join(", ")
}

/// How much of a digest tells it from others at a glance.
fn short(digest: Digest) -> String {
    digest.to_string().chars().take(12).collect()
}

fn unix_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}
