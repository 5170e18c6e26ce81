//! The way to the server: several hosts, one of which takes a request.
//!
//! ```text
//! request ─▶ hosts that answer, in turn ─▶ no connection, 502, 503, 504 ─▶ the next host
//!                    ▲                                │
//!                    └── asked `HEAD /` first ◀── rests for a while
//! ```
//! One official client (`Transport`) a host, so that a failure has a name and a host that is away is left out. A request
//! may have arrived although its answer did not; sent again, what it held is a conflict by id. A host is asked for a sign of
//! life before its first request and after each failure, because that question has a short time limit and no body.
//!
//! Certificates and secrets are read again when their files change; a refused secret (401) at once.

use std::error::Error as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use elasticsearch::auth::{ClientCertificate, Credentials};
use elasticsearch::cert::{Certificate, CertificateValidation};
use elasticsearch::http::headers::{
    AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER,
};
use elasticsearch::http::transport::{SingleNodeConnectionPool, Transport, TransportBuilder};
use elasticsearch::http::{Method, Url};
use jiff::Timestamp;

use super::response::retry_after;
use crate::http::{Proxy, hidden};
use crate::secret::Secret;
use crate::stamp::Stamp;
use crate::tls::ClientTls;

/// For the sign of life.
const SIGN_OF_LIFE: Duration = Duration::from_secs(10);
/// A host that did not answer rests so long, and twice as long each further time.
const FIRST_REST: Duration = Duration::from_secs(1);
const LONGEST_REST: Duration = Duration::from_secs(60);
/// Largest answer that is read: that to the largest batch, all of it refused, is below this.
const MAX_ANSWER: u64 = 256 << 20;

/// What the client is made of.
pub(super) struct Settings {
    pub(super) endpoints: Vec<Url>,
    pub(super) tls: ClientTls,
    /// Never one that the environment names: who reads the settings knows the way.
    pub(super) proxy: Proxy,
    pub(super) timeout: Duration,
    pub(super) identity: Identity,
}

/// Who the program is.
pub(super) enum Identity {
    /// Nobody, or who its certificate says.
    Anonymous,
    /// `ID:KEY`, or that in base64.
    ApiKey(Secret),
    /// User and password.
    Basic(String, Secret),
}

/// What a request carries.
#[derive(Clone, Debug, Default)]
pub(super) struct Body {
    pub(super) bytes: Bytes,
    /// `application/x-ndjson` rather than `application/json`.
    pub(super) lines: bool,
    pub(super) gzip: bool,
}

/// What came back.
pub(super) struct Answer {
    /// The host that answered.
    pub(super) host: String,
    pub(super) status: u16,
    pub(super) retry_after: Option<Duration>,
    pub(super) body: Bytes,
}

/// No host answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub(super) struct Unreached {
    /// Every host with what happened there.
    pub(super) reason: String,
    /// A request was taken in, as it seems, and not answered in time.
    pub(super) slow: bool,
}

/// The client of one sink.
pub(super) struct Client {
    settings: Settings,
    /// Made anew when a certificate file or that of the proxy's password has changed.
    hosts: Mutex<([Stamp; 2], Arc<[Host]>)>,
    turn: AtomicUsize,
}

struct Host {
    /// Without a slash at its end.
    name: String,
    transport: Transport,
    health: Mutex<Health>,
}

#[derive(Default)]
struct Health {
    proven: bool,
    failures: u32,
    rests_until: Option<Instant>,
}

struct Failure {
    reason: String,
    slow: bool,
}

impl Client {
    /// Makes the client; connects to nothing yet.
    pub(super) fn new(settings: Settings) -> Result<Self, String> {
        let stamp = settings.stamps();
        let hosts = settings.hosts()?;
        Ok(Client {
            settings,
            hosts: Mutex::new((stamp, hosts)),
            turn: AtomicUsize::new(0),
        })
    }

    /// Hosts and ports that requests go to first.
    pub(super) fn first_hosts(&self) -> Vec<(String, u16)> {
        let host = |url: &Url, usual: u16| {
            let port = url.port_or_known_default().unwrap_or(usual);
            (url.host_str().unwrap_or_default().to_owned(), port)
        };
        match self.settings.proxy.address() {
            Some(Ok(proxy)) => vec![host(&proxy, 80)],
            // Settings that hold another address are refused when they are read.
            _ => {
                let endpoints = self.settings.endpoints.iter();
                endpoints.map(|url| host(url, 9200)).collect()
            }
        }
    }

    pub(super) fn is_encrypted(&self) -> bool {
        let mut endpoints = self.settings.endpoints.iter();
        endpoints.any(|url| url.scheme() == "https")
    }

