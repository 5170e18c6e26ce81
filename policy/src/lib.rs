//! KubeArmor's policy language: what people write, what it means, and what a kernel needs to know of it.
//!
//! ```text
//!  relay, command line (feature `yaml`)                    node (no features)
//!  text ─parse─▶ Policy + Problems ─compile─▶ RuleSet ══▶ Set ─select─▶ Effective ─▶ Rules ─flatten─▶ Flat ─▶ kernel maps
//!                                       manifest + blobs        one workload   in its root └─decide─▶ Verdict
//! ```
//! A blob is one policy, named by its SHA-256; it holds selectors and strings, never hashes or automaton states, so
//! that an edit changes one blob and nodes of different age understand it. All of it is pure: no file, no clock, no
//! network. What is understood and not judged by this version is carried along and reported, never dropped.
//!
//! [`decide()`] is the meaning, to be read; [`Flat::decide`] is what the kernel does; tests hold them equal.

mod aliases;
mod change;
#[cfg(feature = "yaml")]
mod check;
#[cfg(feature = "yaml")]
mod compile;
mod condition;
#[cfg(feature = "yaml")]
mod crd;
mod decide;
mod device;
mod domain;
mod endpoint;
#[cfg(feature = "yaml")]
mod expiry;
mod flat;
mod flatten;
mod force;
mod glob;
mod judges;
#[cfg(feature = "yaml")]
mod lower;
mod meet;
#[cfg(feature = "yaml")]
pub mod model;
mod names;
mod operation;
#[cfg(feature = "yaml")]
mod parse;
mod path;
mod preset;
mod rank;
mod rule;
mod scan;
mod select;
#[cfg(feature = "yaml")]
mod selector;
mod set;
mod socket;
mod standing;
mod syscalls;
mod tree;
#[cfg(feature = "yaml")]
mod trial;
#[cfg(feature = "yaml")]
mod values;
mod verdict;
mod wire;

pub use change::{change_between, changed};
#[cfg(feature = "yaml")]
pub use check::{Found, Root, Started, Surroundings, check, ended};
#[cfg(feature = "yaml")]
pub use compile::{Compiler, RuleSet, compile, compile_for};
pub use condition::{Condition, Holds};
#[cfg(feature = "yaml")]
pub use crd::{crd, crd_file, document as crd_document};
pub use decide::decide;
pub use device::{DEVICE_CLASSES, Device, Devices};
pub use endpoint::{
    Cidr, Connection, Direction, Endpoints, Flows, Packet, Ports, Quota, Transport,
};
pub use flat::{Candidate, Flat, Judged, List, Lists, NotEnforced, SlotRule, State};
pub use flatten::flatten;
pub use glob::{BadGlob, Glob, MAX_GLOB};
pub use judges::{Judges, Part};
#[cfg(feature = "yaml")]
pub use lower::{Placed, rules_of};
#[cfg(feature = "yaml")]
pub use model::{Kind, Policy};
pub use names::{CAPABILITIES, Protocol, capability};
pub use operation::{Act, Actor, Operation};
#[cfg(feature = "yaml")]
pub use parse::{API_VERSION, Loader, Unknown, load, load_with, parse, parse_bytes};
pub use path::{MAX_COMPONENT, MAX_COMPONENTS};
pub use preset::Preset;
pub use rule::{Action, Object, Rule, Section};
pub use select::{Effective, Moment, Node, Workload, select, select_node};
pub use set::{MAX_BLOB, Refused, Set, blob_digest};
pub use socket::SocketKey;
pub use standing::{Modes, Rules};
pub use syscalls::{SYSCALLS, syscall};
#[cfg(feature = "yaml")]
pub use trial::Trial;
pub use verdict::{Class, Enforced, Posture, Said, Step, Verdict};
#[cfg(feature = "yaml")]
pub use yaml::{Problem, Severity};
