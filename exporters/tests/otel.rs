//! OTLP into a real OpenTelemetry Collector, over both of its doors; what arrived is read from what it prints.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[path = "support/events.rs"]
mod events;
#[path = "support/servers.rs"]
mod servers;

use std::time::Duration;

use events::{alert, batch, ids, letters, sink};
use servers::{Failed, Server, free_ports, on_path, skip};

const SUITE: &str = "otel collector";
const SOON: Duration = Duration::from_secs(60);

struct Collector {
    _server: Server,
    folder: tempfile::TempDir,
    port: u16,
}

impl Collector {
    fn start() -> Option<Self> {
        if std::env::var_os("CRESSET_QUICK").is_some() {
            skip("full", SUITE, "make test-quick leaves out real servers");
            return None;
        }
        if !on_path("go") {
            skip(
                "go",
                SUITE,
                "there is no go to build the collector with; install golang",
            );
            return None;
        }
        for _ in 0..3 {
            let (folder, port) = (tempfile::tempdir().unwrap(), free_ports(2));
            let ports = [port.to_string(), (port + 1).to_string()];
            let data = folder.path().join("data");
            match Server::start("otel", &data, ports.iter().map(String::as_str), &[]) {
                Ok(_server) => {
                    return Some(Collector {
                        _server,
                        folder,
                        port,
                    });
                }
                Err(Failed::NoDownload) => {
                    skip(
                        "network",
                        SUITE,
                        "the collector's modules cannot be downloaded or built",
                    );
                    return None;
                }
                Err(Failed::Ended(words)) if words.contains("address already in use") => {}
                Err(Failed::Ended(words)) => panic!("the collector ended: {words}"),
            }
        }
        panic!("no port stayed free long enough for a collector");
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("data/server.log")).unwrap()
    }

    /// What it printed, once this is in it.
    async fn printed(&self, what: &str) -> String {
        let found = tokio::time::timeout(SOON, async {
            loop {
                let log = self.log();
                if log.contains(what) {
                    return log;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        found
            .await
            .unwrap_or_else(|_| panic!("no {what} in {}", self.log()))
    }
}

#[tokio::test]
async fn a_real_collector_takes_every_event_over_grpc_and_http() {
    let Some(collector) = Collector::start() else {
        return;
    };
    for (protocol, port, start) in [
        ("grpc", collector.port, 1),
        ("http", collector.port + 1, 1001),
    ] {
        let sink = sink(&format!(
            "{{type: otlp, protocol: {protocol}, endpoint: 'http://127.0.0.1:{port}'}}"
        ));
        let odd = alert(start, "zero\0 quote\" 火");
        let batch = batch(
            [odd]
                .into_iter()
                .chain((start + 1..start + 300).map(|n| alert(n, "cart"))),
        );
        let outcomes = tokio::time::timeout(SOON, sink.send(batch.clone())).await;
        let outcomes = outcomes.expect("in time").expect("taken");
        assert_eq!(letters(&outcomes), "d".repeat(300));
        let ids = ids(&batch);
        let mut log = String::new();
        for id in &ids {
            if !log.contains(id) {
                log = collector.printed(id).await;
            }
        }
        let times = |id: &String| log.matches(&format!("log.record.uid: Str({id})")).count();
        assert!(
            ids.iter().all(|id| times(id) == 1),
            "each event once over {protocol}"
        );
        for text in [
            "k8s.pod.name: Str(zero\0 quote\" 火)",
            "k8s.namespace.name: Str(shop)",
            "service.name: Str(cart)",
            "SeverityNumber: Error3(19)",
            "EventName: kubearmor.alert",
            "security_rule.ruleset.name: Str(no-apt)",
            "InstrumentationScope cresset",
        ] {
            assert!(
                log.contains(text),
                "{text:?} is not in what the collector printed"
            );
        }
    }
}