    /// Sends a request to a host that takes it.
    pub(super) async fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<Body>,
    ) -> Result<Answer, Unreached> {
        let answer = self.through(method, path, body.as_ref()).await?;
        if answer.status == 401 && self.settings.identity.refused() {
            return self.through(method, path, body.as_ref()).await;
        }
        Ok(answer)
    }

    async fn through(
        &self,
        method: Method,
        path: &str,
        body: Option<&Body>,
    ) -> Result<Answer, Unreached> {
        let hosts = self.hosts();
        let order = self.order(&hosts);
        let (mut told, mut slow, mut busy) = (Vec::new(), false, None);
        for host in order {
            match self.ask(host, method, path, body).await {
                // Another may do better; if none does, this is the answer.
                Ok(answer) if matches!(answer.status, 502..=504) => busy = Some(answer),
                Ok(answer) => return Ok(answer),
                Err(failure) => {
                    slow |= failure.slow;
                    told.push(format!("{}: {}", host.name, failure.reason));
                }
            }
        }
        busy.ok_or_else(|| Unreached {
            reason: told.join("; "),
            slow,
        })
    }

    async fn ask(
        &self,
        host: &Host,
        method: Method,
        path: &str,
        body: Option<&Body>,
    ) -> Result<Answer, Failure> {
        let answered = async {
            if !host.health().proven {
                let limit = SIGN_OF_LIFE.min(self.settings.timeout);
                self.exchange(host, Method::Head, "", None, limit).await?;
                host.health().proven = true;
            }
            let limit = self.settings.timeout;
            self.exchange(host, method, path, body, limit).await
        };
        let answered = answered.await;
        host.remember(answered.is_ok());
        answered
    }

    async fn exchange(
        &self,
        host: &Host,
        method: Method,
        path: &str,
        body: Option<&Body>,
        limit: Duration,
    ) -> Result<Answer, Failure> {
        let headers = self.headers(body).map_err(Failure::of_text)?;
        let bytes = body.map(|body| body.bytes.clone());
        let response = host
            .transport
            .send(method, path, headers, None::<&()>, bytes, Some(limit))
            .await
            .map_err(|error| Failure::of(&error))?;
        let status = response.status_code().as_u16();
        let wait = response
            .headers()
            .get(RETRY_AFTER)
            .and_then(|value| retry_after(value.to_str().ok()?, Timestamp::now()));
        if response
            .content_length()
            .is_some_and(|length| length > MAX_ANSWER)
        {
            return Err(Failure::of_text(
                "its answer is longer than 256 MiB".to_owned(),
            ));
        }
        let mut body = response
            .bytes()
            .await
            .map_err(|error| Failure::of(&error))?;
        if status >= 300 {
            body = self.hidden(body);
        }
        Ok(Answer {
            host: host.name.clone(),
            status,
            retry_after: wait,
            body,
        })
    }

    /// A refusal without what it repeats of the credentials.
    fn hidden(&self, body: Bytes) -> Bytes {
        let secrets = self.settings.identity.secrets().into_iter();
        secrets
            .chain(self.settings.proxy.secrets())
            .fold(body, |body, secret| {
                let hidden = hidden(&String::from_utf8_lossy(&body), &secret);
                hidden.map_or(body, Bytes::from)
            })
    }

    fn headers(&self, body: Option<&Body>) -> Result<HeaderMap, String> {
        let mut headers = HeaderMap::new();
        if let Some(value) = self.settings.identity.header() {
            let mut value = HeaderValue::from_str(&value)
                .map_err(|_| "the secret of `auth` holds what no header can carry".to_owned())?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        if body.is_some_and(|body| body.lines) {
            headers.insert(
                CONTENT_TYPE,
                HeaderValue::from_static("application/x-ndjson"),
            );
        }
        if body.is_some_and(|body| body.gzip) {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        Ok(headers)
    }

    /// The hosts with the certificates and the proxy's password of now.
    fn hosts(&self) -> Arc<[Host]> {
        let stamp = self.settings.stamps();
        let mut held = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if held.0 != stamp {
            match self.settings.hosts() {
                Ok(hosts) => *held = (stamp, hosts),
                // Half written, perhaps: looked at again by the next request.
                Err(error) => {
                    tracing::warn!(
                        error,
                        "the certificates and the proxy's password that were read before stay in use"
                    );
                }
            }
        }
        Arc::clone(&held.1)
    }

    /// Those that answer, each first in its turn; those that rest only if there are no others.
    fn order<'a>(&self, hosts: &'a [Host]) -> Vec<&'a Host> {
        let first = self.turn.fetch_add(1, Ordering::Relaxed) % hosts.len().max(1);
        let (late, early) = hosts.split_at(first);
        let all: Vec<&Host> = early.iter().chain(late).collect();
        let awake: Vec<&Host> = all.iter().copied().filter(|host| !host.rests()).collect();
        if awake.is_empty() { all } else { awake }
    }
}

