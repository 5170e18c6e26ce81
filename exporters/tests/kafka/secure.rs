//! Name and password, and encryption: one broker with a listener for each.

use std::fs;
use std::path::{Path, PathBuf};

use exporters::Outcome;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use crate::SUITE;
use crate::events::steps;
use crate::scene::{alert, read_back, send, sink, try_sink};
use crate::servers::Kafka;

/// Files in PEM form.
struct Files(tempfile::TempDir);

impl Files {
    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// An authority, a broker's and a client's certificate, another authority, and passwords.
    fn new() -> Files {
        let files = Files(tempfile::tempdir().unwrap());
        for authority in ["ca", "other"] {
            let mut params = named(authority, Vec::new());
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let key = KeyPair::generate().unwrap();
            let certificate = params.self_signed(&key).unwrap();
            files.write(&format!("{authority}.crt"), &certificate.pem());
            if authority == "ca" {
                let issuer = Issuer::new(params, key);
                for name in ["broker", "client"] {
                    let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
                    let params = named(name, names);
                    let key = KeyPair::generate().unwrap();
                    let certificate = params.signed_by(&key, &issuer).unwrap();
                    files.write(&format!("{name}.crt"), &certificate.pem());
                    files.write(&format!("{name}.key"), &key.serialize_pem());
                    let both = key.serialize_pem() + &certificate.pem();
                    files.write(&format!("{name}.pem"), &both);
                }
            }
        }
        files.write("right.pw", "relay-secret\n");
        files.write("wrong.pw", "something else\n");
        files
    }
}

