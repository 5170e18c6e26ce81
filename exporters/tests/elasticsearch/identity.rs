//! Who the sink says it is, and by which way its requests go.

use std::io::Read as _;

use crate::fake::{Act, Fake, Request, lines};
use crate::scene::*;

const MANUAL: &str = "index: {setup: manual}";

async fn one(auth: &str) -> Request {
    let fake = Fake::start([]).await;
    send_all_done(
        &*sink_to(&fake.url(), &format!("{auth}, {MANUAL}")),
        &alerts(1..=2),
    )
    .await;
    fake.bulks().remove(0)
}

fn secret(text: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    std::fs::write(&path, text).unwrap();
    let path = path.display().to_string();
    (folder, path)
}

#[tokio::test]
async fn keys_and_passwords_are_sent_as_the_server_reads_them() {
    let (_folder, pair) = secret("id:key\n");
    let (_other, encoded) = secret("aWQ6a2V5\n");
    for (auth, header) in [
        (format!("auth: {{api_key_file: {pair}}}"), "ApiKey aWQ6a2V5"),
        (
            format!("auth: {{api_key_file: {encoded}}}"),
            "ApiKey aWQ6a2V5",
        ),
        (
            format!("auth: {{username: elastic, password_file: {pair}}}"),
            "Basic ZWxhc3RpYzppZDprZXk=",
        ),
    ] {
        assert_eq!(one(&auth).await.headers["authorization"], header);
    }
    assert!(
        !one("compression: none")
            .await
            .headers
            .contains_key("authorization")
    );
}

#[tokio::test]
async fn a_refused_key_holds_everything_back_until_its_file_has_another() {
    let (_folder, path) = secret("old");
    let fake = Fake::start([Act::Say(401, "", String::new())]).await;
    let sink = sink_to(
        &fake.url(),
        &format!("auth: {{api_key_file: {path}}}, {MANUAL}"),
    );
    let away = send(&*sink, &alerts(1..=2)).await.unwrap_err();
    assert!(away.reason.contains("`auth`"), "{}", away.reason);
    std::fs::write(&path, "new").unwrap();
    send_all_done(&*sink, &alerts(1..=2)).await;
    let keys: Vec<String> = fake
        .bulks()
        .iter()
        .map(|bulk| bulk.headers["authorization"].clone())
        .collect();
    assert_eq!(keys.last().unwrap(), "ApiKey new");
}

#[tokio::test]
async fn a_request_is_what_the_server_documents() {
    let bulk = one("compression: none").await;
    assert!(
        bulk.line
            .starts_with("POST /_bulk?filter_path=errors,items."),
        "{}",
        bulk.line
    );
    assert_eq!(bulk.headers["content-type"], "application/x-ndjson");
    assert!(bulk.body.ends_with(b"}\n"));
    let (place, document) = lines(&bulk.body).remove(1);
    assert_eq!(place["create"]["_id"], document["EventID"]);
}

#[tokio::test]
async fn bodies_are_compressed_when_asked_for() {
    let fake = Fake::start([Act::Say(503, "", String::new())]).await;
    let sink = sink_to(&fake.url(), &format!("compression: gzip, {MANUAL}"));
    let _ = send(&*sink, &alerts(1..=50)).await;
    let bulk = fake.bulks().remove(0);
    assert_eq!(bulk.headers["content-encoding"], "gzip");
    let mut text = Vec::new();
    flate2::read::GzDecoder::new(&bulk.body[..])
        .read_to_end(&mut text)
        .unwrap();
    assert_eq!(lines(&text).len(), 50);
    assert!(bulk.body.len() < text.len() / 4);
}

#[tokio::test]
async fn a_path_and_a_proxy_are_gone_through() {
    let proxy = Fake::start([]).await;
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("proxy.pw");
    std::fs::write(&password, "hush\n").unwrap();
    let text = format!(
        "{{type: elasticsearch, proxy: {{url: '{}', username: me, password_file: '{}'}}, \
         endpoints: ['http://es.invalid:9200/behind'], {MANUAL}}}",
        proxy.url(),
        password.display()
    );
    let sink = sink(&text);
    send_all_done(&*sink, &alerts(1..=2)).await;
    // The password that its file holds by now.
    std::fs::write(&password, "other\n").unwrap();
    send_all_done(&*sink, &alerts(3..=4)).await;
    for (bulk, pair) in proxy.bulks().iter().zip(["bWU6aHVzaA==", "bWU6b3RoZXI="]) {
        assert!(
            bulk.line
                .starts_with("POST http://es.invalid:9200/behind/_bulk?"),
            "{}",
            bulk.line
        );
        assert_eq!(bulk.headers["proxy-authorization"], format!("Basic {pair}"));
    }
}
