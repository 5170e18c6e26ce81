//! Reads YAML (and JSON) that people wrote, and tells them everything that is wrong with it at once.
//!
//! Three programs read YAML by hand-made files: the relay and the sensor their settings, the policy
//! compiler its policies. All of them owe the writer the same: *every* problem, with file, line,
//! the path inside the document, what is wrong and what to do.
//!
//! ```text
//! text ──parse──▶ [Node] + [Problem]        one Node a document; line and column on every node
//! Node ──read───▶ Option<T> + [Problem]     serde; a broken node is reported, left out, and T is read again
//! Node ──set────▶ Node                      an environment variable lands where a key would; see [`settings`]
//! ```
//!
//! Serde stops at the first error. [`Node::read`] therefore records the error at its node, leaves that
//! node out and starts again, until the type reads or the root itself is at fault. Types that want
//! to hear of unknown keys say `#[serde(deny_unknown_fields, default)]`.
//!
//! An enum chosen by a `type` key is declared with [`tagged!`]: serde's own `tag = "type"` buffers
//! what it reads and loses the lines; this reads the same node again, so positions stay exact.
//!
//! Sizes: depth 64, one million nodes and 10 MiB of expanded aliases a file; beyond them a file is
//! a [`Problem`], never a panic or a full memory.

mod de;
mod fault;
mod nearest;
mod node;
mod problem;
mod read;
mod scalar;
mod settings;
mod tagged;
mod tree;
mod units;

pub use nearest::nearest;
pub use node::Node;
pub use problem::{Problem, Severity, drop_echoes};
pub use settings::{settings, settings_text};
pub use tree::{MAX_ALIASED, MAX_DEPTH, MAX_NODES, parse, parse_bytes};
pub use units::{BadUnit, Size, Span};

#[doc(hidden)]
pub use serde as __serde;
#[doc(hidden)]
pub use tagged::Word as __Word;
