//! Policies that are handed to a running relay: over its admin socket, and by KubeArmor's own service.
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod support;

use std::path::Path;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use prost::Message as _;
use proto::link::from_sensor::Is as Say;
use proto::policies::policies_client::PoliciesClient;
use proto::policies::{
    ApplyRequest, Change, DeleteRequest, DisableRequest, Document, File, Key, ListRequest, What,
};
use proto::policy_v1::PolicyStatus;
use proto::policy_v1::policy_service_client::PolicyServiceClient;
use proto::policy_v1::probe_service_client::ProbeServiceClient;
use proto::query::query_client::QueryClient;
use proto::query::{PoliciesStatus, RolloutStatus, StatusRequest, WatchRequest, watch_reply};
use proto::rules::{Mode, PolicyBlob};
use proto::{Kind, batch, feeder, link};
use serde_json::{Value, json};
use support::{Relay, SOON, Sensor, channel, hello, settings};
use tokio::net::UnixStream;
use tokio::time::timeout;
use tonic::Code;
use tonic::transport::{Channel, Endpoint, Uri};

fn policy(name: &str, path: &str) -> String {
    format!(
        "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorPolicy\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec: {{selector: {{matchLabels: {{app: cart}}}}, process: {{matchPaths: [{{path: {path}}}]}}, action: Block}}\n"
    )
}

async fn admin(socket: &Path) -> PoliciesClient<Channel> {
    let socket = socket.to_owned();
    let connect = tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    let endpoint = Endpoint::from_static("http://admin");
    let channel = endpoint.connect_with_connector(connect).await;
    PoliciesClient::new(channel.expect("the admin socket"))
}

fn files(texts: &[&str], dry_run: bool) -> ApplyRequest {
    let file = |text: &&str| File {
        name: "a.yaml".into(),
        text: (*text).into(),
    };
    ApplyRequest {
        files: texts.iter().map(file).collect(),
        dry_run,
    }
}

async fn listed(client: &mut PoliciesClient<Channel>) -> Vec<Document> {
    let reply = client.list(ListRequest::default()).await.expect("a list");
    let mut stream = reply.into_inner();
    let mut documents = Vec::new();
    while let Some(document) = stream.message().await.expect("a document") {
        documents.push(document);
    }
    documents
}

fn words(changes: &[Change]) -> Vec<(String, What)> {
    let word = |change: &Change| {
        let key = change.key.clone().unwrap_or_default();
        (format!("{}/{}", key.namespace, key.name), change.what())
    };
    changes.iter().map(word).collect()
}

#[tokio::test]
async fn policies_are_applied_whole_kept_over_a_restart_and_deleted() {
    let folder = tempfile::tempdir().expect("a folder");
    let relay = Relay::start(folder.path()).await;
    let mut client = admin(&relay.at.admin).await;
    let (one, two) = (policy("one", "/bin/a"), policy("two", "/bin/b"));

    let dry = client
        .apply(files(&[&one], true))
        .await
        .expect("an answer")
        .into_inner();
    assert_eq!(words(&dry.changes), [("shop/one".into(), What::Created)]);
    assert!(
        listed(&mut client).await.is_empty(),
        "a dry run changes nothing"
    );

    let broken = policy("bad", "bin/a");
    let refused = client
        .apply(files(&[&one, &broken], false))
        .await
        .expect("an answer")
        .into_inner();
    assert!(
        refused
            .problems
            .iter()
            .any(|problem| !problem.warning && problem.line > 0),
        "{refused:?}"
    );
    assert!(
        listed(&mut client).await.is_empty(),
        "half of it is none of it"
    );

    let done = client
        .apply(files(&[&one, &two], false))
        .await
        .expect("an answer")
        .into_inner();
    assert_eq!(done.changes.len(), 2);
    assert_eq!(done.digest.len(), 32);
    let again = client
        .apply(files(&[&one, &policy("two", "/bin/c")], false))
        .await;
    let again = again.expect("an answer").into_inner();
    assert_eq!(
        words(&again.changes),
        [
            ("shop/one".into(), What::Unchanged),
            ("shop/two".into(), What::Changed)
        ]
    );
    relay.stop().await;

    let relay = Relay::start(folder.path()).await;
    let mut client = admin(&relay.at.admin).await;
    let documents = listed(&mut client).await;
    assert_eq!(documents.len(), 2, "{documents:?}");
    let object: Value = serde_json::from_slice(&documents[1].json).expect("JSON");
    assert_eq!(object["spec"]["process"]["matchPaths"][0]["path"], "/bin/c");

    let key = |name: &str| Key {
        kind: String::new(),
        namespace: "shop".into(),
        name: name.into(),
    };
    let request = DeleteRequest {
        keys: vec![key("one"), key("three")],
        dry_run: false,
    };
    let gone = client
        .delete(request)
        .await
        .expect("an answer")
        .into_inner();
    assert_eq!(
        words(&gone.changes),
        [
            ("shop/one".into(), What::Deleted),
            ("shop/three".into(), What::NotThere)
        ]
    );
    assert_eq!(listed(&mut client).await.len(), 1);
    relay.stop().await;
}

