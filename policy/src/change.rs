//! One manifest out of another: 5,000 policies are 160 KB of names, and an edit changes two of them.
//!
//! ```text
//! from   a b c d e            gone b
//! to     a c d e f            new  f          and the digest that the outcome must have
//! ```
//! Postures are no part of it: where they differ a manifest goes as it is.

use std::collections::BTreeSet;

use proto::link::ManifestChange;
use proto::rules::Manifest;

use crate::set::manifest_digest;

/// What makes `to` out of `from`; `None` where more than the list of policies differs.
pub fn change_between(from: &Manifest, to: &Manifest) -> Option<ManifestChange> {
    let around = |manifest: &Manifest| {
        let (own, namespaces) = (manifest.postures, &manifest.namespaces);
        (own, namespaces.clone(), manifest.host)
    };
    if around(from) != around(to) {
        return None;
    }
    let names =
        |manifest: &Manifest| -> BTreeSet<Vec<u8>> { manifest.blobs.iter().cloned().collect() };
    let (old, new) = (names(from), names(to));
    let only = |one: &BTreeSet<Vec<u8>>, other: &BTreeSet<Vec<u8>>| {
        let own = one.difference(other);
        own.map(|name| name.clone().into()).collect()
    };
    Some(ManifestChange {
        from: from.digest.clone().into(),
        digest: to.digest.clone().into(),
        gone: only(&old, &new),
        new: only(&new, &old),
    })
}

/// The manifest that a change makes.
///
/// # Errors
/// The change is one of another manifest, or does not give what it says.
pub fn changed(from: &Manifest, change: &ManifestChange) -> Result<Manifest, String> {
    if from.digest[..] != change.from[..] {
        return Err("a change of a rule set that is not in force here".to_owned());
    }
    let mut names: BTreeSet<Vec<u8>> = from.blobs.iter().cloned().collect();
    for gone in &change.gone {
        names.remove(&gone[..]);
    }
    names.extend(change.new.iter().map(|name| name.to_vec()));
    let mut manifest = Manifest {
        digest: Vec::new(),
        blobs: names.into_iter().collect(),
        postures: from.postures,
        namespaces: from.namespaces.clone(),
        host: from.host,
    };
    manifest.digest = manifest_digest(&manifest).0.to_vec();
    if manifest.digest[..] != change.digest[..] {
        return Err(
            "a change of the rule set in force that does not give the set that it names".to_owned(),
        );
    }
    Ok(manifest)
}

#[cfg(test)]
mod tests {
    use proto::rules::{Posture, Postures};

    use super::*;

    fn manifest(names: &[u8], posture: Posture) -> Manifest {
        let postures = Postures {
            file: posture.into(),
            ..Postures::default()
        };
        let mut manifest = Manifest {
            blobs: names.iter().map(|name| vec![*name; 32]).collect(),
            postures: Some(postures),
            ..Manifest::default()
        };
        manifest.digest = manifest_digest(&manifest).0.to_vec();
        manifest
    }

    #[test]
    fn a_change_gives_the_manifest_that_it_was_made_for_and_no_other() {
        let sets: [&[u8]; 5] = [&[], &[1], &[1, 2, 3], &[2, 4], &[5, 6, 7]];
        for from in sets {
            for to in sets {
                let (from, to) = (manifest(from, Posture::Audit), manifest(to, Posture::Audit));
                let change = change_between(&from, &to).unwrap();
                assert_eq!(changed(&from, &change), Ok(to.clone()));
                let other = manifest(&[9], Posture::Audit);
                assert!(changed(&other, &change).is_err(), "of another set");
                let wrong = ManifestChange {
                    digest: other.digest.clone().into(),
                    ..change
                };
                assert!(changed(&from, &wrong).is_err(), "to another set");
            }
        }
    }

    #[test]
    fn an_edit_of_one_policy_of_many_names_two() {
        let all: Vec<u8> = (0..200).collect();
        let (from, to) = (
            manifest(&all[..199], Posture::Audit),
            manifest(&all[1..], Posture::Audit),
        );
        let change = change_between(&from, &to).unwrap();
        assert_eq!((change.gone.len(), change.new.len()), (1, 1));
    }

    #[test]
    fn other_postures_need_the_whole_manifest() {
        let (from, to) = (
            manifest(&[1], Posture::Audit),
            manifest(&[1], Posture::Block),
        );
        assert_eq!(change_between(&from, &to), None);
    }
}
