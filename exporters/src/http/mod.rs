//! One HTTP client for every destination that speaks HTTP: encryption, proxy, credentials, compression, time limits, and one
//! place that says what a status code means for a batch.
//!
//! ```text
//! offer ─ Request ─▶ Http::send ─ connection of the present certificates, secret of the present file ─▶ destination
//!   ▲                                                                                                     │
//!   └── Taken │ Refused (this content) │ Unavailable (nothing at present) ◀──── status::judge ◀───────────┘
//! ```
//!
//! - Redirects are not followed: a POST that is sent on would become a GET, or would carry credentials elsewhere.
//! - Proxies come from the settings and never from the environment, so that two sinks can differ and a shell cannot reroute.
//! - Answers are read up to a bound; a destination that sends more is cut off there. What it repeats of the credentials is
//!   taken out before anybody sees it.
//! - The fan-out waits, tries again and bounds what is under way, so there is none of that here.

mod auth;
mod status;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use flate2::Compression as Level;
use flate2::write::GzEncoder;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Method, Url, redirect};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use yaml::{Node, Problem};

use crate::dial::Dial;
use crate::secret::{Keys, Text};
use crate::stamp::Stamp;
use crate::tls::ClientTls;
use crate::{Failed, Trial, Unavailable};

pub use auth::Auth;
pub(crate) use auth::Credentials;
pub(crate) use status::{Answer, Judged, hidden, shown};

/// For names, TCP and TLS.
const CONNECT: Duration = Duration::from_secs(10);
/// Kept open for the next batch.
const IDLE: Duration = Duration::from_secs(60);
/// Of an answer; more is not read.
const MAX_ANSWER: usize = 1 << 20;

/// A proxy between this program and the destination.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Proxy {
    /// `http://HOST:PORT`; HTTPS goes through it by CONNECT.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Basic authentication at the proxy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// A file with the password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<std::path::PathBuf>,
    /// A variable with the password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_env: Option<String>,
}

/// How bodies are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// As they are.
    None,
    /// `Content-Encoding: gzip`.
    #[default]
    Gzip,
}

/// What a sink's settings say of its connections.
pub(crate) struct Options<'a> {
    pub(crate) tls: &'a ClientTls,
    pub(crate) proxy: &'a Proxy,
    pub(crate) auth: &'a Auth,
    pub(crate) headers: &'a BTreeMap<String, String>,
    pub(crate) compression: Compression,
    /// For one request and its whole answer.
    pub(crate) timeout: Duration,
}

/// Headers that say who somebody is, by their names.
fn is_secret(header: &str) -> bool {
    let header = header.to_ascii_lowercase();
    let words = [
        "authorization",
        "cookie",
        "token",
        "secret",
        "password",
        "api-key",
        "apikey",
        "access-key",
    ];
    words.iter().any(|word| header.contains(word))
}

impl Options<'_> {
    /// Reports files and variables that are not there.
    pub(crate) fn look(&self, node: &Node, problems: &mut Vec<Problem>) {
        self.tls.look("tls", node, problems);
        self.auth.look(node, problems);
        self.proxy.keys().look(node, problems);
    }

    /// Reports what cannot work.
    pub(crate) fn check(&self, node: &Node, problems: &mut Vec<Problem>) {
        self.tls.check("tls", node, problems);
        self.auth.check(node, problems);
        self.proxy.check(node, problems);
        for (name, value) in self.headers {
            let path = format!("headers.{name}");
            if HeaderName::try_from(name).is_err() || HeaderValue::try_from(value).is_err() {
                problems.push(node.problem_at(&path, "cannot stand in an HTTP header"));
            }
            if is_secret(name) {
                let message = format!(
                    "would put a secret into the settings; use auth with a password_file, or with a token_file and `header: {name}`"
                );
                problems.push(node.problem_at(&path, message));
            }
        }
        if !(Duration::from_millis(100)..=Duration::from_secs(600)).contains(&self.timeout) {
            problems.push(node.problem_at("timeout", "use 100ms to 10m"));
        }
    }
}

