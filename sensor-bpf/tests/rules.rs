//! Rule sets on a node: applied whole or refused whole, shared, kept over a restart, and honest about what is not enforced.
#![allow(clippy::unwrap_used, clippy::panic)] // reason: a test that fails says so

mod support;

use std::time::Duration;

use bytes::Bytes;
use policy::{Enforced, Operation, RuleSet, Trial, change_between};
use proto::Kind;
use proto::feeder::{Alert, Log};
use proto::link::{RuleStatus, Rules};
use sensor_bpf::Config;
use sensor_bpf::observe::{Action, Outcome};
use serde_json::json;
use support::kernel::{FakeKernel, decided, exec, killed, open};
use support::relay::{FakeRelay, Memory};
use support::{Client, Running, eventually, settings};

const SEED: &str = "
apiVersion: security.kubearmor.com/v1
kind: KubeArmorPolicy
metadata: {name: ksp-group-1-proc-path-block, namespace: multiubuntu}
spec:
  severity: 5
  message: no sleeping
  tags: [SLEEP]
  selector: {matchLabels: {group: group-1}}
  process: {matchPaths: [{path: /bin/sleep}]}
  action: Block
";

const FILES: &str = "
apiVersion: security.kubearmor.com/v1
kind: KubeArmorPolicy
metadata: {name: files, namespace: multiubuntu}
spec:
  selector: {matchLabels: {group: group-1}}
  file: {matchPaths: [{path: /etc/shadow}]}
  action: Block
";

const ALLOW: &str = "
apiVersion: security.kubearmor.com/v1
kind: KubeArmorPolicy
metadata: {name: allow, namespace: multiubuntu}
spec:
  selector: {matchLabels: {group: group-1}}
  process: {matchDirectories: [{dir: /usr/bin/, recursive: true}]}
  action: Allow
";

fn set(texts: &[&str]) -> RuleSet {
    let mut policies = Vec::new();
    for text in texts {
        let (found, problems) = policy::parse("test.yaml", text);
        assert!(problems.is_empty(), "{problems:?}");
        policies.extend(found);
    }
    policy::compile(&policies, &proto::rules::Postures::default())
}

/// What the relay sends for these documents.
fn rules(texts: &[&str]) -> Rules {
    whole(set(texts))
}

fn whole(set: RuleSet) -> Rules {
    Rules {
        manifest: Some(set.manifest),
        blobs: set.blobs.into_values().collect(),
        commit: true,
        change: None,
    }
}

struct Setup {
    _dir: tempfile::TempDir,
    memory: Memory,
    relay: FakeRelay,
    config: Config,
    running: Running,
}

impl Setup {
    async fn new(sets: Vec<Rules>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let memory = Memory::default();
        let count = sets.len();
        memory.ledger().rules = Some(sets);
        let relay = FakeRelay::start(&memory);
        let config = settings(dir.path(), &[relay.url()]);
        let running = Running::start(config.clone(), FakeKernel::default());
        let setup = Self {
            _dir: dir,
            memory,
            relay,
            config,
            running,
        };
        setup.status(count).await;
        setup
    }

    /// The n-th answer about rules.
    async fn status(&self, n: usize) -> RuleStatus {
        eventually("an answer about rules", || {
            self.memory.ledger().statuses.get(n - 1).cloned()
        })
        .await
    }

