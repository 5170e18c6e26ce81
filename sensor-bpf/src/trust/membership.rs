//! Membership of a relay's own authority: joined with a token, renewed with the certificate itself.
//!
//! ```text
//! nothing held ─ token, pin ─▶ Join ─▶ held ─ two thirds of its life ─▶ Renew ─▶ held ─ …
//!      ▲                                 │
//!      └── ended, or a new token ────────┘
//! ```
//! A relay that is away costs nothing but time: events wait in the spool, and what is enforced stays.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use proto::enrolment::enrolment_client::EnrolmentClient;
use proto::enrolment::{Certificate as Given, JoinRequest, RenewRequest};
use proto::{JoinToken, RELAY_NAME, StreamId};
use tokio::sync::{Mutex, watch};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use super::TrustError;
use super::files::{Files, Held, failed, request};
use super::pin::{Pinned, is_pinned};
use crate::address::Relay;

/// What a sensor joins as.
const ROLE: &str = "sensor";
/// For a connection, and for an answer.
const WAIT: Duration = Duration::from_secs(10);
/// Between two attempts to renew: a tenth of what is left, within these.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));

/// A cheap handle.
#[derive(Debug, Clone)]
pub struct Membership {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    files: Files,
    token_file: PathBuf,
    sensor: String,
    /// One asks at a time: the link and the renewal use the same files.
    asking: Mutex<()>,
}

impl Membership {
    /// Looks whether there is a certificate or a token.
    pub(super) fn open(
        folder: PathBuf,
        token_file: PathBuf,
        sensor: String,
    ) -> Result<Self, TrustError> {
        let inner = Inner {
            files: Files::open(folder)?,
            token_file,
            sensor,
            asking: Mutex::new(()),
        };
        if inner.files.held()?.is_none_or(|held| held.is_over()) {
            inner.token()?;
        }
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// What to show to a relay, and whom to believe; joins first if need be.
    pub(super) async fn tls(&self, relay: &Relay) -> Result<ClientTlsConfig, TrustError> {
        let _asking = self.inner.asking.lock().await;
        let good = self.inner.files.held()?.filter(|held| !held.is_over());
        let held = match (good, self.inner.token()) {
            (Some(held), Ok(token)) if token.name() != held.token => {
                // Somebody put a new token there: this sensor is to join anew.
                self.inner.join(relay, &token).await.unwrap_or_else(|why| {
                    tracing::warn!(%why, "the new token was of no use; the certificate stays");
                    held
                })
            }
            (Some(held), _) => held,
            (None, token) => self.inner.join(relay, &token?).await?,
        };
        Ok(held.tls())
    }

    /// Renews until the sensor ends. Relays are tried in turn.
    pub(crate) async fn renew(self, relays: Vec<Relay>, mut stop: watch::Receiver<bool>) {
        let mut failed = false;
        loop {
            let pause = self.until_due(failed);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
            if self.is_due() {
                failed = !self.try_all(&relays).await;
            }
        }
    }

    /// How long to wait for the next renewal, or for the next attempt.
    fn until_due(&self, failed: bool) -> Duration {
        let Some(held) = self.inner.held() else {
            // The link joins.
            return AGAIN.0;
        };
        let now = now();
        let left = held.expires.saturating_sub(now);
        let pause = if failed {
            left / 10
        } else {
            held.due().saturating_sub(now).min(left)
        };
        Duration::from_secs(pause).clamp(AGAIN.0, if failed { AGAIN.1 } else { Duration::MAX })
    }

    fn is_due(&self) -> bool {
        let held = self.inner.held();
        held.is_some_and(|held| !held.is_over() && held.due() <= now())
    }

    async fn try_all(&self, relays: &[Relay]) -> bool {
        for relay in relays.iter().filter(|relay| relay.is_tls()) {
            let _asking = self.inner.asking.lock().await;
            match self.inner.renew(relay).await {
                Ok(held) => {
                    tracing::info!(%relay, days = (held.expires - now()) / 86_400, "certificate renewed");
                    return true;
                }
                Err(why) => tracing::warn!(%relay, %why, "certificate not renewed"),
            }
        }
        false
    }
}

impl Inner {
    fn token(&self) -> Result<JoinToken, TrustError> {
        let path = &self.token_file;
        let text = std::fs::read_to_string(path).map_err(failed("join token", path))?;
        text.parse().map_err(|source| TrustError::Token {
            path: path.clone(),
            source,
        })
    }

