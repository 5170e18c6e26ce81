//! The door of a sensor: what the compiler made comes in, everything else is refused with its reasons.

#![allow(clippy::unwrap_used, reason = "tests: a failure here is the test's")]

mod support;

use std::collections::BTreeMap;

use bytes::Bytes;
use policy::{RuleSet, Set, blob_digest, compile, load};
use proptest::prelude::*;
use prost::Message;
use proto::Digest;
use proto::rules::{self, Manifest, PolicyBlob, object::Is};
use support::shop;

fn good() -> RuleSet {
    let texts = [
        shop(
            "a",
            "process: {matchPaths: [{path: /bin/x}, {path: /bin/y, severity: 3}]}",
        ),
        shop("b", "network: {matchProtocols: [{protocol: tcp}]}"),
    ];
    let (policies, problems) = load(texts.iter().map(|text| ("f", text.as_str())));
    assert_eq!(problems, []);
    compile(&policies, &rules::Postures::default())
}

fn take(set: &RuleSet) -> Result<Set, Vec<String>> {
    Set::from_wire(&set.manifest, &set.blobs).map_err(|refused| refused.reasons)
}

/// Signs a manifest over these blobs as a compiler would, whatever is in them.
fn signed(blobs: Vec<Vec<u8>>) -> RuleSet {
    let blobs: BTreeMap<Digest, Bytes> = blobs
        .into_iter()
        .map(|blob| (blob_digest(&blob), Bytes::from(blob)))
        .collect();
    let names = blobs.keys().map(|name| name.0.to_vec()).collect();
    sign(
        Manifest {
            blobs: names,
            ..Manifest::default()
        },
        blobs,
    )
}

fn sign(manifest: Manifest, blobs: BTreeMap<Digest, Bytes>) -> RuleSet {
    let unsigned = Manifest {
        digest: Default::default(),
        ..manifest
    };
    let digest = blob_digest(&unsigned.encode_to_vec());
    RuleSet {
        manifest: Manifest {
            digest: digest.0.to_vec(),
            ..unsigned
        },
        blobs,
    }
}

/// The first policy of the good set, changed.
fn with(change: impl FnOnce(&mut PolicyBlob)) -> Vec<String> {
    let set = good();
    let mut blob = PolicyBlob::decode(set.blobs.values().next().unwrap().clone()).unwrap();
    change(&mut blob);
    take(&signed(vec![blob.encode_to_vec()])).unwrap_err()
}

#[test]
fn what_the_compiler_made_is_taken() {
    assert_eq!(take(&good()).unwrap().len(), 2);
    assert!(take(&signed(Vec::new())).unwrap().is_empty());
    assert!(take(&compile_nothing()).unwrap().is_empty());
}

fn compile_nothing() -> RuleSet {
    compile(&[], &rules::Postures::default())
}

#[test]
fn a_manifest_that_does_not_fit_is_refused() {
    let mut set = good();
    set.manifest.postures = Some(support::blocking());
    assert_eq!(
        take(&set).unwrap_err(),
        ["the manifest's digest does not fit its content"]
    );

    let mut set = good();
    set.manifest.blobs.reverse();
    let set = sign(set.manifest, set.blobs);
    assert_eq!(
        take(&set).unwrap_err(),
        ["the manifest's policies are not sorted and unique"]
    );

    let mut set = good();
    let (gone, _) = set.blobs.pop_first().unwrap();
    assert_eq!(
        take(&set).unwrap_err(),
        [format!("policy {gone} is missing")]
    );

    let mut set = good();
    set.blobs
        .values_mut()
        .for_each(|blob| *blob = Bytes::from_static(b"x"));
    assert!(
        take(&set)
            .unwrap_err()
            .iter()
            .all(|why| why.ends_with("its bytes have another digest"))
    );

    let set = sign(
        Manifest {
            blobs: vec![vec![1, 2]],
            ..Manifest::default()
        },
        BTreeMap::new(),
    );
    assert_eq!(take(&set).unwrap_err(), ["a policy's name is not 32 bytes"]);

    let posture = rules::Postures {
        file: 77,
        ..rules::Postures::default()
    };
    let set = sign(
        Manifest {
            postures: Some(posture),
            ..Manifest::default()
        },
        BTreeMap::new(),
    );
    assert_eq!(take(&set).unwrap_err(), ["posture 77 is not known here"]);
}

