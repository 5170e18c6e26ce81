//! The kernel decides as the language means: random policies, real operations, `Flat::decide` and `policy::decide` as
//! the oracles.

#![allow(clippy::panic, clippy::expect_used)] // reason: tests fail by panicking

mod kernel;

use std::ffi::CString;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use kernel::{Scene, resolved};
use policy::{
    Act, Effective, Enforced, Flat, Judges, Moment, Operation, Posture, SocketKey, Verdict,
};
use proto::rules;
use sensor_bpf::kernel::Contain;
use sensor_bpf::observe::{Action, By, Observation, Op};

const ROUNDS: u64 = 40;
const NAMES: [&str; 3] = ["a", "b", "c"];

/// SplitMix64: the same policies in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }

    fn path(&mut self, root: &str) -> String {
        let depth = self.below(4);
        (0..depth).fold(root.to_owned(), |path, _| {
            format!("{path}/{}", self.pick(&NAMES))
        })
    }
}

/// Every folder of the tree holds a file of each name but its folders'.
fn tree(root: &Path) -> Vec<String> {
    let mut files = Vec::new();
    let mut folders = vec![root.to_owned()];
    for _ in 0..3 {
        let mut next = Vec::new();
        for folder in folders {
            for (index, name) in NAMES.iter().enumerate() {
                let path = folder.join(name);
                if index < 2 {
                    fs::create_dir(&path).expect("makes");
                    next.push(path);
                } else {
                    fs::write(&path, "").expect("writes");
                    files.push(path.to_string_lossy().into_owned());
                }
            }
        }
        folders = next;
    }
    files.extend(
        folders
            .iter()
            .map(|folder| folder.to_string_lossy().into_owned()),
    );
    files
}

fn policies(random: &mut Random, root: &str) -> String {
    let mut text = String::new();
    for number in 0..=random.below(3) {
        let action = random.pick(&["Block", "Audit", "Allow"]);
        let mode = random.pick(&["enforce", "enforce", "audit"]);
        write!(
            text,
            "---\napiVersion: security.kubearmor.com/v1\nkind: KubeArmorPolicy\n\
             metadata: {{name: p{number}, namespace: n}}\n\
             spec:\n  mode: {mode}\n  selector: {{matchLabels: {{a: b}}}}\n  action: {action}\n  file:\n"
        )
        .expect("a string grows");
        text += "    matchPaths:\n";
        for _ in 0..=random.below(3) {
            let action = random.pick(&["Block", "Audit", "Allow"]);
            let path = random.path(root) + "/c";
            writeln!(text, "      - {{path: {path}, action: {action}}}").expect("a string grows");
        }
        text += "    matchDirectories:\n";
        for _ in 0..=random.below(3) {
            let action = random.pick(&["Block", "Audit", "Allow"]);
            let (dir, recursive) = (random.path(root), random.pick(&["true", "false"]));
            writeln!(
                text,
                "      - {{dir: {dir}/, recursive: {recursive}, action: {action}}}"
            )
            .expect("a string grows");
        }
        let protocol = random.pick(&["tcp", "udp", "raw", "icmp", "stream", "all"]);
        writeln!(
            text,
            "  network:\n    matchProtocols: [{{protocol: {protocol}}}]"
        )
        .expect("a string grows");
    }
    text
}

fn effective(text: &str, random: &mut Random) -> Effective {
    let (policies, problems) = policy::parse("test", text);
    assert!(problems.is_empty(), "{problems:?}\n{text}");
    let unnamed = random.pick(&[rules::Posture::Audit, rules::Posture::Block]) as i32;
    let postures = rules::Postures {
        file: unnamed,
        network: unnamed,
        ..rules::Postures::default()
    };
    let set = policy::compile(&policies, &postures);
    let set = policy::Set::from_wire(&set.manifest, &set.blobs).expect("is whole");
    let labels = [("a".to_owned(), "b".to_owned())].into();
    let workload = policy::Workload {
        namespace: "n".to_owned(),
        labels,
        ..Default::default()
    };
    policy::select(&set, &workload, Moment(0))
}

/// What is to be told: nothing, or the action and the slot (none: the posture).
fn expected(verdict: Verdict<u32>) -> Option<(Action, Option<u32>)> {
    match verdict {
        Verdict {
            enforced: Enforced::Block(slot),
            ..
        } => Some((Action::Block, Some(slot))),
        Verdict {
            enforced: Enforced::Posture(Posture::Block),
            ..
        } => Some((Action::Block, None)),
        Verdict {
            audit: Some(slot), ..
        } => Some((Action::Audit, Some(slot))),
        Verdict {
            enforced: Enforced::Posture(Posture::Audit),
            ..
        } => Some((Action::Audit, None)),
        Verdict { .. } => None,
    }
}

