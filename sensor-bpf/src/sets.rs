//! The rules in force: which set of them judges which workload.
//!
//! ```text
//! Manifest + blobs ─▶ policy::Set ─select─▶ Effective ─flatten─▶ Flat ─▶ set in the kernel ◀─ workload
//!                       one a node            one a workload       one a distinct digest
//! ```
//! A rule set is applied whole or refused whole: every kernel set that it needs is written first, then each workload is
//! pointed at its own, one word each. Equal flats share a kernel set. A set that nobody has stays for a moment, for
//! programs that are reading it, and its slot table stays longer, for records that name its rules.
//!
//! The accepted set is kept on disk, so that a sensor that starts without a relay enforces what it last accepted.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use policy::{Act, Enforced, Flat, Judges, Moment, Operation, SlotRule, SocketKey};
use proto::Digest;
use proto::link::{RuleProblem, RuleStatus, Rules};
use proto::rules::Manifest;

use crate::enforcer::Enforcer;
use crate::observe::Op;
use crate::resolve::Resolver;
use crate::workload::{Identity, Registry, Workload};

/// Programs that had begun to read a set have ended long before this.
const UNREAD: Duration = Duration::from_secs(2);
/// Records of a set have been read long before this.
const FORGOTTEN: Duration = Duration::from_secs(60);
/// Kernel sets are numbered from 1 to below this.
const MOST_SETS: u32 = 4096;
/// What the kernel half judges: objects that it can look up, without conditions. The rest is left out and reported.
const JUDGES: Judges = Judges::SENSOR;

/// A set in the kernel.
#[derive(Debug)]
struct Placed {
    generation: u32,
    users: u32,
    flat: Flat,
}

/// A rule set that was accepted.
#[derive(Debug)]
struct Accepted {
    digest: Digest,
    manifest: Manifest,
    blobs: BTreeMap<Digest, Bytes>,
    set: policy::Set,
}

/// The slots of one generation of a kernel set.
pub type Slots = Arc<Vec<SlotRule>>;

/// All sets of this node.
#[derive(Debug, Default)]
pub struct Sets {
    current: Option<Accepted>,
    placed: BTreeMap<u32, Placed>,
    assigned: BTreeMap<u32, u32>,
    unused: VecDeque<(Instant, u32)>,
    tables: HashMap<(u32, u32), Slots>,
    dropped: VecDeque<(Instant, (u32, u32))>,
    last: u32,
    /// Nothing is judged, whatever the accepted set says.
    paused: bool,
    /// When the next policy of the current set expires.
    expiry: Option<Moment>,
}

/// Why a workload cannot be judged.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// The root cannot be opened.
    #[error("root {root}: {source}")]
    Root {
        /// The folder.
        root: String,
        /// Why not.
        source: std::io::Error,
    },
    /// The kernel half refused the rules.
    #[error("rules for this workload: {0}")]
    Kernel(String),
    /// All numbers are in use.
    #[error("more than {MOST_SETS} different rule sets on this node")]
    TooMany,
}

impl Sets {
    /// Digest of the rule set in force; empty without one.
    pub fn digest(&self) -> Bytes {
        let digest = self
            .current
            .as_ref()
            .map(|accepted| accepted.digest.0.to_vec());
        digest.unwrap_or_default().into()
    }

    /// Digests of the policies that need not be sent again.
    pub fn held(&self) -> Vec<Bytes> {
        let blobs = self
            .current
            .iter()
            .flat_map(|accepted| accepted.blobs.keys());
        blobs
            .map(|digest| Bytes::copy_from_slice(&digest.0))
            .collect()
    }

    /// What is kept on disk: the accepted set, complete.
    pub fn save(&self) -> Option<Rules> {
        let accepted = self.current.as_ref()?;
        Some(Rules {
            manifest: Some(accepted.manifest.clone()),
            blobs: accepted.blobs.values().cloned().collect(),
            commit: true,
            change: None,
        })
    }

    /// The rule behind a decision.
    pub fn rule(&self, set: u32, generation: u32, slot: u32) -> Option<(Slots, usize)> {
        let slots = self.tables.get(&(set, generation))?;
        let at = usize::try_from(slot).ok().filter(|at| *at < slots.len())?;
        Some((Arc::clone(slots), at))
    }

