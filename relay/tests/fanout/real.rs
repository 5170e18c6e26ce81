//! Real sinks behind the fan-out.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use std::{fs, io};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::scene::{Scene, soon, status_of};

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

/// Two servers behind one address, as behind a balancer of connections: one takes everything, the other refuses everything.
/// How many events the first one has.
async fn two_behind_one(first_is_bad: bool) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let taken = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&taken);
    tokio::spawn(async move {
        let mut bad = first_is_bad;
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, bad, Arc::clone(&count)));
            bad = !bad;
        }
    });
    (at, taken)
}

/// One server's connection, which the good one closes after three requests and the bad one never.
async fn serve(mut stream: TcpStream, bad: bool, taken: Arc<AtomicUsize>) -> io::Result<()> {
    for requests in 1.. {
        let last = !bad && requests == 3;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        let text = String::from_utf8_lossy(&head).to_ascii_lowercase();
        let (_, length) = text.split_once("content-length: ").unwrap();
        let length = length.split("\r\n").next().unwrap().parse().unwrap();
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        let status = if bad { "400 No" } else { "200 Yes" };
        let close = if last { "connection: close\r\n" } else { "" };
        let answer = format!("HTTP/1.1 {status}\r\n{close}content-length: 9\r\n\r\nno field!");
        if !bad {
            let lines = body.iter().filter(|byte| **byte == b'\n').count();
            taken.fetch_add(lines, Ordering::SeqCst);
        }
        stream.write_all(answer.as_bytes()).await?;
        if last {
            break;
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_bad_server_beside_a_good_one_behind_one_address_costs_no_dead_letter() {
    for first_is_bad in [true, false] {
        let (at, taken) = two_behind_one(first_is_bad).await;
        let scene = Scene::new();
        let life = scene.life();
        let lake = format!(
            "{{type: webhook, shape: ndjson, url: 'http://{at}', start: beginning, \
             batch: {{max_events: 4, max_delay: 1ms}}, retry: {{initial: 10ms, max: 50ms}}}}"
        );
        let fanout = life.build([("lake", &lake)]);
        for round in 0..40 {
            life.append((1..=10).map(|n| 10 * round + n)).await;
        }
        soon(|| status_of(&fanout, "lake").pending == 0).await;
        let status = status_of(&fanout, "lake");
        assert_eq!((status.delivered, status.dead_lettered), (400, 0));
        assert!(taken.load(Ordering::SeqCst) >= 400);
        life.end(fanout).await;
    }
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