#[tokio::test]
async fn what_a_folder_has_cannot_be_applied_over_and_readers_change_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let policies = folder.path().join("policies");
    std::fs::create_dir(&policies).expect("a folder");
    std::fs::write(policies.join("one.yaml"), policy("one", "/bin/a")).expect("written");
    let mut config = settings(folder.path(), "");
    config.policies.sources = vec![relay::PolicySource {
        kind: relay::PolicySourceKind::Folder,
        path: policies,
        branch: None,
    }];
    let relay = Relay::with(config).await;
    let mut client = admin(&relay.at.admin).await;
    let text = policy("one", "/bin/b");
    let refused = client
        .apply(files(&[&text], false))
        .await
        .expect("an answer")
        .into_inner();
    assert!(
        refused.problems[0].message.contains("one.yaml"),
        "{refused:?}"
    );

    let mut reader = PoliciesClient::new(channel(relay.at.feed).await);
    assert_eq!(listed(&mut reader).await.len(), 1);
    let denied = reader
        .apply(files(&[&text], true))
        .await
        .expect_err("refused");
    assert_eq!(denied.code(), Code::PermissionDenied);
    relay.stop().await;
}

#[tokio::test]
async fn a_pause_takes_everything_out_of_force_and_brings_it_back_at_its_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let relay = Relay::start(folder.path()).await;
    let mut client = admin(&relay.at.admin).await;
    let text = policy("one", "/bin/a");
    client
        .apply(files(&[&text], false))
        .await
        .expect("an answer");
    let request = |seconds| DisableRequest {
        seconds,
        reason: "a test".into(),
    };
    client.disable(request(600)).await.expect("an answer");
    assert!(listed(&mut client).await.is_empty());
    client.disable(request(1)).await.expect("an answer");
    let waited = tokio::time::timeout(support::SOON, async {
        while listed(&mut client).await.is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    });
    waited.await.expect("back in force by itself");
    let long = client.disable(request(1 << 40)).await.expect_err("refused");
    assert_eq!(long.code(), Code::InvalidArgument);
    relay.stop().await;
}

// === KubeArmor's services ===

fn event(kind: &str, name: &str, spec: Value) -> proto::policy_v1::Policy {
    let event = json!({"type": kind, "object": {"metadata": {"name": name, "namespace": "anywhere"}, "spec": spec}});
    proto::policy_v1::Policy {
        policy: event.to_string().into_bytes(),
    }
}

fn spec(path: &str) -> Value {
    json!({"selector": {"matchLabels": {"app": "cart"}}, "process": {"matchPaths": [{"path": path}]}, "action": "Block"})
}

