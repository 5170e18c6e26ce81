//! Rules by hand: `Rules::new().process("/bin/sleep", Block)`.

#![allow(dead_code, unreachable_pub)] // reason: each test program uses its part

use policy::{Action, Candidate, Class, Flat, List, Posture, SocketKey, State};

/// A list of rules, each with the slot of its place in the order of calls.
pub struct Rules {
    flat: Flat,
    slots: u32,
}

#[derive(Clone, Copy)]
enum Of {
    Process,
    File,
}

impl Rules {
    pub fn new() -> Self {
        let flat = Flat::default();
        Self { flat, slots: 0 }
    }

    pub fn process(self, path: &str, action: Action) -> Self {
        self.path(Of::Process, path, action)
    }

    pub fn file(self, path: &str, action: Action) -> Self {
        self.path(Of::File, path, action)
    }

    pub fn socket(mut self, kind: u8, protocol: u8, action: Action) -> Self {
        let list = List(vec![self.candidate(action)]);
        self.flat.sockets.push((SocketKey { kind, protocol }, list));
        self
    }

    pub fn capability(mut self, number: u8, action: Action) -> Self {
        let list = List(vec![self.candidate(action)]);
        self.flat.capability_rules.push((number, list));
        self
    }

    pub fn syscall(mut self, number: u16, action: Action) -> Self {
        let list = List(vec![self.candidate(action)]);
        self.flat.syscalls.push((number, list));
        self
    }

    pub fn process_posture(mut self, posture: Posture) -> Self {
        self.flat.modes.process = Class {
            allow_list: true,
            posture,
        };
        self
    }

    pub fn file_posture(mut self, posture: Posture) -> Self {
        self.flat.modes.file = Class {
            allow_list: true,
            posture,
        };
        self
    }

    pub fn network_posture(mut self, posture: Posture) -> Self {
        self.flat.modes.network = Class {
            allow_list: true,
            posture,
        };
        self
    }

    pub fn done(self) -> Flat {
        self.flat
    }

    fn candidate(&mut self, action: Action) -> Candidate {
        self.slots += 1;
        Candidate {
            slot: self.slots - 1,
            action,
            order: self.slots.into(),
            shadow: false,
        }
    }

    /// A path that ends in `/` is a directory with everything below.
    fn path(mut self, of: Of, path: &str, action: Action) -> Self {
        let candidate = self.candidate(action);
        let mut state = 0;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            let next = self.flat.states.len() as u32;
            let edges = &mut self.flat.states[state].edges;
            state = *edges.entry(name.to_owned()).or_insert(next) as usize;
            if state == next as usize {
                self.flat.states.push(State::default());
            }
        }
        let state = &mut self.flat.states[state];
        let lists = match of {
            Of::Process => &mut state.process,
            Of::File => &mut state.file,
        };
        lists.here.0.push(candidate);
        if path.ends_with('/') {
            lists.child.0.push(candidate);
            lists.below.0.push(candidate);
        }
        self
    }
}