    async fn client(&self, group: &str) -> (Client, u32, Vec<String>) {
        let mut client = Client::connect(&self.running.socket).await;
        let ready = client
            .register("multiubuntu", "pod", &[("group", group)])
            .await;
        let policies = ready["policies"].as_array().unwrap().iter();
        let policies = policies
            .map(|name| name.as_str().unwrap().to_owned())
            .collect();
        (
            client,
            u32::try_from(ready["workload"].as_u64().unwrap()).unwrap(),
            policies,
        )
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_seed_policy_is_in_force_and_its_alert_carries_its_name() {
    let setup = Setup::new(vec![rules(&[SEED])]).await;
    assert!(setup.status(1).await.applied);
    let (_client, index, policies) = setup.client("group-1").await;
    assert_eq!(policies, ["multiubuntu/ksp-group-1-proc-path-block"]);
    let kernel = &setup.running.kernel;
    kernel.report(killed(kernel, exec(index, 9, "/usr/bin/sleep 5")));
    let alert: Alert =
        eventually("the alert", || setup.memory.ledger().of(Kind::Alert).pop()).await;
    assert_eq!(alert.policy_name, "ksp-group-1-proc-path-block");
    assert_eq!(
        (
            alert.severity.as_str(),
            alert.message.as_str(),
            alert.tags.as_str()
        ),
        ("5", "no sleeping", "SLEEP")
    );
    assert_eq!(
        (alert.action.as_str(), alert.result.as_str()),
        ("Block", "Killed")
    );
    assert_eq!(
        (alert.resource.as_str(), alert.labels.as_str()),
        ("/usr/bin/sleep 5", "group=group-1")
    );
    assert_ne!(alert.rule_id, 0);
    assert_eq!(
        alert.policy_digest,
        rules(&[SEED]).manifest.unwrap().digest.to_vec()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn workloads_with_the_same_policies_share_a_set() {
    let setup = Setup::new(vec![rules(&[SEED])]).await;
    let (_a, a, _) = setup.client("group-1").await;
    let (_b, b, _) = setup.client("group-1").await;
    let (_c, c, none) = setup.client("group-2").await;
    let kernel = &setup.running.kernel;
    assert_eq!(kernel.set_of(a), kernel.set_of(b));
    assert_ne!(kernel.set_of(a), kernel.set_of(c));
    assert!(none.is_empty());
    assert_eq!(kernel.state().sets.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn new_rules_reach_running_workloads_and_the_old_set_goes() {
    let setup = Setup::new(vec![rules(&[SEED])]).await;
    let (_client, index, _) = setup.client("group-1").await;
    let before = setup.running.kernel.set_of(index);
    let mut next = rules(&[SEED, FILES]);
    let held = rules(&[SEED]).blobs;
    next.blobs.retain(|blob| !held.contains(blob));
    assert_eq!(next.blobs.len(), 1, "only what the sensor lacks");
    let relay = next_relay(&setup, vec![next]);
    eventually("the workload has another set", || {
        (setup.running.kernel.set_of(index) != before).then_some(())
    })
    .await;
    eventually("the old set goes", || {
        (!setup.running.kernel.state().sets.contains_key(&before)).then_some(())
    })
    .await;
    drop(relay);
}

/// The relay comes back with other rules.
fn next_relay(setup: &Setup, rules: Vec<Rules>) -> FakeRelay {
    setup.memory.ledger().rules = Some(rules);
    setup.memory.ledger().statuses.clear();
    let address = setup.relay.kill();
    FakeRelay::start_at(&setup.memory, address)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_that_the_kernel_refuses_is_refused_whole() {
    let setup = Setup::new(vec![rules(&[SEED])]).await;
    let (_client, index, _) = setup.client("group-1").await;
    let before = setup.running.kernel.set_of(index);
    setup.running.kernel.state().refuse = Some("no room".to_owned());
    let _relay = next_relay(&setup, vec![rules(&[SEED, FILES])]);
    let status = eventually("a refusal", || {
        setup
            .memory
            .ledger()
            .statuses
            .iter()
            .find(|status| !status.applied)
            .cloned()
    })
    .await;
    assert!(status.problems[0].refused);
    assert_eq!(
        status.problems[0].message,
        "workload multiubuntu/pod: rules for this workload: no room"
    );
    assert_eq!(setup.running.kernel.set_of(index), before);
    let (_other, _, policies) = setup.client("group-1").await;
    assert_eq!(policies, ["multiubuntu/ksp-group-1-proc-path-block"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_with_a_missing_or_damaged_part_is_refused_whole() {
    let mut missing = rules(&[SEED, FILES]);
    missing.blobs.pop();
    let mut damaged = rules(&[SEED]);
    damaged.blobs = vec![Bytes::from_static(b"\x0a\x01x")];
    let mut renamed = rules(&[SEED]);
    renamed.manifest.as_mut().unwrap().digest = vec![1; 32];
    for bad in [
        missing,
        damaged,
        renamed,
        Rules {
            commit: true,
            ..Rules::default()
        },
    ] {
        let setup = Setup::new(vec![bad]).await;
        let status = setup.status(1).await;
        assert!(!status.applied && status.problems[0].refused, "{status:?}");
        let status = Client::connect(&setup.running.socket)
            .await
            .ask(json!({"status": {}}))
            .await;
        assert_eq!(status["status"]["rules"], "");
        setup.running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_comes_in_parts_and_counts_from_its_last() {
    let whole = rules(&[SEED, FILES]);
    let mut parts: Vec<Rules> = Vec::new();
    for blob in &whole.blobs {
        parts.push(Rules {
            manifest: whole.manifest.clone(),
            blobs: vec![blob.clone()],
            ..Rules::default()
        });
    }
    // A part of an older set that was never finished.
    let stale = Rules {
        commit: false,
        ..rules(&[SEED])
    };
    parts.insert(0, stale);
    parts.last_mut().unwrap().commit = true;
    let setup = {
        let dir = tempfile::tempdir().unwrap();
        let memory = Memory::default();
        memory.ledger().rules = Some(parts);
        let relay = FakeRelay::start(&memory);
        let config = settings(dir.path(), &[relay.url()]);
        let running = Running::start(config.clone(), FakeKernel::default());
        Setup {
            _dir: dir,
            memory,
            relay,
            config,
            running,
        }
    };
    let status = setup.status(1).await;
    assert!(status.applied, "{status:?}");
    let (_client, _, policies) = setup.client("group-1").await;
    assert_eq!(
        policies,
        [
            "multiubuntu/files",
            "multiubuntu/ksp-group-1-proc-path-block"
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_comes_as_a_change_of_the_set_in_force_and_of_no_other() {
    let (old, new) = (set(&[SEED]), set(&[SEED, FILES]));
    let change = |from: &RuleSet, to: &RuleSet| Rules {
        change: change_between(&from.manifest, &to.manifest),
        blobs: to.blobs.values().cloned().collect(),
        commit: true,
        manifest: None,
    };
    let wrong = change(&set(&[FILES]), &set(&[ALLOW]));
    let sets = vec![rules(&[SEED]), change(&old, &new), wrong];
    let setup = Setup::new(sets).await;
    assert!(setup.memory.ledger().hellos[0].changes);
    let refused = eventually("the wrong change is refused", || {
        let statuses = setup.memory.ledger().statuses.clone();
        statuses.into_iter().find(|status| !status.applied)
    })
    .await;
    assert!(
        refused.problems[0].message.contains("not in force here"),
        "{refused:?}"
    );
    let statuses = setup.memory.ledger().statuses.clone();
    let applied = statuses.iter().rfind(|status| status.applied);
    assert_eq!(applied.unwrap().digest, new.manifest.digest);
    let (_client, _, policies) = setup.client("group-1").await;
    assert_eq!(
        policies,
        [
            "multiubuntu/files",
            "multiubuntu/ksp-group-1-proc-path-block"
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_ends_at_its_time_without_a_relay() {
    for seconds in [5, 15, 45] {
        if policy_ends_in(seconds).await {
            return;
        }
    }
    panic!("its time came before the sensor had it");
}

/// False: the machine was too slow to see it in force.
async fn policy_ends_in(seconds: u64) -> bool {
    let end = std::time::SystemTime::now() + Duration::from_secs(seconds);
    let since = end.duration_since(std::time::UNIX_EPOCH).unwrap();
    let at = proto::updated_time(u64::try_from(since.as_nanos()).unwrap());
    let passing = SEED.replace("spec:", &format!("spec:\n  expires: {at}"));
    let setup = Setup::new(vec![rules(&[&passing, FILES])]).await;
    let (client, index, policies) = setup.client("group-1").await;
    let sleep = Operation::exec("/usr/bin/sleep");
    let kernel = &setup.running.kernel;
    let before = kernel.decides(index, &sleep);
    if std::time::SystemTime::now() >= end {
        return false;
    }
    assert_eq!(policies.len(), 2, "registered before its time");
    assert!(before.enforced.denies());
    setup.relay.kill();
    eventually("it is out of force", || {
        let verdict = kernel.decides(index, &sleep);
        (verdict.enforced == Enforced::Nothing).then_some(())
    })
    .await;
    let shadow = Operation::write("/etc/shadow");
    assert!(
        kernel.decides(index, &shadow).enforced.denies(),
        "the other stays"
    );
    let (_other, _, policies) = setup.client("group-1").await;
    assert_eq!(policies, ["multiubuntu/files"]);
    drop(client);
    true
}

/// The alert of a Block that the kernel was told to tell of only.
async fn told_as(setup: &Setup, index: u32, slot: u32) -> Alert {
    let kernel = &setup.running.kernel;
    let sleeps = exec(index, 9, "/usr/bin/sleep 5");
    kernel.report(decided(
        kernel,
        sleeps,
        slot,
        Action::Audit,
        Outcome::Passed,
    ));
    eventually("the alert", || setup.memory.ledger().of(Kind::Alert).pop()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_in_mode_audit_stops_nothing_and_tells_what_it_would_have_stopped() {
    let tried = SEED.replace("spec:", "spec:\n  mode: audit");
    let setup = Setup::new(vec![rules(&[&tried])]).await;
    let (_client, index, policies) = setup.client("group-1").await;
    assert_eq!(policies, ["multiubuntu/ksp-group-1-proc-path-block"]);
    let verdict = (setup.running.kernel).decides(index, &Operation::exec("/usr/bin/sleep"));
    assert_eq!(
        (verdict.enforced, verdict.audit),
        (Enforced::Nothing, Some(0))
    );
    let alert = told_as(&setup, index, 0).await;
    assert_eq!(
        (&*alert.action, &*alert.result, &*alert.enforcer),
        ("Audit (Block)", "Passed", "eBPF Monitor")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_allow_list_in_mode_audit_tells_what_it_would_have_stopped_and_keeps_silent_of_the_rest()
{
    let tried = SEED.replace(
        "spec:",
        "spec:\n  mode: audit\n  defaultPosture: {file: block}",
    );
    let tried = tried.replace("Block", "Allow");
    let setup = Setup::new(vec![rules(&[&tried])]).await;
    let status = setup.status(1).await;
    assert_eq!((status.applied, &status.problems[..]), (true, &[][..]));
    let (_client, index, _) = setup.client("group-1").await;
    let decides = |path: &str| (setup.running.kernel).decides(index, &Operation::exec(path));
    let (named, other) = (decides("/usr/bin/sleep"), decides("/usr/bin/id"));
    assert_eq!((named.enforced, named.audit), (Enforced::Nothing, None));
    assert_eq!(other.enforced, Enforced::Nothing);
    let alert = told_as(&setup, index, other.audit.unwrap()).await;
    assert_eq!(
        (&*alert.policy_name, &*alert.action, &*alert.result),
        ("DefaultPosture", "Audit (Block)", "Passed")
    );
    assert_eq!((&*alert.severity, &*alert.message), ("", ""));
    assert_ne!(
        alert.rule_id, 0,
        "a rollout counts it by the rule that is new"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_on_trial_stands_beside_what_is_in_force() {
    let changed = SEED.replace("{path: /bin/sleep}", "{path: /bin/sleep}, {path: /bin/id}");
    let (old, new) = (set(&[SEED, FILES]), set(&[&changed, FILES]));
    let trial = Trial::of(&new, &old).unwrap();
    assert_eq!(trial.policies, ["multiubuntu/ksp-group-1-proc-path-block"]);
    let setup = Setup::new(vec![whole(old), whole(trial.set.clone())]).await;
    let status = setup.status(2).await;
    assert!(status.applied, "{status:?}");
    let (_client, index, policies) = setup.client("group-1").await;
    assert_eq!(policies.len(), 2, "each name once: {policies:?}");
    let kernel = &setup.running.kernel;
    let sleep = kernel.decides(index, &Operation::exec("/usr/bin/sleep"));
    assert!(sleep.enforced.denies(), "what was stopped is stopped");
    let id = kernel.decides(index, &Operation::exec("/usr/bin/id"));
    assert_eq!(id.enforced, Enforced::Nothing);
    let alert = told_as(&setup, index, id.audit.unwrap()).await;
    assert_eq!(alert.action, "Audit (Block)");
    assert!(trial.rules.contains(&proto::RuleId(alert.rule_id)));
    assert_eq!(
        trial.rules.len(),
        1,
        "the rule that both have is no difference"
    );
    assert_eq!(alert.policy_digest, trial.set.manifest.digest);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_whose_exception_is_not_judged_here_is_told_and_said_to_be() {
    // The exception asks for the owner of the file, which this kernel half does not look at.
    let except = ALLOW.replace(
        "dir: /usr/bin/, recursive: true",
        "dir: /usr/bin/, ownerOnly: true",
    );
    let wide = SEED.replace(
        "matchPaths: [{path: /bin/sleep}]",
        "matchDirectories: [{dir: /usr/, recursive: true}]",
    );
    let setup = Setup::new(vec![rules(&[&wide, &except])]).await;
    let (_client, index, _) = setup.client("group-1").await;
    let verdict = (setup.running.kernel).decides(index, &Operation::exec("/usr/bin/sleep"));
    assert!(!verdict.enforced.denies(), "never more than was written");
    let alert = told_as(&setup, index, verdict.audit.unwrap()).await;
    assert_eq!(
        (&*alert.action, &*alert.policy_name),
        ("Audit (Block)", "ksp-group-1-proc-path-block")
    );
    let told = |words: &str| {
        let ledger = setup.memory.ledger();
        let mut problems = ledger.statuses.iter().flat_map(|status| &status.problems);
        problems
            .any(|problem| problem.message.contains(words))
            .then_some(())
    };
    eventually("both are reported", || {
        told("ownerOnly is not judged by this version's sensor")?;
        told("told instead of blocked: the Allow on `/usr/bin/`")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_this_node_cannot_enforce_is_reported_for_its_policy() {
    let setup = Setup::new(vec![rules(&[SEED, FILES])]).await;
    let status = setup.status(1).await;
    assert!(status.applied);
    let problems: Vec<_> = status
        .problems
        .iter()
        .map(|p| (p.policy.as_str(), p.refused))
        .collect();
    assert_eq!(problems, [("multiubuntu/files", false)]);
    assert!(
        status.problems[0].message.contains("Audit (Block)"),
        "{:?}",
        status.problems
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_allow_rule_names_is_not_told() {
    let setup = Setup::new(vec![rules(&[ALLOW])]).await;
    let (_client, index, _) = setup.client("group-1").await;
    let kernel = &setup.running.kernel;
    for line in ["/usr/bin/cat /a", "/opt/tool", "/usr/bin/tac"] {
        kernel.report(exec(index, 1, line));
    }
    kernel.report(open(index, 1, "/usr/bin/x"));
    let told = || -> Vec<String> {
        let logs: Vec<Log> = setup.memory.ledger().of(Kind::Log);
        logs.into_iter().map(|log| log.resource).collect()
    };
    eventually("the file is told", || {
        told().contains(&"/usr/bin/x".to_owned()).then_some(())
    })
    .await;
    assert_eq!(
        told(),
        ["/opt/tool", "/usr/bin/x"],
        "files have no allow-list"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workload_that_is_quicker_than_the_first_rules_waits_for_them() {
    let (dir, memory) = (tempfile::tempdir().unwrap(), Memory::default());
    memory.ledger().rules = Some(Vec::new());
    let relay = FakeRelay::start(&memory);
    let running = Running::start(settings(dir.path(), &[relay.url()]), FakeKernel::default());
    let mut client = Client::connect(&running.socket).await;
    let labels = [("group", "group-1")];
    let registering = client.register("multiubuntu", "pod", &labels);
    let sending = async {
        eventually("a greeting", || memory.ledger().hellos.pop()).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(running.kernel.state().workloads.is_empty());
        memory.ledger().rules = Some(vec![rules(&[SEED])]);
        FakeRelay::start_at(&memory, relay.kill())
    };
    let (ready, _relay) = tokio::join!(registering, sending);
    assert_eq!(
        ready["policies"][0],
        "multiubuntu/ksp-group-1-proc-path-block"
    );
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sensor_that_starts_without_a_relay_enforces_what_it_accepted_last() {
    let setup = Setup::new(vec![rules(&[SEED])]).await;
    setup.relay.kill();
    setup.running.stop().await;
    let running = Running::start(setup.config, FakeKernel::default());
    let mut client = Client::connect(&running.socket).await;
    let ready = client
        .register("multiubuntu", "pod", &[("group", "group-1")])
        .await;
    assert_eq!(
        ready["policies"][0],
        "multiubuntu/ksp-group-1-proc-path-block"
    );
    running.stop().await;
}
