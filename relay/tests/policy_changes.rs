//! Policies that are handed to a running relay: over its admin socket, and by KubeArmor's own service.
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod support;

use std::path::Path;

use hyper_util::rt::TokioIo;
use proto::policies::policies_client::PoliciesClient;
use proto::policies::{
    ApplyRequest, Change, DeleteRequest, DisableRequest, Document, File, Key, ListRequest, What,
};
use proto::policy_v1::PolicyStatus;
use proto::policy_v1::policy_service_client::PolicyServiceClient;
use proto::policy_v1::probe_service_client::ProbeServiceClient;
use serde_json::{Value, json};
use support::{Relay, channel, settings};
use tokio::net::UnixStream;
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