fn told(seen: &Observation) -> Option<(Action, Option<u32>)> {
    seen.verdict.map(|made| {
        let slot = match made.by {
            By::Rule { slot, .. } => Some(slot),
            By::Posture => None,
        };
        (made.action, slot)
    })
}

fn open_all(scene: &Scene, files: &[String]) {
    let names: Vec<_> = files
        .iter()
        .map(|file| CString::new(file.as_str()).expect("text"))
        .collect();
    let code = scene.group.fork(|| {
        for name in &names {
            // SAFETY: the name ends with NUL, the descriptor is this child's own.
            unsafe { libc::close(libc::open(name.as_ptr(), libc::O_RDONLY)) };
        }
        for kind in [libc::SOCK_STREAM, libc::SOCK_DGRAM, libc::SOCK_RAW] {
            for protocol in [
                0,
                libc::IPPROTO_TCP,
                libc::IPPROTO_UDP,
                libc::IPPROTO_ICMP,
                99,
            ] {
                // SAFETY: no pointers; the descriptor is this child's own.
                unsafe { libc::close(libc::socket(libc::AF_INET, kind, protocol)) };
            }
        }
        0
    });
    assert_eq!(code, 0);
}

/// The decision about one path, of all that was seen of it.
fn about<'a>(seen: &'a [Observation], file: &str) -> Option<&'a Observation> {
    seen.iter().find(|one| {
        one.verdict.is_some() && matches!(&one.op, Op::Open { path, .. } if path == file)
    })
}

fn check_sockets(seen: &[Observation], flat: &Flat, text: &str) {
    for one in seen {
        let Op::Socket {
            family: 2,
            kind,
            protocol,
        } = one.op
        else {
            continue;
        };
        if one.verdict.is_none() {
            continue;
        }
        let key = SocketKey::of(kind.into(), protocol.into());
        let wanted = expected(flat.decide(&Operation::of(Act::Socket { key })));
        assert_eq!(told(one), wanted, "{key:?}\n{text}");
    }
    // what exists on every machine, and was refused or not, was told if the rules say so
    for (kind, protocol) in [(1, 6), (2, 17)] {
        let key = SocketKey { kind, protocol };
        let wanted = expected(flat.decide(&Operation::of(Act::Socket { key })));
        let was = seen.iter().any(|one| {
            one.verdict.is_some()
                && matches!(one.op, Op::Socket { kind: k, protocol: p, .. } if (k, p) == (kind, protocol.into()))
        });
        assert_eq!(was, wanted.is_some(), "{key:?}\n{text}");
    }
}

#[test]
fn the_kernel_decides_as_the_language_means() {
    let Some(mut scene) = Scene::new(Contain::Default) else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let root = resolved(&folder.path().to_string_lossy());
    let files = tree(Path::new(&root));
    let mut kinds = std::collections::HashSet::new();
    for seed in 0..ROUNDS {
        let mut random = Random(seed);
        let text = policies(&mut random, &root);
        let effective = effective(&text, &mut random);
        let meaning = policy::Rules::new(&effective, &|_| Vec::new());
        let flat = policy::flatten(&meaning, Judges::PLAIN);
        let (_, generation) = scene.rules(&flat);
        scene.forget();
        open_all(&scene, &files);
        let seen = scene.look();
        for file in &files {
            let operation = Operation::read(file.clone());
            let wanted = expected(flat.decide(&operation));
            let got = about(seen, file);
            assert_eq!(got.and_then(told), wanted, "seed {seed}: {file}\n{text}");
            kinds.insert(wanted.map(|(action, slot)| (action == Action::Block, slot.is_some())));
            let by_meaning = policy::decide(&meaning, &operation);
            let denies = got.is_some_and(|one| told(one).is_some_and(|(a, _)| a == Action::Block));
            assert_eq!(
                denies,
                by_meaning.enforced.denies(),
                "seed {seed}: {file}\n{text}"
            );
            if let Some(By::Rule { generation: of, .. }) =
                got.and_then(|one| one.verdict).map(|v| v.by)
            {
                assert_eq!(of, generation);
            }
        }
        check_sockets(seen, &flat, &text);
    }
    assert_eq!(
        kinds.len(),
        5,
        "the policies ask for less than there is: {kinds:?}"
    );
}