    /// Does an Allow rule of this workload name the operation? Such an operation is not told. The kernel decided before; this
    /// only keeps quiet, by the same lists.
    pub fn allows(&self, index: u32, op: &Op) -> bool {
        let set = self
            .assigned
            .get(&index)
            .and_then(|set| self.placed.get(set));
        let (Some(set), Some(operation)) = (set, operation(op)) else {
            return false;
        };
        matches!(set.flat.decide(&operation).enforced, Enforced::Allow(_))
    }

    /// Policies that select this workload, `namespace/name` in byte order.
    pub fn policies(&self, identity: &Identity) -> Vec<String> {
        let Some(accepted) = &self.current else {
            return Vec::new();
        };
        policy::select(&accepted.set, &subject(identity), clock()).policies()
    }

    /// Puts the rules for a new workload into the kernel and gives their set.
    pub fn place<K: Enforcer>(
        &mut self,
        kernel: &mut K,
        workload: &Workload,
    ) -> Result<u32, PlaceError> {
        let accepted = self.current.as_ref().filter(|_| !self.paused);
        let flat = flatten(accepted.map(|accepted| &accepted.set), workload)?;
        let set = self.write(kernel, flat)?;
        self.assign(workload.index, set);
        Ok(set)
    }

    /// A workload is gone.
    pub fn leave(&mut self, index: u32, now: Instant) {
        if let Some(set) = self.assigned.remove(&index) {
            self.release(set, now);
        }
    }

    /// Puts the accepted set out of force for every workload, or back in force. The accepted set stays what it is, and newer
    /// ones are accepted meanwhile.
    pub fn pause<K: Enforcer>(
        &mut self,
        kernel: &mut K,
        workloads: &Registry,
        paused: bool,
        now: Instant,
    ) -> Result<(), PlaceError> {
        let before = std::mem::replace(&mut self.paused, paused);
        let accepted = self.current.take();
        let set = accepted.as_ref().filter(|_| !paused);
        let mut plan = Vec::new();
        let written = workloads.live().try_for_each(|workload| {
            let flat = flatten(set.map(|accepted| &accepted.set), workload)?;
            plan.push((workload.index, self.write(kernel, flat)?));
            Ok(())
        });
        self.current = accepted;
        match written {
            Ok(()) => {
                for (index, set) in plan {
                    kernel.point(index, set);
                    self.leave(index, now);
                    self.assign(index, set);
                }
            }
            Err(_) => self.paused = before,
        }
        self.sweep(now);
        written
    }

    /// Applies a rule set whole, or refuses it whole. `rules` holds the manifest and the blobs that this node lacked.
    pub fn apply<K: Enforcer>(
        &mut self,
        kernel: &mut K,
        workloads: &Registry,
        rules: Rules,
        now: Instant,
    ) -> RuleStatus {
        let digest = named(&rules);
        let (applied, problems) = match self.try_apply(kernel, workloads, rules, now) {
            Ok(()) => (true, self.problems(kernel)),
            Err(problems) => (false, problems),
        };
        RuleStatus {
            digest,
            applied,
            problems,
        }
    }

    /// Parts of the set in force that this node does not enforce: on any workload, and on those that are here.
    pub fn problems<K: Enforcer>(&self, kernel: &K) -> Vec<RuleProblem> {
        let Some(accepted) = &self.current else {
            return Vec::new();
        };
        let here = self.placed.values().filter(|placed| placed.users > 0);
        let anywhere = JUDGES.lacks(&accepted.set);
        let here = here.flat_map(|placed| &placed.flat.not_enforced);
        crate::shortfall::of(
            accepted.blobs.values(),
            &accepted.manifest,
            &kernel.abilities(),
            here.chain(&anywhere),
        )
    }

    fn try_apply<K: Enforcer>(
        &mut self,
        kernel: &mut K,
        workloads: &Registry,
        rules: Rules,
        now: Instant,
    ) -> Result<(), Vec<RuleProblem>> {
        let accepted = self
            .read(rules)
            .map_err(|why| vec![refusal(String::new(), why)])?;
        self.arrange(kernel, workloads, &accepted.set, now)?;
        self.expiry = accepted.set.next_expiry(clock());
        self.current = Some(accepted);
        Ok(())
    }