    /// What is held, if it can be read; the link says why it cannot.
    fn held(&self) -> Option<Held> {
        self.files.held().ok().flatten()
    }

    async fn join(&self, relay: &Relay, token: &JoinToken) -> Result<Held, TrustError> {
        let key = self.files.next_key()?;
        let asked = JoinRequest {
            token: token.reveal(),
            role: ROLE.to_owned(),
            id: self.sensor.clone(),
            request: request(&key, &self.sensor)?.into(),
        };
        let pinned = Arc::new(Pinned::new(*token.pin()));
        let tls = ClientTlsConfig::new().domain_name(RELAY_NAME);
        let endpoint = endpoint(relay)
            .tls_config_with_verifier(tls, pinned)
            .map_err(unreached)?;
        let mut client = client(&endpoint).await?;
        let given = client.join(asked).await.map_err(refused)?.into_inner();
        let authority = CertificateDer::from_pem_slice(given.authority.as_bytes());
        if !authority.is_ok_and(|authority| is_pinned(&authority, token.pin())) {
            let why = "the relay's answer names another authority than the token";
            return Err(TrustError::Join(why.to_owned()));
        }
        let held = self.keep(&token.name(), &key, &given)?;
        tracing::info!(%relay, sensor = self.sensor, "joined");
        Ok(held)
    }

    async fn renew(&self, relay: &Relay) -> Result<Held, TrustError> {
        let held = self.held().filter(|held| !held.is_over());
        let held = held.ok_or_else(|| TrustError::Join("the certificate has ended".to_owned()))?;
        let key = self.files.next_key()?;
        let asked = RenewRequest {
            request: request(&key, &self.sensor)?.into(),
        };
        let endpoint = endpoint(relay).tls_config(held.tls()).map_err(unreached)?;
        let mut client = client(&endpoint).await?;
        let given = client.renew(asked).await.map_err(refused)?.into_inner();
        self.keep(&held.token, &key, &given)
    }

    fn keep(&self, token: &str, key: &rcgen::KeyPair, given: &Given) -> Result<Held, TrustError> {
        let Given {
            chain, authority, ..
        } = given;
        self.files.keep(token, key, chain, authority)?;
        let held = self.files.held()?;
        held.ok_or_else(|| TrustError::Join("what was kept is gone".to_owned()))
    }
}

impl Held {
    fn tls(&self) -> ClientTlsConfig {
        // Both readers of the text pick what is theirs.
        ClientTlsConfig::new()
            .domain_name(RELAY_NAME)
            .ca_certificate(Certificate::from_pem(&self.authority))
            .identity(Identity::from_pem(&self.identity, &self.identity))
    }

    fn is_over(&self) -> bool {
        self.expires <= now()
    }

    /// Unix seconds: at two thirds of its life, and up to a twentieth earlier, by its own end, so that a thousand sensors
    /// that joined together do not renew together.
    fn due(&self) -> u64 {
        let life = self.expires.saturating_sub(self.issued);
        let [first, second, ..] = StreamId::random().0;
        let early = life * u64::from(u16::from_be_bytes([first, second])) / (20 * 65_536);
        (self.issued + life * 2 / 3).saturating_sub(early)
    }
}

fn endpoint(relay: &Relay) -> Endpoint {
    Channel::builder(relay.uri().clone())
        .connect_timeout(WAIT)
        .timeout(WAIT)
}

async fn client(endpoint: &Endpoint) -> Result<EnrolmentClient<Channel>, TrustError> {
    let dialed = tokio::time::timeout(WAIT, endpoint.connect()).await;
    let channel = dialed
        .map_err(|_| TrustError::Join("the relay does not answer".to_owned()))?
        .map_err(unreached)?;
    Ok(EnrolmentClient::new(channel))
}

fn unreached(why: tonic::transport::Error) -> TrustError {
    TrustError::Join(crate::link::causes(&why))
}

fn refused(status: tonic::Status) -> TrustError {
    TrustError::Join(format!("the relay says: {}", status.message()))
}

/// Unix seconds.
fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}