impl Proxy {
    pub(crate) fn keys(&self) -> Keys<'_> {
        Keys {
            name: "proxy.password",
            file: self.password_file.as_deref(),
            env: self.password_env.as_deref(),
        }
    }

    pub(crate) fn check(&self, node: &Node, problems: &mut Vec<Problem>) {
        self.keys().check(node, problems);
        if let Some(Err(why)) = self.address() {
            problems.push(node.problem_at("proxy.url", why));
        }
        if self.username.is_some() && self.url.is_none() {
            let message = "is missing, and there are credentials for it";
            problems.push(node.problem_at("proxy.url", message));
        }
        if self.username.is_some() != self.keys().source().is_some() {
            let message = "a username and a password_file (or password_env) go together";
            problems.push(node.problem_at("proxy", message));
        }
    }

    /// Where it is, if there is one. The way to it is not encrypted; what goes through it may be.
    pub(crate) fn address(&self) -> Option<Result<Url, String>> {
        let text = self.url.as_deref()?;
        Some(match endpoint(text) {
            Ok(url) if url.scheme() == "https" => Err(format!(
                "`{text}`: a proxy is spoken to without encryption, and https destinations are encrypted through it; write \
                 http://HOST:PORT"
            )),
            address => address,
        })
    }

    /// Name and password as they are now, if it wants any.
    ///
    /// # Errors
    /// The password cannot be read.
    pub(crate) fn credentials(&self) -> Result<Option<(&str, Text)>, String> {
        let (Some(user), Some(source)) = (&self.username, self.keys().source()) else {
            return Ok(None);
        };
        let password = source.read().map_err(|error| error.to_string())?;
        Ok(Some((user, password)))
    }

    /// Of the file with the password.
    pub(crate) fn stamp(&self) -> Stamp {
        Stamp::of(self.password_file.as_deref())
    }

    /// What must not be seen of the credentials, in both forms in which they are sent.
    pub(crate) fn secrets(&self) -> Vec<String> {
        let Ok(Some((user, password))) = self.credentials() else {
            return Vec::new();
        };
        let encoded = STANDARD.encode(format!("{user}:{}", password.expose()));
        vec![encoded, password.expose().to_owned()]
    }

    fn build(&self) -> Result<Option<reqwest::Proxy>, String> {
        let Some(address) = self.address().transpose()? else {
            return Ok(None);
        };
        let proxy = reqwest::Proxy::all(address).map_err(|error| error.to_string())?;
        Ok(Some(match self.credentials()? {
            Some((user, password)) => proxy.basic_auth(user, password.expose()),
            None => proxy,
        }))
    }
}

/// Reads the address of a destination.
///
/// # Errors
/// Why it is none, for the settings' writer.
pub(crate) fn endpoint(text: &str) -> Result<Url, String> {
    let bad = |why: &str| {
        // There may be a password in it.
        let shown = match text.contains('@') {
            true => "it".to_owned(),
            false => format!("`{text}`"),
        };
        format!("{shown} {why}; write http://HOST:PORT or https://HOST:PORT")
    };
    let url = Url::parse(text).map_err(|error| bad(&format!("is no URL ({error})")))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(bad("is no address of a web server"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(
            "has a name or password in it, which would be shown wherever the settings are; give username and password_file"
                .to_owned(),
        );
    }
    Ok(url)
}

/// One request.
pub(crate) struct Request<'a> {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) content_type: &'a str,
    pub(crate) body: Vec<u8>,
}

impl<'a> Request<'a> {
    pub(crate) fn get(url: Url) -> Self {
        Request {
            method: Method::GET,
            url,
            content_type: "application/json",
            body: Vec::new(),
        }
    }

    pub(crate) fn post(url: &Url, content_type: &'a str, body: Vec<u8>) -> Self {
        Request {
            method: Method::POST,
            url: url.clone(),
            content_type,
            body,
        }
    }
}

/// The client of one sink.
pub(crate) struct Http {
    tls: ClientTls,
    proxy: Proxy,
    credentials: Credentials,
    headers: HeaderMap,
    compression: Compression,
    timeout: Duration,
    /// Made anew when a certificate file or that of the proxy's password has changed, or to come to another server.
    client: Mutex<(Client, Stamps)>,
}

impl Http {
    /// Reads the files that the settings name; connects to nothing.
    pub(crate) fn build(options: &Options<'_>) -> Result<Self, String> {
        let headers = options.headers.iter().map(|(name, value)| {
            let name = HeaderName::try_from(name).map_err(|error| error.to_string())?;
            let value = HeaderValue::try_from(value).map_err(|error| error.to_string())?;
            Ok((name, value))
        });
        let stamp = stamps(options.tls, options.proxy);
        let client = client(options.tls, options.proxy, options.timeout)?;
        Ok(Http {
            tls: options.tls.clone(),
            proxy: options.proxy.clone(),
            credentials: Credentials::open(options.auth)?,
            headers: headers.collect::<Result<_, String>>()?,
            compression: options.compression,
            timeout: options.timeout,
            client: Mutex::new((client, stamp)),
        })
    }

    /// Sends a request and reads the whole answer. Where the credentials are refused and their file holds others by now,
    /// it is sent once more.
    ///
    /// # Errors
    /// There is no answer.
    pub(crate) async fn send(&self, request: Request<'_>) -> Result<Answer, Unavailable> {
        let compressed = self.compression == Compression::Gzip && !request.body.is_empty();
        let body = Bytes::from(match compressed {
            true => gzip(&request.body),
            false => request.body,
        });
        let once = async || {
            let mut headers = self.headers.clone();
            if let Ok(value) = HeaderValue::try_from(request.content_type) {
                headers.insert(CONTENT_TYPE, value);
            }
            if compressed {
                headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            }
            self.credentials.put(&mut headers)?;
            let request = self
                .client()
                .request(request.method.clone(), request.url.clone())
                .headers(headers)
                .body(body.clone());
            let answer = request.send().await.map_err(|error| away(&error))?;
            read(answer).await
        };
        let mut answer = once().await?;
        if answer.status.as_u16() == 401 && self.credentials.refused() {
            answer = once().await?;
        }
        if answer.status.as_u16() == 407 {
            self.forget();
        }
        if !answer.status.is_success() {
            self.hide(&mut answer);
        }
        Ok(answer)
    }

