//! Capabilities and system calls.

use super::{Lower, Written, in_order, parts, sources};
use crate::model::{self, Attributes};
use crate::names::capability;
use crate::path::canonical;
use crate::rule::{Action, Object, Section};

impl<'p> Lower<'p> {
    pub(super) fn capabilities(&mut self, section: &'p model::Capabilities, outer: Attributes<'p>) {
        let outer = section.attributes().within(outer);
        for (index, item) in section.match_capabilities.iter().enumerate() {
            for number in parts(&item.capability).filter_map(capability) {
                let written = Written {
                    sources: sources(&item.from_source),
                    ..Written::new(Section::Capabilities, Object::Capability(number))
                };
                let place = format!("capabilities.matchCapabilities[{index}]");
                self.add(place, written, item.attributes().within(outer));
            }
        }
    }

    /// System calls are told of and never denied, whatever the spec's action says.
    pub(super) fn syscalls(&mut self, section: &'p model::Syscalls, outer: Attributes<'p>) {
        let outer = Attributes {
            action: Some(Action::Audit),
            ..section.attributes().within(outer)
        };
        for (index, item) in section.match_syscalls.iter().enumerate() {
            let place = format!("syscalls.matchSyscalls[{index}]");
            self.add(place.clone(), called(item), outer);
            self.without_return(&place, &item.syscall);
        }
        for (index, item) in section.match_paths.iter().enumerate() {
            self.add(
                format!("syscalls.matchPaths[{index}]"),
                called_on(item),
                outer,
            );
        }
    }

    fn without_return(&mut self, place: &str, names: &[String]) {
        for name in ["exit", "exit_group"] {
            if names.iter().any(|listed| listed == name) {
                let reason = format!("`{name}` does not return, so it is not told of");
                self.left_out(place, &reason);
            }
        }
    }
}

fn called(item: &model::SyscallMatch) -> Written<'_> {
    let object = Object::Syscall {
        names: sorted(&item.syscall),
        path: String::new(),
        recursive: false,
    };
    Written {
        sources: callers(&item.from_source),
        ..Written::new(Section::Syscalls, object)
    }
}

fn called_on(item: &model::SyscallPath) -> Written<'_> {
    let object = Object::Syscall {
        names: sorted(&item.syscall),
        path: canonical(&item.path),
        recursive: item.recursive,
    };
    Written {
        sources: callers(&item.from_source),
        ..Written::new(Section::Syscalls, object)
    }
}

fn sorted(words: &[String]) -> Vec<String> {
    let mut words = words.to_vec();
    words.sort_unstable();
    words.dedup();
    words
}

/// Only here a source may be a folder.
fn callers(written: &[model::SyscallSource]) -> Vec<Object> {
    in_order(
        written
            .iter()
            .map(|source| match (&source.path, &source.dir) {
                (Some(path), _) => Object::Path(canonical(path)),
                (None, dir) => Object::Directory {
                    path: canonical(&format!("{}/", dir.as_deref().unwrap_or_default())),
                    recursive: source.recursive,
                },
            }),
    )
}