    /// Points every workload at its rules out of a set; all of them or none.
    fn arrange<K: Enforcer>(
        &mut self,
        kernel: &mut K,
        workloads: &Registry,
        set: &policy::Set,
        now: Instant,
    ) -> Result<(), Vec<RuleProblem>> {
        let mut plan = Vec::new();
        let mut problems = Vec::new();
        for workload in workloads.live() {
            let placed = flatten((!self.paused).then_some(set), workload)
                .and_then(|flat| self.write(kernel, flat))
                .map(|set| plan.push((workload.index, set)));
            if let Err(why) = placed {
                let who = format!("{}/{}", workload.identity.namespace, workload.identity.name);
                problems.push(refusal(String::new(), format!("workload {who}: {why}")));
            }
        }
        if !problems.is_empty() {
            // What was written for it and is used by nobody goes the way of all unused sets.
            self.sweep(now);
            return Err(problems);
        }
        for (index, set) in plan {
            kernel.point(index, set);
            self.leave(index, now);
            self.assign(index, set);
        }
        self.sweep(now);
        Ok(())
    }

    /// Takes policies out of force whose time is over. Call it now and then.
    pub fn expire<K: Enforcer>(&mut self, kernel: &mut K, workloads: &Registry, now: Instant) {
        if self.expiry.is_none_or(|expiry| expiry > clock()) {
            return;
        }
        let Some(accepted) = self.current.take() else {
            return;
        };
        match self.arrange(kernel, workloads, &accepted.set, now) {
            Ok(()) => tracing::info!("policies have expired"),
            Err(problems) => {
                tracing::error!(?problems, "policies have expired and stay in force");
            }
        }
        self.expiry = accepted.set.next_expiry(clock());
        self.current = Some(accepted);
    }

    /// Completes the blobs from those that are held and checks the whole.
    fn read(&self, rules: Rules) -> Result<Accepted, String> {
        let manifest = self.manifest(&rules)?;
        let digest = Digest::try_from(&manifest.digest[..])
            .map_err(|_| "a manifest whose digest is not 32 bytes".to_owned())?;
        let sent: BTreeMap<Digest, Bytes> = rules
            .blobs
            .into_iter()
            .map(|blob| (policy::blob_digest(&blob), blob))
            .collect();
        let mut blobs = BTreeMap::new();
        for name in &manifest.blobs {
            let name = Digest::try_from(&name[..])
                .map_err(|_| "a manifest with a name that is not 32 bytes".to_owned())?;
            let held = self
                .current
                .as_ref()
                .and_then(|accepted| accepted.blobs.get(&name));
            let blob = sent
                .get(&name)
                .or(held)
                .ok_or_else(|| format!("policy {name} was not sent"))?;
            blobs.insert(name, blob.clone());
        }
        let set = match &self.current {
            Some(current) => current.set.followed_by(&manifest, &blobs),
            None => policy::Set::from_wire(&manifest, &blobs),
        };
        let set = set.map_err(|why| why.to_string())?;
        Ok(Accepted {
            digest,
            manifest,
            blobs,
            set,
        })
    }

    /// The manifest that was sent, or that the sent change makes of the one in force.
    fn manifest(&self, rules: &Rules) -> Result<Manifest, String> {
        match (&rules.manifest, &rules.change, &self.current) {
            (Some(manifest), None, _) => Ok(manifest.clone()),
            (None, Some(change), Some(current)) => policy::changed(&current.manifest, change),
            (None, Some(_), None) => Err("a change of a rule set, and none is in force".to_owned()),
            (None, None, _) => Err("a rule set without a manifest".to_owned()),
            (Some(_), Some(_), _) => Err("a rule set with a manifest and a change".to_owned()),
        }
    }

    /// The kernel set of a flat: an equal one that is there, or a new one.
    fn write<K: Enforcer>(&mut self, kernel: &mut K, flat: Flat) -> Result<u32, PlaceError> {
        if let Some((set, _)) = self
            .placed
            .iter()
            .find(|(_, placed)| placed.flat.digest == flat.digest)
        {
            return Ok(*set);
        }
        let next = |from: u32| (from.max(1)..MOST_SETS).find(|set| !self.placed.contains_key(set));
        let set = next(self.last + 1)
            .or_else(|| next(1))
            .ok_or(PlaceError::TooMany)?;
        let generation = kernel.write_set(set, &flat).map_err(PlaceError::Kernel)?;
        self.last = set;
        self.tables
            .insert((set, generation), Arc::new(flat.slots.clone()));
        self.placed.insert(
            set,
            Placed {
                generation,
                users: 0,
                flat,
            },
        );
        Ok(set)
    }

    fn assign(&mut self, index: u32, set: u32) {
        self.assigned.insert(index, set);
        if let Some(placed) = self.placed.get_mut(&set) {
            placed.users += 1;
        }
    }