#[test]
fn a_policy_that_no_compiler_made_is_refused() {
    assert!(take(&signed(vec![vec![0xff; 40]])).unwrap_err()[0].contains("cannot be decoded"));
    assert!(with(|blob| blob.kind = "Pod".into())[0].contains("kind `Pod` is not known here"));
    assert!(with(|blob| blob.name.clear())[0].contains("has no name"));
    assert!(with(|blob| blob.rules[0].severity = 9)[0].contains("its id does not fit its content"));
    assert!(
        with(|blob| blob.rules[0].severity = 11)[0].contains("severity 11 is not between 0 and 10")
    );
    assert!(with(|blob| blob.rules[0].action = 9)[0].contains("an action that is not known here"));
    assert!(with(|blob| blob.rules[0].section = 0)[0].contains("a section that is not known here"));
    assert!(with(|blob| blob.rules[0].object = None)[0].contains("a rule about nothing"));
    assert!(
        with(|blob| blob.rules.push(blob.rules[0].clone()))[0].contains("not sorted and unique")
    );
    assert!(
        with(|blob| blob.selector.as_mut().unwrap().all_namespaces = true)[0]
            .contains("does not fit a KubeArmorPolicy")
    );
    assert!(
        with(|blob| blob.selector.as_mut().unwrap().namespace = "x".into())[0]
            .contains("another namespace")
    );
    assert!(
        with(|blob| {
            let expression = rules::Expression {
                key: "namespace".into(),
                ..Default::default()
            };
            blob.selector.as_mut().unwrap().expressions.push(expression);
        })[0]
            .contains("has the key `namespace`")
    );
}

#[test]
fn a_rule_that_no_compiler_made_is_refused() {
    let cases = [
        (Is::Path("bin/x".into()), "is not a path in canonical form"),
        (
            Is::Path("/bin//x".into()),
            "is not a path in canonical form",
        ),
        (Is::Path("/bin/".into()), "is not a path in canonical form"),
        (Is::Path("/a/../b".into()), "holds `..`"),
        (Is::Path("/a\0b".into()), "holds a NUL byte"),
        (
            Is::Path(format!("/{}", "x".repeat(5000))),
            "longer than 4095 bytes",
        ),
        (Is::Name("a/b".into()), "is not a file name"),
        (Is::Protocol("TCP".into()), "`TCP` is not a protocol"),
        (Is::Protocol("tcp".into()), "does not belong in Process"),
        (Is::Capability("fly".into()), "`fly` is not a capability"),
        (
            Is::Directory(rules::object::Directory {
                path: "/a".into(),
                recursive: true,
            }),
            "is not a directory in canonical form",
        ),
        (
            Is::Syscall(rules::object::Syscall {
                names: vec!["fly".into()],
                ..Default::default()
            }),
            "`fly` is not a system call",
        ),
    ];
    for (is, why) in cases {
        let said = with(|blob| {
            blob.rules[0].object = Some(rules::Object {
                is: Some(is.clone()),
            })
        });
        assert!(said[0].contains(why), "{is:?}: {said:?}");
    }
}

#[test]
fn a_policy_that_is_there_twice_is_refused() {
    let texts = [
        shop("a", "process: {matchPaths: [{path: /x}]}"),
        shop("a", "process: {matchPaths: [{path: /y}]}"),
    ];
    let policies: Vec<_> = texts
        .iter()
        .flat_map(|text| load([("f", text.as_str())]).0)
        .collect();
    let set = compile(&policies, &rules::Postures::default());
    assert_eq!(take(&set).unwrap_err(), ["policy shop/a is there twice"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_bytes_panic_and_none_get_in(bytes in prop::collection::vec(any::<u8>(), 1..200)) {
        prop_assert!(take(&signed(vec![bytes])).is_err());
    }

    /// Every bit of a policy matters: with one of them turned it is another policy, or none, but never this one.
    #[test]
    fn no_flipped_bit_keeps_its_name(at in any::<prop::sample::Index>(), bit in 0..8u32) {
        let set = good();
        let mut blobs = set.blobs.clone();
        let blob = blobs.values_mut().next().unwrap();
        let mut bytes = blob.to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        *blob = bytes.clone().into();
        let taken = take(&RuleSet { blobs, ..set });
        prop_assert!(taken.is_err());
        let _ = take(&signed(vec![bytes]));
    }
}
