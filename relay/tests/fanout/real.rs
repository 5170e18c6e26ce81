//! Real sinks behind the fan-out.

use std::fs;
use std::time::Duration;

use crate::scene::{Scene, soon};

#[tokio::test]
async fn events_reach_a_real_file_and_the_metrics() {
    let scene = Scene::new();
    let life = scene.life();
    let file = format!(
        "{{type: file, path: {}}}",
        scene.path("out/events").display()
    );
    let fanout = life.build([("archive", &file), ("metrics", "{type: prometheus}")]);
    life.append(1..=3).await;
    soon(|| fanout.status().iter().all(|status| status.delivered == 3)).await;
    let text = fs::read_to_string(scene.path("out/events")).unwrap();
    assert_eq!(text.lines().count(), 3);
    assert!(
        text.starts_with(r#"{"NamespaceName":"odd","PodName":"pod-1","PPID":0"#),
        "{text}"
    );
    for sample in [
        r#"kubearmor_alerts_in_namespace_total{NamespaceName="odd"} 2"#,
        r#"cresset_sink_delivered_total{sink="archive",type="file"} 3"#,
        r#"cresset_sink_pending{sink="metrics",type="prometheus"} 0"#,
        r#"cresset_sink_up{sink="archive",type="file"} 1"#,
    ] {
        life.shows(sample);
    }
    life.end(fanout).await;
}

#[tokio::test]
async fn counters_count_every_event_once_across_restarts() {
    let scene = Scene::new();
    for round in 0..5 {
        let life = scene.life();
        let fanout = life.build([("metrics", "{type: prometheus, start: beginning}")]);
        for event in 1..=40 {
            life.append([round * 40 + event]).await;
        }
        // Somewhere between two moves of the cursor.
        tokio::time::sleep(Duration::from_millis(37 * round)).await;
        life.abandon(fanout).await;
    }
    let life = scene.life();
    let fanout = life.build([("metrics", "{type: prometheus}")]);
    soon(|| {
        life.scrape()
            .contains("kubearmor_alerts_in_namespace_total")
    })
    .await;
    life.shows(r#"kubearmor_alerts_in_namespace_total{NamespaceName="odd"} 100"#);
    life.shows(r#"kubearmor_alerts_in_namespace_total{NamespaceName="even"} 100"#);
    life.end(fanout).await;
}