impl Settings {
    fn stamps(&self) -> [Stamp; 2] {
        [self.tls.stamp(), self.proxy.stamp()]
    }

    fn hosts(&self) -> Result<Arc<[Host]>, String> {
        self.endpoints.iter().map(|url| self.host(url)).collect()
    }

    fn host(&self, url: &Url) -> Result<Host, String> {
        let mut builder = TransportBuilder::new(SingleNodeConnectionPool::new(url.clone()));
        let bad = |error: &dyn std::error::Error| format!("tls: {error}");
        if let Some(pem) = self.tls.ca_pem().map_err(|error| error.to_string())? {
            let authorities = Certificate::from_pem(&pem).map_err(|error| bad(&error))?;
            builder = builder.cert_validation(CertificateValidation::Full(authorities));
        }
        if self.tls.insecure_skip_verify {
            builder = builder.cert_validation(CertificateValidation::None);
        }
        if let Some(pem) = self.tls.identity_pem().map_err(|error| error.to_string())? {
            builder = builder.auth(Credentials::Certificate(ClientCertificate::Pem(pem)));
        }
        builder = match self.proxy.address().transpose()? {
            None => builder.disable_proxy(),
            Some(proxy) => match self.proxy.credentials()? {
                None => builder.proxy(proxy, None, None),
                Some((user, password)) => builder.proxy(proxy, Some(user), Some(password.expose())),
            },
        };
        let transport = builder.build().map_err(|error| bad(&error))?;
        Ok(Host {
            name: url.as_str().trim_end_matches('/').to_owned(),
            transport,
            health: Mutex::default(),
        })
    }
}

impl Identity {
    fn header(&self) -> Option<String> {
        Some(match self {
            Identity::Anonymous => return None,
            Identity::ApiKey(key) => {
                let key = key.current();
                match key.expose() {
                    pair if pair.contains(':') => format!("ApiKey {}", BASE64.encode(pair)),
                    encoded => format!("ApiKey {encoded}"),
                }
            }
            Identity::Basic(user, password) => {
                let pair = format!("{user}:{}", password.current().expose());
                format!("Basic {}", BASE64.encode(pair))
            }
        })
    }

    /// What must not be seen of it, in every form in which it is sent.
    fn secrets(&self) -> Vec<String> {
        let (Identity::ApiKey(secret) | Identity::Basic(_, secret)) = self else {
            return Vec::new();
        };
        let sent = self.header().unwrap_or_default();
        let encoded = sent.split_once(' ').map(|(_, encoded)| encoded.to_owned());
        encoded
            .into_iter()
            .chain([secret.current().expose().to_owned()])
            .collect()
    }

    /// The server refused who this is; true if it is somebody else now.
    fn refused(&self) -> bool {
        match self {
            Identity::Anonymous => false,
            Identity::ApiKey(secret) | Identity::Basic(_, secret) => secret.refused(),
        }
    }
}

impl Host {
    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rests(&self) -> bool {
        self.health()
            .rests_until
            .is_some_and(|until| until > Instant::now())
    }

    fn remember(&self, answered: bool) {
        let mut health = self.health();
        if answered {
            *health = Health {
                proven: true,
                ..Health::default()
            };
            return;
        }
        let rest = FIRST_REST.saturating_mul(1 << health.failures.min(10));
        health.proven = false;
        health.failures += 1;
        health.rests_until = Some(Instant::now() + rest.min(LONGEST_REST));
    }
}

impl Failure {
    fn of(error: &elasticsearch::Error) -> Self {
        Failure {
            reason: in_words(error),
            slow: error.is_timeout(),
        }
    }

    fn of_text(reason: String) -> Self {
        Failure {
            reason,
            slow: false,
        }
    }
}

/// The causes of an error, without the layers that only say that there was one.
fn in_words(error: &elasticsearch::Error) -> String {
    let mut causes = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        causes.push(cause.to_string());
        next = cause.source();
    }
    causes.dedup();
    let layer = |text: &String| {
        text.starts_with("error sending request") || text.starts_with("client error")
    };
    let words: Vec<String> = causes.iter().filter(|text| !layer(text)).cloned().collect();
    match words.is_empty() {
        true => causes.pop().unwrap_or_else(|| error.to_string()),
        false => words.join(": "),
    }
}