    fn release(&mut self, set: u32, now: Instant) {
        if let Some(placed) = self.placed.get_mut(&set) {
            placed.users = placed.users.saturating_sub(1);
            if placed.users == 0 {
                self.unused.push_back((now, set));
            }
        }
    }

    /// Sets that were written and never used wait like those that are used no more.
    fn sweep(&mut self, now: Instant) {
        let waiting: Vec<u32> = self.unused.iter().map(|(_, set)| *set).collect();
        let idle = self
            .placed
            .iter()
            .filter(|(set, p)| p.users == 0 && !waiting.contains(set));
        self.unused
            .extend(idle.map(|(set, _)| (now, *set)).collect::<Vec<_>>());
    }

    /// Drops what nobody has used for long enough. Call it now and then.
    pub fn tick<K: Enforcer>(&mut self, kernel: &mut K, now: Instant) {
        while let Some(&(since, set)) = self.unused.front() {
            if now.duration_since(since) < UNREAD {
                break;
            }
            self.unused.pop_front();
            let again = self.unused.iter().any(|(_, other)| *other == set);
            let idle = self
                .placed
                .get(&set)
                .is_some_and(|placed| placed.users == 0);
            if idle
                && !again
                && let Some(placed) = self.placed.remove(&set)
            {
                kernel.drop_set(set);
                self.dropped.push_back((now, (set, placed.generation)));
            }
        }
        while let Some(&(since, key)) = self.dropped.front() {
            if now.duration_since(since) < FORGOTTEN {
                break;
            }
            self.dropped.pop_front();
            let (set, generation) = key;
            // The same pair is in force again only if the kernel half counts generations from the start.
            if self
                .placed
                .get(&set)
                .is_none_or(|placed| placed.generation != generation)
            {
                self.tables.remove(&key);
            }
        }
    }
}

/// The name of the set that was sent.
fn named(rules: &Rules) -> Bytes {
    match (&rules.manifest, &rules.change) {
        (Some(manifest), _) => manifest.digest.clone().into(),
        (None, Some(change)) => change.digest.clone(),
        (None, None) => Bytes::new(),
    }
}

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const AF_PACKET: u16 = 17;

/// What rules see of a socket.
pub fn socket_key(family: u16, kind: u8, protocol: u16) -> SocketKey {
    if family == AF_PACKET {
        return SocketKey::PACKET;
    }
    SocketKey::of(i32::from(kind), i32::from(protocol))
}

/// An observed operation in the terms of rules; none where rules have nothing to say.
fn operation(op: &Op) -> Option<Operation> {
    Some(match op {
        Op::Exec { path, .. } => Operation::exec(path.clone()),
        // O_ACCMODE: 0 reads only.
        Op::Open { path, flags, .. } => Operation::open(path.clone(), flags & 3 != 0),
        Op::Unlink { path, .. } | Op::Rename { from: path, .. } => Operation::write(path.clone()),
        Op::Socket {
            family: family @ (AF_INET | AF_INET6 | AF_PACKET),
            kind,
            protocol,
        } => Operation::of(Act::Socket {
            key: socket_key(*family, *kind, *protocol),
        }),
        Op::Capability { number } => Operation::of(Act::Capability { number: *number }),
        _ => return None,
    })
}

/// The time of day, by which policies expire.
fn clock() -> Moment {
    SystemTime::now().into()
}

fn refusal(policy: String, message: String) -> RuleProblem {
    RuleProblem {
        policy,
        path: String::new(),
        message,
        refused: true,
    }
}

fn subject(identity: &Identity) -> policy::Workload {
    policy::Workload {
        namespace: identity.namespace.clone(),
        labels: identity.labels.clone(),
        container: identity.container.clone(),
    }
}

fn flatten(set: Option<&policy::Set>, workload: &Workload) -> Result<Flat, PlaceError> {
    let empty;
    let set = match set {
        Some(set) => set,
        None => {
            empty = policy::Set::default();
            &empty
        }
    };
    let resolver = Resolver::new(&workload.root).map_err(|source| PlaceError::Root {
        root: workload.root.display().to_string(),
        source,
    })?;
    let effective = policy::select(set, &subject(&workload.identity), clock());
    let rules = policy::Rules::new(&effective, &|path| resolver.aliases(path));
    Ok(policy::flatten(&rules, JUDGES))
}
