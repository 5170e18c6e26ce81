use std::net::SocketAddr;

use super::*;

fn read(text: &str, environment: &[(&str, &str)]) -> Result<Settings, Vec<String>> {
    let environment = environment
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Settings::parse("c.yaml", text, environment)
        .map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

fn problems(text: &str) -> Vec<String> {
    read(text, &[]).expect_err("there should be problems")
}

#[test]
fn nothing_said_is_the_defaults() {
    for text in ["", "relay: {}\n", "relay:\nsinks:\n", "version: 1\n"] {
        let settings = read(text, &[]).unwrap_or_else(|problems| panic!("{text:?}: {problems:#?}"));
        assert_eq!(settings.config, Config::default(), "{text:?}");
        assert!(settings.warnings.is_empty());
    }
    let listen = Config::default().relay.listen;
    assert_eq!(
        [listen.feed, listen.link, listen.http].map(|listen| listen.address.to_string()),
        ["127.0.0.1:32767", "127.0.0.1:9481", "127.0.0.1:9480"]
    );
}

#[test]
fn a_whole_file_reads_and_the_sensors_section_is_left_to_the_sensor() {
    let text = "
version: 1
cluster: prod-eu
relay:
  data_dir: /var/lib/cresset
  listen:
    feed: {address: 0.0.0.0:32767, insecure: true}
    link: ':9481'
    http: localhost:9480
    admin: unix:/run/cresset/admin.sock
  tls: {cert_file: /etc/c.crt, key_file: /etc/c.key, client_ca_file: /etc/ca.crt}
  log: {type: journal}
  retention: {max_age: 7d, max_size: 20GiB, compression: zstd}
  ingest: {budget: 64MiB}
  feeds: {max_lag: 60s}
sinks:
  console: {type: stdout, format: text, filter: {kinds: [alert]}}
  archive: {type: file, path: /var/log/cresset/events.jsonl}
policies:
  sources: [{type: folder, path: /etc/cresset/policies}]
  default_posture: {file: block, network: audit, capabilities: allow}
sensor: {anything: [goes, here]}
";
    let config = read(text, &[]).unwrap().config;
    assert_eq!(
        config.relay.listen.link.address,
        Address::Tcp(SocketAddr::from(([0u16; 8], 9481)))
    );
    assert!(config.relay.listen.feed.insecure);
    assert_eq!(
        config.sinks.keys().collect::<Vec<_>>(),
        ["archive", "console"]
    );
    assert_eq!(config.policies.default_posture.file, Posture::Block);
    assert!(config.sensor.is_given());
}

#[test]
fn every_problem_is_told_with_line_and_path() {
    let text = "
cluster: x
relay:
  listen:
    feed: 0.0.0.0:32767
    link: 0.0.0.0:9481
    http: nowhere
    admin: 127.0.0.1:1
  log: {type: cassandra}
";
    let found = problems(text);
    let told = |start: &str| {
        assert!(
            found.iter().any(|line| line.starts_with(start)),
            "no {start} in {found:#?}"
        )
    };
    told("c.yaml:5: relay.listen.feed: plaintext on 0.0.0.0:32767");
    told("c.yaml:6: relay.listen.link: plaintext for sensors on 0.0.0.0:9481");
    told("c.yaml:7: relay.listen.http: `nowhere` is not an address");
    told("c.yaml:8: relay.listen.admin: a port would let everybody");
    told("c.yaml:9: relay.log.type: ");
    assert_eq!(found.len(), 5, "{found:#?}");
}

#[test]
fn access_says_who_in_one_way_and_limits_readers_only() {
    let text = "
relay:
  access:
    - {token_file: /t, role: reader, namespaces: [shop]}
    - {role: reader}
    - {token_file: /t, anonymous: true, role: reader}
    - {certificate: 'spiffe://a/sensor/b', role: sensor, namespaces: [shop]}
    - {anonymous: true, role: admin}
    - {token_file: /t, role: root}
";
    let found = problems(text);
    for start in [
        "c.yaml:5: relay.access[1]: who is meant?",
        "c.yaml:6: relay.access[2]: who is meant?",
        "c.yaml:7: relay.access[3].namespaces: only a reader",
        "c.yaml:8: relay.access[4].role: who says nothing can be a reader and no more",
        "c.yaml:9: relay.access[5].role: ",
    ] {
        assert!(
            found.iter().any(|line| line.starts_with(start)),
            "no {start} in {found:#?}"
        );
    }
}

#[test]
fn an_unknown_kind_of_sink_is_said_and_never_ignored() {
    let text = "
sinks:
  console: {type: stdout}
  metrics: {type: prometheus}
  typo: {type: fiel}
policies:
  sources: [{type: git, path: x}]
";
    let found = problems(text);
    let typo = found
        .iter()
        .find(|problem| problem.contains("sinks.typo.type"))
        .unwrap();
    assert!(!typo.contains("not available"), "{typo}");
    assert_eq!(found.len(), 1, "{found:#?}");
}

#[test]
#[cfg(feature = "kafka")]
fn a_log_in_kafka_is_read_and_what_is_wrong_with_it_is_told_with_its_line() {
    let good = "relay: {log: {type: kafka, brokers: ['kafka-0:9092']}}";
    let log = read(good, &[]).unwrap().config.relay.log;
    assert_eq!(
        (log.kind, log.topic(), log.partitions(), log.replication),
        (LogKind::Kafka, "cresset-log", 12, None)
    );
    for (text, path, part) in [
        ("{type: kafka}", "relay.log.brokers", "kafka-0:9092"),
        ("{brokers: [a]}", "relay.log", "type: kafka"),
        (
            "{type: kafka, brokers: ['a b']}",
            "relay.log.brokers[0]",
            "HOST:PORT",
        ),
        (
            "{type: kafka, brokers: [a], topic: 'a/b'}",
            "relay.log.topic",
            "`a/b`",
        ),
        (
            "{type: kafka, brokers: [a], partitions: 0}",
            "relay.log.partitions",
            "1 to 1000",
        ),
        (
            "{type: kafka, brokers: [a], sasl: {username: u}}",
            "relay.log.sasl.password_file",
            "missing",
        ),
    ] {
        let found = problems(&format!("\nrelay:\n  log: {text}\n"));
        let start = format!("c.yaml:3: {path}: ");
        let told = found.iter().find(|problem| problem.starts_with(&start));
        assert!(
            told.is_some_and(|told| told.contains(part)),
            "{text}: {found:#?}"
        );
    }
    let holding = "
relay: {log: {type: kafka, brokers: [a]}}
sinks:
  siem: {type: webhook, url: 'http://127.0.0.1/', when_full: refuse}
";
    let found = problems(holding);
    assert!(
        found
            .iter()
            .any(|told| told.starts_with("c.yaml:4: sinks.siem.when_full: ")),
        "{found:#?}"
    );
}

#[test]
fn sources_are_read_and_what_is_wrong_with_them_is_told_with_its_line() {
    let text = "
sources:
  old-daemons: {type: kubearmor, addresses: ['127.0.0.1:32000', 'localhost:32001']}
  tls: {type: kubearmor, addresses: ['node-a:32767'], tls: {ca_file: /ca.crt, cert_file: /c.crt, key_file: /c.key}}
";
    let config = read(text, &[]).unwrap().config;
    let SourceConfig::KubeArmor(old) = &config.sources["old-daemons"];
    assert_eq!(old.addresses, ["127.0.0.1:32000", "localhost:32001"]);
    let shown = serde_json::to_string(&config).unwrap();
    assert_eq!(read(&shown, &[]).unwrap().config, config, "{shown}");

    let text = "
sources:
  one: {type: kubearmor, addresses: ['10.0.0.1:32767']}
  two: {type: kubearmor, addresses: ['127.0.0.1:1', '127.0.0.1:1']}
  Three: {type: kubearmor, addresses: []}
  four: {type: falco}
";
    let found = problems(text);
    for start in [
        "c.yaml:3: sources.one.addresses[0]: plaintext from 10.0.0.1:32767",
        "c.yaml:4: sources.two.addresses: 127.0.0.1:1 stands here twice",
        "c.yaml:5: sources.Three: `Three` cannot name a source",
        "c.yaml:5: sources.Three.addresses: no address",
        "c.yaml:6: sources.four.type: ",
    ] {
        assert!(
            found.iter().any(|line| line.starts_with(start)),
            "no {start} in {found:#?}"
        );
    }
    assert_eq!(found.len(), 5, "{found:#?}");
}

#[test]
fn sensors_off_this_machine_need_certificates_on_both_sides() {
    let link = "relay: {listen: {link: 0.0.0.0:9481}, tls: {cert_file: /a, key_file: /b}}";
    assert!(
        problems(link)[0].contains("client_ca_file"),
        "{:?}",
        problems(link)
    );
    let both = "relay: {listen: {link: 0.0.0.0:9481}, tls: {cert_file: /a, key_file: /b, client_ca_file: /c}}";
    assert!(read(both, &[]).is_ok());
    let insecure = "relay: {listen: {link: {address: 0.0.0.0:9481, insecure: true}}, tls: {cert_file: /a, key_file: /b, client_ca_file: /c}}";
    assert!(problems(insecure)[0].contains("relay.listen.link"));
}

#[test]
fn the_environment_overrides_the_file() {
    let text = "relay: {listen: {feed: 127.0.0.1:1}}\ncluster: a\n";
    let environment = [
        ("CRESSET__RELAY__LISTEN__FEED", "127.0.0.1:2"),
        ("CRESSET__CLUSTER", "b"),
        ("CRESSET__SENSOR__CONTROL", "unix:/x"),
        ("HOME", "/root"),
    ];
    let config = read(text, &environment).unwrap().config;
    assert_eq!(
        (config.relay.listen.feed, &*config.cluster),
        (Listen::loopback(2), "b")
    );

    let found = read(
        "",
        &[
            ("CRESSET__RELAY__LISTEN__FEED", "nowhere"),
            ("CRESSET____X", "1"),
        ],
    )
    .unwrap_err();
    assert!(
        found
            .iter()
            .any(|line| line
                == "environment: CRESSET____X names no key; write CRESSET__SECTION__KEY"),
        "{found:?}"
    );
    assert!(
        found
            .iter()
            .any(|line| line.starts_with("environment: relay.listen.feed: `nowhere`")),
        "{found:?}"
    );
}

#[test]
fn kubearmors_environment_names_add_a_json_sink() {
    let environment = [
        ("ENABLE_STDOUT_ALERTS", "True"),
        ("ENABLE_STDOUT_LOGS", "false"),
        ("ENABLE_STDOUT_MSGS", "true"),
    ];
    let config = read("", &environment).unwrap().config;
    let sink = serde_json::to_value(&config.sinks["kubearmor-stdout"]).unwrap();
    assert_eq!(sink["type"], "stdout");
    assert_eq!(
        sink["filter"]["kinds"],
        serde_json::json!(["alert", "message"])
    );
    assert!(
        read("", &[("ENABLE_STDOUT_ALERTS", "false")])
            .unwrap()
            .config
            .sinks
            .is_empty()
    );
}

#[test]
fn a_sink_of_the_file_wins_over_the_environments() {
    let file = "sinks: {kubearmor-stdout: {type: stdout, format: text}}\n";
    let config = read(file, &[("ENABLE_STDOUT_LOGS", "true")])
        .unwrap()
        .config;
    let sink = serde_json::to_value(&config.sinks["kubearmor-stdout"]).unwrap();
    assert_eq!(sink["format"], "text");
}

#[test]
fn what_the_environment_says_of_a_sink_is_checked_as_what_the_file_says() {
    let environment = [
        ("ENABLE_DASHBOARDS", "true"),
        ("ES_URL", "nonsense"),
        ("ES_ALERTS_INDEX", "Alerts*"),
    ];
    let told = read("", &environment).unwrap_err();
    for wrong in ["endpoints[0]: `nonsense`", "index.alert: `Alerts*`"] {
        let begins = format!("environment: sinks.kubearmor-elasticsearch.{wrong}");
        assert!(
            told.iter().any(|told| told.starts_with(&begins)),
            "{told:?}"
        );
    }
}

#[test]
fn kubearmors_elasticsearch_names_write_to_exactly_its_index() {
    let environment = [
        ("ENABLE_DASHBOARDS", "true"),
        ("ES_URL", "https://es:9200"),
        ("ES_USERNAME", "elastic"),
        ("ES_PASSWORD", "hush"),
        ("ES_CA_CERT_PATH", "/etc/ca.crt"),
        ("ES_ALLOW_INSECURE_TLS", "false"),
        ("ES_ALERTS_INDEX", "alert"),
        ("ENABLE_OPENSEARCH_DASHBOARD", "true"),
        ("OS_ALERTS_INDEX", "open"),
    ];
    let config = read("", &environment).unwrap().config;
    let sink = serde_json::to_value(&config.sinks["kubearmor-elasticsearch"]).unwrap();
    assert_eq!(sink["index"]["layout"], "fixed");
    assert_eq!(sink["index"]["alert"], "alert");
    assert_eq!(sink["endpoints"], serde_json::json!(["https://es:9200"]));
    assert_eq!(sink["auth"]["password_env"], "ES_PASSWORD");
    assert_eq!(sink["tls"]["ca_file"], "/etc/ca.crt");
    assert_eq!(sink["tls"]["insecure_skip_verify"], false);
    assert!(!sink.to_string().contains("hush"));
    let open = serde_json::to_value(&config.sinks["kubearmor-opensearch"]).unwrap();
    assert_eq!(
        (&open["type"], &open["index"]["log"]),
        (&"opensearch".into(), &"open".into())
    );
}

#[test]
fn shown_settings_read_back_as_the_same() {
    let text = "cluster: x\nsinks: {archive: {type: file, path: /tmp/x.jsonl}}\nrelay: {listen: {feed: {address: 0.0.0.0:1, insecure: true}}}\n";
    let config = read(text, &[]).unwrap().config;
    let shown = serde_json::to_string(&config).unwrap();
    assert_eq!(read(&shown, &[]).unwrap().config, config, "{shown}");
}

#[test]
fn a_missing_file_is_named() {
    let found = Settings::load(Some(std::path::Path::new("/nonexistent/c.yaml")), []).unwrap_err();
    assert!(
        found[0]
            .to_string()
            .starts_with("/nonexistent/c.yaml: cannot read it: "),
        "{}",
        found[0]
    );
}

#[test]
fn a_rollout_says_who_tries_a_set_how_long_and_what_stops_it() {
    let rollout = |text: &str| {
        let text = format!("policies:\n  rollout: {text}\n");
        let settings = read(&text, &[]).unwrap_or_else(|problems| panic!("{text}: {problems:#?}"));
        settings.config.policies.rollout.expect("a rollout")
    };
    let least = rollout("{canary: {stage: canary}}");
    assert_eq!(
        (least.hold.to_string().as_str(), least.stop_on.blocked_rate),
        ("10m", 1.0)
    );
    assert_eq!(
        rollout("{canary: {a: b}, stop_on: blocked_rate}").stop_on,
        StopOn::default()
    );
    let own = rollout("{canary: {a: b}, hold: 2h, stop_on: {blocked_rate: 0.5}}");
    assert_eq!(
        (own.hold.to_string().as_str(), own.stop_on.blocked_rate),
        ("2h", 0.5)
    );
    for (text, wrong) in [
        (
            "{canary: {}}",
            "policies.rollout.canary: no labels are those of every sensor",
        ),
        ("{hold: 1h}", "canary"),
        (
            "{canary: {a: b}, hold: 0s}",
            "policies.rollout.hold: between 1s and 30d",
        ),
        ("{canary: {a: b}, stop_on: {blocked_rate: -1}}", "0 or more"),
        (
            "{canary: {a: b}, stop_on: errors}",
            "write blocked_rate or {blocked_rate: NUMBER}",
        ),
        ("{canary: {a: b}, stop_on: {rate: 1}}", "rate"),
    ] {
        let found = problems(&format!("policies:\n  rollout: {text}\n"));
        assert!(
            found.iter().any(|problem| problem.contains(wrong)),
            "{text}: {found:#?}"
        );
    }
}
