//! Joining a relay's own authority: once for each token, renewed by the certificate itself, out when it is revoked.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use proto::enrolment::enrolment_client::EnrolmentClient;
use proto::enrolment::tokens_client::TokensClient;
use proto::enrolment::{
    Certificate as Given, CreateRequest, JoinRequest, ListRequest, RenewRequest, RevokeRequest,
};
use proto::link::from_relay::Is as Reply;
use proto::{JoinToken, RELAY_NAME};
use rcgen::{CertificateParams, KeyPair};
use relay::Config;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Status};

use crate::roles::greet;
use crate::support::{Relay, SOON, settings};

/// A relay that gives certificates.
fn giving(folder: &Path) -> Config {
    let mut config = settings(folder, "");
    config.relay.tls = Some(relay::Tls {
        enrolment: true,
        ..relay::Tls::default()
    });
    config
}

/// A machine that joins: its key stays the same.
struct Machine(KeyPair);

impl Machine {
    fn new() -> Self {
        Self(KeyPair::generate().expect("a key"))
    }

    fn request(&self) -> Vec<u8> {
        let params = CertificateParams::new(vec!["somebody.else".to_owned()]).expect("params");
        let request = params.serialize_request(&self.0).expect("a request");
        request.der().to_vec()
    }

    /// Certificate and key.
    fn identity(&self, given: &Given) -> Identity {
        Identity::from_pem(&given.chain, self.0.serialize_pem())
    }
}

/// Connects as whoever believes this folder's authority.
async fn connect(
    folder: &Path,
    relay: &Relay,
    identity: Option<Identity>,
) -> Result<Channel, tonic::transport::Error> {
    let authority = fs::read(folder.join("data/authority/ca.crt")).expect("an authority");
    let mut tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(authority))
        .domain_name(RELAY_NAME);
    if let Some(identity) = identity {
        tls = tls.identity(identity);
    }
    let endpoint = Endpoint::from_shared(format!("https://{}", relay.at.link));
    endpoint
        .expect("an address")
        .tls_config(tls)?
        .connect()
        .await
}

async fn admin(relay: &Relay) -> TokensClient<Channel> {
    let address = format!("unix:{}", relay.at.admin.display());
    let endpoint = Endpoint::from_shared(address).expect("an address");
    TokensClient::new(endpoint.connect().await.expect("connected"))
}

async fn token(relay: &Relay, role: &str, id: &str) -> String {
    let request = CreateRequest {
        role: role.to_owned(),
        ttl_seconds: 3600,
        id: id.to_owned(),
    };
    let created = admin(relay).await.create(request).await;
    created.expect("a token").into_inner().token
}

async fn join(
    folder: &Path,
    relay: &Relay,
    token: &str,
    id: &str,
    machine: &Machine,
) -> Result<Given, Status> {
    let channel = connect(folder, relay, None).await.expect("connected");
    let request = JoinRequest {
        token: token.to_owned(),
        role: "sensor".to_owned(),
        id: id.to_owned(),
        request: machine.request().into(),
    };
    let joined = EnrolmentClient::new(channel).join(request).await?;
    Ok(joined.into_inner())
}

/// What becomes of a Hello with this certificate.
async fn hello(folder: &Path, relay: &Relay, identity: Option<Identity>, id: &str) -> Code {
    match connect(folder, relay, identity).await {
        Ok(channel) => greet(channel, id)
            .await
            .map_or_else(|status| status.code(), |_| Code::Ok),
        Err(_) => Code::Unavailable,
    }
}

