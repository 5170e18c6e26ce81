//! Certificates without an authority to run: the relay has one of its own, and machines join it with a token.
//!
//! ```text
//! cresset token create ─▶ admin socket ─▶ book: digest, role, end          DATA/authority/book.json
//! sensor ─ Join {token, id, PKCS #10} ─▶ link ─▶ book: may it? ─▶ authority signs spiffe://DOMAIN/ROLE/ID
//!        ─ Renew {PKCS #10} over mutual TLS ─▶ book: still a member, with this key? ─▶ authority signs
//! any call with such a certificate ─▶ gate ─▶ book: not revoked, not replaced
//! ```
//! A token is good for one key: whoever lost the answer asks again with the same key and is answered again, anybody
//! else is told who used it. What the book says is on disk before a certificate leaves. The id in a certificate is the
//! one sensor that its holder may speak for, so an id that has a living certificate is given away again only by a token
//! that was made for it by name. Nothing of a request but its key is taken over.

mod authority;
mod book;
mod service;
mod tokens;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use proto::enrolment::{Certificate, JoinRequest};
use proto::{BadToken, JoinToken};
use rcgen::{CertificateSigningRequestParams, PublicKey, PublicKeyData as _};
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use crate::access::{Presented, Role};

pub use authority::AuthorityError;
pub(crate) use authority::{Authority, Server};
use book::Book;
pub(crate) use service::{Counters, OPEN};
pub(crate) use tokens::into_server as tokens_server;

/// Files of the authority, below the data folder.
const FOLDER: &str = "authority";

/// How long certificates of those who joined are good where the settings do not say.
pub(crate) const LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// What the settings say.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Names and addresses that the relay's own certificate carries besides this machine's.
    pub(crate) names: Vec<String>,
    /// How long the certificate of somebody who joined is good.
    pub(crate) lifetime: Duration,
}

/// The authority and who joined it; a cheap handle.
#[derive(Debug, Clone)]
pub(crate) struct Enrolment {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    authority: Authority,
    settings: ArcSwap<Settings>,
    path: PathBuf,
    book: Mutex<Book>,
    /// Told of every change.
    changed: watch::Sender<()>,
}

/// Why somebody gets no certificate, or an administrator no token.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    #[error(transparent)]
    Form(#[from] BadToken),
    #[error(
        "the token is not known here: another relay made it, it was revoked, or it ended more than a week ago; make one with `cresset token create`"
    )]
    Unknown,
    #[error("the token {name} ended at {}; make a new one with `cresset token create`", time(*.at))]
    Ended { name: String, at: u64 },
    #[error(
        "the token {name} was used by {by} at {}; a token is good for one machine: make a new one with `cresset token create`",
        time(*.at)
    )]
    Used { name: String, by: String, at: u64 },
    #[error("the token {name} is for the role {is}, and {wanted} was asked for")]
    Role {
        name: String,
        is: Role,
        wanted: String,
    },
    #[error("the token {name} is for {id} and nobody else")]
    Holder { name: String, id: String },
    #[error(
        "{who} has a certificate with another key until {}; if this machine takes its place, make a token for it by name: `cresset token create --role {role} --id {id}`",
        time(*.until)
    )]
    Taken {
        who: String,
        role: Role,
        id: String,
        until: u64,
    },
    #[error("an id has 1 to 253 letters, digits, dots, dashes and underscores")]
    Id,
    #[error("there is no role `{0}` to join as; it is one of sensor, relay, reader")]
    NoRole(String),
    #[error("the certificate request cannot be used: {0}")]
    Request(rcgen::Error),
    #[error(
        "this certificate is not of this relay's authority, or was revoked or replaced; join with a new token"
    )]
    NoMember,
    #[error("{0} is neither a token nor anybody who joined; `cresset token list` shows both")]
    NotFound(String),
    #[error("a token ends within a minute to thirty days")]
    Ttl,
    #[error("there are as many tokens as there may be; `cresset token revoke` takes some out")]
    Full,
    #[error("the authority cannot sign: {0}")]
    Sign(rcgen::Error),
    #[error("no random bytes: {0}")]
    Random(getrandom::Error),
    #[error("cannot write {path}: {source}")]
    Write {
        path: PathBuf,
        source: std::io::Error,
    },
}

/// What is written at a certificate's or token's end: seconds are enough.
fn time(unix: u64) -> jiff::Timestamp {
    let seconds = i64::try_from(unix).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::MAX)
}

// === impl Enrolment ===