#[tokio::test]
async fn karmors_policies_are_taken_with_kubearmors_words() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut config = settings(folder.path(), "");
    config.policies.policy_service = true;
    let relay = Relay::with(config).await;
    let mut client = PolicyServiceClient::new(channel(relay.at.feed).await);
    let cases = [
        ("ADDED", "p", spec("/bin/a"), PolicyStatus::Applied),
        ("ADDED", "p", spec("/bin/a"), PolicyStatus::Applied),
        ("MODIFIED", "p", spec("/bin/b"), PolicyStatus::Modified),
        ("DELETED", "q", json!({}), PolicyStatus::NotExist),
        ("ADDED", "", spec("/bin/a"), PolicyStatus::Invalid),
        (
            "ADDED",
            "q",
            json!({"process": {"matchPaths": [{"path": "/bin/a"}]}}),
            PolicyStatus::Invalid,
        ),
        ("ADDED", "q", spec("bin/a"), PolicyStatus::Invalid),
        ("TWISTED", "q", spec("/bin/a"), PolicyStatus::Invalid),
    ];
    for (kind, name, spec, wanted) in cases {
        let reply = client.container_policy(event(kind, name, spec)).await;
        let status = reply.expect("always OK").into_inner().status();
        assert_eq!(status, wanted, "{kind} {name}");
    }
    let both =
        json!({"selector": {"matchLabels": {"kubearmor.io/container.name": "web", "app": "x"}}});
    let reply = client.container_policy(event("ADDED", "q", both)).await;
    assert_eq!(
        reply.expect("always OK").into_inner().status(),
        PolicyStatus::Invalid
    );
    let bad = proto::policy_v1::Policy {
        policy: b"{".to_vec(),
    };
    let reply = client.host_policy(bad).await;
    assert_eq!(
        reply.expect("always OK").into_inner().status(),
        PolicyStatus::Invalid
    );

    let mut reader = PoliciesClient::new(channel(relay.at.feed).await);
    let documents = listed(&mut reader).await;
    assert_eq!(
        documents[0].namespace, "container_namespace",
        "{documents:?}"
    );
    let mut probe = ProbeServiceClient::new(channel(relay.at.feed).await);
    let data = probe
        .get_probe_data(())
        .await
        .expect("an answer")
        .into_inner();
    assert!(data.container_list.is_empty(), "{data:?}");
    let reply = client
        .container_policy(event("DELETED", "p", json!({})))
        .await;
    assert_eq!(
        reply.expect("always OK").into_inner().status(),
        PolicyStatus::Deleted
    );
    relay.stop().await;
}

#[tokio::test]
async fn kubearmors_policy_service_is_not_there_unless_asked_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let relay = Relay::start(folder.path()).await;
    let mut client = PolicyServiceClient::new(channel(relay.at.feed).await);
    let denied = client
        .container_policy(event("ADDED", "p", spec("/bin/a")))
        .await;
    assert_eq!(denied.expect_err("not there").code(), Code::Unimplemented);
    relay.stop().await;
}

// === a new set goes to canaries first ===

/// A relay that tries new sets on `stage: canary`.
fn trying(folder: &Path, hold: &str) -> relay::Config {
    let mut config = settings(folder, "");
    config.policies.rollout = Some(relay::Rollout {
        canary: [("stage".to_owned(), "canary".to_owned())].into(),
        hold: hold.parse().expect("a time"),
        stop_on: relay::StopOn { blocked_rate: 0.0 },
    });
    config
}

/// A sensor of this stage that has said that it runs what it was sent first.
async fn node(relay: &Relay, stage: &str) -> Sensor {
    let mut sensor = relay.connect().await;
    let labels = [("stage".to_owned(), stage.to_owned())].into();
    sensor
        .say(Say::Hello(link::Hello {
            labels,
            ..hello(stage)
        }))
        .await;
    sensor.hear().await.expect("a Welcome");
    let rules = rules(&mut sensor).await;
    applied(&sensor, &rules).await;
    sensor
}

/// The next rules that come.
async fn rules(sensor: &mut Sensor) -> link::Rules {
    let deadline = tokio::time::Instant::now() + SOON;
    while sensor.skipped.is_empty() {
        assert!(tokio::time::Instant::now() < deadline, "no rules came");
        // Acknowledgements may come between.
        let _ = timeout(Duration::from_millis(50), sensor.hear()).await;
    }
    sensor.skipped.remove(0)
}

fn manifest(rules: &link::Rules) -> proto::rules::Manifest {
    rules.manifest.clone().expect("a manifest")
}

async fn applied(sensor: &Sensor, rules: &link::Rules) {
    sensor
        .say(Say::RuleStatus(link::RuleStatus {
            digest: manifest(rules).digest.into(),
            applied: true,
            problems: Vec::new(),
        }))
        .await;
}

