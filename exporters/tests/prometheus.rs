//! The prometheus sink through the text that a scrape gets.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use exporters::{Batch, Carried, Context, Encoded, Outcome, Sink, SinkConfig, Trial};
use prometheus::{Encoder, Registry, TextEncoder};
use prost::Message;
use proto::{Event, EventId, Kind, StreamId, feeder};

fn event(kind: Kind, message: &impl Message) -> Carried {
    let id = EventId {
        stream: StreamId([1; 8]),
        sequence: 1,
    };
    Carried::from(Encoded::new(Event {
        kind,
        id,
        payload: message.encode_to_vec().into(),
    }))
}

fn alert(pod: &str) -> Carried {
    event(
        Kind::Alert,
        &feeder::Alert {
            host_name: "node-a".into(),
            namespace_name: "shop".into(),
            pod_name: pod.into(),
            container_name: "cart".into(),
            policy_name: "deny-package-tools".into(),
            severity: "5".into(),
            r#type: "MatchedPolicy".into(),
            operation: "Process".into(),
            action: "Block".into(),
            ..Default::default()
        },
    )
}

struct Scene {
    registry: Registry,
    sink: Box<dyn Sink>,
}

impl Scene {
    fn new(settings: &str) -> Scene {
        let (nodes, mut problems) = yaml::parse("c.yaml", settings);
        let config = SinkConfig::read(&nodes[0], yaml::Severity::Error, &mut problems);
        assert_eq!(problems, []);
        let registry = Registry::new();
        let context = Context {
            registry: registry.clone(),
            pages: None,
        };
        let sink = exporters::build("metrics", &config.unwrap(), &context).unwrap();
        Scene { registry, sink }
    }

    async fn send(&self, events: impl IntoIterator<Item = Carried>) {
        let batch = Batch::new(events.into_iter().collect());
        let outcomes = self.sink.send(Arc::new(batch)).await.unwrap();
        assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Done));
    }

    /// The samples, without comments.
    fn scrape(&self) -> Vec<String> {
        let mut text = Vec::new();
        TextEncoder::new()
            .encode(&self.registry.gather(), &mut text)
            .unwrap();
        let text = String::from_utf8(text).unwrap();
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        samples.map(str::to_owned).collect()
    }

    #[track_caller]
    fn shows(&self, sample: &str) {
        let all = self.scrape();
        assert!(
            all.iter().any(|line| line == sample),
            "{sample} is not among {all:#?}"
        );
    }
}

#[tokio::test]
async fn kubearmors_nine_counters_have_their_names_and_labels() {
    let scene = Scene::new("{type: prometheus}");
    scene.sink.caught_up();
    scene
        .send([alert("cart-1"), alert("cart-1"), alert("cart-2")])
        .await;
    for sample in [
        r#"kubearmor_alerts_in_host_total{HostName="node-a"} 3"#,
        r#"kubearmor_alerts_in_namespace_total{NamespaceName="shop"} 3"#,
        r#"kubearmor_alerts_in_pod_total{PodName="cart-1"} 2"#,
        r#"kubearmor_alerts_in_pod_total{PodName="cart-2"} 1"#,
        r#"kubearmor_alerts_in_container_total{ContainerName="cart"} 3"#,
        r#"kubearmor_alerts_with_policy_total{PolicyName="deny-package-tools"} 3"#,
        r#"kubearmor_alerts_with_severity_total{Severity="5"} 3"#,
        r#"kubearmor_alerts_with_type_total{Type="MatchedPolicy"} 3"#,
        r#"kubearmor_alerts_with_operation_total{Operation="Process"} 3"#,
        r#"kubearmor_alerts_with_action_total{Action="Block"} 3"#,
    ] {
        scene.shows(sample);
    }
}