impl Enrolment {
    /// Opens the authority of a data folder, making it when there is none.
    ///
    /// # Errors
    /// Its files cannot be read, or not written.
    pub(crate) fn open(data_dir: &Path, settings: Settings) -> Result<Self, AuthorityError> {
        let folder = data_dir.join(FOLDER);
        let authority = Authority::open(&folder)?;
        let path = folder.join("book.json");
        let book = Book::load(&path)?;
        let inner = Inner {
            authority,
            settings: ArcSwap::from_pointee(settings),
            path,
            book: Mutex::new(book),
            changed: watch::Sender::new(()),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    pub(crate) fn authority(&self) -> &Authority {
        &self.inner.authority
    }

    /// A new certificate for the relay itself.
    pub(crate) fn server(&self) -> Result<Server, AuthorityError> {
        self.inner
            .authority
            .server(&self.inner.settings.load().names)
    }

    /// Makes a token; only its holder will know it.
    fn create(&self, role: &str, ttl: Duration, id: &str) -> Result<JoinToken, Refused> {
        let role = joinable(role)?;
        if !id.is_empty() {
            check_id(id)?;
        }
        if !(60..=30 * 24 * 3600).contains(&ttl.as_secs()) {
            return Err(Refused::Ttl);
        }
        let token = JoinToken::draw(*self.inner.authority.pin()).map_err(Refused::Random)?;
        let now = now();
        self.change(|book| book.issue(&token, role, id, now, now + ttl.as_secs()))?;
        Ok(token)
    }

    /// Gives a certificate for a token.
    fn join(&self, request: &JoinRequest) -> Result<Joined, Refused> {
        let token: JoinToken = request.token.parse()?;
        // Before anything that costs: nobody has shown a certificate here.
        self.book().knows(&token)?;
        let key = public_key(&request.request)?;
        let digest = digest(&key);
        let (wanted, id, now) = (&request.role, &request.id, now());
        check_id(id)?;
        let lifetime = self.lifetime();
        let role = self.change(|book| {
            let role = book.redeem(&token, wanted, id, &digest, now)?;
            book.admit(role, id, digest, now, now + lifetime.as_secs());
            Ok(role)
        })?;
        Ok(Joined {
            certificate: self.sign(&key, role, id)?,
            who: format!("{role}/{id}"),
            token: token.name(),
        })
    }

    /// Gives the holder of a good certificate the next one.
    fn renew(&self, presented: &Presented, request: &[u8]) -> Result<Certificate, Refused> {
        let (role, id) = self.member(presented).ok_or(Refused::NoMember)?;
        let key = public_key(request)?;
        let (digest, now) = (digest(&key), now());
        let expires = now + self.lifetime().as_secs();
        self.change(|book| book.renew(role, &id, presented.key, digest, now, expires))?;
        self.sign(&key, role, &id)
    }

    fn sign(&self, key: &PublicKey, role: Role, id: &str) -> Result<Certificate, Refused> {
        let signed = self.inner.authority.sign(key, role, id, self.lifetime());
        signed.map_err(Refused::Sign)
    }

    fn lifetime(&self) -> Duration {
        self.inner.settings.load().lifetime
    }

    /// Takes over the settings of another over the same folder. Who joined stays as this one knows it.
    pub(crate) fn replace(&self, other: &Enrolment) {
        self.inner.settings.store(other.inner.settings.load_full());
    }

    /// Takes out a token by its name, or somebody by ROLE/ID.
    fn revoke(&self, name: &str) -> Result<(), Refused> {
        self.change(|book| book.revoke(name))
    }

    /// Whether a certificate of this authority is good for nothing any more. Others' are not judged here.
    pub(crate) fn is_void(&self, presented: &Presented) -> bool {
        presented.is_of(self.inner.authority.domain()) && self.member(presented).is_none()
    }

    /// Ends when a certificate has become good for nothing.
    pub(crate) async fn until_void(&self, presented: &Presented) {
        let mut changed = self.inner.changed.subscribe();
        while !self.is_void(presented) {
            // The sender is in here.
            let _ = changed.changed().await;
        }
    }

    fn member(&self, presented: &Presented) -> Option<(Role, String)> {
        let (role, id) = presented
            .is_of(self.inner.authority.domain())
            .then(|| presented.named())??;
        let known = self.book().holds(role, id, &presented.key);
        known.then(|| (role, id.to_owned()))
    }

    /// Changes the book on disk, then in memory.
    fn change<T>(
        &self,
        change: impl FnOnce(&mut Book) -> Result<T, Refused>,
    ) -> Result<T, Refused> {
        let mut book = self.book();
        let mut changed = book.clone();
        changed.forget(now());
        let answer = change(&mut changed)?;
        changed
            .save(&self.inner.path)
            .map_err(|source| Refused::Write {
                path: self.inner.path.clone(),
                source,
            })?;
        *book = changed;
        self.inner.changed.send_replace(());
        Ok(answer)
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        // It is replaced whole.
        self.inner
            .book
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody who was let in.
struct Joined {
    certificate: Certificate,
    who: String,
    /// The token's name.
    token: String,
}

/// A role that certificates are given for. Whoever may use the admin socket needs none.
fn joinable(role: &str) -> Result<Role, Refused> {
    Role::named(role)
        .filter(|role| *role != Role::Admin)
        .ok_or_else(|| Refused::NoRole(role.to_owned()))
}

/// What may stand in a SPIFFE ID's path (SPIFFE-ID, 2.2).
fn check_id(id: &str) -> Result<(), Refused> {
    let good = |letter: u8| letter.is_ascii_alphanumeric() || b".-_".contains(&letter);
    let dots = id.bytes().all(|letter| letter == b'.');
    if id.len() <= 253 && !dots && id.bytes().all(good) {
        Ok(())
    } else {
        Err(Refused::Id)
    }
}

/// The key of a request that was signed with it.
fn public_key(request: &[u8]) -> Result<PublicKey, Refused> {
    CertificateSigningRequestParams::from_der(&request.into())
        .map(|request| request.public_key)
        .map_err(Refused::Request)
}

fn digest(key: &PublicKey) -> [u8; 32] {
    Sha256::digest(key.subject_public_key_info()).into()
}

/// Unix seconds.
fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}