/// Says Hello until the session before has ended.
async fn is_heard(folder: &Path, relay: &Relay, identity: Option<Identity>, id: &str) {
    let deadline = tokio::time::Instant::now() + SOON;
    loop {
        match hello(folder, relay, identity.clone(), id).await {
            Code::Ok => return,
            Code::AlreadyExists if tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
            code => panic!("{code:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_lets_one_machine_in_and_its_certificate_speaks_for_it_and_is_renewed() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let relay = Relay::with(giving(folder)).await;
    assert_eq!(
        hello(folder, &relay, None, "a").await,
        Code::Unauthenticated
    );
    let (machine, next) = (Machine::new(), Machine::new());
    let token = token(&relay, "sensor", "").await;
    let given = join(folder, &relay, &token, "a", &machine)
        .await
        .expect("in");
    assert!(
        !given.chain.contains("somebody.else"),
        "only the key is used"
    );
    let identity = || Some(machine.identity(&given));
    is_heard(folder, &relay, identity(), "a").await;
    assert_eq!(
        hello(folder, &relay, identity(), "b").await,
        Code::PermissionDenied,
        "in another's name"
    );

    let channel = connect(folder, &relay, identity())
        .await
        .expect("connected");
    let request = RenewRequest {
        request: next.request().into(),
    };
    let renewed = EnrolmentClient::new(channel).renew(request.clone()).await;
    let renewed = renewed.expect("renewed").into_inner();
    for identity in [identity(), Some(next.identity(&renewed))] {
        is_heard(folder, &relay, identity, "a").await;
    }
    // Without a certificate there is nothing to renew.
    let channel = connect(folder, &relay, None).await.expect("connected");
    let refused = EnrolmentClient::new(channel).renew(request).await;
    assert_eq!(refused.expect_err("refused").code(), Code::Unauthenticated);
    let renewed_once = r#"cresset_enrolments_total{outcome="renewed"}"#;
    relay.metric_is(renewed_once, 1.0).await;

    // All of it is known after a restart, and the key is nobody else's.
    relay.stop().await;
    let key = fs::metadata(folder.join("data/authority/authority.pem")).expect("a key");
    assert_eq!(key.permissions().mode() & 0o777, 0o600);
    let relay = Relay::with(giving(folder)).await;
    is_heard(folder, &relay, identity(), "a").await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_refused_with_the_reason() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let relay = Relay::with(giving(folder)).await;
    let (first, second) = (Machine::new(), Machine::new());
    let used = token(&relay, "sensor", "").await;
    join(folder, &relay, &used, "a", &first).await.expect("in");
    // Whoever lost the answer asks again.
    join(folder, &relay, &used, "a", &first).await.expect("in");
    let other = token(&relay, "sensor", "").await;
    let role = token(&relay, "relay", "").await;
    let held = token(&relay, "sensor", "c").await;
    let forged: Vec<&str> = used.split('.').collect();
    let forged = format!(
        "{}.{}.{}.{}",
        forged[0],
        forged[1],
        "0".repeat(32),
        forged[3]
    );
    for (token, id, code, words) in [
        (
            &used,
            "b",
            Code::PermissionDenied,
            "was used by sensor/a at",
        ),
        (
            &used,
            "a",
            Code::PermissionDenied,
            "was used by sensor/a at",
        ),
        (
            &other,
            "a",
            Code::PermissionDenied,
            "sensor/a has a certificate with another key",
        ),
        (
            &role,
            "b",
            Code::PermissionDenied,
            "is for the role relay, and sensor was asked for",
        ),
        (
            &held,
            "b",
            Code::PermissionDenied,
            "is for c and nobody else",
        ),
        (&forged, "b", Code::Unauthenticated, "is not known here"),
        (
            &"cresset-join.1.2.3".to_owned(),
            "b",
            Code::InvalidArgument,
            "no join token",
        ),
        (&other, "../b", Code::InvalidArgument, "an id has"),
        (&other, "", Code::InvalidArgument, "an id has"),
    ] {
        let why = join(folder, &relay, token, id, &second).await;
        let why = why.expect_err("refused");
        assert_eq!(why.code(), code, "{words}: {why}");
        assert!(why.message().contains(words), "{words}: {why}");
        let secret = token.split('.').nth(2).expect("a secret");
        assert!(
            secret.len() < 32 || !why.message().contains(secret),
            "{why}"
        );
    }
    // A request that somebody else signed, or nobody.
    let mut request = JoinRequest {
        token: other.clone(),
        role: "sensor".to_owned(),
        id: "b".to_owned(),
        request: second.request().into(),
    };
    let mut bytes = second.request();
    if let Some(last) = bytes.last_mut() {
        *last ^= 1;
    }
    request.request = bytes.into();
    let channel = connect(folder, &relay, None).await.expect("connected");
    let why = EnrolmentClient::new(channel).join(request).await;
    assert_eq!(why.expect_err("refused").code(), Code::InvalidArgument);
    relay
        .metric_is(r#"cresset_enrolments_total{outcome="used"}"#, 2.0)
        .await;
    relay.stop().await;

    // An hour later.
    let book = folder.join("data/authority/book.json");
    let text = fs::read_to_string(&book).expect("a book");
    let mut text: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    for token in text["tokens"].as_object_mut().expect("tokens").values_mut() {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        token["ends"] = (now.expect("a time").as_secs() - 60).into();
    }
    fs::write(&book, text.to_string()).expect("written");
    let relay = Relay::with(giving(folder)).await;
    for (token, id) in [(&other, "b"), (&held, "c")] {
        let why = join(folder, &relay, token, id, &second).await;
        let why = why.expect_err("refused");
        assert_eq!(why.code(), Code::Unauthenticated);
        assert!(why.message().contains("ended at 2"), "{why}");
    }
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_revoked_loses_the_connection_at_once_and_nobody_else_does() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let relay = Relay::with(giving(folder)).await;
    let mut heard = Vec::new();
    let mut identities = Vec::new();
    for id in ["a", "b"] {
        let machine = Machine::new();
        let token = token(&relay, "sensor", "").await;
        let given = join(folder, &relay, &token, id, &machine)
            .await
            .expect("in");
        let channel = connect(folder, &relay, Some(machine.identity(&given))).await;
        heard.push(
            greet(channel.expect("connected"), id)
                .await
                .expect("welcome"),
        );
        identities.push(machine.identity(&given));
    }
    let name = "sensor/a".to_owned();
    let revoked = admin(&relay).await.revoke(RevokeRequest { name }).await;
    assert!(revoked.expect("revoked").into_inner().audited);
    let [of_a, of_b] = &mut heard[..] else {
        panic!("two sessions were begun");
    };
    while of_a
        .heard
        .message()
        .await
        .is_ok_and(|message| message.is_some())
    {}
    relay
        .metric_is(
            r#"cresset_connection_failures_total{listener="link",reason="revoked"}"#,
            1.0,
        )
        .await;
    let [a, b] = &identities[..] else {
        panic!("two joined");
    };
    let again = hello(folder, &relay, Some(a.clone()), "a").await;
    assert_eq!(again, Code::Unauthenticated);
    // The other's session lives: a second one of its name is refused for it.
    let second = hello(folder, &relay, Some(b.clone()), "b").await;
    assert_eq!(second, Code::AlreadyExists);
    let rules = of_b
        .heard
        .message()
        .await
        .expect("alive")
        .and_then(|first| first.is);
    assert!(matches!(rules, Some(Reply::Rules(_))), "{rules:?}");
    let listed = admin(&relay).await.list(ListRequest {}).await;
    let members = listed.expect("a list").into_inner().members;
    let states: Vec<_> = members
        .iter()
        .map(|member| (&member.id[..], member.revoked))
        .collect();
    assert_eq!(states, [("a", true), ("b", false)]);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_authority_under_the_same_address_lets_nobody_of_the_first_in() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let relay = Relay::with(giving(folder)).await;
    let machine = Machine::new();
    let text = token(&relay, "sensor", "").await;
    let given = join(folder, &relay, &text, "a", &machine)
        .await
        .expect("in");
    let unused = token(&relay, "sensor", "").await;
    relay.stop().await;
    fs::remove_dir_all(folder.join("data/authority")).expect("removed");
    let relay = Relay::with(giving(folder)).await;
    // It believes the new authority, and shows the old one's certificate.
    let shown = hello(folder, &relay, Some(machine.identity(&given)), "a").await;
    assert_ne!(shown, Code::Ok);
    let why = join(folder, &relay, &unused, "b", &Machine::new()).await;
    assert_eq!(why.expect_err("refused").code(), Code::Unauthenticated);
    let (old, new): (JoinToken, JoinToken) = (
        unused.parse().expect("a token"),
        token(&relay, "sensor", "").await.parse().expect("a token"),
    );
    assert_ne!(
        old.pin(),
        new.pin(),
        "so the machine does not believe it either"
    );
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_without_an_authority_says_how_to_get_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let relay = Relay::start(folder.path()).await;
    let request = CreateRequest {
        role: "sensor".to_owned(),
        ttl_seconds: 3600,
        id: String::new(),
    };
    let why = admin(&relay).await.create(request).await.expect_err("none");
    assert_eq!(why.code(), Code::FailedPrecondition);
    assert!(why.message().contains("enrolment: true"), "{why}");
    relay.stop().await;
}
