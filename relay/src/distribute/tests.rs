use futures::{FutureExt, StreamExt};
use proto::rules;

use super::*;

fn set(name: u8, blobs: &[(u8, usize)]) -> Arc<RuleSet> {
    let blobs: BTreeMap<Digest, bytes::Bytes> = blobs
        .iter()
        .map(|(blob, size)| (Digest([*blob; 32]), bytes::Bytes::from(vec![*blob; *size])))
        .collect();
    let manifest = rules::Manifest {
        digest: vec![name; 32],
        blobs: blobs.keys().map(|digest| digest.0.to_vec()).collect(),
        ..Default::default()
    };
    Arc::new(RuleSet { manifest, blobs })
}

fn to_all(name: u8, blobs: &[(u8, usize)]) -> Arc<Offered> {
    Arc::new(Offered::to_all(set(name, blobs)))
}

fn receiver(sensor: &str) -> Receiver {
    Receiver {
        sensor: sensor.to_owned(),
        takes_changes: true,
        ..Receiver::default()
    }
}

fn answer(name: u8, applied: bool) -> link::RuleStatus {
    link::RuleStatus {
        digest: vec![name; 32].into(),
        applied,
        problems: Vec::new(),
    }
}

fn blobs(part: &link::Rules) -> Vec<u8> {
    part.blobs.iter().map(|blob| blob[0]).collect()
}

fn names(names: &[bytes::Bytes]) -> Vec<u8> {
    names.iter().map(|name| name[0]).collect()
}

#[tokio::test]
async fn a_sensor_gets_only_the_blobs_it_lacks_and_nothing_while_it_is_current() {
    let (sets, offered) = watch::channel(to_all(1, &[(10, 5), (11, 5)]));
    let distributor = Distributor::new(offered);
    let mut fresh = distributor.messages(receiver("a"));
    let part = fresh.next().await.unwrap();
    assert!(part.commit);
    assert_eq!(blobs(&part), [10, 11]);
    assert_eq!(part.manifest.unwrap().digest[0], 1);

    let mut current = distributor.messages(Receiver {
        in_force: Some(Digest([1; 32])),
        takes_changes: false,
        ..receiver("b")
    });
    assert!(current.next().now_or_never().is_none());
    sets.send_replace(to_all(2, &[(10, 5), (12, 5)]));
    let part = current.next().await.unwrap();
    assert_eq!((blobs(&part), part.change), (vec![12], None));

    let mut behind = distributor.messages(Receiver {
        in_force: Some(Digest([7; 32])),
        blobs: vec![Digest([12; 32])],
        ..receiver("c")
    });
    let part = behind.next().await.unwrap();
    assert_eq!(blobs(&part), [10], "it said that it holds the other");
    assert!(part.manifest.is_some(), "nobody knows what it runs");
}

#[tokio::test]
async fn a_sensor_that_runs_the_set_before_gets_the_change() {
    let (sets, offered) = watch::channel(to_all(1, &[(10, 5), (11, 5), (12, 5)]));
    let distributor = Distributor::new(offered);
    let mut messages = distributor.messages(receiver("a"));
    messages.next().await.unwrap();
    distributor.report("a", &answer(1, true));
    sets.send_replace(to_all(2, &[(10, 5), (12, 5), (13, 5)]));
    let part = messages.next().await.unwrap();
    assert_eq!(
        (blobs(&part), part.commit, part.manifest),
        (vec![13], true, None)
    );
    let change = part.change.unwrap();
    assert_eq!((change.from[0], change.digest[0]), (1, 2));
    assert_eq!(
        (names(&change.gone), names(&change.new)),
        (vec![11], vec![13])
    );

    // Refused: it runs the first one, so the next change is one of that.
    distributor.report("a", &answer(2, false));
    sets.send_replace(to_all(3, &[(10, 5), (11, 5)]));
    let change = messages.next().await.unwrap().change.unwrap();
    assert_eq!((change.from[0], names(&change.gone)), (1, vec![12]));

    // Without an answer it is not known which one it runs.
    sets.send_replace(to_all(4, &[(10, 5)]));
    let part = messages.next().await.unwrap();
    assert!(part.change.is_none() && part.manifest.is_some());
}

#[tokio::test]
async fn a_set_is_split_into_parts_of_which_the_first_names_it_and_the_last_commits() {
    let half = MAX_PART / 2;
    let all = [(1, half), (2, half), (3, 2 * MAX_PART), (4, 1)];
    let (sets, offered) = watch::channel(to_all(1, &[]));
    let distributor = Distributor::new(offered);
    let mut messages = distributor.messages(receiver("a"));
    messages.next().await.unwrap();
    let mut whole = distributor.messages(receiver("b"));
    whole.next().await.unwrap();
    distributor.report("a", &answer(1, true));
    sets.send_replace(to_all(2, &all));
    for (stream, changed) in [(messages, true), (whole, false)] {
        let parts: Vec<link::Rules> = stream.take(3).collect().await;
        assert_eq!(
            parts.iter().map(blobs).collect::<Vec<_>>(),
            [vec![1, 2], vec![3], vec![4]]
        );
        let commits: Vec<bool> = parts.iter().map(|part| part.commit).collect();
        assert_eq!(commits, [false, false, true]);
        let named: Vec<bool> = parts
            .iter()
            .map(|part| match changed {
                true => part.change.is_some() && part.manifest.is_none(),
                false => part.manifest.is_some() && part.change.is_none(),
            })
            .collect();
        assert_eq!(named, [true, false, false]);
    }
}