fn named(name: &str, addresses: Vec<String>) -> CertificateParams {
    let mut params = CertificateParams::new(addresses).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

/// PORT: plain; PORT + 2: SASL; PORT + 3: SASL over TLS, where the client shows a certificate, too.
fn listeners(port: u16, files: &Files) -> String {
    let (sasl, both, controller) = (port + 2, port + 3, port + 1);
    let jaas = "org.apache.kafka.common.security";
    let mut text = format!(
        "listeners=CLIENT://127.0.0.1:{port},SASL://127.0.0.1:{sasl},BOTH://127.0.0.1:{both},CONTROLLER://127.0.0.1:{controller}\n\
         advertised.listeners=CLIENT://127.0.0.1:{port},SASL://127.0.0.1:{sasl},BOTH://127.0.0.1:{both}\n\
         listener.security.protocol.map=CLIENT:PLAINTEXT,SASL:SASL_PLAINTEXT,BOTH:SASL_SSL,CONTROLLER:PLAINTEXT\n\
         sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512\n\
         ssl.keystore.type=PEM\nssl.truststore.type=PEM\nlistener.name.both.ssl.client.auth=required\n\
         ssl.keystore.location={}\nssl.truststore.location={}\n",
        files.path("broker.pem").display(),
        files.path("ca.crt").display(),
    );
    for listener in ["sasl", "both"] {
        text += &format!(
            "listener.name.{listener}.plain.sasl.jaas.config={jaas}.plain.PlainLoginModule required user_relay=\"relay-secret\";\n"
        );
        for mechanism in ["scram-sha-256", "scram-sha-512"] {
            text += &format!(
                "listener.name.{listener}.{mechanism}.sasl.jaas.config={jaas}.scram.ScramLoginModule required;\n"
            );
        }
    }
    text
}

fn sasl(mechanism: &str, password: &Path) -> String {
    format!(
        "sasl: {{mechanism: {mechanism}, username: relay, password_file: {}}}",
        password.display()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_let_in_who_has_the_password_and_the_certificate() {
    let files = Files::new();
    let Some(kafka) = Kafka::with(SUITE, |port| listeners(port, &files)) else {
        return;
    };
    let at = |plus: u16| format!("brokers: ['127.0.0.1:{}']", kafka.port() + plus);
    let tls = |ca: &str, client: bool| {
        let mut text = format!("tls: {{ca_file: {}", files.path(ca).display());
        if client {
            for (key, name) in [("cert_file", "client.crt"), ("key_file", "client.key")] {
                text += &format!(", {key}: {}", files.path(name).display());
            }
        }
        text + "}"
    };
    let (right, wrong) = (files.path("right.pw"), files.path("wrong.pw"));

    for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
        let topic = format!("topics: {{alert: {}}}", mechanism.to_lowercase());
        for (address, security) in [
            (at(2), String::new()),
            (at(3), ", ".to_owned() + &tls("ca.crt", true)),
        ] {
            let sink = sink(&format!(
                "{address}, {topic}, {}{security}",
                sasl(mechanism, &right)
            ));
            let outcomes = send(sink.as_ref(), vec![alert("cart", "x", 1)]).await;
            assert_eq!(outcomes, Ok(vec![Outcome::Done]), "{mechanism}{security}");
        }
        let stored = read_back(&kafka.brokers(), &mechanism.to_lowercase());
        assert_eq!(stored.len(), 2, "{mechanism}");
    }

    for (what, settings) in [
        (
            "Authentication failed",
            format!("{}, {}", at(2), sasl("SCRAM-SHA-512", &wrong)),
        ),
        (
            "Authentication failed",
            format!("{}, {}", at(2), sasl("PLAIN", &wrong)),
        ),
        (
            "certificate verify failed",
            format!(
                "{}, {}, {}",
                at(3),
                sasl("PLAIN", &right),
                tls("other.crt", true)
            ),
        ),
        (
            "SSL",
            format!(
                "{}, {}, {}",
                at(3),
                sasl("PLAIN", &right),
                tls("ca.crt", false)
            ),
        ),
    ] {
        let sink = sink(&format!("{settings}, timeout: 20s"));
        let away = send(sink.as_ref(), vec![alert("cart", "x", 1)]).await;
        let reason = away.unwrap_err().reason;
        assert!(
            reason.to_lowercase().contains(&what.to_lowercase()),
            "{what}: {reason}"
        );
        assert!(!reason.contains("something else"), "{reason}");
    }

    // The password is put right while the sink waits.
    let later = files.path("later.pw");
    fs::copy(&wrong, &later).unwrap();
    let sink = sink(&format!(
        "{}, topics: {{alert: later}}, {}",
        at(2),
        sasl("PLAIN", &later)
    ));
    send(sink.as_ref(), vec![alert("cart", "x", 1)])
        .await
        .unwrap_err();
    fs::copy(&right, &later).unwrap();
    let outcomes = send(sink.as_ref(), vec![alert("cart", "x", 1)]).await;
    assert_eq!(outcomes, Ok(vec![Outcome::Done]));
}

#[test]
fn files_that_are_not_there_are_told_when_the_sink_is_made() {
    for (settings, what) in [
        (sasl("PLAIN", Path::new("/nowhere/pw")), "/nowhere/pw"),
        ("tls: {ca_file: /nowhere/ca.crt}".to_owned(), "ca.location"),
    ] {
        let made = try_sink(&format!("brokers: ['127.0.0.1:1'], {settings}"));
        let error = made.err().map(|e| e.to_string()).unwrap_or_default();
        assert!(
            error.starts_with("sink bus: ") && error.contains(what),
            "{error}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trial_tells_which_step_fails_and_what_to_do() {
    let files = Files::new();
    let Some(kafka) = Kafka::with(SUITE, |port| listeners(port, &files)) else {
        return;
    };
    let (right, wrong) = (files.path("right.pw"), files.path("wrong.pw"));
    let sink_with = |password: &Path, ca: &str| {
        sink(&format!(
            "brokers: ['127.0.0.1:{}'], topics: {{alert: tried}}, {}, tls: {{ca_file: {}, cert_file: {}, key_file: {}}}",
            kafka.port() + 3,
            sasl("SCRAM-SHA-512", password),
            files.path(ca).display(),
            files.path("client.crt").display(),
            files.path("client.key").display(),
        ))
    };
    let (told, last) = steps(&*sink_with(&right, "ca.crt"), alert("cart", "marked", 1)).await;
    let all = [
        "+resolve",
        "+connect",
        "+TLS",
        "+authenticate",
        "+topic",
        "+write",
        "+read back",
    ];
    assert_eq!(told, all, "{last}");
    assert!(last.contains("offset 0"), "{last}");
    let (told, last) = steps(&*sink_with(&wrong, "ca.crt"), alert("cart", "marked", 2)).await;
    assert_eq!(
        told,
        ["+resolve", "+connect", "+TLS", "-authenticate"],
        "{last}"
    );
    assert!(last.contains("check sasl"), "{last}");
    let (told, last) = steps(&*sink_with(&right, "other.crt"), alert("cart", "marked", 3)).await;
    assert_eq!(told, ["+resolve", "+connect", "-TLS"], "{last}");
    assert!(last.contains("check tls.ca_file"), "{last}");
    // A listener that wants what the sink does not do.
    let bare = sink(&format!("brokers: ['127.0.0.1:{}']", kafka.port() + 3));
    let (told, last) = steps(&*bare, alert("cart", "marked", 4)).await;
    assert_eq!(told, ["+resolve", "+connect", "-authenticate"], "{last}");
    assert!(last.contains("may want TLS"), "{last}");
    assert_eq!(
        read_back(&format!("127.0.0.1:{}", kafka.port()), "tried").len(),
        1
    );
}
