//! Events as sensors make them: some 700 bytes, of many workloads, and no two with the same text.
//!
//! Everything is drawn from the vocabularies of [`super::words`] with a seeded generator, so two runs with one seed see
//! the same bytes but for the time of day. The fields are written straight to the wire in the order of their numbers, as
//! a protobuf encoder does, because the generator shares the machine with what it measures.

use bytes::{BufMut, Bytes, BytesMut};
use proto::{Kind, StreamId, link};

use super::wire::{Fields, Layout};
use super::words::{self, Doing, Profile};

/// Which part of a sensor's events a stream has, as sensors divide them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// Alerts.
    Verdicts,
    /// Logs.
    Telemetry,
}

impl Class {
    pub(crate) const ALL: [Class; 2] = [Class::Verdicts, Class::Telemetry];

    pub(crate) fn kind(self) -> Kind {
        match self {
            Class::Verdicts => Kind::Alert,
            Class::Telemetry => Kind::Log,
        }
    }
}

/// Random numbers that are the same for the same seed: SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom
/// number generators", 2014).
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        // The upper half of the product: even enough for bounds far below 2⁶⁴.
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }
}

/// A workload on the node: what all its events have in common, encoded once.
struct Workload {
    profile: &'static Profile,
    /// Cluster to container name: fields 3 to 8 of both messages.
    head: Vec<u8>,
    image: String,
    labels: String,
    owner: [String; 3],
    uid: u64,
}

/// Makes the events of one node.
pub(crate) struct Maker {
    random: Random,
    workloads: Vec<Workload>,
    node_id: String,
    digest: [u8; 32],
    /// Unix seconds, and `YYYY-MM-DDTHH:MM:SS.`.
    second: (u64, String),
    /// Of the event that is being made.
    told: Told,
    payload: Vec<u8>,
}

/// The texts of one event, kept to be written over.
#[derive(Default)]
struct Told {
    source: String,
    process: &'static str,
    parent: &'static str,
    resource: String,
    data: String,
    args: Vec<String>,
    event_data: Vec<(&'static str, String)>,
    updated: String,
}

/// Containers on a node.
const WORKLOADS: usize = 24;

impl Maker {
    /// For the node of this number.
    pub(crate) fn new(seed: u64, node: usize) -> Self {
        let mut random = Random::new(seed.wrapping_add((node as u64) << 32));
        let host = format!("node-{node:02}.{}", random.pick(words::ZONES));
        let workloads = (0..WORKLOADS)
            .map(|_| Workload::draw(&mut random, &host))
            .collect();
        let mut digest = [0; 32];
        for part in digest.chunks_exact_mut(8) {
            part.copy_from_slice(&random.next().to_le_bytes());
        }
        Self {
            node_id: hex(&mut random, 16),
            workloads,
            digest,
            second: (0, String::new()),
            told: Told::default(),
            payload: Vec::new(),
            random,
        }
    }

    /// A batch as the link carries it, of what happened just before `now` (unix nanoseconds). The events share one piece
    /// of memory.
    pub(crate) fn batch(
        &mut self,
        class: Class,
        stream: StreamId,
        first: u64,
        count: usize,
        now: u64,
    ) -> link::Batch {
        let mut bytes = BytesMut::with_capacity(count * 832);
        let mut ends = Vec::with_capacity(count);
        for at in 0..count {
            // They happened one after the other within the last moment.
            self.event(class.kind(), now - (count - at) as u64 * 1000);
            bytes.put_slice(&[0x08, class.kind() as u8, 0x12]);
            prost::encoding::encode_varint(self.payload.len() as u64, &mut bytes);
            bytes.put_slice(&self.payload);
            ends.push(bytes.len());
        }
        let bytes = bytes.freeze();
        let mut from = 0;
        let events = ends.into_iter().map(|end| {
            let event = bytes.slice(from..end);
            from = end;
            event
        });
        link::Batch {
            events: events.collect(),
            stream: Bytes::copy_from_slice(&stream.0),
            first,
        }
    }

    /// One event, encoded; it happened at `unix_ns`.
    pub(crate) fn event(&mut self, kind: Kind, unix_ns: u64) -> &[u8] {
        let at = self.random.below(self.workloads.len() as u64) as usize;
        let doing = *self.random.pick(self.workloads[at].profile.does);
        self.stamp(unix_ns);
        self.tell(at, doing);
        self.write(kind, at, doing);
        &self.payload
    }

    fn stamp(&mut self, unix_ns: u64) {
        let seconds = unix_ns / 1_000_000_000;
        if self.second.0 != seconds {
            let mut text = proto::updated_time(unix_ns);
            text.truncate("2026-01-01T00:00:00.".len());
            self.second = (seconds, text);
        }
        let updated = &mut self.told.updated;
        updated.clear();
        updated.push_str(&self.second.1);
        push_padded(updated, unix_ns / 1000 % 1_000_000, 6);
        updated.push('Z');
    }