#[tokio::test]
async fn blobs_count_as_held_only_once_the_sensor_said_it_applied_their_set() {
    let (sets, offered) = watch::channel(to_all(1, &[(10, 5)]));
    let distributor = Distributor::new(offered);
    let mut messages = distributor.messages(receiver("a"));
    messages.next().await.unwrap();
    sets.send_replace(to_all(2, &[(10, 5), (11, 5)]));
    assert_eq!(
        blobs(&messages.next().await.unwrap()),
        [10, 11],
        "nothing was confirmed yet"
    );
    distributor.report("a", &answer(2, true));
    sets.send_replace(to_all(3, &[(10, 5), (11, 5), (12, 5)]));
    assert_eq!(blobs(&messages.next().await.unwrap()), [12]);
    distributor.report("a", &answer(3, false));
    sets.send_replace(to_all(4, &[(11, 5), (12, 5)]));
    assert_eq!(
        blobs(&messages.next().await.unwrap()),
        [12],
        "a refused set was not kept"
    );
    let running = &distributor.running()["a"];
    assert_eq!(
        (running.in_force, running.refused),
        (Some(Digest([2; 32])), Some(Digest([3; 32])))
    );
}

#[tokio::test]
async fn a_newer_set_replaces_the_parts_of_an_older_one() {
    let (sets, offered) = watch::channel(to_all(1, &[(1, MAX_PART), (2, MAX_PART)]));
    let distributor = Distributor::new(offered);
    let mut messages = distributor.messages(receiver("a"));
    let first = messages.next().await.unwrap();
    assert_eq!((blobs(&first), first.commit), (vec![1], false));
    sets.send_replace(to_all(2, &[(3, 5)]));
    let next = messages.next().await.unwrap();
    assert_eq!((blobs(&next), next.commit), (vec![3], true));
    assert_eq!(next.manifest.unwrap().digest[0], 2);
    drop(sets);
    assert!(messages.next().await.is_none());
}

#[tokio::test]
async fn canaries_run_the_trial_and_go_over_to_what_everybody_runs() {
    let stable = set(1, &[(10, 5)]);
    let canary = BTreeMap::from([("stage".to_owned(), "canary".to_owned())]);
    let trial = Offered {
        everybody: stable.clone(),
        trial: Some(OnTrial {
            canary: canary.clone(),
            set: set(2, &[(10, 5), (11, 5)]),
        }),
    };
    let (sets, offered) = watch::channel(Arc::new(Offered::to_all(stable)));
    let distributor = Distributor::new(offered);
    let labels = |stage: &str| {
        HashMap::from([
            ("stage".to_owned(), stage.to_owned()),
            ("zone".to_owned(), "a".to_owned()),
        ])
    };
    let mut one = distributor.messages(Receiver {
        labels: labels("canary"),
        ..receiver("one")
    });
    let mut two = distributor.messages(Receiver {
        labels: labels("prod"),
        ..receiver("two")
    });
    for (sensor, messages) in [("one", &mut one), ("two", &mut two)] {
        messages.next().await.unwrap();
        distributor.report(sensor, &answer(1, true));
    }
    sets.send_replace(Arc::new(trial));
    assert_eq!(blobs(&one.next().await.unwrap()), [11]);
    assert!(two.next().now_or_never().is_none());
    let mut canaries = Canaries {
        connected: 1,
        ..Canaries::default()
    };
    assert_eq!(distributor.canaries(&canary, Digest([2; 32])), canaries);
    distributor.report("one", &answer(2, true));
    canaries.running = 1;
    assert_eq!(distributor.canaries(&canary, Digest([2; 32])), canaries);

    sets.send_replace(to_all(3, &[(10, 5), (12, 5)]));
    assert_eq!(blobs(&one.next().await.unwrap()), [12]);
    assert_eq!(blobs(&two.next().await.unwrap()), [12]);
    drop(one);
    assert_eq!(
        distributor.canaries(&canary, Digest([2; 32])),
        Canaries::default()
    );
}

#[tokio::test]
async fn the_end_of_an_old_connection_takes_nothing_from_the_new_one() {
    let (_sets, offered) = watch::channel(to_all(1, &[]));
    let distributor = Distributor::new(offered);
    let old = distributor.messages(receiver("a"));
    let new = distributor.messages(receiver("a"));
    drop(old);
    assert_eq!(distributor.running().len(), 1);
    drop(new);
    assert_eq!(distributor.running().len(), 0);
}
