//! KubeArmor's policy language: what people write, what it means, and what a kernel needs to know of it.
//!
//! ```text
//!  relay, command line (feature `yaml`)                    node (no features)
//!  text ─parse─▶ Policy + Problems ─compile─▶ RuleSet ══▶ Set ─select─▶ Effective ─flatten─▶ Flat ─▶ kernel maps
//!                                       manifest + blobs        one workload        └─decide─▶ Verdict
//! ```
//! A blob is one policy, named by its SHA-256; it holds selectors and strings, never hashes or automaton states, so
//! that an edit changes one blob and nodes of different age understand it. All of it is pure: no file, no clock, no
//! network. What is understood and not judged by this version is carried along and reported, never dropped.
//!
//! [`decide()`] is the meaning, to be read; [`Flat::decide`] is what the kernel does; tests hold them equal.

mod aliases;
#[cfg(feature = "yaml")]
mod check;
#[cfg(feature = "yaml")]
mod compile;
mod decide;
mod flat;
mod flatten;
mod force;
#[cfg(feature = "yaml")]
pub mod model;
mod names;
mod operation;
#[cfg(feature = "yaml")]
mod parse;
mod path;
mod rank;
mod rule;
mod select;
#[cfg(feature = "yaml")]
mod selector;
mod set;
mod socket;
mod syscalls;

#[cfg(feature = "yaml")]
pub use compile::{RuleSet, compile, compile_for};
pub use decide::decide;
pub use flat::{
    Candidate, Class, Enforced, Flat, List, Lists, NotEnforced, Posture, SlotRule, State, Verdict,
};
pub use flatten::flatten;
#[cfg(feature = "yaml")]
pub use model::{Kind, Policy};
pub use names::{CAPABILITIES, Protocol, capability};
pub use operation::Operation;
#[cfg(feature = "yaml")]
pub use parse::{API_VERSION, load, parse};
pub use path::{MAX_COMPONENT, MAX_COMPONENTS};
pub use rule::{Action, Object, Rule, Section};
pub use select::{Effective, Workload, select};
pub use set::{MAX_BLOB, Refused, Set, blob_digest};
pub use socket::SocketKey;
pub use syscalls::{SYSCALLS, syscall};
#[cfg(feature = "yaml")]
pub use yaml::{Problem, Severity};