#[tokio::test]
async fn an_absent_field_is_an_empty_label() {
    let scene = Scene::new("{type: prometheus}");
    scene.sink.caught_up();
    scene
        .send([event(Kind::Alert, &feeder::Alert::default())])
        .await;
    scene.shows(r#"kubearmor_alerts_in_pod_total{PodName=""} 1"#);
}

#[tokio::test]
async fn logs_and_messages_count_as_events_and_not_as_alerts() {
    let scene = Scene::new("{type: prometheus}");
    scene.sink.caught_up();
    let log = feeder::Log {
        operation: "File".into(),
        ..Default::default()
    };
    let message = feeder::Message::default();
    scene
        .send([
            event(Kind::Log, &log),
            event(Kind::Message, &message),
            alert("a"),
        ])
        .await;
    scene.shows(r#"cresset_events_total{kind="log",operation="File"} 1"#);
    scene.shows(r#"cresset_events_total{kind="message",operation=""} 1"#);
    scene.shows(r#"cresset_events_total{kind="alert",operation="Process"} 1"#);
    scene.shows(r#"kubearmor_alerts_with_operation_total{Operation="Process"} 1"#);
    assert!(
        !scene
            .scrape()
            .iter()
            .any(|line| line.contains(r#"Operation="File""#))
    );
}

#[tokio::test]
async fn pods_past_the_bound_are_folded_and_counted() {
    let scene = Scene::new("{type: prometheus, max_label_values: 2}");
    scene.sink.caught_up();
    scene.send(["a", "b", "c", "d", "a"].map(alert)).await;
    scene.shows(r#"kubearmor_alerts_in_pod_total{PodName="a"} 2"#);
    scene.shows(r#"kubearmor_alerts_in_pod_total{PodName="other"} 2"#);
    scene.shows(r#"cresset_label_values_folded_total{metric="kubearmor_alerts_in_pod_total"} 2"#);
    scene.shows(r#"cresset_label_values_folded_total{metric="kubearmor_alerts_in_host_total"} 0"#);
}

#[tokio::test]
async fn a_restart_goes_on_from_the_snapshot_and_shows_nothing_before_it_has_caught_up() {
    let before = Scene::new("{type: prometheus, max_label_values: 2}");
    before.send(["a", "b", "c"].map(alert)).await;
    let snapshot = before.sink.snapshot().unwrap();

    let after = Scene::new("{type: prometheus, max_label_values: 2}");
    after.sink.restore(&snapshot).unwrap();
    after.send(["c", "a"].map(alert)).await;
    assert_eq!(after.scrape(), [""; 0]);
    after.sink.caught_up();
    after.shows(r#"kubearmor_alerts_in_pod_total{PodName="a"} 2"#);
    after.shows(r#"kubearmor_alerts_in_pod_total{PodName="b"} 1"#);
    after.shows(r#"kubearmor_alerts_in_pod_total{PodName="other"} 2"#);
}

fn log(namespace: &str, pod: &str, owner: Option<&str>) -> Carried {
    let owner = owner.map(|name| feeder::Podowner {
        name: name.into(),
        ..Default::default()
    });
    event(
        Kind::Log,
        &feeder::Log {
            namespace_name: namespace.into(),
            pod_name: pod.into(),
            operation: "File".into(),
            owner,
            ..Default::default()
        },
    )
}

#[tokio::test]
async fn logs_count_by_operation_namespace_and_workload() {
    let scene = Scene::new("{type: prometheus, max_label_values: 3}");
    scene.sink.caught_up();
    scene
        .send([
            log("shop", "cart-1", Some("cart")),
            log("shop", "cart-2", Some("cart")),
            log("shop", "lone", None),
            log("", "", None),
            log("late", "later", None),
            log("odd\0", "pod", None),
        ])
        .await;
    for sample in [
        r#"cresset_logs_total{operation="File",namespace="shop",workload="cart"} 2"#,
        r#"cresset_logs_total{operation="File",namespace="shop",workload="lone"} 1"#,
        r#"cresset_logs_total{operation="File",namespace="",workload=""} 1"#,
        r#"cresset_logs_total{operation="other",namespace="other",workload="other"} 2"#,
        r#"cresset_label_values_folded_total{metric="cresset_logs_total"} 2"#,
        r#"cresset_events_total{kind="log",operation="File"} 6"#,
    ] {
        scene.shows(sample);
    }
    let snapshot = scene.sink.snapshot().unwrap();
    let after = Scene::new("{type: prometheus, max_label_values: 3}");
    after.sink.restore(&snapshot).unwrap();
    after.sink.caught_up();
    let sorted = |scene: &Scene| {
        let mut samples = scene.scrape();
        samples.sort();
        samples
    };
    assert_eq!(sorted(&after), sorted(&scene));
}

#[tokio::test]
async fn a_test_counts_the_marked_event_and_says_so() {
    let scene = Scene::new("{type: prometheus}");
    let (trial, mut steps) = Trial::new();
    let message = event(Kind::Message, &feeder::Message::default());
    scene.sink.test(message, &trial).await.unwrap();
    drop(trial);
    let mut told = Vec::new();
    while let Some(step) = steps.recv().await {
        told.push((step.name, step.outcome.unwrap()));
    }
    let (name, found) = told.pop().unwrap();
    assert_eq!((told.len(), name), (1, "read back"));
    assert!(
        found.contains("cresset_events_total of kind message stands at 1, shown once"),
        "{found}"
    );
}

#[test]
fn a_port_of_its_own_needs_a_program_that_serves_it() {
    let (nodes, mut problems) =
        yaml::parse("c.yaml", "{type: prometheus, listen: \"127.0.0.1:0\"}");
    let config = SinkConfig::read(&nodes[0], yaml::Severity::Error, &mut problems).unwrap();
    assert_eq!(problems, []);
    let context = Context::default();
    let refused = exporters::build("metrics", &config, &context)
        .err()
        .unwrap();
    assert!(
        refused.to_string().contains("take `listen` out"),
        "{refused}"
    );
    // It left nothing behind.
    let (nodes, _) = yaml::parse("c.yaml", "{type: prometheus}");
    let config = SinkConfig::read(&nodes[0], yaml::Severity::Error, &mut problems).unwrap();
    let first = exporters::build("metrics", &config, &context).unwrap();
    drop(first);
    assert!(
        exporters::build("metrics", &config, &context).is_ok(),
        "one may follow another"
    );
}

#[test]
fn a_second_prometheus_sink_is_refused_with_the_reason() {
    let (nodes, mut problems) = yaml::parse("c.yaml", "{type: prometheus}");
    let config = SinkConfig::read(&nodes[0], yaml::Severity::Error, &mut problems).unwrap();
    let context = Context::default();
    let _first = exporters::build("one", &config, &context).unwrap();
    let second = exporters::build("two", &config, &context).err().unwrap();
    assert_eq!(
        second.to_string(),
        "sink two: there can be only one prometheus sink; remove the other"
    );
}