    /// Draws what happens.
    fn tell(&mut self, at: usize, doing: Doing) {
        let (random, told) = (&mut self.random, &mut self.told);
        let profile = self.workloads[at].profile;
        let program = random.pick(profile.programs);
        let runs = random.pick(program.runs);
        told.process = program.path;
        told.parent = program.parent;
        told.args.resize_with(runs.len(), String::new);
        for (arg, template) in told.args.iter_mut().zip(*runs) {
            arg.clear();
            fill(random, template, arg);
        }
        told.source.clear();
        push_joined(&mut told.source, &told.args);
        told.resource.clear();
        told.data.clear();
        told.event_data.clear();
        match doing {
            Doing::Exec => {
                let child = random.pick(profile.children);
                fill(random, child, &mut told.resource);
                told.data.push_str("syscall=SYS_EXECVE");
                told.event_data.push(("Syscall", "SYS_EXECVE".to_owned()));
            }
            Doing::File => {
                let file = random.pick(profile.files);
                fill(random, file, &mut told.resource);
                let flags = random.pick(words::OPEN_FLAGS);
                told.data.push_str("syscall=SYS_OPENAT fd=-100 flags=");
                told.data.push_str(flags);
                told.event_data.push(("Fd", "-100".to_owned()));
                told.event_data.push(("Flags", (*flags).to_owned()));
                told.event_data.push(("Syscall", "SYS_OPENAT".to_owned()));
            }
            Doing::Network => {
                let peer = random.pick(profile.peers);
                fill(random, peer, &mut told.resource);
                told.data.push_str("kprobe=tcp_connect domain=AF_INET");
                told.event_data.push(("Domain", "AF_INET".to_owned()));
                told.event_data.push(("Kprobe", "tcp_connect".to_owned()));
            }
        }
    }

    fn write(&mut self, kind: Kind, at: usize, doing: Doing) {
        let (workload, told, random) = (&self.workloads[at], &self.told, &mut self.random);
        let (alert, layout) = match kind {
            Kind::Alert => (true, Layout::ALERT),
            _ => (false, Layout::LOG),
        };
        let mut out = Fields::new(&mut self.payload);
        let mut pid = || 300 + random.below(4_000_000);
        out.number(1, self.second.0);
        out.text(2, &told.updated);
        out.raw(&workload.head);
        let (host_pid, host_ppid) = (pid(), pid());
        out.number(9, host_pid);
        out.number(10, host_ppid % 32_768);
        out.number(11, host_pid % 32_768);
        out.number(12, workload.uid);
        let policy = random.pick(words::POLICIES);
        if alert {
            out.text(13, policy.name);
            out.text(14, policy.severity);
            out.joined(15, policy.tags);
            out.text(16, policy.message);
        }
        out.text(
            layout.kind,
            if alert {
                "MatchedPolicy"
            } else {
                "ContainerLog"
            },
        );
        out.text(layout.source, &told.source);
        out.text(layout.operation, doing.name());
        out.text(layout.resource, &told.resource);
        out.text(layout.data, if alert { doing.hook() } else { &told.data });
        if alert {
            out.text(22, "Block");
        }
        let result = if alert { "Permission denied" } else { "Passed" };
        out.text(layout.result, result);
        out.text(layout.image, &workload.image);
        out.text(layout.parent, told.parent);
        out.text(layout.process, told.process);
        out.number(layout.host_ppid, host_ppid);
        if alert {
            out.text(28, "BPFLSM");
        }
        out.text(layout.labels, &workload.labels);
        if alert {
            policy.tags.iter().for_each(|tag| out.text(30, tag));
        }
        out.texts(layout.owner, &workload.owner);
        out.text(layout.cwd, workload.profile.cwd);
        out.texts(
            layout.exec_event,
            &["", told.process.rsplit('/').next().unwrap_or("")],
        );
        out.text(layout.node_id, &self.node_id);
        if !alert {
            for (key, value) in &told.event_data {
                out.texts(layout.event_data, &[*key, value]);
            }
        }
        if doing == Doing::Exec {
            told.args.iter().for_each(|arg| out.text(110, arg));
            out.number(111, 1);
        }
        out.fixed64(116, random.next());
        if alert {
            out.fixed64(118, policy.rule);
        }
        out.number(119, 1);
        if alert {
            out.bytes(120, &self.digest);
        }
    }
}

impl Workload {
    fn draw(random: &mut Random, host: &str) -> Self {
        let profile = random.pick(words::PROFILES);
        let namespace = *random.pick(words::NAMESPACES);
        let set = hex(random, 10);
        let pod = format!("{}-{set}-{}", profile.name, hex(random, 5));
        let container = hex(random, 64);
        let (minor, patch) = (random.below(30), random.below(20));
        let mut head = Vec::new();
        let mut fields = Fields::new(&mut head);
        for (number, text) in [
            (3, words::CLUSTER),
            (4, host),
            (5, namespace),
            (6, &pod),
            (7, &container),
            (8, profile.name),
        ] {
            fields.text(number, text);
        }
        Self {
            profile,
            head,
            image: format!(
                "registry.example/{namespace}/{}:1.{minor}.{patch}",
                profile.name
            ),
            labels: format!(
                "app={},tier={},pod-template-hash={set}",
                profile.name, profile.tier
            ),
            owner: [
                "Deployment".to_owned(),
                profile.name.to_owned(),
                namespace.to_owned(),
            ],
            uid: random.below(2) * 1000,
        }
    }
}

/// Now, in nanoseconds since 1970.
pub(crate) fn unix_ns() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_nanos() as u64)
}