    fn hide(&self, answer: &mut Answer) {
        let secrets = self.credentials.secrets().into_iter();
        for secret in secrets.chain(self.proxy.secrets()) {
            answer.hide(&secret);
        }
    }

    /// Goes the way to an address, step by step.
    ///
    /// # Errors
    /// A step failed; it has been told.
    pub(crate) async fn try_out(&self, url: &Url, trial: &Trial) -> Result<(), Failed> {
        let encrypted = url.scheme() == "https";
        let (mut to, mut proxy) = (url.clone(), self.proxy.clone());
        // What is not encrypted is handed to the proxy itself.
        if let (false, Some(Ok(at))) = (encrypted, proxy.address()) {
            (to, proxy) = (at, Proxy::default());
        }
        let dial = Dial {
            host: to.host_str().unwrap_or_default().to_owned(),
            port: to.port_or_known_default().unwrap_or(80),
            tls: encrypted.then(|| self.tls.clone()),
            protocols: &["h2", "http/1.1"],
            proxy,
        };
        dial.try_out(trial).await
    }

    /// Lets go of the connections that are kept open: the next request makes one of its own.
    pub(crate) fn elsewhere(&self) {
        self.renew(&mut self.held(), stamps(&self.tls, &self.proxy));
    }

    /// The proxy refused the password: it is read again for the next request, whatever the file's times say.
    fn forget(&self) {
        self.held().1 = Stamps::default();
    }

    fn client(&self) -> Client {
        let stamp = stamps(&self.tls, &self.proxy);
        let mut held = self.held();
        if held.1 != stamp {
            self.renew(&mut held, stamp);
        }
        held.0.clone()
    }

    fn held(&self) -> MutexGuard<'_, (Client, Stamps)> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn renew(&self, held: &mut (Client, Stamps), stamp: Stamps) {
        match client(&self.tls, &self.proxy, self.timeout) {
            Ok(client) => *held = (client, stamp),
            Err(error) => {
                tracing::warn!(
                    error,
                    "the certificates and the proxy's password that were read before stay in use"
                );
            }
        }
    }
}

/// Of the certificates, and of the proxy's password.
type Stamps = (Stamp, Stamp);

fn stamps(tls: &ClientTls, proxy: &Proxy) -> Stamps {
    (tls.stamp(), proxy.stamp())
}

fn client(tls: &ClientTls, proxy: &Proxy, timeout: Duration) -> Result<Client, String> {
    let config = tls
        .client_config(&["h2", "http/1.1"])
        .map_err(|error| error.to_string())?;
    let mut builder = Client::builder()
        .use_preconfigured_tls(config)
        .no_proxy()
        .redirect(redirect::Policy::none())
        .user_agent(concat!("cresset/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT.min(timeout))
        .timeout(timeout)
        .pool_idle_timeout(IDLE);
    if let Some(proxy) = proxy.build()? {
        builder = builder.proxy(proxy);
    }
    builder.build().map_err(|error| causes(&error))
}

async fn read(mut answer: reqwest::Response) -> Result<Answer, Unavailable> {
    let mut body = Vec::new();
    while let Some(part) = answer.chunk().await.map_err(|error| away(&error))? {
        body.extend_from_slice(&part);
        if body.len() >= MAX_ANSWER {
            body.truncate(MAX_ANSWER);
            break;
        }
    }
    Ok(Answer {
        status: answer.status(),
        headers: answer.headers().clone(),
        body,
    })
}

fn gzip(body: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), Level::fast());
    // Writing into memory does not fail.
    let _ = encoder.write_all(body);
    encoder.finish().unwrap_or_default()
}

fn away(error: &reqwest::Error) -> Unavailable {
    let what = if error.is_timeout() {
        "no answer in time"
    } else if error.is_connect() {
        "cannot connect"
    } else {
        "the request failed"
    };
    Unavailable::new(format!("{what}: {}", causes(error)))
}

/// The error with what is behind it. An address may be a secret (chat webhooks), and reqwest tells it in the first line, so
/// that line is left out where there are others.
pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    let mut causes = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if causes.last() != Some(&text) {
            causes.push(text);
        }
        next = cause.source();
    }
    match causes.is_empty() {
        true => "nothing more is known".to_owned(),
        false => causes.join(": "),
    }
}