/// Tells that a rule of these rules would have stopped something.
async fn would_block(sensor: &Sensor, rules: &link::Rules, sequence: u64) {
    let blobs = rules.blobs.iter();
    let blobs = blobs.map(|blob| PolicyBlob::decode(blob.clone()).expect("a policy"));
    let tried = blobs.into_iter().find(|blob| blob.mode() == Mode::Audit);
    let tried = tried.expect("a policy in mode audit");
    let alert = feeder::Alert {
        namespace_name: tried.namespace,
        policy_name: tried.name,
        action: "Audit (Block)".to_owned(),
        resource: "/bin/x".to_owned(),
        rule_id: tried.rules[0].id,
        policy_digest: manifest(rules).digest,
        ..Default::default()
    };
    let event = batch::join(Kind::Alert, &alert.encode_to_vec());
    sensor.events(sequence, vec![event]).await;
}

async fn policies_status(relay: &Relay) -> PoliciesStatus {
    let mut client = QueryClient::new(channel(relay.at.feed).await);
    let status = client.status(StatusRequest {}).await.expect("a status");
    status.into_inner().policies.expect("policies")
}

async fn becomes(relay: &Relay, state: &str) -> RolloutStatus {
    let deadline = tokio::time::Instant::now() + SOON;
    loop {
        let rollout = policies_status(relay).await.rollout;
        let now = rollout.as_ref().map_or("none", |rollout| &rollout.state);
        if now == state {
            return rollout.unwrap_or_default();
        }
        assert!(tokio::time::Instant::now() < deadline, "{rollout:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The acts of the audit trail so far, but for the policies' own changes.
async fn acts(relay: &Relay) -> Vec<(String, String)> {
    let mut client = QueryClient::new(channel(relay.at.feed).await);
    let filter = proto::query::Filter {
        kinds: vec![link::EventKind::Message.into()],
        ..Default::default()
    };
    let request = WatchRequest {
        filter: Some(filter),
        from_sequence: 1,
        ..Default::default()
    };
    let mut stream = client.watch(request).await.expect("history").into_inner();
    let mut acts = Vec::new();
    while let Some(reply) = stream.message().await.expect("an event") {
        if let Some(watch_reply::Is::Event(event)) = reply.is {
            let message = feeder::Message::decode(event.payload).expect("a message");
            let audit = message.audit.filter(|audit| audit.action != "apply");
            acts.extend(audit.map(|audit| (audit.action, audit.actor)));
        }
    }
    acts
}

async fn apply(relay: &Relay, name: &str) {
    let mut client = admin(&relay.at.admin).await;
    let text = policy(name, &format!("/bin/{name}"));
    let reply = client.apply(files(&[&text], false)).await.expect("a reply");
    assert_eq!(reply.into_inner().problems.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_set_is_tried_by_canaries_and_then_goes_to_everybody() {
    let folder = tempfile::tempdir().expect("a folder");
    let relay = Relay::with(trying(folder.path(), "2s")).await;
    let (mut canary, mut other) = (node(&relay, "canary").await, node(&relay, "prod").await);

    apply(&relay, "one").await;
    let trial = rules(&mut canary).await;
    let waiting = becomes(&relay, "waiting").await;
    assert_eq!(waiting.policies, ["shop/one"]);
    assert_eq!(waiting.trial, manifest(&trial).digest);
    let blob = PolicyBlob::decode(trial.blobs[0].clone()).expect("a policy");
    assert_eq!((blob.mode(), blob.name.as_str()), (Mode::Audit, "one"));
    assert!(other.skipped.is_empty(), "the others keep what they have");
    relay
        .metric_is("cresset_policy_rollout{state=\"waiting\"}", 1.0)
        .await;

    applied(&canary, &trial).await;
    let wanted = policies_status(&relay).await.digest;
    for sensor in [&mut canary, &mut other] {
        let new = rules(sensor).await;
        assert_eq!(manifest(&new).digest, wanted);
        let blob = PolicyBlob::decode(new.blobs[0].clone()).expect("a policy");
        assert_eq!(blob.mode(), Mode::Enforce);
    }
    becomes(&relay, "none").await;
    relay
        .metric_is("cresset_policy_rollouts_total{outcome=\"done\"}", 1.0)
        .await;
    let acts = acts(&relay).await;
    let words: Vec<(&str, &str)> = acts.iter().map(|(a, b)| (&**a, &**b)).collect();
    assert_eq!(words, [("try", "the relay"), ("roll out", "the relay")]);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_that_would_stop_too_much_is_stopped_and_stays_so_until_somebody_says_go() {
    let folder = tempfile::tempdir().expect("a folder");
    let relay = Relay::with(trying(folder.path(), "1h")).await;
    let mut canary = node(&relay, "canary").await;
    let stable = policies_status(&relay).await.digest;
    apply(&relay, "one").await;
    let trial = rules(&mut canary).await;
    applied(&canary, &trial).await;
    let since = becomes(&relay, "holding").await.since_unix;

    // The relay starts again in the middle: the trial goes on, and what is told meanwhile counts.
    drop(canary);
    relay.stop().await;
    let relay = Relay::with(trying(folder.path(), "1h")).await;
    let waiting = becomes(&relay, "waiting").await;
    assert_eq!(
        (waiting.since_unix, &waiting.trial),
        (since, &manifest(&trial).digest.into())
    );
    let mut canary = node(&relay, "canary").await;
    becomes(&relay, "holding").await;
    would_block(&canary, &trial, 1).await;
    let stopped = becomes(&relay, "stopped").await;
    assert!(stopped.why.contains("1 operation"), "{}", stopped.why);
    assert!(stopped.why.contains("shop/one"), "{}", stopped.why);
    let back = rules(&mut canary).await;
    assert_eq!(manifest(&back).digest, stable, "the canary goes back");
    applied(&canary, &back).await;

    // Nor does a restart put it in force.
    drop(canary);
    relay.stop().await;
    let relay = Relay::with(trying(folder.path(), "1h")).await;
    assert_eq!(becomes(&relay, "stopped").await.why, stopped.why);
    let mut other = node(&relay, "prod").await;

    let mut client = admin(&relay.at.admin).await;
    let go = |trial: Vec<u8>| proto::policies::SteerRolloutRequest {
        go_on: true,
        trial: trial.into(),
        reason: "they were attacks".to_owned(),
    };
    let wrong = client.steer_rollout(go(vec![1; 32])).await.unwrap_err();
    assert_eq!(wrong.code(), Code::FailedPrecondition);
    let reading = PoliciesClient::new(channel(relay.at.feed).await);
    let refused = reading.clone().steer_rollout(go(Vec::new())).await;
    assert_eq!(refused.unwrap_err().code(), Code::PermissionDenied);
    let went = client.steer_rollout(go(stopped.trial.to_vec())).await;
    let wanted = policies_status(&relay).await.digest;
    assert_eq!(went.expect("a reply").into_inner().digest, wanted);
    assert_eq!(manifest(&rules(&mut other).await).digest, wanted);
    becomes(&relay, "none").await;
    let acts = acts(&relay).await;
    let actions: Vec<&str> = acts.iter().map(|(action, _)| &**action).collect();
    assert_eq!(actions, ["try", "stop rolling out", "roll out"]);
    assert!(acts[2].1.starts_with("uid "), "{acts:?}");
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn breaking_the_glass_goes_before_a_trial_and_the_trial_goes_on_afterwards() {
    let folder = tempfile::tempdir().expect("a folder");
    let relay = Relay::with(trying(folder.path(), "1h")).await;
    let mut canary = node(&relay, "canary").await;
    apply(&relay, "one").await;
    let trial = rules(&mut canary).await;
    applied(&canary, &trial).await;
    let mut client = admin(&relay.at.admin).await;
    let pause = |seconds| DisableRequest {
        seconds,
        reason: "a test".to_owned(),
    };
    client.disable(pause(600)).await.expect("a reply");
    let off = rules(&mut canary).await;
    assert_eq!(manifest(&off).blobs.len(), 0);
    applied(&canary, &off).await;
    client.disable(pause(0)).await.expect("a reply");
    let on = rules(&mut canary).await;
    assert_eq!(manifest(&on), manifest(&trial));
    relay.stop().await;
}