/// Writes a template out: `%d` a number, `%x` eight hexadecimal digits, `%i` an IPv4 address.
fn fill(random: &mut Random, template: &str, out: &mut String) {
    let mut parts = template.split('%');
    out.push_str(parts.next().unwrap_or_default());
    for part in parts {
        match part.as_bytes().first() {
            Some(b'd') => push_number(out, random.below(100_000)),
            Some(b'x') => push_hex(out, random.next(), 8),
            _ => {
                let [a, b, c, ..] = random.next().to_le_bytes();
                out.push_str("10.");
                for (part, dot) in [(a, "."), (b, "."), (c, "")] {
                    push_number(out, u64::from(part));
                    out.push_str(dot);
                }
            }
        }
        out.push_str(part.get(1..).unwrap_or_default());
    }
}

fn push_joined(out: &mut String, words: &[String]) {
    for (at, word) in words.iter().enumerate() {
        if at > 0 {
            out.push(' ');
        }
        out.push_str(word);
    }
}

fn push_number(out: &mut String, number: u64) {
    let digits = number.checked_ilog10().unwrap_or(0) as usize + 1;
    push_padded(out, number, digits);
}

/// The last `digits` decimal digits; at most 20.
fn push_padded(out: &mut String, mut number: u64, digits: usize) {
    let mut text = [b'0'; 20];
    for digit in text[..digits].iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
    out.extend(text[..digits].iter().map(|&digit| char::from(digit)));
}

/// The last `digits` hexadecimal digits; at most 16.
fn push_hex(out: &mut String, mut number: u64, digits: usize) {
    let mut text = [b'0'; 16];
    for digit in text[..digits].iter_mut().rev() {
        *digit = b"0123456789abcdef"[(number & 15) as usize];
        number >>= 4;
    }
    out.extend(text[..digits].iter().map(|&digit| char::from(digit)));
}

fn hex(random: &mut Random, digits: usize) -> String {
    let mut out = String::with_capacity(digits);
    while out.len() < digits {
        let part = (digits - out.len()).min(16);
        push_hex(&mut out, random.next(), part);
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use prost::Message as _;
    use proto::feeder;

    use super::*;

    const NOW: u64 = 1_795_000_000_123_456_789;

    fn sample(kind: Kind) -> Vec<Vec<u8>> {
        let mut maker = Maker::new(7, 3);
        (0..2000)
            .map(|n| maker.event(kind, NOW + n * 1000).to_vec())
            .collect()
    }

    #[test]
    fn events_pass_the_relays_own_check_and_weigh_some_700_bytes() {
        let mean = |kind| {
            let events = sample(kind);
            for event in &events {
                assert_eq!(proto::check(kind, event), Ok(()));
            }
            events.iter().map(Vec::len).sum::<usize>() / events.len()
        };
        // One in five is an alert.
        let mean = (mean(Kind::Alert) + 4 * mean(Kind::Log)) / 5;
        assert!((650..=750).contains(&mean), "{mean} bytes");
    }

    #[test]
    fn an_encoder_would_have_written_the_same_bytes() {
        for event in sample(Kind::Alert) {
            let alert = feeder::Alert::decode(&event[..]).unwrap();
            assert_eq!(alert.encode_to_vec(), event);
        }
        for event in sample(Kind::Log) {
            let log = feeder::Log::decode(&event[..]).unwrap();
            assert_eq!(log.encode_to_vec(), event);
        }
    }

    #[test]
    fn no_two_events_are_alike_and_the_same_seed_gives_the_same_ones() {
        let events = sample(Kind::Log);
        let distinct: HashSet<&Vec<u8>> = events.iter().collect();
        assert_eq!(distinct.len(), events.len());
        let resources: HashSet<String> = events
            .iter()
            .map(|event| feeder::Log::decode(&event[..]).unwrap().resource)
            .collect();
        assert!(resources.len() > events.len() * 9 / 10);
        assert_eq!(events, sample(Kind::Log));
    }

    #[test]
    fn a_batch_comes_apart_as_the_relay_takes_it_apart() {
        let stream = StreamId([3; 8]);
        let batch = Maker::new(1, 0).batch(Class::Telemetry, stream, 5, 100, NOW);
        let received = proto::batch::receive(batch).unwrap();
        assert_eq!((received.stream, received.first), (stream, 5));
        let good = received.events.iter().filter(|event| event.is_ok()).count();
        assert_eq!(good, 100);
    }
}
